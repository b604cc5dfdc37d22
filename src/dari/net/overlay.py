"""What an overlay adds to a bridge: numbers and names. Pure. Source: RFC 7348 (VXLAN)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from dari.model.errors import Forbidden, InvalidArgument
from dari.net.desired import PeerWant
from dari.net.facts import HostFacts
from dari.net.state import Address, Fdb, Neighbour

VNI_OPTION = "com.docker.network.driver.overlay.vxlanid_list"
ENCRYPTED = "encrypted"
FIRST_VNI, LAST_VNI = 4096, (1 << 24) - 1
"""Docker's range, and VXLAN's end."""

OVERHEAD = {4: 50, 6: 70}
"""Of a packet on the underlay, by its IP version: IP, UDP, VXLAN and the frame's own header."""

_SMALLEST_MTU = 1280


def vxlan_name(network_id: str) -> str:
    """The interface of a network; 15 characters, as many as there may be."""
    return f"vx-{network_id[:12]}"


def peer_objects(link: str, peer: PeerWant, facts: HostFacts) -> Iterator[Fdb | Neighbour]:
    """What the VXLAN interface `link` knows of one peer."""
    yield Fdb(link, peer.mac, peer.via)
    for address in peer.addresses:
        if address.version == 4 or facts.has_ipv6:
            yield Neighbour(link, address, peer.mac)


def is_encrypted(options: dict[str, str]) -> bool:
    """Docker takes the option's presence for yes."""
    return ENCRYPTED in options and options[ENCRYPTED].lower() not in ("false", "0", "no")


def mtu(underlays: Iterable[int], address: Address, asked: int = 0) -> int:
    """What fits into the smallest underlay's packets, or the smaller MTU that was asked for."""
    smallest = min(underlays, default=1500) - OVERHEAD[address.version]
    return min(asked, smallest) if asked else max(smallest, 68)


def asked_vni(options: dict[str, str]) -> int | None:
    """Raises InvalidArgument."""
    text = options.get(VNI_OPTION)
    if text is None:
        return None
    try:
        number = int(text.split(",")[0])
    except ValueError:
        raise InvalidArgument(f"invalid value for option {VNI_OPTION}: {text!r} is not a number") from None
    if not 1 <= number <= LAST_VNI:
        raise InvalidArgument(f"invalid vxlan id {number}: give a number from 1 to {LAST_VNI}")
    return number


def pick_vni(start: int, taken: Collection[int]) -> int:
    """The first free number from `start` on, round the range. Raises Forbidden where all are taken."""
    span = LAST_VNI - FIRST_VNI + 1
    if len(taken) < span:
        for step in range(span):
            number = FIRST_VNI + (start - FIRST_VNI + step) % span
            if number not in taken:
                return number
    raise Forbidden("could not find an available VXLAN id: all are taken by other overlay networks")
