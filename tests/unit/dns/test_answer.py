"""The answer table, judged by dnspython as an independent reader and writer of DNS messages."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dari.dns.answer import Forward, ViewTable, answer, compile_view, compile_zone, failure
from dari.dns.zone import Addresses, View, Zone

WEB = Zone(
    "n1",
    "web",
    subnets=("172.18.0.0/16", "fd00:1::/64"),
    names={
        "db": Addresses(("172.18.0.2",)),
        "db.web": Addresses(("172.18.0.2",)),
        "v6": Addresses((), ("fd00:1::6",)),
        "many": Addresses(tuple(f"172.18.1.{n}" for n in range(1, 101))),
        "pair": Addresses(("172.18.0.2", "172.18.0.3"), ("fd00:1::2", "fd00:1::3")),
        "under_score": Addresses(("172.18.0.7",)),
        "x" * 64: Addresses(("172.18.0.8",)),
        "both": Addresses(("172.18.0.9",)),
    },
    ptr={"172.18.0.2": "db.web", "fd00:1::2": "pair.web"},
)
BACK = Zone(
    "n2",
    "back",
    subnets=("172.19.0.0/16",),
    names={"both": Addresses(("172.19.0.9",), ("fd00:2::9",)), "only": Addresses(("172.19.0.3",))},
    ttl=7,
)


def table(**changes: object) -> ViewTable:
    view = View("s1", "/netns", 53, ("n1", "n2"), upstreams=("192.0.2.1",))
    zones = {"n1": compile_zone(WEB), "n2": compile_zone(BACK)}
    return compile_view(view._replace(**changes), zones)  # type: ignore[arg-type]


def ask(view: ViewTable, name: str, rtype: str = "A", **options: object) -> dns.message.Message | Forward:
    over_tcp = bool(options.pop("over_tcp", False))
    query = dns.message.make_query(name, rtype, **options)  # type: ignore[arg-type]
    result = answer(view, query.to_wire(), over_tcp=over_tcp)
    if isinstance(result, Forward):
        return result
    assert result is not None
    message = dns.message.from_wire(result)
    assert query.is_response(message)
    assert message.flags & dns.flags.RA
    assert bool(message.flags & dns.flags.RD) == bool(query.flags & dns.flags.RD)
    assert (message.edns >= 0) == (query.edns >= 0)
    return message


def addresses(message: dns.message.Message | Forward) -> list[str]:
    assert isinstance(message, dns.message.Message)
    assert message.rcode() == dns.rcode.NOERROR
    return [item.to_text() for rrset in message.answer for item in rrset]


@pytest.mark.parametrize(
    ("name", "rtype", "expected"),
    [
        ("db", "A", ["172.18.0.2"]),
        ("DB", "A", ["172.18.0.2"]),
        ("db.web", "A", ["172.18.0.2"]),
        ("v6", "AAAA", ["fd00:1::6"]),
        ("under_score", "A", ["172.18.0.7"]),
        ("only", "A", ["172.19.0.3"]),
        ("both", "A", ["172.18.0.9"]),  # the first network answers
        ("both", "AAAA", ["fd00:2::9"]),  # the first that has the family
        ("db", "ANY", ["172.18.0.2"]),
        ("db", "AAAA", []),
        ("v6", "A", []),
        ("db", "MX", []),
        ("db", "SRV", []),
        ("db", "TXT", []),
        ("db", "HTTPS", []),
    ],
)
def test_known_names(name: str, rtype: str, expected: list[str]) -> None:
    view = table()
    for _ in range(2):  # built, then ready-made
        assert addresses(ask(view, name, rtype)) == expected


def test_ttl_is_the_zones() -> None:
    message = ask(table(), "only")
    assert isinstance(message, dns.message.Message)
    assert message.answer[0].ttl == 7


@pytest.mark.parametrize(
    ("changes", "name", "fallback"),
    [
        ({}, "gone", dns.rcode.NXDOMAIN),
        ({}, "gone.web", dns.rcode.NXDOMAIN),
        ({}, "gone.back", dns.rcode.NXDOMAIN),
        ({}, "gone.cobweb", dns.rcode.SERVFAIL),
        ({}, "example.com", dns.rcode.SERVFAIL),
        ({"forward_single_label": False}, "example.com", dns.rcode.SERVFAIL),
        ({}, "x" * 63, dns.rcode.NXDOMAIN),
    ],
)
def test_unknown_names_are_forwarded(changes: dict[str, object], name: str, fallback: int) -> None:
    result = ask(table(**changes), name)
    assert isinstance(result, Forward)
    assert result.fallback == fallback


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"is_internal_only": True}, "example.com"),
        ({"is_internal_only": True}, "gone"),
        ({"upstreams": ()}, "gone"),
        ({"upstreams": ()}, "example.com"),
        ({"forward_single_label": False}, "gone"),
    ],
)
def test_unknown_names_that_are_not_forwarded(changes: dict[str, object], name: str) -> None:
    message = ask(table(**changes), name)
    assert isinstance(message, dns.message.Message)
    assert message.rcode() == dns.rcode.NXDOMAIN
    assert not message.answer


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("172.18.0.2", "db.web."),
        ("fd00:1::2", "pair.web."),
        ("172.18.0.77", None),
        ("fd00:1::77", None),
        ("172.19.255.255", None),
    ],
)
def test_reverse(address: str, expected: str | None) -> None:
    message = ask(table(), dns.reversename.from_address(address).to_text(), "PTR")
    if expected is not None:
        assert addresses(message) == [expected]
    else:
        assert isinstance(message, dns.message.Message)
        assert message.rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize(
    "name",
    ["8.8.8.8.in-addr.arpa", "172.in-addr.arpa", "300.0.18.172.in-addr.arpa", "x.ip6.arpa", "db.example"],
)
def test_other_reverse_names_are_forwarded(name: str) -> None:
    assert isinstance(ask(table(), name, "PTR"), Forward)


def test_links_are_seen_first_and_by_this_view_alone() -> None:
    linked = table(links={"DB": ("10.0.0.1", "fd00:9::1"), "alias": "only"})
    assert addresses(ask(linked, "db")) == ["10.0.0.1"]
    assert addresses(ask(linked, "db", "AAAA")) == ["fd00:9::1"]
    assert addresses(ask(linked, "alias")) == ["172.19.0.3"]
    assert isinstance(ask(table(), "alias"), Forward)


def test_link_to_a_stopped_target_is_unknown() -> None:
    assert isinstance(ask(table(links={"alias": "gone"}), "alias"), Forward)


def test_addresses_take_turns() -> None:
    zones = {"n1": compile_zone(WEB._replace(order="round-robin"))}
    view = compile_view(View("s1", "/netns", 53, ("n1",)), zones)
    firsts = []
    for _ in range(8):
        firsts.append(addresses(ask(view, "pair"))[0])
        ask(view, "pair", "AAAA")  # as every getaddrinfo does: it must not use up the turns
    assert set(firsts) == {"172.18.0.2", "172.18.0.3"}
    assert firsts.count("172.18.0.2") == 4


def test_addresses_are_shuffled_where_nothing_is_said() -> None:
    firsts = {addresses(ask(table(), "many", over_tcp=True))[0] for _ in range(100)}
    assert len(firsts) > 20  # one of a hundred each: fewer than 20 different ones have no chance worth naming


def test_weights_decide_who_comes_first() -> None:
    heavy = (("10.0.0.1", 0), ("10.0.0.3", 50))
    zone = Zone(
        "n1",
        "web",
        names={"w": Addresses(("10.0.0.1", "10.0.0.2", "10.0.0.3"), weights=heavy)},
        order="weighted",
    )
    view = compile_view(View("s1", "/netns", 53, ("n1",)), {"n1": compile_zone(zone)})
    asked = [addresses(ask(view, "w", over_tcp=True)) for _ in range(200)]
    assert all(each[-1] == "10.0.0.1" for each in asked)  # weight 0: only where there are no others
    assert sum(each[0] == "10.0.0.3" for each in asked) > 150  # 196 expected


@pytest.mark.parametrize(("payload", "size"), [(None, 512), (1232, 1232), (100, 512)])
def test_udp_answers_are_cut_to_what_the_asker_takes(payload: int | None, size: int) -> None:
    options = {} if payload is None else {"use_edns": 0, "payload": payload}
    query = dns.message.make_query("many", "A", **options)  # type: ignore[arg-type]
    result = answer(table(), query.to_wire())
    assert isinstance(result, bytes)
    assert size - 16 < len(result) <= size
    message = dns.message.from_wire(result)
    assert message.flags & dns.flags.TC
    assert len(addresses(message)) > 20


def test_tcp_answers_are_whole() -> None:
    message = ask(table(), "many", over_tcp=True)
    assert len(addresses(message)) == 100
    assert isinstance(message, dns.message.Message)
    assert not message.flags & dns.flags.TC


def test_the_askers_spelling_comes_back() -> None:
    message = ask(table(), "dB.WeB")
    assert isinstance(message, dns.message.Message)
    assert message.question[0].name.to_text() == "dB.WeB."


def test_edns_do_bit_is_kept_and_options_are_not() -> None:
    query = dns.message.make_query("db", "A", use_edns=0, want_dnssec=True)
    message = ask(table(), "db", use_edns=0, want_dnssec=True)
    assert isinstance(message, dns.message.Message)
    assert query.ednsflags == message.ednsflags
    assert message.options == ()


def test_answers_with_options_do_not_fill_the_table() -> None:
    view = table()
    for number in range(5):
        cookie = dns.edns.GenericOption(10, number.to_bytes(8, "big"))
        ask(view, "db", use_edns=0, options=[cookie])
    assert not view.ready


def test_the_table_of_answers_is_bounded() -> None:
    view = table()
    for number in range(3000):
        query = dns.message.make_query("db", "A")
        query.question[0].rdtype = dns.rdatatype.RdataType.make(number % 65000 + 256)
        answer(view, query.to_wire())
    assert 0 < len(view.ready) <= 1024


def test_refusals() -> None:
    view = table()
    update = dns.message.make_query("db", "A")
    update.set_opcode(dns.opcode.UPDATE)
    chaos = dns.message.make_query("version.bind", "TXT", dns.rdataclass.CH)
    new_edns = dns.message.make_query("db", "A", use_edns=1)
    two = dns.message.make_query("db", "A").to_wire()
    two = two[:4] + b"\0\2" + two[6:] + two[12:]
    pointer = b"\0\1\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1"
    for wire, rcode in (
        (update.to_wire(), dns.rcode.NOTIMP),
        (chaos.to_wire(), dns.rcode.REFUSED),
        (new_edns.to_wire(), dns.rcode.BADVERS),
        (two, dns.rcode.FORMERR),
        (pointer, dns.rcode.FORMERR),
        (b"\0\1\1\0" + bytes(8), dns.rcode.FORMERR),
    ):
        result = answer(view, wire)
        assert isinstance(result, bytes)
        assert dns.message.from_wire(result).rcode() == rcode
        assert result[:2] == wire[:2]


def test_silence() -> None:
    view = table()
    response = dns.message.make_response(dns.message.make_query("db", "A")).to_wire()
    assert answer(view, response) is None
    assert answer(view, b"\0\1\1") is None
    assert answer(view, b"") is None


def test_failure_names_the_question() -> None:
    query = dns.message.make_query("example.com", "A", use_edns=0)
    message = dns.message.from_wire(failure(query.to_wire(), dns.rcode.SERVFAIL))
    assert query.is_response(message)
    assert message.rcode() == dns.rcode.SERVFAIL


def test_a_zone_may_hold_what_dns_cannot_carry() -> None:
    odd = Zone(
        "n",
        "..",
        subnets=("x", "10.0.0.0/99", "10.0.0.0/8"),
        names={"": Addresses(("1.2.3",))},
        ptr={"q": "."},
    )
    view = compile_view(
        View("s", "/n", 53, ("n", "missing"), links={"a..b": ("1.1.1.1",)}), {"n": compile_zone(odd)}
    )
    message = ask(view, "db")
    assert isinstance(message, dns.message.Message)
    assert message.rcode() == dns.rcode.NXDOMAIN


HEADERS = st.binary(min_size=12, max_size=12)
LABELS = st.lists(st.binary(min_size=1, max_size=63), max_size=5)


@st.composite
def near_queries(draw: st.DrawFn) -> bytes:
    """Bytes that come close to being queries, so that the parsers get past their first checks."""
    name = b"".join(bytes((len(label),)) + label for label in draw(LABELS)) + b"\0"
    flags = draw(st.sampled_from([b"\1\0", b"\0\0", b"\1\x20"]))
    counts = draw(
        st.sampled_from([b"\0\1\0\0\0\0\0\0", b"\0\1\0\0\0\0\0\1", b"\0\1\0\1\0\0\0\1", b"\0\2\0\0\0\0\0\0"])
    )
    known = draw(st.sampled_from([name, b"\2db\0", b"\4many\0", b"\4arpa\0", b"\7in-addr\4arpa\0"]))
    rtype = draw(st.sampled_from([b"\0\1", b"\0\x1c", b"\0\x0c", b"\0\xff", b"\0\x29"]))
    tail = draw(st.one_of(st.just(b""), st.just(b"\0\0\x29\x04\xd0" + bytes(6)), st.binary(max_size=40)))
    wire = b"\xab\xcd" + flags + counts + known + rtype + b"\0\1" + tail
    return wire[: draw(st.integers(0, len(wire)))] if draw(st.booleans()) else wire


@given(st.one_of(st.binary(max_size=600), near_queries()), st.booleans())
@settings(max_examples=600, deadline=None)
def test_no_bytes_crash_it(query: bytes, over_tcp: bool) -> None:
    result = answer(table(), query, over_tcp=over_tcp)
    if isinstance(result, bytes):
        assert result[:2] == query[:2]
        assert result[2] & 0x80
        dns.message.from_wire(result, ignore_trailing=False)
        assert over_tcp or len(result) <= 65535
    elif isinstance(result, Forward):
        dns.message.from_wire(failure(query, result.fallback))
