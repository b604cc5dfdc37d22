"""Host ports, pure: which one a container's port is published on.

Who holds which port comes in as an argument, and so does the answer whether a foreign socket sits on one; the
caller's transaction makes the choice stick. Must not know: sockets, stores, containers.
Source: Docker Engine API v1.51, `HostConfig.PortBindings`; texts as dockerd's port allocator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from dari.model.errors import InvalidArgument, PortInUse
from dari.net.desired import Protocol

UNSPECIFIED = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Asked:
    """One container port wanted on `host_ips` (the same port on each), from `first` to `last` on the host;
    `first` 0 = any free one."""

    protocol: Protocol
    container_port: int
    host_ips: tuple[str, ...]
    first: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class Picked:
    """`host_port` on each of `asked.host_ips`."""

    asked: Asked
    host_port: int


class Taken:
    """Who has which host port: addresses by protocol and port. An unspecified address covers its family."""

    def __init__(self, holders: Iterable[tuple[str, str, int]] = ()) -> None:
        """`holders`: protocol, address, port."""
        self._addresses: dict[tuple[str, int], set[str]] = {}
        for protocol, address, port in holders:
            self.add(protocol, address, port)

    def add(self, protocol: str, address: str, port: int) -> None:
        self._addresses.setdefault((protocol, port), set()).add(address)

    def has(self, protocol: str, address: str, port: int) -> bool:
        """Whether `address`, one that covers it, or one that it covers, has the port."""
        others = self._addresses.get((protocol, port))
        if not others:
            return False
        version = ip_address(address).version
        same = {each for each in others if ip_address(each).version == version}
        return bool(same) and (address in UNSPECIFIED or address in same or not same.isdisjoint(UNSPECIFIED))


Refusal = Callable[[Asked, str, int], str]
"""Why somebody outside of dari keeps the port (address, port) from us; empty where nobody does."""


def pick_ports(
    asked: Iterable[Asked], taken: Taken, ephemeral: tuple[int, int], refusal: Refusal | None = None
) -> tuple[Picked, ...]:
    """A host port for each, the lowest free one of its range, all of them or none; `taken` grows by them.

    Fixed ports are picked first: an ephemeral one must not take what another of the same container asks for.
    `ephemeral` is inclusive. Raises PortInUse with Docker's text.
    """
    found = []
    for each in sorted(asked, key=lambda one: (one.first == 0, one.last - one.first)):
        port = _pick(each, taken, ephemeral, refusal)
        for address in each.host_ips:
            taken.add(each.protocol, address, port)
        found.append(Picked(each, port))
    return tuple(found)


def _pick(asked: Asked, taken: Taken, ephemeral: tuple[int, int], refusal: Refusal | None) -> int:
    first, last = (asked.first, asked.last) if asked.first else ephemeral
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
        if taken.has(asked.protocol, address, port):
            return f"Bind for {shown(address)}:{port} failed: port is already allocated"
        if refusal is not None and (reason := refusal(asked, address, port)):
            return reason
    return ""


def pair_ranges(
    protocol: Protocol, container: tuple[int, int], host: tuple[int, int], host_ips: tuple[str, ...]
) -> tuple[Asked, ...]:
    """What `host` → `container` asks for: range to range port by port, a range to one port = one free of it.

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
    return tuple(
        Asked(protocol, port, host_ips, low + port - first, low + port - first)
        for port in range(first, last + 1)
    )


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
