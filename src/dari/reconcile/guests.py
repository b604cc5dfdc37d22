"""A sandbox lent to somebody who is no container: the steps of a build.

It has no container's row, so nothing but its own end ends it; a daemon that was killed meanwhile ends it at its next
start, as every left sandbox nobody lives in (inheritance.tidy). Must not know: who runs in it, images.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from dari.model.container import Container, ContainerConfig, HostConfig
from dari.model.errors import Conflict, NotFound
from dari.model.network import Endpoint, EndpointSpec, Network, Sandbox
from dari.reconcile import endpoints, inheritance, ipam_plugin, names
from dari.reconcile.attached import of_sandbox
from dari.reconcile.context import Context
from dari.reconcile.names import Resolver
from dari.reconcile.settle import settle, settle_quietly
from dari.store.base import Txn, TxnConflict
from dari.units import is_global_id, new_id

log = logging.getLogger(__name__)

_TRIES = 16


@dataclass(frozen=True, slots=True)
class Lent:
    """`netns` is a path; `resolver` is what /etc/resolv.conf should say there."""

    netns: str
    resolver: Resolver


@contextlib.asynccontextmanager
async def lend(ctx: Context, network: Network, purpose: str) -> AsyncIterator[Lent]:
    """A namespace on `network`, gone afterwards. `purpose` (a word) stands for it where networks are shown.

    Raises what the start of a container raises: Forbidden, Conflict, NotFound, Internal.
    """
    guest_id, sandbox_id = new_id(), new_id()
    # The slash keeps it apart from every container: none can take this sandbox over.
    name = f"{purpose}/{guest_id[:12]}"
    guest = Container(
        id=guest_id,
        name=guest_id[:12],
        created=ctx.now(),
        image_id="",
        config=ContainerConfig(),
        host=HostConfig(network_mode=network.name),
        sandbox_id=sandbox_id,
    )
    sandbox = Sandbox(id=sandbox_id, container_id=guest_id, owner_name=name)
    await _write(ctx, sandbox, network)
    try:
        sandbox = await _activate(ctx, guest, sandbox_id)
        await settle(ctx, sandbox_id)
        found = names.resolver(ctx, guest)
        text = names.resolv_text(found, names.is_answered(ctx, sandbox))
        yield Lent(sandbox.netns, names.parse_resolv(text))
    finally:
        # Whoever is cancelled waits for it: half a sandbox would stay until the next start.
        ending = asyncio.ensure_future(_end(ctx, sandbox_id))
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait([ending])
            raise


async def _write(ctx: Context, sandbox: Sandbox, network: Network) -> None:
    txn = Txn()
    ctx.tables.sandboxes.insert(txn, sandbox, sandbox.id)
    endpoint = Endpoint(
        id=new_id(),
        network_id=network.id,
        sandbox_id=sandbox.id,
        container_id=sandbox.container_id,
        spec=EndpointSpec(),
        index=0,
        node=ctx.node_id if is_global_id(network.id) else "",
    )
    ctx.tables.endpoints.insert(txn, endpoint, network.id, endpoint.id)
    # A network that is removed meanwhile takes this request with it.
    row = ctx.shared.get(ctx.tables.networks.key(network.id))
    if row is None:
        raise NotFound(f"network {network.name} not found")
    txn.checks[ctx.tables.networks.key(network.id)] = row.revision
    try:
        await ctx.local.commit(txn)
    except TxnConflict:
        raise Conflict(f"network {network.name} is being changed by other requests, try again") from None


async def _activate(ctx: Context, guest: Container, sandbox_id: str) -> Sandbox:
    asked = of_sandbox(ctx, sandbox_id)
    with ipam_plugin.asking(ctx, [each.id for each in asked]):
        await ipam_plugin.request_addresses(ctx, guest, asked)
        for _ in range(_TRIES):
            sandbox = ctx.tables.sandboxes.get(ctx.local, sandbox_id)
            if sandbox is None:
                raise NotFound(f"sandbox {sandbox_id[:12]} is gone")
            txn = Txn()
            found = of_sandbox(ctx, sandbox_id)
            wanted, _ = endpoints.add_activation(ctx, txn, guest, sandbox, found, (0, 0))
            try:
                await ctx.local.commit(txn)
            except TxnConflict:
                continue
            return wanted
    raise Conflict("the addresses of a build are being changed by other requests, try again")


async def _end(ctx: Context, sandbox_id: str) -> None:
    for _ in range(_TRIES):
        sandbox = ctx.tables.sandboxes.get(ctx.local, sandbox_id)
        if sandbox is None:
            break
        txn = Txn()
        inheritance.end(ctx, txn, sandbox)
        try:
            await ctx.local.commit(txn)
        except TxnConflict:
            continue
        break
    else:
        log.error("sandbox %s of a build could not be ended; the next start does it", sandbox_id[:12])
    await settle_quietly(ctx, sandbox_id)
