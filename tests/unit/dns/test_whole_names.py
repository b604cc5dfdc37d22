"""SRV, TXT, CNAME, wildcards, projects: names that are more than addresses. dnspython reads the answers."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
from hypothesis import given, settings
from hypothesis import strategies as st

from dari.dns import wire
from dari.dns.answer import Forward, ViewTable, answer, compile_view, compile_zone
from dari.dns.zone import Addresses, Srv, View, Zone

SHOP = Zone(
    "n1",
    "shared",
    names={
        "web": Addresses(
            ("172.18.0.2", "172.18.0.3"),
            srv=(
                Srv("tcp", 80, "shop-web-1.shared", 1, "http"),
                Srv("tcp", 80, "blog-web-1.shared", 5, "http"),
            ),
            txt=("tag=blue", "x" * 300),
        ),
        "shop-web-1.shared": Addresses(("172.18.0.2",), ("fd00::2",)),
        "_own._tcp": Addresses(srv=(Srv("", 80, "shop-web-1.shared", 1, "", 0),)),
        "*.web": Addresses(("172.18.0.9",)),
        "exact.web": Addresses(("172.18.0.10",)),
        "*.deep.web": Addresses(("172.18.0.11",)),
        "old": Addresses(cname="web"),
        "far": Addresses(cname="db.example.com"),
        "ring": Addresses(cname="ring2"),
        "ring2": Addresses(cname="ring"),
        "_ldap._tcp": Addresses(srv=(Srv("", 389, "ldap.example.com", 5, "", 1),)),
    },
    projects={
        "web.shop": Addresses(("172.18.0.2",)),
        "web.blog": Addresses(("172.18.0.3",)),
    },
    subnets=("172.18.0.0/16",),
    ptr={"172.18.0.2": "shop-web-1.shared"},
)
OWN = Zone(
    "n2", "own", names={"db": Addresses(("10.0.0.1",))}, projects={"db.shop": Addresses(("10.0.0.2",))}
)
FIRST = Zone("n0", "first_net", names={"db": Addresses(("10.0.0.3",))})


def table(**changes: object) -> ViewTable:
    view = View("s1", "/netns", 53, ("n0", "n1", "n2"), upstreams=("192.0.2.1",))
    zones = {each.network_id: compile_zone(each) for each in (FIRST, SHOP, OWN)}
    return compile_view(view._replace(**changes), zones)  # type: ignore[arg-type]


def ask(name: str, rtype: str = "A", **changes: object) -> list[str]:
    """The records of an answer as text, sorted; the rcode where there are none."""
    query = dns.message.make_query(name, rtype)
    result = answer(table(**changes), query.to_wire())
    assert isinstance(result, bytes), result
    message = dns.message.from_wire(result)
    assert query.is_response(message)
    found = sorted(line for rrset in message.answer for line in rrset.to_text().splitlines())
    return found or [dns.rcode.to_text(message.rcode())]


def test_a_port_is_found_by_number_and_by_name() -> None:
    both = ["0 1 80 shop-web-1.shared.", "0 5 80 blog-web-1.shared."]
    for name in ("_80._tcp.web", "_http._tcp.web", "_HTTP._TCP.Web"):
        assert [line.split(" SRV ")[1] for line in ask(name, "SRV")] == both
    assert ask("_80._udp.web", "SRV") == ["NXDOMAIN"]
    assert ask("_81._tcp.web", "SRV") == ["NXDOMAIN"]
    assert ask("_80._tcp.web", "A") == ["NOERROR"]
    assert isinstance(
        answer(table(), dns.message.make_query("_80._tcp.nobody.example", "SRV").to_wire()), Forward
    )


def additional(
    name: str, rtype: str = "SRV", size: int = 1232, over_tcp: bool = False
) -> tuple[list[str], bool]:
    """The additional section as text, and whether the answer is truncated."""
    query = dns.message.make_query(name, rtype, use_edns=0, payload=size)
    result = answer(table(), query.to_wire(), over_tcp=over_tcp)
    assert isinstance(result, bytes) and len(result) <= size
    message = dns.message.from_wire(result)
    found = sorted(line for rrset in message.additional for line in rrset.to_text().splitlines())
    return found, bool(message.flags & dns.flags.TC)


def test_the_targets_addresses_come_along() -> None:
    known = ["shop-web-1.shared. 0 IN A 172.18.0.2", "shop-web-1.shared. 0 IN AAAA fd00::2"]
    for is_tcp in (False, True):
        # Twice: the second answer is one that was kept.
        for _ in range(2):
            assert additional("_80._tcp.web", over_tcp=is_tcp) == (known, False)
    assert additional("_80._tcp.web", "ANY") == (known, False)
    # A target that is not ours has none, and neither has what is no SRV record.
    assert additional("_ldap._tcp") == ([], False)
    assert additional("_own._tcp") == (known, False)
    assert additional("web", "A") == ([], False)
    assert additional("_81._tcp.web") == ([], False)


def test_addresses_that_do_not_fit_are_left_out_in_silence() -> None:
    many = {f"t{number}.net": Addresses((f"10.0.0.{number}",)) for number in range(1, 13)}
    targets = tuple(Srv("tcp", 80, name, 1, "http") for name in many)
    zone = compile_zone(Zone("n", "net", names={"web": Addresses(("10.0.0.1",), srv=targets), **many}))
    view = compile_view(View("s", "/netns", 53, ("n",)), {"n": zone})
    query = dns.message.make_query("_80._tcp.web", "SRV", use_edns=False)
    result = answer(view, query.to_wire())
    assert isinstance(result, bytes) and len(result) <= 512
    message = dns.message.from_wire(result)
    assert sum(map(len, message.answer)) == 12
    assert 0 < len(message.additional) < 12
    assert not message.flags & dns.flags.TC


def test_other_types_of_a_known_name() -> None:
    assert ask("web", "MX") == ["NOERROR"]
    assert ask("web", "SRV") == ["NOERROR"]
    assert [line.split(" TXT ")[1] for line in ask("web", "TXT")] == [
        '"tag=blue"',
        '"' + "x" * 255 + '" "' + "x" * 45 + '"',
    ]
    assert len(ask("web", "ANY")) == 4
    assert ask("_ldap._tcp", "SRV") == ["_ldap._tcp. 0 IN SRV 1 5 389 ldap.example.com."]


def test_a_wildcard_stands_for_what_is_not_there() -> None:
    assert ask("any.web") == ["any.web. 0 IN A 172.18.0.9"]
    assert ask("a.b.web") == ["a.b.web. 0 IN A 172.18.0.9"]
    assert ask("exact.web") == ["exact.web. 0 IN A 172.18.0.10"]
    assert ask("x.deep.web") == ["x.deep.web. 0 IN A 172.18.0.11"]
    assert len(ask("web")) == 2  # a wildcard says nothing about the name above it
    assert ask("any.web", "AAAA") == ["NOERROR"]


def test_the_own_project_comes_first() -> None:
    assert ask("web", project="shop") == ["web. 0 IN A 172.18.0.2"]
    assert ask("web", project="blog") == ["web. 0 IN A 172.18.0.3"]
    assert len(ask("web", project="other")) == 2
    assert len(ask("web")) == 2
    assert ask("web.blog", project="shop") == ["web.blog. 0 IN A 172.18.0.3"]
    assert ask("db") == ["db. 0 IN A 10.0.0.3"]
    # On any of its networks, not only on the first one.
    assert ask("db", project="shop") == ["db. 0 IN A 10.0.0.2"]


def test_a_cname_leads_to_names_of_ours() -> None:
    found = ask("old")
    assert found[0] == "old. 0 IN CNAME web."
    assert found[1:] == ["web. 0 IN A 172.18.0.2", "web. 0 IN A 172.18.0.3"]
    assert ask("old", "CNAME") == ["old. 0 IN CNAME web."]
    assert ask("ring") == ["SERVFAIL"]
    assert ask("far", is_internal_only=True) == ["far. 0 IN CNAME db.example.com."]


def test_a_cname_leads_outside() -> None:
    query = dns.message.make_query("far", "A").to_wire()
    found = answer(table(), query)
    assert isinstance(found, Forward)
    assert found.target == wire.wire_name("db.example.com")
    told = dns.message.make_response(dns.message.make_query("db.example.com", "A"))
    told.answer.append(dns.rrset.from_text("db.example.com.", 60, "IN", "CNAME", "db1.example.com."))
    told.answer.append(dns.rrset.from_text("db1.example.com.", 60, "IN", "A", "192.0.2.7"))
    whole = dns.message.from_wire(wire.spliced(told.to_wire(), query, found.question_end, list(found.chain)))
    assert dns.message.from_wire(query).is_response(whole)
    assert [rrset.to_text() for rrset in whole.answer] == [
        "far. 0 IN CNAME db.example.com.",
        "db.example.com. 60 IN CNAME db1.example.com.",
        "db1.example.com. 60 IN A 192.0.2.7",
    ]


def test_names_of_networks_that_can_be_nobody_elses_stay_here() -> None:
    assert ask("gone.first_net") == ["NXDOMAIN"]
    for name in ("gone.shared", "gone.own", "gone"):  # `own` could be a top-level domain
        assert isinstance(answer(table(), dns.message.make_query(name, "A").to_wire()), Forward)
    assert ask("gone.my-shop", project="my-shop") == ["NXDOMAIN"]


def test_the_hosts_domain_stands_behind_names() -> None:
    domain = {"domain": "dari.internal"}
    assert ask("db.first_net.dari.internal", **domain) == ["NXDOMAIN"]
    assert ask("db.dari.internal", **domain) == ["db.dari.internal. 0 IN A 10.0.0.3"]
    assert ask("web.blog.dari.internal", **domain) == ["web.blog.dari.internal. 0 IN A 172.18.0.3"]
    assert ask("nobody.dari.internal", **domain) == ["NXDOMAIN"]
    assert ask("gone.first_net", **domain) == ["NXDOMAIN"]
    assert ask("example.com", **domain) == ["REFUSED"]  # a resolver asks its next server
    assert ask("2.0.18.172.in-addr.arpa", "PTR", **domain)[0].endswith("PTR shop-web-1.shared.dari.internal.")


KNOWN = [
    *b"_80 _tcp _udp * web old far ring deep shop dari internal in-addr arpa 1".split(),
    *(b"\xff\xfe", b"\0", b"_" + b"9" * 62),
]
LABELS = st.lists(st.sampled_from(KNOWN) | st.binary(min_size=1, max_size=63), max_size=6)
QTYPES = st.sampled_from([1, 5, 12, 15, 16, 28, 33, 64, 255])


@given(
    LABELS,
    QTYPES,
    st.booleans(),
    st.sampled_from(["", "shop", "*", "\udcff"]),
    st.sampled_from(["", "dari.internal"]),
)
@settings(max_examples=500, deadline=None)
def test_no_name_crashes_it(
    labels: list[bytes], qtype: int, over_tcp: bool, project: str, domain: str
) -> None:
    name = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    query = b"\xab\xcd\1\0\0\1\0\0\0\0\0\0" + name + qtype.to_bytes(2, "big") + b"\0\1"
    result = answer(table(project=project, domain=domain), query, over_tcp=over_tcp)
    if isinstance(result, Forward):
        assert result.target == b"" or result.target.endswith(b"\0")
    elif len(name) > 255:
        assert result is not None
        assert result[3] & 15 == wire.FORMERR
    else:
        assert result is not None
        assert dns.message.from_wire(query).is_response(dns.message.from_wire(result))


@given(st.binary(max_size=300), st.integers(0, 300))
@settings(max_examples=500, deadline=None)
def test_no_upstreams_answer_crashes_a_cname(tail: bytes, cut: int) -> None:
    """What comes from outside is believed no further than it parses."""
    query = dns.message.make_query("far", "A").to_wire()
    found = answer(table(), query)
    assert isinstance(found, Forward)
    question = found.target + b"\0\1\0\1"
    told = b"\xab\xcd\x81\x80\0\1\0\5\0\0\0\0" + question + tail[:cut]
    made = wire.spliced(told, query, found.question_end, list(found.chain))
    assert made[:2] == query[:2]
    assert made[6] << 8 | made[7] >= 1  # the CNAME itself stays
