"""The label `dari.dns`: what it may say, and what is said about what it may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dari.discovery.own_records import parse
from dari.dns.zone import Addresses, Srv


def test_every_type() -> None:
    text = """{"Old-DB.": {"cname": "db"}, "*.dev": {"A": ["10.0.0.5", "10.0.0.6"], "AAAA": "FD00::1"},
        "site": {"TXT": "v=1"}, "_ldap._tcp": {"SRV": "0 5 389 ldap.example.com."}}"""
    assert parse(text) == {
        "old-db": Addresses(cname="db"),
        "*.dev": Addresses(("10.0.0.5", "10.0.0.6"), ("fd00::1",)),
        "site": Addresses(txt=("v=1",)),
        "_ldap._tcp": Addresses(srv=(Srv("", 389, "ldap.example.com", 5, "", 0),)),
    }
    assert parse("") == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ('{"a b": {"A": "10.0.0.1"}}', "invalid name 'a b'"),
        ('{"*": {"A": "10.0.0.1"}}', "invalid name"),
        ('{"x": {}}', "x: expected types"),
        ('{"x": {"MX": "y"}}', "x: MX is not known"),
        ('{"x": {"A": "fd00::1"}}', "x: A: 'fd00::1' is no IPv4 address"),
        ('{"x": {"A": 1}}', "x: A: expected text"),
        ('{"x": {"CNAME": ["a", "b"]}}', "x: a name has one CNAME"),
        ('{"x": {"CNAME": "a", "TXT": "t"}}', "nothing else"),
        ('{"x": {"SRV": "0 0 99999 y"}}', "PRIORITY WEIGHT PORT TARGET"),
    ],
)
def test_what_is_wrong_is_named(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(text)


@given(st.text(max_size=80))
def test_any_text_is_records_or_a_value_error(text: str) -> None:
    try:
        parse(text)
    except ValueError:
        return
