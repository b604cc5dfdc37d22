"""Which names exist where."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dari.discovery.records import (
    Link,
    NamedEndpoint,
    NamedNetwork,
    NamedSandbox,
    Port,
    piece,
    records,
    zone,
)
from dari.dns.book import Book
from dari.dns.zone import Addresses, Srv, decode_zone, encode_zone

WEB = NamedNetwork("n1", "web", ("172.18.0.0/16",))
BACK = NamedNetwork("n2", "back", ("172.19.0.0/16",), is_internal=True)
BRIDGE = NamedNetwork("n0", "bridge", ("172.17.0.0/16",), has_names=False)
DB = NamedEndpoint("n1", "s1", "DB", "abcdef012345", "172.18.0.2", "fd00::2", "Box", ("store", "db"))


def test_an_endpoint_has_its_names_plain_and_with_the_network() -> None:
    found = zone(WEB, [DB])
    both = Addresses(("172.18.0.2",), ("fd00::2",))
    plain = ("db", "abcdef012345", "store", "box")
    assert found.names == dict.fromkeys((*plain, *(f"{name}.web" for name in plain)), both)
    assert found.ptr == {"172.18.0.2": "DB.web", "fd00::2": "DB.web"}
    assert found.subnets == ("172.18.0.0/16",)


def test_a_shared_alias_has_all_addresses_in_order() -> None:
    one = NamedEndpoint("n1", "s1", "app-1", "a" * 12, "172.18.0.9", aliases=("app",))
    two = NamedEndpoint("n1", "s2", "app-2", "b" * 12, "172.18.0.3", aliases=("app",))
    found = zone(WEB, [one, two])
    assert found.names["app"] == Addresses(("172.18.0.9", "172.18.0.3"))
    assert found.names["app-2"] == Addresses(("172.18.0.3",))


def test_the_default_bridge_has_no_names() -> None:
    made = records(
        [WEB, BRIDGE],
        [
            DB,
            NamedEndpoint("n0", "s2", "plain", "c" * 12, "172.17.0.2"),
            NamedEndpoint("gone", "s3", "x", "d" * 12),
        ],
        [NamedSandbox("s2", "/netns/s2", 5353, ("n0",))],
    )
    assert list(made.zones) == ["n1"]
    assert made.views["s2"].networks == ()


def test_a_view_keeps_order_links_and_upstreams() -> None:
    sandbox = NamedSandbox(
        "s1",
        "/netns/s1",
        5353,
        ("n2", "n1", "unknown"),
        (Link("MyDb", target="db"), Link("far", addresses=("10.0.0.1",))),
        ("9.9.9.9",),
        "sandbox",
    )
    view = records([WEB, BACK], [], [sandbox]).views["s1"]
    assert view.networks == ("n2", "n1")
    assert view.links == {"mydb": "db", "far": ("10.0.0.1",)}
    assert (view.upstreams, view.upstream_scope, view.port) == (("9.9.9.9",), "sandbox", 5353)
    assert not view.is_internal_only  # one of its networks leads outside


def test_internal_networks_alone_forward_nothing() -> None:
    made = records([BACK], [], [NamedSandbox("s1", "/n", 53, ("n2",)), NamedSandbox("s2", "/n", 53, ())])
    assert made.views["s1"].is_internal_only
    assert not made.views["s2"].is_internal_only
    assert made.zones["n2"].is_internal


_NAMES = st.sampled_from(["db", "DB", "web-1", "store.", 'quo"te', "käse", "", "a.b"])
_ENDPOINTS = st.lists(
    st.builds(
        NamedEndpoint,
        network_id=st.just("n1"),
        sandbox_id=st.just("s1"),
        container_name=_NAMES,
        short_id=st.sampled_from(["abcdef012345", "b" * 12]),
        ipv4=st.sampled_from(["", "172.18.0.2", "172.18.0.3"]),
        ipv6=st.sampled_from(["", "fd00::2"]),
        hostname=_NAMES,
        aliases=st.lists(_NAMES, max_size=2).map(tuple),
    ),
    max_size=5,
)


@given(endpoints=_ENDPOINTS)
def test_pieces_put_together_are_the_zone(endpoints: list[NamedEndpoint]) -> None:
    book = Book(zone(WEB, ()))
    for number, each in enumerate(endpoints):
        book.put(str(number), piece(each, WEB))
    assert decode_zone(book.text()) == decode_zone(encode_zone(zone(WEB, endpoints)))


def test_a_projects_aliases_are_known_with_the_project() -> None:
    one = NamedEndpoint(
        "n1", "s1", "shop-web-1", "a" * 12, "172.18.0.9", "", "", ("web", "a" * 12), project="shop", tags=("blue",),
        ports=(Port(80, "tcp", "http"),), weight=3, own={"old": Addresses(cname="web")},
    )  # fmt: skip
    found = zone(WEB, [one])
    srv = Srv("tcp", 80, "shop-web-1.web", 3, "http")
    entry = Addresses(("172.18.0.9",), (), (srv,), ("tag=blue",), "", (("172.18.0.9", 3),))
    assert found.projects == {"web.shop": entry, "shop-web-1.shop": entry}
    assert found.names["web"] == entry
    assert found.names["old"] == Addresses(cname="web")
    book = Book(zone(WEB, []))
    book.put("s1", piece(one, WEB))
    assert decode_zone(book.text()) == found
