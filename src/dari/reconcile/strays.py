"""Endpoints of this node's that the store has and nothing here stands behind: they are given back.

A store that gave no answer (its leader had changed, it was away) may have done what it was asked, or do it later: the
start was told as failed here, and the others know of a container that does not run. So does what a killed daemon had
claimed and not yet written down here. Must not know: why, HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import msgspec

from dari.model.network import Endpoint
from dari.reconcile import endpoints
from dari.reconcile.checks.claims import add_lease_end, is_held
from dari.reconcile.context import Context
from dari.store.base import Session, StoreUnavailable, Txn, TxnConflict
from dari.store.federation import Federation
from dari.units import is_global_id

log = logging.getLogger(__name__)

# A claim is in the store a moment before it is written down here.
_CALM_SECONDS = 1.0
# Until addresses without an owner are looked for again: soon after a doubt, then at doubling intervals.
_FIRST_LOOKS, _LAST_LOOKS = 1, 256
_AT_ONCE = 500


def among(ctx: Context, keys: Iterable[str]) -> list[Endpoint]:
    """Of these rows. None until this node has joined: before, its id may be another living one's."""
    if not ctx.session_id:
        return []
    own = ctx.tables.endpoints_of_node.keys(ctx.shared, ctx.node_id)
    rows = (ctx.tables.endpoints.at(ctx.shared, key) for key in keys if key in own)
    return [row for row in rows if row is not None and _is_stray(ctx, row)]


def _is_stray(ctx: Context, endpoint: Endpoint) -> bool:
    sandbox = ctx.tables.sandboxes.get(ctx.local, endpoint.sandbox_id)
    if sandbox is None or not endpoint.is_active:
        return sandbox is None
    return not sandbox.is_active or _health(ctx, endpoint) != endpoint.health


def _health(ctx: Context, endpoint: Endpoint) -> str:
    """What the others should know of its health: a result that came while the store was away was not told."""
    container = ctx.tables.containers.get(ctx.local, endpoint.container_id)
    known = container.status.health if container is not None else None
    return known.status if known is not None and known.status in ("healthy", "unhealthy") else endpoint.health


async def tend(ctx: Context, session: Session) -> None:
    """Until cancelled, or the session has ended. What is astray twice is given back."""
    index, calm = ctx.tables.endpoints_of_node, -1
    before: frozenset[str] = frozenset()
    ownerless = _Ownerless(ctx)
    while session.is_alive():
        await asyncio.sleep(_CALM_SECONDS)
        await ownerless.look()
        stamp = index.stamp(ctx.shared, ctx.node_id)
        if stamp == calm:
            continue
        found = among(ctx, index.keys(ctx.shared, ctx.node_id))
        for each in found:
            if each.id in before:
                await _give_back(ctx, each)
        before = frozenset(each.id for each in found)
        if not found:
            calm = stamp


class _Ownerless:
    """Addresses of shared networks that no endpoint has. What was to have them may have been removed before the store
    took them late, or before a daemon that was killed knew of them, and nobody would give them back."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._doubts = 0
        self._interval = self._looks_left = _FIRST_LOOKS
        self._suspects: frozenset[tuple[str, ...]] = frozenset()

    async def look(self) -> None:
        """Called at every look at strays; what is astray twice is given back."""
        store = self._ctx.shared
        doubts = store.doubts if isinstance(store, Federation) else 0
        if doubts != self._doubts:
            self._doubts, self._interval, self._looks_left = doubts, _FIRST_LOOKS, _FIRST_LOOKS
        self._looks_left -= 1
        if self._looks_left > 0:
            return
        found = await self._found()
        for parts in sorted(found & self._suspects):
            txn = Txn()
            add_lease_end(self._ctx, txn, parts)
            if not txn.is_empty() and await _commit(self._ctx, txn):
                log.warning(
                    "address %s of network %s was taken and nobody had it: given back", *reversed(parts)
                )
        self._interval = _FIRST_LOOKS if found else min(2 * self._interval, _LAST_LOOKS)
        self._looks_left, self._suspects = self._interval, found

    async def _found(self) -> frozenset[tuple[str, ...]]:
        found: set[tuple[str, ...]] = set()
        for number, parts in enumerate(self._ctx.tables.leases.keys(self._ctx.shared)):
            if is_global_id(parts[0]) and not is_held(self._ctx, parts):
                found.add(parts)
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
        return frozenset(found)


async def _give_back(ctx: Context, endpoint: Endpoint) -> None:
    tables = ctx.tables
    async with ctx.lock(endpoint.container_id):
        key = tables.endpoints.key(endpoint.network_id, endpoint.id)
        row, now = ctx.shared.get(key), tables.endpoints.at(ctx.shared, key)
        if row is None or now is None or not _is_stray(ctx, now):
            return
        txn = Txn(checks={key: row.revision})
        sandbox = tables.sandboxes.get(ctx.local, now.sandbox_id)
        if sandbox is not None and sandbox.is_active:
            told = msgspec.structs.replace(now, health=_health(ctx, now))
            tables.endpoints.put(txn, told, now.network_id, now.id)
            await _commit(ctx, txn)
            return
        endpoints.add_release(ctx, txn, now)
        if sandbox is None:
            tables.endpoints.delete(txn, now.network_id, now.id)
        else:
            tables.endpoints.put(txn, endpoints.inactive(now), now.network_id, now.id)
        if not await _commit(ctx, txn):
            return
    log.warning(
        "container %s does not run, and the store had it on network %s: given back",
        now.container_id[:12],
        now.network_id,
    )


async def _commit(ctx: Context, txn: Txn) -> bool:
    """Whether it is done; else it is looked at again."""
    try:
        await ctx.local.commit(txn)
    except (StoreUnavailable, TxnConflict) as error:
        log.debug("what is astray stays for a moment: %s", error)
        return False
    return True
