"""The firewall: one constant table on the host, one in each sandbox that has names, and their elements.

Rules never grow: a network, a container or a published port is an element of a set or map. Reading order of the
host's table, `inet dari`: raw (loopback's guard), prerouting/output (published ports), forward (isolation),
postrouting (source addresses). It decides about traffic that enters or leaves dari's bridges and about nothing
else; every other packet passes with policy accept. Accepted packets carry MARK, so that one constant rule in
DOCKER-USER lets them through where dockerd has set FORWARD's policy to drop.
Must not know: who asked for a network or a port. Sources: nft(8); Docker "Packet filtering and firewalls".
"""

from __future__ import annotations

from collections.abc import Iterator

from dari.net.desired import NetworkWant, PublishWant, SandboxWant
from dari.net.facts import HostFacts
from dari.net.state import HOST, NftElement, NftRule, NftTable, Prefix

MARK = 0x08000000
"""The bit dari sets in a forwarded packet's mark when it has accepted it."""

FAMILY = "inet"
TABLE = "dari"
DNS_ADDRESS = "127.0.0.11"
PUBLISH_MAPS = frozenset(("publish4", "publish_any4", "publish6", "publish_any6"))
SUBNET_SETS = frozenset(("subnets4", "subnets6"))

# postrouting: a packet for one of dari's bridges keeps its source, unless the answer would then go astray: 127/8
# cannot leave the host, and a container must not answer its neighbour directly for a connection that neighbour
# made to the host. raw: route_localnet on the bridges must not open the host's loopback to anybody; the drop has
# to come before destinations change, and for every interface, since a published 127.0.0.1 is local everywhere.
# from_bridge: what leaves for one of dockerd's own bridges passes without MARK: whether its containers may be
# reached is for dockerd's rules to say, which MARK would step over.
HOST_TABLE_TEXT = """\
table inet dari {
	set bridges {
		type ifname
	}

	set internal {
		type ifname
	}

	set pairs {
		type ifname . ifname
	}

	set subnets4 {
		type ipv4_addr
		flags interval
	}

	set subnets6 {
		type ipv6_addr
		flags interval
	}

	set masquerade4 {
		type ipv4_addr
		flags interval
	}

	set masquerade6 {
		type ipv6_addr
		flags interval
	}

	map publish4 {
		type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service
	}

	map publish_any4 {
		type inet_proto . inet_service : ipv4_addr . inet_service
	}

	map publish6 {
		type inet_proto . ipv6_addr . inet_service : ipv6_addr . inet_service
	}

	map publish_any6 {
		type inet_proto . inet_service : ipv6_addr . inet_service
	}

	chain raw {
		type filter hook prerouting priority raw; policy accept;
		iifname != "lo" ip daddr 127.0.0.0/8 drop
	}

	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local goto publish
	}

	chain output {
		type nat hook output priority -100; policy accept;
		fib daddr type local goto publish
	}

	chain publish {
		dnat ip to meta l4proto . ip daddr . th dport map @publish4
		meta nfproto ipv4 dnat ip to meta l4proto . th dport map @publish_any4
		dnat ip6 to meta l4proto . ip6 daddr . th dport map @publish6
		ip6 daddr != ::1 dnat ip6 to meta l4proto . th dport map @publish_any6
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname @bridges goto enter
		ip saddr @masquerade4 masquerade
		ip6 saddr @masquerade6 masquerade
	}

	chain enter {
		ip saddr 127.0.0.0/8 masquerade
		ct status dnat ip saddr @subnets4 masquerade
		ct status dnat ip6 saddr @subnets6 masquerade
	}

	chain forward {
		type filter hook forward priority filter - 10; policy accept;
		oifname @bridges goto to_bridge
		iifname @bridges goto from_bridge
	}

	chain to_bridge {
		ct state established,related goto allow
		iifname . oifname @pairs goto allow
		iifname @internal drop
		oifname @internal drop
		ct status dnat goto allow
		drop
	}

	chain from_bridge {
		ct state established,related goto allow
		iifname @internal drop
		oifname "docker0" accept
		oifname "br-*" accept
		goto allow
	}

	chain allow {
		meta mark set meta mark | 0x08000000 accept
	}
}
"""

HOST_TABLE = NftTable(HOST, FAMILY, TABLE, HOST_TABLE_TEXT)

_SANDBOX_TABLE_TEXT = """\
table ip dari {
	chain output {
		type nat hook output priority -100; policy accept;
		ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:%(port)d
		ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:%(port)d
	}
}
"""

DOCKER_USER_RULE_TEXT = f'meta mark & {MARK:#010x} == {MARK:#010x} accept comment "dari"'


def docker_user_rules(facts: HostFacts) -> Iterator[NftRule]:
    """dari's accept in DOCKER-USER, where dockerd has made that chain."""
    if facts.has_docker_user_chain:
        yield NftRule(HOST, "ip", "filter", "DOCKER-USER", DOCKER_USER_RULE_TEXT)
    if facts.has_docker_user_chain6:
        yield NftRule(HOST, "ip6", "filter", "DOCKER-USER", DOCKER_USER_RULE_TEXT)


def warnings(facts: HostFacts) -> Iterator[str]:
    """What a user must know of other firewalls on the host, one line each."""
    for chain in facts.forward_droppers:
        yield (
            f"the firewall {chain} drops forwarded packets: containers cannot reach the world, and published ports "
            f"only answer on this host, until it accepts packets with mark {MARK:#010x} (docs/how-to/firewalls.md)"
        )


def network_elements(network: NetworkWant) -> Iterator[NftElement]:
    """What the host's table must know of a network with a bridge."""
    bridge = interface(network.bridge_name)
    yield _element("bridges", bridge)
    if network.is_internal:
        yield _element("internal", bridge)
    if network.is_icc:
        yield _element("pairs", f"{bridge} . {bridge}")
    for subnet in network.subnets:
        version = subnet.prefix.version
        yield _element(f"subnets{version}", prefix(subnet.prefix))
        if network.is_masquerading and not network.is_internal:
            yield _element(f"masquerade{version}", prefix(subnet.prefix))


def publish_element(publish: PublishWant) -> NftElement:
    """The map element of a published port. Raises ValueError where the families differ."""
    host, target = publish.host_ip, publish.target
    if host.version != target.version:
        raise ValueError(f"cannot publish {host} to {target}: different address families")
    value = f"{target} . {publish.container_port}"
    if host.is_unspecified:
        return _element(f"publish_any{host.version}", f"{publish.protocol} . {publish.host_port}", value)
    key = f"{publish.protocol} . {host} . {publish.host_port}"
    return _element(f"publish{host.version}", key, value)


def sandbox_table(sandbox: SandboxWant) -> NftTable | None:
    """The sandbox's own table: names are asked at 127.0.0.11:53 and answered on another port.

    Connection tracking turns the answers' source back to port 53 by itself.
    """
    if sandbox.dns_port is None:
        return None
    return NftTable(sandbox.netns, "ip", TABLE, _SANDBOX_TABLE_TEXT % {"port": sandbox.dns_port})


def interface(name: str) -> str:
    """An interface as nft lists it in a set: quoted."""
    return f'"{name}"'


def prefix(value: Prefix) -> str:
    """A prefix as nft lists it in an interval set: a single address has no length."""
    return str(value.network_address) if value.prefixlen == value.max_prefixlen else str(value)


def _element(set_name: str, element: str, value: str = "") -> NftElement:
    return NftElement(HOST, FAMILY, TABLE, set_name, element, value)
