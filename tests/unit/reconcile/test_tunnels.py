"""Which changes of a tunnel's entries are somebody else's."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from dari.kernel.overlay import LooseEntry
from dari.net.overlay import vxlan_name
from dari.net.state import Fdb, Neighbour
from dari.reconcile.tunnels import astray

NETWORK = "one".ljust(25, "0")
LINK = vxlan_name(NETWORK)
HERE, THERE = ip_address("192.0.2.2"), ip_address("192.0.2.9")
MAC, ADDRESS = "02:00:00:00:00:01", ip_address("10.0.0.2")
EXPECTED = {NETWORK: {each.key: each for each in (Fdb(LINK, MAC, HERE), Neighbour(LINK, ADDRESS, MAC))}}


def told(
    mac: str = MAC, address: Any = HERE, *, is_forwarding: bool = True, is_gone: bool = False
) -> LooseEntry:
    return LooseEntry(7, mac, address, is_forwarding=is_forwarding, is_gone=is_gone)


@pytest.mark.parametrize(
    ("entry", "is_astray"),
    [
        (told(), False),
        (told(address=THERE), True),
        (told("02:00:00:00:00:77"), True),
        (told("02:00:00:00:00:77", is_gone=True), False),
        (told(is_gone=True), True),
        (told(address=ADDRESS, is_forwarding=False), False),
        (told("02:00:00:00:00:77", ADDRESS, is_forwarding=False), True),
        (told(address=ip_address("10.0.0.9"), is_forwarding=False), True),
        (told(address=ADDRESS, is_forwarding=False, is_gone=True), True),
    ],
)
def test_what_is_not_as_it_was_left(entry: LooseEntry, is_astray: bool) -> None:
    assert astray(EXPECTED, [entry], {7: LINK}) == ({NETWORK} if is_astray else set())
    # Of other interfaces, and of one that is gone, nothing is our business.
    assert astray(EXPECTED, [entry], {7: "eth0"}) == set()
    assert astray(EXPECTED, [entry], {}) == set()
