"""Gateway modes, trusted interfaces, direct routing, a source address of one's own, an accepted mark: real packets."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.net.test_firewall import BLOCKED, DROPPED, HOST_ADDRESS, OUTSIDE, PASSES, A, ask, scene
from tests.kernel.world import endpoint, inside, network, run, sandbox

from dari.net.desired import Desired, PublishWant, SandboxWant

pytestmark = pytest.mark.kernel_ns

B = "10.1.0.11"
PUBLISHED = PublishWant("tcp", ip_address("0.0.0.0"), 8080, ip_address(A), 80)


def world(**attributes: Any) -> Desired:
    """a (publishes 8080 → 80) and b on net1, c on net2, the rest as test_firewall's scene wants them."""
    nets = (network(1, **attributes), network(2), network(3, is_internal=True), network(4, is_icc=False))
    ends = (endpoint(1, 0), endpoint(1, 1), endpoint(2, 2), endpoint(3, 3), endpoint(4, 4), endpoint(4, 5))
    boxes = (sandbox(0, (PUBLISHED,)), *(sandbox(number) for number in range(1, 6)))
    return Desired(nets, ends, (*boxes, SandboxWant("outside", "outside")))


PING = ("ping", "-c1", "-W1", A)

# By what net1 says of itself: does outside reach a's published port by the host's address, by a's own, b's port
# that nobody published, a's address by ping; with which address does a leave; does d, on an internal network,
# reach a.
MODES: list[tuple[dict[str, Any], str, str, str, bool, str]] = [
    ({}, f"a {OUTSIDE}", BLOCKED, BLOCKED, False, HOST_ADDRESS),
    (
        {"gateway_modes": {4: "nat-unprotected"}},
        f"a {OUTSIDE}",
        f"a {OUTSIDE}",
        f"b {OUTSIDE}",
        True,
        HOST_ADDRESS,
    ),
    ({"gateway_modes": {4: "routed"}}, BLOCKED, f"a {OUTSIDE}", BLOCKED, True, A),
    ({"is_direct_routing": True}, f"a {OUTSIDE}", f"a {OUTSIDE}", BLOCKED, False, HOST_ADDRESS),
    ({"trusted_interfaces": ("world",)}, f"a {OUTSIDE}", f"a {OUTSIDE}", BLOCKED, False, HOST_ADDRESS),
    ({"trusted_interfaces": ("other",)}, f"a {OUTSIDE}", BLOCKED, BLOCKED, False, HOST_ADDRESS),
    ({"snat": {4: ip_address("198.51.100.77")}}, f"a {OUTSIDE}", BLOCKED, BLOCKED, False, "198.51.100.77"),
    ({"is_masquerading": False}, f"a {OUTSIDE}", BLOCKED, BLOCKED, False, A),
    (
        {"gateway_modes": {4: "routed"}, "is_icc": False},
        BLOCKED,
        f"a {OUTSIDE}",
        BLOCKED,
        True,
        A,
    ),
]


@pytest.mark.parametrize(("options", "by_host", "direct", "unpublished", "pings", "leaves_as"), MODES)
def test_who_gets_in_and_out(
    tmp_path: Path,
    options: dict[str, Any],
    by_host: str,
    direct: str,
    unpublished: str,
    pings: bool,
    leaves_as: str,
) -> None:
    with scene(tmp_path, world(**options)) as (_, paths):
        run("ip", "address", "add", "198.51.100.77/24", "dev", "world")

        def said(where: str, address: str, port: int, expected: str) -> str:
            return inside(paths[where], lambda: ask("tcp", address, port, PASSES if expected else DROPPED))

        assert said("outside", HOST_ADDRESS, 8080, by_host) == by_host
        assert said("outside", A, 80, direct) == direct
        assert said("outside", B, 80, unpublished) == unpublished
        assert said("a", OUTSIDE, 80, leaves_as) == f"outside {leaves_as}"
        # Whatever the mode: the network itself and the host as ever, internal networks never.
        if options.get("is_icc", True):
            assert said("b", A, 80, "a") == f"a {B}"
        else:
            assert said("b", A, 80, BLOCKED) == BLOCKED
        assert ask("tcp", A, 80, PASSES) == "a 10.1.0.1"
        assert said("d", A, 80, BLOCKED) == BLOCKED
        is_pinging = inside(paths["outside"], lambda: _pings())
        assert is_pinging is pings


def _pings() -> bool:
    import subprocess

    return subprocess.run(PING, capture_output=True).returncode == 0


def test_a_marked_packet_passes(tmp_path: Path) -> None:
    accepted = world(accept_mark=(0x10, 0xF0))
    networks = tuple(replace(each, accept_mark=(0x10, 0xF0)) for each in accepted.networks)
    with scene(tmp_path, replace(accepted, networks=networks)) as (_, paths):

        def said(address: str, timeout: float) -> str:
            return inside(paths["outside"], lambda: ask("tcp", address, 80, timeout))

        assert said(B, DROPPED) == BLOCKED
        run("nft", "add table inet mine")
        run("nft", "add chain inet mine marks { type filter hook prerouting priority mangle; }")
        run("nft", 'add rule inet mine marks iifname "world" meta mark set 0x1f')
        assert said(B, PASSES) == f"b {OUTSIDE}"
        assert said("10.3.0.13", DROPPED) == BLOCKED
        run("nft", "delete table inet mine")
        assert said(B, DROPPED) == BLOCKED
