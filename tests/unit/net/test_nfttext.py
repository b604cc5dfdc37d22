"""The text of tables: ours understood to the last rule, others' as far as it goes and never beyond."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies import desireds

from dari.net import nfttext, policy
from dari.net.facts import HostFacts
from dari.net.firewall import host_table
from dari.net.nfttext import Ends, Fact, Mapping, Match, Nat, SetMark, SetPort, Unknown, Values, VerdictMap
from dari.net.render import render
from dari.net.state import NftTable
from dari.net.verdict import not_understood


def lines_of(text: str) -> list[str]:
    """The rules of a listing, found without the parser."""
    found, depth = [], ""
    for line in text.splitlines():
        word = line.strip()
        if word.startswith(("chain ", "set ", "map ")):
            depth = word.partition(" ")[0]
        elif word == "}":
            depth = ""
        elif depth == "chain" and word and not word.startswith("type "):
            found.append(word)
    return found


@settings(deadline=None)
@given(desireds(), st.sampled_from([None, (1, 0xFF)]))
def test_every_rule_of_our_tables_is_understood(desired: object, mark: tuple[int, int] | None) -> None:
    """A new rule in firewall.py that the walk cannot follow fails here."""
    state = render(desired, HostFacts())  # type: ignore[arg-type]
    for each in [
        host_table(mark),
        NftTable("box", "inet", "dari", policy.TABLE_TEXT),
        *(one for one in state if isinstance(one, NftTable)),
    ]:
        table = nfttext.parse(each.text)
        # But for the kernel's word that nobody listens, which has a packet in it: no question is one.
        errors = "icmp type destination-unreachable icmp code port-unreachable @th,"
        assert [text for text in not_understood(table) if not text.startswith(errors)] == []
        rules = [rule.text for chain in table.chains.values() for rule in chain.rules]
        assert rules == lines_of(each.text)
        for chain in table.chains.values():
            for rule in chain.rules:
                targets = [part.chain for part in rule.parts if isinstance(part, Ends) and part.chain]
                assert all(target in table.chains for target in targets)


def test_hooks_and_priorities() -> None:
    table = nfttext.parse(host_table().text)
    hooks = {name: (each.kind, each.hook, each.priority) for name, each in table.chains.items() if each.hook}
    assert hooks == {
        "raw": ("filter", "prerouting", -300),
        "prerouting": ("nat", "prerouting", -100),
        "output": ("nat", "output", -100),
        "postrouting": ("nat", "postrouting", 100),
        "forward": ("filter", "forward", -10),
    }
    assert not any(each.is_dropping for each in table.chains.values())


STRANGER = """\
table ip filter {
	set blocked {
		type ipv4_addr
		flags interval
		elements = { 10.0.0.0/8, 192.0.2.1,
				198.51.100.7-198.51.100.9 }
	}

	map ports {
		type inet_service : verdict
		elements = { 22 : accept, 80 : jump web }
	}

	chain FORWARD {
		type filter hook forward priority filter; policy drop;
		counter packets 12 bytes 720 jump DOCKER-USER
		oifname "docker0" ct state related,established counter packets 0 bytes 0 accept
		ip saddr @blocked counter drop comment "the list"
		tcp dport vmap @ports
	}

	chain DOCKER-USER {
		meta mark & 0x08000000 == 0x08000000 accept comment "dari"
		counter packets 3 bytes 180 return
	}

	chain web {
		# xt_recent is not printed
		ip saddr 10.0.0.0/8 xt match "recent" counter packets 0 bytes 0 drop
		queue to 3
	}
}
"""


def test_a_strangers_table() -> None:
    table = nfttext.parse(STRANGER)
    assert table.sets["blocked"].elements == (
        ("10.0.0.0/8", ""),
        ("192.0.2.1", ""),
        ("198.51.100.7-198.51.100.9", ""),
    )
    assert table.sets["ports"].elements == (("22", "accept"), ("80", "jump web"))
    forward = table.chains["FORWARD"]
    assert (forward.hook, forward.priority, forward.is_dropping) == ("forward", 0, True)
    assert forward.rules[0].parts == (Ends("jump", "DOCKER-USER"),)
    assert not_understood(table) == [
        'ip saddr 10.0.0.0/8 xt match "recent" counter packets 0 bytes 0 drop',
        "queue to 3",
    ]
    # What is not understood keeps the verdict behind it.
    assert table.chains["web"].rules[0].parts[-1] == Unknown(
        'xt match "recent" counter packets 0 bytes 0 drop', Ends("drop")
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("drop", (Ends("drop"),)),
        ("reject with tcp reset", (Ends("reject", how="tcp reset"),)),
        ("reject with icmpx admin-prohibited", (Ends("reject", how="icmpx admin-prohibited"),)),
        ('iifname != "lo" drop', (Match((Fact("iifname"),), "!=", Values(('"lo"',))), Ends("drop"))),
        ("tcp dport { 80, 443 } accept",
         (Match((Fact("tcp dport"),), "==", Values(("80", "443"))), Ends("accept"))),
        ("ip daddr . tcp dport @open accept",
         (Match((Fact("ip daddr"), Fact("tcp dport")), "==", Values(name="open")), Ends("accept"))),
        ("ct state established,related accept",
         (Match((Fact("ct state"),), "==", Values(("established", "related"))), Ends("accept"))),
        ("meta mark set meta mark | 0x1 accept", (SetMark((("|", "0x1"),)), Ends("accept"))),
        ("meta mark set 0x7", (SetMark(value="0x7"),)),
        ("ct mark set 0x7 accept", (SetMark(), Ends("accept"))),
        ("udp dport 53 udp dport set 61053",
         (Match((Fact("udp dport"),), "==", Values(("53",))), SetPort("udp dport", 61053))),
        ("th sport set 53 accept", (SetPort("th sport", 53), Ends("accept"))),
        ("ip daddr set 10.0.0.1", (Unknown("ip daddr set 10.0.0.1"),)),
        ("@th,240,16 set 0x35", (Unknown("@th,240,16 set 0x35"),)),
        ("dnat to 10.0.0.2:80", (Nat("dnat", to="10.0.0.2:80"),)),
        ("dnat ip to meta l4proto . th dport map @ports",
         (Nat("dnat", "ip", mapping=Mapping((Fact("meta l4proto"), Fact("th dport")), name="ports")),)),
        ("dnat ip addr . port to tcp dport map { 80 : 10.0.0.2 . 8080 }",
         (Nat("dnat", "ip", mapping=Mapping((Fact("tcp dport"),), (("80", "10.0.0.2 . 8080"),))),)),
        ("dnat to numgen random mod 2 map { 0 : 10.0.0.2, 1 : 10.0.0.3 }",
         (Nat("dnat", mapping=Mapping((Fact("numgen random mod 2"),), (("0", "10.0.0.2"), ("1", "10.0.0.3")))),)),
        ("masquerade fully-random", (Nat("masquerade"),)),
        ("redirect to :3128", (Nat("redirect", to=":3128"),)),
        ("ip daddr vmap { 10.0.0.1 : drop, 10.0.0.2 : jump web }",
         (VerdictMap(Mapping((Fact("ip daddr"),), (("10.0.0.1", "drop"), ("10.0.0.2", "jump web")))),)),
        ('log prefix "no, never " level info limit rate 3/second burst 5 packets counter', ()),
        ("tcp flags syn tcp option maxseg size set rt mtu",
         (Match((Fact("tcp flags"),), "==", Values(("syn",))),)),
        ("fib saddr . iif oif missing drop",
         (Match((Fact("fib saddr . iif oif"),), "==", Values(("missing",))), Ends("drop"))),
        ("ct original ip daddr 10.0.0.1 accept",
         (Match((Fact("ct original ip daddr"),), "==", Values(("10.0.0.1",))), Ends("accept"))),
        ("limit rate over 3/second drop", (Unknown("limit rate over 3/second drop", Ends("drop")),)),
        ("flow add @fast", (Unknown("flow add @fast"),)),
    ],
)  # fmt: skip
def test_rules(text: str, parts: tuple[object, ...]) -> None:
    assert nfttext.rule(text).parts == parts


@settings(deadline=None)
@given(st.text(alphabet='ip daddrtc{}:.,@"-/0129=!&|\n\t', max_size=60))
def test_no_rule_makes_it_fall(text: str) -> None:
    """Whatever a rule says, it is a rule, at worst one that is not understood."""
    assert nfttext.rule(text).text == text


def test_no_table() -> None:
    for text in ("", "chain x {", "table", "\n"):
        with pytest.raises(ValueError, match="no nftables table"):
            nfttext.parse(text)
