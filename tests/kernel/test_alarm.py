"""What others do to nftables is heard, in sandboxes too, and what this process does is not."""

from __future__ import annotations

import select
from pathlib import Path

import pytest
from tests.kernel.world import endpoint, network, opened, rendered, run, run_in, sandbox, settle_all

from dari.kernel.host import Kernel
from dari.net.desired import Desired
from dari.net.state import KernelState

pytestmark = pytest.mark.kernel_ns


def heard(kernel: Kernel, seconds: float = 5.0) -> frozenset[str]:
    """The first that comes; what comes of our own doing is read and forgotten."""
    found: frozenset[str] = frozenset()
    while not found and select.select([kernel.alarm], [], [], seconds)[0]:
        found = kernel.alarm.hear()
    return found


def test_a_flush_is_heard_and_our_own_work_is_not(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        wanted = rendered(kernel, Desired((network(1),), (endpoint(1, 0),), (sandbox(0, (), 41000),)))
        settle_all(kernel, wanted)
        assert kernel.alarm.hear() == frozenset()
        run("nft", "add", "table", "inet", "mine")
        run("nft", "delete", "table", "inet", "mine")
        assert kernel.alarm.hear() == frozenset()
        for command in (
            ("nft", "delete", "element", "inet", "dari", "bridges", "{ br1 }"),
            ("nft", "flush", "chain", "inet", "dari", "raw"),
            ("nft", "flush", "ruleset"),
        ):
            run(*command)
            assert heard(kernel) == {"dari"}, command
            settle_all(kernel, wanted)
            assert kernel.alarm.hear() == frozenset()
        run_in(kernel.netns_path("box0"), "nft", "flush", "ruleset")
        assert heard(kernel) == {"dari"}
        assert settle_all(kernel, wanted) == 2
        run("nft", "add", "table", "ip", "filter")
        assert heard(kernel) == {"filter"}
        run("nft", "delete", "table", "ip", "filter")
        settle_all(kernel, KernelState())
        kernel.wait_buried()
        heard(kernel, 0)
