"""Places on shared networks that others took away: a node that is cut off may be removed by another one (`node rm`),
which frees what its containers had. What they had is kept on this host too (store/tables.py, `Placed`).

Reads only; retaking.py takes them back. Must not know: sessions.
"""

from __future__ import annotations

from dari.model.network import Endpoint, Network
from dari.reconcile.attached import of_sandbox
from dari.reconcile.context import Context


def missing(ctx: Context) -> list[Endpoint]:
    """Endpoints that are kept here and are not in the shared store."""
    return _not_there(ctx, ctx.tables.kept_endpoints.all(ctx.local))


def missing_in(ctx: Context, sandbox_id: str) -> list[Endpoint]:
    """Those of one sandbox."""
    return _not_there(ctx, ctx.tables.kept_of_sandbox.get(ctx.local, sandbox_id))


def _not_there(ctx: Context, kept: list[Endpoint]) -> list[Endpoint]:
    key = ctx.tables.endpoints.key
    return [each for each in kept if ctx.shared.get(key(each.network_id, each.id)) is None]


def is_over(ctx: Context, endpoint: Endpoint) -> bool:
    """Whether nobody asks for a missing one any more: its sandbox or its network is gone, another endpoint has its
    place, or it is of another node's (this host's data are a copy)."""
    tables = ctx.tables
    if endpoint.node != ctx.node_id or tables.sandboxes.get(ctx.local, endpoint.sandbox_id) is None:
        return True
    if tables.networks.get(ctx.shared, endpoint.network_id) is None:
        return True
    return any(each.network_id == endpoint.network_id for each in of_sandbox(ctx, endpoint.sandbox_id))


def of(ctx: Context, sandbox_id: str) -> list[Endpoint]:
    """Those a sandbox asks for, as they were last."""
    return [each for each in missing_in(ctx, sandbox_id) if not is_over(ctx, each)]


def off_network(ctx: Context) -> list[tuple[Network, Endpoint]]:
    """Those a running sandbox goes without."""
    found = []
    for each in missing(ctx):
        sandbox = ctx.tables.sandboxes.get(ctx.local, each.sandbox_id)
        network = ctx.tables.networks.get(ctx.shared, each.network_id)
        if sandbox is None or network is None or not sandbox.is_active or not each.is_active:
            continue
        if not is_over(ctx, each):
            found.append((network, each))
    return found


def taken(ctx: Context, endpoint: Endpoint) -> str:
    """Who has an address of it by now, for people: `10.0.3.7 is web's on node b`; empty where they are free."""
    tables = ctx.tables
    for address in filter(None, (endpoint.ipv4, endpoint.ipv6)):
        holder_id = tables.leases.get(ctx.shared, endpoint.network_id, address)
        if holder_id is None:
            continue
        holder = tables.endpoints.get(ctx.shared, endpoint.network_id, holder_id)
        if holder is None:
            return f"{address} is taken"
        name = next(iter(holder.dns_names), holder.container_id[:12])
        known = tables.nodes.get(ctx.shared, holder.node) or tables.members.get(ctx.shared, holder.node)
        return f"{address} is {name}'s on node {known.name if known is not None else holder.node}"
    return ""
