"""Which texts are upstreams."""

from __future__ import annotations

import pytest

from dari.dns.forward import Upstream, parse_upstream


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", Upstream("192.0.2.1", 53)),
        ("192.0.2.1:5353", Upstream("192.0.2.1", 5353)),
        ("fd00::1", Upstream("fd00::1", 53)),
        ("[fd00::1]", Upstream("fd00::1", 53)),
        ("[fd00::1]:54", Upstream("fd00::1", 54)),
        ("fe80::1%eth0", Upstream("fe80::1%eth0", 53)),
        ("resolver.example", None),
        ("192.0.2.1%eth0", None),
        ("192.0.2.1:0", None),
        ("192.0.2.1:99999", None),
        ("192.0.2.1:x", None),
        ("", None),
    ],
)
def test_upstream(text: str, expected: Upstream | None) -> None:
    assert parse_upstream(text) == expected
