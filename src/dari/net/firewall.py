"""The firewall: one constant table on the host, one in each sandbox that has names, and their elements.

Rules never grow: a network, a container or a published port is an element of a set or map. Reading order of the
host's table, `inet dari`: raw (loopback's guard), prerouting/output (published ports), forward (isolation),
postrouting (source addresses). It decides about traffic that enters or leaves dari's bridges and about nothing
else; every other packet passes with policy accept. Accepted packets carry MARK, so that one constant rule in
DOCKER-USER lets them through where dockerd has set FORWARD's policy to drop.
Must not know: who asked for a network or a port. Sources: nft(8); Docker "Packet filtering and firewalls".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from dari.net.desired import LinkWant, NetworkWant, PublishWant, SandboxWant
from dari.net.facts import HostFacts
from dari.net.publish import FAMILY, TABLE, element, open_elements, publish_elements
from dari.net.state import HOST, Address, NftElement, NftRule, NftTable, Prefix

MARK = 0x08000000
"""The bit dari sets in a forwarded packet's mark when it has accepted it."""

DNS_ADDRESS = "127.0.0.11"
_ASKED_PORT = 53
SUBNET_SETS = frozenset(("subnets4", "subnets6"))

# postrouting: a packet for one of dari's bridges keeps its source, unless the answer would then go astray: 127/8
# cannot leave the host, and a container must not answer its neighbour directly for a connection that neighbour
# made to the host. raw: route_localnet on the bridges must not open the host's loopback to anybody; the drop has
# to come before destinations change, and for every interface, since a published 127.0.0.1 is local everywhere.
# from_bridge: what leaves for one of dockerd's own bridges passes without MARK: whether its containers may be
# reached is for dockerd's rules to say, which MARK would step over.
# publish: the rules of ranges carry a flag nft has no word for (kernel/offset.py); the ports of the maps' values are
# a remainder's, see publish.py. to_bridge: nobody from outside reaches a container at its own address, but where
# its network says so (direct). A drop here, not before connection tracking: answers to a container that leaves
# with its own address (enable_ip_masquerade=false) have to find back.
_HOST_TABLE_TEXT = """\
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

	set apart {
		type ifname . ifname
	}

	set trusted {
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

	map snat4 {
		type ipv4_addr : ipv4_addr
		flags interval
	}

	map snat6 {
		type ipv6_addr : ipv6_addr
		flags interval
	}

	set unprotected4 {
		type ipv4_addr
		flags interval
	}

	set unprotected6 {
		type ipv6_addr
		flags interval
	}

	set routed4 {
		type ipv4_addr
		flags interval
	}

	set routed6 {
		type ipv6_addr
		flags interval
	}

	set direct4 {
		type ipv4_addr
		flags interval
	}

	set direct6 {
		type ipv6_addr
		flags interval
	}

	set links4 {
		type ipv4_addr . ipv4_addr . inet_proto . inet_service
	}

	set open4 {
		type ipv4_addr . inet_proto . inet_service
		flags interval
	}

	set open6 {
		type ipv6_addr . inet_proto . inet_service
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

	map publish_range4 {
		type inet_proto . ipv4_addr . inet_service : interval ipv4_addr . inet_service
		flags interval
	}

	map publish_range6 {
		type inet_proto . ipv6_addr . inet_service : interval ipv6_addr . inet_service
		flags interval
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
		ip6 daddr ::1 return
		dnat ip to meta l4proto . ip daddr . th dport map @publish4
		meta nfproto ipv4 dnat ip to meta l4proto . th dport map @publish_any4
		dnat ip6 to meta l4proto . ip6 daddr . th dport map @publish6
		meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @publish_any6
		dnat ip to meta l4proto . ip daddr . th dport map @publish_range4
		dnat ip6 to meta l4proto . ip6 daddr . th dport map @publish_range6
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname @bridges goto enter
		snat ip to ip saddr map @snat4
		snat ip6 to ip6 saddr map @snat6
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
		iifname . oifname @apart goto linked
		iifname . oifname @trusted goto direct
		ip daddr @direct4 goto direct
		ip6 daddr @direct6 goto direct
		drop
	}

	chain linked {
		ip saddr . ip daddr . meta l4proto . th dport @links4 goto allow
		drop
	}

	chain direct {
		ip daddr @unprotected4 goto allow
		ip6 daddr @unprotected6 goto allow
		ip daddr @routed4 meta l4proto icmp goto allow
		ip6 daddr @routed6 meta l4proto ipv6-icmp goto allow
		ip daddr . meta l4proto . th dport @open4 goto allow
		ip6 daddr . meta l4proto . th dport @open6 goto allow
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

_MARK_RULE = "\t\tmeta mark & {mask:#010x} == {mark:#010x} goto allow\n"
_BEFORE_MARK = "\t\tiifname @internal drop\n\t\toifname @internal drop\n"


def host_table(accept_mark: tuple[int, int] | None = None) -> NftTable:
    """The host's table; with `accept_mark` (mark, mask) forwarded packets that carry it pass."""
    text = _HOST_TABLE_TEXT
    if accept_mark is not None:
        mark, mask = accept_mark
        text = text.replace(_BEFORE_MARK, _BEFORE_MARK + _MARK_RULE.format(mark=mark, mask=mask))
    return NftTable(HOST, FAMILY, TABLE, text)


