"""The example plugin as a process of its own, in the machine's network namespace."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import Node, wait_for

PROGRAM = Path(__file__).parents[3] / "examples" / "plugins" / "routed" / "routed.py"


class Routed:
    """`state()` is what the plugin holds; it may be stopped and started."""

    def __init__(self, node: Node, folder: Path) -> None:
        self._node = node
        self._state = folder / "routed.json"
        self.socket = f"{node.exec_root}/plugins/routed.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, str(PROGRAM), "--socket", self.socket, "--state", str(self._state)]
        self._process = subprocess.Popen(["nsenter", "-t", str(self._node.holder.pid), "-n", *command])
        wait_for("the plugin's socket", lambda: Path(self.socket).exists())

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(20 * PATIENCE)
        self._process = None

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(20 * PATIENCE)
        self._process = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def state(self) -> dict[str, Any]:
        return dict(json.loads(self._state.read_text()))


@pytest.fixture
def routed(node: Node, tmp_path: Path) -> Iterator[Routed]:
    made = Routed(node, tmp_path)
    made.start()
    yield made
    if not made.is_running:
        made.start()
    if node.daemon is None:
        node.start()
    node.clear()
    links = node.run("ip", "-o", "link")
    state = made.state()
    made.stop()
    assert state == {"networks": {}, "endpoints": {}, "pools": {}}
    assert " rt" not in links and " rc" not in links
