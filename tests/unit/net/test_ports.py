"""Which host port a container's port is published on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dari.model.errors import InvalidArgument, PortInUse
from dari.net.ports import Asked, Taken, join, pair_ranges, parse_range, pick_ports

ANY = ("0.0.0.0",)
EPHEMERAL = (32768, 32771)


def picked(asked, taken=None, refusal=None):
    found = pick_ports(asked, taken or Taken(), EPHEMERAL, refusal)
    return sorted((each.asked.container_port, each.host_port) for each in found)


def test_a_fixed_port_and_the_same_number_for_another_protocol():
    taken = Taken([("tcp", "0.0.0.0", 8080, 8080)])
    assert picked([Asked("udp", 80, ANY, 8080, 8080)], taken) == [(80, 8080)]
    with pytest.raises(PortInUse) as caught:
        picked([Asked("tcp", 80, ANY, 8080, 8080)], taken)
    assert caught.value.message == "Bind for 0.0.0.0:8080 failed: port is already allocated"


@pytest.mark.parametrize(
    ("holder", "address", "is_taken"),
    [
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "::", False),
        ("::", "::1", True),
    ],
)
def test_an_unspecified_address_covers_its_family(holder, address, is_taken):
    taken = Taken([("tcp", holder, 80, 80)])
    assert taken.find("tcp", address, 80, 80) == (80 if is_taken else None)
    assert taken.find("tcp", address, 81, 90) is None
    assert taken.find("tcp", address, 1, 65535) == (80 if is_taken else None)


def test_a_range_gives_its_first_free_port_and_then_says_so():
    taken = Taken([("tcp", "0.0.0.0", 8000, 8000)])
    asked = [Asked("tcp", 80, ANY, 8000, 8001)]
    assert picked(asked, taken) == [(80, 8001)]
    with pytest.raises(PortInUse, match=r"Bind for 0\.0\.0\.0:8000-8001 failed: all ports are allocated"):
        picked(asked, taken)


def test_ephemeral_ports_count_up_and_leave_the_fixed_ones_alone():
    asked = [Asked("tcp", 80, ANY), Asked("tcp", 81, ANY), Asked("tcp", 82, ANY, 32768, 32768)]
    assert picked(asked) == [(80, 32769), (81, 32770), (82, 32768)]


def test_one_port_on_both_families():
    taken = Taken([("tcp", "::", 32768, 32768)])
    assert picked([Asked("tcp", 80, ("0.0.0.0", "::"))], taken) == [(80, 32769)]


def test_somebody_elses_socket_is_passed_over_or_named():
    def refusal(asked, address, port):
        return "address already in use" if port == 32768 else ""

    assert picked([Asked("tcp", 80, ANY)], refusal=refusal) == [(80, 32769)]
    with pytest.raises(PortInUse, match=r"^address already in use$"):
        picked([Asked("tcp", 80, ANY, 32768, 32768)], refusal=refusal)


@given(
    st.lists(
        st.tuples(st.sampled_from(["tcp", "udp"]), st.sampled_from([0, 32768, 32769]), st.integers(0, 3))
    )
)
def test_no_port_is_given_twice(wanted):
    asked = [
        Asked(protocol, number, ANY, first, min(first + width, 32771) if first else 0)
        for number, (protocol, first, width) in enumerate(wanted)
    ]
    try:
        found = pick_ports(asked, Taken(), EPHEMERAL)
    except PortInUse:
        return
    keys = [(each.asked.protocol, each.host_port) for each in found]
    assert len(keys) == len(set(keys)) == len(asked)
    assert all(each.asked.first <= each.host_port <= (each.asked.last or 32771) for each in found)


def test_a_range_is_taken_whole():
    taken = Taken([("tcp", "0.0.0.0", 8050, 8050), ("tcp", "127.0.0.1", 9000, 9099)])
    with pytest.raises(PortInUse, match=r"Bind for 0\.0\.0\.0:8050 failed: port is already allocated"):
        picked([Asked("tcp", 1, ANY, 8000, 8000, 100)], taken)
    with pytest.raises(PortInUse, match=r"Bind for 0\.0\.0\.0:9099 failed"):
        picked([Asked("tcp", 1, ANY, 9099, 9099, 2)], taken)
    assert picked([Asked("udp", 1, ANY, 8000, 8000, 100)], taken) == [(1, 8000)]
    with pytest.raises(PortInUse, match=r"Bind for 0\.0\.0\.0:8099 failed"):
        picked([Asked("udp", 1, ANY, 8099, 8099)], taken)
    assert picked([Asked("udp", 1, ("127.0.0.2",), 8100, 8100)], taken) == [(1, 8100)]


def test_neighbours_are_one_range():
    single = [Asked("tcp", 80 + n, ANY, 8080 + n, 8080 + n) for n in range(500)]
    assert join(reversed(single)) == (Asked("tcp", 80, ANY, 8080, 8080, 500),)
    apart = [
        Asked("tcp", 80, ANY, 8080, 8080),
        Asked("tcp", 82, ANY, 8081, 8081),
        Asked("udp", 81, ANY, 8081, 8081),
        Asked("tcp", 81, ("127.0.0.1",), 8081, 8081),
        Asked("tcp", 81, ANY),
        Asked("tcp", 81, ANY, 8081, 8090),
    ]
    assert sorted(join(apart), key=str) == sorted(apart, key=str)


def test_ranges_in_pairs():
    assert pair_ranges("tcp", (80, 82), (8080, 8082), ANY) == (Asked("tcp", 80, ANY, 8080, 8080, 3),)
    assert pair_ranges("tcp", (80, 80), (8080, 8089), ANY) == (Asked("tcp", 80, ANY, 8080, 8089),)
    assert pair_ranges("udp", (53, 54), (0, 0), ANY) == (Asked("udp", 53, ANY), Asked("udp", 54, ANY))
    assert pair_ranges("tcp", (80, 80), (0, 0), ()) == ()
    with pytest.raises(InvalidArgument, match="80-82 and 8080-8081"):
        pair_ranges("tcp", (80, 82), (8080, 8081), ANY)


@pytest.mark.parametrize("text", ["", "x", "0", "65536", "90-80", "80-", "-80", "1-2-3", "８０"])
def test_what_is_no_port(text):
    with pytest.raises(InvalidArgument):
        parse_range(text)


def test_what_is_a_port():
    assert parse_range("80") == (80, 80)
    assert parse_range("8000-8010") == (8000, 8010)
