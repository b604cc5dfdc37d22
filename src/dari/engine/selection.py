"""What filters of all nouns have in common: labels, booleans, moments. Pure.

Source: Docker Engine API v1.51, `filters` parameters. Must not know: any noun.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from dari.model.errors import InvalidArgument
from dari.units import parse_time

_BOOLEANS = {"1": True, "true": True, "True": True, "0": False, "false": False, "False": False}


def check(filters: Iterable[str], allowed: Container[str]) -> None:
    """Raises InvalidArgument for a filter that is not known."""
    for name in filters:
        if name not in allowed:
            raise InvalidArgument(f"invalid filter '{name}'")


def has_label(labels: Mapping[str, str], asked: str) -> bool:
    """`name` or `name=value`."""
    name, has_value, value = asked.partition("=")
    return name in labels and (not has_value or labels[name] == value)


def truth(name: str, values: Sequence[str]) -> bool:
    """The one boolean a filter holds. Raises InvalidArgument."""
    found = {_BOOLEANS.get(value) for value in values}
    if len(found) != 1 or None in found:
        raise InvalidArgument(f"invalid filter '{name}=[{' '.join(values)}]'")
    return found.pop() is True


def moment(values: Sequence[str], now: int) -> int:
    """The one time a filter holds, ns since the epoch. Raises InvalidArgument."""
    if len(values) != 1:
        raise InvalidArgument("more than one until filter specified")
    try:
        return parse_time(values[0], now)
    except ValueError as error:
        raise InvalidArgument(f"invalid filter 'until={values[0]}': {error}") from error
