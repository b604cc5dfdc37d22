"""The pinpoint stack's real programs come up whoever asks for them, and whatever dies meanwhile.

About two gigabytes and some minutes each; slow. test_pinpoint_real.py looks at the stack once it is up.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import wait_for
from tests.stacks.conftest import ROOT, Bed, Beds, Stack
from tests.stacks.pinpoint import (
    BASE,
    COLLECTOR,
    IMAGES,
    NEEDS_FILES,
    NETWORK,
    all_serve,
    counted,
    files,
    gone,
    java,
    leader,
    listens,
    logs,
    memory,
    now_at,
    srvr,
    state,
    traced,
    zoo_port,
)

# Nothing but its own patience carries their start.
NEVER_RESTARTED = (
    "jobmanager",
    "taskmanager",
    "pinpoint-mysql",
    "pinpoint-quickstart",
    "redis",
    "zoo1",
    "zoo2",
    "zoo3",
)
pytestmark = [pytest.mark.slow, NEEDS_FILES, pytest.mark.timeout(3600)]

folder = files


@pytest.fixture(scope="module")
def bed(make_bed: Beds, folder: Path) -> Bed:
    made = make_bed(*IMAGES)
    # A service that could be built is not pulled by `up`.
    Stack(made, "dari compose", folder)("pull", "-q")
    return made


def test_by_debians_docker_compose(bed: Bed, folder: Path) -> None:
    """The same files, unmodified, by Compose 1.29: up, down and up with yesterday's traces, down with its volumes."""
    compose = Stack(bed, "docker-compose", folder)
    try:
        compose("pull", "-q")
        begun = time.monotonic()
        compose("up", "-d")
        all_serve(compose)
        print(f"\ntime to green {time.monotonic() - begun:.0f} s, {memory(compose)}")
        assert set(compose.containers()) == BASE
        assert bed.node.address(compose.containers()["pinpoint-collector"], NETWORK) == COLLECTOR
        for service in ("zoo1", "zoo2", "zoo3"):
            assert compose("port", service, "2181").strip() == f"0.0.0.0:{zoo_port(compose, service)}"
        wait_for("a leader and two followers", lambda: leader(compose, 3, srvr), 60)
        assert "pinpoint-web" in compose("ps") and "quickapp" in compose(
            "logs", "--no-color", "pinpoint-quickstart"
        )
        traced(compose)
        before, ids = now_at(compose) - 3_000_000, compose.ids()
        count = counted(compose, before)
        compose("down", "-t", "30")
        assert compose.containers() == {}
        compose("up", "-d")
        assert set(compose.ids().values()).isdisjoint(ids.values())
        all_serve(compose)
        wait_for("the old requests", lambda: counted(compose, before) >= count, 300)
        assert "initializing" not in logs(compose, "pinpoint-mysql")
    finally:
        compose("down", "-v", "-t", "5")
    gone(compose)


def test_a_daemon_killed_while_they_start(bed: Bed, folder: Path) -> None:
    """At four moments between nothing and green; what ends meanwhile is started again by the next darid."""
    compose = Stack(bed, "dari compose", folder)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "DOCKER_HOST": f"unix://{bed.node.socket}",
    }
    coming = subprocess.Popen(
        [sys.executable, "-m", "dari.cli.main", "compose", "up", "-d"],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for("five containers", lambda: len(bed.node.client.containers.list()) >= 5, 120)
        bed.node.kill()
        assert coming.wait(60 * PATIENCE) != 0
        bed.node.start()
        compose("up", "-d")
        assert set(compose.containers()) == BASE
        before = states(compose)
        for what, condition in (
            ("a leader", lambda: leader(compose, 3, srvr)),
            ("HBase's master", lambda: listens(compose, "pinpoint-hbase", 60000)),
            ("the tables", lambda: "16 there" in logs(compose, "pinpoint-hbase")),
        ):
            wait_for(what, condition, 600)
            before = killed(compose, before)
        all_serve(compose)
        after = states(compose)
        assert {each: after[each]["RestartCount"] for each in NEVER_RESTARTED} == dict.fromkeys(
            NEVER_RESTARTED, 0
        )
        assert all(after[each]["RestartCount"] >= before[each]["RestartCount"] for each in BASE)
        assert bed.node.address(compose.containers()["pinpoint-collector"], NETWORK) == COLLECTOR
        traced(compose)
    finally:
        coming.kill()
        coming.wait()
        compose("down", "-v", "-t", "5")
    gone(compose)


def test_an_end_while_nobody_watches(bed: Bed, folder: Path) -> None:
    """Who has `restart: always` is started again by the next darid, and counted; who has no policy stays away."""
    compose = Stack(bed, "dari compose", folder)
    try:
        compose("up", "-d")
        all_serve(compose)
        before = states(compose)
        doomed = {each: java(compose, each) for each in ("pinpoint-collector", "zoo1", "pinpoint-quickstart")}
        bed.node.kill()
        for pid in doomed.values():
            os.kill(pid, signal.SIGKILL)
        wait_for("their ends", lambda: not any(Path(f"/proc/{pid}").exists() for pid in doomed.values()), 60)
        bed.node.start()
        for service in ("pinpoint-collector", "zoo1"):
            wait_for(f"{service} again", lambda service=service: state(compose, service)["Running"], 60)
            assert state(compose, service)["RestartCount"] == before[service]["RestartCount"] + 1
        ended = state(compose, "pinpoint-quickstart")
        assert (ended["Status"], ended["ExitCode"], ended["RestartCount"]) == ("exited", 137, 0)
        compose("up", "-d")
        assert state(compose, "pinpoint-quickstart")["Running"]
        # The batch ends by itself when zoo1 does not answer.
        others = BASE - doomed.keys() - {"pinpoint-batch"}
        assert {each: state(compose, each)["Pid"] for each in others} == {
            each: before[each]["Pid"] for each in others
        }
        all_serve(compose)
        wait_for("a leader and two followers", lambda: leader(compose, 3, srvr), 120)
        traced(compose)
    finally:
        compose("down", "-v", "-t", "5")
    gone(compose)


def states(stack: Stack) -> dict[str, dict[str, Any]]:
    return {service: state(stack, service) for service in BASE}


def killed(stack: Stack, before: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """darid dies and comes again. What ran, and had no reason to end, runs on; no count falls."""
    stack.bed.node.kill()
    stack.bed.node.start()
    after = states(stack)
    for service in BASE:
        assert after[service]["RestartCount"] >= before[service]["RestartCount"], service
    for service in NEVER_RESTARTED:
        assert after[service]["Pid"] == before[service]["Pid"] != 0, service
    return after
