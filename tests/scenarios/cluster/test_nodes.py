"""Who is there: nodes join, die, come back and leave, through either store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import docker
import pytest
from tests.patience import PATIENCE
from tests.scenarios.cluster.conftest import Host, Hosts, all_joined, eventually


def dari(host: Host, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dari.cli.main", "-H", f"unix://{host.socket}", *words],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")},
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
    )


def states(host: Host) -> dict[str, str]:
    found: list[dict[str, Any]] = json.loads(
        dari(host, "node", "inspect", *dari(host, "node", "ls", "-q").stdout.split()).stdout
    )
    return {each["Name"]: each["Status"] for each in found}


def test_every_node_sees_all(hosts: Hosts) -> None:
    for host in hosts.hosts:
        eventually(
            "three nodes",
            lambda host=host: states(host) == dict.fromkeys(("host0", "host1", "host2"), "ready"),
        )  # type: ignore[misc]
    table = dari(hosts[1], "node", "ls").stdout.splitlines()
    assert table[0].split() == ["ID", "NAME", "STATUS", "ADDRESS", "CONTAINERS", "ENGINE", "VERSION"]
    assert [line.split()[1] == "*" for line in table[1:]] == [False, True, False]


def test_a_killed_node_is_down_after_its_time_to_live_and_ready_when_it_returns(hosts: Hosts) -> None:
    eventually("all joined", lambda: all_joined(hosts))
    hosts[2].kill()
    eventually("host2 is down", lambda: states(hosts[0])["host2"] == "down")
    refused = dari(hosts[0], "node", "rm", "host1")
    assert refused.returncode == 1
    assert "host1 is alive" in refused.stderr
    hosts[2].start()
    eventually("host2 is back", lambda: states(hosts[0])["host2"] == "ready")


def test_a_node_that_leaves_is_forgotten_and_may_come_again(hosts: Hosts) -> None:
    eventually("all joined", lambda: all_joined(hosts))
    left = dari(hosts[2], "node", "leave")
    assert (left.returncode, left.stdout) == (0, "Node left the cluster.\n")
    eventually("host2 is gone", lambda: set(states(hosts[0])) == {"host0", "host1"})
    hosts[2].kill(signal.SIGTERM)
    hosts[2].start()
    eventually("host2 is back", lambda: all_joined(hosts))


def test_names_and_addresses_belong_to_one_node(hosts: Hosts) -> None:
    """The second one is told, and puts nothing on networks they share until the quarrel has ended; then it goes on."""
    eventually("all joined", lambda: all_joined(hosts))
    hosts[0].client.networks.create("wide", driver="overlay", attachable=True)
    host = hosts[2]
    host.kill(signal.SIGTERM)
    before, host.options = host.options, (*host.options, "--node-name", "host1")
    try:
        host.start()
        eventually(
            "the quarrel is told", lambda: "is named host1" in hosts.dari(host, "/dari/v1/cluster")["Problem"]
        )
        eventually("the network is known", lambda: host.client.networks.list(names=["wide"]))
        for start in (
            lambda: host.sleeper("late", network="wide"),
            lambda: host.client.networks.get("wide").connect(host.sleeper("local")),
        ):
            with pytest.raises(docker.errors.APIError) as caught:
                start()
            assert caught.value.status_code == 503
            assert "cannot join network wide: node host1 has not joined" in str(caught.value)
            assert "is named host1: start one of them with --node-name" in str(caught.value)
        found = {each["Id"]: each for each in hosts.dari(host, "/dari/v1/doctor")["Findings"]}
        assert "is named host1" in found["cluster.not-joined"]["Cause"]
        assert not hosts.dari(host, "/dari/v1/cluster")["Joined"]
        hosts[1].kill()
        eventually("it has joined", lambda: hosts.dari(host, "/dari/v1/cluster")["Joined"], 40)
        host.client.containers.get("late").start()
        host.client.networks.get("wide").connect("local")
    finally:
        host.kill(signal.SIGTERM)
        host.options = before
        host.start()
        if hosts[1].daemon is None:
            hosts[1].start()
    eventually("all joined", lambda: all_joined(hosts))


def test_an_engine_without_a_store_says_so(hosts: Hosts) -> None:
    host = hosts[2]
    host.kill(signal.SIGTERM)
    before, host.options = host.options, ()
    try:
        host.start()
        refused = dari(host, "node", "ls")
        assert refused.returncode == 1
        assert "start darid with --store" in refused.stderr
    finally:
        host.kill(signal.SIGTERM)
        host.options = before
        host.start()
