"""Interfaces on a parent interface: macvlan, ipvlan, 802.1q, and the dummy that may be one.

Messages, reading, making and deleting. A child is born in its sandbox's namespace under its final name (its parent
is looked up in the host's), then marked there. Deleting is direct, not buried: a child that lingers holds its
hardware or IP address, or its VLAN id, on the parent. Must not know: why something is wanted.
Formats: linux/if_link.h (IFLA_MACVLAN_*, IFLA_IPVLAN_*), linux/if_vlan.h.
"""

from __future__ import annotations

import errno
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from dari.kernel import rtnetlink
from dari.kernel.batch import Batch, taken_names
from dari.kernel.errors import GONE, KernelError
from dari.kernel.marks import bridge_mac, mark_of
from dari.kernel.netlink import Message, Netlink, attr, attributes
from dari.kernel.rtnetlink import Link
from dari.kernel.visit import Visit, Visits
from dari.net.plan import Op
from dari.net.state import HOST, Dummy, Ipvlan, Macvlan, Vlan

_Links = (Dummy, Vlan, Macvlan, Ipvlan)
CHILD_KINDS = ("macvlan", "ipvlan")
PARENT_KINDS = ("dummy", "vlan")

_VLAN_ID = 1
_MACVLAN_MODE = 1
_IPVLAN_MODE, _IPVLAN_FLAGS = 1, 2
_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
_IPVLAN_FLAG_BITS = {"bridge": 0, "private": 1, "vepa": 2}
_MODULES = {"vlan": "8021q"}


def probe_kind(kind: str) -> Message:
    """A request for a link of that kind that every kernel refuses: EOPNOTSUPP where it does not know the kind (and
    has no module for it), another error where it does. Nothing is made: the hardware address is too short, and there
    is no parent."""
    return rtnetlink.add_link("dari-probe", kind, mac="02:42")


def _u16(kind: int, value: int) -> bytes:
    return attr(kind, value.to_bytes(2, "little"))


def _number(link: Link, kind: int) -> int:
    return int.from_bytes(attributes(link.data).get(kind, b""), "little")


def _name_of(modes: dict[str, int], number: int) -> str:
    return next((name for name, each in modes.items() if each == number), str(number))


# Reading


def read_parent(link: Link, mark: str, parent: str) -> Dummy | Vlan:
    """A dummy, or a sub-interface of `parent`."""
    if link.kind == "dummy":
        return Dummy(link.name, mark, link.mtu, link.is_up)
    return Vlan(link.name, mark, parent, _number(link, _VLAN_ID), link.mtu, link.is_up)


def read_child(link: Link, mark: str, netns: str, parent: str) -> Macvlan | Ipvlan:
    """A link of one of CHILD_KINDS in `netns`."""
    if link.kind == "macvlan":
        mode = _name_of(_MACVLAN_MODES, _number(link, _MACVLAN_MODE))
        return Macvlan(netns, link.name, mark, parent, mode, link.mac, link.mtu, link.is_up)
    mode = _name_of(_IPVLAN_MODES, _number(link, _IPVLAN_MODE))
    flag = _name_of(_IPVLAN_FLAG_BITS, _number(link, _IPVLAN_FLAGS))
    return Ipvlan(netns, link.name, mark, parent, mode, flag, link.mtu, link.is_up)


# Making


def apply_parents(ops: Sequence[Op], host: Visit) -> list[KernelError]:
    """Dummies and sub-interfaces in the host's namespace. What failed."""
    if not ops:
        return []
    failed = taken_names([(op, _parent(op).name) for op in ops if op.action == "add"], host.route)
    refused = {id(error.op) for error in failed}
    indexes = _indexes(host.route, (each.parent for each in map(_parent, ops) if isinstance(each, Vlan)))
    batch = Batch()
    for op in ops:
        each = _parent(op)
        if id(op) in refused:
            continue
        if op.action == "set":
            batch.add(op, rtnetlink.set_link(each.name, is_up=each.is_up, mtu=each.mtu))
            continue
        if isinstance(each, Vlan):
            if each.parent not in indexes:
                failed.append(_no_parent(op, each.parent))
                continue
            data = _u16(_VLAN_ID, each.vlan_id)
            parent = indexes[each.parent]
            made = rtnetlink.add_link(each.name, "vlan", data, parent=parent, mtu=each.mtu, is_up=each.is_up)
        else:
            mac = bridge_mac(each.altname)
            made = rtnetlink.add_link(each.name, "dummy", mac=mac, mtu=each.mtu, is_up=each.is_up)
        batch.add(op, made, rtnetlink.add_altname(each.altname, each.name))
    errors = batch.send(host.route)
    _delete_names(host.route, [error for error in errors if id(error.op) not in batch.unmade], HOST)
    return [*failed, *map(_worded, errors)]


