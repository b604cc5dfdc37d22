"""The remote driver: networks that a plugin makes.

What the plugin has to know is wanted like anything else (`PluginFact`); what it told of an endpoint's interface when
that joined (its name, gateways, routes) comes back in `EndpointWant`, and is put into the sandbox as libnetwork does.
Must not know: other drivers, how a plugin is asked. Source: libnetwork, docs/remote.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network

from dari.net.desired import EndpointWant, NetworkWant
from dari.net.facts import HostFacts
from dari.net.state import Addr, KernelObject, MovedLink, PluginFact, Prefix, Route, Sysctl

DEFAULT_ROUTES: dict[int, Prefix] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}


class RemoteDriver:
    """A plugin's network, as facts it is told and as the interface it made."""

    def check(self, network: NetworkWant, facts: HostFacts) -> None:
        """The plugin itself judges, when it is told."""

    def render_network(self, network: NetworkWant, facts: HostFacts) -> Iterator[KernelObject]:
        """That the plugin knows the network."""
        yield PluginFact(network.plugin, "network", network.id)

    def render_endpoint(
        self, network: NetworkWant, endpoint: EndpointWant, netns: str, facts: HostFacts
    ) -> Iterator[KernelObject]:
        """That the plugin knows the endpoint and that it has joined; its interface inside, once it has one.

        `host_interface` is the name the plugin gave its interface in the host's namespace.
        """
        yield PluginFact(network.plugin, "endpoint", network.id, endpoint.id)
        yield PluginFact(network.plugin, "join", network.id, endpoint.id, netns)
        if endpoint.is_default_gateway:
            yield PluginFact(network.plugin, "external", network.id, endpoint.id)
        if not endpoint.host_interface:
            return
        link = endpoint.interface
        yield MovedLink(
            netns,
            link,
            endpoint.host_interface,
            f"{endpoint.altname}-from-{endpoint.host_interface}",
            endpoint.mac,
        )
        sysctls: dict[str, str] = {}
        if facts.has_ipv6:
            has_ipv6 = any(address.version == 6 for address in endpoint.addresses)
            sysctls[f"net/ipv6/conf/{link}/disable_ipv6"] = "0" if has_ipv6 else "1"
        sysctls |= {path.replace("IFNAME", link): value for path, value in endpoint.sysctls.items()}
        for path, value in sysctls.items():
            yield Sysctl(netns, path, value)
        for address in endpoint.addresses:
            yield Addr(netns, link, address)
        for route in endpoint.routes:
            yield Route(netns, route.to, route.via, link)
        if endpoint.is_default_gateway:
            for gateway in endpoint.gateways:
                yield Route(netns, DEFAULT_ROUTES[gateway.version], gateway, link)
