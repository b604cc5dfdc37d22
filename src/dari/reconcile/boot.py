"""Boot: adopt what an earlier daemon left, finish or undo what was open, then make everything agree.

Nothing that runs is touched: containers hang on conmon, names on dari-dns, addresses on the kernel. After a start
the store, the kernel and the responder's files say the same. Must not know: HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

import msgspec

from dari.dns import zone
from dari.model.errors import DariError, Internal, Unavailable
from dari.model.network import Sandbox
from dari.net.plan import Plan
from dari.net.publish import TABLE
from dari.net.scope import Scope
from dari.net.state import KernelState
from dari.reconcile import (
    endpoints,
    host_names,
    inheritance,
    members,
    names,
    ports,
    relays,
    rootfs,
    shared_networks,
    watch,
)
from dari.reconcile.attached import own_endpoints
from dari.reconcile.context import Context
from dari.reconcile.file_changes import changes
from dari.reconcile.kernel import in_kernel
from dari.reconcile.networks import of_sandbox
from dari.reconcile.node_claims import twin_of
from dari.reconcile.rows import commit
from dari.reconcile.settle import (
    converge,
    is_of_sandboxes,
    look_at_host,
    mend_host_rules,
    mend_shared,
    render_everything,
    settle_everything,
)
from dari.store.base import Txn
from dari.units import is_global_id

log = logging.getLogger(__name__)

_LOOK_SECONDS = 10.0
_CALM_SECONDS = 0.02


async def boot(ctx: Context) -> None:
    """Settle everything in the store, before the first request. Raises Internal, Unavailable."""
    names.forget_files(ctx)
    await rootfs.tidy(ctx)
    await relays.end_lost(ctx)
    await watch.adopt(ctx)
    await free_forgotten(ctx)
    await relays.adopt(ctx)
    for line in ports.hold(ctx):
        log.warning("a published port cannot be held: %s", line)
    async with ctx.lock("settle"):
        try:
            todo = await settle_everything(ctx)
        except Internal as error:
            if not is_of_sandboxes(error):
                raise
            # Better an engine where one container lacks an interface than none.
            log.error("%s", error.message)
            todo = Plan()
        if not todo.is_empty:
            log.info("%d kernel objects were brought to what they should be", len(todo.ops))
        # The bridges of overlays that end here are gone by now, and their routes with them.
        facts = await look_at_host(ctx)
        _, wanted = render_everything(ctx, facts)
        absent = shared_networks.absent_subnets(ctx, facts)
        await in_kernel(ctx, lambda: ctx.kernel.check_connections(wanted, absent))
        await relays.carry(ctx, [each.id for each in ctx.tables.sandboxes.all(ctx.local)])
        try:
            await settle_all_names(ctx)
        except Unavailable as error:
            # Better an engine whose names are behind than none: what settles next tries again.
            log.error("%s", error.message)


async def settle_all(ctx: Context) -> None:
    """Kernel and names, of everything. Raises Internal, Unavailable."""
    async with ctx.lock("settle"):
        todo = await settle_everything(ctx)
        if not todo.is_empty:
            log.warning("this node was away from the store; brought to what it has:\n%s", todo)
        await settle_all_names(ctx)


async def settle_all_names(ctx: Context) -> None:
    """All zones, views and files; those of nobody go. Raises Unavailable."""
    networks = {each.id: None for each in ctx.tables.networks.all(ctx.shared)}
    networks[members.ZONE_ID] = None
    sandboxes = {each.id: None for each in ctx.tables.sandboxes.all(ctx.local)}
    networks.update(dict.fromkeys(ctx.settling.zone_files))
    for path in ctx.settling.files:
        sandboxes.setdefault(path.partition("/")[2].removesuffix(".json"))
    for each in ctx.tables.sandboxes.all(ctx.local):
        if each.is_active and each.mode in ("own", "none") and each.id not in ctx.settling.rendered:
            # A container that restarts by itself became active since the kernel was settled: it has no namespace
            # yet, and its own settle waits behind us. A view it had led to the namespace before.
            del sandboxes[each.id]
            ctx.settling.files[zone.view_path(each.id)] = ""
    sandboxes.pop(host_names.ID, None)
    await names.settle_names(ctx, networks, sandboxes)
    await host_names.settle(ctx)
    for endpoint in own_endpoints(ctx):
        known = ctx.settling.attached.get(endpoint.sandbox_id, frozenset())
        ctx.settling.attached[endpoint.sandbox_id] = known | {endpoint.network_id}


async def free_forgotten(ctx: Context) -> None:
    """Free addresses and ports of sandboxes in which nothing runs, and claims whose owner is gone: a daemon was
    killed between taking them and starting the container. While another node with this one's id lives, what is shared
    may be that one's: it is looked at again when this one joins (strays.py)."""
    await commit(ctx, "what an earlier daemon left", lambda txn: _add_forgotten(ctx, txn))


