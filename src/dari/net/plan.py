"""plan: the steps that turn the found kernel state into the wanted one.

The only place where an order of kernel operations is decided: what goes leaves first, innermost first; what comes
follows in the order of need. To remove a thing is to stop wanting it.
Must not know: drivers, why something is wanted, how an operation is carried out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Literal, TypeAlias

from dari.net.state import (
    HOST,
    Addr,
    Bridge,
    Dummy,
    Fdb,
    Ipvlan,
    KernelObject,
    KernelState,
    Key,
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
    holders,
    provides,
)
from dari.net.text import describe

Action: TypeAlias = Literal["add", "set", "delete"]

_SIGNS: dict[Action, str] = {"add": "+", "set": "~", "delete": "-"}

# In this order everything `needs` names precedes what needs it. Elements come early, and so leave late: a bridge
# is isolated before it carries its first frame and until its last. Interface sysctls come before addresses:
# disable_ipv6 must be gone when an IPv6 address arrives.
_RANKS: dict[type, int] = {
    Netns: 0,
    NftTable: 1,
    NftRule: 2,
    NftElement: 3,
    Bridge: 4,
    Dummy: 4,
    Vlan: 4,
    Veth: 5,
    Macvlan: 5,
    Ipvlan: 5,
    WireGuard: 4,
    Vxlan: 5,
    Loopback: 5,
    MovedLink: 5,
    Sysctl: 6,
    Fdb: 7,
    WireGuardPeer: 7,
    Neighbour: 7,
    Addr: 7,
    Route: 8,
}

# A network is told of before its endpoints; the way to the world is opened when all else is there.
_FACT_RANKS = {"network": -3, "endpoint": -2, "join": 4, "external": 20}

# Attributes the kernel cannot change on a living object: a difference there means delete, then add.
_FIXED: dict[type, tuple[str, ...]] = {
    Bridge: ("altname",),
    Veth: ("altname", "peer", "peer_netns"),
    Dummy: ("altname",),
    Vlan: ("altname", "parent", "vlan_id"),
    Macvlan: ("altname", "parent", "mode"),
    Ipvlan: ("altname", "parent", "mode", "flag"),
    MovedLink: ("altname", "source"),
    PluginFact: ("plugin", "netns", "is_held"),
    Vxlan: ("altname", "vni", "local", "port", "underlay"),
    WireGuard: ("altname",),
}


@dataclass(frozen=True, slots=True)
class Op:
    """One step. `object` is the wanted one for add and set, the found one for delete.

    `set` changes attributes of a link, the text of a table (which empties it), a rule, a sysctl, a route or the
    value of an element. `cause` says why, for people.
    """

    action: Action
    object: KernelObject
    cause: str

    def __str__(self) -> str:
        return f"{_SIGNS[self.action]} {describe(self.object)}  ({self.cause})"


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order. Carrying out a prefix of them is safe: planning again from there arrives."""

    ops: tuple[Op, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.ops

    @property
    def is_rebuilding_host_table(self) -> bool:
        """Whether a table of the host is made anew: elements outside of the scope are then missing too, and
        the caller plans again with everything."""
        return any(
            isinstance(op.object, NftTable) and op.object.netns == HOST and op.action != "delete"
            for op in self.ops
        )

    def __str__(self) -> str:
        return "".join(f"{op}\n" for op in self.ops)


def plan(wanted: KernelState, found: KernelState) -> Plan:
    """The ops from `found` to `wanted`; none for equal objects, none for what the kernel removes by itself."""
    deletes, left = _deletes(wanted, found)
    return Plan((*deletes, *_changes(wanted, left)))


def _deletes(wanted: KernelState, found: KernelState) -> tuple[list[Op], dict[Key, KernelObject]]:
    """The delete ops, and what of `found` is left after them."""
    causes: dict[Key, str] = {}
    for key, each in found.objects.items():
        want = wanted.objects.get(key)
        if want is None:
            if not isinstance(each, Sysctl):
                causes[key] = "no longer wanted"
        elif want is not each and want != each and (reason := _replacement(want, each)):
            causes[key] = reason
    if not causes:
        return [], dict(found.objects)
    gone = {name for key in causes for name in provides(found.objects[key])}
    # What lives in something that goes, goes with it; a veth in a namespace takes its far end's addresses along.
    swept: set[Key] = set()
    is_growing = True
    while is_growing:
        is_growing = False
        for key, each in found.objects.items():
            # A plugin's interface is not ours to let die with the sandbox: it goes back first.
            if isinstance(each, MovedLink):
                continue
            if key not in swept and any(holder in gone for holder in holders(each)):
                swept.add(key)
                new = [name for name in provides(each) if name not in gone]
                gone.update(new)
                is_growing = is_growing or bool(new)
    removed = [found.objects[key] for key in causes if key not in swept]
    removed.sort(key=lambda each: (-_rank(each), each.key))
    left = {key: each for key, each in found.objects.items() if key not in swept and key not in causes}
    for each in removed:
        if isinstance(each, Bridge):
            _detach(left, each.name)
    return [Op("delete", each, causes[each.key]) for each in removed], left


def _detach(left: dict[Key, KernelObject], bridge: str) -> None:
    for key, each in left.items():
        if isinstance(each, Veth | Vxlan) and each.master == bridge:
            left[key] = replace(each, master="")


def _changes(wanted: KernelState, left: dict[Key, KernelObject]) -> Iterable[Op]:
    ops: list[Op] = []
    emptied: set[Key] = set()
    for key, want in wanted.objects.items():
        have = left.get(key)
        if have is want:
            continue
        if have is None:
            ops.append(Op("add", want, "missing"))
        elif have != want:
            ops.append(Op("set", want, _difference(want, have)))
            if isinstance(want, NftTable):
                emptied.add(key)
    if emptied:
        present = {op.object.key for op in ops if op.action == "add"}
        ops = [op for op in ops if not (isinstance(op.object, NftElement) and _table(op.object) in emptied)]
        ops.extend(
            Op("add", each, "missing" if key in present else "its table is made anew")
            for key, each in wanted.objects.items()
            if isinstance(each, NftElement) and _table(each) in emptied
        )
    ops.sort(key=lambda op: (_rank(op.object), op.object.key))
    return ops


def _rank(each: KernelObject) -> int:
    if isinstance(each, PluginFact):
        return _FACT_RANKS[each.kind]
    # A gateway may lie behind a route of its own, on the link.
    is_behind = isinstance(each, Route) and each.via is not None
    return _RANKS[type(each)] + int(is_behind)


def _table(element: NftElement) -> Key:
    return ("nft-table", element.netns, element.family, element.table)


def _replacement(want: KernelObject, have: KernelObject) -> str:
    """Why `have` must be deleted before `want` can be; empty where it can be changed in place."""
    if type(want) is not type(have):
        return f"replaced by {describe(want)}"
    for name in _FIXED.get(type(want), ()):
        old, new = getattr(have, name), getattr(want, name)
        if old != new:
            return f"replaced: {name} {old or '-'} → {new}"
    return ""


def _difference(want: KernelObject, have: KernelObject) -> str:
    if isinstance(want, NftTable):
        return "text differs"
    parts = []
    for each in fields(want):
        old, new = getattr(have, each.name), getattr(want, each.name)
        if old != new:
            parts.append(f"{each.name} {_shown(old)} → {_shown(new)}")
    return ", ".join(parts)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    return "-" if value in ("", None) else str(value)
