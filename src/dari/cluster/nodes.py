"""The nodes of the cluster, as far as this one knows: list, find, remove what is gone for good, leave.

Must not know: JSON, HTTP.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from dari.cluster import rotation
from dari.cluster.membership import Membership
from dari.cluster.rotation import Rotated
from dari.engine.base import Engine
from dari.model.cluster import Member, Node
from dari.model.errors import Conflict, InvalidArgument, NotFound, Unsupported
from dari.model.network import Endpoint, Network
from dari.reconcile import endpoints
from dari.reconcile.node_claims import free_tunnel_address
from dari.reconcile.rows import commit
from dari.store.base import Status, Txn
from dari.store.federation import Federation
from dari.units import is_global_id

log = logging.getLogger(__name__)

ROOM = "cluster"
"""Where an engine's membership is found among its rooms."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """A member; `living` is None where nothing was heard of it for its time to live."""

    member: Member
    living: Node | None
    is_self: bool
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class ClusterView:
    """Where the shared store is and how it is; how this node stands in it."""

    status: Status
    node: Node
    is_joined: bool
    problem: str


def membership_of(eng: Engine) -> Membership | None:
    found = eng.rooms.get(ROOM)
    return found if isinstance(found, Membership) else None


def cluster_view(eng: Engine) -> ClusterView | None:
    """None where this engine shares no store."""
    membership = membership_of(eng)
    if membership is None:
        return None
    return ClusterView(eng.ctx.shared.status(), membership.node, membership.is_joined, membership.problem)


def list_nodes(eng: Engine) -> list[NodeView]:
    """All members by name. Raises Unsupported where this engine shares no store."""
    _require(eng)
    tables, store = eng.ctx.tables, eng.ctx.shared
    living = {each.id: each for each in tables.nodes.all(store)}
    members = {each.id: each for each in tables.members.all(store)}
    for node in living.values():
        members.setdefault(
            node.id, Member(id=node.id, name=node.name, address=node.address, seen=node.joined)
        )
    placed: dict[str, list[Endpoint]] = {}
    for endpoint in tables.endpoints.all(store):
        if endpoint.node and endpoint.is_active:
            placed.setdefault(endpoint.node, []).append(endpoint)
    views = [
        NodeView(each, living.get(each.id), each.id == eng.ctx.node_id, tuple(placed.get(each.id, ())))
        for each in members.values()
    ]
    return sorted(views, key=lambda view: (view.member.name, view.member.id))


def find_node(eng: Engine, ref: str) -> NodeView:
    """By id, name, `self`, or the beginning of an id. Raises NotFound, InvalidArgument (several), Unsupported."""
    views = list_nodes(eng)
    for view in views:
        if ref in (view.member.id, view.member.name) or (ref == "self" and view.is_self):
            return view
    found = [view for view in views if ref and view.member.id.startswith(ref)]
    if len(found) > 1:
        raise InvalidArgument(f"node {ref} is ambiguous ({len(found)} matches found based on ID prefix)")
    if not found:
        raise NotFound(f"node {ref} not found")
    return found[0]


def nodes_on(eng: Engine, network: Network) -> list[Node]:
    """The living nodes with active endpoints on a network that several share."""
    if not is_global_id(network.id):
        return []
    ids = {each.node for each in eng.ctx.tables.endpoints.all(eng.ctx.shared, network.id) if each.is_active}
    return [each for each in eng.ctx.tables.nodes.all(eng.ctx.shared) if each.id in ids]


async def remove(eng: Engine, ref: str) -> None:
    """Forget a node that is gone for good: its endpoints end, their addresses are free.

    Raises NotFound, Conflict (it lives), Unavailable (the store).
    """
    view = find_node(eng, ref)
    if view.living is not None:
        raise Conflict(f"node {view.member.name} is alive: stop its darid, or run `dari node leave` there")
    await _forget(eng, view.member.id)


async def rotate_key(eng: Engine, ref: str) -> tuple[NodeView, Rotated]:
    """Have a node change its WireGuard key. Raises NotFound, Conflict (it is down), Unsupported (it cannot encrypt),
    Unavailable (the store, or the node does not answer), Internal."""
    view = find_node(eng, ref)
    if view.is_self:
        return view, await rotation.rotate(eng.ctx, _require(eng))
    if view.living is None:
        raise Conflict(f"node {view.member.name} is down: a key is changed by the node that has it")
    return view, await rotation.rotate_there(eng.ctx, view.living)


async def leave(eng: Engine) -> None:
    """Take this node out. Raises Conflict while its containers are on shared networks, Unavailable (the store)."""
    membership = _require(eng)
    placed = [each for each in _own_endpoints(eng, eng.ctx.node_id) if each.is_active]
    if placed:
        names = ", ".join(sorted({(each.dns_names or [each.container_id[:12]])[0] for each in placed}))
        raise Conflict(
            f"node {membership.node.name} has containers on shared networks: {names}; stop them first"
        )
    await _forget(eng, eng.ctx.node_id)
    await _forget_kept(eng)
    await membership.leave()
    shared = eng.ctx.shared
    if isinstance(shared, Federation):
        shared.remote.forget()


async def _forget(eng: Engine, node_id: str) -> None:
    tables = eng.ctx.tables
    for key in tuple(tables.endpoints_of_node.keys(eng.ctx.shared, node_id)):

        def forgotten(txn: Txn, key: str = key) -> None:
            endpoint = tables.endpoints.at(eng.ctx.shared, key)
            endpoints.drop(eng.ctx, txn, [endpoint] if endpoint is not None else [])

        await commit(eng.ctx, f"node {node_id}", forgotten)
    txn = Txn()
    tables.members.delete(txn, node_id)
    free_tunnel_address(eng.ctx, txn, node_id)
    await eng.ctx.shared.commit(txn)


async def _forget_kept(eng: Engine) -> None:
    """Who leaves of his own will takes nothing back."""
    table, txn = eng.ctx.tables.kept_endpoints, Txn()
    for parts in table.keys(eng.ctx.local):
        table.delete(txn, *parts)
    if not txn.is_empty():
        await eng.ctx.local.commit(txn)


def _own_endpoints(eng: Engine, node_id: str) -> list[Endpoint]:
    return eng.ctx.tables.endpoints_of_node.get(eng.ctx.shared, node_id) if node_id else []


def _require(eng: Engine) -> Membership:
    membership = membership_of(eng)
    if membership is None:
        raise Unsupported(
            "This node shares no store with others: start darid with --store etcd://… or zk://…"
        )
    return membership
