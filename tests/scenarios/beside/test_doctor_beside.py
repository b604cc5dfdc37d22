"""The doctor beside dockerd: Docker's own rules are no trouble of ours, one that drops our packets is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tests.patience import PATIENCE
from tests.scenarios.beside.conftest import Dockerd, Outside
from tests.scenarios.conftest import Node


def doctor(node: Node, *options: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "dari.cli.main", "-H", f"unix://{node.socket}", "doctor", "--json", *options],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        timeout=60 * PATIENCE,
    )
    assert done.returncode in (0, 1), done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    machine = (
        "host.cgroup",
        "host.clock",
        "host.kernel",
        "host.open",
        "host.disk",
        "host.inodes",
        "host.legacy",
        "host.mtu",
    )
    return [each for each in found if not each["Id"].startswith(machine)]


def test_dockers_rules_are_no_findings(node: Node, outside: Outside, dockerd: Dockerd) -> None:
    node.client.networks.create("web")
    node.serve("ours", "ours", network="web", ports={"80/tcp": 8080})
    dockerd.client.networks.create("their-web", internal=True)
    dockerd.client.networks.create("their-front", options={"com.docker.network.bridge.enable_icc": "false"})
    dockerd.serve("theirs", "theirs", network="their-front", ports={"80/tcp": 9090})
    assert doctor(node) == []
    before = dockerd.rules()
    assert doctor(node, "--fix") == []
    assert dockerd.rules() == before


def test_an_administrators_drop_in_dockers_chain_is_one(node: Node, dockerd: Dockerd) -> None:
    network = node.client.networks.create("web")
    ours = node.serve("ours", "ours", network="web")
    address = node.address(ours, "web")
    rule = ("DOCKER-USER", "-d", address, "-p", "tcp", "--dport", "80", "-j", "DROP")
    node.run("iptables", "-I", *rule)
    try:
        (found,) = doctor(node)
        assert (found["Id"], found["Object"], found["IsOurs"]) == (
            "rules.foreign-drop",
            "container ours",
            False,
        )
        assert "DOCKER-USER" in found["Text"] and found["Advice"].startswith(
            "nft delete rule ip filter DOCKER-USER handle"
        )
    finally:
        node.run("iptables", "-D", *rule)
    assert doctor(node) == [] and network.id
