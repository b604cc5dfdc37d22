"""rtnetlink messages: links, addresses, routes, neighbours, namespace ids.

Builders return a `Message`, readers turn an answer into a small record. Formats: rtnetlink(7), linux/if_link.h,
linux/veth.h. Must not know: plans, ownership, which namespace a socket is in.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network

from dari.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    attr,
    attr_text,
    attr_u8,
    attr_u32,
    attributes,
    iter_attributes,
    nested,
    text_of,
    u32_of,
)
from dari.net.state import Address, Interface, Prefix

ROUTE_PROTOCOL = 218
"""dari's routing protocol number (0xda): the mark on every route and address it makes."""

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_GETNSID = 90
RTM_NEWLINKPROP, RTM_DELLINKPROP = 108, 109

IFF_UP = 0x1
_IFF_LOWER_UP = 1 << 16

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_OPERSTATE, _OPERATIONAL = 16, 6
_IFLA_LINKINFO, _IFLA_GROUP, _IFLA_NET_NS_FD, _IFLA_EXT_MASK = 18, 27, 28, 29
_IFLA_LINK_NETNSID, _IFLA_PROP_LIST, _IFLA_ALT_IFNAME = 37, 52, 53
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_INFO_PEER = 1
_BRPORT_MODE, _BRPORT_ISOLATED = 4, 33
_RTEXT_FILTER_SKIP_STATS = 1 << 3

_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS, _IFA_PROTO = 1, 2, 4, 8, 11
_IFA_F_NODAD = 0x02

_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_TABLE, _RTA_MULTIPATH = 1, 4, 5, 6, 15, 9
MAIN_TABLE = 254
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RT_SCOPE_NOWHERE = 0, 253, 255
_RTN_UNICAST = 1

_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT = 0x80
_NUD_INCOMPLETE, _NUD_FAILED = 0x01, 0x20

_NETNSA_NSID, _NETNSA_PID, _NETNSA_FD = 1, 2, 3

_IFINFO = struct.Struct("=BBHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BBHiHBB")


@dataclass(frozen=True, slots=True)
class Link:
    """An interface. `peer_index` and `peer_nsid` tell a veth's far end, or the parent of a link on another one; nsid
    None = the same namespace. `is_carrying`: packets pass (RFC 2863 operational state up), which follows a link's
    going up at the kernel's leisure. `has_carrier`: IFF_LOWER_UP; true of an interface that is down as a whole."""

    index: int
    name: str
    kind: str
    is_up: bool
    mtu: int
    mac: str
    master: int
    peer_index: int
    peer_nsid: int | None
    altnames: tuple[str, ...]
    is_hairpin: bool
    is_isolated: bool
    # IFLA_INFO_DATA as it came: what only links of this kind have.
    data: bytes = b""
    is_carrying: bool = False
    has_carrier: bool = True


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """An address of an interface. `protocol` tells who made it (IFA_PROTO; 0 unknown, 1 to 3 the kernel)."""

    index: int
    address: Interface
    protocol: int


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """A unicast route. `index` 0: several next hops, or none."""

    to: Prefix
    via: Address | None
    index: int
    metric: int
    protocol: int
    table: int


def _ifinfo(index: int = 0, flags: int = 0, change: int = 0, family: int = 0) -> bytes:
    return _IFINFO.pack(family, 0, 0, index, flags, change)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _up(is_up: bool) -> tuple[int, int]:
    return (IFF_UP if is_up else 0), IFF_UP


