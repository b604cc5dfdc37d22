"""The tutorial's three hosts on one machine: its commands do what it says, and nothing is left."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.scenarios.cluster.conftest import eventually
from tests.store import servers

_SCRIPT = Path(__file__).parents[3] / "examples/three-hosts/run"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    if os.geteuid() != 0 or not servers.has_etcd() or shutil.which("busybox") is None:
        pytest.skip("needs root, etcd and busybox")
    folder = tmp_path / "hosts"

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(_SCRIPT), *words],
            env={**os.environ, "DARI_THREE_HOSTS": str(folder)},
            capture_output=True,
            text=True,
            timeout=240,
        )

    try:
        yield call
    finally:
        if folder.exists():
            call("stop")


@pytest.mark.slow
def test_the_tutorial_can_be_followed_on_one_machine(run: Run, tmp_path: Path) -> None:
    folder = str(tmp_path / "hosts")
    started = run("start")
    assert started.returncode == 0, started.stderr
    assert [line.split()[:2] for line in started.stdout.splitlines()[:3]] == [
        ["host", f"{x}:"] for x in "abc"
    ]
    assert "is there" in run("start").stderr
    assert run("a", "dari", "network", "create", "-d", "overlay", "--attachable", "wide").returncode == 0
    eventually("b knows it", lambda: "wide" in run("b", "dari", "network", "ls").stdout)
    done = run(
        "b", "dari", "run", "-d", "--name", "db", "--network", "wide", "busybox", "httpd", "-f", "-p", "80"
    )
    assert done.returncode == 0, done.stderr
    page = "echo from b >/index.html"
    assert run("b", "dari", "exec", "db", "sh", "-c", page).returncode == 0
    ask = ("a", "dari", "run", "--rm", "--network", "wide", "busybox", "wget", "-qO-", "http://db/index.html")
    eventually("a's containers reach db by its name", lambda: run(*ask).stdout == "from b\n")
    assert "db" in run("a", "dari", "lookup", "db").stdout
    refused = run("a", "dari", "network", "rm", "wide")
    assert refused.returncode == 1
    assert "active endpoints" in refused.stderr
    run("store", "stop")
    eventually(
        "the store is missed",
        lambda: run("a", "dari", "network", "create", "-d", "overlay", "x").returncode == 1,
    )
    run("store", "start")
    eventually("the store is back", lambda: "ready" in run("a", "dari", "node", "ls").stdout)
    run("kill", "b")
    assert run("boot", "b").returncode == 0
    stopped = run("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert not os.path.exists(folder)
    assert _processes(folder) == []


def _processes(folder: str) -> list[str]:
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = each.read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if folder in line:
            found.append(line)
    return found
