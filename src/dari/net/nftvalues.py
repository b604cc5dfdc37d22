"""What nftables rules see of a packet, and how it compares with what they spell.

Must not know: chains, verdicts, who sends. Source: nft(8), "Data types", "Primary expressions". Next: verdict.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import TypeAlias

from dari.net.nfttext import Values
from dari.net.scope import Key
from dari.net.state import Address

Value: TypeAlias = Address | int | str | frozenset[str] | None
"""None: the packet has no such thing, the rule does not apply."""


@dataclass(frozen=True, slots=True)
class Flight:
    """A packet at one moment. `original`: source, port, destination, port of the connection's first packet.
    `icmp_type`: of one that is no ping."""

    source: Address
    destination: Address
    protocol: str
    source_port: int
    port: int
    in_link: str = ""
    out_link: str = ""
    mark: int = 0
    ct_state: str = ""
    ct_status: frozenset[str] = frozenset()
    original: tuple[Address, int, Address, int] | None = None
    is_reply: bool = False
    icmp_type: str = ""


class Elements:
    """The elements of one set or map: by their spelling, and those that stand for many."""

    def __init__(self, pairs: Iterable[tuple[str, str, Key | None]]) -> None:
        self._exact: dict[str, tuple[str, Key | None]] = {}
        self._wide: list[tuple[tuple[str, ...], str, Key | None]] = []
        for element, value, key in pairs:
            if _is_wide(element):
                self._wide.append((tuple(element.split(" . ")), value, key))
            else:
                self._exact[element] = (value, key)

    def find(self, values: tuple[Value, ...]) -> tuple[str, Key | None] | None:
        """The value of the element (empty in a set) and its key; None where it is not in.

        Raises ValueError where an element is not understood.
        """
        found = self._exact.get(" . ".join(_spelled(each) for each in values))
        if found is not None:
            return found
        for parts, value, key in self._wide:
            if len(parts) == len(values) and all(map(_is_in, values, parts)):
                return value, key
        return None


def family_of(flight: Flight) -> str:
    return "ip" if flight.destination.version == 4 else "ip6"


_PORTS = {"tcp": frozenset(("tcp", "th")), "udp": frozenset(("udp", "th")), "sctp": frozenset(("sctp", "th"))}


def value_of(name: str, flight: Flight) -> Value:
    """Raises LookupError for what is not known."""
    head, _, tail = name.partition(" ")
    if tail in ("dport", "sport"):
        if head == "th" and flight.protocol not in _PORTS:
            # Whatever the packet has there: only a range of all ports is sure to hold it.
            return 0
        if head not in _PORTS.get(flight.protocol, ()):
            if head in ("tcp", "udp", "sctp", "dccp", "udplite"):
                return None
            raise LookupError(name)
        return flight.port if tail == "dport" else flight.source_port
    if head in ("ip", "ip6") and tail in ("saddr", "daddr"):
        address = flight.source if tail == "saddr" else flight.destination
        return address if head == family_of(flight) else None
    if name.startswith("ct original "):
        return _original(name, flight)
    four = flight.destination.version == 4
    is_tracked = flight.ct_state not in ("", "invalid", "untracked")
    match name:
        case "iifname":
            return flight.in_link
        case "oifname":
            return flight.out_link
        case "iif":
            return flight.in_link or None
        case "oif":
            return flight.out_link or None
        case "meta mark":
            return flight.mark
        case "ct mark":
            return 0 if is_tracked else None
        case "meta l4proto":
            return _protocol(flight)
        case "ip protocol":
            return _protocol(flight) if four else None
        case "ip6 nexthdr":
            return None if four else _protocol(flight)
        case "meta nfproto":
            return "ipv4" if four else "ipv6"
        case "meta protocol":
            return "ip" if four else "ip6"
        case "meta pkttype":
            return frozenset(("host", "unicast"))
        case "ct state":
            return frozenset((flight.ct_state or "invalid",))
        case "ct status":
            return flight.ct_status if is_tracked else None
        case "ct direction":
            if not is_tracked:
                return None
            return frozenset(("reply" if flight.is_reply else "original",))
        case "icmp type" | "icmpv6 type":
            if flight.protocol != "icmp" or four != (name == "icmp type"):
                return None
            if flight.icmp_type:
                return flight.icmp_type
            return "echo-reply" if flight.is_reply else "echo-request"
        case "tcp flags":
            if flight.protocol != "tcp":
                return None
            return frozenset(("syn", "ack") if flight.is_reply else ("syn",))
        case _:
            raise LookupError(name)


def _original(name: str, flight: Flight) -> Value:
    if flight.original is None:
        return None
    source, source_port, destination, port = flight.original
    words = name.split()
    if len(words) == 4 and words[2] != family_of(flight):
        return None
    values: dict[str, Value] = {
        "saddr": source,
        "daddr": destination,
        "proto-src": source_port,
        "proto-dst": port,
    }
    return values[words[-1]]


def _protocol(flight: Flight) -> str:
    if flight.protocol == "icmp" and flight.destination.version == 6:
        return "ipv6-icmp"
    return flight.protocol


_NUMBERS = {"1": "icmp", "6": "tcp", "17": "udp", "58": "ipv6-icmp", "132": "sctp", "icmpv6": "ipv6-icmp"}


def _is_wide(element: str) -> bool:
    return any(
        "*" in part if part.startswith('"') else "/" in part or "-" in part or part.startswith("0x")
        for part in element.split(" . ")
    )


def _spelled(value: Value) -> str:
    if isinstance(value, str):
        # Interfaces are listed in quotes, protocols are not.
        return value if value in _WORDS else f'"{value}"'
    return str(value)


_WORDS = frozenset(
    ("tcp", "udp", "sctp", "icmp", "ipv6-icmp", "ipv4", "ipv6", "ip", "ip6", "local", "unicast", "broadcast")
)


def compare(values: tuple[Value, ...], operator: str, right: Values) -> bool:
    if operator in ("<", ">", "<=", ">="):
        value, limit = values[0], int(right.items[0], 0)
        if not isinstance(value, int):
            raise ValueError(operator)
        return {"<": value < limit, ">": value > limit, "<=": value <= limit, ">=": value >= limit}[operator]
    is_in = False
    for item in right.items:
        parts = item.split(" . ")
        if len(parts) != len(values):
            raise ValueError(item)
        is_in = is_in or all(map(_is_in, values, parts))
    return is_in == (operator == "==")


def _is_in(value: Value, item: str) -> bool:
    """Raises ValueError where the item is not of the value's kind."""
    if isinstance(value, frozenset):
        return item in value
    if isinstance(value, int):
        first, separator, last = item.partition("-")
        return int(first, 0) <= value <= int(last if separator else first, 0)
    if isinstance(value, str):
        bare = item.strip('"')
        if bare.endswith("*"):
            return value.startswith(bare[:-1])
        return value in (bare, _NUMBERS.get(bare))
    if value is None:
        return False
    low, high = _span(item)
    return low.version == value.version and int(low) <= int(value) <= int(high)


@lru_cache(maxsize=4096)
def _span(item: str) -> tuple[Address, Address]:
    first, separator, last = item.partition("-")
    if separator:
        return ip_address(first), ip_address(last)
    network = ip_network(item)
    return network.network_address, network.broadcast_address


def masked(value: int, masks: tuple[tuple[str, str], ...]) -> int:
    for operator, text in masks:
        number = int(text, 0)
        match operator:
            case "&":
                value &= number
            case "|":
                value |= number
            case "^":
                value ^= number
            case "<<":
                value <<= number
            case _:
                value >>= number
    return value