def apply_children(ops: Sequence[Op], host: Visit, visits: Visits) -> list[KernelError]:
    """macvlan and ipvlan interfaces in their namespaces. What failed."""
    if not ops:
        return []
    failed: list[KernelError] = []
    indexes = _indexes(host.route, (_child(op).parent for op in ops))
    for name, own in _by_namespace(ops).items():
        visit = visits.get(name)
        if visit is None:
            failed += [KernelError(op, errno.ENOENT, f"netns {name} does not exist") for op in own]
            continue
        adding = [op for op in own if op.action == "add"]
        if name != HOST:
            _clear_half_made(adding, visit)
        refused = taken_names([(op, _child(op).name) for op in adding], visit.route)
        refused += [_no_parent(op, _child(op).parent) for op in adding if _child(op).parent not in indexes]
        skipped = {id(error.op) for error in refused}
        ready = [op for op in adding if id(op) not in skipped]
        failed += [*refused, *map(_worded, _add_children(ready, indexes, host, visit))]
        batch = Batch()
        for op in own:
            if op.action == "set":
                each = _child(op)
                mac = each.mac if isinstance(each, Macvlan) else ""
                batch.add(op, rtnetlink.set_link(each.name, is_up=each.is_up, mtu=each.mtu, mac=mac))
        failed += map(_worded, batch.send(visit.route))
    return failed


def _add_children(ops: Sequence[Op], indexes: dict[str, int], host: Visit, visit: Visit) -> list[KernelError]:
    """Of one namespace. Until kernel 6.8 or so a name that the sender's own namespace has (`eth0`) cannot be given to
    a link born in another one: it is born under a name nobody has, and named when it is marked."""
    if not ops:
        return []
    making = Batch()
    for op in ops:
        each = _child(op)
        descriptor = visit.descriptor if each.netns != HOST else -1
        making.add(op, _add_child(each, _birth_name(each), indexes[each.parent], descriptor))
        if each.netns == HOST:
            # In one batch, so that no kill can part them.
            making.add(op, *_marking(each, name=each.name))
    errors = making.send(host.route)
    failed = {id(error.op) for error in errors}
    marking = Batch()
    left = [op for op in ops if id(op) not in failed and _child(op).netns != HOST]
    answers, _ = visit.route.request([rtnetlink.get_link(_birth_name(_child(op))) for op in left])
    made: list[tuple[Op, Link]] = []
    for op, answer in zip(left, answers, strict=True):
        if not answer:
            errors.append(KernelError(op, errno.ENODEV, "it went as soon as it was made"))
            continue
        link = rtnetlink.read_link(answer[0])
        made.append((op, link))
        marking.add(op, *_marking(_child(op), index=link.index))
    late = marking.send(visit.route)
    errors += late
    # A link that was made but could not be marked would be nobody's.
    undone = {id(error.op) for error in late}
    _delete(visit.route, [link for op, link in made if id(op) in undone])
    _delete_names(host.route, [error for error in errors if id(error.op) not in making.unmade], HOST)
    return errors


def _birth_name(each: Macvlan | Ipvlan) -> str:
    if each.netns == HOST:
        return each.name
    return f"dari-c{hashlib.blake2b(each.altname.encode(), digest_size=4).hexdigest()}"


def _marking(each: Macvlan | Ipvlan, name: str = "", index: int = 0) -> Iterator[Message]:
    yield rtnetlink.add_altname(each.altname, name, index)
    if index:
        yield rtnetlink.set_link(index=index, new_name=each.name)
    if isinstance(each, Macvlan) and each.mode == "passthru":
        # Such a link is born with its parent's address, and gives the parent the one it is told.
        yield rtnetlink.set_link(name, index, mac=each.mac)
    yield rtnetlink.set_link(name, index, is_up=each.is_up)


def _delete_names(route: Netlink, failed: Iterable[KernelError], netns: str) -> None:
    """Take back what was made in that namespace and could not be marked: it would be nobody's."""
    made = [error.op.object for error in failed if error.op is not None and error.op.action == "add"]
    ours = [each for each in made if isinstance(each, _Links) and each.key[1] == netns]
    route.request([rtnetlink.delete_link(each.name) for each in ours])


