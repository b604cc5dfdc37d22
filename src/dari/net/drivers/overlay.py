"""The overlay driver: a bridge on every host, and a VXLAN interface on it that knows where everybody is.

Entries come from the store: the interface answers who asks for a remote neighbour, sends to that neighbour's host
alone, learns nothing and floods nothing. Everything else is a bridge's, the gateway's address on each host included:
what leaves the network leaves from the host the container is on.
Must not know: other drivers (what a bridge is, it is given). Source: RFC 7348; Linux vxlan.rst.
"""

from __future__ import annotations

from collections.abc import Iterator

from dari.model.errors import Unsupported
from dari.net.desired import EndpointWant, NetworkWant
from dari.net.drivers.base import Driver
from dari.net.facts import HostFacts
from dari.net.overlay import is_encrypted, vxlan_name
from dari.net.state import HOST, Fdb, KernelObject, Neighbour, Sysctl, Vxlan


class OverlayDriver:
    """`bridge` renders what an overlay shares with a bridge network."""

    def __init__(self, bridge: Driver) -> None:
        self._bridge = bridge

    def check(self, network: NetworkWant, facts: HostFacts) -> None:
        """Raises InvalidArgument, Unsupported."""
        if is_encrypted(dict(network.options)):
            raise Unsupported(
                f"network {network.name}: option encrypted is not supported by this version; put the hosts' traffic "
                "into a tunnel of your own (WireGuard) and give its address with --advertise"
            )
        self._bridge.check(network, facts)

    def render_network(self, network: NetworkWant, facts: HostFacts) -> Iterator[KernelObject]:
        """A bridge's objects, the VXLAN interface on it, and where every peer is."""
        overlay = network.overlay
        if overlay is None:
            return
        yield from self._bridge.render_network(network, facts)
        link = vxlan_name(network.id)
        yield Vxlan(
            name=link,
            altname=f"dari-vx-{network.id[:12]}",
            vni=overlay.vni,
            local=overlay.local,
            port=overlay.port,
            master=network.bridge_name,
            mtu=network.mtu,
        )
        if facts.has_ipv6:
            yield Sysctl(HOST, f"net/ipv6/conf/{link}/disable_ipv6", "1")
        for peer in overlay.peers:
            yield Fdb(link, peer.mac, peer.via)
            for address in peer.addresses:
                if address.version == 4 or facts.has_ipv6:
                    yield Neighbour(link, address, peer.mac)

    def render_endpoint(
        self, network: NetworkWant, endpoint: EndpointWant, netns: str, facts: HostFacts
    ) -> Iterator[KernelObject]:
        """As on a bridge."""
        if network.overlay is not None:
            yield from self._bridge.render_endpoint(network, endpoint, netns, facts)
