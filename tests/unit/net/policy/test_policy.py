"""Policies: their text, and what a receiver's table holds for them."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dari.net.desired import Flow, PolicyWant
from dari.net.policy import Peer, Policy, Receiver, Rule, compiled, disjoint, objects, parse
from dari.net.state import NftElement

EVERY = Rule("allow", ("web",)).ports
WEB = ip_address("172.18.0.2")
WORKER = ip_address("172.18.0.3")
FAR = ip_address("172.19.0.9")
GATEWAY = ip_address("172.18.0.1")
SHOP = ip_network("172.18.0.0/16")
RECEIVER = Receiver(
    frozenset(("db", "shop-db-1")),
    {"shop": "eth0", "other": "eth1"},
    {"shop": (SHOP,), "other": (ip_network("172.19.0.0/16"),)},
    {"shop": (GATEWAY,), "other": ()},
)
PEERS = (
    Peer("shop", frozenset(("web", "shop-web-1")), (WEB,)),
    Peer("shop", frozenset(("worker",)), (WORKER,)),
    Peer("other", frozenset(("web",)), (FAR,)),
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", Policy()),
        ("deny", Policy("deny")),
        ("allow web", Policy(None, (Rule("allow", ("web",)),))),
        ("deny; allow web,worker 5432",
         Policy("deny", (Rule("allow", ("web", "worker"), (), (("tcp", 5432, 5432),)),))),
        ("allow any 53/udp,8000-8010",
         Policy(None, (Rule("allow", ("any",), (), (("udp", 53, 53), ("tcp", 8000, 8010))),))),
        ("deny 192.0.2.0/24\nallow network:back 1", Policy(None, (
            Rule("deny", ("192.0.2.0/24",)), Rule("allow", ("network:back",), (), (("tcp", 1, 1),))))),
        ("allow host icmp", Policy(None, (Rule("allow", ("host",), (), (("icmp", 0, 65535), ("58", 0, 65535))),))),
    ],
)  # fmt: skip
def test_texts(text: str, wanted: Policy) -> None:
    assert parse(text) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("permit web", "begin with allow or deny"),
        ("deny; allow", "the default is said twice"),
        ("allow web 99999", "no range of ports"),
        ("allow web 80-70", "no range of ports"),
        ("allow web http", "is no port"),
        ("allow web 80, 443", "without blanks"),
        ("allow we$b 80", "is no name"),
        ("allow 10.0.0.1/8", "host bits set"),
        ("allow web to db 80", "leave 'to' out"),
    ],
)
def test_wrong_texts(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        parse(text)


def test_a_networks_text_may_say_to_whom() -> None:
    assert parse("allow web to db 5432", has_targets=True).rules[0].targets == ("db",)
    with pytest.raises(ValueError, match="say whom"):
        parse("allow web to", has_targets=True)


def want(own: str | None = None, **networks: str) -> PolicyWant | None:
    policies = {name: parse(text, has_targets=True) for name, text in networks.items()}
    return compiled(parse(own) if own is not None else None, policies, RECEIVER, PEERS)


def test_nobody_says_anything() -> None:
    assert want() is None


def test_names_are_addresses_on_all_networks_of_the_receiver() -> None:
    found = want("deny; allow web 5432")
    assert found is not None
    assert found.closed == ("eth0", "eth1")
    assert found.allow == tuple(Flow(ip_network(each), "tcp", 5432, 5432) for each in (WEB, FAR))
    assert found.deny == ()
    assert want("deny; allow nobody") == PolicyWant(inner=found.inner, closed=found.closed)


def test_a_networks_policy_is_about_its_own_peers_and_interface() -> None:
    found = want(shop="deny; allow web 80; allow worker to cache 80; allow worker to db 81")
    assert found is not None and found.closed == ("eth0",)
    assert found.allow == (
        Flow(ip_network(WEB), "tcp", 80, 80),
        Flow(ip_network(WORKER), "tcp", 81, 81),
    )
    mixed = want("allow", shop="deny")
    assert mixed is not None and mixed.closed == ()


def test_words_for_those_who_are_no_container() -> None:
    found = want("allow host 22; allow outside 80,81; deny any 23; allow network:shop 1; deny outside icmp")
    assert found is not None
    assert found.outside_allow == (("tcp", 80, 81),)
    assert found.outside_deny == (("58", 0, 65535), ("icmp", 0, 65535))
    assert Flow(ip_network(GATEWAY), "tcp", 22, 22) in found.allow
    assert Flow(SHOP, "tcp", 1, 1) in found.allow
    assert {each.prefix for each in found.deny} == {ip_network("0.0.0.0/0"), ip_network("::/0")}


def test_elements_are_as_nft_lists_them() -> None:
    found = want("deny; allow web 5432; allow outside 8000-8010")
    assert found is not None
    texts = {(each.set, each.element) for each in objects("box", found) if isinstance(each, NftElement)}
    assert texts == {
        ("allow4", "172.18.0.2 . tcp . 5432"),
        ("allow4", "172.19.0.9 . tcp . 5432"),
        ("outside_allow", "tcp . 8000-8010"),
        ("inner4", "172.18.0.0/16"),
        ("inner4", "172.19.0.0/16"),
        ("closed", '"eth0"'),
        ("closed", '"eth1"'),
    }


PREFIXES = st.builds(
    lambda number, length: IPv4Network((number & (0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF, length)),
    st.sampled_from([0x0A000000, 0x0A000001, 0x0A000100, 0x0A800000, 0xC0000201]),
    st.sampled_from([0, 8, 9, 24, 31, 32]),
)
FLOWS = st.builds(
    lambda prefix, protocol, low, size: Flow(prefix, protocol, low, low + size),
    PREFIXES,
    st.sampled_from(["tcp", "udp"]),
    st.integers(0, 12),
    st.integers(0, 6),
)


def holds(flows: tuple[Flow, ...] | list[Flow], address: IPv4Address, protocol: str, port: int) -> int:
    return sum(
        address in each.prefix and each.protocol == protocol and each.low <= port <= each.high
        for each in flows
    )


@settings(deadline=None)
@given(st.lists(FLOWS, max_size=8))
def test_disjoint_flows_say_the_same(flows: list[Flow]) -> None:
    found = disjoint(flows)
    for address in map(IPv4Address, (0x0A000000, 0x0A000001, 0x0A000101, 0x0A800001, 0xC0000201, 1)):
        for protocol in ("tcp", "udp"):
            for port in range(20):
                count = holds(found, address, protocol, port)
                assert count == min(1, holds(flows, address, protocol, port))
