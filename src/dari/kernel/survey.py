"""Reads what surrounds dari's objects: see net/survey.py. Changes nothing.

A dump a kind and namespace; no namespace is entered twice. Must not know: what is right.
Formats: rtnetlink(7), linux/neighbour.h, linux/fib_rules.h, linux/if_bridge.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from dari.kernel import neighbours, nfnetlink, rtnetlink, sysctl, wireguard
from dari.kernel.errors import NetlinkError, NftError
from dari.kernel.mould import Mould
from dari.kernel.netlink import Message, attributes, u32_of
from dari.kernel.netns import Namespaces
from dari.kernel.nft import Nft
from dari.kernel.unseen import unseen
from dari.kernel.visit import Visit, Visits
from dari.net import tunnel
from dari.net.foreign import Unseen
from dari.net.publish import TABLE
from dari.net.state import HOST, KernelState, Veth
from dari.net.survey import (
    FdbEntry,
    ForeignTable,
    FoundAddress,
    FoundLink,
    FoundRoute,
    Handshake,
    Neighbour,
    PolicyRule,
    PortState,
    Survey,
)

_RTM_GETNEIGH, _RTM_GETRULE = 30, 34
_NDMSG = struct.Struct("=BBHiHBB")
_RULE = struct.Struct("=BBBBBBBBI")
_NDA_DST, _NDA_LLADDR, _NDA_MASTER = 1, 2, 9
_NUD_NOARP, _NUD_PERMANENT = 0x40, 0x80
# The kernel asks nobody by an entry in one of these: incomplete, failed, no ARP at all (loopback, multicast).
_NUD_UNUSED = 0x01 | 0x20
_FRA_PRIORITY, _FRA_TABLE = 6, 15
_RULE_ACTIONS = {1: "table", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_OWN_PRIORITIES = frozenset((0, 32766, 32767))
_ROUTE_KINDS = {1: "unicast", 2: "local", 6: "blackhole", 7: "unreachable", 8: "prohibit", 9: "throw"}
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}


def survey(
    wanted: KernelState, paths: Iterable[str], namespaces: Namespaces, host: Visit, nft: Nft, mould: Mould
) -> Survey:
    """`paths`: sysctls of the host to read. Raises NetlinkError, OSError."""
    surveyor = _Surveyor(wanted, nft, mould)
    with Visits(namespaces, host) as visits:
        surveyor.host(host)
        for visit in visits.all_of(namespaces.names()):
            surveyor.sandbox(visit)
    sysctls = {(HOST, path): value for path in paths if (value := sysctl.read(path)) is not None}
    return Survey(
        neighbours=tuple(surveyor.neighbours),
        fdb=tuple(surveyor.fdb),
        ports=tuple(surveyor.ports),
        handshakes=tuple(surveyor.handshakes),
        routes=tuple(surveyor.routes),
        addresses=tuple(surveyor.addresses),
        links=tuple(surveyor.links),
        rules=tuple(surveyor.rules),
        unseen=tuple(surveyor.unseen),
        tables=tuple(surveyor.tables),
        sysctls=sysctls,
        neighbour_tables=tuple(neighbours.tables()),
    )


class _Surveyor:
    def __init__(self, wanted: KernelState, nft: Nft, mould: Mould) -> None:
        self._nft = nft
        self._mould = mould
        self._ports = {each.name: each.master for each in wanted if isinstance(each, Veth)}
        self.neighbours: list[Neighbour] = []
        self.fdb: list[FdbEntry] = []
        self.ports: list[PortState] = []
        self.handshakes: list[Handshake] = []
        self.routes: list[FoundRoute] = []
        self.addresses: list[FoundAddress] = []
        self.links: list[FoundLink] = []
        self.rules: list[PolicyRule] = []
        self.unseen: list[Unseen] = []
        self.tables: list[ForeignTable] = []

    def host(self, visit: Visit) -> None:
        names = self._common(visit)
        for answer in visit.route.dump(rtnetlink.dump_links()):
            link = rtnetlink.read_link(answer)
            self.links.append(FoundLink(link.name, link.kind, link.mtu, link.mac, link.is_up, link.altnames))
            if link.name in self._ports and link.master:
                self.ports.append(_port(answer, link.name, names.get(link.master, "")))
        self.fdb += _fdb(visit, names)
        for number, name in nfnetlink.tables(visit.netfilter):
            family = _FAMILIES.get(number)
            if family is None or name == TABLE:
                continue
            try:
                text = self._nft.list_rules(family, name)
            except NftError:
                # Made by a newer nft, or by iptables with an extension this library does not know.
                text = None
            self.tables.append(ForeignTable(HOST, family, name, text or ""))

    def sandbox(self, visit: Visit) -> None:
        with visit.entered():
            visit.open(has_netfilter=True)
        self._common(visit)
        if visit.name == tunnel.NETNS:
            self.handshakes += wireguard.handshakes(visit, tunnel.LINK)
        for number, name in nfnetlink.tables(visit.netfilter):
            family = _FAMILIES.get(number)
            if family is None or name == TABLE or family not in nfnetlink.FAMILIES:
                continue
            messages = nfnetlink.snapshot(visit.netfilter, number, name)
            if messages is None:
                continue
            try:
                text = self._mould.text(family, name, messages)
            except (NetlinkError, NftError):
                # It refers to what only exists there (a device, a named object): told of, not read.
                text = ""
            self.tables.append(ForeignTable(visit.name, family, name, text))

    def _common(self, visit: Visit) -> dict[int, str]:
        """Names of the namespace's interfaces by index."""
        dump = visit.route.dump(rtnetlink.dump_links())
        names = {link.index: link.name for link in map(rtnetlink.read_link, dump)}
        for answer in visit.route.dump(rtnetlink.dump_addresses()):
            each = rtnetlink.read_address(answer)
            if names.get(each.index, "lo") != "lo":
                found = FoundAddress(visit.name, names[each.index], each.address, each.protocol)
                self.addresses.append(found)
        self.routes += _routes(visit, names)
        self.neighbours += _neighbours(visit, names)
        self.rules += _rules(visit)
        with visit.entered():
            self.unseen += unseen(visit, dump, names)
        return names


