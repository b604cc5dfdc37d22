"""Names and addresses belong to one node at a time: who has those another one wants. Must not know: sessions."""

from __future__ import annotations

from dari.model.cluster import Node
from dari.reconcile.context import Context


def quarrel(ctx: Context, node: Node) -> str:
    """Why `node` cannot join, as far as others are the reason; empty where they are not."""
    holder_id = ctx.tables.node_names.get(ctx.shared, node.name)
    if holder_id is not None and holder_id != node.id:
        return f"another node ({holder_id}) is named {node.name}: start one of them with --node-name"
    holder_id = ctx.tables.node_addresses.get(ctx.shared, node.address)
    if holder_id is not None and holder_id != node.id:
        return f"another node ({holder_id}) has address {node.address}: start one of them with --advertise"
    return ""
