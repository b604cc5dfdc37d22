"""What other nodes change is settled here: their endpoints, their networks, their coming and going.

The shared store's watch names rows that may have changed; the networks they are about are settled, which writes
zones and the overlay's entries. Must not know: which store it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable

from dari.model.errors import DariError
from dari.reconcile import members, shared_networks
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
    """The networks that rows are about; a node that comes or goes is about those it has endpoints on."""
    ids: dict[str, None] = {}
    for key in keys:
        table, _, rest = key.partition("/")
        if table in ("networks", "endpoints"):
            ids[rest.partition("/")[0]] = None
        elif table == "registrations":
            ids[members.ZONE_ID] = None
        elif table == "nodes":
            ids.update(dict.fromkeys(sorted(shared_networks.networks_of(ctx, rest))))
    return list(ids)


def _all_shared(ctx: Context) -> list[str]:
    return [each.id for each in ctx.tables.networks.all(ctx.shared) if shared_networks.is_shared(each)]
