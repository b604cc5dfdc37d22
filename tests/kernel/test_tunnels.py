"""A tunnel's entries: all of them are read with the tunnel, the others' are heard, and what nobody wants goes."""

from __future__ import annotations

import select
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.kernel.world import opened, run

from dari.kernel.host import Kernel
from dari.kernel.overlay import LooseEntry
from dari.net.plan import plan
from dari.net.scope import Scope
from dari.net.state import Bridge, Fdb, KernelState, Neighbour, Vxlan

pytestmark = pytest.mark.kernel_ns

MAC, STRAY = "02:42:0a:00:00:02", "02:00:00:00:00:77"
HOST, ELSEWHERE, ADDRESS = ip_address("192.0.2.2"), ip_address("192.0.2.9"), ip_address("10.0.0.2")
WANTED = KernelState.of(
    [
        Bridge("br-one", "dari-net-one", mtu=1450),
        Vxlan("vx-one", "dari-vx-one", 4096, ip_address("192.0.2.1"), 4789, "br-one", mtu=1450),
        Fdb("vx-one", MAC, HOST),
        Neighbour("vx-one", ADDRESS, MAC),
        Neighbour("vx-one", ip_address("fd00::2"), MAC),
    ]
)


def settle(kernel: Kernel) -> int:
    """How many steps one scoped settle takes."""
    scope = Scope.of(WANTED)
    todo = plan(WANTED, kernel.read(scope))
    kernel.apply(todo)
    assert plan(WANTED, kernel.read(scope)).is_empty
    return len(todo.ops)


def heard(kernel: Kernel) -> list[LooseEntry]:
    found: list[LooseEntry] = []
    while select.select([kernel.tunnel_alarm], [], [], 0.2)[0]:
        told = kernel.tunnel_alarm.hear()
        assert told is not None
        found += told
    return found


def test_a_scoped_settle_drops_what_nobody_wants(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        settle(kernel)
        run("ip", "link", "add", "vx-theirs", "type", "vxlan", "id", "9", "dstport", "4790")
        run("bridge", "fdb", "append", STRAY, "dev", "vx-theirs", "dst", "192.0.2.9")
        assert settle(kernel) == 0
        run("bridge", "fdb", "append", STRAY, "dev", "vx-one", "dst", "192.0.2.9")
        run("bridge", "fdb", "replace", MAC, "dev", "vx-one", "dst", "192.0.2.9")
        run("ip", "neigh", "add", "10.0.0.9", "lladdr", STRAY, "dev", "vx-one", "nud", "permanent")
        run("ip", "neigh", "del", "fd00::2", "dev", "vx-one")
        assert settle(kernel) == 4
        assert STRAY in run("bridge", "fdb", "show", "dev", "vx-theirs")


def test_what_others_do_is_heard_in_order(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        settle(kernel)
        kernel.tunnel_alarm.begin()
        run("bridge", "fdb", "append", STRAY, "dev", "vx-one", "dst", "192.0.2.9")
        run("ip", "neigh", "del", str(ADDRESS), "dev", "vx-one")
        # Neither a neighbour that was learnt nor a forwarding entry of a bridge's own.
        run("ip", "neigh", "add", "10.0.0.77", "lladdr", STRAY, "dev", "br-one", "nud", "reachable")
        run("bridge", "fdb", "add", STRAY, "dev", "br-one", "self")
        told = heard(kernel)
        names = kernel.link_names({each.index for each in told})
        assert {names[each.index] for each in told} == {"vx-one"}
        assert [(each.of("vx-one").key, each.is_gone) for each in told] == [
            (Fdb("vx-one", STRAY, ELSEWHERE).key, False),
            (Neighbour("vx-one", ADDRESS, MAC).key, True),
        ]
        assert told[0].of("vx-one") == Fdb("vx-one", STRAY, ELSEWHERE)
