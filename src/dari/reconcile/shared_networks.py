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
from dari.net.state import Address, Prefix
from dari.reconcile.context import Context, Peer
from dari.reconcile.node_claims import own_quarrel
from dari.store.federation import Federation
from dari.units import is_global_id


def is_shared(network: Network) -> bool:
    return is_global_id(network.id)


def closer(ctx: Context) -> str:
    """What a network this daemon is about to remove says in `closed_by`."""
    return f"{ctx.node_id}@{ctx.node.started if ctx.node is not None else 0}"


def is_closed(ctx: Context, network: Network) -> bool:
    """Whether a living daemon is about to remove it. What one closed that was killed or has lost its session counts for
    nothing."""
    if not network.closed_by:
        return False
    node_id, _, started = network.closed_by.partition("@")
    node = ctx.tables.nodes.get(ctx.shared, node_id)
    return node is not None and str(node.started) == started


def is_mine(ctx: Context, endpoint: Endpoint) -> bool:
    """On this host's own networks, or this node's on a shared one."""
    return not endpoint.node or endpoint.node == ctx.node_id


def living(ctx: Context, endpoints: Iterable[Endpoint]) -> Iterator[Endpoint]:
    """The active endpoints here, and those of nodes that are alive."""
    is_alive = {"": True, ctx.node_id: True}
    for endpoint in endpoints:
        if not endpoint.is_active:
            continue
        node = endpoint.node
        if node not in is_alive:
            is_alive[node] = ctx.tables.nodes.get(ctx.shared, node) is not None
        if is_alive[node]:
            yield endpoint


def is_here(ctx: Context, network: Network) -> bool:
    """Whether this node has active endpoints on a shared network: others have nothing of it in their kernels."""
    return network.id in own_networks(ctx)


def own_networks(ctx: Context) -> frozenset[str]:
    """The ids of shared networks on which this node has active endpoints."""
    if not ctx.node_id:
        return frozenset()
    # Asked with every change of anybody's.
    endpoints = ctx.tables.endpoints_of_node
    stamp = endpoints.stamp(ctx.shared, ctx.node_id)
    if ctx.settling.placed is None or ctx.settling.placed[0] != stamp:
        own = endpoints.get(ctx.shared, ctx.node_id)
        ctx.settling.placed = stamp, frozenset(each.network_id for each in own if each.is_active)
    return ctx.settling.placed[1]


def absent_subnets(ctx: Context, facts: HostFacts) -> list[Prefix]:
    """Of overlays that nobody here is on. Those that overlap a route of the host are left out: no container of this
    host has ever been on them, and their addresses are somebody else's here."""
    found = (
        ipaddress.ip_network(subnet.subnet)
        for network in ctx.tables.networks.all(ctx.shared)
        if network.spec.driver == "overlay" and not is_here(ctx, network)
        for subnet in network.subnets
    )
    return [
        each
        for each in found
        if not any(route.version == each.version and route.overlaps(each) for route in facts.routes)
    ]


def placed_networks(ctx: Context, node_id: str) -> set[str]:
    """The ids of networks on which a node has endpoints, active or not: what can be said without looking into rows."""
    return {key.split("/")[1] for key in ctx.tables.endpoints_of_node.keys(ctx.shared, node_id)}


def is_concerned(ctx: Context, network_id: str) -> bool:
    """Whether what others change on a shared network changes anything here: somebody here is on it, or something of it
    is here still."""
    settling = ctx.settling
    if network_id in settling.rendered or network_id in settling.ledgers or ctx.config.dns_listen:
        return True
    if network_id in own_networks(ctx):
        return True
    network = ctx.tables.networks.get(ctx.shared, network_id)
    return network is not None and network.spec.driver != "overlay"


def overlay_want(ctx: Context, network: Network, *, has_peers: bool = True) -> OverlayWant | None:
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
            peers=_peer_wants(ctx, network) if has_peers else (),
        )
    way = _tunnel(ctx, own, network)
    return OverlayWant(
        vni=vni,
        # Without a tunnel nothing is sent anywhere.
        local=way.address if way is not None else ipaddress.IPv4Address(0),
        port=ctx.config.data_path_port,
        peers=_peer_wants(ctx, network) if has_peers and way is not None else (),
        is_encrypted=True,
        tunnel=way,
    )