def _add_forgotten(ctx: Context, txn: Txn) -> None:
    has_twin = ctx.node is not None and twin_of(ctx, ctx.node) is not None
    used = {each.sandbox_id for each in ctx.tables.containers.all(ctx.local) if _is_in_use(each.status.state)}
    sandboxes = {each.id: each for each in ctx.tables.sandboxes.all(ctx.local)}
    for sandbox in sandboxes.values():
        if sandbox.is_active and sandbox.id not in used:
            _free(ctx, txn, sandbox, is_local_only=has_twin)
    active = {each.id for each in own_endpoints(ctx) if each.is_active}
    for parts in ctx.tables.leases.keys(ctx.local):
        if is_global_id(parts[0]):
            # On shared networks a lease comes and goes with its endpoint, in one transaction.
            continue
        if ctx.tables.leases.get(ctx.local, *parts) not in active:
            ctx.tables.leases.delete(txn, *parts)
    for parts in ctx.tables.ports.keys(ctx.local):
        if ctx.tables.ports.get(ctx.local, *parts) not in sandboxes:
            ctx.tables.ports.delete(txn, *parts)
    for endpoint in own_endpoints(ctx):
        if endpoint.sandbox_id not in sandboxes and not (has_twin and endpoint.node):
            endpoints.add_release(ctx, txn, endpoint)
            ctx.tables.endpoints.delete(txn, endpoint.network_id, endpoint.id)
    inheritance.tidy(ctx, txn)


def _is_in_use(state: str) -> bool:
    return state in ("running", "paused")


def _free(ctx: Context, txn: Txn, sandbox: Sandbox, *, is_local_only: bool = False) -> None:
    held = [each for each in of_sandbox(ctx, sandbox.id) if not (is_local_only and each.node)]
    if sandbox.owner_name:
        endpoints.drop(ctx, txn, held)
    for endpoint in held if not sandbox.owner_name else ():
        if endpoint.is_active:
            endpoints.add_release(ctx, txn, endpoint)
            ctx.tables.endpoints.put(txn, endpoints.inactive(endpoint), endpoint.network_id, endpoint.id)
    ports.release(ctx, txn, sandbox)
    ctx.tables.sandboxes.put(txn, msgspec.structs.replace(sandbox, is_active=False, ports=[]), sandbox.id)


async def follow_servers(ctx: Context) -> None:
    """Whom containers' questions are passed on to follows the host's resolv.conf. Until cancelled."""
    watched = (ctx.config.resolv_conf, ctx.config.resolved_conf)
    known = names.resolver(ctx, None), names.stub_servers(ctx)
    async for _ in changes(watched):
        found = names.resolver(ctx, None), names.stub_servers(ctx)
        if found == known:
            continue
        known = found
        log.info("the host's servers for names are %s now", ", ".join(found[0].servers) or "none")
        try:
            async with ctx.lock("settle"):
                await names.settle_names(ctx, (), [each.id for each in ctx.tables.sandboxes.all(ctx.local)])
        except DariError as error:
            log.error("following the host's servers for names: %s", error.message)


async def leave(ctx: Context) -> bool:
    """At a clean stop: where nothing runs, everything of dari's leaves the kernel (bridges, rules, the one beside
    Docker's). Whether it did. Raises Internal."""
    if any(_is_in_use(each.status.state) for each in ctx.tables.containers.all(ctx.local)):
        return False
    nothing = KernelState()
    scope = Scope.everything(nothing)
    async with ctx.lock("settle"):
        await in_kernel(ctx, lambda: converge(ctx.kernel, nothing, scope))
        relays.stop(ctx)
    return True


async def watch_host(ctx: Context) -> None:
    """Notice what others do to the host: a dockerd that starts beside us (its chain for others needs our rule), a
    firewall that was flushed (our tables with it, those in sandboxes too). Until cancelled.

    The kernel tells of changes to nftables as they happen; what it does not tell (forwarding switched off) is
    looked for now and then.
    """
    touched: set[str] = set()
    alarm = asyncio.Event()

    def hear() -> None:
        touched.update(ctx.kernel.alarm.hear())
        if touched:
            alarm.set()

    loop = asyncio.get_running_loop()
    descriptor = ctx.kernel.alarm.fileno()
    loop.add_reader(descriptor, hear)
    try:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await alarm.wait()
            if alarm.is_set():
                # A reload is several transactions.
                await asyncio.sleep(_CALM_SECONDS)
            is_ours = TABLE in touched
            touched.clear()
            alarm.clear()
            try:
                await look_after_host(ctx, is_everything=is_ours)
            except DariError as error:
                log.error("looking after the host: %s", error.message)
    finally:
        loop.remove_reader(descriptor)


async def look_after_host(ctx: Context, *, is_everything: bool = False) -> bool:
    """Look once, at what all networks share or at everything; whether something had to be mended. Raises Internal."""
    async with ctx.lock("settle"):
        if is_everything:
            # The host's rules first: looking into a thousand sandboxes takes a while.
            first = await mend_host_rules(ctx)
            todo = await settle_everything(ctx)
            mended = Plan((*first.ops, *todo.ops))
            if not mended.is_empty:
                log.warning("somebody changed dari's rules; mended:\n%s", mended)
            return not mended.is_empty
        return await mend_shared(ctx)
