"""Networks that several hosts share: which endpoints count, and where the others' are.

An endpoint counts where its node is alive, which is what the store's sessions say; a node whose session ran out takes
its names and entries with it until it returns. Must not know: the kernel, the store's kind.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Iterable, Iterator

from dari.model.cluster import Node
from dari.model.errors import DriverRefused, Forbidden, Unavailable
from dari.model.network import Endpoint, Network
from dari.net import overlay, tunnel
from dari.net.desired import OverlayWant, PeerWant, TunnelPeerWant, TunnelWant
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
    if not is_encrypted(network):
        return OverlayWant(
            vni=vni,
            local=ipaddress.ip_address(own.address),
            port=ctx.config.data_path_port,
            peers=tuple(_peers(ctx, network)),
        )
    way = _tunnel(ctx, own, network)
    return OverlayWant(
        vni=vni,
        # Without a tunnel nothing is sent anywhere.
        local=way.address if way is not None else ipaddress.IPv4Address(0),
        port=ctx.config.data_path_port,
        peers=tuple(_peers(ctx, network)) if way is not None else (),
        is_encrypted=True,
        tunnel=way,
    )


def is_encrypted(network: Network) -> bool:
    """Whether its packets leave a host encrypted or not at all."""
    return network.spec.driver == "overlay" and overlay.is_encrypted(network.spec.options)


def data_port(ctx: Context, network: Network | None, receiver: Node | None) -> int:
    """The UDP port a network's packets between hosts come to: of an encrypted one the receiver's own."""
    if network is not None and is_encrypted(network) and receiver is not None:
        return receiver.wireguard_port
    return ctx.config.data_path_port


def _tunnel(ctx: Context, own: Node, network: Network) -> TunnelWant | None:
    """The encrypted way to the living nodes with endpoints on a network, as far as they can encrypt; None where this
    one cannot."""
    if not own.is_encrypting:
        return None
    others = {each.node for each in ctx.tables.endpoints.all(ctx.shared, network.id) if each.is_active}
    return TunnelWant(
        public_key=own.wireguard_key,
        address=ipaddress.ip_address(own.tunnel_address),
        port=own.wireguard_port,
        mtu=tunnel.link_mtu(_underlays(ctx), ipaddress.ip_address(own.address)),
        peers=tuple(
            TunnelPeerWant(
                public_key=each.wireguard_key,
                endpoint=ipaddress.ip_address(each.address),
                port=each.wireguard_port,
                address=ipaddress.ip_address(each.tunnel_address),
            )
            for each in ctx.tables.nodes.all(ctx.shared)
            if each.id in others and each.id != own.id and each.is_encrypting
        ),
    )


def _underlays(ctx: Context) -> set[int]:
    """The MTUs of all living nodes' underlays, this one's included."""
    found = {each.mtu for each in ctx.tables.nodes.all(ctx.shared)}
    if ctx.node is not None:
        found.add(ctx.node.mtu)
    return found


def overlay_mtu(ctx: Context, asked: int, *, is_encrypted: bool = False) -> int:
    """The smallest of all living nodes' underlays decides, so that every node has the same."""
    own = ctx.node
    address: Address = ipaddress.ip_address(own.address) if own is not None else ipaddress.IPv4Address(0)
    if is_encrypted:
        # Addresses in the tunnel are of IPv4, whatever the underlay is.
        inside = tunnel.link_mtu(_underlays(ctx), address)
        return overlay.mtu((inside,), ipaddress.IPv4Address(0), asked)
    return overlay.mtu(_underlays(ctx), address, asked)


def _peers(ctx: Context, network: Network) -> Iterator[PeerWant]:
    is_hidden = is_encrypted(network)
    nodes = {each.id: each for each in ctx.tables.nodes.all(ctx.shared)}
    for endpoint in ctx.tables.endpoints.all(ctx.shared, network.id):
        node = nodes.get(endpoint.node)
        if node is None or not endpoint.is_active or endpoint.node == ctx.node_id or not endpoint.mac:
            continue
        if is_hidden and not node.is_encrypting:
            # Nothing is sent to a node whose key is not known.
            continue
        addresses = tuple(ipaddress.ip_address(each) for each in (endpoint.ipv4, endpoint.ipv6) if each)
        via = node.tunnel_address if is_hidden else node.address
        yield PeerWant(endpoint.mac, addresses, ipaddress.ip_address(via))


def check_encryption(ctx: Context, network: Network) -> None:
    """May a container of this node be on that network? Raises as `check_own_encryption` where it is encrypted."""
    if is_encrypted(network):
        check_own_encryption(ctx, f"cannot join secure network {network.name}")


def check_own_encryption(ctx: Context, what: str) -> None:
    """Can this node encrypt? `what` begins the message. Raises DriverRefused (Docker answers 500 where the kernel lacks
    IPsec), Unavailable (the node has not joined yet)."""
    own = ctx.node
    if own is None or own.is_encrypting:
        return
    if own.encryption_problem:
        raise DriverRefused(
            f"{what}: node {own.name} cannot encrypt: {own.encryption_problem}; use a node whose kernel has it, or "
            "start darid there again once it has"
        )
    raise Unavailable(
        f"{what}: node {own.name} has no address in the encrypted tunnel yet: it has not joined the others"
    )


def check_host(ctx: Context, network: Network, facts: HostFacts) -> None:
    """May a container of this host be on that shared network? Raises Forbidden where a subnet overlaps a route of the
    host, DriverRefused where the network is encrypted and this node cannot, Unavailable."""
    check_encryption(ctx, network)
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
