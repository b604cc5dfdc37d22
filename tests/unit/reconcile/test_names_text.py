"""resolv.conf in and out, links, Docker's forms of names."""

from __future__ import annotations

import pytest

from dari.reconcile.names import Resolver, parse_resolv, resolv_text, split_link

HOST = """\
# made by hand
nameserver 127.0.0.53
nameserver 192.0.2.1 # ours
nameserver not-an-address
search a.example b.example
options edns0 ndots:2
"""


def test_parse() -> None:
    found = parse_resolv(HOST)
    assert found == Resolver(("127.0.0.53", "192.0.2.1"), ("a.example", "b.example"), ("edns0", "ndots:2"))


@pytest.mark.parametrize(
    ("found", "is_answered", "text"),
    [
        (Resolver(("192.0.2.1",)), True, "nameserver 127.0.0.11\noptions ndots:0\n"),
        (
            Resolver(("192.0.2.1",), ("x",), ("ndots:2",)),
            True,
            "nameserver 127.0.0.11\nsearch x\noptions ndots:2\n",
        ),
        (Resolver(("127.0.0.53", "192.0.2.1")), False, "nameserver 192.0.2.1\n"),
        (Resolver(("127.0.0.53", "::1")), False, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
        (Resolver(("fe80::1%eth0",)), False, "nameserver fe80::1%eth0\n"),
    ],
)
def test_text(found: Resolver, is_answered: bool, text: str) -> None:
    assert resolv_text(found, is_answered) == text


@pytest.mark.parametrize(
    ("text", "link"),
    [("db:alias", ("db", "alias")), ("db", ("db", "db")), ("/db:/web/alias", ("db", "alias"))],
)
def test_split_link(text: str, link: tuple[str, str]) -> None:
    assert split_link(text) == link
