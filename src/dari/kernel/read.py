"""Reads the kernel into a KernelState: everything that carries dari's marks, or the keys of a scope.

Scoped, it asks for each thing by name, so that its price does not grow with the host. What the kernel makes by
itself (link-local addresses, connected routes) is left out.
Must not know: plans, what is wanted.
"""

from __future__ import annotations

import errno
import socket
from collections import defaultdict
from collections.abc import Iterable, Iterator

from dari.kernel import elements, nfnetlink, overlay, rtnetlink, sublinks, sysctl, wireguard
from dari.kernel.errors import NftError
from dari.kernel.marks import mark_of
from dari.kernel.mould import Mould
from dari.kernel.moved import is_moved, moved_of
from dari.kernel.netlink import Netlink
from dari.kernel.netns import Namespaces
from dari.kernel.nft import Nft, rules_of
from dari.kernel.rtnetlink import ROUTE_PROTOCOL, Link
from dari.kernel.visit import Visit, Visits
from dari.net.scope import Key, Scope
from dari.net.state import (
    HOST,
    Addr,
    Bridge,
    KernelObject,
    KernelState,
    Loopback,
    Netns,
    NftElement,
    NftRule,
    NftTable,
    Route,
    Sysctl,
    Veth,
)

TABLE = "dari"
RULE_MARK = ' comment "dari"'
# The chain other programs leave for rules like ours.
FOREIGN_CHAINS = (("ip", "filter", "DOCKER-USER"), ("ip6", "filter", "DOCKER-USER"))
_OF_LINKS = ("link", "addr", "route", "wireguard-peer")
_FAMILY_NAMES = {number: name for name, number in nfnetlink.FAMILIES.items()}


def read(scope: Scope, namespaces: Namespaces, host: Visit, nft: Nft, mould: Mould) -> KernelState:
    """Raises NetlinkError, NftError, OSError."""
    with Visits(namespaces, host) as visits:
        reader = _Reader(scope, namespaces, visits, nft, mould)
        found = reader.everything() if scope.keys is None else reader.keys(scope.keys)
        return KernelState({each.key: each for each in found})