def add_bridge(name: str, mac: str, mtu: int, is_up: bool) -> Message:
    flags, change = _up(is_up)
    body = (
        _ifinfo(0, flags, change)
        + attr_text(_IFLA_IFNAME, name)
        + attr(_IFLA_ADDRESS, _mac(mac))
        + attr_u32(_IFLA_MTU, mtu)
        + nested(_IFLA_LINKINFO, attr(_INFO_KIND, b"bridge"))
    )
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def add_veth(
    name: str, master: int, mtu: int, is_up: bool, peer: str, peer_mac: str, peer_netns: int
) -> Message:
    """The pair, its far end born in the namespace of descriptor `peer_netns` under its final name.

    The far end is down: veth(4) refuses to open an end whose pair is not complete. `master` 0: on no bridge.
    """
    flags, change = _up(is_up)
    far = (
        _ifinfo()
        + attr_text(_IFLA_IFNAME, peer)
        + attr(_IFLA_ADDRESS, _mac(peer_mac))
        + attr_u32(_IFLA_MTU, mtu)
        + attr_u32(_IFLA_NET_NS_FD, peer_netns)
    )
    data = nested(_INFO_DATA, attr(_VETH_INFO_PEER | 0x8000, far))
    body = (
        _ifinfo(0, flags, change)
        + attr_text(_IFLA_IFNAME, name)
        + attr_u32(_IFLA_MTU, mtu)
        + (attr_u32(_IFLA_MASTER, master) if master else b"")
        + nested(_IFLA_LINKINFO, attr(_INFO_KIND, b"veth"), data)
    )
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def add_link(
    name: str,
    kind: str,
    data: bytes = b"",
    *,
    parent: int = 0,
    mac: str = "",
    mtu: int = 0,
    netns: int = -1,
    is_up: bool = False,
) -> Message:
    """A link of a kind, on the interface of index `parent` (in the socket's namespace), born in the namespace of
    descriptor `netns`, where given, under its final name. `data`: the kind's own attributes."""
    flags, change = _up(is_up)
    body = _ifinfo(0, flags, change) + attr_text(_IFLA_IFNAME, name)
    if mac:
        body += attr(_IFLA_ADDRESS, _mac(mac))
    if mtu:
        body += attr_u32(_IFLA_MTU, mtu)
    if parent:
        body += attr_u32(_IFLA_LINK, parent)
    if netns >= 0:
        body += attr_u32(_IFLA_NET_NS_FD, netns)
    about = (
        (attr_text(_INFO_KIND, kind), nested(_INFO_DATA, data)) if data else (attr_text(_INFO_KIND, kind),)
    )
    body += nested(_IFLA_LINKINFO, *about)
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def set_link(
    name: str = "",
    index: int = 0,
    *,
    is_up: bool | None = None,
    mtu: int = 0,
    mac: str = "",
    master: int | None = None,
    group: int | None = None,
    new_name: str = "",
    netns: int | None = None,
) -> Message:
    """Change what is given, by name, or by index (only then `new_name`). `netns`: the descriptor of the namespace it
    moves to, down."""
    flags, change = _up(is_up) if is_up is not None else (0, 0)
    body = _ifinfo(index, flags, change)
    if name or new_name:
        body += attr_text(_IFLA_IFNAME, name or new_name)
    if mtu:
        body += attr_u32(_IFLA_MTU, mtu)
    if mac:
        body += attr(_IFLA_ADDRESS, _mac(mac))
    if master is not None:
        body += attr_u32(_IFLA_MASTER, master)
    if group is not None:
        body += attr_u32(_IFLA_GROUP, group)
    if netns is not None:
        body += attr_u32(_IFLA_NET_NS_FD, netns)
    return Message(RTM_SETLINK, 0, body)


def set_port(name: str, *, is_hairpin: bool, is_isolated: bool) -> Message:
    """The bridge port flags of an interface that is on a bridge."""
    port = nested(
        _INFO_SLAVE_DATA, attr_u8(_BRPORT_MODE, int(is_hairpin)), attr_u8(_BRPORT_ISOLATED, int(is_isolated))
    )
    body = _ifinfo() + attr_text(_IFLA_IFNAME, name)
    body += nested(_IFLA_LINKINFO, attr_text(_INFO_SLAVE_KIND, "bridge"), port)
    return Message(RTM_NEWLINK, 0, body)


def _property(kind: int, flags: int, name: str, index: int, altname: str) -> Message:
    body = _ifinfo(index)
    if name:
        body += attr_text(_IFLA_IFNAME, name)
    return Message(kind, flags, body + nested(_IFLA_PROP_LIST, attr_text(_IFLA_ALT_IFNAME, altname)))


def add_altname(altname: str, name: str = "", index: int = 0) -> Message:
    return _property(RTM_NEWLINKPROP, NLM_F_CREATE | NLM_F_EXCL, name, index, altname)


def delete_altname(altname: str, name: str = "", index: int = 0) -> Message:
    return _property(RTM_DELLINKPROP, 0, name, index, altname)


def delete_link(name: str = "", index: int = 0) -> Message:
    return Message(RTM_DELLINK, 0, _ifinfo(index) + (attr_text(_IFLA_IFNAME, name) if name else b""))


def delete_group(group: int) -> Message:
    """All links of a group in one go; ENODEV where there are none."""
    return Message(RTM_DELLINK, 0, _ifinfo() + attr_u32(_IFLA_GROUP, group))


