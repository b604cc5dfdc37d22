"""From the steps of a plan to findings: what differs between wanted and found, in words.

A step that only follows from another (the elements of a table that is missing, the addresses of an interface that is
gone) belongs to that one's finding. Must not know: how steps are carried out, stores.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from dari.model.finding import Finding, Severity
from dari.net.names import Names
from dari.net.plan import Op, Plan
from dari.net.state import (
    HOST,
    Addr,
    KernelObject,
    KernelState,
    Key,
    NftElement,
    NftRule,
    NftTable,
    Route,
    Sysctl,
    WireGuardPeer,
    needs,
    provides,
)
from dari.net.text import describe, endpoint_text

# What an id begins with, by the first part of a key. Kinds that are not here have their own name.
AREAS = {
    "netns": "namespace",
    "addr": "address",
    "nft-table": "rules.table",
    "nft-element": "rules.element",
    "nft-rule": "rules.docker-user",
    "neigh": "neighbour",
    "wireguard-peer": "encryption.peer",
}
# The attribute that names the trouble best comes first.
_ATTRIBUTES = {
    "is_up": "down",
    "master": "master",
    "mtu": "mtu",
    "mac": "mac",
    "is_hairpin": "port",
    "is_isolated": "port",
}
_FOREIGN = "somebody other than dari changed it"


@dataclass(slots=True)
class _Trouble:
    op: Op
    have: KernelObject | None
    followers: list[Op]


def of_plan(todo: Plan, found: KernelState, names: Names) -> list[Finding]:
    """A finding for each step that does not follow from another one; `todo` leads from `found` to what is wanted."""
    troubles = _troubles(todo, found)
    return [_finding(each, names) for each in troubles]


def _troubles(todo: Plan, found: KernelState) -> list[_Trouble]:
    troubles: list[_Trouble] = []
    by_provided: dict[Key, _Trouble] = {}
    by_altname: dict[str, _Trouble] = {}
    deleted = {op.object.key: op.object for op in todo.ops if op.action == "delete"}
    for op in todo.ops:
        each = op.object
        altname = getattr(each, "altname", "")
        leader = _leader(op, by_provided)
        if leader is None and altname and altname in by_altname:
            # Renamed, or made anew for an attribute that cannot be changed: one trouble in two steps.
            leader = by_altname[altname]
            if leader.op.action == "delete":
                leader.followers.insert(0, leader.op)
                leader.have = leader.op.object
                leader.op = op
                _provide(by_provided, op, leader)
                continue
        if leader is not None:
            leader.followers.append(op)
            _provide(by_provided, op, leader)
            continue
        trouble = _Trouble(
            op, found.objects.get(each.key) if op.action != "add" else deleted.get(each.key), []
        )
        troubles.append(trouble)
        _provide(by_provided, op, trouble)
        if altname:
            by_altname[altname] = trouble
    return troubles


def _provide(by_provided: dict[Key, _Trouble], op: Op, trouble: _Trouble) -> None:
    is_emptying = op.action == "set" and isinstance(op.object, NftTable)
    is_raising = op.action == "set" and hasattr(op.object, "is_up") and "is_up" in op.cause
    if op.action == "add" or is_emptying or is_raising:
        for key in provides(op.object):
            by_provided.setdefault(key, trouble)


def _leader(op: Op, by_provided: dict[Key, _Trouble]) -> _Trouble | None:
    if op.action == "delete":
        return None
    wanted = needs(op.object)
    # Setting the text of a table puts back every element: only those that were missing before are news.
    return next((by_provided[key] for key in wanted if key in by_provided), None)


def _finding(trouble: _Trouble, names: Names) -> Finding:
    op, have = trouble.op, trouble.have
    each = op.object
    steps = [*(str(one) for one in trouble.followers if one.action == "delete"), str(op)]
    steps += [str(one) for one in trouble.followers if one.action != "delete"]
    kind, severity, text = _words(op, have, names)
    if trouble.followers:
        text += _and_more(trouble.followers, names)
    return Finding(
        id=kind,
        severity=severity,
        object=names.owner(each),
        text=text,
        cause=_FOREIGN if op.action == "set" else _cause(op, names),
        advice="dari doctor --fix",
        is_ours=True,
        steps=tuple(steps),
    )


def _words(op: Op, have: KernelObject | None, names: Names) -> tuple[str, Severity, str]:
    each = op.object
    area = AREAS.get(each.key[0], each.key[0])
    where = _where(each, names)
    if op.action == "delete":
        text = f"{_thing(each)}{where} is there and nobody wants it"
        return f"{area}.leftover", "error" if _may_mislead(each) else "warning", text
    if op.action == "add":
        if have is not None:
            differs = _differences(each, have)
            return f"{area}.replaced", "error", f"{_thing(each)}{where}: {differs}"
        return f"{area}.missing", "error", f"{_thing(each)}{where} is missing"
    if isinstance(each, NftTable):
        return f"{area}.changed", "error", f"{_thing(each)}{where}: its rules are not the ones dari made"
    if isinstance(each, Sysctl):
        value = have.value if isinstance(have, Sysctl) else "?"
        return "sysctl.changed", "error", f"{each.path}{where} is {value}, wanted is {each.value}"
    assert have is not None
    kind = next((word for name, word in _ATTRIBUTES.items() if _differs(each, have, name)), "changed")
    return f"{area}.{kind}", "error", f"{_thing(each)}{where}: {_differences(each, have)}"


def _may_mislead(each: KernelObject) -> bool:
    """Whether something nobody wants takes traffic away from where it belongs."""
    return isinstance(each, NftElement | Route | Addr | NftRule)


def _differs(want: KernelObject, have: KernelObject, name: str) -> bool:
    return hasattr(want, name) and getattr(want, name) != getattr(have, name, None)


def _differences(want: KernelObject, have: KernelObject) -> str:
    if type(want) is not type(have):
        return f"{describe(have)} stands in its place"
    parts = []
    for field in fields(want):
        old, new = getattr(have, field.name), getattr(want, field.name)
        if old != new:
            word = field.name.removeprefix("is_").replace("_", " ")
            parts.append(f"{word} is {_shown(old)}, wanted is {_shown(new)}")
    return ", ".join(parts)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        value = ", ".join(map(str, value))
    return str(value) if value not in ("", None) else "none"


def _thing(each: KernelObject) -> str:
    match each:
        case Addr():
            return f"address {each.address} of {each.link}"
        case NftTable():
            return f"firewall table {each.family} {each.name}"
        case NftElement():
            value = f" : {each.value}" if each.value else ""
            return f"firewall element {{ {each.element}{value} }} of {each.set}"
        case NftRule():
            return f"rule in {each.family} {each.table} {each.chain}"
        case Sysctl():
            return f"{each.path} = {each.value}"
        case Route():
            return describe(each).partition(" in ")[0]
        case WireGuardPeer():
            return f"peer {each.public_key} of the encrypted tunnel ({endpoint_text(each)})"
    kind = {"netns": "network namespace", "link": "interface"}.get(each.key[0], each.key[0])
    return f"{kind} {each.key[-1]}"


def _where(each: KernelObject, names: Names) -> str:
    netns = str(getattr(each, "netns", HOST))
    link = getattr(each, "link", getattr(each, "name", ""))
    network = names.network(netns, link) if isinstance(link, str) else ""
    return f" (network {network})" if network else ""


def _cause(op: Op, names: Names) -> str:
    if op.action == "delete":
        return "it carries dari's mark, and nothing in the store wants it"
    return f"{names.owner(op.object)} wants it"


def _and_more(followers: Iterable[Op], names: Names) -> str:
    counts: dict[str, int] = {}
    for op in followers:
        word = {"nft-element": "element", "addr": "address", "nft-table": "table"}.get(op.object.key[0], "")
        word = word or op.object.key[0]
        counts[word] = counts.get(word, 0) + 1
    plural = {"address": "addresses"}
    shown = ", ".join(
        f"{number} {plural.get(word, word + 's') if number > 1 else word}" for word, number in counts.items()
    )
    return f" (with it {shown})" if shown else ""