def _peer_wants(ctx: Context, network: Network) -> tuple[PeerWant, ...]:
    return tuple(each.want for each in peers(ctx, network).values())


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
            want
            for each in ctx.tables.nodes.all(ctx.shared)
            if each.id in others and each.id != own.id and each.is_encrypting
            for want in _tunnel_peers(each)
        ),
    )


def _tunnel_peers(node: Node) -> Iterator[TunnelPeerWant]:
    """A node by its key, and by the one it is about to change to."""
    endpoint, port = ipaddress.ip_address(node.address), node.wireguard_port
    yield TunnelPeerWant(node.wireguard_key, endpoint, port, ipaddress.ip_address(node.tunnel_address))
    if node.next_wireguard_key:
        yield TunnelPeerWant(node.next_wireguard_key, endpoint, port, None)


def tunnel_nodes(ctx: Context) -> list[Node]:
    """The living nodes this one exchanges encrypted packets with."""
    ids = {
        endpoint.node
        for network in encrypted_networks(ctx)
        for endpoint in ctx.tables.endpoints.all(ctx.shared, network)
        if endpoint.is_active
    } - {ctx.node_id}
    return [each for each in ctx.tables.nodes.all(ctx.shared) if each.id in ids and each.is_encrypting]


def encrypted_networks(ctx: Context) -> list[str]:
    """The ids of encrypted networks on which this node has active endpoints."""
    known = (ctx.tables.networks.get(ctx.shared, each) for each in sorted(own_networks(ctx)))
    return [each.id for each in known if each is not None and is_encrypted(each)]


def _underlays(ctx: Context) -> set[int]:
    """The MTUs of all living nodes' underlays, this one's included."""
    found = {int(each) for each in ctx.tables.nodes_of_mtu.words(ctx.shared)}
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


def peers(ctx: Context, network: Network) -> dict[str, Peer]:
    """The living endpoints of other nodes on an overlay, by id. Those whose rows are as they were when the network was
    last put into the kernel are the same values."""
    in_force = ctx.settling.overlays.get(network.id)
    known = in_force.peers if in_force is not None else {}
    nodes: dict[str, Node | None] = {}
    found: dict[str, Peer] = {}
    is_hidden, own = is_encrypted(network), ctx.node_id
    for endpoint in ctx.tables.endpoints.all(ctx.shared, network.id):
        if endpoint.node not in nodes:
            nodes[endpoint.node] = ctx.tables.nodes.get(ctx.shared, endpoint.node)
        node = nodes[endpoint.node]
        if node is None or not endpoint.is_active or endpoint.node == own or not endpoint.mac:
            continue
        if is_hidden and not node.is_encrypting:
            # Nothing is sent to a node whose key is not known.
            continue
        before = known.get(endpoint.id)
        if before is not None and before.endpoint is endpoint and before.node is node:
            found[endpoint.id] = before
            continue
        addresses = tuple(ipaddress.ip_address(each) for each in (endpoint.ipv4, endpoint.ipv6) if each)
        via = node.tunnel_address if is_hidden else node.address
        found[endpoint.id] = Peer(
            endpoint, node, PeerWant(endpoint.mac, addresses, ipaddress.ip_address(via))
        )
    return found


def check_node(ctx: Context, network: Network) -> None:
    """May this node put a container on that network now? Raises Unavailable while another living node has its name,
    address or id (nobody would be told of the container, and the two might give out each other's rows), and as
    `check_encryption`."""
    if why := own_quarrel(ctx):
        name = ctx.node.name if ctx.node is not None else ""
        raise Unavailable(
            f"cannot join network {network.name}: node {name} has not joined the others, and cannot while this is so: "
            f"{why}"
        )
    check_encryption(ctx, network)


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
    host, and as `check_node`."""
    check_node(ctx, network)
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