def get_link(name: str = "", index: int = 0) -> Message:
    """By name (an altname is found too where no link has that name) or by index."""
    body = _ifinfo(index) + attr_u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    if name:
        # IFLA_IFNAME holds 15 characters at most; longer names can only be alternative ones.
        body += attr_text(_IFLA_IFNAME if len(name) < 16 else _IFLA_ALT_IFNAME, name)
    return Message(RTM_GETLINK, 0, body)


def dump_links() -> Message:
    return Message(RTM_GETLINK, 0, _ifinfo() + attr_u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS))


def read_link(answer: Message) -> Link:
    _, _, _, index, flags, _ = _IFINFO.unpack_from(answer.body)
    found = attributes(answer.body, 16)
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    port = attributes(info.get(_INFO_SLAVE_DATA, b""))
    nsid = found.get(_IFLA_LINK_NETNSID)
    return Link(
        index=index,
        name=text_of(found.get(_IFLA_IFNAME, b"")),
        kind=text_of(info.get(_INFO_KIND, b"")),
        is_up=bool(flags & IFF_UP),
        mtu=u32_of(found.get(_IFLA_MTU, b"\0\0\0\0")),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        master=u32_of(found.get(_IFLA_MASTER, b"\0\0\0\0")),
        peer_index=u32_of(found.get(_IFLA_LINK, b"\0\0\0\0")),
        peer_nsid=u32_of(nsid) if nsid is not None else None,
        altnames=tuple(
            text_of(payload)
            for kind, payload in iter_attributes(found.get(_IFLA_PROP_LIST, b""))
            if kind == _IFLA_ALT_IFNAME
        ),
        is_hairpin=port.get(_BRPORT_MODE, b"\0")[0] != 0,
        is_isolated=port.get(_BRPORT_ISOLATED, b"\0")[0] != 0,
        data=info.get(_INFO_DATA, b""),
        is_carrying=found.get(_IFLA_OPERSTATE, b"\0")[0] == _OPERATIONAL,
        has_carrier=bool(flags & _IFF_LOWER_UP) or not flags & IFF_UP,
    )


def _family(address: Address | Interface | Prefix) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _addr_body(index: int, address: Interface) -> bytes:
    body = _IFADDR.pack(_family(address), address.network.prefixlen, 0, 0, index)
    body += attr(_IFA_LOCAL, address.ip.packed) + attr(_IFA_ADDRESS, address.ip.packed)
    return body


def add_address(index: int, address: Interface) -> Message:
    """Marked as dari's (IFA_PROTO, kernel 5.18). IPv6 addresses skip duplicate address detection."""
    body = _addr_body(index, address) + attr_u8(_IFA_PROTO, ROUTE_PROTOCOL)
    if address.version == 4:
        if address.network.prefixlen < 31:
            body += attr(_IFA_BROADCAST, address.network.broadcast_address.packed)
    else:
        body += attr_u32(_IFA_FLAGS, _IFA_F_NODAD)
    return Message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body)


def delete_address(index: int, address: Interface) -> Message:
    return Message(RTM_DELADDR, 0, _addr_body(index, address))


def dump_addresses() -> Message:
    """Of all interfaces of the socket's namespace, both families."""
    return Message(RTM_GETADDR, 0, _IFADDR.pack(0, 0, 0, 0, 0))


def dump_link_addresses(index: int) -> Message:
    """Of one interface, both families."""
    return Message(RTM_GETADDR, 0, _IFADDR.pack(0, 0, 0, 0, index))


def read_address(answer: Message) -> LinkAddress:
    _, length, _, _, index = _IFADDR.unpack_from(answer.body)
    found = attributes(answer.body, 8)
    packed = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
    return LinkAddress(
        index=index,
        address=_interface(packed, length),
        protocol=found.get(_IFA_PROTO, b"\0")[0],
    )


def _route_body(to: Prefix, via: Address | None, index: int, metric: int) -> bytes:
    scope = _RT_SCOPE_LINK if via is None and to.version == 4 else _RT_SCOPE_UNIVERSE
    body = _RTMSG.pack(_family(to), to.prefixlen, 0, 0, MAIN_TABLE, ROUTE_PROTOCOL, scope, _RTN_UNICAST, 0)
    if to.prefixlen:
        body += attr(_RTA_DST, to.network_address.packed)
    if via is not None:
        body += attr(_RTA_GATEWAY, via.packed)
    if index:
        body += attr_u32(_RTA_OIF, index)
    if metric:
        body += attr_u32(_RTA_PRIORITY, metric)
    return body


