"""Docker's own socket: taken where nobody listens there, left alone where somebody does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import wait_for

_SOURCE = Path(__file__).parents[3] / "src"
_LISTENER = """\
import socket, time
s = socket.socket(socket.AF_UNIX); s.bind("/run/docker.sock"); s.listen()
while True:
    peer, _ = s.accept()
    with peer:
        if peer.recv(1000):
            peer.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nsomebody else")
"""


class Machine:
    """Namespaces with an empty /run, and a darid of default settings but for its data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        script = (
            "mount --make-rprivate / && mount -t tmpfs tmpfs /run && ip link set lo up && exec sleep 100000"
        )
        self.holder = subprocess.Popen(["unshare", "-n", "-m", "sh", "-c", script])
        wait_for(
            "namespaces", lambda: Path(f"/proc/{self.holder.pid}/cmdline").read_bytes().startswith(b"sleep")
        )
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        made = subprocess.Popen(
            ["nsenter", "-t", str(self.holder.pid), "-n", "-m", *command],
            env={**os.environ, "PYTHONPATH": str(_SOURCE)},
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(made)
        return made

    def darid(self) -> subprocess.Popen[bytes]:
        settings = self.folder / "daemon.json"
        settings.write_text("{}")
        options = ["--data-root", str(self.folder / "data"), "--config-file", str(settings)]
        made = self.start(sys.executable, "-m", "dari.daemon", *options)
        wait_for("darid", lambda: "1.51" in self.ask("/run/dari/dari.sock"), 30)
        return made

    def ask(self, socket: str) -> str:
        command = ["curl", "-s", "-m", "3", "--http0.9", "--unix-socket", socket, "http://localhost/version"]
        done = subprocess.run(
            ["nsenter", "-t", str(self.holder.pid), "-m", *command], capture_output=True, text=True
        )
        return done.stdout

    def exists(self, path: str) -> bool:
        return os.path.exists(f"/proc/{self.holder.pid}/root{path}")

    def close(self) -> None:
        for each in reversed(self.processes):
            each.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                each.wait(20 * PATIENCE)
        self.holder.kill()
        self.holder.wait()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Machine]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = Machine(tmp_path)
    yield made
    made.close()


def test_somebody_elses_socket_is_left_alone(fresh: Machine) -> None:
    fresh.start(sys.executable, "-c", _LISTENER)
    wait_for("the other engine", lambda: fresh.ask("/run/docker.sock") == "somebody else")
    ours = fresh.darid()
    assert fresh.ask("/run/docker.sock") == "somebody else"
    ours.send_signal(signal.SIGTERM)
    ours.wait(20 * PATIENCE)
    assert fresh.ask("/run/docker.sock") == "somebody else"
    assert not fresh.exists("/run/dari/dari.sock")


def test_a_socket_without_a_listener_is_taken(fresh: Machine) -> None:
    other = fresh.start(sys.executable, "-c", _LISTENER)
    wait_for("the other engine", lambda: fresh.ask("/run/docker.sock") == "somebody else")
    other.kill()
    other.wait()
    assert fresh.exists("/run/docker.sock")
    ours = fresh.darid()
    assert "1.51" in fresh.ask("/run/docker.sock")
    ours.send_signal(signal.SIGTERM)
    ours.wait(20 * PATIENCE)
    assert not fresh.exists("/run/docker.sock")
