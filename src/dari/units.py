"""Sizes, durations, times, ids and name rules.

The only module that both the daemon and the command line share, so it imports nothing but the standard
library and nothing of dari. Parsing follows Docker's `go-units` and Go's `time.ParseDuration`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

NANOSECOND = 1
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_GLOBAL_LENGTH = 25
SECOND = 1_000_000_000

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?b)?\s*\Z", re.IGNORECASE)
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h|d)")
_DURATION_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
    "d": 24 * 3600 * SECOND,
}
_SIZE_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
ZERO_TIME = "0001-01-01T00:00:00Z"


def new_id() -> str:
    """A fresh object id: 64 lower-case hex digits that are not all decimal in the first twelve.

    A short id that looks like a number would be read as one by DNS and shells, so such ids are skipped.
    """
    from secrets import token_hex  # 4 ms of imports, which the command line need not pay

    while True:
        value = token_hex(32)
        if not value[:12].isdigit():
            return value


def new_global_id() -> str:
    """A fresh id of an object several hosts share: 25 characters of 0-9a-z, as Docker's cluster objects have."""
    from secrets import choice

    while True:
        value = "".join(choice(_BASE36) for _ in range(_GLOBAL_LENGTH))
        if not value[:12].isdigit():
            return value


def is_global_id(value: str) -> bool:
    """Whether an id is one of `new_global_id`'s: ids of this host's own objects are longer."""
    return len(value) == _GLOBAL_LENGTH and value.isalnum()


def short_id(value: str) -> str:
    """The first twelve digits of an id, a `sha256:` prefix removed."""
    return value.removeprefix("sha256:")[:12]


def is_valid_name(name: str) -> bool:
    """Whether `name` may name a container, network or volume: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`."""
    return _NAME.match(name) is not None


def parse_size(text: str | int, base: int = 1024) -> int:
    """Bytes of a size such as `512m`, `1.5g`, `64kb`, `1024` (powers of `base`). Raises ValueError."""
    if isinstance(text, int):
        return text
    match = _SIZE.match(text)
    if match is None:
        raise ValueError(f"invalid size: {text!r}")
    number, unit, _ = match.groups()
    return int(float(number) * base ** _SIZE_POWER[unit.lower()])


def format_size(size: float, *, binary: bool = False, digits: int = 0) -> str:
    """A size for people: `1.45kB`, or `1.415KiB` when binary; `digits` significant ones, else three and four."""
    base = 1024.0 if binary else 1000.0
    names = ("B", "KiB", "MiB", "GiB", "TiB", "PiB") if binary else ("B", "kB", "MB", "GB", "TB", "PB")
    index = 0
    while size >= base and index < len(names) - 1:
        size /= base
        index += 1
    return f"{size:.{digits or (4 if binary else 3)}g}{names[index]}"


def in_words(ns: int) -> str:
    """A rough duration of so many nanoseconds: `Less than a second`, `3 seconds`, `About a minute`, `2 weeks`.

    The arithmetic of Docker's go-units, `HumanDuration`.
    """
    seconds = max(0, ns) // SECOND
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, size, word in (
        (48, 1, "hours"),
        (24 * 7 * 2, 24, "days"),
        (24 * 30 * 2, 24 * 7, "weeks"),
        (24 * 365 * 2, 24 * 30, "months"),
    ):
        if hours < limit:
            return f"{hours // size} {word}"
    return f"{seconds // (3600 * 24 * 365)} years"


def parse_duration(text: str) -> int:
    """Nanoseconds of a Go duration such as `1m30s`, `500ms`, `1.5h`. Raises ValueError."""
    rest = text.strip()
    sign = -1 if rest.startswith("-") else 1
    rest = rest.lstrip("+-")
    if rest == "0":
        return 0
    total, position = 0.0, 0
    while position < len(rest):
        match = _DURATION_PART.match(rest, position)
        if match is None:
            raise ValueError(f"invalid duration: {text!r}")
        total += float(match.group(1)) * _DURATION_UNITS[match.group(2)]
        position = match.end()
    if position == 0:
        raise ValueError(f"invalid duration: {text!r}")
    return sign * round(total)


def format_time(ns: int) -> str:
    """RFC 3339 with nanoseconds, UTC, trailing zeros dropped as Go does; 0 is Go's zero time."""
    return format_moment(ns) if ns > 0 else ZERO_TIME


def format_moment(ns: int) -> str:
    """The same where 0 and what is before it are times as all others: a file may be of 1970."""
    seconds, fraction = divmod(ns, SECOND)
    base = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if not fraction:
        return f"{base}Z"
    return f"{base}.{fraction:09d}".rstrip("0") + "Z"


def parse_time(text: str, now_ns: int) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time, `seconds[.nanoseconds]`, or a duration ago.

    Docker's `since` and `until` accept all three forms. Raises ValueError.
    """
    text = text.strip()
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        seconds, _, fraction = text.partition(".")
        return int(seconds) * SECOND + int((fraction + "0" * 9)[:9] or 0)
    if "T" in text or re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        fraction_ns = 0
        match = re.match(r"(.*T\d{2}:\d{2}(?::\d{2})?)(?:\.(\d+))?(.*)\Z", text)
        if match:
            fraction_ns = int(((match.group(2) or "") + "0" * 9)[:9])
            text = match.group(1) + match.group(3)
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return int(moment.timestamp()) * SECOND + fraction_ns
    return now_ns - parse_duration(text)
