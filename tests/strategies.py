"""Hypothesis strategies, one per noun."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_interface,
)

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from dari.net.desired import (
    Desired,
    EndpointWant,
    NetworkWant,
    PublishWant,
    RouteWant,
    SandboxWant,
    SubnetWant,
)
from dari.net.facts import HostFacts
from dari.net.ipam import mac_of

DRIVERS = ("bridge", "bridge", "bridge", "none", "host")
ALL_DRIVERS = (*DRIVERS, "macvlan", "ipvlan")
# What plans are tried with: a plugin's interfaces cannot be made by a kernel alone.
PLANNED_DRIVERS = (*ALL_DRIVERS, "remote")
PARENT = "lan0"
NETWORKS = 3
SANDBOXES = 4


def ids(kind: str, number: int) -> str:
    return f"{kind}{number:x}".ljust(12, "0")


def facts() -> SearchStrategy[HostFacts]:
    return st.builds(
        HostFacts,
        has_ipv6=st.booleans(),
        has_docker_user_chain=st.booleans(),
        kernel_release=st.just("6.1"),
        links=st.just({"lo": 65536, PARENT: 1500}),
    )


def _sublink_options(driver: str, number: int) -> SearchStrategy[dict[str, str]]:
    """Options of a macvlan or ipvlan network: no parent, the host's, or a sub-interface of its own."""
    modes = {"macvlan": ("bridge", "private", "vepa"), "ipvlan": ("l2", "l3", "l3s")}
    if driver not in modes:
        return st.just({})
    return st.fixed_dictionaries(
        {f"{driver}_mode": st.sampled_from(modes[driver])},
        optional={
            "parent": st.sampled_from([PARENT, f"{PARENT}.{number + 10}"]),
            "com.docker.network.driver.mtu": st.just("1400"),
        },
    )


@st.composite
def networks(draw: DrawFn, number: int, drivers: Sequence[str]) -> NetworkWant:
    """The `number`th network: its names and subnets never meet another's, its attributes vary."""
    driver = draw(st.sampled_from(drivers))
    subnets = [
        SubnetWant(
            IPv4Network(f"10.{number}.0.0/24"),
            draw(st.sampled_from([IPv4Interface(f"10.{number}.0.1/24"), None])),
        )
    ]
    if draw(st.booleans()):
        subnets.append(SubnetWant(IPv6Network(f"fd00:{number}::/64"), IPv6Interface(f"fd00:{number}::1/64")))
    return NetworkWant(
        id=ids("n", number),
        name=f"net{number}",
        driver=driver,
        bridge_name=f"br-{draw(st.sampled_from(['a', 'b']))}{number}",
        altname=f"dari-net-{number}",
        subnets=tuple(subnets),
        is_internal=draw(st.booleans()),
        mtu=draw(st.sampled_from([1500, 1400])),
        is_masquerading=draw(st.booleans()),
        is_icc=draw(st.booleans()),
        options=draw(_sublink_options(driver, number)),
        plugin=draw(st.sampled_from(["acme", "other"])) if driver == "remote" else "",
    )


@st.composite
def sandboxes(draw: DrawFn, number: int) -> SandboxWant:
    publishes = [
        PublishWant(
            protocol, host, 8000 + number, IPv4Address(f"10.{draw(st.integers(0, 2))}.0.{number + 2}"), 80
        )
        for protocol in ("tcp", "udp")
        for host in (IPv4Address("0.0.0.0"), IPv4Address("127.0.0.1"))
        if draw(st.booleans())
    ]
    if draw(st.booleans()):
        publishes.append(
            PublishWant("tcp", IPv6Address("::"), 8000 + number, IPv6Address(f"fd00:0::{number + 2:x}"), 80)
        )
    return SandboxWant(
        id=ids("s", number),
        netns=f"ns{number}",
        sysctls=draw(
            st.sampled_from([{}, {"net.ipv4.ip_unprivileged_port_start": "0", "kernel.msgmax": "1"}])
        ),
        dns_port=draw(st.sampled_from([None, 40000, 40001])),
        publishes=tuple(publishes),
    )


@st.composite
def endpoints(
    draw: DrawFn, network: NetworkWant, network_number: int, sandbox: SandboxWant, number: int
) -> EndpointWant:
    """The endpoint of the `number`th sandbox on a network; its veth's name changes as it does with each start."""
    addresses = [
        ip_interface((subnet.prefix.network_address + 2 + number, subnet.prefix.prefixlen))
        for subnet in network.subnets
    ]
    return EndpointWant(
        id=f"e{network_number}{number}".ljust(12, "0"),
        network_id=network.id,
        sandbox_id=sandbox.id,
        host_interface=f"veth{draw(st.sampled_from(['a', 'b']))}{network_number}{number}",
        interface=f"eth{network_number}",
        mac=mac_of(addresses[0].ip),
        addresses=tuple(addresses),
        gateways=tuple(subnet.gateway.ip for subnet in network.subnets if subnet.gateway is not None),
        is_default_gateway=network_number == 0,
        routes=(RouteWant(IPv4Network("192.0.2.0/24"), None),)
        if network_number == 1 and draw(st.booleans())
        else (),
        altname=f"dari-ep-{network_number}{number}",
    )


@st.composite
def desireds(draw: DrawFn, drivers: Sequence[str] = DRIVERS) -> Desired:
    """Up to three networks, four sandboxes, any of the sandboxes on any of the networks."""
    some_networks = {n: draw(networks(n, drivers)) for n in range(NETWORKS) if draw(st.booleans())}
    some_sandboxes = {n: draw(sandboxes(n)) for n in range(SANDBOXES) if draw(st.booleans())}
    some_endpoints = [
        draw(endpoints(network, n, sandbox, s))
        for n, network in some_networks.items()
        for s, sandbox in some_sandboxes.items()
        if draw(st.booleans())
    ]
    return Desired(tuple(some_networks.values()), tuple(some_endpoints), tuple(some_sandboxes.values()))


def prefixes() -> SearchStrategy[IPv4Network]:
    """IPv4 prefixes in 10/8 and 172.16/12, so that they meet often."""
    return st.builds(
        lambda second, third, length: IPv4Network(
            (int(IPv4Address(f"172.{second}.{third}.0")), length), strict=False
        ),
        st.integers(16, 31),
        st.integers(0, 255),
        st.integers(12, 24),
    )
