"""What other nodes change is settled here: their endpoints, their networks, their coming and going.

The shared store's watch names rows that may have changed; the networks they are about are settled, which writes
zones and the overlay's entries. Must not know: which store it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable

from dari.model.errors import DariError
from dari.reconcile import members, peers, shared_networks
from dari.reconcile.context import Context
from dari.reconcile.settle import settle

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0


async def follow(ctx: Context, changes: AsyncIterator[frozenset[str]]) -> None:
    """Until the watch ends."""
    mtu = shared_networks.overlay_mtu(ctx, 0)
    async for keys in changes:
        ids = affected(ctx, keys)
        if any(key.startswith(ctx.tables.nodes.prefix) for key in keys):
            before, mtu = mtu, shared_networks.overlay_mtu(ctx, 0)
            if mtu != before:
                ids = list(dict.fromkeys((*ids, *_all_shared(ctx))))
        if not ids:
            continue
        try:
            await settle(ctx, *ids)
        except DariError as error:
            log.error("following the other nodes: %s", error.message)
            ctx.tasks.add(again := asyncio.create_task(_again(ctx, ids)))
            again.add_done_callback(ctx.tasks.discard)


async def _again(ctx: Context, ids: list[str]) -> None:
    await asyncio.sleep(_AGAIN_SECONDS)
    try:
        await settle(ctx, *ids)
    except DariError as error:
        log.error("following the other nodes, again: %s", error.message)


def affected(ctx: Context, keys: Iterable[str]) -> list[str]:
    """What to settle: the networks that rows are about; of an endpoint that changed only its network's peers. A node
    that comes or goes is about the networks it has endpoints on. Most of what a large cluster changes is about networks
    nobody here is on: nothing is done about them."""
    ids: dict[str, None] = {}
    others: set[str] = set()
    nodes: list[str] = []
    for key in keys:
        table, _, rest = key.partition("/")
        if table == "endpoints":
            others.add(rest.partition("/")[0])
        elif table == "networks":
            ids[rest] = None
        elif table == "registrations":
            ids[members.ZONE_ID] = None
        elif table == "nodes":
            nodes.append(rest)
    for each in nodes:
        others |= shared_networks.placed_networks(ctx, each)
    concerned = (each for each in sorted(others) if shared_networks.is_concerned(ctx, each))
    return [*ids, *(_part_of_others(ctx, each) for each in concerned)]


def _part_of_others(ctx: Context, network_id: str) -> str:
    network = ctx.tables.networks.get(ctx.shared, network_id)
    return peers.of(network_id) if network is not None and network.spec.driver == "overlay" else network_id


def _all_shared(ctx: Context) -> list[str]:
    shared = [each.id for each in ctx.tables.networks.all(ctx.shared) if shared_networks.is_shared(each)]
    return [each for each in shared if shared_networks.is_concerned(ctx, each)]
