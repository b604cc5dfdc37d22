"""Small projects of docker-compose 1.29 on a machine of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import Node, machine, node

__all__ = ["machine", "node"]

LABEL = "com.docker.compose"


class Project:
    """A folder with a Compose file. Calling it runs docker-compose there and gives its stdout."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node, self.folder = node, folder
        self.name = folder.name

    def write(self, text: str) -> None:
        (self.folder / "docker-compose.yml").write_text(text)

    def __call__(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [shutil.which("docker-compose") or "docker-compose", "--no-ansi", *words],
            cwd=self.folder,
            env={**os.environ, "DOCKER_HOST": f"unix://{self.node.socket}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100 * PATIENCE,
        )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout if code == 0 else done.stdout + done.stderr

    def containers(self) -> dict[str, Any]:
        """By name, ended ones and one-off ones too."""
        chosen = {"label": f"{LABEL}.project={self.name}"}
        return {each.name: each for each in self.node.client.containers.list(all=True, filters=chosen)}

    def ids(self) -> dict[str, str]:
        return {name: each.id for name, each in self.containers().items()}


@pytest.fixture
def project(node: Node, tmp_path: Path) -> Iterator[Callable[[str], Project]]:
    """Makes the project `shop` of a file's text; it is taken down with its volumes at the end."""
    if shutil.which("docker-compose") is None:
        pytest.skip("needs docker-compose 1.29")
    made: list[Project] = []

    def make(text: str) -> Project:
        folder = tmp_path / "shop"
        folder.mkdir()
        made.append(Project(node, folder))
        made[-1].write(text)
        return made[-1]

    yield make
    for each in made:
        each("down", "-v", "-t", "0", "--remove-orphans")
        assert each.containers() == {}
        assert node.client.volumes.list(filters={"label": f"{LABEL}.project=shop"}) == []
        assert node.client.networks.list(filters={"label": f"{LABEL}.project=shop"}) == []
