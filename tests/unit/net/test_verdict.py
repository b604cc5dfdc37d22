"""Rules against packets: what each kind of expression says, and what is said where one is not understood."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from dari.net.nftvalues import Flight
from dari.net.state import HOST, Address, NftElement, NftTable
from dari.net.verdict import Outcome, Ruleset

PACKET = Flight(
    ip_address("10.0.0.2"), ip_address("192.0.2.7"), "tcp", 40000, 80, "br0", "wan", ct_state="new",
    original=(ip_address("10.0.0.2"), 40000, ip_address("198.51.100.1"), 8080),
)  # fmt: skip
SIX = replace(PACKET, source=ip_address("fd00::2"), destination=ip_address("2001:db8::7"))
UDP = replace(PACKET, protocol="udp", port=53)
PING = replace(PACKET, protocol="icmp", port=40000)


class Ground:
    """A host with 192.0.2.1 on wan, by which everything is reached."""

    def address_type(self, address: Address, link: str) -> str:
        is_own = str(address) == "192.0.2.1" and link in ("", "wan")
        return "local" if is_own else "unicast"

    def link_towards(self, address: Address) -> str:
        return "br0" if str(address).startswith("10.") else "wan"

    def masquerade_address(self, flight: Flight) -> Address | None:
        return ip_address("192.0.2.1") if flight.out_link == "wan" else None


def ruled(*rules: str, kind: str = "filter", policy: str = "accept", sets: str = "") -> Ruleset:
    lines = "\n".join(f"\t\t{rule}" for rule in rules)
    text = (
        f"table inet t {{\n{sets}\tchain sub {{\n\t\ttcp dport 22 drop\n\t\ttcp dport 23 accept\n\t}}\n\n"
        f"\tchain c {{\n\t\ttype {kind} hook forward priority filter; policy {policy};\n{lines}\n\t}}\n}}\n"
    )
    return Ruleset([NftTable(HOST, "inet", "t", text)], [])


def run(packet: Flight, *rules: str, kind: str = "filter", policy: str = "accept", sets: str = "") -> Outcome:
    return ruled(*rules, kind=kind, policy=policy, sets=sets).run("forward", packet, Ground())


@pytest.mark.parametrize(
    ("match", "packet", "is_met"),
    [
        ('iifname "br0"', PACKET, True),
        ('iifname "br*"', PACKET, True),
        ('iifname != "br0"', PACKET, False),
        ('iif "wan"', PACKET, False),
        ('oifname { "wan", "lan" }', PACKET, True),
        ("ip saddr 10.0.0.0/8", PACKET, True),
        ("ip saddr 10.0.0.3-10.0.0.9", PACKET, False),
        ("ip saddr != 10.0.0.3", PACKET, True),
        ("ip saddr != 10.0.0.3", SIX, False),
        ("ip6 saddr fd00::/64", SIX, True),
        ("ip6 saddr fd00::/64", PACKET, False),
        ("ip saddr . tcp dport { 10.0.0.2 . 81, 10.0.0.0/8 . 79-80 }", PACKET, True),
        ("ip saddr . tcp dport { 10.0.0.2 . 81 }", PACKET, False),
        ("tcp dport 80", PACKET, True),
        ("tcp dport 80", UDP, False),
        ("udp dport { 53, 5353 }", UDP, True),
        ("th dport 53", UDP, True),
        ("th dport 80", PING, False),
        ("tcp dport >= 80", PACKET, True),
        ("tcp dport < 80", PACKET, False),
        ("meta l4proto tcp", PACKET, True),
        ("meta l4proto { 17, 58 }", UDP, True),
        ("meta l4proto ipv6-icmp", replace(SIX, protocol="icmp"), True),
        ("ip protocol icmp", PING, True),
        ("icmp type echo-request", PING, True),
        ("icmp type echo-reply", PING, False),
        ("icmpv6 type echo-request", PING, False),
        ("meta nfproto ipv6", SIX, True),
        ("ct state established,related", PACKET, False),
        ("ct state { new, invalid }", PACKET, True),
        ("ct state invalid", replace(PACKET, ct_state=""), True),
        ("ct status dnat", replace(PACKET, ct_status=frozenset({"dnat"})), True),
        ("ct status dnat", PACKET, False),
        ("ct direction original", PACKET, True),
        ("ct original ip daddr 198.51.100.1", PACKET, True),
        ("ct original proto-dst 8080", PACKET, True),
        ("meta mark & 0xff == 0x1", replace(PACKET, mark=0x101), True),
        ("meta mark 0x1", PACKET, False),
        ("fib daddr type local", PACKET, False),
        ("fib daddr type local", replace(PACKET, destination=ip_address("192.0.2.1")), True),
        ("fib daddr . iif type local", replace(PACKET, destination=ip_address("192.0.2.1")), False),
        ("fib saddr . iif oif missing", PACKET, False),
        ("fib saddr . iif oif missing", replace(PACKET, in_link="wan"), True),
        ("tcp flags syn", PACKET, True),
    ],
)  # fmt: skip
def test_matches(match: str, packet: Flight, is_met: bool) -> None:
    assert run(packet, f"{match} drop").kind == ("drop" if is_met else "accept")


def test_chains_and_ends() -> None:
    ssh, telnet = replace(PACKET, port=22), replace(PACKET, port=23)
    for word in ("jump", "goto"):
        assert run(ssh, f"{word} sub", "accept").kind == "drop"
        assert run(telnet, f"{word} sub", "drop").kind == "accept"
    # Who was jumped to comes back, who was gone to does not.
    assert run(PACKET, "jump sub", "drop").kind == "drop"
    assert run(PACKET, "goto sub", "drop").kind == "accept"
    assert run(PACKET, "goto sub", policy="drop").kind == "drop"
    assert run(PACKET, "return", policy="drop").kind == "drop"
    assert run(PACKET, "continue", "drop").kind == "drop"
    found = run(PACKET, "tcp dport 80 counter reject with tcp reset")
    assert (found.kind, found.how, found.chain) == ("reject", "tcp reset", "c")
    assert run(ssh, "tcp dport vmap { 22 : jump sub, 80 : drop }").kind == "drop"
    assert run(PACKET, "jump nowhere").kind == "unknown"


def test_a_later_table_has_its_say() -> None:
    texts = [
        f"table inet {name} {{\n\tchain c {{\n\t\ttype filter hook forward priority {at}; policy accept;\n"
        f"\t\t{rule}\n\t}}\n}}\n"
        for name, at, rule in (
            ("second", "10", "tcp dport 80 drop"),
            ("first", "-10", "meta mark set 0x9 accept"),
        )
    ]
    tables = [NftTable(HOST, "inet", text.split()[2], text) for text in texts]
    found = Ruleset(tables, []).run("forward", PACKET, Ground())
    assert (found.kind, found.table, found.flight.mark) == ("drop", tables[0].key, 9)
    # The part of a hook before connection tracking.
    assert Ruleset(tables, []).run("forward", PACKET, Ground(), last=0).kind == "accept"


def test_a_family_has_its_packets_alone() -> None:
    text = "table ip6 t {\n\tchain c {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n"
    rules = Ruleset([NftTable(HOST, "ip6", "t", text)], [])
    assert rules.run("forward", PACKET, Ground()).kind == "accept"
    found = rules.run("forward", SIX, Ground())
    assert (found.kind, found.rule) == ("drop", "policy drop")


@pytest.mark.parametrize(
    ("rule", "destination", "port", "source"),
    [
        ("dnat to 10.0.0.9:8080", "10.0.0.9", 8080, "10.0.0.2"),
        ("dnat to :8080", "192.0.2.7", 8080, "10.0.0.2"),
        ("dnat to 10.0.0.9", "10.0.0.9", 80, "10.0.0.2"),
        ("dnat to 10.0.0.9:70-90", "10.0.0.9", 80, "10.0.0.2"),
        ("dnat ip6 to fd00::9", "192.0.2.7", 80, "10.0.0.2"),
        ("dnat ip to meta l4proto . th dport map { tcp . 80 : 10.0.0.9 . 81 }", "10.0.0.9", 81, "10.0.0.2"),
        ("dnat ip to meta l4proto . th dport map { udp . 80 : 10.0.0.9 . 81 }", "192.0.2.7", 80, "10.0.0.2"),
        ("dnat to numgen inc mod 2 map { 0 : 10.0.0.8, 1 : 10.0.0.9 }", "10.0.0.8", 80, "10.0.0.2"),
        ("redirect to :3128", "192.0.2.1", 3128, "10.0.0.2"),
        ("masquerade", "192.0.2.7", 80, "192.0.2.1"),
        ("snat to 192.0.2.99", "192.0.2.7", 80, "192.0.2.99"),
    ],
)
def test_nat(rule: str, destination: str, port: int, source: str) -> None:
    found = run(PACKET, rule, kind="nat").flight
    assert (str(found.destination), found.port, str(found.source)) == (destination, port, source)
    untouched = ruled(rule, kind="nat").run("forward", PACKET, Ground(), is_nat_done=True).flight
    assert untouched == PACKET


@pytest.mark.parametrize(
    ("rule", "packet", "ports"),
    [
        ("tcp dport set 81", PACKET, (PACKET.source_port, 81)),
        ("tcp sport set 53", PACKET, (53, 80)),
        ("th dport set 81", PACKET, (PACKET.source_port, 81)),
        ("udp dport set 81", PACKET, (PACKET.source_port, 80)),
        ("th dport set 81", PING, (PING.source_port, PING.port)),
    ],
)
def test_ports_written_into_packets(rule: str, packet: Flight, ports: tuple[int, int]) -> None:
    """The rules behind see them; nothing is translated, so `ct status` says nothing of it."""
    rules = ruled(f"{rule}", "ct status dnat drop", "tcp dport 9 drop", kind="filter")
    found = rules.run("forward", packet, Ground())
    assert (found.kind, found.flight.source_port, found.flight.port) == ("accept", *ports)
    assert found.port_rule == (rule if found.flight != packet else "")
    assert found.nat_rule == ""
    assert run(packet, "tcp dport set 9", "tcp dport 9 drop").kind == (
        "drop" if packet.protocol == "tcp" else "accept"
    )


def test_a_later_chain_of_the_hook_sees_what_was_given() -> None:
    text = (
        "table inet t {\n\tchain n {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n"
        "\t\ttcp dport 80 dnat ip to 10.0.0.9:81\n\t}\n\n"
        "\tchain f {\n\t\ttype filter hook prerouting priority filter; policy drop;\n"
        "\t\tct status dnat tcp dport 81 accept\n\t}\n}\n"
    )
    rules = Ruleset([NftTable(HOST, "inet", "t", text)], [])
    assert rules.run("prerouting", PACKET, Ground()).kind == "accept"
    assert rules.run("prerouting", replace(PACKET, port=81), Ground()).kind == "drop"


def test_ipv6_nat() -> None:
    found = run(SIX, "dnat to [fd00::9]:8080", kind="nat").flight
    assert (str(found.destination), found.port) == ("fd00::9", 8080)


def test_elements_of_the_state_and_their_keys() -> None:
    table = NftTable(
        HOST, "inet", "dari",
        "table inet dari {\n\tset open4 {\n\t\ttype ipv4_addr . inet_proto . inet_service\n\t\tflags interval\n\t}\n\n"
        "\tchain c {\n\t\ttype filter hook forward priority filter; policy drop;\n"
        "\t\tip daddr . meta l4proto . th dport @open4 accept\n\t}\n}\n",
    )  # fmt: skip
    element = NftElement(HOST, "inet", "dari", "open4", "192.0.2.7 . tcp . 80-90")
    found = Ruleset([table], [element]).run("forward", PACKET, Ground())
    assert found.kind == "accept"
    assert set(found.uses) == {element.key, table.key}
    assert Ruleset([table], [element]).run("forward", replace(PACKET, port=91), Ground()).kind == "drop"
    assert Ruleset([table], []).run("forward", PACKET, Ground()).kind == "drop"


def test_what_is_not_understood_matters_only_where_it_could() -> None:
    strange = 'xt match "recent"'
    # Both ways end the same.
    assert run(PACKET, f"{strange} drop", "drop").kind == "drop"
    assert run(PACKET, f"{strange} counter accept").kind == "accept"
    assert run(PACKET, f"{strange} jump sub", "accept").kind == "accept"
    assert run(replace(PACKET, port=22), f"{strange} jump sub", "tcp dport 22 drop").kind == "drop"
    # They do not.
    found = run(PACKET, f"{strange} drop")
    assert (found.kind, found.rule) == ("unknown", f"{strange} drop")
    assert run(PACKET, f"{strange} accept", policy="drop").kind == "unknown"
    assert run(PACKET, "queue to 3").kind == "unknown"
    # It never comes to it.
    assert run(PACKET, "tcp dport 81 queue to 3").kind == "accept"
    assert run(PACKET, "tcp dport 80 accept", "queue to 3").kind == "accept"
    # Many of them are not walked for ever.
    assert run(PACKET, *[f"{strange} jump sub"] * 400, "drop").kind in ("unknown", "drop")


def test_a_table_that_is_no_text() -> None:
    rules = Ruleset([NftTable(HOST, "inet", "t", "")], [])
    assert rules.broken == [("nft-table", HOST, "inet", "t")]
    assert rules.has_rules
