"""A node that was removed while it was cut off, and comes back, takes its containers' places on shared networks again.

A running container gets what it had, the same addresses, where nobody else has them by now: programs hold on to
addresses, so it is given no others while it runs. A stopped one asks again at its next start. What is somebody else's
is told (doctor), and tried again now and then. Which those are: lost_places.py. Must not know: who removed it.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from dari.model.network import Endpoint
from dari.reconcile import lost_places, shared_networks
from dari.reconcile.context import Context
from dari.reconcile.endpoints import inactive
from dari.reconcile.settle import settle_quietly
from dari.store.base import Session, StoreUnavailable, Txn, TxnConflict
from dari.store.federation import Federation

log = logging.getLogger(__name__)

_LOOK_SECONDS = 10.0


async def take_back(ctx: Context) -> None:
    """Once, by a node that has just joined: all it lacks. What the store refuses now is tried again (`tend`)."""
    try:
        await _catch_up(ctx)
        await _keep_all(ctx)
        for each in lost_places.missing(ctx):
            await _take_back(ctx, each)
    except StoreUnavailable as error:
        log.info("what this node's containers had on shared networks is taken back later: %s", error.message)


async def tend(ctx: Context, session: Session) -> None:
    """Until cancelled, or the session has ended: what was missing when this node joined is taken back once that can be.
    What others take away later they mean (`network disconnect -f`), and is forgotten. Only what is missing twice: what
    is being removed is missing for a moment."""
    lost: frozenset[str] | None = None
    before: frozenset[str] = frozenset()
    while session.is_alive():
        try:
            if lost is None:
                await _catch_up(ctx)
                lost = frozenset(each.id for each in lost_places.missing(ctx))
            await asyncio.sleep(_LOOK_SECONDS)
            found = lost_places.missing(ctx)
            for each in found:
                if each.id in before:
                    await (_take_back if each.id in lost else _give_up)(ctx, each)
            before = frozenset(each.id for each in found)
        except StoreUnavailable as error:
            log.debug("what is missing is taken back later: %s", error)
            await asyncio.sleep(_LOOK_SECONDS)


async def forget(ctx: Context, sandbox_id: str, network_id: str) -> bool:
    """A container asks no more for a place it has lost. Whether there was one. The caller holds its lock."""
    txn = Txn()
    for each in lost_places.missing_in(ctx, sandbox_id):
        if each.network_id == network_id:
            ctx.tables.kept_endpoints.delete(txn, each.network_id, each.id)
    if txn.is_empty():
        return False
    await ctx.local.commit(txn)
    return True


async def _catch_up(ctx: Context) -> None:
    """Who was away may have a session again before he has heard what others did. Raises StoreUnavailable."""
    if isinstance(ctx.shared, Federation):
        for network_id in sorted({parts[0] for parts in ctx.tables.kept_endpoints.keys(ctx.local)}):
            for table in (ctx.tables.endpoints, ctx.tables.leases):
                await ctx.shared.remote.refresh(table.key(network_id) + "/")


async def _keep_all(ctx: Context) -> None:
    """What this node has in the store is kept here, too: an earlier daemon may have been killed in between."""
    tables, txn = ctx.tables, Txn()
    for each in tables.endpoints_of_node.get(ctx.shared, ctx.node_id):
        if tables.kept_endpoints.get(ctx.local, each.network_id, each.id) != each:
            tables.kept_endpoints.put(txn, each, each.network_id, each.id)
    if not txn.is_empty():
        await ctx.local.commit(txn)


async def _give_up(ctx: Context, endpoint: Endpoint) -> None:
    tables, txn = ctx.tables, Txn()
    async with ctx.lock(endpoint.container_id):
        if ctx.shared.get(tables.endpoints.key(endpoint.network_id, endpoint.id)) is None:
            tables.kept_endpoints.delete(txn, endpoint.network_id, endpoint.id)
            await ctx.local.commit(txn)


async def _take_back(ctx: Context, endpoint: Endpoint) -> None:
    """Raises StoreUnavailable."""
    tables = ctx.tables
    async with ctx.lock(endpoint.container_id):
        key = tables.kept_endpoints.key(endpoint.network_id, endpoint.id)
        row, now = ctx.local.get(key), tables.kept_endpoints.at(ctx.local, key)
        if row is None or now is None or ctx.shared.get(tables.endpoints.key(now.network_id, now.id)):
            return
        txn = Txn(checks={key: row.revision})
        sandbox = tables.sandboxes.get(ctx.local, now.sandbox_id)
        network = tables.networks.get(ctx.shared, now.network_id)
        if sandbox is None or network is None or lost_places.is_over(ctx, now):
            if sandbox is not None and network is None:
                who, where = now.container_id[:12], now.network_id
                log.warning("container %s is off network %s, which was removed meanwhile", who, where)
            tables.kept_endpoints.delete(txn, now.network_id, now.id)
            await _is_committed(ctx, txn)
            return
        if shared_networks.is_closed(ctx, network):
            return
        is_running = sandbox.is_active and now.is_active
        wanted = now if is_running else inactive(now)
        if is_running and (why := lost_places.taken(ctx, wanted)):
            log.warning("container %s stays off network %s: %s", now.container_id[:12], network.name, why)
            return
        _claim(ctx, txn, wanted)
        if not await _is_committed(ctx, txn):
            return
    if is_running:
        log.warning(
            "this node was removed while it was cut off; container %s is on network %s again, with %s",
            wanted.container_id[:12],
            network.name,
            wanted.ipv4 or wanted.ipv6,
        )
        await settle_quietly(ctx, wanted.sandbox_id, wanted.network_id)


def _claim(ctx: Context, txn: Txn, endpoint: Endpoint) -> None:
    """Add to `txn` the endpoint with its addresses, where they and the network are still as they were seen."""
    tables = ctx.tables
    key = tables.networks.key(endpoint.network_id)
    row, network = ctx.shared.get(key), tables.networks.at(ctx.shared, key)
    if row is not None and network is not None:
        txn.checks[key] = row.revision
        if network.closed_by:
            # Who closed it and died loses the right to remove it.
            tables.networks.put(txn, msgspec.structs.replace(network, closed_by=""), network.id)
    for address in filter(None, (endpoint.ipv4, endpoint.ipv6)):
        tables.leases.insert(txn, endpoint.id, endpoint.network_id, address)
    tables.endpoints.insert(txn, endpoint, endpoint.network_id, endpoint.id)


async def _is_committed(ctx: Context, txn: Txn) -> bool:
    """False: somebody was faster, it is looked at again. Raises StoreUnavailable."""
    try:
        await ctx.local.commit(txn)
    except TxnConflict as error:
        log.debug("a place is looked at again: %s", error)
        return False
    return True
