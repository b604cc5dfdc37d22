"""VXLAN interfaces and their entries: messages, reading, making and deleting.

Deleting is direct, not buried: a VXLAN interface that lingers holds its number on the host. Must not know: why
something is wanted. Formats: linux/if_link.h (IFLA_VXLAN_*), linux/neighbour.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from dari.kernel import rtnetlink
from dari.kernel.batch import Batch, taken_names
from dari.kernel.errors import GONE, KernelError
from dari.kernel.marks import bridge_mac
from dari.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_REPLACE,
    Message,
    Netlink,
    attr,
    attr_u8,
    attr_u32,
    attributes,
    u32_of,
)
from dari.kernel.rtnetlink import RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH, Link
from dari.kernel.visit import Visit, Visits
from dari.net.plan import Op
from dari.net.scope import Key
from dari.net.state import HOST, Address, Fdb, Neighbour, Vxlan

KIND = "vxlan"

_ID, _LOCAL, _LEARNING, _PROXY, _PORT, _LOCAL6 = 1, 4, 7, 11, 15, 17
_NDA_DST, _NDA_LLADDR, _NDA_IFINDEX = 1, 2, 8
_NTF_SELF = 0x02
_NUD_PERMANENT, _NUD_NOARP = 0x80, 0x40
_NDMSG = struct.Struct("=BBHiHBB")


# Reading


def read_vxlan(link: Link, mark: str, master: str, underlay: str) -> Vxlan:
    data = attributes(link.data)
    local = data.get(_LOCAL) or data.get(_LOCAL6) or bytes(4)
    return Vxlan(
        name=link.name,
        altname=mark,
        vni=u32_of(data.get(_ID, bytes(4))),
        local=ip_address(local),
        port=int.from_bytes(data.get(_PORT, b""), "big"),
        master=master,
        mtu=link.mtu,
        is_up=link.is_up,
        underlay=underlay,
    )


def entries(route: Netlink, links: dict[int, str]) -> Iterator[Fdb | Neighbour]:
    """All entries of these VXLAN interfaces (name by index)."""
    if not links:
        return
    for family in (socket.AF_BRIDGE, socket.AF_INET, socket.AF_INET6):
        for answer in route.dump(Message(RTM_GETNEIGH, 0, _NDMSG.pack(family, 0, 0, 0, 0, 0, 0))):
            each = _read_entry(answer, links)
            if each is not None:
                yield each


def asked_entries(route: Netlink, indexes: dict[str, int], keys: Iterable[Key]) -> Iterator[Fdb | Neighbour]:
    """Those of the keys that exist, each asked for by itself. Raises NetlinkError."""
    known = [key for key in keys if key[2] in indexes]
    answers, errors = route.request([_get(key, indexes[key[2]]) for key in known])
    for error in errors:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise error
    links = {index: name for name, index in indexes.items()}
    for answer in answers:
        if answer and (each := _read_entry(answer[0], links)) is not None:
            yield each


def entries_of(route: Netlink, name: str, index: int) -> Iterator[Fdb | Neighbour]:
    """All entries of one VXLAN interface; the kernel looks through that one's alone. Raises NetlinkError."""
    links = {index: name}
    # Forwarding entries by the index in the header, neighbours by an attribute (net/core/rtnetlink.c, neighbour.c).
    questions = [_NDMSG.pack(socket.AF_BRIDGE, 0, 0, index, 0, 0, 0)]
    for family in (socket.AF_INET, socket.AF_INET6):
        questions.append(_NDMSG.pack(family, 0, 0, 0, 0, 0, 0) + attr_u32(_NDA_IFINDEX, index))
    for body in questions:
        for answer in route.dump(Message(RTM_GETNEIGH, 0, body)):
            each = _read_entry(answer, links)
            if each is not None:
                yield each


