"""script/demo in namespaces of its own: from nothing to a page, again in moments, and away without a trace."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scenarios.conftest import wait_for
from tests.stacks.conftest import ROOT, build_images

# Another than the images' usual one: the demo ends its own.
REGISTRY = "127.0.0.1:5006"
# Two runs at once would share the registry's port and its file in the cache.
pytestmark = pytest.mark.slow

ASK = ("curl", "-s", "-m", "3", "--unix-socket", "/run/docker.sock", "http://localhost/_ping")


class Demo:
    """Runs the demo with a private /run and network; no registry of the world is reachable there."""

    def __init__(self, state: Path) -> None:
        self.state = state
        ready = (
            "mount --make-rprivate / && mount -t tmpfs tmpfs /run && ip link set lo up && exec sleep 100000"
        )
        self.holder = subprocess.Popen(["unshare", "-n", "-m", "sh", "-c", ready])
        wait_for("namespaces", lambda: Path(f"/proc/{self.holder.pid}/comm").read_text() == "sleep\n")

    def run(self, *command: str, code: int = 0) -> str:
        """What a command in the namespaces says on both streams."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.holder.pid), "-n", "-m", *command],
            env={
                **os.environ,
                "DARI_DEMO_STATE": str(self.state),
                "DARI_DEMO_RUN": "/run/demo-test",
                "DARI_DEMO_REGISTRY": REGISTRY,
                "DOCKER_HOST": "unix:///run/demo-test/dari.sock",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert code < 0 or done.returncode == code, done.stdout
        return done.stdout

    def __call__(self, *words: str, code: int = 0) -> str:
        return self.run(str(ROOT / "script/demo"), *words, code=code)

    def close(self) -> None:
        if self.state.exists():
            self("--clean", code=-1)
        self.holder.kill()
        self.holder.wait()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    build_images("busybox")
    made = Demo(tmp_path / "state")
    yield made
    made.close()


def test_from_nothing_and_back(demo: Demo) -> None:
    said = demo()
    assert "registry-1.docker.io does not answer: building" in said
    assert "http://localhost:8000" in said and "hello-web-1" in said and "healthy" in said
    assert "dari" in demo.run("curl", "-s", "http://127.0.0.1:8000/")
    # Docker's own address answers too.
    assert "hello-probe-1" in demo.run("docker", "-H", "unix:///run/docker.sock", "ps")

    begun = demo.run("docker", "ps", "-q")
    said = demo()
    assert "darid runs already" in said and "building" not in said
    assert demo.run("docker", "ps", "-q") == begun

    assert "2 containers keep running" in demo("--stop")
    assert "dari" in demo.run("curl", "-s", "http://127.0.0.1:8000/")
    demo()
    assert demo.run("docker", "ps", "-q") == begun
    # What was built can still be pulled, and the old containers' files are in view.
    assert "Status" in demo.run("docker", "pull", "busybox")
    assert demo.run("docker", "cp", "hello-web-1:/etc/hostname", "-").count("hostname")

    demo("--down")
    assert demo.run("docker", "ps", "-aq") == ""
    demo()
    demo("--clean")
    assert not demo.state.exists()
    assert "dari" not in demo.run("ip", "link") + demo.run("nft", "list", "tables")
    wait_for("no process is left", lambda: not left(demo))


def left(demo: Demo) -> list[str]:
    """Programs in the demo's network namespace, its holder aside."""
    theirs = os.readlink(f"/proc/{demo.holder.pid}/ns/net")
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != demo.holder.pid:
            try:
                if os.readlink(entry / "ns/net") == theirs:
                    found.append((entry / "comm").read_text())
            except OSError:
                continue
    return found


def test_mistakes_are_told(demo: Demo, tmp_path: Path) -> None:
    assert "unknown option --nonsense" in demo("--nonsense", code=125)
    assert "no Compose file in" in demo(str(tmp_path), code=14)
    # A folder is what it is where one types it.
    there = demo.run("env", "-C", str(tmp_path), str(ROOT / "script/demo"), "./stack", code=14)
    assert f"no Compose file in {tmp_path}/stack" in there
    assert not demo.state.exists()


_SOMEBODY = """\
import socket
s = socket.socket(socket.AF_UNIX); s.bind("/run/docker.sock"); s.listen()
while True:
    peer, _ = s.accept()
    with peer:
        if peer.recv(1000):
            peer.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nsomebody else")
"""


def test_beside_an_engine_at_dockers_address(demo: Demo) -> None:
    inside = ["nsenter", "-t", str(demo.holder.pid), "-n", "-m"]
    other = subprocess.Popen([*inside, sys.executable, "-c", _SOMEBODY])
    try:
        wait_for("the other engine", lambda: "somebody" in demo.run(*ASK, code=-1))
        demo()
        assert "somebody else" in demo.run(*ASK)
        # In darid's view, and so in what containers mount of it, that address is darid's.
        pid = demo.run("cat", "/run/demo-test/darid.pid").strip()
        assert "hello-web-1" in demo.run(
            "nsenter", "-m", "-t", pid, "docker", "-H", "unix:///run/docker.sock", "ps"
        )
        demo("--clean")
        assert "somebody else" in demo.run(*ASK)
    finally:
        other.kill()
        other.wait()
