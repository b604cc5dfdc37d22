"""Which subnet a network gets, which address an endpoint gets, and what a user may ask for."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies import prefixes

from dari.model.config import DEFAULT_POOLS, Pool
from dari.model.errors import Forbidden, Internal, InvalidArgument, NotFound
from dari.model.network import Subnet
from dari.net.ipam import (
    allocation,
    check_subnet,
    mac_of,
    pick_address,
    pick_gateway,
    pick_lease,
    pick_subnet,
)

NET = IPv4Network("172.18.0.0/16")
GATEWAY = IPv4Address("172.18.0.1")


def test_the_lowest_free_address_comes_first():
    assert pick_address(NET, (), gateway=GATEWAY) == IPv4Address("172.18.0.2")
    taken = {IPv4Address("172.18.0.2"), IPv4Address("172.18.0.4")}
    assert pick_address(NET, taken, gateway=GATEWAY) == IPv4Address("172.18.0.3")


def test_serial_allocation_goes_on_behind_the_last_and_wraps():
    small = IPv4Network("10.0.0.0/29")
    last = IPv4Address("10.0.0.5")
    assert pick_address(small, (), gateway=IPv4Address("10.0.0.1"), start_after=last) == IPv4Address(
        "10.0.0.6"
    )
    taken = {IPv4Address("10.0.0.6")}
    assert pick_address(small, taken, gateway=IPv4Address("10.0.0.1"), start_after=last) == IPv4Address(
        "10.0.0.2"
    )


@pytest.mark.parametrize(
    ("subnet", "addresses"),
    [
        ("10.0.0.0/29", 6),
        ("10.0.0.0/30", 2),
        ("10.0.0.0/31", 2),
        ("10.0.0.0/32", 1),
        ("fd00::/125", 7),
    ],
)
def test_every_address_once_and_then_none(subnet, addresses):
    prefix, taken = ip_network(subnet), set()
    for _ in range(addresses):
        taken.add(pick_address(prefix, taken))
    assert len(taken) == addresses
    assert all(each in prefix for each in taken)
    with pytest.raises(
        Internal, match=r"no available IPv\d addresses on this network's address pools: web \(id\)"
    ):
        pick_address(prefix, taken, network="web (id)")


@settings(deadline=None)
@given(
    st.sets(st.integers(1, 254)),
    st.integers(1, 254),
    st.integers(24, 29),
    st.sets(st.integers(1, 254), max_size=5),
)
def test_leases_never_collide(taken, gateway, range_length, aux):
    prefix = IPv4Network("10.0.0.0/24")
    address = {number: IPv4Address(f"10.0.0.{number}") for number in range(256)}
    ip_range = IPv4Network((int(address[64]), range_length), strict=False)
    held = {address[number] for number in taken}
    reserved = {address[number] for number in aux}
    try:
        found = pick_address(prefix, held, gateway=address[gateway], ip_range=ip_range, aux=reserved)
    except Internal:
        usable = {each for each in ip_range if each not in (address[0], address[255])}
        assert usable <= held | reserved | {address[gateway]}
        return
    assert found in ip_range
    assert found not in held | reserved | {address[gateway], address[0], address[255]}


def test_an_address_that_was_asked_for():
    want = IPv4Address("172.18.7.7")
    in_range = IPv4Network("172.18.0.0/24")
    assert pick_address(NET, (), want=want, ip_range=in_range) == want
    with pytest.raises(Forbidden, match="Address already in use"):
        pick_address(NET, {want}, want=want)
    with pytest.raises(Forbidden, match="Address already in use"):
        pick_address(NET, (), want=GATEWAY, gateway=GATEWAY)
    with pytest.raises(
        InvalidArgument,
        match=r"invalid address 10.0.0.1: it does not belong to any of this network's subnets",
    ):
        pick_address(NET, (), want=IPv4Address("10.0.0.1"))
    with pytest.raises(InvalidArgument, match="network or broadcast"):
        pick_address(NET, (), want=IPv4Address("172.18.255.255"))


def test_a_gateway_is_the_lowest_address_of_its_range():
    assert pick_gateway(NET) == GATEWAY
    assert pick_gateway(ip_network("fd00::/64")) == IPv6Address("fd00::1")
    assert pick_gateway(NET, IPv4Network("172.18.5.0/24")) == IPv4Address("172.18.5.0")


def test_the_hardware_address_follows_the_address():
    assert mac_of(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"


def test_the_first_pool_that_meets_neither_network_nor_route():
    taken = {IPv4Network("172.17.0.0/16"): "bridge"}
    routes = [IPv4Network("0.0.0.0/0"), IPv4Network("172.18.4.0/24"), IPv4Network("172.19.255.255/32")]
    assert pick_subnet(DEFAULT_POOLS, taken, routes) == IPv4Network("172.20.0.0/16")


def test_thirty_one_networks_then_who_holds_what():
    taken: dict[IPv4Network, str] = {}
    for number in range(31):
        taken[pick_subnet(DEFAULT_POOLS, taken, ())] = f"net{number}"
    assert len(taken) == 31
    with pytest.raises(
        NotFound,
        match="could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the "
        r"network \(networks: net0 172.17.0.0/16, .*; routes of the host: 192.168.1.0/24\)",
    ):
        pick_subnet(DEFAULT_POOLS, taken, [IPv4Network("192.168.1.0/24")])


@settings(deadline=None)
@given(st.sets(prefixes(), max_size=12), st.sets(prefixes(), max_size=12))
def test_a_picked_subnet_overlaps_nothing(networks, routes):
    pools = [Pool(base="172.16.0.0/12", size=24)]
    taken = dict.fromkeys(networks, "net")
    try:
        found = pick_subnet(pools, taken, routes)
    except NotFound:
        whole = range(int(IPv4Address("172.16.0.0")), int(IPv4Address("172.32.0.0")), 256)
        assert all(
            any(IPv4Network((start, 24)).overlaps(each) for each in (*networks, *routes)) for start in whole
        )
        return
    assert found.prefixlen == 24
    assert found.subnet_of(IPv4Network("172.16.0.0/12"))
    assert not any(found.overlaps(each) for each in (*networks, *routes))


def test_a_pool_cannot_be_cut_larger_than_itself():
    with pytest.raises(InvalidArgument, match=r"invalid address pool 10\.0\.0\.0/16 size 8"):
        pick_subnet([Pool(base="10.0.0.0/16", size=8)], {}, ())


def test_a_users_subnet():
    checked = check_subnet(
        Subnet(
            subnet="10.5.0.0/16", gateway="10.5.5.254", ip_range="10.5.5.0/24", aux={"router": "10.5.5.0"}
        ),
        {ip_network("10.6.0.0/16"): "other"},
    )
    assert str(checked.gateway_interface) == "10.5.5.254/16"
    assert pick_lease(checked, ()) == ip_address("10.5.5.1")


@pytest.mark.parametrize(
    ("subnet", "text"),
    [
        (Subnet(subnet="10.5.0.0"), "invalid subnet 10.5.0.0: invalid CIDR block notation"),
        (Subnet(subnet="10.5.0.0/99"), "invalid subnet 10.5.0.0/99: invalid CIDR block notation"),
        (Subnet(subnet="10.5.1.5/16"), "invalid subnet 10.5.1.5/16: it should be 10.5.0.0/16"),
        (Subnet(subnet="0.0.0.0/0"), "covers every address"),
        (
            Subnet(subnet="127.5.0.0/16"),
            "invalid subnet 127.5.0.0/16: 127.0.0.0/8 is for a host's talk to itself",
        ),
        (Subnet(subnet="224.0.1.0/24"), "invalid subnet 224.0.1.0/24: 224.0.0.0/4 is for multicast"),
        (Subnet(subnet="::/64"), "::1/128 is for a host's talk to itself"),
        (Subnet(subnet="ff02::/64"), "ff00::/8 is for multicast"),
        (
            Subnet(subnet="10.5.0.0/16", gateway="10.6.0.1"),
            "invalid gateway 10.6.0.1: parent subnet 10.5.0.0/16 doesn't contain this address",
        ),
        (
            Subnet(subnet="10.5.0.0/16", gateway="fd00::1"),
            "invalid gateway fd00::1: parent subnet is an IPv4 block",
        ),
        (Subnet(subnet="10.5.0.0/16", gateway="x"), "invalid gateway x: invalid address"),
        (
            Subnet(subnet="10.5.0.0/16", ip_range="10.6.0.0/24"),
            "invalid ip-range 10.6.0.0/24: parent subnet 10.5.0.0/16 doesn't contain ip-range",
        ),
        (
            Subnet(subnet="10.5.0.0/16", ip_range="10.0.0.0/8"),
            "invalid ip-range 10.0.0.0/8: CIDR block is bigger than its parent subnet 10.5.0.0/16",
        ),
        (
            Subnet(subnet="10.5.0.0/16", ip_range="10.5.1.1/24"),
            "invalid ip-range 10.5.1.1/24: it should be 10.5.1.0/24",
        ),
        (Subnet(subnet="10.5.0.0/16", aux={"a": "10.6.0.9"}), "invalid auxiliary address 10.6.0.9"),
    ],
)
def test_a_users_subnet_that_does_not_fit(subnet, text):
    with pytest.raises(InvalidArgument) as caught:
        check_subnet(subnet, {})
    assert text in caught.value.message


def test_an_overlap_names_the_other_network():
    with pytest.raises(Forbidden) as caught:
        check_subnet(Subnet(subnet="10.5.3.0/24"), {ip_network("10.5.0.0/16"): "shop_default"})
    assert caught.value.message == (
        "invalid pool request: Pool overlaps with other one on this address space: 10.5.3.0/24 overlaps 10.5.0.0/16"
        " of network shop_default"
    )


@settings(deadline=None)
@given(st.sets(st.integers(1, 254)), st.integers(1, 254), st.integers(24, 29))
def test_how_full_a_subnet_is_agrees_with_what_can_be_given(taken, gateway, range_length):
    """What is counted as available can be given one by one, and then nothing is."""
    prefix = IPv4Network("10.0.0.0/24")
    ip_range = str(IPv4Network((int(IPv4Address("10.0.0.64")), range_length), strict=False))
    subnet = check_subnet(
        Subnet(
            subnet=str(prefix), gateway=f"10.0.0.{gateway}", ip_range=ip_range if range_length > 24 else ""
        ),
        {},
    )
    held = {IPv4Address(f"10.0.0.{number}") for number in taken}
    before = allocation(subnet, held)
    assert before.in_use == len(held | {subnet.gateway}) + 2
    for left in range(before.available, 0, -1):
        assert allocation(subnet, held).available == left
        held.add(pick_lease(subnet, held))
    assert allocation(subnet, held).available == 0
    with pytest.raises(Internal):
        pick_lease(subnet, held)


def test_how_full_large_and_small_subnets_are():
    def of(text: str) -> tuple[int, int]:
        found = allocation(check_subnet(Subnet(subnet=text), {}), ())
        return found.in_use, found.available

    assert of("10.0.0.0/31") == (0, 2) and of("10.0.0.0/32") == (0, 1) and of("10.0.0.0/30") == (2, 2)
    assert of("fd00::/64") == (1, (1 << 64) - 1) and of("fd00::/48") == (1, (1 << 64) - 1)
