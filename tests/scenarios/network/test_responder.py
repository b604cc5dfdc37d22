"""A dari-dns left by a darid of other namespaces cannot enter our sandboxes: it is replaced."""

from __future__ import annotations

import subprocess

from tests.patience import PATIENCE
from tests.scenarios.conftest import Node, wait_for

from dari.dns import nudge, spawn


def test_a_responder_of_another_mount_namespace_is_replaced(node: Node) -> None:
    node.kill()
    ours = node.kill_dns()
    wait_for("dari-dns has ended", lambda: nudge.ping(f"{node.exec_root}/dns", 0.1) is None)
    stranger = subprocess.Popen(
        ["unshare", "-m", *spawn.command(f"{node.exec_root}/dns")], stderr=subprocess.DEVNULL
    )
    try:
        wait_for("the stranger answers", lambda: nudge.ping(f"{node.exec_root}/dns", 0.2))
        node.start()
        status = nudge.ping(f"{node.exec_root}/dns")
        assert status is not None and status.pid not in (stranger.pid, ours)
        assert stranger.wait(5 * PATIENCE) == 0
        node.client.networks.create("web")
        c1 = node.sleeper("c1", network="web")
        assert node.resolve(c1, "c1") == [node.address(c1, "web")]
    finally:
        stranger.kill()
        stranger.wait()
