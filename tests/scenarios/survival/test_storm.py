"""darid, dari-dns or both are killed at random moments of ordinary work, again and again.

What ran goes on; what is after a restart agrees with the kernel; nothing is left over. Every number comes from the
seed in the test's name.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from tests.patience import PATIENCE
from tests.scenarios.conftest import IMAGE, Node, wait_for
from tests.scenarios.survival.ledger import check_agreement, containers, is_alive

_SOURCE = Path(__file__).parents[3] / "src"
_GONE = (docker.errors.DockerException, requests.RequestException, OSError)

COMPOSE = """\
services:
  db:
    image: busybox
    command: ["sleep", "1000"]
    stop_signal: SIGKILL
    networks: [back]
    volumes: ["data:/data"]
  web:
    image: busybox
    command: ["sleep", "1000"]
    stop_signal: SIGKILL
    depends_on: [db]
    networks: [front, back]
    ports: ["8090:80"]
  job:
    image: busybox
    command: ["true"]
    depends_on: [db]
    networks: [back]
networks: {front: {}, back: {}}
volumes: {data: {}}
"""


class Worker(threading.Thread):
    """Works like a user, over the API, until told to stop; what the engine answers wrongly is in `complaints`."""

    def __init__(self, node: Node, number: int, seed: int) -> None:
        super().__init__(name=f"worker {number}")
        self.node, self.number = node, number
        self.random = random.Random(seed * 100 + number)
        self.is_stopping = threading.Event()
        self.complaints: list[str] = []

    def run(self) -> None:
        while not self.is_stopping.is_set():
            act = self.random.choice(
                [self.job, self.short, self.server, self.restarting, self.network, self.connect, self.joined]
            )
            try:
                with contextlib.closing(self.node.client) as client:
                    act(client)
            except docker.errors.APIError as error:
                if error.status_code and error.status_code >= 500 and not self.is_stopping.is_set():
                    self.complaints.append(f"{act.__name__}: {error}")
            except _GONE:
                # The daemon is dead, or dies.
                time.sleep(0.01)

    def name_of(self, what: str) -> str:
        return f"w{self.number}-{what}"

    def take(self, client: Any, what: str) -> Any:
        """The container of that name, None if there is none."""
        with contextlib.suppress(docker.errors.NotFound):
            return client.containers.get(self.name_of(what))
        return None

    def job(self, client: Any) -> None:
        client.containers.run(IMAGE, ["true"], detach=True, auto_remove=True, network="web")

    def short(self, client: Any) -> None:
        found = self.take(client, "short")
        if found is not None:
            found.remove(force=True, v=True)
        client.containers.run(
            IMAGE, ["sleep", "0.1"], detach=True, name=self.name_of("short"), volumes=["/data"]
        )

    def server(self, client: Any) -> None:
        found = self.take(client, "server")
        if found is None:
            port = 8100 + self.number
            client.containers.run(
                IMAGE,
                ["sleep", "1000"],
                detach=True,
                name=self.name_of("server"),
                network="web",
                ports={"80/tcp": port, "53/udp": port},
            )
        elif self.random.random() < 0.5:
            found.stop(timeout=0)
            found.start()
        else:
            found.remove(force=True)

    def restarting(self, client: Any) -> None:
        found = self.take(client, "again")
        if found is None:
            client.containers.run(
                IMAGE,
                ["sleep", "1000"],
                detach=True,
                name=self.name_of("again"),
                network="web",
                restart_policy={"Name": "always"},
            )
        elif self.random.random() < 0.7:
            with contextlib.suppress(ProcessLookupError):
                pid = found.attrs["State"]["Pid"]
                if pid and found.attrs["State"]["Running"]:
                    os.kill(pid, signal.SIGKILL)
        else:
            found.remove(force=True)

    def network(self, client: Any) -> None:
        for each in client.networks.list(names=[self.name_of("net")]):
            for one in each.attrs["Containers"] or {}:
                each.disconnect(one, force=True)
            each.remove()
            return
        client.networks.create(self.name_of("net"))

    def connect(self, client: Any) -> None:
        found = self.take(client, "server")
        for each in client.networks.list(names=[self.name_of("net")]):
            if found is None:
                continue
            each.reload()
            if found.id in each.attrs["Containers"]:
                each.disconnect(found)
            else:
                each.connect(found, aliases=[f"alias{self.number}"])

    def joined(self, client: Any) -> None:
        found = self.take(client, "joined")
        if found is not None:
            found.remove(force=True)
            return
        server = self.take(client, "server")
        if server is not None and server.status == "running":
            client.containers.run(
                IMAGE,
                ["sleep", "1000"],
                detach=True,
                name=self.name_of("joined"),
                network_mode=f"container:{server.id}",
            )


class Composer(threading.Thread):
    """`dari compose up` and `down`, by turns."""

    def __init__(self, node: Node, seed: int) -> None:
        super().__init__(name="compose")
        self.node, self.random = node, random.Random(seed)
        self.is_stopping = threading.Event()
        self.complaints: list[str] = []
        self.folder = node.folder / "shop"
        self.folder.mkdir(exist_ok=True)
        (self.folder / "compose.yaml").write_text(COMPOSE)

    def compose(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dari.cli.main", "compose", *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(_SOURCE), "DOCKER_HOST": f"unix://{self.node.socket}"},
            capture_output=True,
            text=True,
            timeout=60 * PATIENCE,
        )

    def run(self) -> None:
        while not self.is_stopping.is_set():
            self.compose(*self.random.choice([("up", "-d"), ("up", "-d"), ("down", "-t", "0")]))


class Anchors:
    """Two containers nobody touches; they must never notice anything."""

    def __init__(self, node: Node) -> None:
        self.node = node
        node.client.networks.create("web")
        self.server = node.serve("anchor", "still here", network="web", ports={"80/tcp": 8080})
        self.client = node.sleeper("watcher", network="web")
        self.before = self.state()
        self.pid = node.pid(self.client)
        self.address = node.address(self.server, "web")

    def state(self) -> list[tuple[str, int, str]]:
        return [
            (each["Name"], each["State"]["Pid"], each["State"]["StartedAt"])
            for each in containers(self.node)
            if each["Name"] in ("/anchor", "/watcher")
        ]

    def serve(self) -> None:
        """Without any daemon: over the bridge, and by the published port."""
        assert is_alive(self.pid)
        url = f"http://{self.address}/"
        assert self.node._enter(self.pid, ["-n"], ("curl", "-s", "-m", "20", url), False) == "still here\n"
        assert self.node.curl(None, "http://127.0.0.1:8080/") == "still here\n"

    def resolve(self) -> bool:
        told = self.node._enter(self.pid, ["-n", "-m"], ("nslookup", "-type=a", "anchor"), False)
        return f"Address: {self.address}" in told


@contextlib.contextmanager
def at_work(workers: list[Any]) -> Iterator[None]:
    for each in workers:
        each.start()
    try:
        yield
    finally:
        for each in workers:
            each.is_stopping.set()
        for each in workers:
            each.join(60 * PATIENCE)
            assert not each.is_alive(), f"{each.name} hangs"


def storm(node: Node, seed: int, rounds: int) -> None:
    chance = random.Random(seed)
    anchors = Anchors(node)
    for number in range(rounds):
        workers: list[Any] = [Worker(node, each, seed * 1000 + number) for each in range(2)]
        if chance.random() < 0.6:
            workers.append(Composer(node, seed * 1000 + number))
        victims = chance.choice(["darid", "darid", "both", "dns"])
        with at_work(workers):
            time.sleep(chance.choice([chance.uniform(0.02, 0.3), chance.uniform(0.3, 1.2)]))
            if victims != "darid":
                node.kill_dns()
            if victims != "dns":
                node.kill(chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        print(f"round {number}: {victims}")
        complaints = [line for each in workers for line in each.complaints]
        if victims == "dns":
            # A start may fail while nobody answers names; everything else may not.
            complaints = [line for line in complaints if "dari-dns" not in line]
        assert not complaints, "\n".join(complaints)
        if victims != "both":
            assert anchors.resolve() or victims == "dns"
        anchors.serve()
        if victims != "dns":
            while chance.random() < 0.4:
                # A start is work like any other.
                node.start(waits=False)
                time.sleep(chance.uniform(0.1, 0.9))
                node.kill()
            node.start()
        wait_for("names after the restart", anchors.resolve)
        anchors.serve()
        assert anchors.state() == anchors.before
        check_agreement(node)
    # What was cut short is taken up by the next command.
    composer = Composer(node, seed)
    for words in (("up", "-d"), ("down", "-v", "-t", "0")):
        done = composer.compose(*words)
        assert done.returncode == 0, done.stderr
        check_agreement(node)
    node.clear()
    volumes = node.client.volumes.prune(filters={"all": "true"})
    assert volumes is not None
    check_agreement(node)


@pytest.mark.parametrize("seed", [1, 2])
def test_storm(node: Node, seed: int) -> None:
    storm(node, seed, 5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(10, 20))
def test_long_storm(node: Node, seed: int) -> None:
    storm(node, seed, 20)