def _add_child(each: Macvlan | Ipvlan, name: str, parent: int, netns: int) -> Message:
    if isinstance(each, Macvlan):
        data = attr(_MACVLAN_MODE, _MACVLAN_MODES[each.mode].to_bytes(4, "little"))
        kind, mac = "macvlan", each.mac
    else:
        data = _u16(_IPVLAN_MODE, _IPVLAN_MODES[each.mode]) + _u16(
            _IPVLAN_FLAGS, _IPVLAN_FLAG_BITS[each.flag]
        )
        kind, mac = "ipvlan", ""
    return rtnetlink.add_link(name, kind, data, parent=parent, mac=mac, mtu=each.mtu, netns=netns)


def _clear_half_made(adding: Sequence[Op], visit: Visit) -> None:
    """Delete what a daemon killed between making and marking has left: a child of a parent outside, without mark,
    under a wanted name or one of birth. A container cannot have made it: what it makes has its parent inside."""
    if not adding:
        return
    names = [name for op in adding for name in (_birth_name(_child(op)), _child(op).name)]
    answers, _ = visit.route.request([rtnetlink.get_link(name) for name in names])
    links = [rtnetlink.read_link(answer[0]) for answer in answers if answer]
    left = [
        link
        for link in links
        if link.kind in CHILD_KINDS and link.peer_nsid is not None and not mark_of(link)
    ]
    _delete(visit.route, left)


# Deleting


def delete_children(ops: Sequence[Op], visits: Visits) -> list[KernelError]:
    """Of sandboxes that live on, and the host's. What failed; what is missing is done."""
    failed: list[KernelError] = []
    for name, own in _by_namespace(ops).items():
        visit = visits.get(name)
        if visit is not None:
            batch = Batch()
            for op in own:
                batch.add(op, rtnetlink.delete_link(_child(op).name), tolerated=GONE)
            failed += batch.send(visit.route)
    return failed


def delete_parents(ops: Sequence[Op], host: Visit) -> list[KernelError]:
    """What failed; what is missing is done. Children go with their parent."""
    batch = Batch()
    for op in ops:
        batch.add(op, rtnetlink.delete_link(_parent(op).name), tolerated=GONE)
    return batch.send(host.route)


def delete_inside(visit: Visit, links: Iterable[Link]) -> None:
    """The children of outer parents in a sandbox that is about to be dropped: the kernel would take its time, and
    the next one with the same address would find it taken."""
    _delete(visit.route, [each for each in links if each.kind in CHILD_KINDS and each.peer_nsid is not None])


def _delete(route: Netlink, links: Sequence[Link]) -> None:
    if not links:
        return
    _, errors = route.request([rtnetlink.delete_link(index=each.index) for each in links])
    for error in errors:
        if error.errno not in GONE:
            raise error


# Parts


def _parent(op: Op) -> Dummy | Vlan:
    assert isinstance(op.object, Dummy | Vlan)
    return op.object


def _child(op: Op) -> Macvlan | Ipvlan:
    assert isinstance(op.object, Macvlan | Ipvlan)
    return op.object


def _by_namespace(ops: Iterable[Op]) -> dict[str, list[Op]]:
    found: dict[str, list[Op]] = defaultdict(list)
    for op in ops:
        found[_child(op).netns].append(op)
    return found


def _indexes(route: Netlink, names: Iterable[str]) -> dict[str, int]:
    asked = sorted(set(names))
    answers, _ = route.request([rtnetlink.get_link(name) for name in asked])
    found = (rtnetlink.read_link(answer[0]) for answer in answers if answer)
    return {link.name: link.index for link in found if link.name in asked}


def _no_parent(op: Op, name: str) -> KernelError:
    return KernelError(op, errno.ENODEV, f"the requested parent interface {name} was not found on the host")


def _worded(error: KernelError) -> KernelError:
    """The kernel's bare number with what it means here."""
    each = error.op.object if error.op is not None else None
    texts = tuple(_meanings(each, error.errno))
    return KernelError(error.op, error.errno, "; ".join((error.text, *texts))) if texts else error


def _meanings(each: object, number: int) -> Iterator[str]:
    kind = type(each).__name__.lower()
    if number == errno.EOPNOTSUPP:
        yield f"this kernel has no {kind} interfaces (module {_MODULES.get(kind, kind)})"
    if isinstance(each, Macvlan) and number in (errno.EINVAL, errno.EBUSY):
        if each.mode == "passthru":
            yield f"in mode passthru one interface has {each.parent} alone"
        else:
            yield f"{each.parent} is a bridge's or a bond's, or carries ipvlan or passthru interfaces"
    if isinstance(each, Ipvlan) and number == errno.EBUSY:
        yield f"{each.parent} is a bridge's or a bond's, or carries macvlan interfaces"
    if isinstance(each, Macvlan) and number == errno.EADDRINUSE:
        yield f"another interface on {each.parent} has the hardware address {each.mac}"
