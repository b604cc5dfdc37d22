"""The machine of the other tests goes whole, whatever its daemon left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.scenarios.conftest import Node


def test_a_machine_with_a_dead_daemon_and_a_frozen_container_goes(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folder = tmp_path / "node"
    folder.mkdir()
    node = Node(folder)
    try:
        node.load_image()
        frozen = node.sleeper("frozen")
        node.sleeper("running")
        frozen.pause()
        node.kill(signal.SIGKILL)
    finally:
        node.close()
    # A group without processes only can be removed.
    groups = Path("/sys/fs/cgroup")
    assert not any(Path(f"{top}{node.cgroup}").exists() for top in (groups, *groups.iterdir()))
    assert not os.path.exists(node.exec_root)
    assert not folder.exists()
