"""The bridge driver: one Linux bridge per network, one veth pair per endpoint.

The bridge carries the gateways' addresses; the firewall (firewall.py) decides what passes between bridges.
Must not know: other drivers, published ports, names.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network

from dari.model.errors import InvalidArgument, Unsupported
from dari.net import firewall
from dari.net.desired import EndpointWant, NetworkWant
from dari.net.facts import HostFacts
from dari.net.ipv6 import MTU_MINIMUM_IPV6, ipv6_switch
from dari.net.options import is_interface_name
from dari.net.state import HOST, Addr, Bridge, KernelObject, Prefix, Route, Sysctl, Veth

MTU_RANGE = (68, 65535)

DEFAULT_ROUTES: dict[int, Prefix] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}


class BridgeDriver:
    """Docker's bridge driver, as kernel objects."""

    def check(self, network: NetworkWant, facts: HostFacts) -> None:
        """Raises InvalidArgument (name, MTU, no subnet) or Unsupported (IPv6 on a host without it)."""
        name, bridge = network.name, network.bridge_name
        if not is_interface_name(bridge):
            raise InvalidArgument(
                f"invalid bridge name {bridge!r} of network {name}: 1 to 15 characters, no blanks, no slashes"
            )
        lowest, highest = MTU_RANGE
        has_ipv6 = any(subnet.prefix.version == 6 for subnet in network.subnets)
        if has_ipv6:
            lowest = MTU_MINIMUM_IPV6
        if not lowest <= network.mtu <= highest:
            raise InvalidArgument(
                f"invalid MTU {network.mtu} of network {name}: give a number from {lowest} to {highest}"
            )
        if not network.subnets:
            raise InvalidArgument(f"network {name} has no subnet: the bridge driver needs one")
        if has_ipv6 and not facts.has_ipv6:
            raise Unsupported(f"network {name} wants IPv6, which is disabled on this host")

    def render_network(self, network: NetworkWant, facts: HostFacts) -> Iterator[KernelObject]:
        """The bridge, its addresses and sysctls, its elements; the host's constant table."""
        bridge = network.bridge_name
        has_ipv6 = any(subnet.prefix.version == 6 for subnet in network.subnets)
        yield firewall.host_table(network.accept_mark)
        yield from firewall.docker_user_rules(facts)
        yield Bridge(bridge, network.altname, network.mtu)
        for subnet in network.subnets:
            version = subnet.prefix.version
            is_inhibited = network.is_inhibiting_ipv4 and version == 4
            is_isolated = network.gateway_mode(version) == "isolated"
            if subnet.gateway is not None and not is_inhibited and not is_isolated:
                yield Addr(HOST, bridge, subnet.gateway)
        # Without this the kernel gives the bridge link-local addresses nobody asked for.
        for path, value in ipv6_switch(bridge, facts, network.mtu, is_on=has_ipv6).items():
            yield Sysctl(HOST, path, value)
        if not network.is_internal:
            if network.is_forwarding:
                yield Sysctl(HOST, "net/ipv4/ip_forward", "1")
                if has_ipv6:
                    yield Sysctl(HOST, "net/ipv6/conf/all/forwarding", "1")
            # A packet from 127.0.0.1 to a published port leaves over the bridge (and is masqueraded there).
            yield Sysctl(HOST, f"net/ipv4/conf/{bridge}/route_localnet", "1")
            if network.is_default and not network.is_icc:
                # For links (--link); the firewall says who may ask whom.
                yield Sysctl(HOST, firewall.proxy_switch(bridge), "1")
        yield from firewall.network_elements(network)

    def render_endpoint(
        self, network: NetworkWant, endpoint: EndpointWant, netns: str, facts: HostFacts
    ) -> Iterator[KernelObject]:
        """The veth pair, the addresses and routes inside; the default route unless the network is internal."""
        link = endpoint.interface
        yield Veth(
            name=endpoint.host_interface,
            altname=endpoint.altname,
            peer=link,
            peer_netns=netns,
            master=network.bridge_name,
            mac=endpoint.mac,
            mtu=network.mtu,
            # Where br_netfilter is on, a container's packet to its own published port is turned round inside
            # the bridge and has to leave by the port it came from.
            is_hairpin=True,
            is_isolated=not network.is_icc,
        )
        has_ipv6 = any(address.version == 6 for address in endpoint.addresses)
        sysctls = ipv6_switch(link, facts, network.mtu, is_on=has_ipv6)
        sysctls |= {path.replace("IFNAME", link): value for path, value in endpoint.sysctls.items()}
        for path, value in sysctls.items():
            yield Sysctl(netns, path, value)
        for address in endpoint.addresses:
            yield Addr(netns, link, address)
        for route in endpoint.routes:
            yield Route(netns, route.to, route.via, link)
        if endpoint.is_default_gateway and not network.is_internal:
            for gateway in endpoint.gateways:
                yield Route(netns, DEFAULT_ROUTES[gateway.version], gateway, link)