@dataclass(frozen=True, slots=True)
class LooseEntry:
    """An entry the kernel told of, its interface by number. `is_gone`: it was taken away."""

    index: int
    mac: str
    address: Address
    is_forwarding: bool
    is_gone: bool

    def of(self, link: str) -> Fdb | Neighbour:
        """The entry, with its interface's name."""
        return (
            Fdb(link, self.mac, self.address)
            if self.is_forwarding
            else Neighbour(link, self.address, self.mac)
        )


def loose_entry(message: Message, *, is_gone: bool) -> LooseEntry | None:
    """None for what cannot be a tunnel's: no forwarding entry with a far address, no permanent neighbour. One that is
    taken away has become another kind before, and may have no hardware address any more."""
    family, _, _, index, *_ = _NDMSG.unpack_from(message.body)
    if is_gone and family in (socket.AF_INET, socket.AF_INET6):
        found = attributes(message.body, 12)
        if _NDA_DST not in found:
            return None
        mac = found.get(_NDA_LLADDR, b"").hex(":")
        return LooseEntry(index, mac, ip_address(found[_NDA_DST]), is_forwarding=False, is_gone=True)
    each = _read_entry(message, {index: ""})
    if isinstance(each, Fdb):
        return LooseEntry(index, each.mac, each.via, is_forwarding=True, is_gone=is_gone)
    if isinstance(each, Neighbour):
        return LooseEntry(index, each.mac, each.address, is_forwarding=False, is_gone=is_gone)
    return None


def _get(key: Key, index: int) -> Message:
    if key[0] == "fdb":
        body = _NDMSG.pack(socket.AF_BRIDGE, 0, 0, index, 0, _NTF_SELF, 0) + attr(_NDA_LLADDR, _mac(key[3]))
    else:
        address = ip_address(key[3])
        body = _NDMSG.pack(_family(address), 0, 0, index, 0, 0, 0) + attr(_NDA_DST, address.packed)
    return Message(RTM_GETNEIGH, 0, body)


def _read_entry(answer: Message, links: dict[int, str]) -> Fdb | Neighbour | None:
    family, _, _, index, state, flags, _ = _NDMSG.unpack_from(answer.body)
    link = links.get(index)
    found = attributes(answer.body, 12)
    if link is None or _NDA_LLADDR not in found or _NDA_DST not in found:
        return None
    mac, address = found[_NDA_LLADDR].hex(":"), ip_address(found[_NDA_DST])
    if family == socket.AF_BRIDGE:
        return Fdb(link, mac, address) if flags & _NTF_SELF else None
    return Neighbour(link, address, mac) if state & _NUD_PERMANENT else None


# Making


def apply_vxlans(ops: Sequence[Op], host: Visit, visits: Visits, own: int) -> list[KernelError]:
    """What failed. `own`: a descriptor of the host's namespace."""
    if not ops:
        return []
    failed = taken_names([(op, _vxlan(op).name) for op in ops if op.action == "add"], host.route)
    refused = {id(error.op) for error in failed}
    masters = _indexes(host.route, (_vxlan(op).master for op in ops))
    batch = Batch()
    made_there: set[int] = set()
    for op in ops:
        each = _vxlan(op)
        if id(op) in refused:
            continue
        master = masters.get(each.master, 0)
        if each.master and not master:
            failed.append(KernelError(op, errno.ENODEV, f"bridge {each.master} does not exist"))
            continue
        if op.action == "add":
            if each.underlay == HOST:
                batch.add(op, _making(each))
            elif (error := _make_there(op, each, visits, own)) is not None:
                failed.append(error)
                continue
            else:
                made_there.add(id(op))
            batch.add(op, rtnetlink.add_altname(each.altname, each.name))
        batch.add(op, rtnetlink.set_link(each.name, is_up=each.is_up, mtu=each.mtu, master=master))
    errors = batch.send(host.route)
    made_in_vain = [
        error for error in errors if id(error.op) not in batch.unmade or id(error.op) in made_there
    ]
    if made_in_vain:
        host.route.request(
            [
                rtnetlink.delete_link(_vxlan(error.op).name)
                for error in made_in_vain
                if error.op is not None and error.op.action == "add"
            ]
        )
    return [*failed, *map(_worded, errors)]


