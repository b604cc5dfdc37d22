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
from dari.reconcile.checks.claims import is_held
from dari.reconcile.context import Context
from dari.store.base import Session, StoreUnavailable, Txn, TxnConflict
from dari.store.federation import Federation

log = logging.getLogger(__name__)

# A claim is in the store a moment before it is written down here.
_CALM_SECONDS = 1.0
# How often an address that was asked for without an answer is looked at: a store does late what it does within seconds.
_LOOKS = 30


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
    asked_for = _Unanswered(ctx)
    while session.is_alive():
        await asyncio.sleep(_CALM_SECONDS)
        await asked_for.look()
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


class _Unanswered:
    """Addresses that were asked for without an answer. What was to have them may have been removed before the store
    took them late, and nobody would give them back."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._looks: dict[str, int] = {}
        self._values: dict[str, bytes] = {}
        self._orphans: set[str] = set()

    async def look(self) -> None:
        """What no endpoint has twice is given back. Never what says another endpoint: that one's row may come later."""
        store, leases = self._ctx.shared, self._ctx.tables.leases
        if isinstance(store, Federation) and store.unanswered:
            self._looks |= dict.fromkeys(store.unanswered, _LOOKS)
            self._values |= store.unanswered
            store.unanswered.clear()
        for key, left in list(self._looks.items()):
            self._looks[key] = left - 1
            row = store.get(key)
            is_ours = row is not None and row.value == self._values[key]
            is_orphan = is_ours and not is_held(self._ctx, tuple(key.removeprefix(leases.prefix).split("/")))
            if row is not None and is_orphan and key in self._orphans:
                await _commit(self._ctx, Txn(checks={key: row.revision}, deletes={key}))
            (self._orphans.add if is_orphan else self._orphans.discard)(key)
            if not left:
                del self._looks[key], self._values[key]
                self._orphans.discard(key)


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