def add_route(to: Prefix, via: Address | None, index: int, metric: int) -> Message:
    """Marked with dari's protocol; a route to the same destination with the same metric is replaced."""
    return Message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, _route_body(to, via, index, metric))


def delete_route(to: Prefix, via: Address | None, index: int, metric: int) -> Message:
    return Message(RTM_DELROUTE, 0, _route_body(to, via, index, metric))


def dump_routes(family: int) -> Message:
    """`family`: AF_INET or AF_INET6."""
    return Message(RTM_GETROUTE, 0, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))


# Dumps say the same again and again; parsing is what they cost.
@lru_cache(maxsize=8192)
def _prefix(packed: bytes, length: int) -> Prefix:
    return ip_network((packed, length))


@lru_cache(maxsize=8192)
def _interface(packed: bytes, length: int) -> Interface:
    return ip_interface((packed, length))


def is_of_main_table(answer: Message) -> bool:
    """Told from the header alone: of many routes most are the kernel's own, in the local table."""
    return bool(answer.body[4] == MAIN_TABLE)


def read_route(answer: Message) -> RouteEntry | None:
    """None for what is no unicast route (local, broadcast, unreachable, cached)."""
    _, _, _, _, _, _, _, kind, flags = _RTMSG.unpack_from(answer.body)
    if kind != _RTN_UNICAST or flags & 0x200:
        return None
    return read_any_route(answer)


def read_any_route(answer: Message) -> RouteEntry:
    """Of any kind: local, blackhole and their like too."""
    family, length, _, _, table, protocol, _, _, _ = _RTMSG.unpack_from(answer.body)
    found = attributes(answer.body, 12)
    is_four = family == socket.AF_INET
    packed = found.get(_RTA_DST) or bytes(4 if is_four else 16)
    gateway = found.get(_RTA_GATEWAY)
    # The kernel's IPv6 default metric: absent means the same.
    metric = u32_of(found.get(_RTA_PRIORITY, b"\0\0\0\0"))
    return RouteEntry(
        to=_prefix(packed, length),
        via=ip_address(gateway) if gateway else None,
        index=u32_of(found.get(_RTA_OIF, b"\0\0\0\0")),
        metric=0 if not is_four and metric == 1024 else metric,
        protocol=protocol,
        table=u32_of(found[_RTA_TABLE]) if _RTA_TABLE in found else table,
    )


def add_neighbour(index: int, address: IPv4Address | IPv6Address, mac: str) -> Message:
    """A permanent neighbour entry."""
    body = _NDMSG.pack(_family(address), 0, 0, index, _NUD_PERMANENT, 0, 0)
    body += attr(_NDA_DST, address.packed) + attr(_NDA_LLADDR, _mac(mac))
    return Message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body)


def delete_neighbour(index: int, address: IPv4Address | IPv6Address) -> Message:
    body = _NDMSG.pack(_family(address), 0, 0, index, 0, 0, 0) + attr(_NDA_DST, address.packed)
    return Message(RTM_DELNEIGH, 0, body)


def dump_neighbours() -> Message:
    """Of all interfaces of the socket's namespace, both families."""
    return Message(RTM_GETNEIGH, 0, _NDMSG.pack(0, 0, 0, 0, 0, 0, 0))


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry of a neighbour table. `is_answering` false: it was asked for and nobody answers."""

    index: int
    address: Address
    is_answering: bool


def read_neighbour(answer: Message) -> Neighbour | None:
    """None for an entry without address (of a bridge's forwarding table)."""
    _, _, _, index, state, _, _ = _NDMSG.unpack_from(answer.body)
    packed = attributes(answer.body, 12).get(_NDA_DST)
    if packed is None:
        return None
    return Neighbour(index, ip_address(packed), not state & (_NUD_INCOMPLETE | _NUD_FAILED))


def get_nsid(descriptor: int) -> Message:
    """The id the socket's namespace has for the namespace of this descriptor."""
    return Message(RTM_GETNSID, 0, b"\0\0\0\0" + attr_u32(_NETNSA_FD, descriptor))


def read_nsid(answers: Sequence[Message]) -> int | None:
    """None where the namespace has no id (no link leads there)."""
    for answer in answers:
        payload = attributes(answer.body, 4).get(_NETNSA_NSID)
        if payload is not None:
            number = int.from_bytes(payload[:4], "little", signed=True)
            return number if number >= 0 else None
    return None
