"""What the tests of the pinpoint stack share: its files, a machine with a way out, questions to its programs."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

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


class Outside(Bed):
    """A machine with the miniatures and a way to a world of one name, which has no way back by itself."""

    def __init__(self, folder: Path) -> None:
        (folder / "daemon.json").write_text(json.dumps({"dns": [INTERNET]}))
        self.node = Node(folder)
        self.world = subprocess.Popen(["unshare", "-n", "sh", "-c", "ip link set lo up && exec sleep 100000"])
        wait_for("the world", lambda: Path(f"/proc/{self.world.pid}/comm").read_text() == "sleep\n")
        self.node.run(
            "ip", "link", "add", "out0", "type", "veth", "peer", "name", "in0", "netns", str(self.world.pid)
        )
        self.node.run("ip", "addr", "add", f"{OUTSIDE}/24", "dev", "out0")
        self.node.run("ip", "link", "set", "out0", "up")
        within = ["nsenter", "-t", str(self.world.pid), "-n"]
        subprocess.run([*within, "ip", "addr", "add", f"{INTERNET}/24", "dev", "in0"], check=True)
        subprocess.run([*within, "ip", "link", "set", "in0", "up"], check=True)
        self.server = subprocess.Popen(
            [*within, sys.executable, "-m", "tests.stacks.internet", INTERNET, SOURCES], cwd=ROOT
        )
        wait_for("the world's answer", lambda: self.node.curl(None, f"http://{INTERNET}/x.json"))
        miniature.load(self.node.client)

    def close(self) -> None:
        self.node.close()
        for each in (self.server, self.world):
            each.kill()
            each.wait()

    def ask(self, address: str, port: int, words: str) -> str:
        """What a port of this machine says to a line."""
        return self.node.run("sh", "-c", f"echo {words} | timeout 5 nc -w 3 {address} {port}", check=False)


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
    stamp = re.sub(r"(\.\d{6})\d*", r"\1", container.attrs["State"]["StartedAt"]).replace("Z", "+00:00")
    begun = datetime.datetime.fromisoformat(stamp).timestamp() - 0.001
    return bool(container.logs(since=begun, tail=1).decode().rstrip().endswith(": up"))


def all_up(stack: Stack, services: Collection[str] = BASE) -> None:
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


def modes(stack: Stack) -> dict[str, str]:
    """What each ZooKeeper says it is, asked on its ephemeral port; those that do not say are left out."""
    said = {}
    for service in ("zoo1", "zoo2", "zoo3"):
        if stack.containers()[service].status == "running":
            told = stack.bed.ask("127.0.0.1", zoo_port(stack, service), "srvr")
            if "Mode: " in told:
                said[service] = told.partition("Mode: ")[2].split()[0]
    return said


def main_server(pid: int) -> int:
    """The first server a miniature started: what `java` is in the real one."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0])
