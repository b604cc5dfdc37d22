"""Names and addresses belong to one node at a time: who has those another one wants. Must not know: how one joins."""

from __future__ import annotations

from dari.model.cluster import Node
from dari.reconcile.context import Context
from dari.store.base import Txn


def quarrel(ctx: Context, node: Node) -> str:
    """Why `node` cannot join, as far as others are the reason; empty where they are not."""
    twin = twin_of(ctx, node)
    if twin is not None:
        return (
            f"a node with this one's id, {twin.name} at {twin.address}, is alive: it joins when that one is gone; if it"
            f" is a copy of that host, stop it and remove {ctx.config.data_root}/engine-id"
        )
    holder_id = ctx.tables.node_names.get(ctx.shared, node.name)
    if holder_id is not None and holder_id != node.id:
        return f"another node ({_place(ctx, holder_id)}) is named {node.name}: start one of them with --node-name"
    holder_id = ctx.tables.node_addresses.get(ctx.shared, node.address)
    if holder_id is not None and holder_id != node.id:
        return f"another node ({_place(ctx, holder_id)}) has address {node.address}: start one of them with --advertise"
    return ""


def own_quarrel(ctx: Context) -> str:
    """Why this node cannot join, as far as others are the reason; empty while it is joined."""
    return quarrel(ctx, ctx.node) if ctx.node is not None and not ctx.session_id else ""


def why_not_joined(ctx: Context) -> str:
    """Why the others know nothing of this node; empty where they do, or where there are none."""
    if ctx.node is None or ctx.session_id:
        return ""
    status = ctx.shared.status()
    reason = own_quarrel(ctx) or "it is about to"
    if not status.is_connected:
        reason = f"the store {status.url} is away: {status.reason}"
    return f"node {ctx.node.name} has not joined the others: {reason}"


def twin_of(ctx: Context, node: Node) -> Node | None:
    """A living node of the same id under another name or address: this host's own of a moment ago, or one whose data
    this one's is a copy of."""
    found = ctx.tables.nodes.get(ctx.shared, node.id)
    if found is None or (found.name, found.address) == (node.name, node.address):
        return None
    return found


def _place(ctx: Context, node_id: str) -> str:
    found = ctx.tables.nodes.get(ctx.shared, node_id)
    return f"{found.name} at {found.address}, id {node_id}" if found is not None else node_id


def tunnel_address_of(ctx: Context, node_id: str) -> str:
    """The address in the encrypted tunnel a node has claimed; empty where it has none."""
    table = ctx.tables.tunnel_addresses
    return next(
        (address for (address,) in table.keys(ctx.shared) if table.get(ctx.shared, address) == node_id), ""
    )


def free_tunnel_address(ctx: Context, txn: Txn, node_id: str) -> None:
    if address := tunnel_address_of(ctx, node_id):
        ctx.tables.tunnel_addresses.delete(txn, address)
