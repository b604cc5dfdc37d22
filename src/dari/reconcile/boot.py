"""Boot: adopt what an earlier daemon left, finish or undo what was open, then make everything agree.

Nothing that runs is touched: containers hang on conmon, names on dari-dns, addresses on the kernel. After a start
the store, the kernel and the responder's files say the same. Must not know: HTTP.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from dari.dns import zone
from dari.model.errors import DariError
from dari.model.network import Sandbox
from dari.reconcile import endpoints, names, ports, rootfs, watch
from dari.reconcile.context import Context
from dari.reconcile.networks import of_sandbox
from dari.reconcile.settle import look_at_host, settle, settle_everything
from dari.store.base import Txn

log = logging.getLogger(__name__)

_LOOK_SECONDS = 10.0


async def boot(ctx: Context) -> None:
    """Settle everything in the store, before the first request. Raises Internal, Unavailable."""
    names.forget_files(ctx)
    await rootfs.tidy(ctx)
    await watch.adopt(ctx)
    await free_forgotten(ctx)
    async with ctx.lock("settle"):
        todo = await settle_everything(ctx)
        if not todo.is_empty:
            log.info("%d kernel objects were brought to what they should be", len(todo.ops))
        await settle_all_names(ctx)


async def settle_all_names(ctx: Context) -> None:
    """All zones, views and files; those of nobody go."""
    networks = {each.id: None for each in ctx.tables.networks.all(ctx.shared)}
    sandboxes = {each.id: None for each in ctx.tables.sandboxes.all(ctx.local)}
    for path in ctx.settling.files:
        folder, _, name = path.partition("/")
        (networks if folder == zone.ZONES else sandboxes).setdefault(name.removesuffix(".json"))
    await names.settle_names(ctx, networks, sandboxes)
    for each in ctx.tables.endpoints.all(ctx.shared):
        known = ctx.settling.attached.get(each.sandbox_id, frozenset())
        ctx.settling.attached[each.sandbox_id] = known | {each.network_id}


async def free_forgotten(ctx: Context) -> None:
    """Free addresses and ports of sandboxes in which nothing runs, and claims whose owner is gone: a daemon was
    killed between taking them and starting the container."""
    txn = Txn()
    used = {each.sandbox_id for each in ctx.tables.containers.all(ctx.local) if _is_in_use(each.status.state)}
    sandboxes = {each.id: each for each in ctx.tables.sandboxes.all(ctx.local)}
    for sandbox in sandboxes.values():
        if sandbox.is_active and sandbox.id not in used:
            _free(ctx, txn, sandbox)
    active = {each.id for each in ctx.tables.endpoints.all(ctx.shared) if each.is_active}
    for parts in ctx.tables.leases.keys(ctx.local):
        if ctx.tables.leases.get(ctx.local, *parts) not in active:
            ctx.tables.leases.delete(txn, *parts)
    for parts in ctx.tables.ports.keys(ctx.local):
        if ctx.tables.ports.get(ctx.local, *parts) not in sandboxes:
            ctx.tables.ports.delete(txn, *parts)
    for endpoint in ctx.tables.endpoints.all(ctx.shared):
        if endpoint.sandbox_id not in sandboxes:
            endpoints.add_release(ctx, txn, endpoint)
            ctx.tables.endpoints.delete(txn, endpoint.network_id, endpoint.id)
    if not txn.is_empty():
        await ctx.local.commit(txn)


def _is_in_use(state: str) -> bool:
    return state in ("running", "paused")


def _free(ctx: Context, txn: Txn, sandbox: Sandbox) -> None:
    for endpoint in of_sandbox(ctx, sandbox.id):
        if endpoint.is_active:
            endpoints.add_release(ctx, txn, endpoint)
            ctx.tables.endpoints.put(txn, endpoints.inactive(endpoint), endpoint.network_id, endpoint.id)
    ports.release(ctx, txn, sandbox)
    ctx.tables.sandboxes.put(txn, msgspec.structs.replace(sandbox, is_active=False, ports=[]), sandbox.id)


async def watch_host(ctx: Context) -> None:
    """Notice a dockerd that starts beside us: its chain for others needs our rule. Until cancelled."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        before = ctx.settling.facts
        try:
            after = await look_at_host(ctx)
            chains = (after.has_docker_user_chain, after.has_docker_user_chain6)
            if before is not None and chains != (before.has_docker_user_chain, before.has_docker_user_chain6):
                ctx.settling.standing = frozenset(
                    key for key in ctx.settling.standing if key[0] != "nft-rule"
                )
                network_id = ctx.tables.network_names.get(ctx.shared, "bridge")
                if network_id is not None:
                    await settle(ctx, network_id)
        except DariError as error:
            log.error("looking at the host: %s", error.message)
