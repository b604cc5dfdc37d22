"""Ports published and taken back while the container runs, with real traffic, over deaths of the daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from tests.patience import PATIENCE
from tests.scenarios.conftest import Node, wait_for


def dari(node: Node, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "dari.cli.main", "-H", f"unix://{node.socket}", *words],
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
        env={**os.environ, "DOCKER_HOST": ""},
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def ports(node: Node, container: Any) -> dict[str, Any]:
    container.reload()
    found: dict[str, Any] = container.attrs["NetworkSettings"]["Ports"]
    return found


def test_add_list_remove(node: Node) -> None:
    node.client.networks.create("web")
    server = node.serve("srv", "hello", network="web")
    started = server.attrs["State"]["StartedAt"]
    assert node.curl(None, "http://127.0.0.1:8080/") == ""
    assert dari(node, "port", "add", "srv", "8080:80", "127.0.0.1:9000-9001:80-81").stdout.splitlines() == [
        "80/tcp -> 0.0.0.0:8080",
        "80-81/tcp -> 127.0.0.1:9000-9001",
    ]
    assert node.curl(None, "http://127.0.0.1:8080/") == "hello\n"
    assert node.curl(None, "http://127.0.0.1:9000/") == "hello\n"
    assert dari(node, "port", "ls", "srv").stdout == dari(node, "port", "ls", "srv").stdout
    assert "80/tcp -> 127.0.0.1:9000" in dari(node, "port", "srv").stdout
    assert ports(node, server)["81/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "9001"}]
    assert "8080->80/tcp" in dari(node, "ps").stdout
    refused = dari(node, "port", "add", "srv", "8080:81", check=False)
    assert refused.returncode == 1 and "port is already allocated" in refused.stderr
    dari(node, "port", "rm", "srv", "8080:80")
    assert node.curl(None, "http://127.0.0.1:8080/") == ""
    assert node.curl(None, "http://127.0.0.1:9000/") == "hello\n"
    # A restart of the container keeps what was added, and not what was taken.
    server.restart(timeout=0)
    wait_for("the server", lambda: node.curl(None, "http://127.0.0.1:9000/") == "hello\n")
    assert node.curl(None, "http://127.0.0.1:8080/") == ""
    dari(node, "port", "rm", "srv", "80-81")
    assert ports(node, server) == {}
    server.reload()
    assert server.attrs["State"]["StartedAt"] != started


def test_they_outlive_the_daemon(node: Node) -> None:
    server = node.serve("srv", "hello")
    dari(node, "port", "add", "srv", "8080:80", "10000-19999:10000-19999")
    node.kill()
    assert node.curl(None, "http://127.0.0.1:8080/") == "hello\n"
    node.start()
    assert node.curl(None, "http://127.0.0.1:8080/") == "hello\n"
    assert len(ports(node, server)) == 10001
    # They are held again.
    assert node.run("sh", "-c", "nc -l 127.0.0.1 8080 </dev/null 2>&1; true").strip().endswith("in use")
    dari(node, "port", "rm", "srv", "80", "10000-19999")
    assert ports(node, server) == {}
    rules = json.loads(node.run("nft", "-j", "list", "table", "inet", "dari"))["nftables"]
    assert not [
        each for each in rules if "publish" in each.get("map", {}).get("name", "") and each["map"].get("elem")
    ]


def test_a_daemon_killed_at_any_moment_agrees_with_itself(node: Node) -> None:
    """Killed while ports come and go: afterwards store, kernel and inspect say the same, and all can be taken."""
    server = node.serve("srv", "hello")
    for delay in (0.0, 0.002, 0.005, 0.01, 0.02):
        worker = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sys; from dari.client.docker import Docker; d = Docker(sys.argv[1])\n"
                "path = '/dari/v1/containers/srv/ports'\n"
                "for n in range(8100, 8300):\n"
                "    d.post(path, {'PortBindings': {'80/tcp': [{'HostPort': str(n)}]}})\n"
                "    if n % 2: d.delete(path, port='80/tcp', hostport=n)",
                f"unix://{node.socket}",
            ],
            stderr=subprocess.DEVNULL,
        )
        wait_for("the first port", lambda: ports(node, server))
        time.sleep(delay)
        node.kill()
        worker.wait(20 * PATIENCE)
        node.start()
        shown = {
            int(each["HostPort"]) for bindings in ports(node, server).values() for each in bindings or ()
        }
        told = json.loads(node.run("nft", "-j", "list", "map", "inet", "dari", "publish_any4"))["nftables"]
        elements = next(each["map"].get("elem", []) for each in told if "map" in each)
        assert {each[0]["concat"][1] for each in elements} == shown
        assert shown
        dari(node, "port", "rm", "srv", "80")
        assert ports(node, server) == {}