HOST_TABLE = host_table()
HOST_TABLE_TEXT = HOST_TABLE.text

# Ports are rewritten in packets rather than translated (docs/decisions/0015): a nat chain, or a word about ct, would
# have the kernel track every connection of the namespace. What tracking there may be for other reasons must see
# question and answer alike, as between the asker and port 53: so answers change before it, and questions behind it and
# behind whatever the container's own rules make of them.
# A question to a responder that is away is answered by the kernel (port unreachable) with the question in it; its port
# is put back too, so that the asker's socket learns of it at once. nft has no word for a checksum over that, so the
# difference goes into a field of the ICMP header that has no meaning in this message: the sum stays the same.
_SANDBOX_TABLE_TEXT = """\
table ip dari {
	chain answers {
		type filter hook output priority raw; policy accept;
		ip saddr 127.0.0.11 goto answer
	}

	chain questions {
		type filter hook output priority 300; policy accept;
		ip daddr 127.0.0.11 goto question
	}

	chain answer {
		udp sport %(port)d udp sport set 53
		tcp sport %(port)d tcp sport set 53
		icmp type destination-unreachable icmp code port-unreachable %(back)s
	}

	chain question {
		udp dport 53 udp dport set %(port)d
		tcp dport 53 tcp dport set %(port)d
	}
}
"""

_BACK = "@th,240,16 {port:#x} @th,240,16 set {asked:#x} @th,32,16 set {difference:#x}"

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
    yield element("bridges", bridge)
    if network.is_internal:
        yield element("internal", bridge)
    yield element("pairs" if network.is_icc else "apart", f"{bridge} . {bridge}")
    if not network.is_internal:
        for name in network.trusted_interfaces:
            yield element("trusted", f"{interface(name)} . {bridge}")
    for subnet in network.subnets:
        yield element(f"subnets{subnet.prefix.version}", prefix(subnet.prefix))
        if not network.is_internal:
            yield from _subnet_elements(network, subnet.prefix)


def _subnet_elements(network: NetworkWant, subnet: Prefix) -> Iterator[NftElement]:
    """How a subnet meets the world."""
    version, text = subnet.version, prefix(subnet)
    mode = network.gateway_mode(version)
    if network.is_masquerading and mode != "routed":
        if version in network.snat:
            yield element(f"snat{version}", text, str(network.snat[version]))
        else:
            yield element(f"masquerade{version}", text)
    if mode == "nat-unprotected":
        yield element(f"unprotected{version}", text)
    if mode == "routed":
        yield element(f"routed{version}", text)
    if mode in ("nat-unprotected", "routed") or network.is_direct_routing:
        yield element(f"direct{version}", text)


def sandbox_elements(
    publishes: Iterable[PublishWant], homes: Mapping[Address, NetworkWant]
) -> Iterator[NftElement]:
    """What the host's table must know of a sandbox's published ports; `homes`: its addresses and their networks.

    Ports whose target is not there are left out.
    """
    opened = []
    for publish in publishes:
        network = homes.get(publish.target)
        if network is None:
            continue
        is_routed = network.gateway_mode(publish.target.version) == "routed"
        if is_routed or network.is_direct_routing or network.trusted_interfaces:
            opened.append(publish)
        if publish.is_translatable and not is_routed:
            yield from publish_elements(publish)
    yield from open_elements(opened)


def proxy_switch(bridge: str) -> str:
    """The sysctl by which the host answers on a bridge for the addresses that lie there (ARP): what a link opens leads
    by way of the host, since isolated ports hear nothing of each other."""
    return f"net/ipv4/conf/{bridge}/proxy_arp_pvlan"


def link_elements(links: Iterable[LinkWant]) -> Iterator[NftElement]:
    """Two links to one container open the same once."""
    for each in dict.fromkeys(links):
        yield element("links4", f"{each.source} . {each.target} . {each.protocol} . {each.port}")


def sandbox_table(sandbox: SandboxWant) -> NftTable | None:
    """The sandbox's own table: names are asked at 127.0.0.11:53 and answered on another port.

    Raises ValueError for a port that is not above 53.
    """
    port = sandbox.dns_port
    if port is None:
        return None
    if not _ASKED_PORT < port <= 65535:
        raise ValueError(f"no port for answers: {port}")
    back = _BACK.format(port=port, asked=_ASKED_PORT, difference=port - _ASKED_PORT)
    text = _SANDBOX_TABLE_TEXT % {"port": port, "back": back}
    return NftTable(sandbox.netns, "ip", TABLE, text)


def interface(name: str) -> str:
    """An interface as nft lists it in a set: quoted."""
    return f'"{name}"'


def prefix(value: Prefix) -> str:
    """A prefix as nft lists it in an interval set: a single address has no length."""
    return str(value.network_address) if value.prefixlen == value.max_prefixlen else str(value)
