"""docker-compose 1.29: up, up again, a change, scale, exec, run, logs, down."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import Node

FILE = """
version: "3.7"
services:
  web:
    image: busybox
    command: sh -c "mkdir -p /www; echo hi > /www/index.html; httpd -f -p 80 -h /www"
    volumes: ["data:/data", "/anon"]
    depends_on: [db]
  db:
    image: busybox
    command: sleep 1000
    environment: {A: "@"}
volumes: {data: {}}
"""

Compose = Callable[..., str]


@pytest.fixture
def compose(node: Node, tmp_path: Path) -> Compose:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("needs docker-compose 1.29")

    def run(*words: str, value: str = "1") -> str:
        (tmp_path / "docker-compose.yml").write_text(FILE.replace("@", value))
        done = subprocess.run(
            [program, "-p", "shop", *words],
            cwd=tmp_path,
            env={**os.environ, "DOCKER_HOST": f"unix://{node.socket}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100 * PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def ids(node: Node) -> dict[str, str]:
    return {each.name: each.id for each in node.client.containers.list()}


def test_a_project(node: Node, compose: Compose) -> None:
    compose("up", "-d")
    first = ids(node)
    assert set(first) == {"shop_web_1", "shop_db_1"}
    compose("up", "-d")
    assert ids(node) == first
    assert compose("exec", "-T", "db", "wget", "-qO-", "http://web/") == "hi\n"
    compose("up", "-d", "--scale", "db=2", value="2")
    second = ids(node)
    assert set(second) == {"shop_web_1", "shop_db_1", "shop_db_2"}
    assert second["shop_db_1"] != first["shop_db_1"]
    assert compose("run", "--rm", "db", "echo", "one-off", value="2") == "one-off\n"
    assert "Up" in compose("ps", value="2")
    compose("restart", "-t", "0", value="2")
    compose("down", "-v", "-t", "0", value="2")
    assert node.client.containers.list(all=True) == []
    assert node.client.volumes.list() == []
