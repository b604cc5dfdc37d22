"""What the pinpoint stack's files say, merged with their override, and what they say when they cannot work."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import wait_for
from tests.stacks.conftest import ROOT, Stack
from tests.stacks.pinpoint import (
    BASE,
    METRIC,
    NEEDS_FILES,
    NETWORK,
    OVERRIDE,
    SCRIPTS,
    UNDEFINED,
    all_up,
    counted,
    files,
    state,
)
from tests.stacks.world import CLIENTS, Outside, chosen, docker_bed, outside

pytestmark = [
    NEEDS_FILES,
]


bed, on_docker, folder = outside, docker_bed, files


@pytest.fixture(params=CLIENTS)
def on(request: pytest.FixtureRequest) -> tuple[Outside, str]:
    return chosen(request)


@pytest.mark.parametrize("client", ["dari compose", "docker-compose"])
def test_the_files_say(bed: Outside, folder: Path, client: str) -> None:
    """13 and 21 services, four names nobody defines, entry points as a shell splits them."""
    compose = Stack(bed, client, folder)
    assert set(compose("config", "--services").split()) == BASE
    assert set(compose(*OVERRIDE, "config", "--services").split()) == METRIC
    told = compose("config", check=False)
    warned = re.findall(r'The "?(\w+)"? variable is not set', told)
    assert set(warned) == UNDEFINED and len(warned) == 4
    # By itself the override file is not a project.
    alone = compose("-f", "docker-compose-metric.yml", "config", check=False)
    assert "undefined" in alone and "services:" not in alone


def test_the_merged_file(bed: Outside, folder: Path) -> None:
    compose = Stack(bed, "dari compose", folder)
    services = json.loads(compose(*OVERRIDE, "config", "--format", "json"))["services"]
    for service, (length, digest) in SCRIPTS.items():
        shell, option, script = services[service]["entrypoint"]
        assert (shell, option, len(script)) == ("sh", "-c", length)
        assert hashlib.sha256(script.encode()).hexdigest().startswith(digest)
    web, collector = services["pinpoint-web"], services["pinpoint-collector"]
    assert {(each["published"], each["target"]) for each in web["ports"]} == {("8080", 8080), ("9997", 9997)}
    assert len(web["ports"]) == 2 and len(collector["ports"]) == 8
    assert [each["protocol"] for each in collector["ports"]].count("udp") == 2
    assert set(web["depends_on"]) == {
        "pinpoint-hbase", "pinpoint-mysql", "zoo1", "redis", "pinpoint-kafka-init", "pinot-init"
    }  # fmt: skip
    assert len(web["environment"]) == 32 and len(collector["expose"]) == 7
    assert collector["networks"] == {"pinpoint": {"ipv4_address": "172.24.0.30"}}
    assert services["jobmanager"]["command"] == [
        "standalone-job", "-p", "1", "pinpoint-flink-job.jar", "-spring.profiles.active", "release"
    ]  # fmt: skip


def test_a_daemon_killed_while_the_stack_comes_up(bed: Outside, folder: Path) -> None:
    compose = Stack(bed, "dari compose", folder)
    coming = subprocess.Popen(
        [sys.executable, "-m", "dari.cli.main", "compose", "up", "-d"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "DOCKER_HOST": f"unix://{bed.node.socket}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for("five containers", lambda: len(bed.node.client.containers.list()) >= 5, 60)
        bed.node.kill()
        assert coming.wait(60 * PATIENCE) != 0
        bed.node.start()
        compose("up", "-d")
        assert set(compose.containers()) == BASE
        all_up(compose)
        assert bed.node.address(compose.containers()["pinpoint-collector"], NETWORK) == "172.24.0.30"
        assert counted(compose) == 0
    finally:
        coming.kill()
        coming.wait()
        compose("down", "-v", "-t", "1")


def test_the_metric_stack(on: tuple[Outside, str], folder: Path) -> None:
    compose = Stack(*on, folder)
    try:
        compose(*OVERRIDE, "up", "-d")
        assert set(compose.containers()) == METRIC
        all_up(compose, METRIC - {"pinpoint-kafka-init", "pinot-init"})

        def is_done(service: str) -> bool:
            now = state(compose, service)
            return bool(now["Status"] == "exited" and now["ExitCode"] == 0)

        for service in ("pinpoint-kafka-init", "pinot-init"):
            wait_for(f"{service} has ended well", lambda service=service: is_done(service), 60)
            assert state(compose, service)["RestartCount"] == 0
        assert compose.inside("pinpoint-kafka", "ls", "/var/lib/kafka/data").split() == [
            "exception-trace", "inspector-stat-agent-00", "inspector-stat-app", "system-metric-data-type",
            "system-metric-double", "system-metric-tag", "url-stat",
        ]  # fmt: skip
        assert len(compose.inside("pinot-controller", "ls", "/tmp/data").split()) == 7 + 1
    finally:
        compose(*OVERRIDE, "down", "-v", "-t", "1")


def test_a_web_port_of_its_own_breaks_the_metric_stack(on: tuple[Outside, str], folder: Path) -> None:
    """Merging leaves one host port for two container ports: a defect of the files, told, and nothing half done."""
    bed, client = on
    compose = Stack(bed, client, folder)
    env = {"WEB_SERVER_PORT": "18080"}
    try:
        told = compose(*OVERRIDE, "up", "-d", check=False, env=env)
        assert "port is already allocated" in told
        web = compose.containers()["pinpoint-web"]
        assert web.status == "created" and web.attrs["State"]["Pid"] == 0
        assert not web.attrs["NetworkSettings"]["Networks"][NETWORK]["IPAddress"]
        assert bed.node.curl(None, "http://127.0.0.1:18080/") == ""
        rules = bed.node.run("nft", "list", "ruleset")
        assert "18080" not in rules and "9997" not in rules
    finally:
        compose(*OVERRIDE, "down", "-v", "-t", "1", env=env)
    assert compose.containers() == {}
    assert NETWORK not in {each.name for each in bed.node.client.networks.list()}


def test_files_that_cannot_work_say_why(on: tuple[Outside, str], folder: Path) -> None:
    bed, client = on
    node = bed.node
    before = {each.name for each in node.client.networks.list()}
    # The context of pinpoint-agent is not there any more.
    quickstart = Stack(bed, client, folder / "pinpoint-quickstart")
    told = quickstart("up", "-d", "--build", check=False)
    assert str(folder / "pinpoint-agent") in told
    assert quickstart.containers() == {}
    quickstart("down", "-v", check=False)
    # "Your Image" is a placeholder.
    node.client.networks.create("pinpoint-agent_pinpoint")
    owner = node.client.containers.create("pinpointdocker/pinpoint-agent", name="pinpoint-agent")
    try:
        for example in ("java", "tomcat"):
            attach = Stack(bed, client, folder / "pinpoint-agent-attach-example" / example)
            (attach.folder / "Dockerfile").write_text("FROM pinpointdocker/pinpoint-agent\n")
            told = attach("up", "-d", check=False)
            assert "invalid reference format" in told
            assert client == "docker-compose" or "Your Image" in told
            assert attach.containers() == {}
    finally:
        owner.remove(v=True)
        node.client.networks.get("pinpoint-agent_pinpoint").remove()
    assert {each.name for each in node.client.networks.list()} == before
