"""Output for people: tables, ages, sizes. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from dari.units import SECOND, in_words


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, three spaces apart and at least ten wide, as Docker prints them."""
    widths = [max(10, *(len(row[index]) + 3 for row in (titles, *rows))) for index in range(len(titles))]
    lines = []
    for row in (titles, *rows):
        cells = [f"{cell:<{width}}" for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines)


_LEAST_TEXT = 24


def fitted(lines: Sequence[str], width: int | None) -> list[str]:
    """Lines cut at blanks where they are wider than a terminal, what follows set below the last of a line's columns;
    `width` None: there is no terminal, and nothing is cut."""
    return [part for line in lines for part in (_cut(line, width) if width and len(line) > width else [line])]


def _cut(line: str, width: int) -> list[str]:
    start = len(line) - len(line.lstrip())
    # Columns are two blanks apart, and end where the first sentence begins.
    columns = re.match(r"\s*\S \S+ +\S+  +|\s*(?:[✓✗!·] |why: |do:  |to do: )?", line)
    hang = columns.end() if columns is not None else start
    if width - hang < _LEAST_TEXT:
        hang = start + 2
    parts, rest, blanks = [], line, start
    while len(rest) > width:
        at = rest.rfind(" ", 0, width + 1)
        if at <= blanks:
            break
        parts.append(rest[:at].rstrip())
        blanks = hang
        rest = " " * hang + rest[at:].lstrip()
    return [*parts, rest]


def terminal_width() -> int | None:
    """Of stdout; None where it is no terminal."""
    try:
        return os.get_terminal_size(1).columns or None
    except OSError:
        return None


def ago(created: str | int, now: float) -> str:
    """`3 hours ago` of a Unix time or an RFC 3339 time; "N/A" of Go's zero time."""
    moment = timestamp(created)
    return f"{in_words(int(max(0.0, now - moment) * SECOND))} ago" if moment > 0 else "N/A"


def timestamp(created: str | int) -> float:
    """Seconds since the epoch of a Unix time or an RFC 3339 time."""
    if isinstance(created, int):
        return float(created)
    return datetime.fromisoformat(_micro(created)).timestamp()


def local_time(created: str | int) -> str:
    """`2024-05-01 10:00:00 +0000 UTC`, as `ps --format {{.CreatedAt}}` shows it."""
    return datetime.fromtimestamp(timestamp(created), UTC).strftime("%Y-%m-%d %H:%M:%S +0000 UTC")


def exact_time(created: str) -> str:
    """`2024-05-01 10:00:00.123456789 +0000 UTC` of an RFC 3339 time in UTC, as Go prints times; others stay."""
    match = re.fullmatch(r"(\d+-\d+-\d+)T(\d+:\d+:\d+)(\.\d+)?Z", created)
    if match is None:
        return created
    fraction = (match[3] or "").rstrip("0").rstrip(".")
    return f"{match[1]} {match[2]}{fraction} +0000 UTC"


def ports(entries: Sequence[dict[str, Any]]) -> str:
    """The PORTS column: `9000-9002/tcp, 0.0.0.0:8080->80/tcp`, ordered and joined as Docker does.

    Neighbouring ports that keep their number are one range; ports published under another number come last.
    """
    groups: dict[tuple[str, str], tuple[int, int]] = {}
    done: list[str] = []
    renumbered: list[str] = []
    for entry in sorted(entries, key=_port_order):
        private, public = entry["PrivatePort"], entry.get("PublicPort") or 0
        address, proto = entry.get("IP") or "", entry.get("Type") or "tcp"
        if public and public != private:
            renumbered.append(f"{_bracketed(address)}:{public}->{private}/{proto}")
            continue
        key = (_bracketed(address) if public else "", proto)
        first, last = groups.get(key, (private, private))
        if private - last > 1:
            done.append(_port_group(key, first, last))
            first = private
        groups[key] = (first, private)
    done += [_port_group(key, *bounds) for key, bounds in groups.items()]
    return ", ".join(done + renumbered)


def _port_order(entry: dict[str, Any]) -> tuple[int, str, int, str]:
    return entry["PrivatePort"], entry.get("IP") or "", entry.get("PublicPort") or 0, entry.get("Type") or ""


def _port_group(key: tuple[str, str], first: int, last: int) -> str:
    address, proto = key
    span = f"{first}" if first == last else f"{first}-{last}"
    return f"{address}:{span}->{span}/{proto}" if address else f"{span}/{proto}"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters, an ellipsis in place of the rest."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _micro(text: str) -> str:
    """RFC 3339 with at most microseconds, which is all that datetime takes."""
    text = text.replace("Z", "+00:00")
    head, dot, tail = text.partition(".")
    if not dot:
        return text
    digits = len(tail) - len(tail.lstrip("0123456789"))
    return f"{head}.{tail[:digits][:6].ljust(6, '0')}{tail[digits:]}"