class _Reader:
    def __init__(self, scope: Scope, namespaces: Namespaces, visits: Visits, nft: Nft, mould: Mould) -> None:
        self._scope = scope
        self._namespaces = namespaces
        self._visits = visits
        self._nft = nft
        self._mould = mould
        self._links: dict[str, dict[int, Link]] = {}
        self._names_by_nsid: dict[int, str] = {}
        self._is_every_nsid_known = False

    # Scoped

    def keys(self, keys: frozenset[Key]) -> Iterator[KernelObject]:
        by_namespace: dict[str, dict[str, list[Key]]] = defaultdict(lambda: defaultdict(list))
        for key in keys:
            by_namespace[key[1]][key[0]].append(key)
        host = by_namespace.pop(HOST, {})
        present = self._visits.all_of(by_namespace)
        self._learn_nsids(present)
        for visit in present:
            yield from self._scoped_sandbox(visit, by_namespace[visit.name], bool(host.get("link")))
        yield from self._scoped_host(host)

    def _scoped_sandbox(
        self, visit: Visit, kinds: dict[str, list[Key]], has_host_links: bool
    ) -> Iterator[KernelObject]:
        has_tables = "nft-table" in kinds or "nft-element" in kinds
        values = []
        with visit.entered():
            visit.open(has_netfilter=has_tables)
            values = [(key, sysctl.read(key[2])) for key in kinds.get("sysctl", ())]
        if "netns" in kinds:
            yield Netns(visit.name)
        for key, value in values:
            if value is not None:
                yield Sysctl(key[1], key[2], value)
        if has_host_links or any(kind in kinds for kind in _OF_LINKS):
            links = self._dump_links(visit)
            found: list[KernelObject] = [*self._loopback(visit.name, links)]
            found += self._children(visit.name, links)
            found += _moved(visit.name, links)
            found += wireguard.read(visit, links)
            if "addr" in kinds:
                found += self._addresses(visit, links, is_marked=False)
            if "route" in kinds:
                found += self._routes(visit, links)
            yield from (each for each in found if each.key in self._scope)
        yield from self._scoped_nft(visit, kinds)

    def _scoped_host(self, kinds: dict[str, list[Key]]) -> Iterator[KernelObject]:
        visit = self._host
        entries = [*kinds.get("fdb", ()), *kinds.get("neighbour", ())]
        names = {key[2] for kind in ("link", "addr") for key in kinds.get(kind, ())}
        names.update(key[2] for key in entries)
        links = {link.name: link for link in self._get_links(visit.route, sorted(names))}
        self._links[HOST] = {link.index: link for link in links.values()}
        for key in kinds.get("link", ()):
            if key[2] in links:
                yield from self._host_link(links[key[2]])
        for link in {key[2]: links.get(key[2]) for key in kinds.get("addr", ())}.values():
            if link is not None:
                for each in self._link_addresses(visit, link):
                    if each.key in self._scope:
                        yield each
        if "route" in kinds:
            yield from (each for each in self._routes(visit, None) if each.key in self._scope)
        if entries:
            # Of a tunnel that is in the scope itself all entries are: those nobody wants any more too.
            whole = {key[2] for key in kinds.get("link", ())} & {
                name for name, link in links.items() if link.kind == overlay.KIND
            }
            for name in sorted(whole):
                yield from overlay.entries_of(visit.route, name, links[name].index)
            indexes = {link.name: link.index for link in links.values()}
            asked = [key for key in entries if key[2] not in whole]
            yield from overlay.asked_entries(visit.route, indexes, asked)
        for key in kinds.get("sysctl", ()):
            if (value := sysctl.read(key[2])) is not None:
                yield Sysctl(HOST, key[2], value)
        yield from self._scoped_nft(visit, kinds)
        for key in kinds.get("nft-rule", ()):
            yield from self._rule(key[2], key[3], key[4])

    def _scoped_nft(self, visit: Visit, kinds: dict[str, list[Key]]) -> Iterator[KernelObject]:
        for key in kinds.get("nft-table", ()):
            yield from self._table(visit, key[2], key[3])
        by_table: dict[tuple[str, str], list[Key]] = defaultdict(list)
        for key in kinds.get("nft-element", ()):
            by_table[key[2], key[3]].append(key)
        for (family, table), wanted in by_table.items():
            shapes = nfnetlink.sets(visit.netfilter, nfnetlink.FAMILIES[family], table)
            by_set: dict[str, list[str]] = defaultdict(list)
            for key in wanted:
                by_set[key[4]].append(key[5])
            for name, asked in by_set.items():
                if name in shapes:
                    found = self._get_elements(visit, family, table, shapes[name], asked)
                    for element, value in found:
                        each = NftElement(visit.name, family, table, name, element, value)
                        if each.key in self._scope:
                            yield each

    def _get_elements(
        self, visit: Visit, family: str, table: str, shape: nfnetlink.SetShape, asked: list[str]
    ) -> Iterator[tuple[str, str]]:
        number = nfnetlink.FAMILIES[family]
        if elements.is_prefixes(shape):
            yield from self._get_prefixes(visit, number, table, shape, asked)
            return
        if elements.is_interval(shape):
            dump = nfnetlink.dump_elements(visit.netfilter, number, table, shape.name)
            yield from elements.read(shape, dump)
            return
        answers, errors = visit.netfilter.request(
            [elements.get(number, table, shape, element) for element in asked]
        )
        for error in errors:
            if error.errno != errno.ENOENT:
                raise error
        for answer in answers:
            yield from elements.read(shape, answer)

    def _get_prefixes(
        self, visit: Visit, number: int, table: str, shape: nfnetlink.SetShape, asked: list[str]
    ) -> Iterator[tuple[str, str]]:
        answers, errors = visit.netfilter.request(
            [elements.get_prefix(number, table, shape, element) for element in asked]
        )
        for error in errors:
            if error.errno != errno.ENOENT:
                raise error
        for element, answer in zip(asked, answers, strict=True):
            if elements.has_prefix(element, answer):
                yield element, ""

    # Everything

    def everything(self) -> Iterator[KernelObject]:
        present = self._visits.all_of(self._namespaces.names())
        self._learn_nsids(present)
        self._is_every_nsid_known = True
        self._dump_links(self._host)
        unmarked: dict[str, list[str]] = defaultdict(list)
        for key in self._scope.unmarked:
            unmarked[key[1]].append(key[2])
        for visit in present:
            with visit.entered():
                visit.open(has_netfilter=True)
                values = [(path, sysctl.read(path)) for path in unmarked.get(visit.name, ())]
            yield Netns(visit.name)
            yield from (Sysctl(visit.name, path, value) for path, value in values if value is not None)
            links = self._dump_links(visit)
            yield from self._loopback(visit.name, links)
            yield from self._children(visit.name, links)
            yield from _moved(visit.name, links)
            yield from wireguard.read(visit, links)
            yield from self._addresses(visit, links, is_marked=True)
            yield from self._routes(visit, links)
            yield from self._all_nft(visit)
        yield from self._whole_host(unmarked.get(HOST, ()))

    def _whole_host(self, paths: Iterable[str]) -> Iterator[KernelObject]:
        visit = self._host
        links = self._dump_links(visit)
        ours = {index: link for index, link in links.items() if mark_of(link)}
        for link in ours.values():
            yield from self._host_link(link)
        # An administrator may have given a sub-interface an address of his own.
        bare = {index: link for index, link in ours.items() if link.kind != "vlan"}
        yield from self._addresses(visit, bare, is_marked=False)
        yield from self._routes(visit, links)
        tunnels = {link.index: link.name for link in ours.values() if link.kind == overlay.KIND}
        yield from overlay.entries(visit.route, tunnels)
        for path in paths:
            if (value := sysctl.read(path)) is not None:
                yield Sysctl(HOST, path, value)
        yield from self._all_nft(visit)
        chains = {(_FAMILY_NAMES.get(each.family), each.table, each.name) for each in self._host_chains()}
        for foreign in FOREIGN_CHAINS:
            if foreign in chains:
                yield from self._rule(*foreign)

    def _host_chains(self) -> list[nfnetlink.BaseChain]:
        return nfnetlink.chains(self._host.netfilter)

    def _all_nft(self, visit: Visit) -> Iterator[KernelObject]:
        for number, name in nfnetlink.tables(visit.netfilter):
            family = _FAMILY_NAMES.get(number)
            if name != TABLE or family is None:
                continue
            yield from self._table(visit, family, name)
            for shape in nfnetlink.sets(visit.netfilter, number, name).values():
                if shape.is_anonymous:
                    continue
                dump = nfnetlink.dump_elements(visit.netfilter, number, name, shape.name)
                for element, value in elements.read(shape, dump):
                    yield NftElement(visit.name, family, name, shape.name, element, value)

    # Parts

    @property
    def _host(self) -> Visit:
        visit = self._visits.get(HOST)
        assert visit is not None
        return visit

    def _learn_nsids(self, visits: list[Visit]) -> None:
        if not visits:
            return
        answers, _ = self._host.route.request([rtnetlink.get_nsid(each.descriptor) for each in visits])
        for visit, answer in zip(visits, answers, strict=True):
            nsid = rtnetlink.read_nsid(answer)
            if nsid is not None:
                self._names_by_nsid[nsid] = visit.name

    def _name_of(self, nsid: int) -> str | None:
        if nsid not in self._names_by_nsid and not self._is_every_nsid_known:
            self._is_every_nsid_known = True
            self._learn_nsids(self._visits.all_of(self._namespaces.names()))
        return self._names_by_nsid.get(nsid)

    def _dump_links(self, visit: Visit) -> dict[int, Link]:
        links = self._links.get(visit.name)
        if links is None:
            dump = visit.route.dump(rtnetlink.dump_links())
            links = {link.index: link for link in map(rtnetlink.read_link, dump)}
            self._links[visit.name] = links
        return links

    def _get_links(self, route: Netlink, names: list[str]) -> list[Link]:
        answers, errors = route.request([rtnetlink.get_link(name) for name in names])
        for error in errors:
            if error.errno != errno.ENODEV:
                raise error
        # An altname is found too; it is not the name asked for.
        found = [rtnetlink.read_link(answer[0]) for answer in answers if answer]
        return [link for link in found if link.name in names]

    def _host_name(self, index: int) -> str:
        known = self._links.setdefault(HOST, {})
        if index and index not in known:
            answers, _ = self._host.route.request([rtnetlink.get_link(index=index)])
            if not answers[0]:
                return ""
            known[index] = rtnetlink.read_link(answers[0][0])
        return known[index].name if index else ""

    def _host_link(self, link: Link) -> Iterator[KernelObject]:
        mark = mark_of(link)
        if not mark:
            return
        if link.kind == "bridge":
            yield Bridge(link.name, mark, link.mtu, link.is_up)
        elif link.kind == "veth":
            yield self._veth(link, mark)
        elif link.kind == overlay.KIND:
            underlay = HOST if link.peer_nsid is None else self._name_of(link.peer_nsid) or "?"
            yield overlay.read_vxlan(link, mark, self._host_name(link.master), underlay)
        elif link.kind in sublinks.PARENT_KINDS:
            yield sublinks.read_parent(link, mark, self._host_name(link.peer_index))
        elif link.kind in sublinks.CHILD_KINDS:
            yield sublinks.read_child(link, mark, HOST, self._host_name(link.peer_index))

    def _children(self, namespace: str, links: dict[int, Link]) -> Iterator[KernelObject]:
        """Links of ours in a sandbox whose parents are the host's."""
        for link in links.values():
            if link.kind in sublinks.CHILD_KINDS and link.peer_nsid is not None and (mark := mark_of(link)):
                if is_moved(mark):
                    continue
                yield sublinks.read_child(link, mark, namespace, self._host_name(link.peer_index))

    def _veth(self, link: Link, mark: str) -> Veth:
        name = self._name_of(link.peer_nsid) if link.peer_nsid is not None else None
        visit = self._visits.get(name) if name is not None else None
        peer = self._dump_links(visit).get(link.peer_index) if visit is not None else None
        return Veth(
            name=link.name,
            altname=mark,
            peer=peer.name if peer else "",
            peer_netns=visit.name if visit is not None and peer else "",
            master=self._host_name(link.master),
            mac=peer.mac if peer else "",
            mtu=peer.mtu if peer and link.mtu != peer.mtu else link.mtu,
            is_up=link.is_up and (peer is None or peer.is_up),
            is_hairpin=link.is_hairpin,
            is_isolated=link.is_isolated,
        )

    def _loopback(self, namespace: str, links: dict[int, Link]) -> Iterator[Loopback]:
        if any(link.name == "lo" and link.is_up for link in links.values()):
            yield Loopback(namespace)

    def _addresses(self, visit: Visit, links: dict[int, Link], *, is_marked: bool) -> list[KernelObject]:
        """Without the kernel's own; with `is_marked` dari's only (others may have added some in a sandbox)."""
        found: list[KernelObject] = []
        for answer in visit.route.dump(rtnetlink.dump_addresses()):
            each = rtnetlink.read_address(answer)
            link = links.get(each.index)
            if link is None or link.name == "lo" or each.protocol in (1, 2, 3):
                continue
            if not is_marked or each.protocol == ROUTE_PROTOCOL:
                found.append(Addr(visit.name, link.name, each.address))
        return found

    def _link_addresses(self, visit: Visit, link: Link) -> Iterator[Addr]:
        for answer in visit.route.dump(rtnetlink.dump_link_addresses(link.index)):
            each = rtnetlink.read_address(answer)
            if each.index == link.index:
                yield Addr(visit.name, link.name, each.address)

    def _routes(self, visit: Visit, links: dict[int, Link] | None) -> Iterator[Route]:
        for family in (socket.AF_INET, socket.AF_INET6):
            for answer in visit.route.dump(rtnetlink.dump_routes(family)):
                each = rtnetlink.read_route(answer) if rtnetlink.is_of_main_table(answer) else None
                if each is None or each.protocol != ROUTE_PROTOCOL:
                    continue
                if links is None:
                    name = self._host_name(each.index)
                else:
                    name = links[each.index].name if each.index in links else ""
                yield Route(visit.name, each.to, each.via, name, each.metric)

    def _table(self, visit: Visit, family: str, name: str) -> Iterator[NftTable]:
        messages = nfnetlink.snapshot(visit.netfilter, nfnetlink.FAMILIES[family], name)
        if messages is not None:
            yield NftTable(visit.name, family, name, self._mould.text(family, name, messages))

    def _rule(self, family: str, table: str, chain: str) -> Iterator[NftRule]:
        try:
            listing = self._nft.list_chain(family, table, chain)
        except NftError:
            # A foreign table libnftables cannot print is not ours to judge; a rule of ours cannot be told there.
            return
        for text, _ in rules_of(listing or ""):
            if text.endswith(RULE_MARK):
                yield NftRule(HOST, family, table, chain, text)
                return


def _moved(namespace: str, links: dict[int, Link]) -> Iterator[KernelObject]:
    for link in links.values():
        found = moved_of(namespace, link) if link.altnames else None
        if found is not None:
            yield found
