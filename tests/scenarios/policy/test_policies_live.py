"""Policies on a live node: labels, Compose's x-policy, what inspect, explain, verify and the doctor say of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import docker
import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import IMAGE, Node, wait_for

FILE = """\
name: shop
x-policy:
  default: deny
  allow:
    - {from: web, to: db, ports: [80]}
    - {from: host, to: web, ports: [80]}
services:
  web: &server
    image: busybox:latest
    command: [httpd, -f, -p, "80"]
    ports: ["8080:80"]
    stop_grace_period: 0s
  db:
    <<: *server
    ports: []
  stranger:
    <<: *server
    ports: []
    x-policy: {default: allow}
"""


def dari(
    node: Node, *words: str, check: bool = True, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "dari.cli.main", "-H", f"unix://{node.socket}", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env=dict(os.environ),
        timeout=60 * PATIENCE,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def answers(node: Node, caller: Any, name: str, port: int = 80) -> bool:
    """Whether a server answers at all (404 is an answer)."""
    address = node.address(node.client.containers.get(name), _network(node, name))
    words = ("curl", "-s", "--connect-timeout", "5", "-m", "40", "-o", "/dev/null", "-w", "%{http_code}")
    words += (f"http://{address}:{port}/",)
    told = node.run(*words, check=False) if caller is None else node.net(caller, *words, check=False)
    return told not in ("", "000")


def _network(node: Node, name: str) -> str:
    return next(iter(node.client.containers.get(name).attrs["NetworkSettings"]["Networks"]))


def doctor(node: Node) -> list[str]:
    found = json.loads(dari(node, "doctor", "--json", check=False).stdout)
    return [
        f"{each['Id']} {each['Object']}: {each['Text']}"
        for each in found
        if not each["Id"].startswith("host.")
    ]


def test_a_label_says_who_may_call(node: Node) -> None:
    node.client.networks.create("net")
    db = node.serve("db", "data", network="net", labels={"dari.policy": "deny; allow web 80"})
    web = node.sleeper("web", network="net")
    other = node.sleeper("other", network="net")
    assert answers(node, web, "db")
    assert not answers(node, other, "db")
    assert not answers(node, None, "db")
    # Its own calls are answered, names too.
    assert node.resolve(db, "web") == [node.address(web, "net")]
    assert db.labels["dari.policy"] == "deny; allow web 80"
    # A peer that comes again with another address may call, the one that has its old address may not.
    web.remove(force=True)
    squatter = node.sleeper("squatter", network="net")
    assert not answers(node, squatter, "db")
    web = node.sleeper("web", network="net")
    assert answers(node, web, "db")
    assert doctor(node) == []
    other.exec_run("true")


def test_a_networks_label_is_for_all_its_containers(node: Node) -> None:
    node.client.networks.create("net", labels={"dari.policy": "deny; allow web to db 80"})
    node.serve("db", "data", network="net")
    node.serve("cache", "more", network="net")
    web = node.serve("web", "page", network="net")
    assert answers(node, web, "db")
    assert not answers(node, web, "cache")
    assert not answers(node, node.client.containers.get("db"), "web")
    assert doctor(node) == []


def test_wrong_policies_are_refused_and_leave_nothing(node: Node) -> None:
    before = node.kernel()
    with pytest.raises(docker.errors.APIError, match=r"label dari\.policy.*is no port") as caught:
        node.client.containers.create(IMAGE, labels={"dari.policy": "allow web http"})
    assert caught.value.response.status_code == 400
    with pytest.raises(docker.errors.APIError, match=r"label dari\.policy.*begin with allow or deny"):
        node.client.networks.create("net", labels={"dari.policy": "let web"})
    assert node.client.containers.list(all=True) == [] and node.kernel() == before


def test_a_restarted_daemon_goes_on_with_them(node: Node) -> None:
    node.client.networks.create("net")
    node.serve("db", "data", network="net", labels={"dari.policy": "deny; allow web 80"})
    web = node.sleeper("web", network="net")
    node.kill()
    node.start()
    assert answers(node, web, "db")
    assert doctor(node) == []
    rogue = node.sleeper("rogue", network="net")
    assert not answers(node, rogue, "db")


def test_rules_that_are_taken_away_come_back(node: Node) -> None:
    node.client.networks.create("net")
    db = node.serve("db", "data", network="net", labels={"dari.policy": "deny; allow web 80"})
    other = node.sleeper("other", network="net")
    node.net(db, "nft", "delete", "table", "inet", "dari")
    wait_for("the policy is in force again", lambda: not answers(node, other, "db"))


def test_compose_says_it_for_a_project(node: Node, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(FILE)
    try:
        dari(node, "up", "-d", folder=tmp_path)
        container = {name: node.client.containers.get(f"shop-{name}-1") for name in ("web", "db", "stranger")}
        assert answers(node, container["web"], "shop-db-1")
        assert not answers(node, container["stranger"], "shop-db-1")
        assert not answers(node, container["stranger"], "shop-web-1")
        assert answers(node, container["db"], "shop-stranger-1")
        assert (
            node.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:8080/") == "404"
        )
        assert container["db"].labels["dari.policy"] == "deny; allow web 80"
        # What explain says is what packets do.
        assert dari(node, "explain", "shop-web-1", "shop-db-1:80", check=False).returncode == 0
        told = dari(node, "explain", "shop-stranger-1", "shop-db-1:80", check=False)
        assert told.returncode != 0
        assert "closed" in told.stdout or "refuse" in told.stdout or "reject" in told.stdout, told.stdout
        verified = dari(node, "verify", "shop", check=False)
        assert verified.returncode == 0, verified.stdout
        # Nothing has changed: nothing is made anew; a changed policy makes its service anew.
        before = container["db"].id
        dari(node, "up", "-d", folder=tmp_path)
        assert node.client.containers.get("shop-db-1").id == before
        (tmp_path / "compose.yaml").write_text(FILE.replace("to: db, ports: [80]", "to: db, ports: [81]"))
        dari(node, "up", "-d", folder=tmp_path)
        assert node.client.containers.get("shop-db-1").id != before
        assert not answers(node, container["web"], "shop-db-1")
        assert doctor(node) == []
    finally:
        dari(node, "down", "-t", "0", folder=tmp_path, check=False)
