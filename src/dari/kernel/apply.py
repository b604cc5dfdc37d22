"""Carries out a plan: few netlink sends, one nftables transaction, namespaces made and dropped.

Order: what goes, then namespaces and tables, links, sysctls, addresses and routes, elements. A step that fails does
not stop the steps that do not need it (thirty containers share a plan); the first failure is raised at the end, and
planning again from there arrives. Nothing here waits for the kernel's RCU: see burial.py.
Must not know: why something is wanted.
"""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import Iterable, Mapping

from dari.kernel import moved, nfnetlink, overlay, rtnetlink, sublinks, sysctl, wireguard
from dari.kernel.batch import Batch, taken_names
from dari.kernel.burial import addresses_of, bury_links, bury_sandbox, bury_veth
from dari.kernel.conntrack import Connections, Publish, publish_of
from dari.kernel.elements_apply import apply_elements
from dari.kernel.errors import GONE, KernelError, NetlinkError, NftError
from dari.kernel.marks import bridge_mac
from dari.kernel.mould import Mould
from dari.kernel.netns import Namespaces
from dari.kernel.nft import Nft, rules_of
from dari.kernel.read import RULE_MARK
from dari.kernel.visit import Visit, Visits
from dari.net.plan import Op, Plan
from dari.net.state import (
    HOST,
    Addr,
    Address,
    Bridge,
    Dummy,
    Fdb,
    Ipvlan,
    KernelObject,
    Loopback,
    Macvlan,
    MovedLink,
    Neighbour,
    Netns,
    NftElement,
    NftRule,
    NftTable,
    PluginFact,
    Route,
    Sysctl,
    Veth,
    Vlan,
    Vxlan,
    WireGuard,
    WireGuardPeer,
)


