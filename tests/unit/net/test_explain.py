"""explain over worlds written by hand: what decides, by which object, in which words; and against Docker's rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from dari.net.desired import (
    Desired,
    EndpointWant,
    Flow,
    NetworkWant,
    PolicyWant,
    PublishWant,
    SandboxWant,
    SubnetWant,
)
from dari.net.explain import OUTSIDE, Listeners, Probe, Trace, explain
from dari.net.facts import HostFacts
from dari.net.foreign import Foreign, ForeignLink, Unseen
from dari.net.packet import Stage, Verdict
from dari.net.render import render
from dari.net.scope import Key
from dari.net.state import (
    HOST,
    Addr,
    Bridge,
    Dummy,
    Fdb,
    Ipvlan,
    KernelObject,
    KernelState,
    Loopback,
    Macvlan,
    MovedLink,
    Neighbour,
    Netns,
    NftTable,
    Route,
    Sysctl,
    Veth,
    Vxlan,
)

WAN = "192.0.2.1"
FAR = ip_address("203.0.113.5")
FACTS = HostFacts(addresses=(ip_interface(f"{WAN}/24"),))


def network(number: int, *, has_ipv6: bool = False, **attributes: Any) -> NetworkWant:
    four = SubnetWant(ip_network(f"10.{number}.0.0/24"), ip_interface(f"10.{number}.0.1/24"))
    six = SubnetWant(ip_network(f"fd00:{number}::/64"), ip_interface(f"fd00:{number}::1/64"))
    return NetworkWant(
        id=f"n{number}",
        name=f"net{number}",
        bridge_name=f"br{number}",
        altname=f"dari-net-{number}",
        subnets=(four, six) if has_ipv6 else (four,),
        **attributes,
    )


def endpoint(net: NetworkWant, box: int, order: int = 0) -> EndpointWant:
    number = net.id.removeprefix("n")
    return EndpointWant(
        id=f"e{number}-{box}",
        network_id=net.id,
        sandbox_id=f"box{box}",
        host_interface=f"v{number}-{box}",
        interface=f"eth{order}",
        mac=f"02:42:0a:{int(number):02x}:00:{box + 10:02x}",
        addresses=tuple(
            ip_interface((one.prefix.network_address + 10 + box, one.prefix.prefixlen)) for one in net.subnets
        ),
        gateways=tuple(one.gateway.ip for one in net.subnets if one.gateway is not None),
        is_default_gateway=order == 0,
        altname=f"dari-ep-{number}-{box}",
    )


def publish(host: str, port: int, target: str, container_port: int = 80, count: int = 1) -> PublishWant:
    return PublishWant("tcp", ip_address(host), port, ip_address(target), container_port, count)


def sandbox(number: int, *publishes: PublishWant, dns_port: int | None = None) -> SandboxWant:
    return SandboxWant(f"box{number}", f"box{number}", publishes=publishes, dns_port=dns_port)


NET0, NET1 = network(0), network(1)
DESIRED = Desired(
    (NET0, NET1, network(2, is_internal=True), network(3, is_icc=False)),
    (
        endpoint(NET0, 0),
        endpoint(NET0, 1),
        endpoint(NET1, 2),
        endpoint(network(2), 3),
        endpoint(network(3), 4),
        endpoint(network(3), 5),
    ),
    (
        sandbox(
            0,
            publish("0.0.0.0", 8080, "10.0.0.10"),
            publish("0.0.0.0", 9000, "10.0.0.10", 7000, 50),
            dns_port=40001,
        ),
        *(sandbox(number) for number in range(1, 6)),
    ),
)  # fmt: skip
STATE = render(DESIRED, FACTS)


def ask(
    source: str,
    destination: str,
    port: int | None = 80,
    protocol: Any = "tcp",
    *,
    state: KernelState = STATE,
    foreign: Foreign | None = None,
    listeners: Listeners | None = None,
    **attributes: Any,
) -> Trace:
    if source == OUTSIDE:
        attributes.setdefault("source_address", FAR)
    probe = Probe(source, ip_address(destination), protocol, port, **attributes)
    return explain(state, probe, FACTS, listeners, foreign)


def without(*keys: Key, state: KernelState = STATE) -> KernelState:
    assert set(keys) <= set(state.objects)
    return KernelState({key: each for key, each in state.objects.items() if key not in keys})


def changed(each: KernelObject, state: KernelState = STATE) -> KernelState:
    return KernelState({**state.objects, each.key: each})


@pytest.mark.parametrize(
    ("source", "destination", "port", "verdict"),
    [
        ("box0", "10.0.0.11", 80, "delivered"),
        ("box0", "10.0.0.10", 80, "delivered"),
        ("box0", "127.0.0.1", 80, "delivered"),
        ("box0", "10.1.0.12", 80, "dropped"),
        ("box0", "10.0.0.1", 22, "delivered"),
        ("box0", "10.1.0.1", 22, "delivered"),
        ("box0", "10.0.0.99", 80, "unreachable"),
        ("box0", "198.51.100.1", 443, "delivered"),
        ("box3", "198.51.100.1", 443, "unreachable"),
        ("box3", "10.2.0.1", 22, "delivered"),
        ("box4", "10.3.0.15", 80, "unreachable"),
        ("box4", "198.51.100.1", 443, "delivered"),
        (HOST, "10.0.0.10", 80, "delivered"),
        (HOST, "10.2.0.13", 80, "delivered"),
        (HOST, "127.0.0.1", 8080, "delivered"),
        (HOST, WAN, 8080, "delivered"),
        ("box1", "10.0.0.1", 8080, "delivered"),
        ("box0", "10.0.0.1", 8080, "delivered"),
        ("box2", WAN, 8080, "delivered"),
        (OUTSIDE, WAN, 8080, "delivered"),
        (OUTSIDE, "10.0.0.10", 80, "dropped"),
        ("box0", "fd00::9", 80, "unreachable"),
        ("box9", "10.0.0.10", 80, "unreachable"),
    ],
)
def test_verdicts(source: str, destination: str, port: int, verdict: Verdict) -> None:
    trace = ask(source, destination, port)
    assert trace.verdict == verdict
    assert (trace.decided_by is None) == (verdict == "delivered")
    assert (trace.hops[-1] is trace.decided_by) or trace.decided_by is None


@pytest.mark.parametrize(
    ("source", "destination", "words"),
    [
        ("box0", "10.1.0.12", "br0 and br1 are different networks"),
        ("box0", "10.2.0.13", "the network of br2 is internal"),
        (OUTSIDE, "10.0.0.10", "from outside, the network of br0 is reached through published ports alone"),
        (OUTSIDE, "127.0.0.1", "the host's loopback addresses are closed"),
    ],
)
def test_what_a_drop_of_ours_means(source: str, destination: str, words: str) -> None:
    trace = ask(source, destination)
    assert trace.verdict == "dropped"
    assert words in decided(trace).text


def places(trace: Trace) -> list[tuple[str, str]]:
    return [(each.stage, each.where) for each in trace.hops if not each.is_answer]


def test_the_way_of_a_published_port() -> None:
    trace = ask(OUTSIDE, WAN, 8080)
    nat = next(each for each in trace.hops if each.stage == "nat")
    assert nat.key == ("nft-element", HOST, "inet", "dari", "publish_any4", "tcp . 8080")
    assert "192.0.2.1:8080 becomes 10.0.0.10:80" in nat.text
    assert places(trace)[-1] == ("listen", "box0")
    # The answer leaves with the address that was asked.
    assert any("over uplink with source 192.0.2.1" in each.text for each in trace.hops if each.is_answer)


def test_a_range_counts_on() -> None:
    listeners = Listeners.of([("box0", "tcp", ip_address("0.0.0.0"), 7049)], ["box0"])
    assert ask(OUTSIDE, WAN, 9049, listeners=listeners).verdict == "delivered"
    assert ask(OUTSIDE, WAN, 9048, listeners=listeners).verdict == "refused"
    assert ask(OUTSIDE, WAN, 9050, listeners=Listeners.of([], [HOST])).verdict == "refused"


def test_hairpin_is_masqueraded_and_else_goes_astray() -> None:
    assert ask("box1", WAN, 8080).verdict == "delivered"
    state = without(("nft-element", HOST, "inet", "dari", "subnets4", "10.0.0.0/24"))
    trace = ask("box1", WAN, 8080, state=state)
    assert trace.verdict == "dropped"
    assert trace.decided_by is not None
    assert "the answer comes from 10.0.0.10:80, but 192.0.2.1:8080 was asked" in trace.decided_by.text
    # To itself it does not even arrive: a packet from one's own address is none.
    assert (
        "its source 10.0.0.10 is an address of its own" in decided(ask("box0", WAN, 8080, state=state)).text
    )


def decided(trace: Trace) -> Any:
    assert trace.decided_by is not None
    return trace.decided_by


def test_names_are_asked_at_another_port() -> None:
    listeners = Listeners.of([("box0", "udp", ip_address("127.0.0.11"), 40001)], ["box0", "box1"])
    asked = ask("box0", "127.0.0.11", 53, "udp", listeners=listeners)
    assert asked.verdict == "delivered"
    changes = [hop.text for hop in asked.hops if hop.stage == "nat"]
    assert changes == [
        "box0: 127.0.0.11:53 becomes 127.0.0.11:40001 (`udp dport 53 udp dport set 40001`, output)",
        "box0: source 127.0.0.11:40001 becomes 127.0.0.11:53 (`udp sport 40001 udp sport set 53`, output)",
    ]
    assert ask("box1", "127.0.0.11", 53, "udp", listeners=listeners).verdict == "refused"
    # Nobody else's port 53, and nothing of it is told of other traffic.
    other = ask("box0", "10.0.0.11", 80)
    assert not [hop for hop in other.hops if "dari" in hop.text and "output" in hop.text], other.hops


def test_ports_written_into_packets_are_not_what_connection_tracking_knows() -> None:
    """The sandbox's own rules, if it has any, see a conversation with port 53 on both ways."""
    stateful = NftTable(
        "box0", "ip", "mine",
        "table ip mine {\n\tchain in {\n\t\ttype filter hook input priority filter; policy drop;\n"
        "\t\tct status dnat drop\n\t\tct state established accept\n\t\tudp dport 40001 accept\n\t}\n}\n",
    )  # fmt: skip
    listeners = Listeners.of([("box0", "udp", ip_address("127.0.0.11"), 40001)], ["box0"])
    state = KernelState({**STATE.objects, stateful.key: stateful})
    assert ask("box0", "127.0.0.11", 53, "udp", state=state, listeners=listeners).verdict == "delivered"


