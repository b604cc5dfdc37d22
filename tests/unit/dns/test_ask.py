"""Questions and answers read back, against the responder's own answers and against nonsense."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from dari.dns import answer, ask, wire
from dari.dns.zone import Addresses, View, Zone

ZONE = Zone("n1", "shop", names={"db": Addresses(("172.18.0.2", "172.18.0.3"), ("fd00::2",))})
VIEW = View("s1", "/netns", 61053, networks=("n1",))
TABLE = answer.compile_view(VIEW, {"n1": answer.compile_zone(ZONE)})


def asked(name: str, qtype: int) -> ask.Reply | None:
    query = ask.query(name, qtype, 7)
    assert query is not None
    told = answer.answer(TABLE, query)
    assert isinstance(told, bytes) and told[:2] == b"\0\7"
    return ask.read(told)


def test_a_name_has_its_addresses() -> None:
    found = asked("db", wire.TYPE_A)
    assert found is not None and found.rcode == 0
    assert set(found.addresses) == {ip_address("172.18.0.2"), ip_address("172.18.0.3")}
    assert asked("DB.", wire.TYPE_AAAA) == ask.Reply(0, (ip_address("fd00::2"),))


def test_nobody_of_that_name() -> None:
    assert asked("nobody", wire.TYPE_A) == ask.Reply(3, ())


def test_names_dns_cannot_carry() -> None:
    assert ask.query("a" * 64, wire.TYPE_A, 1) is None
    assert ask.query("", wire.TYPE_A, 1) is None


def test_a_question_is_no_answer() -> None:
    query = ask.query("db", wire.TYPE_A, 1)
    assert query is not None and ask.read(query) is None


@given(st.binary(max_size=200))
def test_no_bytes_crash_it(data: bytes) -> None:
    ask.read(data)
    ask.read(b"\0\1\x81\x80" + data)
