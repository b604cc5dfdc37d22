"""Which endpoints a sandbox has, and which containers run in it: what the store's rows say of one sandbox.

Each look-up costs what it finds, however many others there are (store/tables.py, `Index`). Must not know: addresses,
the kernel.
"""

from __future__ import annotations

from dari.model.container import Container
from dari.model.network import Endpoint, Network, Sandbox
from dari.reconcile.context import Context
from dari.store.tables import HERE


def of_sandbox(ctx: Context, sandbox_id: str) -> list[Endpoint]:
    """All endpoints of a sandbox, active or not, in the order of their interfaces."""
    found = ctx.tables.endpoints_of_sandbox.get(ctx.shared, sandbox_id)
    return sorted(found, key=lambda each: (each.index, each.id))


def own_endpoints(ctx: Context) -> list[Endpoint]:
    """All endpoints of this host, active or not: on its own networks, and this node's on those it shares."""
    of_node = ctx.tables.endpoints_of_node
    return [each for word in dict.fromkeys((HERE, ctx.node_id)) for each in of_node.get(ctx.shared, word)]


def attachments(ctx: Context, sandbox: Sandbox) -> list[tuple[Network, Endpoint]]:
    """The active endpoints of a sandbox with their networks, in the order of their interfaces."""
    found = []
    for endpoint in of_sandbox(ctx, sandbox.id):
        network = ctx.tables.networks.get(ctx.shared, endpoint.network_id)
        if network is not None and endpoint.is_active:
            found.append((network, endpoint))
    return found


def find_network(ctx: Context, ref: str) -> Network | None:
    """By id, by name, or by a beginning of an id that means one network only."""
    tables, store = ctx.tables, ctx.shared
    network = tables.networks.get(store, ref) if ref else None
    if network is not None or not ref:
        return network
    network_id = tables.network_names.get(store, ref)
    if network_id is None:
        matches = [parts[0] for parts in tables.networks.keys(store) if parts[0].startswith(ref)]
        network_id = matches[0] if len(matches) == 1 else None
    return tables.networks.get(store, network_id) if network_id else None


def containers_in(ctx: Context, sandbox_id: str) -> list[Container]:
    """The containers that live in a sandbox, its owner among them, whether they run or not."""
    return ctx.tables.containers_of_sandbox.get(ctx.local, sandbox_id)
