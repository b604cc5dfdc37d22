"""The addresses of a network that are somebody's, kept up with the rows: leases, and what endpoints ask for by name.

So that the thousandth container's address costs what the first one's did. All of it can be lost without harm. Must not
know: how an address is picked (net/ipam.py).
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dari.net.ipam import Taken
from dari.net.state import Address

if TYPE_CHECKING:
    from dari.reconcile.context import Context


@dataclass(slots=True)
class Addresses:
    """By IP version numbers of addresses: `leased`, and `asked`, by how many endpoints (`by_endpoint` has theirs).
    `seen`: how often the two stores had changed then."""

    leased: dict[int, set[int]] = field(default_factory=lambda: {4: set(), 6: set()})
    asked: dict[int, Counter[int]] = field(default_factory=lambda: {4: Counter(), 6: Counter()})
    by_endpoint: dict[str, tuple[Address, ...]] = field(default_factory=dict)
    seen: tuple[int, int] | None = None


def of_network(ctx: Context, network_id: str, version: int, *, with_asked: bool) -> Taken:
    """As the rows are now; `with_asked`: what endpoints ask for, whether they run or not."""
    known = ctx.settling.taken.setdefault(network_id, Addresses())
    _catch_up(ctx, network_id, known)
    leased = known.leased[version]
    return Taken((leased, known.asked[version])) if with_asked else Taken((leased,))


def _catch_up(ctx: Context, network_id: str, known: Addresses) -> None:
    before = known.seen
    local, of_local = ctx.local.changes(before[0] if before else 0)
    shared, of_shared = local, of_local
    if ctx.shared is not ctx.local:
        shared, of_shared = ctx.shared.changes(before[1] if before else 0)
    known.seen = (local, shared)
    leases, endpoints = (f"{each.key(network_id)}/" for each in (ctx.tables.leases, ctx.tables.endpoints))
    if before is None or of_local is None or of_shared is None:
        for numbers in known.leased.values():
            numbers.clear()
        for counts in known.asked.values():
            counts.clear()
        known.by_endpoint.clear()
        changed = {*ctx.local.read(leases), *ctx.shared.read(endpoints)}
    else:
        changed = {key for key in of_local | of_shared if key.startswith((leases, endpoints))}
    for key in changed:
        if key.startswith(leases):
            address = ipaddress.ip_address(key[len(leases) :])
            numbers = known.leased[address.version]
            if ctx.local.get(key) is not None:
                numbers.add(int(address))
            else:
                numbers.discard(int(address))
        else:
            _note(ctx, known, key, key[len(endpoints) :])


def _note(ctx: Context, known: Addresses, key: str, endpoint_id: str) -> None:
    for each in known.by_endpoint.pop(endpoint_id, ()):
        counts = known.asked[each.version]
        counts[int(each)] -= 1
        if not counts[int(each)]:
            del counts[int(each)]
    endpoint = ctx.tables.endpoints.at(ctx.shared, key)
    texts = (endpoint.spec.ipv4_address, endpoint.spec.ipv6_address) if endpoint is not None else ()
    found = tuple(ipaddress.ip_address(text) for text in texts if text)
    if found:
        known.by_endpoint[endpoint_id] = found
        for each in found:
            known.asked[each.version][int(each)] += 1
