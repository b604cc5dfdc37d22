"""Which of the host's addresses others reach it by. Read on demand. Must not know: what it is for."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from dari.kernel import rtnetlink
from dari.kernel.visit import Visit
from dari.net.state import Address


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """An address of the host, the interface that has it and that one's MTU."""

    address: Address
    link: str
    mtu: int


def own_address(host: Visit, asked: str) -> OwnAddress | None:
    """`asked`: an address, an interface, or "" for the first address of the default route's interface. None where
    there is no such thing. Raises NetlinkError."""
    links = {link.index: link for link in map(rtnetlink.read_link, host.route.dump(rtnetlink.dump_links()))}
    found = [rtnetlink.read_address(answer) for answer in host.route.dump(rtnetlink.dump_addresses())]
    usable = [each for each in found if not (each.address.is_loopback or each.address.is_link_local)]
    usable.sort(key=lambda each: each.address.version)
    try:
        address = ipaddress.ip_address(asked)
    except ValueError:
        index = _default_link(host) if not asked else _named(links, asked)
        chosen = next((each for each in usable if each.index == index), None)
    else:
        chosen = next((each for each in found if each.address.ip == address), None)
    if chosen is None:
        return None
    link = links[chosen.index]
    return OwnAddress(chosen.address.ip, link.name, link.mtu)


def _named(links: dict[int, rtnetlink.Link], name: str) -> int:
    return next((link.index for link in links.values() if link.name == name or name in link.altnames), 0)


def _default_link(host: Visit) -> int:
    for family in (socket.AF_INET, socket.AF_INET6):
        routes = [rtnetlink.read_route(answer) for answer in host.route.dump(rtnetlink.dump_routes(family))]
        default = [
            each
            for each in routes
            if each is not None
            and each.to.prefixlen == 0
            and each.index
            and each.table == rtnetlink.MAIN_TABLE
        ]
        if default:
            return min(default, key=lambda each: each.metric).index
    return 0
