"""Looks at what in the kernel is not dari's and decides about packets all the same: the answer is a Foreign.

Others' interfaces, addresses and routes, the settings packets depend on, others' tables of rules whole, and who
listens where. Reads only. Must not know: what is wanted, what a walk makes of it. Next: net/foreign.py.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator

from dari.kernel import nfnetlink, rtnetlink, sysctl
from dari.kernel.errors import NftError
from dari.kernel.listeners import listeners as waiting
from dari.kernel.marks import mark_of
from dari.kernel.netlink import Message, Netlink, attributes, u32_of
from dari.kernel.netns import Namespaces
from dari.kernel.nft import Nft
from dari.kernel.rtnetlink import ROUTE_PROTOCOL, Link
from dari.kernel.unseen import unseen
from dari.kernel.visit import Visit, Visits
from dari.net.foreign import WATCHED, WATCHED_OF_LINK, Foreign, ForeignLink, Unseen
from dari.net.packet import Listeners
from dari.net.state import HOST, Addr, Address, NftTable, Route, Sysctl

TABLE = "dari"
_RTM_GETRULE = 34
_FRA_TABLE = 15
_KERNEL_TABLES = frozenset((253, 254, 255))
_PROTOCOL_KERNEL = 2
_FAMILY_NAMES = {number: name for name, number in nfnetlink.FAMILIES.items()}


def look(namespaces: Namespaces, host: Visit, nft: Nft, names: Iterable[str] | None = None) -> Foreign:
    """Of the host and the sandboxes of these names (None: all). Raises NetlinkError, OSError."""
    links: list[ForeignLink] = []
    addresses: list[Addr] = []
    routes: list[Route] = []
    tables: list[NftTable] = []
    sysctls: list[Sysctl] = []
    ruled: set[str] = set()
    down: set[tuple[str, str]] = set()
    hidden: list[Unseen] = []
    with Visits(namespaces, host) as visits:
        wanted = namespaces.names() if names is None else names
        for visit in (*visits.all_of(name for name in wanted if name != HOST), host):
            with visit.entered():
                visit.open(has_netfilter=True)
                dumped = _dump_links(visit)
                found = {link.index: link for link in map(rtnetlink.read_link, dumped)}
                hidden += unseen(visit, dumped, {index: link.name for index, link in found.items()})
                sysctls += _sysctls(visit.name, [link.name for link in found.values()])
                foreign_tables = [each for each in nfnetlink.tables(visit.netfilter) if each[1] != TABLE]
                if foreign_tables:
                    tables += _tables(visit.name, foreign_tables, nft if visit.name == HOST else None)
            down.update((visit.name, link.name) for link in found.values() if not link.is_up)
            ours = {index for index, link in found.items() if _is_ours(visit, link)}
            links += [
                ForeignLink(visit.name, link.name, link.kind, link.is_up, link.mtu, link.has_carrier)
                for index, link in found.items()
                if index not in ours and link.name != "lo"
            ]
            addresses += _addresses(visit, found, ours)
            routes += _routes(visit, found, ours)
            if _is_ruled(visit):
                ruled.add(visit.name)
    return Foreign(
        tuple(links),
        tuple(addresses),
        tuple(routes),
        tuple(tables),
        tuple(sysctls),
        frozenset(ruled),
        frozenset(down),
        tuple(hidden),
    )


def listeners(namespaces: Namespaces, host: Visit, names: Iterable[str]) -> Listeners:
    """Sockets that wait for somebody in these namespaces ("" the host's). Raises OSError."""
    found: list[tuple[str, str, Address, int]] = []
    seen: list[str] = []
    with Visits(namespaces, host) as visits:
        for visit in visits.all_of(names):
            seen.append(visit.name)
            with visit.entered():
                found += [(visit.name, each.protocol, each.address, each.port) for each in waiting()]
    return Listeners.of(found, seen)


def _dump_links(visit: Visit) -> list[Message]:
    return visit.route.dump(rtnetlink.dump_links())


def _is_ours(visit: Visit, link: Link) -> bool:
    """The marked ones; in a sandbox also the ends of veths (their marks are on the host)."""
    is_end = visit.name != HOST and link.kind == "veth" and link.peer_nsid is not None
    return is_end or bool(mark_of(link))


def _addresses(visit: Visit, links: dict[int, Link], ours: set[int]) -> Iterator[Addr]:
    for answer in visit.route.dump(rtnetlink.dump_addresses()):
        each = rtnetlink.read_address(answer)
        link = links.get(each.index)
        if link is None or (link.name == "lo" and each.address.ip.is_loopback):
            continue
        if each.address.ip.is_link_local and each.address.version == 6:
            continue
        is_read = each.index in ours and (visit.name == HOST or each.protocol == ROUTE_PROTOCOL)
        if not is_read:
            yield Addr(visit.name, link.name, each.address)


def _routes(visit: Visit, links: dict[int, Link], ours: set[int]) -> Iterator[Route]:
    """Without dari's, those IPv6 makes for itself, and those that follow from dari's own addresses."""
    for family in (socket.AF_INET, socket.AF_INET6):
        for answer in visit.route.dump(rtnetlink.dump_routes(family)):
            each = rtnetlink.read_route(answer)
            if each is None or each.table != rtnetlink.MAIN_TABLE or each.protocol == ROUTE_PROTOCOL:
                continue
            if each.index not in links or (each.to.version == 6 and each.to.is_link_local):
                continue
            if each.protocol == _PROTOCOL_KERNEL and each.index in ours:
                continue
            if each.to.is_multicast:
                continue
            yield Route(visit.name, each.to, each.via, links[each.index].name, each.metric)


def _sysctls(name: str, links: Iterable[str]) -> Iterator[Sysctl]:
    paths = [*WATCHED, *(path.format(link=link) for link in links for path in WATCHED_OF_LINK)]
    for path in paths:
        value = sysctl.read(path)
        if value is not None:
            yield Sysctl(name, path, value)


def _tables(name: str, tables: Iterable[tuple[int, str]], nft: Nft | None) -> Iterator[NftTable]:
    """Whole, elements too; the calling thread is in the namespace, for which `nft` None makes a context.

    What cannot be printed is kept without text, so that a walk says it cannot be read.
    """
    own: Nft | None = None
    try:
        own = Nft() if nft is None else None
    except OSError:
        # Too many descriptors are open for libnftables' select(): then nothing there can be read.
        own = None
    listing = nft or own
    try:
        for number, table in tables:
            family = _FAMILY_NAMES.get(number)
            if family is None:
                continue
            try:
                text = listing.list_whole(family, table) if listing is not None else ""
            except NftError:
                text = ""
            if text is not None:
                yield NftTable(name, family, table, text)
    finally:
        if own is not None:
            own.close()


def _is_ruled(visit: Visit) -> bool:
    """Whether `ip rule` has more than the kernel's own: local, main, default."""
    return any(
        _table_of(answer) not in _KERNEL_TABLES
        for family in (socket.AF_INET, socket.AF_INET6)
        for answer in _dump_rules(visit.route, family)
    )


def _dump_rules(sock: Netlink, family: int) -> list[Message]:
    try:
        return sock.dump(Message(_RTM_GETRULE, 0, struct.pack("=BBBBBBBBI", family, *(0,) * 8)))
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
            return []
        raise


def _table_of(answer: Message) -> int:
    """struct fib_rule_hdr."""
    table = attributes(answer.body, 12).get(_FRA_TABLE)
    return u32_of(table) if table is not None else int(answer.body[4])