def test_listeners() -> None:
    at = {"any": "0.0.0.0", "own": "10.0.0.11", "loopback": "127.0.0.1", "six": "::"}
    found = {
        name: ask(
            "box0", "10.0.0.11", listeners=Listeners.of([("box1", "tcp", ip_address(address), 80)], ["box1"])
        )
        for name, address in at.items()
    }
    assert {name: each.verdict for name, each in found.items()} == {
        "any": "delivered",
        "own": "delivered",
        "loopback": "refused",
        "six": "refused",
    }
    assert decided(found["loopback"]).text == "it arrives, but nobody in box1 listens on 10.0.0.11:80/tcp"
    # Pings are answered by the kernel; a namespace nobody looked at may have a listener.
    assert ask("box0", "10.0.0.11", None, "icmp", listeners=Listeners.of([], ["box1"])).verdict == "delivered"
    assert ask("box0", "10.0.0.11", listeners=Listeners.of([], ["box0"])).verdict == "delivered"
    silent = changed(Sysctl("box1", "net/ipv4/icmp_echo_ignore_all", "1"))
    assert ask("box0", "10.0.0.11", None, "icmp", state=silent).verdict == "dropped"


def test_a_name_without_address() -> None:
    trace = explain(STATE, Probe("box0", None, "tcp", 80), FACTS)
    assert (trace.verdict, decided(trace).stage) == ("unreachable", "name")


