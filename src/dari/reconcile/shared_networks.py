"""Networks that several hosts share: which endpoints count, and where the others' are.

An endpoint counts where its node is alive, which is what the store's sessions say; a node whose session ran out takes
its names and entries with it until it returns. Must not know: the kernel, the store's kind.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Iterable, Iterator

from dari.model.errors import Forbidden
from dari.model.network import Endpoint, Network
from dari.net import overlay
from dari.net.desired import OverlayWant, PeerWant
from dari.net.facts import HostFacts
from dari.net.state import Address
from dari.reconcile.context import Context
from dari.store.federation import Federation
from dari.units import is_global_id


def is_shared(network: Network) -> bool:
    return is_global_id(network.id)


def is_mine(ctx: Context, endpoint: Endpoint) -> bool:
    """On this host's own networks, or this node's on a shared one."""
    return not endpoint.node or endpoint.node == ctx.node_id


def living(ctx: Context, endpoints: Iterable[Endpoint]) -> Iterator[Endpoint]:
    """The active endpoints here, and those of nodes that are alive."""
    for endpoint in endpoints:
        if not endpoint.is_active:
            continue
        if is_mine(ctx, endpoint) or ctx.tables.nodes.get(ctx.shared, endpoint.node) is not None:
            yield endpoint


def is_here(ctx: Context, network: Network) -> bool:
    """Whether this node has active endpoints on a shared network: others have nothing of it in their kernels."""
    return network.id in networks_of(ctx, ctx.node_id)


def networks_of(ctx: Context, node_id: str) -> frozenset[str]:
    """The ids of shared networks on which a node, alive or not, has active endpoints."""
    if not node_id:
        return frozenset()
    placed = ctx.tables.endpoints_of_node.get(ctx.shared, node_id)
    return frozenset(each.network_id for each in placed if each.is_active)


def overlay_want(ctx: Context, network: Network) -> OverlayWant | None:
    """None where the network is no overlay, or this node has nothing on it."""
    if network.spec.driver != "overlay" or not is_here(ctx, network):
        return None
    own = ctx.node
    vni = overlay.asked_vni(network.spec.options)
    if own is None or vni is None:
        return None
    return OverlayWant(
        vni=vni,
        local=ipaddress.ip_address(own.address),
        port=ctx.config.data_path_port,
        peers=tuple(_peers(ctx, network)),
    )


def overlay_mtu(ctx: Context, asked: int) -> int:
    """The smallest of all living nodes' underlays decides, so that every node has the same."""
    own = ctx.node
    address: Address = ipaddress.ip_address(own.address) if own is not None else ipaddress.IPv4Address(0)
    underlays = {each.mtu for each in ctx.tables.nodes.all(ctx.shared)}
    if own is not None:
        underlays.add(own.mtu)
    return overlay.mtu(underlays, address, asked)


def _peers(ctx: Context, network: Network) -> Iterator[PeerWant]:
    nodes = {each.id: each for each in ctx.tables.nodes.all(ctx.shared)}
    for endpoint in ctx.tables.endpoints.all(ctx.shared, network.id):
        node = nodes.get(endpoint.node)
        if node is None or not endpoint.is_active or endpoint.node == ctx.node_id or not endpoint.mac:
            continue
        addresses = tuple(ipaddress.ip_address(each) for each in (endpoint.ipv4, endpoint.ipv6) if each)
        yield PeerWant(endpoint.mac, addresses, ipaddress.ip_address(node.address))


def check_host(ctx: Context, network: Network, facts: HostFacts) -> None:
    """May a container of this host be on that shared network? Raises Forbidden where a subnet overlaps a route of the
    host."""
    if network.spec.driver != "overlay" or ctx.settling.rendered.get(network.id):
        return
    for subnet in (ipaddress.ip_network(each.subnet) for each in network.subnets):
        for route in facts.routes:
            if route.version == subnet.version and route.overlaps(subnet):
                raise Forbidden(
                    f"subnet {subnet} of network {network.name} overlaps with route {route} of this node: containers "
                    "on it could not reach one of the two; create the network with another --subnet"
                )


def watches(ctx: Context) -> list[AsyncIterator[frozenset[str]]]:
    """What tells that endpoints of other nodes, or the nodes themselves, have changed; none on a host alone."""
    if not isinstance(ctx.shared, Federation):
        return []
    return [ctx.shared.watch_remote("endpoints/"), ctx.shared.watch_remote("nodes/")]
