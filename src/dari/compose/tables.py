"""Tables, times and ports as Docker prints them. Pure text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, least: int = 10, between: int = 3) -> str:
    """Columns `between` blanks apart and, blanks included, at least `least` wide, as Docker prints them."""
    lines = [list(headers), *[list(row) for row in rows]]
    widths = [max(least, *(len(line[column]) + between for line in lines)) for column in range(len(headers))]
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def ago(seconds: float) -> str:
    """`2 minutes ago`, in Docker's steps."""
    seconds = int(max(seconds, 0))
    if seconds < 1:
        return "Less than a second ago"
    if seconds < 60:
        return f"{seconds} second{'s' if seconds > 1 else ''} ago"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute ago"
    if minutes < 60:
        return f"{minutes} minutes ago"
    hours = round(seconds / 3600)
    if hours == 1:
        return "About an hour ago"
    for limit, size, word in (
        (48, 1, "hours"),
        (24 * 14, 24, "days"),
        (24 * 60, 24 * 7, "weeks"),
        (24 * 730, 24 * 30, "months"),
    ):
        if hours < limit:
            return f"{hours // size} {word} ago"
    return f"{hours // (24 * 365)} years ago"


def ports(entries: Iterable[Mapping[str, Any]]) -> str:
    """`0.0.0.0:8080->80/tcp, 443/tcp`, neighbours joined into ranges."""
    groups: dict[tuple[str, str, int | None], list[tuple[int, int]]] = {}
    for entry in sorted(
        entries, key=lambda one: (one.get("PrivatePort", 0), one.get("Type", ""), one.get("IP", ""))
    ):
        private, public = entry.get("PrivatePort", 0), entry.get("PublicPort", 0)
        address = entry.get("IP", "") if public else ""
        key = (address, entry.get("Type", "tcp"), public - private if public else None)
        ranges = groups.setdefault(key, [])
        if ranges and ranges[-1][1] + 1 == private:
            ranges[-1] = (ranges[-1][0], private)
        elif not ranges or ranges[-1][1] != private:
            ranges.append((private, private))
    found = []
    for (address, kind, offset), ranges in groups.items():
        for first, last in ranges:
            inside = f"{first}" if first == last else f"{first}-{last}"
            if offset is None:
                found.append(f"{inside}/{kind}")
                continue
            outside = f"{first + offset}" if first == last else f"{first + offset}-{last + offset}"
            shown = f"[{address}]" if ":" in address else address
            found.append(f"{shown}:{outside}->{inside}/{kind}")
    return ", ".join(found)


def size(number: float) -> str:
    """A size as `images` prints it: 1.45MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}TB"


def shorten(text: str, width: int) -> str:
    """The text cut to `width`, with an ellipsis."""
    return text if len(text) <= width else text[: width - 1] + "…"