VETH = STATE.objects["link", HOST, "v0-1"]
BRIDGE = STATE.objects["link", HOST, "br0"]
assert isinstance(VETH, Veth)
assert isinstance(BRIDGE, Bridge)


@dataclass(frozen=True, slots=True)
class Fault:
    """box0 asks `to` in a broken world."""

    state: KernelState
    to: tuple[str, int]
    verdict: Verdict
    stage: Stage
    key: Key
    words: str
    source: str = "box0"


OUT = ("198.51.100.1", 443)
NEIGHBOUR = ("10.0.0.11", 80)
FAULTS = {
    "netns gone": Fault(
        without(("netns", "box0")), NEIGHBOUR, "unreachable", "address", ("netns", "box0"), "namespace box0 is gone"
    ),
    "veth gone": Fault(
        without(("link", HOST, "v0-0")), NEIGHBOUR, "unreachable", "address", ("link", "box0", "eth0"), ""
    ),
    "receiver's veth gone": Fault(
        without(VETH.key), NEIGHBOUR, "unreachable", "address", ("link", "box1", "eth0"), "switched off"
    ),
    "veth without bridge": Fault(
        changed(replace(VETH, master="")), NEIGHBOUR, "unreachable", "neighbour", VETH.key, "v0-1 is on no bridge"
    ),
    "veth on another bridge": Fault(
        changed(replace(VETH, master="br1")), NEIGHBOUR, "unreachable", "neighbour", VETH.key, "on bridge br1, not br0"
    ),
    "veth down": Fault(
        changed(replace(VETH, is_up=False)), NEIGHBOUR, "unreachable", "neighbour", VETH.key, "interface eth0 is down"
    ),
    "two with one MAC": Fault(
        changed(replace(VETH, mac="02:42:0a:00:00:63"),
                changed(Veth("vx", "dari-x", "eth0", "box2", "br0", "02:42:0a:00:00:63"))),
        NEIGHBOUR, "unknown", "neighbour", VETH.key, "same MAC address",
    ),
    "bridge down": Fault(
        changed(replace(BRIDGE, is_up=False)), NEIGHBOUR, "unreachable", "neighbour", BRIDGE.key, "bridge br0 is down"
    ),
    "bridge gone": Fault(
        without(BRIDGE.key), NEIGHBOUR, "unreachable", "neighbour", BRIDGE.key, "bridge br0 does not exist"
    ),
    "own address gone": Fault(
        without(("addr", "box0", "eth0", "10.0.0.10/24")), NEIGHBOUR, "unreachable", "address",
        ("addr", "box0", "", "10.0.0.11"), "box0 has no IPv4 address",
    ),
    "receiver's address gone": Fault(
        without(("addr", "box1", "eth0", "10.0.0.11/24")), NEIGHBOUR, "unreachable", "neighbour",
        ("addr", "", "br0", "10.0.0.11"), "nobody on bridge br0 has the address 10.0.0.11",
    ),
    "gateway's address gone": Fault(
        without(("addr", HOST, "br0", "10.0.0.1/24")), OUT, "unreachable", "neighbour",
        ("addr", "", "br0", "10.0.0.1"), "nobody on bridge br0 has the address 10.0.0.1",
    ),
    "default route gone": Fault(
        without(("route", "box0", "0.0.0.0/0", "0")), OUT, "unreachable", "route",
        ("route", "box0", "0.0.0.0/0", "0"), "box0 has no route to 198.51.100.1",
    ),
    "forwarding off": Fault(
        changed(Sysctl(HOST, "net/ipv4/ip_forward", "0")), OUT, "dropped", "forward",
        ("sysctl", HOST, "net/ipv4/ip_forward"), "the host does not forward IPv4",
    ),
    "masquerade missing": Fault(
        without(("nft-element", HOST, "inet", "dari", "masquerade4", "10.0.0.0/24")), OUT, "unknown", "route",
        ("", ""), "only if the network outside knows the way to 10.0.0.10",
    ),
    "publish missing": Fault(
        without(("nft-element", HOST, "inet", "dari", "publish_any4", "tcp . 8080")), (WAN, 8080), "refused", "listen",
        ("", ""), "nobody in the host listens on 192.0.2.1:8080/tcp", source=OUTSIDE,
    ),
    "way back missing": Fault(
        without(("route", "box0", "0.0.0.0/0", "0")), (WAN, 8080), "unreachable", "route",
        ("route", "box0", "0.0.0.0/0", "0"), "box0 has no route to 203.0.113.5", source=OUTSIDE,
    ),
    "route_localnet off": Fault(
        changed(Sysctl(HOST, "net/ipv4/conf/br0/route_localnet", "0")), ("127.0.0.1", 8080), "dropped", "route",
        ("sysctl", HOST, "net/ipv4/conf/br0/route_localnet"), "route_localnet is 0", source=HOST,
    ),
    "lo down": Fault(
        without(("link", "box0", "lo")), ("127.0.0.11", 53), "dropped", "neighbour", ("link", "box0", "lo"),
        "loopback of box0 is down",
    ),
    "rp_filter": Fault(
        changed(Sysctl("box1", "net/ipv4/conf/eth0/rp_filter", "1"),
                changed(Addr("box1", "lo", ip_interface("10.0.0.0/25")))),
        NEIGHBOUR, "delivered", "deliver", ("", ""), "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named(name: str) -> None:
    fault = FAULTS[name]
    listeners = Listeners.of([("box0", "tcp", ip_address("0.0.0.0"), 80)], [HOST, "box0"])
    trace = ask(fault.source, *fault.to, state=fault.state, listeners=listeners)
    assert trace.verdict == fault.verdict
    if fault.verdict == "delivered":
        return
    hop = decided(trace)
    assert not hop.is_ok
    assert fault.words in hop.text
    assert (hop.stage, hop.key or ("", "")) == (fault.stage, fault.key)


def test_switched_off_ipv6_is_named() -> None:
    net = network(7, has_ipv6=True)
    state = render(Desired((net,), (endpoint(net, 0), endpoint(net, 1)), (sandbox(0), sandbox(1))), FACTS)
    assert ask("box0", "fd00:7::b", state=state).verdict == "delivered"
    key: Key = ("sysctl", "box1", "net/ipv6/conf/eth0/disable_ipv6")
    trace = ask("box0", "fd00:7::b", state=changed(Sysctl("box1", key[2], "1"), state))
    assert (trace.verdict, decided(trace).key) == ("unreachable", key)


@pytest.mark.parametrize("hook", ["input", "output"])
def test_ipv6_discovery_meets_the_rules_too(hook: str) -> None:
    net = network(7, has_ipv6=True)
    state = render(Desired((net,), (endpoint(net, 0), endpoint(net, 1)), (sandbox(0), sandbox(1))), FACTS)
    text = (
        f"table inet own {{\n\tchain c {{\n\t\ttype filter hook {hook} priority filter; policy drop;\n"
        "\t\tmeta l4proto { tcp, udp } accept\n%s\t}\n}\n"
    )
    discovery = "\t\ticmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n"
    for name in ("box0", "box1"):
        closed = changed(NftTable(name, "inet", "own", text % ""), state)
        trace = ask("box0", "fd00:7::b", state=closed)
        assert trace.verdict == "unreachable"
        assert "IPv6 neighbour discovery" in decided(trace).text
        assert ask("box0", "10.7.0.11", state=closed).verdict == "delivered"
        opened = changed(NftTable(name, "inet", "own", text % discovery), state)
        assert ask("box0", "fd00:7::b", state=opened).verdict == "delivered"


def test_an_address_claimed_twice() -> None:
    state = changed(Addr("box1", "eth0", ip_interface("10.0.0.12/24")))
    state = changed(
        Veth("vx", "dari-x", "eth1", "box2", "br0", "02:00:00:00:00:01"),
        changed(Addr("box2", "eth1", ip_interface("10.0.0.12/24")), state),
    )
    trace = ask("box0", "10.0.0.12", state=state)
    assert trace.verdict == "unknown"
    assert "claimed twice on bridge br0: by box1 and box2" in decided(trace).text


def test_which_end_of_a_veth_is_down() -> None:
    state = changed(
        Veth("vx", "dari-x", "eth1", "box0", "br1", "02:00:00:00:00:01", is_up=False),
        changed(Addr("box0", "eth1", ip_interface("10.1.0.99/24"))),
    )
    # The host's end: the sandbox still sends over it.
    assert decided(ask("box0", "10.1.0.1", state=state)).key == ("link", HOST, "vx")
    # Its own end: its routes are gone, and the default route leads there.
    own = replace(strange("accept"), down=frozenset({("box0", "eth1")}))
    assert ask("box0", "10.1.0.1", state=state, foreign=own).verdict == "delivered"


def test_a_smaller_mtu_is_a_remark_and_stops_what_is_too_big() -> None:
    state = changed(replace(VETH, mtu=1400))
    trace = ask("box0", "10.0.0.11", state=state)
    assert trace.verdict == "delivered"
    (remark,) = [each for each in trace.hops if not each.is_ok]
    assert remark.key == VETH.key
    assert "more than 1400 bytes" in remark.text
    assert ask("box0", "10.0.0.11", state=state, size=1500).verdict == "dropped"


def test_the_table_missing_or_changed_is_told() -> None:
    key = ("nft-table", HOST, "inet", "dari")
    trace = ask("box0", "10.1.0.12", state=without(key))
    assert trace.verdict == "delivered"
    assert [each.key for each in trace.hops if not each.is_ok] == [key]
    table = STATE.objects[key]
    assert isinstance(table, NftTable)
    other = replace(table, text=table.text.replace("\t\tiifname @internal drop\n", ""))
    trace = ask("box0", "10.1.0.12", state=changed(other))
    assert any("not as dari wrote it" in each.text for each in trace.hops)
    assert trace.verdict == "dropped"
    # With the daemon's mark let through it is as dari writes it.
    marked = render(
        replace(DESIRED, networks=tuple(replace(each, accept_mark=(1, 3)) for each in DESIRED.networks)),
        FACTS,
    )
    assert all(each.is_ok for each in ask("box0", "198.51.100.1", state=marked).hops)


STRANGER = """\
table ip theirs {
	chain forward {
		type filter hook forward priority filter; policy accept;
		%s
	}
}
"""


def strange(rule: str, netns: str = HOST) -> Foreign:
    return Foreign(
        links=(ForeignLink(HOST, "wan"),),
        addresses=(Addr(HOST, "wan", ip_interface(f"{WAN}/24")),),
        routes=(Route(HOST, ip_network("0.0.0.0/0"), ip_address("192.0.2.254"), "wan"),),
        tables=(NftTable(netns, "ip", "theirs", STRANGER % rule),),
    )


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [
        ("tcp dport 443 drop", "dropped"),
        ("tcp dport 443 reject", "refused"),
        ("reject with icmp host-unreachable", "unreachable"),
        ("meta mark & 0x08000000 == 0x08000000 accept comment \"dari\"", "delivered"),
        ('xt match "owner" drop', "unknown"),
        ('xt match "owner" accept', "delivered"),
    ],
)  # fmt: skip
def test_a_strangers_rule_is_judged_too(rule: str, verdict: Verdict) -> None:
    trace = ask("box0", "198.51.100.1", 443, foreign=strange(rule))
    assert trace.verdict == verdict
    if verdict != "delivered":
        assert decided(trace).key == ("nft-table", HOST, "ip", "theirs")
        assert rule in decided(trace).text


def test_the_host_as_it_was_seen() -> None:
    seen = strange("accept")
    trace = ask("box0", "198.51.100.1", 443, foreign=seen)
    assert any("leaves the host over wan with source 192.0.2.1" in each.text for each in trace.hops)
    assert ask(OUTSIDE, WAN, 8080, foreign=seen, in_interface="wan").verdict == "delivered"
    down = replace(seen, links=(ForeignLink(HOST, "wan", is_up=False),))
    assert ask("box0", "198.51.100.1", 443, foreign=down).verdict == "unreachable"
    assert ask(OUTSIDE, WAN, 8080, foreign=down, in_interface="wan").verdict == "unreachable"
    broken = replace(seen, tables=(NftTable(HOST, "ip", "theirs", ""),))
    assert ask("box0", "198.51.100.1", 443, foreign=broken).verdict == "unknown"


def filtered(state: KernelState) -> KernelState:
    return changed(Sysctl(HOST, "net/bridge/bridge-nf-call-iptables", "1"), state)


def test_br_netfilter_shows_bridged_packets_to_the_rules() -> None:
    trace = ask("box0", "10.0.0.11", state=filtered(STATE))
    assert trace.verdict == "delivered"
    assert ("policy", HOST) in places(trace)
    without_pair = without(("nft-element", HOST, "inet", "dari", "pairs", '"br0" . "br0"'))
    assert ask("box0", "10.0.0.11", state=without_pair).verdict == "delivered"
    apart = ask("box0", "10.0.0.11", state=filtered(without_pair))
    assert apart.verdict == "dropped"
    assert "may not speak with each other (icc is off)" in decided(apart).text


def test_br_netfilter_turns_hairpins_round_inside_the_bridge() -> None:
    assert ask("box1", WAN, 8080, state=filtered(STATE)).verdict == "delivered"
    assert ask("box0", WAN, 8080, state=filtered(STATE)).verdict == "delivered"
    own = STATE.objects["link", HOST, "v0-0"]
    assert isinstance(own, Veth)
    flat = filtered(changed(replace(own, is_hairpin=False)))
    assert "hairpin is off" in decided(ask("box0", WAN, 8080, state=flat)).text
    isolated = filtered(changed(replace(own, is_isolated=True)))
    assert "isolated from itself" in decided(ask("box0", WAN, 8080, state=isolated)).text


def test_an_interface_of_an_unknown_kind_is_not_seen_through() -> None:
    state = KernelState.of([Netns("box"), Loopback("box"), Addr("box", "tun0", ip_interface("10.9.0.2/24"))])
    foreign = Foreign(links=(ForeignLink("box", "tun0", "tun"),))
    trace = ask("box", "10.9.0.3", state=state, foreign=foreign)
    assert (trace.verdict, decided(trace).key) == ("unknown", ("link", "box", "tun0"))


def on_wire(make: Callable[[int], KernelObject], *others: KernelObject) -> KernelState:
    boxes: list[KernelObject] = []
    for number in (1, 2):
        name = f"mac{number}"
        boxes += [
            Netns(name),
            Loopback(name),
            make(number),
            Addr(name, "eth0", ip_interface(f"192.0.2.1{number}/24")),
            Route(name, ip_network("0.0.0.0/0"), ip_address("192.0.2.254"), "eth0"),
        ]
    return KernelState.of([*boxes, *others])


@pytest.mark.parametrize(
    ("mode", "verdict"), [("bridge", "delivered"), ("private", "unreachable"), ("vepa", "unknown")]
)
def test_macvlan_and_ipvlan(mode: str, verdict: Verdict) -> None:
    def mac(number: int) -> KernelObject:
        return Macvlan(f"mac{number}", "eth0", f"dari-{number}", "wan", mode, f"02:00:00:00:00:0{number}")

    def ip(number: int) -> KernelObject:
        return Ipvlan(f"mac{number}", "eth0", f"dari-{number}", "wan", "l2", mode)

    for make in (mac, ip):
        state = on_wire(make)
        seen = strange("accept")
        assert ask("mac1", "192.0.2.12", state=state, foreign=seen).verdict == verdict
        assert ask("mac1", "198.51.100.1", state=state, foreign=seen).verdict == "delivered"
        assert ask("mac1", "198.51.100.1", state=state).verdict == "delivered"
        assert (
            ask(OUTSIDE, "192.0.2.11", state=state, foreign=seen, in_interface="wan").verdict == "delivered"
        )
        assert "do not hear each other" in decided(ask("mac1", WAN, state=state, foreign=seen)).text
        lan = replace(seen, routes=(Route(HOST, ip_network("192.0.2.0/24"), None, "wan"),))
        assert "do not hear each other" in decided(ask(HOST, "192.0.2.11", state=state, foreign=lan)).text
        for link in (ForeignLink(HOST, "wan", is_up=False), ForeignLink(HOST, "wan", has_carrier=False)):
            off = replace(seen, links=(link,))
            for target in ("192.0.2.12", "198.51.100.1"):
                trace = ask("mac1", target, state=state, foreign=off)
                assert trace.verdict == "unreachable" and decided(trace).is_beyond
        (leaves,) = (
            each for each in ask("mac1", "198.51.100.1", state=state, foreign=seen).hops if each.towards
        )
        assert (leaves.where, str(leaves.towards)) == ("mac1", "192.0.2.254")


def test_what_leaves_for_an_address_of_this_host_may_come_back_or_not() -> None:
    def mac(number: int) -> KernelObject:
        return Macvlan(f"mac{number}", "eth0", f"dari-{number}", "wan", "bridge", f"02:00:00:00:00:0{number}")

    inside = (Netns("box"), Loopback("box"), Addr("box", "lo", ip_interface("172.20.0.5/32")))
    trace = ask("mac1", "172.20.0.5", state=on_wire(mac, *inside), foreign=strange("accept"))
    assert trace.verdict == "unknown"
    assert "172.20.0.5 is box's, on this host, but it is sent out over eth0" in decided(trace).text


def test_an_ipvlan_of_layer_3_goes_on_by_the_hosts_route_over_its_parent() -> None:
    state = on_wire(lambda number: Ipvlan(f"mac{number}", "eth0", f"dari-{number}", "wan", "l3", "bridge"))
    seen = strange("accept")
    trace = ask("mac1", "198.51.100.1", state=state, foreign=seen)
    assert (trace.verdict, str(decided(trace).towards)) == ("unknown", "192.0.2.254")
    without = replace(seen, routes=())
    assert str(decided(ask("mac1", "198.51.100.1", state=state, foreign=without)).towards) == "198.51.100.1"
    off = replace(seen, links=(ForeignLink(HOST, "wan", has_carrier=False),))
    assert decided(ask("mac1", "198.51.100.1", state=state, foreign=off)).is_beyond


def test_what_cannot_be_looked_into_is_remarked_where_the_packet_passes_it() -> None:
    def remarks(source: str, target: str, *unseen: Unseen) -> list[str]:
        trace = ask(source, target, 443, foreign=replace(strange("accept"), unseen=unseen))
        assert trace.verdict == "delivered"
        return [each.text for each in trace.hops if each.is_unseen]

    wan = Unseen(HOST, "wan", "XDP program 7")
    assert remarks("box0", "198.51.100.1", wan) == ["cannot look into: XDP program 7 on wan"]
    assert remarks("box0", "10.0.0.11", wan) == []
    old = Unseen(HOST, "", "iptables-legacy table filter (3 rules)", 4)
    assert remarks("box0", "198.51.100.1", old) == [f"cannot look into: {old.what} on the host's network"]
    # A frame inside a bridge does not meet the host's rules.
    assert remarks("box0", "10.0.0.11", old) == []
    assert remarks("box0", "198.51.100.1", replace(old, version=6)) == []
    inside = Unseen("box0", "eth0", "traffic control (netem)")
    assert remarks("box0", "198.51.100.1", inside) == ["cannot look into: traffic control (netem) on eth0"]
    ports = [Unseen(HOST, "v0-0", "tc filters (ingress)"), Unseen(HOST, "v0-1", "tc filters (egress)")]
    assert len(remarks("box0", "10.0.0.11", *ports)) == 2


def test_a_macvlan_without_a_parent_leads_nowhere() -> None:
    def make(number: int) -> KernelObject:
        return Macvlan(f"mac{number}", "eth0", f"dari-{number}", "dm0", "bridge", f"02:00:00:00:00:0{number}")

    state = on_wire(make, Dummy("dm0", "dari-dm"))
    assert ask("mac1", "192.0.2.12", state=state).verdict == "delivered"
    assert "nobody on dm0 has the address" in decided(ask("mac1", "192.0.2.77", state=state)).text
    # The host's shim is one of them.
    shim = changed(
        Macvlan(HOST, "shim", "dari-shim", "dm0", "bridge", "02:00:00:00:00:09"),
        changed(Addr(HOST, "shim", ip_interface("192.0.2.9/24")), state),
    )
    assert ask("mac1", "192.0.2.9", state=shim).verdict == "delivered"
    assert ask(HOST, "192.0.2.12", state=shim).verdict == "delivered"


def test_a_policy_is_the_receivers_own() -> None:
    """box1 is closed but for box0's 80/tcp; it still calls out, and answers what the host asks to itself."""
    policy = PolicyWant(
        allow=(Flow(ip_network("10.0.0.10"), "tcp", 80, 80),),
        deny=(Flow(ip_network("10.0.0.1"), "tcp", 22, 22),),
        inner=(ip_network("10.0.0.0/24"),),
        closed=("eth0",),
    )
    boxes = tuple(replace(each, policy=policy) if each.id == "box1" else each for each in DESIRED.sandboxes)
    state = render(replace(DESIRED, sandboxes=boxes), FACTS)
    assert ask("box0", "10.0.0.11", 80, state=state).verdict == "delivered"
    refused = ask("box0", "10.0.0.11", 81, state=state)
    assert refused.verdict in ("refused", "unreachable")
    assert (decided(refused).stage, decided(refused).where) == ("policy", "box1")
    assert ("nft-element", "box1", "inet", "dari", "closed", '"eth0"') in decided(refused).uses
    assert ask("box0", "10.0.0.11", None, "icmp", state=state).verdict == refused.verdict
    assert ask(HOST, "10.0.0.11", 80, state=state).verdict == refused.verdict
    assert ask("box1", "10.0.0.10", 81, state=state).verdict == "delivered"
    assert ask("box1", "127.0.0.1", 81, state=state).verdict == "delivered"


def test_an_overlay_leaves_through_its_tunnel() -> None:
    mac = "02:42:0a:00:00:32"
    far = ip_address("192.0.2.77")
    tunnel = Vxlan("vx-0", "dari-vx-0", 4096, ip_address(WAN), 4789, "br0")
    entries = (Neighbour("vx-0", ip_address("10.0.0.50"), mac), Fdb("vx-0", mac, far))
    state = KernelState.of([*STATE, tunnel, *entries])
    for source in ("box0", HOST):
        trace = ask(source, "10.0.0.50", state=state)
        assert trace.verdict == "delivered"
        assert any("on host 192.0.2.77" in each.text for each in trace.hops)
        assert ask(source, "10.0.0.11", state=state).verdict == "delivered"
    assert ask("box0", "10.0.0.50", state=filtered(state)).verdict == "delivered"
    for gone in (*entries, tunnel):
        broken = ask("box0", "10.0.0.50", state=without(gone.key, state=state))
        assert broken.verdict == "unreachable"
    lost = decided(ask("box0", "10.0.0.50", state=without(entries[1].key, state=state)))
    assert (lost.key, "not on which host" in lost.text) == (entries[1].key, True)
    down = ask("box0", "10.0.0.50", state=changed(replace(tunnel, is_up=False), state))
    assert decided(down).key == tunnel.key


# Docker's rules, written down once more


@st.composite
def worlds(draw: DrawFn) -> Desired:
    """Up to three networks, up to six sandboxes on one or two of them each."""
    networks = tuple(
        network(
            number,
            is_internal=draw(st.booleans()),
            is_icc=draw(st.booleans()),
            gateway_modes={4: draw(st.sampled_from(["nat", "nat", "nat-unprotected", "routed"]))},
            is_direct_routing=draw(st.sampled_from([False, False, True])),
        )
        for number in range(draw(st.integers(1, 3)))
    )
    endpoints: list[EndpointWant] = []
    boxes = []
    for box in range(draw(st.integers(2, 6))):
        joined = draw(st.lists(st.integers(0, len(networks) - 1), min_size=1, max_size=2, unique=True))
        own = [endpoint(networks[number], box, order) for order, number in enumerate(joined)]
        endpoints += own
        target = own[draw(st.integers(0, len(own) - 1))].addresses[0].ip
        ports = (publish("0.0.0.0", 8000 + box, str(target)),)
        boxes.append(sandbox(box, *(ports if draw(st.booleans()) else ())))
    return Desired(networks, tuple(endpoints), tuple(boxes))


class Rules:
    """Who reaches whom, as Docker's documentation of networks says it."""

    def __init__(self, desired: Desired) -> None:
        self.networks = {each.id: each for each in desired.networks}
        self.of: dict[str, list[EndpointWant]] = {}
        for each in desired.endpoints:
            self.of.setdefault(each.sandbox_id, []).append(each)

    def member(self, box: str, net: str) -> bool:
        return any(each.network_id == net for each in self.of[box])

    def way_out(self, box: str) -> NetworkWant | None:
        """The network its default route is of."""
        for each in self.of[box]:
            net = self.networks[each.network_id]
            if each.is_default_gateway and not net.is_internal:
                return net
        return None

    def side_by_side(self, box: str, net: NetworkWant) -> bool:
        return self.member(box, net.id) and net.is_icc

    def reaches(self, box: str, other: EndpointWant, port: int | None, published: frozenset[int]) -> bool:
        """`other` at its own address; port None: a ping."""
        net = self.networks[other.network_id]
        if self.member(box, net.id):
            return net.is_icc
        out = self.way_out(box)
        if out is None or net.is_internal or not self.is_open(net, port, published):
            return False
        # The answer goes to the address he sent from.
        if self.member(other.sandbox_id, out.id):
            return out.is_icc
        return self.way_out(other.sandbox_id) is not None

    def is_open(self, net: NetworkWant, port: int | None, published: frozenset[int]) -> bool:
        """To others than its own members, at a container's own address."""
        mode = net.gateway_mode(4)
        if mode == "nat-unprotected":
            return True
        if mode == "routed" and port is None:
            return True
        return (mode == "routed" or net.is_direct_routing) and port in published


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_yes_exactly_where_the_isolation_table_says_yes(desired: Desired) -> None:
    state = render(desired, FACTS)
    rules = Rules(desired)
    opened = {
        str(each.target): frozenset({each.container_port})
        for box in desired.sandboxes
        for each in box.publishes
    }
    for source in rules.of:
        for other in desired.endpoints:
            if other.sandbox_id == source:
                continue
            address = str(other.addresses[0].ip)
            for port, protocol in ((80, "tcp"), (81, "tcp"), (None, "icmp")):
                expected = rules.reaches(source, other, port, opened.get(address, frozenset()))
                trace = ask(source, address, port, protocol, state=state)
                assert (trace.verdict == "delivered") == expected, (source, address, port, trace)


@settings(max_examples=100, deadline=None)
@given(worlds())
def test_published_ports_answer_exactly_where_they_should(desired: Desired) -> None:
    state = render(desired, FACTS)
    rules = Rules(desired)
    homes = {str(each.addresses[0].ip): each for each in desired.endpoints}
    # A port nobody published is the host's, where nobody listens.
    listeners = Listeners.of(
        [(name, "tcp", ip_address("0.0.0.0"), 80) for name in rules.of], [*rules.of, HOST]
    )
    for box in desired.sandboxes:
        for each in box.publishes:
            home = homes[str(each.target)]
            net = rules.networks[home.network_id]
            is_translated = net.gateway_mode(4) != "routed" or net.is_internal
            outside = is_translated and not net.is_internal and rules.way_out(box.id) is not None
            found = ask(OUTSIDE, WAN, each.host_port, state=state, listeners=listeners)
            assert (found.verdict == "delivered") == outside, (each, found)
            found = ask(HOST, "127.0.0.1", each.host_port, state=state, listeners=listeners)
            assert (found.verdict == "delivered") == (is_translated and not net.is_internal)
            for source in rules.of:
                out = rules.way_out(source)
                found = ask(source, WAN, each.host_port, state=state, listeners=listeners)
                expected = out is not None and is_translated and not net.is_internal
                assert (found.verdict == "delivered") == expected, (source, each, found)


@settings(max_examples=30, deadline=None)
@given(worlds(), st.data())
def test_no_broken_world_makes_it_fall(desired: Desired, data: st.DataObject) -> None:
    """Whatever is missing, there is a verdict, and a hop that decided it."""
    state = render(desired, FACTS)
    gone = data.draw(st.sets(st.sampled_from(sorted(state.objects)), max_size=6))
    broken = KernelState({key: each for key, each in state.objects.items() if key not in gone})
    for source in [*(each.netns for each in desired.sandboxes), HOST, OUTSIDE]:
        for destination in [*(str(each.addresses[0].ip) for each in desired.endpoints), WAN, "198.51.100.1"]:
            trace = ask(source, destination, 8000, state=broken)
            assert (trace.decided_by is None) == (trace.verdict == "delivered")


def test_what_a_plugin_made_is_not_seen_through() -> None:
    inside = ip_address("10.201.0.2")
    state = KernelState.of(
        [
            Netns("box"),
            Loopback("box"),
            MovedLink("box", "eth0", "rc2", "dari-ep-2-from-rc2"),
            Addr("box", "eth0", ip_interface("10.201.0.2/32")),
            Route("box", ip_network("169.254.1.1/32"), None, "eth0"),
            Route("box", ip_network("0.0.0.0/0"), ip_address("169.254.1.1"), "eth0"),
        ]
    )
    # Each pair's near end has the same address, and a route to its far end.
    foreign = Foreign(
        links=tuple(ForeignLink(HOST, name) for name in ("wan", "rt1", "rt2")),
        addresses=(
            Addr(HOST, "wan", ip_interface(f"{WAN}/24")),
            *(Addr(HOST, name, ip_interface("169.254.1.1/32")) for name in ("rt1", "rt2")),
        ),
        routes=(
            Route(HOST, ip_network("10.201.0.1/32"), None, "rt1"),
            Route(HOST, ip_network("10.201.0.2/32"), None, "rt2"),
        ),
    )
    there = ask(HOST, str(inside), state=state, foreign=foreign)
    assert (there.verdict, decided(there).key) == ("unknown", ("link", "box", "eth0"))
    back = ask("box", "192.0.2.7", state=state, foreign=foreign)
    assert (back.verdict, decided(back).key) == ("unknown", ("link", "box", "eth0"))