def _making(each: Vxlan, netns: int = -1) -> Message:
    mac = bridge_mac(each.altname)
    return rtnetlink.add_link(each.name, KIND, _data(each), mac=mac, mtu=each.mtu, netns=netns)


def _make_there(op: Op, each: Vxlan, visits: Visits, own: int) -> KernelError | None:
    """Asked for from within another namespace and born in the host's: its packets stay that namespace's."""
    visit = visits.get(each.underlay)
    if visit is None:
        return KernelError(op, errno.ENOENT, f"netns {each.underlay} does not exist")
    _, errors = visit.route.request([_making(each, own)])
    return _worded(KernelError(op, errors[0].errno or 0, errors[0].strerror or "")) if errors else None


def apply_entries(ops: Sequence[Op], host: Visit) -> list[KernelError]:
    """Entries that come, change or go. What failed; what is gone already has not."""
    if not ops:
        return []
    failed: list[KernelError] = []
    indexes = _indexes(host.route, (_entry(op).link for op in ops))
    batch = Batch()
    for op in ops:
        each = _entry(op)
        index = indexes.get(each.link, 0)
        if not index:
            if op.action != "delete":
                failed.append(KernelError(op, errno.ENODEV, f"no interface {each.link}"))
        elif op.action == "delete":
            batch.add(op, _change(RTM_DELNEIGH, 0, each, index), tolerated=GONE)
        else:
            batch.add(op, _change(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, each, index))
    return [*failed, *batch.send(host.route)]


def delete_vxlans(ops: Sequence[Op], host: Visit) -> list[KernelError]:
    batch = Batch()
    for op in ops:
        batch.add(op, rtnetlink.delete_link(_vxlan(op).name), tolerated=GONE)
    return batch.send(host.route)


def _data(each: Vxlan) -> bytes:
    local = _LOCAL if each.local.version == 4 else _LOCAL6
    return (
        attr_u32(_ID, each.vni)
        + attr(local, each.local.packed)
        + attr_u8(_LEARNING, 0)
        + attr_u8(_PROXY, 1)
        + attr(_PORT, each.port.to_bytes(2, "big"))
    )


def _change(kind: int, flags: int, each: Fdb | Neighbour, index: int) -> Message:
    if isinstance(each, Fdb):
        head = _NDMSG.pack(socket.AF_BRIDGE, 0, 0, index, _NUD_PERMANENT | _NUD_NOARP, _NTF_SELF, 0)
        return Message(
            kind, flags, head + attr(_NDA_LLADDR, _mac(each.mac)) + attr(_NDA_DST, each.via.packed)
        )
    head = _NDMSG.pack(_family(each.address), 0, 0, index, _NUD_PERMANENT, 0, 0)
    body = attr(_NDA_DST, each.address.packed) + attr(_NDA_LLADDR, _mac(each.mac))
    return Message(kind, flags, head + body)


def _indexes(route: Netlink, names: Iterable[str]) -> dict[str, int]:
    asked = sorted({name for name in names if name})
    answers, errors = route.request([rtnetlink.get_link(name) for name in asked])
    for error in errors:
        if error.errno != errno.ENODEV:
            raise error
    links = [rtnetlink.read_link(answer[0]) for answer in answers if answer]
    return {link.name: link.index for link in links}


def _worded(error: KernelError) -> KernelError:
    if error.errno == errno.EOPNOTSUPP:
        return KernelError(error.op, error.errno, "this kernel has no VXLAN (module vxlan, CONFIG_VXLAN)")
    if error.errno == errno.EEXIST and error.op is not None:
        each = _vxlan(error.op)
        return KernelError(
            error.op,
            error.errno,
            f"another interface of this host has VXLAN id {each.vni} on port {each.port}",
        )
    return error


def _vxlan(op: Op | None) -> Vxlan:
    assert op is not None and isinstance(op.object, Vxlan)
    return op.object


def _entry(op: Op) -> Fdb | Neighbour:
    assert isinstance(op.object, Fdb | Neighbour)
    return op.object


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _family(address: Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6