class Applier:
    """One apply. `failed` holds what went wrong; `has_buried` that links wait to be deleted, or connections to be
    forgotten."""

    def __init__(
        self,
        namespaces: Namespaces,
        visits: Visits,
        host: Visit,
        nft: Nft,
        mould: Mould,
        connections: Connections,
        private_keys: Mapping[str, bytes],
    ) -> None:
        self._namespaces = namespaces
        self._visits = visits
        self._host = host
        self._nft = nft
        self._mould = mould
        self._connections = connections
        self._private_keys = private_keys
        # By address that goes: the namespace that had it.
        self._gone: dict[Address, str] = {}
        self._indexes: dict[str, dict[str, int]] = defaultdict(dict)
        self.failed: list[KernelError] = []
        self.has_buried = False

    def run(self, plan: Plan) -> None:
        deletes = [op for op in plan.ops if op.action == "delete"]
        changes = [op for op in plan.ops if op.action != "delete"]
        if deletes:
            self._delete(deletes)
        if changes:
            self._change(changes)

    # What goes

    def _delete(self, ops: list[Op]) -> None:
        # First of all: a plugin's interface must not die with its sandbox.
        for op in ops:
            if isinstance(op.object, MovedLink):
                visit = self._visits.get(op.object.netns)
                if visit is not None:
                    self._gone |= dict.fromkeys(addresses_of(visit, op.object.name), visit.name)
                    self.failed += moved.move_back(op, op.object, visit, self._namespaces.own)
        # Its UDP port is to be free at once.
        self.failed += wireguard.delete_links(
            [op for op in ops if isinstance(op.object, WireGuard)], self._visits
        )
        ops = [op for op in ops if not isinstance(op.object, MovedLink | WireGuard)]
        dying = {op.object.name for op in ops if isinstance(op.object, Netns)}
        ops = [op for op in ops if _namespace(op.object) not in dying or isinstance(op.object, Netns)]
        self._elements([op for op in ops if isinstance(op.object, NftElement)])
        self._tables([op for op in ops if isinstance(op.object, NftRule | NftTable)])
        self.failed += overlay.apply_entries(
            [op for op in ops if isinstance(op.object, Fdb | Neighbour)], self._host
        )
        self.failed += wireguard.apply_peers(
            [op for op in ops if isinstance(op.object, WireGuardPeer)], self._visits
        )
        self._unaddress([op for op in ops if isinstance(op.object, Addr | Route | Loopback)])
        for op in ops:
            if isinstance(op.object, Veth):
                visit = self._visits.get(op.object.peer_netns) if op.object.peer_netns else None
                if visit is not None:
                    self._gone |= dict.fromkeys(addresses_of(visit, op.object.peer), visit.name)
                self.failed += bury_veth(op, op.object, self._host, self._visits)
                self.has_buried = True
        children = [op for op in ops if isinstance(op.object, Macvlan | Ipvlan)]
        for op in children:
            if isinstance(op.object, Macvlan | Ipvlan) and (visit := self._visits.get(op.object.netns)):
                self._gone |= dict.fromkeys(addresses_of(visit, op.object.name), visit.name)
        self.failed += sublinks.delete_children(children, self._visits)
        bridges = [op for op in ops if isinstance(op.object, Bridge)]
        if bridges:
            self.failed += bury_links(bridges, self._host)
            self.has_buried = True
        for op in ops:
            if isinstance(op.object, Netns):
                self._delete_netns(op, op.object.name)
        self.failed += overlay.delete_vxlans([op for op in ops if isinstance(op.object, Vxlan)], self._host)
        parents = [op for op in ops if isinstance(op.object, Dummy | Vlan)]
        self.failed += sublinks.delete_parents(parents, self._host)
        stale = _publishes(ops)
        if self._gone or stale:
            self._connections.forget_later(stale, self._gone)
            self.has_buried = True

    def _delete_netns(self, op: Op, name: str) -> None:
        try:
            visit = self._visits.get(name)
            if visit is not None:
                self._gone |= dict.fromkeys(addresses_of(visit), visit.name)
                self.has_buried = bury_sandbox(visit, self._host) or self.has_buried
            self._visits.close(name)
            self._namespaces.delete(name)
        except OSError as error:
            self._fail(op, error)

    def _unaddress(self, ops: list[Op]) -> None:
        for name, own in _by_namespace(ops).items():
            visit = self._visits.get(name)
            if visit is None:
                continue
            self._look_up(visit, {op.object.link for op in own if isinstance(op.object, Addr | Route)})
            batch = Batch()
            for op in own:
                each = op.object
                if isinstance(each, Loopback):
                    batch.add(op, rtnetlink.set_link("lo", is_up=False), tolerated=GONE)
                elif isinstance(each, Addr | Route) and (index := self._index(visit, each.link)):
                    if isinstance(each, Addr):
                        self._gone[each.address.ip] = name
                        message = rtnetlink.delete_address(index, each.address)
                    else:
                        message = rtnetlink.delete_route(each.to, each.via, index, each.metric)
                    batch.add(op, message, tolerated=GONE)
            self.failed += batch.send(visit.route)

    # What comes

    def _change(self, ops: list[Op]) -> None:
        by_kind: dict[type[KernelObject], list[Op]] = defaultdict(list)
        for op in ops:
            by_kind[type(op.object)].append(op)
        finish_way = self._connections.make_way(
            {op.object.address.ip: op.object.netns for op in by_kind[Addr] if isinstance(op.object, Addr)}
        )
        for op in by_kind[Netns]:
            try:
                self._visits.create(_name(op), has_netfilter=True)
            except OSError as error:
                self._fail(op, error)
        self._tables([*by_kind[NftTable], *by_kind[NftRule]])
        self._bridges(by_kind[Bridge])
        self.failed += sublinks.apply_parents([*by_kind[Dummy], *by_kind[Vlan]], self._host)
        self._veths(by_kind[Veth])
        self.failed += wireguard.apply_links(by_kind[WireGuard], self._host, self._visits, self._private_keys)
        self.failed += overlay.apply_vxlans(by_kind[Vxlan], self._host, self._visits, self._namespaces.own)
        children = [*by_kind[Macvlan], *by_kind[Ipvlan]]
        self.failed += sublinks.apply_children(children, self._host, self._visits)
        self._inside_links([*by_kind[Loopback], *by_kind[Veth]])
        self._moved(by_kind[MovedLink])
        self._sysctls(by_kind[Sysctl])
        finish_way()
        self._address([*by_kind[Addr], *by_kind[Route]])
        self.failed += overlay.apply_entries([*by_kind[Fdb], *by_kind[Neighbour]], self._host)
        self.failed += wireguard.apply_peers(by_kind[WireGuardPeer], self._visits)
        self._elements(by_kind[NftElement])
        published = _publishes(by_kind[NftElement])
        if published:
            self._connections.forget(published)

    def _free(self, ops: list[Op]) -> list[Op]:
        """Without those that would add a link whose name is taken."""
        adding = [
            (op, op.object.name) for op in ops if op.action == "add" and isinstance(op.object, Bridge | Veth)
        ]
        errors = taken_names(adding, self._host.route)
        self.failed += errors
        taken = {id(error.op) for error in errors}
        return [op for op in ops if id(op) not in taken]

    def _bridges(self, ops: list[Op]) -> None:
        batch = Batch()
        for op in self._free(ops):
            each = op.object
            assert isinstance(each, Bridge)
            if op.action == "add":
                batch.add(
                    op,
                    rtnetlink.add_bridge(each.name, bridge_mac(each.altname), each.mtu, each.is_up),
                    rtnetlink.add_altname(each.altname, each.name),
                )
            else:
                batch.add(op, rtnetlink.set_link(each.name, is_up=each.is_up, mtu=each.mtu))
        failed = batch.send(self._host.route)
        self._take_back(error for error in failed if id(error.op) not in batch.unmade)
        self.failed += failed

    def _veths(self, ops: list[Op]) -> None:
        self._look_up(self._host, {op.object.master for op in ops if isinstance(op.object, Veth)})
        batch = Batch()
        for op in self._free(ops):
            each = op.object
            assert isinstance(each, Veth)
            master = self._index(self._host, each.master)
            visit = self._visits.get(each.peer_netns)
            if visit is None or (each.master and not master):
                missing = f"netns {each.peer_netns}" if visit is None else f"bridge {each.master}"
                self.failed.append(KernelError(op, errno.ENODEV, f"{missing} does not exist"))
                continue
            if op.action == "add":
                batch.add(
                    op,
                    rtnetlink.add_veth(
                        each.name, master, each.mtu, each.is_up, each.peer, each.mac, visit.descriptor
                    ),
                    rtnetlink.add_altname(each.altname, each.name),
                )
            else:
                batch.add(op, rtnetlink.set_link(each.name, is_up=each.is_up, mtu=each.mtu, master=master))
            if master and (op.action == "set" or each.is_hairpin or each.is_isolated):
                port = rtnetlink.set_port(each.name, is_hairpin=each.is_hairpin, is_isolated=each.is_isolated)
                batch.add(op, port)
        failed = batch.send(self._host.route)
        self._take_back(error for error in failed if id(error.op) not in batch.unmade)
        self.failed += failed

    def _take_back(self, failed: Iterable[KernelError]) -> None:
        """A link that was made but could not be marked or joined would be nobody's."""
        made = [error.op for error in failed if error.op is not None and error.op.action == "add"]
        if made:
            self.failed += bury_links(made, self._host)
            self.has_buried = True

    def _inside_links(self, ops: list[Op]) -> None:
        for name, own in _by_namespace(ops).items():
            visit = self._visits.get(name)
            if visit is None:
                if name == HOST:
                    continue
                self._fail_missing(own, name)
                continue
            batch = Batch()
            for op in own:
                each = op.object
                if isinstance(each, Loopback):
                    batch.add(op, rtnetlink.set_link("lo", is_up=True))
                elif isinstance(each, Veth) and not self._has_failed(op):
                    if op.action == "add":
                        batch.add(op, rtnetlink.set_link(each.peer, is_up=each.is_up))
                    else:
                        change = rtnetlink.set_link(each.peer, is_up=each.is_up, mtu=each.mtu, mac=each.mac)
                        batch.add(op, change)
            self.failed += batch.send(visit.route)

    def _moved(self, ops: list[Op]) -> None:
        for op in ops:
            each = op.object
            assert isinstance(each, MovedLink)
            visit = self._visits.get(each.netns)
            if visit is None:
                self._fail_missing([op], each.netns)
            elif op.action == "add":
                self.failed += moved.move_in(op, each, self._host, visit)
            else:
                self.failed += moved.change(op, each, visit)

    def _sysctls(self, ops: list[Op]) -> None:
        for name, own in _by_namespace(ops).items():
            visit = self._visits.get(name)
            if visit is None:
                self._fail_missing(own, name)
                continue
            with visit.entered():
                for op in own:
                    each = op.object
                    assert isinstance(each, Sysctl)
                    try:
                        sysctl.write(each.path, each.value)
                    except OSError as error:
                        self._fail(op, error)

    def _address(self, ops: list[Op]) -> None:
        for name, own in _by_namespace(ops).items():
            visit = self._visits.get(name)
            if visit is None:
                self._fail_missing(own, name)
                continue
            self._look_up(visit, {op.object.link for op in own if isinstance(op.object, Addr | Route)})
            batch = Batch()
            for op in own:
                each = op.object
                assert isinstance(each, Addr | Route)
                index = self._index(visit, each.link)
                if not index:
                    self.failed.append(KernelError(op, errno.ENODEV, f"no interface {each.link} there"))
                elif isinstance(each, Addr):
                    batch.add(op, rtnetlink.add_address(index, each.address))
                else:
                    batch.add(op, rtnetlink.add_route(each.to, each.via, index, each.metric))
            self.failed += batch.send(visit.route)

    # nftables

    def _tables(self, ops: list[Op]) -> None:
        rules: list[Op] = []
        for op in ops:
            each = op.object
            assert isinstance(each, NftTable | NftRule)
            if isinstance(each, NftRule):
                rules.append(op)
                continue
            visit = self._visits.get(each.netns)
            if visit is None:
                if op.action != "delete":
                    self._fail_missing([op], each.netns)
                continue
            self._table(op, each, visit)
        if rules:
            self._foreign_rules(rules)

    def _table(self, op: Op, each: NftTable, visit: Visit) -> None:
        family = nfnetlink.FAMILIES[each.family]
        messages = [] if op.action == "add" else nfnetlink.delete_table(family, each.name)
        try:
            if op.action != "delete":
                messages = [*messages, *self._mould.messages(each.family, each.name, each.text)]
            nfnetlink.make(visit.netfilter, messages)
        except NetlinkError as error:
            self._fail(op, error)
        except NftError as error:
            self.failed.append(KernelError(op, error.errno, error.text))

    def _foreign_rules(self, ops: list[Op]) -> None:
        """One transaction; where it fails, each op alone, to do what can be done and name the culprit."""
        try:
            self._nft.run("\n".join(self._command(op) for op in ops))
            return
        except NftError as error:
            if len(ops) == 1:
                self.failed.append(KernelError(ops[0], error.errno, error.text))
                return
        for op in ops:
            try:
                self._nft.run(self._command(op))
            except NftError as error:
                self.failed.append(KernelError(op, error.errno, error.text))

    def _command(self, op: Op) -> str:
        each = op.object
        assert isinstance(each, NftRule)
        chain = f"{each.family} {each.table} {each.chain}"
        try:
            listing = self._nft.list_chain(each.family, each.table, each.chain) or ""
        except NftError:
            listing = ""
        commands = [
            f"delete rule {chain} handle {handle}"
            for text, handle in rules_of(listing)
            if text.endswith(RULE_MARK)
        ]
        if op.action != "delete":
            commands.append(f"insert rule {chain} {each.text}")
        return "\n".join(commands)

    def _elements(self, ops: list[Op]) -> None:
        for name, own in _by_namespace(ops).items():
            visit = self._visits.get(name)
            if visit is not None:
                self.failed += apply_elements(own, visit.netfilter)
            else:
                self._fail_missing([op for op in own if op.action != "delete"], name)

    # Names and errors

    def _look_up(self, visit: Visit, names: Iterable[str]) -> None:
        known = self._indexes[visit.name]
        asked = sorted(name for name in set(names) if name and name not in known)
        if not asked:
            return
        answers, errors = visit.route.request([rtnetlink.get_link(name) for name in asked])
        for error in errors:
            if error.errno != errno.ENODEV:
                raise error
        for answer in answers:
            if answer:
                link = rtnetlink.read_link(answer[0])
                known[link.name] = link.index

    def _index(self, visit: Visit, name: str) -> int:
        """0 where there is no such interface."""
        return self._indexes[visit.name].get(name, 0)

    def _has_failed(self, op: Op) -> bool:
        return any(error.op is op for error in self.failed)

    def _fail(self, op: Op, error: OSError) -> None:
        self.failed.append(KernelError(op, error.errno or 0, error.strerror or str(error)))

    def _fail_missing(self, ops: Iterable[Op], namespace: str) -> None:
        for op in ops:
            self.failed.append(KernelError(op, errno.ENOENT, f"netns {namespace} does not exist"))


def _publishes(ops: Iterable[Op]) -> list[Publish]:
    """The published UDP ports among what comes, changes or goes."""
    found = (publish_of(op.object, is_gone=op.action == "delete") for op in ops)
    return [each for each in found if each is not None]


def _name(op: Op) -> str:
    assert isinstance(op.object, Netns)
    return op.object.name


def _namespace(each: KernelObject) -> str:
    """The namespace an op on this object is sent to; of a veth pair the far end's."""
    match each:
        case Netns():
            return each.name
        case Veth():
            return each.peer_netns
        case Bridge() | Dummy() | Vlan() | PluginFact() | Vxlan() | Fdb() | Neighbour():
            return HOST
        case _:
            return each.netns


def _by_namespace(ops: Iterable[Op]) -> dict[str, list[Op]]:
    found: dict[str, list[Op]] = defaultdict(list)
    for op in ops:
        found[_namespace(op.object)].append(op)
    return found
