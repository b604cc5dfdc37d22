"""What the tests of the pinpoint stack share: its files, a machine with a way out, questions to its programs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Protocol

from tests.scenarios.conftest import Node, wait_for
from tests.stacks import miniature
from tests.stacks.conftest import ROOT, Bed, Stack

FOLDER = ROOT.parent / "shared" / "stacks" / "pinpoint-docker"
BASE = {
    "jobmanager", "pinpoint-agent", "pinpoint-batch", "pinpoint-collector", "pinpoint-hbase", "pinpoint-mysql",
    "pinpoint-quickstart", "pinpoint-web", "redis", "taskmanager", "zoo1", "zoo2", "zoo3",
}  # fmt: skip
METRIC = BASE | {
    "pinot-broker-0", "pinot-controller", "pinot-init", "pinot-server-0", "pinot-zoo", "pinpoint-kafka",
    "pinpoint-kafka-init", "telegraf",
}  # fmt: skip
UNDEFINED = {
    "PINPOINT_MODULES_WEB_LOGIN",
    "WEB_SECURITY_AUTH_USER",
    "WEB_SECURITY_AUTH_ADMIN",
    "WEB_SECURITY_AUTH_JWT_SECRETKEY",
}
# The third word of each folded entry point, split as a shell would: its length and the start of its sha256.
SCRIPTS = {
    "pinpoint-mysql": (605, "a59f77a72d4c5ce9"),
    "pinpoint-kafka-init": (807, "50420acb4b9a6ebb"),
    "pinot-init": (4064, "f51db7042515408f"),
    "telegraf": (239, "9c2e11fb98da468e"),
}
OVERRIDE = ("-f", "docker-compose.yml", "-f", "docker-compose-metric.yml")
NETWORK = "pinpoint-docker_pinpoint"
OUTSIDE, INTERNET = "203.0.113.1", "203.0.113.2"
SOURCES = "raw.githubusercontent.com"
MAP = (
    "http://127.0.0.1:8080/api/getServerMapDataV2?applicationName=quickapp&serviceTypeName=TOMCAT&from=0&to=1"
)


class World:
    """One name, one address, a few files behind a wire that ends in the network namespace of a process.

    It has no way back by itself: who is not seen as that machine gets no answer.
    """

    def __init__(self, pid: int) -> None:
        self.holder = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "ip link set lo up && exec sleep 100000"]
        )
        wait_for("the world", lambda: Path(f"/proc/{self.holder.pid}/comm").read_text() == "sleep\n")
        theirs = str(self.holder.pid)
        near = ["nsenter", "-t", str(pid), "-n", "ip"]
        far = ["nsenter", "-t", theirs, "-n"]
        for command in (
            [*near, "link", "add", "out0", "type", "veth", "peer", "name", "in0", "netns", theirs],
            [*near, "addr", "add", f"{OUTSIDE}/24", "dev", "out0"],
            [*near, "link", "set", "out0", "up"],
            [*far, "ip", "addr", "add", f"{INTERNET}/24", "dev", "in0"],
            [*far, "ip", "link", "set", "in0", "up"],
        ):
            subprocess.run(command, check=True, capture_output=True)
        self.server = subprocess.Popen(
            [*far, sys.executable, "-m", "tests.stacks.internet", INTERNET, SOURCES], cwd=ROOT
        )
        url = f"http://{INTERNET}/x.json"
        wait_for("the world's answer", lambda: self.run("curl", "-s", "-m", "2", url))

    def run(self, *command: str) -> str:
        """What a program out there says."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.holder.pid), "-n", *command],
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout

    def close(self) -> None:
        for each in (self.server, self.holder):
            each.kill()
            each.wait()


class Outside(Bed):
    """A machine with the miniatures and a way to the world."""

    def __init__(self, folder: Path) -> None:
        (folder / "daemon.json").write_text(json.dumps({"dns": [INTERNET]}))
        self.node = Node(folder)
        self.world = World(self.node.holder.pid)
        miniature.load(self.node.client)

    def close(self) -> None:
        self.node.close()
        self.world.close()


def ask(bed: Bed, port: int, words: str) -> str:
    """What a port of this machine says to a line."""
    return bed.node.run("sh", "-c", f"echo {words} | timeout 5 nc -w 3 127.0.0.1 {port}", check=False)


def attributes(stack: Stack) -> dict[str, Any]:
    return {service: each.attrs for service, each in stack.containers().items()}


def state(stack: Stack, service: str) -> dict[str, Any]:
    container = stack.containers()[service]
    container.reload()
    return {**container.attrs["State"], "RestartCount": container.attrs["RestartCount"]}


def is_up(container: Any) -> bool:
    """It has come past what it waits for, and runs still."""
    if container.status != "running":
        return False
    return bool(container.logs(tail=1).decode().rstrip().endswith(": up"))


class Watched(Protocol):
    def containers(self) -> dict[str, Any]: ...


def all_up(stack: Watched, services: Collection[str] = BASE) -> None:
    waiting: Collection[str] = services
    deadline = time.monotonic() + 90
    while waiting:
        found = stack.containers()
        waiting = {service for service in waiting if service not in found or not is_up(found[service])}
        if waiting and time.monotonic() > deadline:
            logs = {each: found[each].logs(tail=5).decode() for each in waiting if each in found}
            raise AssertionError(f"not up: {waiting}, {logs}")
        time.sleep(0.1 if waiting else 0)


def counted(stack: Stack) -> int:
    told = stack.bed.json(MAP)
    links = told["applicationMapData"]["linkDataArray"] if told else []
    for each in links:
        if (each["from"], each["to"]) == ("quickapp_TOMCAT^USER", "quickapp^TOMCAT"):
            return int(each["totalCount"])
    return -1


def zoo_port(stack: Stack, service: str) -> int:
    container = stack.containers()[service]
    container.reload()
    return int(container.attrs["NetworkSettings"]["Ports"]["2181/tcp"][0]["HostPort"])


def srvr(bed: Bed, port: int) -> str:
    """What a real ZooKeeper says of itself.

    Without a newline: it reads four bytes and closes, and a byte left unread makes that a reset, which may overtake the
    answer.
    """
    return bed.node.run("sh", "-c", f"printf srvr | timeout 5 nc -q 3 127.0.0.1 {port}", check=False)


def modes(stack: Stack, question: Callable[[Bed, int], str]) -> dict[str, str]:
    """What each ZooKeeper says it is, asked on its ephemeral port; those that do not say are left out."""
    said = {}
    for service in ("zoo1", "zoo2", "zoo3"):
        if stack.containers()[service].status == "running":
            told = question(stack.bed, zoo_port(stack, service))
            if "Mode: " in told:
                said[service] = told.partition("Mode: ")[2].split()[0]
    return said


def main_server(pid: int) -> int:
    """The first server a miniature started: what `java` is in the real one."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0])
