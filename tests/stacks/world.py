"""A machine with a way out: what the stack fetches at its start comes from a small internet of the test's own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.engines import Engine
from tests.patience import PATIENCE
from tests.scenarios.conftest import Node, wait_for
from tests.stacks import miniature
from tests.stacks.conftest import ROOT, Bed
from tests.stacks.pinpoint import SOURCES

OUTSIDE, INTERNET = "203.0.113.1", "203.0.113.2"
CLIENTS = ["dari compose", "docker-compose", pytest.param("dari compose on Docker", marks=pytest.mark.slow)]
"""Who brings a stack up, and on what: on Docker itself, too, since what is asked of dari is what Docker does."""


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
            timeout=30 * PATIENCE,
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


class DockerNode(Node):
    """Docker's own engine in the place of darid: the same questions."""

    def __init__(self, engine: Engine) -> None:
        self.holder = engine.process
        self.socket = str(engine.socket)


class OnDocker(Outside):
    """A machine like the other, with Debian's Docker."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.node = DockerNode(engine)
        self.world = World(engine.process.pid)
        miniature.load(self.node.client)

    def close(self) -> None:
        self.world.close()


@contextlib.contextmanager
def on_docker() -> Iterator[OnDocker]:
    if shutil.which("dockerd") is None:
        pytest.skip("needs Debian's docker.io")
    # containerd's sockets are far below it, and their paths may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="dockerd-"))
    socket = folder / "docker.sock"
    argv = ["dockerd", "-H", f"unix://{socket}", "--data-root", str(folder / "data"), "--dns", INTERNET]
    argv += ["--exec-root", str(folder / "run"), "--pidfile", str(folder / "pid")]
    engine = Engine("docker.io", argv, folder, socket)
    try:
        made = OnDocker(engine)
        try:
            yield made
        finally:
            made.close()
    finally:
        engine.stop()


@pytest.fixture(scope="module")
def docker_bed() -> Iterator[OnDocker]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with on_docker() as made:
        yield made


def chosen(request: pytest.FixtureRequest) -> tuple[Outside, str]:
    """The bed and the client of one of CLIENTS, by the test's fixtures `bed` and `on_docker`."""
    client, _, engine = request.param.partition(" on ")
    return request.getfixturevalue("on_docker" if engine else "bed"), client
