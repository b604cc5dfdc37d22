"""The overlay driver: a bridge on every host, and a VXLAN interface on it that knows where everybody is.

Entries come from the store: the interface answers who asks for a remote neighbour, sends to that neighbour's host
alone, learns nothing and floods nothing. Everything else is a bridge's, the gateway's address on each host included:
what leaves the network leaves from the host the container is on. An encrypted network's VXLAN packets leave from a
namespace in which there is nothing but a WireGuard interface (net/tunnel.py).
Must not know: other drivers (what a bridge is, it is given). Source: RFC 7348; Linux vxlan.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from dari.net import tunnel
from dari.net.desired import EndpointWant, NetworkWant, TunnelWant
from dari.net.drivers.base import Driver
from dari.net.facts import HostFacts
from dari.net.ipv6 import ipv6_switch
from dari.net.overlay import peer_objects, vxlan_name
from dari.net.state import (
    HOST,
    Addr,
    KernelObject,
    Netns,
    Sysctl,
    Vxlan,
    WireGuard,
    WireGuardPeer,
)


class OverlayDriver:
    """`bridge` renders what an overlay shares with a bridge network."""

    def __init__(self, bridge: Driver) -> None:
        self._bridge = bridge

    def check(self, network: NetworkWant, facts: HostFacts) -> None:
        """Raises InvalidArgument. Whether a node can encrypt is the caller's to know."""
        self._bridge.check(network, facts)

    def render_network(self, network: NetworkWant, facts: HostFacts) -> Iterator[KernelObject]:
        """A bridge's objects, the VXLAN interface on it, and where every peer is."""
        overlay = network.overlay
        if overlay is None:
            return
        yield from self._bridge.render_network(network, facts)
        if overlay.tunnel is not None:
            yield from _tunnel(overlay.tunnel)
        elif overlay.is_encrypted:
            # No way out at all rather than one in the clear.
            return
        link = vxlan_name(network.id)
        yield Vxlan(
            name=link,
            altname=f"dari-vx-{network.id[:12]}",
            vni=overlay.vni,
            local=overlay.local,
            port=overlay.port,
            master=network.bridge_name,
            mtu=network.mtu,
            underlay=tunnel.NETNS if overlay.is_encrypted else HOST,
        )
        for path, value in ipv6_switch(link, facts, network.mtu, is_on=False).items():
            yield Sysctl(HOST, path, value)
        for peer in overlay.peers:
            yield from peer_objects(link, peer, facts)

    def render_endpoint(
        self, network: NetworkWant, endpoint: EndpointWant, netns: str, facts: HostFacts
    ) -> Iterator[KernelObject]:
        """As on a bridge."""
        if network.overlay is not None:
            yield from self._bridge.render_endpoint(network, endpoint, netns, facts)


def _tunnel(want: TunnelWant) -> Iterator[KernelObject]:
    """What all encrypted networks of this node share, and the peers this one needs."""
    yield Netns(tunnel.NETNS)
    yield WireGuard(
        tunnel.NETNS, tunnel.LINK, tunnel.MARK, public_key=want.public_key, port=want.port, mtu=want.mtu
    )
    yield Addr(tunnel.NETNS, tunnel.LINK, tunnel.interface(want.address))
    for peer in want.peers:
        allowed = (ip_network(peer.address),) if peer.address is not None else ()
        yield WireGuardPeer(
            tunnel.NETNS, tunnel.LINK, peer.public_key, peer.endpoint, peer.port, allowed=allowed
        )
