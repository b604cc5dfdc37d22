"""A machine with a way out: what the stack fetches at its start comes from a small internet of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scenarios.conftest import Node, wait_for
from tests.stacks import miniature
from tests.stacks.conftest import ROOT, Bed
from tests.stacks.pinpoint import SOURCES

OUTSIDE, INTERNET = "203.0.113.1", "203.0.113.2"


class World:
    """One name, one address, a few files behind a wire that ends in the network namespace of a process.

    It has no way back by itself: who is not seen as that machine gets no answer.
    """

    def __init__(self, pid: int) -> None:
        self.holder = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "ip link set lo up && exec sleep 100000"]
        )
        wait_for("the world", lambda: Path(f"/proc/{self.holder.pid}/comm").read_text() == "sleep\n")
        theirs = str(self.holder.pid)
        near = ["nsenter", "-t", str(pid), "-n", "ip"]
        far = ["nsenter", "-t", theirs, "-n"]
        for command in (
            [*near, "link", "add", "out0", "type", "veth", "peer", "name", "in0", "netns", theirs],
            [*near, "addr", "add", f"{OUTSIDE}/24", "dev", "out0"],
            [*near, "link", "set", "out0", "up"],
            [*far, "ip", "addr", "add", f"{INTERNET}/24", "dev", "in0"],
            [*far, "ip", "link", "set", "in0", "up"],
        ):
            subprocess.run(command, check=True, capture_output=True)
        self.server = subprocess.Popen(
            [*far, sys.executable, "-m", "tests.stacks.internet", INTERNET, SOURCES], cwd=ROOT
        )
        url = f"http://{INTERNET}/x.json"
        wait_for("the world's answer", lambda: self.run("curl", "-s", "-m", "2", url))

    def run(self, *command: str) -> str:
        """What a program out there says."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.holder.pid), "-n", *command],
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout

    def close(self) -> None:
        for each in (self.server, self.holder):
            each.kill()
            each.wait()


class Outside(Bed):
    """A machine with the miniatures and a way to the world."""

    def __init__(self, folder: Path) -> None:
        (folder / "daemon.json").write_text(json.dumps({"dns": [INTERNET]}))
        self.node = Node(folder)
        self.world = World(self.node.holder.pid)
        miniature.load(self.node.client)

    def close(self) -> None:
        self.node.close()
        self.world.close()


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = Outside(tmp_path_factory.mktemp("bed"))
    try:
        yield made
    finally:
        made.close()