def _port(answer: Message, name: str, bridge: str) -> PortState:
    """The port's attributes are in IFLA_LINKINFO's slave data: state 1, learning 8, unicast flood 9."""
    info = attributes(attributes(answer.body, 16).get(18, b""))
    port = attributes(info.get(5, b""))
    return PortState(
        name,
        bridge,
        port.get(1, b"\3")[0],
        port.get(8, b"\1")[0] != 0,
        port.get(9, b"\1")[0] != 0,
    )


def _routes(visit: Visit, names: dict[int, str]) -> Iterator[FoundRoute]:
    for family in (socket.AF_INET, socket.AF_INET6):
        for answer in visit.route.dump(rtnetlink.dump_routes(family)):
            kind, flags = answer.body[7], int.from_bytes(answer.body[8:12], "little")
            # Cached entries are not the table's.
            if flags & 0x200 or kind in (3, 4, 5):
                continue
            each = rtnetlink.read_any_route(answer)
            yield FoundRoute(
                visit.name,
                each.table,
                each.to,
                each.via,
                names.get(each.index, ""),
                each.metric,
                each.protocol,
                _ROUTE_KINDS.get(kind, "other"),
            )


def _neighbours(visit: Visit, names: dict[int, str]) -> Iterator[Neighbour]:
    for family in (socket.AF_INET, socket.AF_INET6):
        message = Message(_RTM_GETNEIGH, 0, _NDMSG.pack(family, 0, 0, 0, 0, 0, 0))
        for answer in visit.route.dump(message):
            _, _, _, index, state, _, _ = _NDMSG.unpack_from(answer.body)
            values = attributes(answer.body, 12)
            packed, mac = values.get(_NDA_DST), values.get(_NDA_LLADDR)
            if packed is None or mac is None or state & _NUD_UNUSED:
                continue
            address = ip_address(packed)
            if address.is_multicast or names.get(index, "lo") == "lo":
                continue
            is_permanent = bool(state & (_NUD_PERMANENT | _NUD_NOARP))
            yield Neighbour(visit.name, names[index], address, mac.hex(":"), is_permanent)


def _fdb(visit: Visit, names: dict[int, str]) -> Iterator[FdbEntry]:
    message = Message(_RTM_GETNEIGH, 0, _NDMSG.pack(socket.AF_BRIDGE, 0, 0, 0, 0, 0, 0))
    for answer in visit.route.dump(message):
        _, _, _, index, state, _, _ = _NDMSG.unpack_from(answer.body)
        values = attributes(answer.body, 12)
        bridge = names.get(u32_of(values[_NDA_MASTER]), "") if _NDA_MASTER in values else ""
        mac = values.get(_NDA_LLADDR)
        if bridge and mac is not None:
            yield FdbEntry(
                bridge,
                names.get(index, ""),
                mac.hex(":"),
                bool(state & (_NUD_NOARP | _NUD_PERMANENT)),
                bool(state & _NUD_PERMANENT),
            )


def _rules(visit: Visit) -> Iterator[PolicyRule]:
    for family, version in ((socket.AF_INET, 4), (socket.AF_INET6, 6)):
        dump = visit.route.dump(Message(_RTM_GETRULE, 0, _RULE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)))
        for answer in dump:
            _, _, _, _, table, _, _, action, _ = _RULE.unpack_from(answer.body)
            values = attributes(answer.body, 12)
            priority = u32_of(values.get(_FRA_PRIORITY, b"\0\0\0\0"))
            if priority in _OWN_PRIORITIES and action == 1:
                continue
            number = u32_of(values[_FRA_TABLE]) if _FRA_TABLE in values else table
            yield PolicyRule(visit.name, version, priority, _RULE_ACTIONS.get(action, "other"), number)
