"""Host ports of a container that a plugin's network may lead to the world: who publishes changes with the gateway.

Only when the endpoints have joined is it known which of them leads out. Where it is a plugin's, publishing is the
plugin's; where that one leaves, a bridge's network takes over, as in Docker. Must not know: how ports are picked.
"""

from __future__ import annotations

import logging

import msgspec

from dari.model.errors import DariError
from dari.model.network import PublishedPort
from dari.net.facts import HostFacts
from dari.reconcile import plugin_claims, ports
from dari.reconcile.context import Context
from dari.reconcile.networks import gateway_endpoint, of_sandbox
from dari.store.base import Txn, TxnConflict

log = logging.getLogger(__name__)


async def follow_gateway(ctx: Context, sandbox_id: str, facts: HostFacts) -> bool:
    """Whether the published ports of a sandbox changed; the kernel follows by another settle."""
    sandbox = ctx.tables.sandboxes.get(ctx.local, sandbox_id)
    container = ctx.tables.containers.get(ctx.local, sandbox.container_id) if sandbox is not None else None
    if sandbox is None or container is None or not sandbox.is_active:
        return False
    active = [each for each in of_sandbox(ctx, sandbox_id) if each.is_active]
    leading = gateway_endpoint(ctx, active)
    network = ctx.tables.networks.get(ctx.shared, leading.network_id) if leading is not None else None
    if leading is None or network is None:
        return False
    txn = Txn()
    published: list[PublishedPort] = []
    if plugin_claims.is_remote(network.spec):
        if not sandbox.ports:
            return False
        ports.release(ctx, txn, sandbox)
    else:
        if sandbox.ports:
            return False
        try:
            published = ports.claim(ctx, txn, container, sandbox, network, leading, facts.ephemeral_ports)
        except DariError as error:
            log.warning("container %s: %s", container.name, error.message)
            return False
        if not published:
            return False
    ctx.tables.sandboxes.replace(
        txn, ctx.local, msgspec.structs.replace(sandbox, ports=published), sandbox.id
    )
    try:
        await ctx.local.commit(txn)
    except TxnConflict as conflict:
        log.warning("container %s: the ports of its new gateway are taken: %s", container.name, conflict)
        return False
    return True
