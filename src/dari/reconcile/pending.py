"""Attachments to networks that were not there when the container was made: looked for at its start, as Docker does.

Must not know: how a container starts.
"""

from __future__ import annotations

import msgspec

from dari.model.errors import Conflict, DariError, Forbidden, NotFound
from dari.model.network import Endpoint, EndpointSpec, PendingEndpoint, Sandbox
from dari.net.attachment import check_endpoint
from dari.reconcile.attached import find_network, of_sandbox
from dari.reconcile.context import Context
from dari.store.base import Txn, TxnConflict
from dari.units import is_global_id, new_id

_TRIES = 16
_PREFIX = "failed to set up container networking: "


async def resolve(ctx: Context, container_id: str) -> None:
    """Put the container on the networks it waits for. Raises NotFound, InvalidArgument, Forbidden, Conflict."""
    for _ in range(_TRIES):
        container = ctx.tables.containers.get(ctx.local, container_id)
        sandbox = ctx.tables.sandboxes.get(ctx.local, container.sandbox_id) if container else None
        if sandbox is None or not sandbox.pending or sandbox.container_id != container_id:
            return
        txn = Txn()
        try:
            _attach(ctx, txn, sandbox)
        except DariError as error:
            raise type(error)(f"{_PREFIX}{error.message}") from None
        try:
            await ctx.local.commit(txn)
        except TxnConflict:
            continue
        return
    raise Conflict(f"the networks of container {container_id[:12]} are being changed, try again")


async def add(ctx: Context, sandbox: Sandbox, network: str, spec: EndpointSpec) -> None:
    """Note a network that is not there for the container's next start."""
    taken = [each.index for each in of_sandbox(ctx, sandbox.id)]
    index = max((*taken, *(each.index for each in sandbox.pending)), default=-1) + 1
    kept = [each for each in sandbox.pending if each.network != network]
    asked = [*kept, PendingEndpoint(network=network, spec=spec, index=index)]
    txn = Txn()
    ctx.tables.sandboxes.put(txn, msgspec.structs.replace(sandbox, pending=asked), sandbox.id)
    await ctx.local.commit(txn)


async def remove(ctx: Context, container_id: str, network: str) -> None:
    """Forget such a network. Raises Forbidden where the container does not wait for it."""
    container = ctx.tables.containers.get(ctx.local, container_id)
    sandbox = ctx.tables.sandboxes.get(ctx.local, container.sandbox_id) if container else None
    kept = [each for each in sandbox.pending if each.network != network] if sandbox else []
    if sandbox is None or len(kept) == len(sandbox.pending):
        raise Forbidden(f"container {container_id} is not connected to the network {network}")
    txn = Txn()
    ctx.tables.sandboxes.put(txn, msgspec.structs.replace(sandbox, pending=kept), sandbox.id)
    await ctx.local.commit(txn)


def _attach(ctx: Context, txn: Txn, sandbox: Sandbox) -> None:
    known = {each.network_id for each in of_sandbox(ctx, sandbox.id)}
    waits = []
    for each in sandbox.pending:
        network = find_network(ctx, each.network)
        if network is None and each.network == "bridge" and not ctx.config.has_default_bridge:
            # As in Docker, it starts without; where there is a default bridge again, it is on that.
            waits.append(each)
            continue
        row = ctx.shared.get(ctx.tables.networks.key(network.id)) if network is not None else None
        if network is None or row is None:
            raise NotFound(f"network {each.network} not found")
        if network.id in known:
            continue
        if network.spec.is_config_only:
            raise Forbidden("cannot create endpoint on configuration-only network")
        check_endpoint(network, each.spec)
        known.add(network.id)
        endpoint = Endpoint(
            id=new_id(),
            network_id=network.id,
            sandbox_id=sandbox.id,
            container_id=sandbox.container_id,
            spec=each.spec,
            index=each.index,
            node=ctx.node_id if is_global_id(network.id) else "",
        )
        ctx.tables.endpoints.insert(txn, endpoint, network.id, endpoint.id)
        txn.checks[ctx.tables.networks.key(network.id)] = row.revision
    ctx.tables.sandboxes.replace(txn, ctx.local, msgspec.structs.replace(sandbox, pending=waits), sandbox.id)
