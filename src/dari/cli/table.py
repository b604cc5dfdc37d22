"""Output for people: tables, ages, sizes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, three spaces apart, as Docker prints them."""
    widths = [max(len(row[index]) for row in (titles, *rows)) for index in range(len(titles))]
    lines = []
    for row in (titles, *rows):
        cells = [f"{cell:<{width}}" for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("   ".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """`About a minute`, `3 hours`, `2 weeks`: the words Docker uses (go-units HumanDuration)."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"


def ago(created: str | int, now: float) -> str:
    """`3 hours ago` of a Unix time or an RFC 3339 time; "N/A" of Go's zero time."""
    moment = timestamp(created)
    return f"{duration(max(0.0, now - moment))} ago" if moment > 0 else "N/A"


def timestamp(created: str | int) -> float:
    """Seconds since the epoch of a Unix time or an RFC 3339 time."""
    if isinstance(created, int):
        return float(created)
    return datetime.fromisoformat(_micro(created)).timestamp()


def local_time(created: str | int) -> str:
    """`2024-05-01 10:00:00 +0000 UTC`, as `ps --format {{.CreatedAt}}` shows it."""
    return datetime.fromtimestamp(timestamp(created), UTC).strftime("%Y-%m-%d %H:%M:%S +0000 UTC")


def ports(entries: Sequence[dict[str, object]]) -> str:
    """The PORTS column: `0.0.0.0:8080->80/tcp, 9090/tcp`; runs of ports joined (`8000-8002->8000-8002/tcp`)."""
    groups: list[
        list[object]
    ] = []  # host address, first public, last public, first private, last private, proto
    known = sorted(
        entries,
        key=lambda e: (
            str(e.get("Type")),
            ":" in str(e.get("IP", "")),
            str(e.get("IP", "")),
            int(str(e["PrivatePort"])),
            int(str(e.get("PublicPort") or 0)),
        ),
    )
    for entry in known:
        address, proto = str(entry.get("IP") or ""), str(entry.get("Type") or "tcp")
        private, public = int(str(entry["PrivatePort"])), int(str(entry.get("PublicPort") or 0))
        last = groups[-1] if groups else None
        if (
            last is not None
            and (last[0], last[5]) == (address, proto)
            and last[4] == private - 1
            and (last[2] == public - 1 if public else last[2] == 0)
        ):
            last[2], last[4] = public, private
        else:
            groups.append([address, public, public, private, private, proto])
    return ", ".join(_port_group(group) for group in groups)


def _port_group(group: list[object]) -> str:
    address, first_public, last_public, first, last, proto = group
    private = f"{first}" if first == last else f"{first}-{last}"
    if not first_public:
        return f"{private}/{proto}"
    public = f"{first_public}" if first_public == last_public else f"{first_public}-{last_public}"
    host = f"[{address}]" if ":" in str(address) else f"{address}"
    return f"{host}:{public}->{private}/{proto}"


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
