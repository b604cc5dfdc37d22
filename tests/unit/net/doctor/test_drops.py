"""Which rules of others' firewalls drop packets of dari's networks."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from dari.net.drops import Packet, drops

WEB = [
    Packet("web", is_entering, frozenset(("br-web", "veth1")), (ip_network("172.18.0.0/16"),))
    for is_entering in (False, True)
]


def table(
    rules: str, *, hook: str = "forward", more: str = "", policy: str = "accept", device: str = ""
) -> str:
    lines = "".join(
        f"\t\t{line} # handle {number}\n" for number, line in enumerate(rules.splitlines(), 5) if line
    )
    return (
        f"table ip t {{ # handle 1\n\tchain c {{ # handle 2\n"
        f"\t\ttype filter hook {hook}{device} priority filter; policy {policy};\n{lines}\t}}\n{more}}}\n"
    )


def found(text: str, family: str = "ip") -> list[str]:
    return [each.rule for each in drops(family, "t", text, WEB)]


@pytest.mark.parametrize(
    "rule",
    [
        "drop",
        "counter packets 0 bytes 0 drop",
        'iifname "br-web" drop',
        'iifname "br-*" tcp dport 80 drop',
        'oifname { "eth9", "br-web" } reject with icmp port-unreachable',
        "ip saddr 172.18.0.0/16 drop",
        "ip daddr 172.18.0.2 tcp dport 80 counter drop",
        "ip daddr 172.18.0.1-172.18.0.9 drop",
        'iifname != "lo" drop',
        'ip saddr 172.18.0.7 xt target "REJECT"',
        'ip daddr 172.18.0.2 log prefix "no" drop',
    ],
)
def test_it_drops_ours(rule: str) -> None:
    assert found(table(rule)) == [rule]


@pytest.mark.parametrize(
    "rule",
    [
        "accept",
        'iifname "docker0" drop',
        'iifname "docker0" oifname != "docker0" drop',
        'iifname != "docker0" oifname "docker0" drop',
        "ip saddr 10.0.0.0/8 drop",
        "ip daddr 192.0.2.7 drop",
        "ct state invalid drop",
        "tcp dport 25 drop",
        "ip saddr @banned drop",
        "meta mark 0x1 drop",
    ],
)
def test_it_drops_others(rule: str) -> None:
    assert found(table(rule)) == []


def test_what_is_accepted_before_is_not_dropped() -> None:
    assert found(table('iifname "br-web" accept\noifname "br-web" accept\ndrop')) == []
    assert found(table('iifname "br-web" accept\ndrop')) == ["drop"]
    assert found(table('iifname "br-web" tcp dport 80 accept\noifname "br-web" accept\ndrop')) == ["drop"]


def test_jumps_are_followed_with_their_conditions() -> None:
    more = "\tchain deny { # handle 3\n\t\tcounter packets 1 bytes 2 drop # handle 9\n\t}\n"
    assert found(table('iifname "br-web" jump deny', more=more)) == ["counter packets 1 bytes 2 drop"]
    assert found(table('iifname "eth0" oifname "eth1" jump deny', more=more)) == []
    back = "\tchain deny { # handle 3\n\t\treturn # handle 8\n\t\tdrop # handle 9\n\t}\n"
    assert found(table("jump deny", more=back)) == []
    circle = "\tchain deny { # handle 3\n\t\tjump deny # handle 8\n\t}\n"
    assert found(table("jump deny", more=circle)) == []


def test_a_table_that_knows_our_mark_may_drop_the_rest() -> None:
    rules = "meta mark & 0x08000000 == 0x08000000 accept\ndrop"
    assert found(table(rules)) == []


def test_firewalld_knows_us_by_a_zone() -> None:
    text = table('iifname "lo" accept\nreject with icmpx admin-prohibited')
    zone = text.replace("table ip t {", "table ip t {\n\tchain filter_FWD_dari {\n\t\taccept\n\t}\n")
    assert [each.rule for each in drops("inet", "firewalld", text, WEB)] == [
        "reject with icmpx admin-prohibited"
    ]
    assert drops("inet", "firewalld", zone, WEB) == []
    assert drops("inet", "other", zone, WEB) != []


def test_before_routing_only_what_names_us_counts() -> None:
    assert found(table("drop", hook="prerouting")) == []
    assert found(table("ip daddr 172.18.0.2 drop", hook="prerouting")) == ["ip daddr 172.18.0.2 drop"]
    assert found(table('iifname "br-web" drop', hook="input")) == ['iifname "br-web" drop']


def test_ingress_of_one_of_our_interfaces() -> None:
    assert found(table("drop", hook="ingress", device=' device "veth1"'), "netdev") == ["drop"]
    assert found(table("drop", hook="ingress", device=' device "eth0"'), "netdev") == []


def test_what_it_tells() -> None:
    (drop,) = drops("inet", "t", table("counter packets 0 bytes 0 drop"), WEB)
    assert (drop.chain, drop.hook, drop.networks, drop.handle) == ("inet t c", "forward", ("web",), "5")


def test_in_a_sandbox_every_drop_counts() -> None:
    own = [Packet("", False, frozenset(), ())]
    text = table("tcp dport 80 drop\nct state invalid drop", hook="input", policy="drop")
    rules = [each.rule for each in drops("ip", "t", text, own, is_sandbox=True)]
    assert rules == ["policy drop", "tcp dport 80 drop"]
