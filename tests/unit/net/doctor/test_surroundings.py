"""What surrounds dari's objects: each trouble named once, with a repair only where it is ours."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from tests.unit.net.doctor.test_diagnosis import NAMES, WANTED, WEB

from dari.net.desired import NetworkWant
from dari.net.facts import HostFacts
from dari.net.firewall import proxy_switch
from dari.net.hosthealth import judge as judge_host
from dari.net.judged import Truth
from dari.net.state import HOST, Addr, KernelState, Sysctl
from dari.net.surroundings import judge, sysctl_paths
from dari.net.survey import (
    DropFdb,
    DropNeighbour,
    FdbEntry,
    ForgetConnection,
    FoundAddress,
    FoundLink,
    FoundRoute,
    Neighbour,
    NeighbourTable,
    PortState,
    PutPort,
    PutRoute,
    PutSysctl,
    Stale,
    Survey,
)

DB = ip_address("172.18.0.2")
GATEWAY = ip_address("172.18.0.1")
MAC = "02:42:ac:12:00:02"
BRIDGE_MAC = "02:aa:aa:aa:aa:aa"


def kernel_routes() -> tuple[FoundRoute, ...]:
    found = []
    for each in WANTED:
        if isinstance(each, Addr):
            own = ip_network(each.address.ip)
            found.append(FoundRoute(each.netns, 254, each.address.network, None, each.link, 0, 2, "unicast"))
            found.append(FoundRoute(each.netns, 255, own, None, each.link, 0, 2, "local"))
    return tuple(found)


HEALTHY = Survey(
    neighbours=(
        Neighbour(HOST, "br-web", DB, MAC, False),
        Neighbour("box1", "eth0", GATEWAY, BRIDGE_MAC, False),
    ),
    fdb=(
        FdbEntry("br-web", "veth1", MAC, False, False),
        FdbEntry("br-web", "veth1", "02:00:00:00:00:77", True, True),
    ),
    ports=(PortState("veth1", "br-web", 3, True, True),),
    routes=kernel_routes(),
    addresses=tuple(
        FoundAddress(each.netns, each.link, each.address, 218) for each in WANTED if isinstance(each, Addr)
    ),
    links=(FoundLink("br-web", "bridge", 1500, BRIDGE_MAC, True), FoundLink("eth0", "", 1500, "", True)),
    answered={("br-web", DB): frozenset((MAC,)), ("br-web", GATEWAY): frozenset()},
)


def told(**changes: object) -> list[tuple[str, str, type | None]]:
    found = judge(WANTED, replace(HEALTHY, **changes), NAMES, frozenset())
    assert all(each.finding.is_ours == (each.repair is not None) for each in found)
    return [
        (each.finding.id, each.finding.object, type(each.repair) if each.repair else None) for each in found
    ]


def test_a_healthy_world_has_no_findings() -> None:
    assert told() == []


def test_neighbours() -> None:
    wrong = Neighbour(HOST, "br-web", DB, "02:00:00:00:00:01", True)
    assert told(neighbours=(wrong,)) == [("neighbour.wrong", "network web", DropNeighbour)]
    gateway = Neighbour("box1", "eth0", GATEWAY, "02:00:00:00:00:01", False)
    assert told(neighbours=(gateway,)) == [("neighbour.wrong", "container db", DropNeighbour)]
    spare = Neighbour(HOST, "br-web", ip_address("172.18.9.9"), MAC, True)
    assert told(neighbours=(spare,)) == [("neighbour.foreign", "network web", None)]
    elsewhere = Neighbour(HOST, "eth0", ip_address("192.0.2.1"), MAC, True)
    assert told(neighbours=(elsewhere,)) == []


def test_where_the_host_answers_for_all_its_address_is_right_inside_and_wrong_for_itself() -> None:
    proxied = KernelState.of((*WANTED, Sysctl(HOST, proxy_switch("br-web"), "1")))
    own, hosts = (Neighbour("box1", "eth0", DB, mac, False) for mac in (MAC, BRIDGE_MAC))
    outer = Neighbour(HOST, "br-web", DB, BRIDGE_MAC, False)
    for entry, is_wrong in ((own, True), (hosts, False), (outer, True)):
        found = judge(proxied, replace(HEALTHY, neighbours=(entry,)), NAMES, frozenset())
        assert [each.finding.id for each in found] == ["neighbour.wrong"] * is_wrong, entry


def test_forwarding_entries() -> None:
    static = FdbEntry("br-web", "veth9", MAC, True, False)
    assert told(fdb=(static,)) == [("fdb.wrong", "container db", DropFdb)]
    local = FdbEntry("br-web", "veth1", MAC, True, True)
    assert told(fdb=(local,)) == [("fdb.wrong", "container db", DropFdb)]
    learnt = FdbEntry("br-web", "veth9", MAC, False, False)
    assert told(fdb=(learnt,)) == [("fdb.moved", "container db", None)]


def test_ports() -> None:
    assert told(ports=(PortState("veth1", "br-web", 0, True, True),)) == [
        ("link.port", "container db", PutPort)
    ]
    assert told(ports=(PortState("veth1", "br-web", 3, False, True),)) == [
        ("link.port", "container db", PutPort)
    ]


def test_addresses_and_answers() -> None:
    extra = FoundAddress("box1", "eth0", ip_interface("172.18.0.9/16"), 0)
    assert told(addresses=(*HEALTHY.addresses, extra)) == [("address.extra", "container db", None)]
    taken = FoundAddress("box1", "eth0", ip_interface("172.18.0.1/16"), 0)
    assert told(addresses=(*HEALTHY.addresses, taken)) == [("address.clash", "container db", None)]
    other = frozenset((MAC, "02:00:00:00:00:01"))
    assert told(answered={("br-web", DB): other}) == [("address.clash", "container db", None)]
    assert told(answered={("br-web", DB): frozenset()}) == [("address.silent", "container db", None)]
    assert told(answered={("br-web", GATEWAY): other}) == [("address.clash", "network web", None)] * 2


def test_routes() -> None:
    without = tuple(each for each in HEALTHY.routes if not (each.netns == HOST and each.table == 254))
    assert told(routes=without) == [("route.connected-missing", "network web", PutRoute)]
    hole = FoundRoute(HOST, 254, ip_network("172.18.0.2/32"), None, "", 0, 3, "blackhole")
    assert told(routes=(*HEALTHY.routes, hole)) == [("route.foreign", "network web", None)]
    vpn = FoundRoute("box1", 51820, ip_network("0.0.0.0/0"), None, "wg0", 0, 3, "unicast")
    assert told(routes=(*HEALTHY.routes, vpn)) == [("route.extra", "container db", None)]
    other = FoundRoute(HOST, 254, ip_network("10.0.0.0/8"), None, "eth0", 0, 3, "unicast")
    assert told(routes=(*HEALTHY.routes, other)) == []


def test_sysctls_and_connections() -> None:
    path = "net/ipv4/conf/br-web/forwarding"
    assert path in sysctl_paths(WANTED)
    assert told(sysctls={(HOST, path): "0"}) == [("sysctl.changed", "network web", PutSysctl)]
    assert told(sysctls={(HOST, path): "1"}) == []
    stale = Stale(
        "udp", ip_address("192.0.2.9"), (ip_address("192.0.2.1"), 53), (ip_address("172.18.0.9"), 53)
    )
    assert told(stale=(stale,)) == [("conntrack.stale", "network web", ForgetConnection)]


def test_truth_knows_who_should_answer() -> None:
    truth = Truth.of(WANTED)
    assert truth.probes() == {"br-web": {DB: True, GATEWAY: False}}
    assert truth.held() == {DB, GATEWAY}


def test_the_host() -> None:
    def ids(facts: HostFacts | None = None, web: NetworkWant = WEB, **changes: object) -> list[str]:
        facts = facts or HostFacts()
        pools = [ip_network("172.17.0.0/16")]
        return [each.id for each in judge_host([web], facts, replace(HEALTHY, **changes), pools)]

    world = FoundRoute(HOST, 254, ip_network("0.0.0.0/0"), ip_address("192.0.2.1"), "eth0", 0, 3, "unicast")
    routes = (*HEALTHY.routes, world)
    assert ids() == ["host.no-uplink"]
    assert ids(routes=routes) == []
    small = FoundLink("eth0", "", 1400, "", True)
    assert ids(routes=routes, links=(small,)) == ["host.mtu"]
    for driver in ("host", "null", "macvlan"):
        assert ids(web=replace(WEB, driver=driver), routes=routes, links=(small,)) == []
    vpn = FoundRoute(HOST, 254, ip_network("172.16.0.0/12"), None, "wg0", 0, 3, "unicast")
    assert ids(routes=(*routes, vpn)) == ["host.overlap"]
    second = replace(world, link="eth1")
    strict = {(HOST, "net/ipv4/conf/all/rp_filter"): "1"}
    assert ids(routes=(*routes, second), sysctls=strict) == ["host.rp-filter"]
    full = {(HOST, "net/netfilter/nf_conntrack_count"): "95", (HOST, "net/netfilter/nf_conntrack_max"): "100"}
    assert ids(routes=routes, sysctls=full) == ["host.conntrack-full"]
    assert ids(HostFacts(routes=(ip_network("172.16.0.0/12"),)), routes=routes) == ["host.pools-covered"]
    for entries, overflows, found in (
        (900, 0, []),
        (1000, 0, ["error"]),
        (900, 7, ["warning"]),
        (1000, 7, ["error"]),
    ):
        table = NeighbourTable(4, entries, 1024, overflows)
        survey = replace(HEALTHY, routes=routes, neighbour_tables=(table,))
        judged = [*judge_host([WEB], HostFacts(), survey, [ip_network("172.17.0.0/16")])]
        assert [(each.id, each.severity) for each in judged] == [
            ("host.neighbours-full", one) for one in found
        ]
        for each in judged:
            assert f"{entries} of 1024" in each.text and "darid --neighbours 2048" in each.advice
    # Permanent ones, as an overlay's are, take no room.
    fixed = Neighbour(HOST, "dari0", ip_address("172.17.0.9"), "02:42:ac:11:00:09", True)
    table = NeighbourTable(4, 1000, 1024, 0)
    survey = replace(HEALTHY, routes=routes, neighbours=(fixed,) * 100, neighbour_tables=(table,))
    assert [*judge_host([WEB], HostFacts(), survey, [ip_network("172.17.0.0/16")])] == []
    netfilter = {(HOST, "net/bridge/bridge-nf-call-iptables"): "1"}
    closed = HostFacts(forward_droppers=("ip filter FORWARD",))
    assert ids(closed, routes=routes, sysctls=netfilter) == ["host.forward-dropped", "host.bridge-netfilter"]
