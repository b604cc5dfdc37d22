"""Plugins when a daemon starts, and when one that did not answer may answer again.

What a killed daemon left open with plugins is finished or undone by the same settle as everything else, behind the
daemon's start: a plugin may start later than the daemon, or never. Must not know: HTTP.
"""

from __future__ import annotations

import asyncio
import logging

from dari.model.errors import DariError
from dari.net.plan import Plan, plan
from dari.net.render import render
from dari.reconcile import ipam_plugin, plugin_claims, plugins
from dari.reconcile.context import Context
from dari.reconcile.networks import desired
from dari.reconcile.settle import host_facts, settle

log = logging.getLogger(__name__)

_PAUSE_FIRST, _PAUSE_MOST = 5.0, 300.0


async def look_after(ctx: Context) -> None:
    """Replay to IPAM plugins that want it, finish what is open, and again when something is left. Until cancelled."""
    await asyncio.gather(*(_replay(ctx, each.id) for each in ctx.tables.networks.all(ctx.shared)))
    while True:
        pause = _PAUSE_FIRST
        while not await catch_up(ctx):
            await asyncio.sleep(pause)
            pause = min(pause * 2, _PAUSE_MOST)
        ctx.settling.has_left_overs.clear()
        await ctx.settling.has_left_overs.wait()
        await asyncio.sleep(_PAUSE_FIRST)


async def _replay(ctx: Context, network_id: str) -> None:
    network = ctx.tables.networks.get(ctx.shared, network_id)
    if network is None or not plugin_claims.has_remote_ipam(network.spec):
        return
    try:
        await ipam_plugin.replay(ctx, network)
    except DariError as error:
        log.warning("network %s: its ipam plugin was not told again: %s", network.name, error.message)


async def catch_up(ctx: Context) -> bool:
    """Settle everything in which what a plugin knows differs from what is wanted; whether nothing is left."""
    sandboxes, networks = await _open(ctx)
    if not sandboxes and not networks:
        return True
    for ids in (sandboxes, networks):
        await asyncio.gather(*(_settle_one(ctx, each) for each in ids))
    return not any(await _open(ctx))


async def _settle_one(ctx: Context, object_id: str) -> None:
    try:
        await settle(ctx, object_id)
    except DariError as error:
        log.warning("%s", error.message)


async def _open(ctx: Context) -> tuple[list[str], list[str]]:
    """The sandboxes and networks with something left to do."""
    claims = plugin_claims.of(ctx)
    todo = {(op.object.key[1], op.object.key[3]) for op in (await examine(ctx)).ops}
    unwanted = {each.key for each in plugins.unwanted_ipam(ctx)}
    sandboxes: dict[str, None] = {}
    networks: dict[str, None] = {}
    for network_id, endpoint_id in todo:
        endpoint = ctx.tables.endpoints.get(ctx.shared, network_id, endpoint_id) if endpoint_id else None
        if endpoint is not None:
            sandboxes[endpoint.sandbox_id] = None
        elif not endpoint_id:
            networks[network_id] = None
    for claim in claims:
        if (claim.network_id, claim.endpoint_id) in todo or claim.key in unwanted:
            (sandboxes if claim.sandbox_id else networks)[claim.sandbox_id or claim.network_id] = None
    return list(sandboxes), list(networks)


async def examine(ctx: Context) -> Plan:
    """What plugins would have to be told; nothing is changed. Raises Internal."""
    networks = [each.id for each in ctx.tables.networks.all(ctx.shared)]
    sandboxes = [each.id for each in ctx.tables.sandboxes.all(ctx.local)]
    wanted = render(desired(ctx, networks, sandboxes), await host_facts(ctx)).told()
    return plan(wanted, plugins.found(ctx))
