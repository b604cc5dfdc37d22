"""Published ports as elements of the firewall's maps, and back again. Pure.

One port is an element of a plain map; a range of any length is one element of `publish_range4`/`6`. The kernel has no
sum of a port and a difference, but it has a remainder: with an offset flag and no base, its NAT gives a packet for port
`d` the port `low + d mod (high - low + 1)` (nf_nat_l4proto_unique_tuple). `blocks` chooses low and high so that the
quotient is the same for the whole range, and the remainder is then `d` less a constant.
Must not know: tables' texts, networks. Source: linux/net/netfilter/nf_nat_core.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import cast

from dari.net.desired import Protocol, PublishWant
from dari.net.state import HOST, Address, NftElement

FAMILY = "inet"
TABLE = "dari"
PUBLISH_MAPS = frozenset(
    ("publish4", "publish_any4", "publish6", "publish_any6", "publish_range4", "publish_range6")
)
LAST_PORT = 65535

_ANY: dict[int, str] = {4: "0.0.0.0/0", 6: "::/0"}


@dataclass(frozen=True, slots=True)
class Block:
    """Host ports `first` to `last` become `low + port mod (high - low + 1)`."""

    first: int
    last: int
    low: int
    high: int

    def container_port(self, port: int) -> int:
        """Where the kernel sends `port`, one of first to last."""
        return self.low + port % (self.high - self.low + 1)


@dataclass(frozen=True, slots=True)
class Published:
    """What an element says: `first` to `last` of `host_ip` (unspecified: any of its family) go to `target`, the first
    to `container_port`, the others to those behind it."""

    protocol: Protocol
    host_ip: Address
    first: int
    last: int
    target: Address
    container_port: int

    def goes_to(self, port: int) -> tuple[Address, int]:
        """Where a packet for host port `port`, one of first to last, is sent."""
        return self.target, self.container_port + port - self.first


def blocks(first: int, container_port: int, count: int) -> Iterator[Block]:
    """Host ports first, first + 1, … to container_port, container_port + 1, …, `count` of them.

    One block, but for ranges moved down whose last port is twice the first or more: there one for each doubling.
    """
    last = first + count - 1
    shift = container_port - first
    if shift == 0:
        yield Block(first, last, 0, LAST_PORT)
    elif shift > 0:
        # The quotient is 0.
        yield Block(first, last, shift, shift + last)
    else:
        while first <= last:
            # The quotient is 1: the size is at most the first port, and more than half of the last.
            end = min(last, 2 * first - 1)
            size = max(end // 2 + 1, min(first, 1 - shift))
            yield Block(first, end, size + shift, 2 * size + shift - 1)
            first = end + 1


def publish_elements(publish: PublishWant) -> Iterator[NftElement]:
    """The map elements of published ports. Raises ValueError where the families differ."""
    host, target = publish.host_ip, publish.target
    version = host.version
    if version != target.version:
        raise ValueError(f"cannot publish {host} to {target}: different address families")
    if publish.count == 1:
        value = f"{target} . {publish.container_port}"
        if host.is_unspecified:
            yield element(f"publish_any{version}", f"{publish.protocol} . {publish.host_port}", value)
        else:
            yield element(f"publish{version}", f"{publish.protocol} . {host} . {publish.host_port}", value)
        return
    address = _ANY[version] if host.is_unspecified else str(host)
    for each in blocks(publish.host_port, publish.container_port, publish.count):
        yield element(
            f"publish_range{version}",
            f"{publish.protocol} . {address} . {span(each.first, each.last)}",
            f"{target} . {span(each.low, each.high)}",
        )


def open_elements(publishes: Iterable[PublishWant]) -> Iterator[NftElement]:
    """Container ports that may be asked at the container's own address; they must not overlap within a set, so
    what touches is joined."""
    spans: dict[tuple[Address, str], list[tuple[int, int]]] = {}
    for each in publishes:
        found = spans.setdefault((each.target, each.protocol), [])
        found.append((each.container_port, each.container_port + each.count - 1))
    for (target, protocol), found in spans.items():
        for first, last in joined(found):
            yield element(f"open{target.version}", f"{target} . {protocol} . {span(first, last)}")


def joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same numbers in as few spans as can be."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def published(each: NftElement) -> Published | None:
    """What an element of a publish map says; None for elements of other sets."""
    if each.netns != HOST or each.table != TABLE or each.set not in PUBLISH_MAPS:
        return None
    words = each.element.split(" . ")
    address, _, ports = each.value.partition(" . ")
    target = ip_address(address)
    host_ip: Address = IPv4Address(0) if target.version == 4 else IPv6Address(0)
    if len(words) == 3 and words[1] != _ANY[target.version]:
        host_ip = ip_address(words[1])
    first, last = parse_span(words[-1])
    low, high = parse_span(ports)
    if each.set.startswith("publish_range"):
        low = Block(first, last, low, high).container_port(first)
    return Published(cast(Protocol, words[0]), host_ip, first, last, target, low)


def span(first: int, last: int) -> str:
    """As nft lists it: one number where both are one."""
    return str(first) if first == last else f"{first}-{last}"


def parse_span(text: str) -> tuple[int, int]:
    """First and last of `80` or `80-90`, as nft lists them."""
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def element(set_name: str, text: str, value: str = "") -> NftElement:
    """An element of the host's table."""
    return NftElement(HOST, FAMILY, TABLE, set_name, text, value)


def covers(each: Published, address: Address, port: int) -> bool:
    """Whether a packet to this address (one of the host's own) and port is meant."""
    if not each.first <= port <= each.last or address.version != each.host_ip.version:
        return False
    return each.host_ip.is_unspecified or each.host_ip == address
