"""Signal names and numbers as Docker's API takes them: `KILL`, `sigterm`, `9`, `RTMIN+3`."""

from __future__ import annotations

import signal

from dari.model.errors import InvalidArgument

_RT_MIN, _RT_MAX = 34, 64


def parse_signal(text: str) -> int:
    """The number of a signal. Raises InvalidArgument."""
    if text.isdigit():
        number = int(text)
        if 0 < number <= _RT_MAX:
            return number
        raise InvalidArgument(f"invalid signal: {text}")
    name = text.upper().removeprefix("SIG")
    base, plus, offset = name.partition("+")
    if base == "RTMIN" and (not plus or offset.isdigit()):
        number = _RT_MIN + int(offset or 0)
        if number <= _RT_MAX:
            return number
    base, minus, offset = name.partition("-")
    if base == "RTMAX" and (not minus or offset.isdigit()):
        number = _RT_MAX - int(offset or 0)
        if number >= _RT_MIN:
            return number
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        raise InvalidArgument(f"invalid signal: {text}") from None
