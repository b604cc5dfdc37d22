"""Ranges of published ports as the kernel's arithmetic: each host port lands on its own container port."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dari.net.desired import PublishWant
from dari.net.publish import blocks, covers, joined, open_elements, publish_elements, published

A, A6 = ip_address("172.18.0.2"), ip_address("fd00::2")
ANY, ANY6 = ip_address("0.0.0.0"), ip_address("::")


@st.composite
def ranges(draw):
    """First host port, first container port, count."""
    count = draw(st.one_of(st.integers(1, 70), st.integers(1, 65535)))
    first, container = (draw(st.integers(1, 65536 - count)) for _ in range(2))
    return first, container, count


@given(ranges())
def test_every_port_of_a_range_keeps_its_distance(case):
    first, container, count = case
    made = list(blocks(first, container, count))
    at = first
    for each in made:
        assert each.first == at and each.first <= each.last
        assert 0 <= each.low <= each.high <= 65535
        for port in {each.first, (each.first + each.last) // 2, each.last}:
            assert each.container_port(port) == port - first + container
        at = each.last + 1
    assert at == first + count


def test_a_range_is_one_block_unless_it_moves_far_down():
    assert len(list(blocks(20000, 20000, 10000))) == 1
    assert len(list(blocks(20000, 40000, 10000))) == 1
    assert len(list(blocks(40000, 20000, 10000))) == 1
    assert len(list(blocks(1024, 1, 60000))) == 6


@pytest.mark.parametrize(
    ("want", "texts"),
    [
        (PublishWant("tcp", ANY, 8080, A, 80), ["publish_any4 tcp . 8080 : 172.18.0.2 . 80"]),
        (
            PublishWant("udp", ip_address("192.0.2.1"), 53, A, 53),
            ["publish4 udp . 192.0.2.1 . 53 : 172.18.0.2 . 53"],
        ),
        (
            PublishWant("tcp", ANY, 8000, A, 9000, count=100),
            ["publish_range4 tcp . 0.0.0.0/0 . 8000-8099 : 172.18.0.2 . 1000-9099"],
        ),
        (
            PublishWant("sctp", ANY6, 8000, A6, 8000, count=2),
            ["publish_range6 sctp . ::/0 . 8000-8001 : fd00::2 . 0-65535"],
        ),
    ],
)
def test_elements_and_what_they_say(want, texts):
    made = list(publish_elements(want))
    assert [f"{each.set} {each.element} : {each.value}" for each in made] == texts
    found = published(made[0])
    assert found is not None
    assert (found.protocol, found.host_ip, found.target) == (want.protocol, want.host_ip, want.target)
    last = want.host_port + want.count - 1
    assert (found.first, found.last) == (want.host_port, last)
    assert found.goes_to(last) == (want.target, want.container_port + want.count - 1)
    host = (
        want.host_ip
        if not want.host_ip.is_unspecified
        else ip_address("192.0.2.9" if want.target == A else "fd00::9")
    )
    assert covers(found, host, last) and not covers(found, host, last + 1)


def test_families_do_not_mix():
    with pytest.raises(ValueError, match="different address families"):
        list(publish_elements(PublishWant("tcp", ANY6, 80, A, 80)))


def test_open_ports_do_not_overlap():
    wants = [
        PublishWant("tcp", ANY, 8080, A, 80),
        PublishWant("tcp", ANY, 9080, A, 81, count=4),
        PublishWant("tcp", ANY6, 8080, A, 80),
        PublishWant("udp", ANY, 8080, A, 80),
    ]
    assert sorted(each.element for each in open_elements(wants)) == [
        "172.18.0.2 . tcp . 80-84",
        "172.18.0.2 . udp . 80",
    ]


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9))))
def test_joined_spans_hold_the_same_numbers(pairs):
    spans = [(first, first + width) for first, width in pairs]
    made = joined(spans)
    numbers = lambda each: {number for first, last in each for number in range(first, last + 1)}  # noqa: E731
    assert numbers(made) == numbers(spans)
    assert all(one[1] + 1 < two[0] for one, two in pairwise(made))
