"""How a network's names are answered: its options, and the label that says how much a container gets. Pure.

Must not know: DNS.
"""

from __future__ import annotations

from collections.abc import Mapping

from dari.model.errors import InvalidArgument

ORDER = "dari.dns.order"
TTL = "dari.dns.ttl"
WEIGHT = "dari.weight"
"""A label of containers."""

_ORDERS = ("random", "round-robin", "weighted")
_LONGEST_TTL = 604_800
_HEAVIEST = 65_535


def check(options: Mapping[str, str]) -> None:
    """Raises InvalidArgument for an option that is wrong."""
    wanted = options.get(ORDER, "random")
    if wanted not in _ORDERS:
        raise InvalidArgument(f"invalid {ORDER} {wanted!r}: {', '.join(_ORDERS)} are known")
    text = options.get(TTL, "0")
    if not _is_number(text, _LONGEST_TTL):
        raise InvalidArgument(f"invalid {TTL} {text!r}: give seconds from 0 to {_LONGEST_TTL}")


def check_weight(text: str) -> None:
    """Raises InvalidArgument."""
    if text and not _is_number(text, _HEAVIEST):
        raise InvalidArgument(f"label {WEIGHT}: {text!r} is no number from 0 to {_HEAVIEST}")


def order(options: Mapping[str, str]) -> str:
    """`random`, as Docker has it, where nothing else is said."""
    wanted = options.get(ORDER, "random")
    return wanted if wanted in _ORDERS else "random"


def ttl(options: Mapping[str, str]) -> int:
    """Seconds."""
    text = options.get(TTL, "0")
    return int(text) if _is_number(text, _LONGEST_TTL) else 0


def weight(text: str) -> int:
    """1 where nothing is said."""
    return int(text) if _is_number(text, _HEAVIEST) else 1


def _is_number(text: str, most: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 8 and int(text) <= most
