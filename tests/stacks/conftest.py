"""Whole stacks: images from a registry on the machine's loopback, brought up by the clients people use."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import Node, machine, node, wait_for

__all__ = ["machine", "node"]

ROOT = Path(__file__).parents[2]
REGISTRY = "127.0.0.1:5005"
_BUILD_SECONDS = 2400
DIES_WITH_US = ("setpriv", "--pdeathsig", "TERM")


def cache_folder() -> Path:
    chosen = os.environ.get("DARI_CACHE")
    if not chosen:
        chosen = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")) + "/dari"
    return Path(chosen) / "images"


def is_serving() -> bool:
    with contextlib.suppress(OSError):
        return bool(urllib.request.urlopen(f"http://{REGISTRY}/v2/", timeout=2).status == 200)
    return False


def build_images(*names: str) -> None:
    """Have `script/images` build what is not built yet; it needs the package registries, so it runs outside."""
    was_serving = is_serving()
    done = subprocess.run(
        [str(ROOT / "script/images"), "--registry", REGISTRY, *names],
        capture_output=True,
        text=True,
        timeout=_BUILD_SECONDS,
    )
    if not was_serving:
        subprocess.run([str(ROOT / "script/images"), "--registry", REGISTRY, "--stop"], capture_output=True)
    if done.returncode:
        pytest.skip(f"the images cannot be built here: {done.stderr.strip()}")


class Bed:
    """A machine with a registry of the built images on its loopback, and darid at Docker's own address too."""

    def __init__(self, folder: Path) -> None:
        mirrors = [f"{host}=http://{REGISTRY}" for host in ("docker.io", "quay.io", "gcr.io")]
        self.node = Node(folder, *(word for each in mirrors for word in ("--mirror", each)))
        # HBase's ports are ones the kernel gives to clients, and the pulls before are many clients: a port that one of
        # them had cannot be bound for a minute.
        self.node.run("sysctl", "-qw", "net.ipv4.ip_local_reserved_ports=60000,60020")
        self._serve_registry()
        # A fresh /run, so that what a container sees in it is this machine's.
        self.node.run("mount", "-t", "tmpfs", "tmpfs", "/run")
        self.node.run("touch", "/run/docker.sock")
        self.node.run("mount", "--bind", self.node.socket, "/run/docker.sock")

    def _serve_registry(self) -> None:
        settings = self.node.folder / "registry.yml"
        settings.write_text(
            "version: 0.1\nlog: {level: error}\n"
            f"storage: {{filesystem: {{rootdirectory: {json.dumps(str(cache_folder() / 'registry'))}}}}}\n"
            f"http: {{addr: {json.dumps(REGISTRY)}}}\n"
        )
        self.registry = subprocess.Popen(
            [
                "nsenter",
                "-t",
                str(self.node.holder.pid),
                "-n",
                *DIES_WITH_US,
                "docker-registry",
                "serve",
                str(settings),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for("the registry", lambda: self.node.curl(None, f"http://{REGISTRY}/v2/") == "{}")

    def json(self, url: str, *options: str) -> Any:
        """The JSON a URL answers on this machine; None while there is none."""
        told = self.node.run("curl", "-sg", "-m", "5", *options, url, check=False)
        with contextlib.suppress(ValueError):
            return json.loads(told)
        return None

    def close(self) -> None:
        self.registry.send_signal(signal.SIGTERM)
        self.registry.wait(20 * PATIENCE)
        self.node.close()


class Stack:
    """A Compose file on a bed, through one of the clients; the test is skipped where that client is not there."""

    def __init__(self, bed: Bed, client: str, folder: Path) -> None:
        if client == "docker-compose" and shutil.which(client) is None:
            pytest.skip("needs docker-compose 1.29")
        self.bed, self.client, self.folder = bed, client, folder
        self.project = folder.name

    def __call__(self, *words: str, check: bool = True, env: dict[str, str] | None = None) -> str:
        """stdout of a Compose command."""
        program = {
            "dari compose": [sys.executable, "-m", "dari.cli.main", "compose"],
            "docker-compose": ["docker-compose"],
        }[self.client]
        done = subprocess.run(
            [*program, *words],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT / "src"),
                "DOCKER_HOST": f"unix://{self.bed.node.socket}",
                **(env or {}),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120 * PATIENCE,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{self.client} {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout if check else done.stdout + done.stderr

    def containers(self) -> dict[str, Any]:
        """The project's containers by service, ended ones too."""
        chosen = {"label": f"com.docker.compose.project={self.project}"}
        found = self.bed.node.client.containers.list(all=True, filters=chosen)
        return {each.labels["com.docker.compose.service"]: each for each in found}

    def ids(self) -> dict[str, str]:
        return {service: each.id for service, each in self.containers().items()}

    def inside(self, service: str, *command: str) -> str:
        """What a command says in a service's container, by the API's exec."""
        return str(self.containers()[service].exec_run(list(command)).output.decode())


Beds = Callable[..., Bed]


@pytest.fixture(scope="module")
def make_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beds]:
    """Builds the named images, then makes a machine that can pull them."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    for program in ("docker-registry", "buildah"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    made: list[Bed] = []

    def make(*images: str) -> Bed:
        build_images(*images)
        made.append(Bed(tmp_path_factory.mktemp("bed")))
        return made[-1]

    yield make
    for each in made:
        each.close()
