"""Host ports, pure: which one a container's port is published on.

Who holds which port comes in as an argument, and so does the answer whether a foreign socket sits on one; the
caller's transaction makes the choice stick. Must not know: sockets, stores, containers.
Source: Docker Engine API v1.51, `HostConfig.PortBindings`; texts as dockerd's port allocator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from dari.model.errors import InvalidArgument, PortInUse
from dari.net.desired import Protocol

UNSPECIFIED = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Asked:
    """Container ports wanted on `host_ips` (the same ports on each).

    `count` of them from `container_port` on, at as many host ports from `first` on; a single one (`count` 1) at any
    host port of `first` to `last`, `first` 0 = any free one.
    """

    protocol: Protocol
    container_port: int
    host_ips: tuple[str, ...]
    first: int = 0
    last: int = 0
    count: int = 1


@dataclass(frozen=True, slots=True)
class Picked:
    """`host_port`, and as many behind it as were asked, on each of `asked.host_ips`."""

    asked: Asked
    host_port: int


class Taken:
    """Who has which host ports: addresses by protocol and port. An unspecified address covers its family."""

    def __init__(self, holders: Iterable[tuple[str, str, int, int]] = ()) -> None:
        """`holders`: protocol, address, first and last port."""
        self._single: dict[tuple[str, int], set[str]] = {}
        self._ranges: list[tuple[str, str, int, int]] = []
        for protocol, address, first, last in holders:
            self.add(protocol, address, first, last)

    def add(self, protocol: str, address: str, first: int, last: int) -> None:
        if first == last:
            self._single.setdefault((protocol, first), set()).add(address)
        else:
            self._ranges.append((protocol, address, first, last))

    def find(self, protocol: str, address: str, first: int, last: int) -> int | None:
        """The lowest of these ports that `address`, one that covers it, or one that it covers, has."""
        found = [
            max(first, low)
            for other_protocol, other, low, high in self._ranges
            if other_protocol == protocol and low <= last and first <= high and _meet(address, other)
        ]
        if last - first < len(self._single):
            numbers: Iterable[int] = range(first, last + 1)
        else:
            numbers = (port for kind, port in self._single if kind == protocol and first <= port <= last)
        for port in numbers:
            others = self._single.get((protocol, port))
            if others and any(_meet(address, each) for each in others):
                found.append(port)
        return min(found, default=None)


def _meet(one: str, other: str) -> bool:
    """Whether two addresses of the host are the same, or one is every address of the other's family."""
    if one == other:
        return True
    return (one in UNSPECIFIED or other in UNSPECIFIED) and (":" in one) == (":" in other)


Refusal = Callable[[Asked, str, int], str]
"""Why somebody outside of dari keeps the ports (address, first port) from us; empty where nobody does."""


def pick_ports(
    asked: Iterable[Asked], taken: Taken, ephemeral: tuple[int, int], refusal: Refusal | None = None
) -> tuple[Picked, ...]:
    """Host ports for each, the lowest free one of its range, all of them or none; `taken` grows by them.

    Fixed ports are picked first: an ephemeral one must not take what another of the same container asks for.
    `ephemeral` is inclusive. Raises PortInUse with Docker's text.
    """
    found = []
    for each in sorted(asked, key=lambda one: (one.first == 0, one.last - one.first)):
        port = _pick(each, taken, ephemeral, refusal)
        for address in each.host_ips:
            taken.add(each.protocol, address, port, port + each.count - 1)
        found.append(Picked(each, port))
    return tuple(found)


def _pick(asked: Asked, taken: Taken, ephemeral: tuple[int, int], refusal: Refusal | None) -> int:
    first, last = (asked.first, asked.last) if asked.first else ephemeral
    if asked.count > 1:
        last = first
    problem = ""
    for port in range(first, last + 1):
        problem = _problem(asked, port, taken, refusal)
        if not problem:
            return port
    if first != last:
        problem = f"Bind for {shown(asked.host_ips[0])}:{first}-{last} failed: all ports are allocated"
    raise PortInUse(problem)


def _problem(asked: Asked, port: int, taken: Taken, refusal: Refusal | None) -> str:
    for address in asked.host_ips:
        held = taken.find(asked.protocol, address, port, port + asked.count - 1)
        if held is not None:
            return f"Bind for {shown(address)}:{held} failed: port is already allocated"
    for address in asked.host_ips:
        if refusal is not None and (reason := refusal(asked, address, port)):
            return reason
    return ""


def pair_ranges(
    protocol: Protocol, container: tuple[int, int], host: tuple[int, int], host_ips: tuple[str, ...]
) -> tuple[Asked, ...]:
    """What `host` → `container` asks for: range to range as one, a range to one port = one free of it.

    `host` (0, 0) = any. Raises InvalidArgument where two ranges differ in length.
    """
    (first, last), (low, high) = container, host
    if not host_ips:
        return ()
    if first == last or not low:
        return tuple(Asked(protocol, port, host_ips, low, high) for port in range(first, last + 1))
    if high - low != last - first:
        raise InvalidArgument(
            f"invalid ranges specified for container and host Ports: {first}-{last} and {low}-{high}"
        )
    return (Asked(protocol, first, host_ips, low, low, last - first + 1),)


def join(asked: Iterable[Asked]) -> tuple[Asked, ...]:
    """The same with neighbours as one: Docker's clients send a range as a binding for each port."""
    found: list[Asked] = []
    for each in sorted(asked, key=lambda one: (one.protocol, one.host_ips, one.first, one.container_port)):
        last = found[-1] if found else None
        if (
            last is not None
            and _is_fixed(last)
            and _is_fixed(each)
            and (last.protocol, last.host_ips) == (each.protocol, each.host_ips)
            and (last.first + last.count, last.container_port + last.count)
            == (each.first, each.container_port)
        ):
            found[-1] = replace(last, count=last.count + each.count)
        else:
            found.append(each)
    return tuple(found)


def _is_fixed(asked: Asked) -> bool:
    return asked.first > 0 and asked.first == asked.last


def parse_range(text: str, name: str = "") -> tuple[int, int]:
    """First and last of `80` or `80-90`. Raises InvalidArgument; `name` says of what."""
    first, _, last = text.partition("-")
    of = f" of {name}" if name else ""
    if not (_is_number(first) and _is_number(last or first)) or text.endswith("-"):
        raise InvalidArgument(f"invalid port specification: {text!r}{of}")
    low, high = int(first), int(last or first)
    if not 0 < low <= high <= 65535:
        raise InvalidArgument(f"invalid port specification: {text!r}{of}")
    return low, high


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def shown(address: str) -> str:
    """An address before a colon and a port: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address
