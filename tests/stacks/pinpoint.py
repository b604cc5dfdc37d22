"""What all tests of the pinpoint stack share: what its files say, and questions to its programs."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Protocol

import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import wait_for
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
IMAGES = ("pinpoint", "zookeeper:3.4.13", "mysql:8.0", "redis:7.0.14")
OVERRIDE = ("-f", "docker-compose.yml", "-f", "docker-compose-metric.yml")
NETWORK = "pinpoint-docker_pinpoint"
SOURCES = "raw.githubusercontent.com"
WEB, QUICKSTART, COLLECTOR = "http://127.0.0.1:8080/api", "http://127.0.0.1:8085", "172.24.0.30"
REQUESTS = 25
TRAFFIC = ("quickapp_TOMCAT^USER", "quickapp^TOMCAT")
# The longest any of the real programs has taken, several times over.
GREEN_SECONDS = 1200
NEEDS_FILES = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the stack's files are not beside the repository"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the stack's folder, under its own name."""
    copied = tmp_path_factory.mktemp("files") / FOLDER.name
    shutil.copytree(FOLDER, copied)
    return copied


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
    deadline = time.monotonic() + 90 * PATIENCE
    while waiting:
        found = stack.containers()
        waiting = {service for service in waiting if service not in found or not is_up(found[service])}
        if waiting and time.monotonic() > deadline:
            logs = {each: found[each].logs(tail=5).decode() for each in waiting if each in found}
            raise AssertionError(f"not up: {waiting}, {logs}")
        time.sleep(0.1 if waiting else 0)


def counted(stack: Stack, since: int = 0) -> int:
    """Requests on the server map's link from the user to the application in the hour after `since` (ms); -1 while the
    map has no such link."""
    asked = f"applicationName=quickapp&serviceTypeName=TOMCAT&from={since}&to={since + 3_600_000}"
    told = stack.bed.json(f"{WEB}/getServerMapDataV2?{asked}&callerRange=1&calleeRange=1&bidirectional=true")
    for each in (told or {}).get("applicationMapData", {}).get("linkDataArray", []):
        if (each["from"], each["to"]) == TRAFFIC:
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


def leader(stack: Stack, count: int, question: Callable[[Bed, int], str]) -> str:
    """The service that leads while `count` ZooKeepers agree on one; empty while they do not."""
    said = modes(stack, question)
    leaders = [service for service, mode in said.items() if mode == "leader"]
    followers = [service for service, mode in said.items() if mode == "follower"]
    return leaders[0] if len(leaders) == 1 and len(followers) == count - 1 else ""


def has_ended_well(stack: Stack, service: str) -> bool:
    now = state(stack, service)
    return bool(now["Status"] == "exited" and now["ExitCode"] == 0)


def gone(stack: Stack) -> None:
    """Nothing of it is left after `down -v`, and its ports can be bound again at once."""
    client = stack.bed.node.client
    assert stack.containers() == {}
    assert client.volumes.list(filters={"label": f"com.docker.compose.project={stack.project}"}) == []
    assert NETWORK not in {each.name for each in client.networks.list()}
    for kind in ("-l", "-lu"):
        assert stack.bed.node.run("timeout", "0.3", "nc", kind, "127.0.0.1", "9995", check=False) == ""


def main_server(pid: int) -> int:
    """The first server a miniature started: what `java` is in the real one."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0])


# The real programs


def all_serve(stack: Stack, seconds: float = GREEN_SECONDS) -> None:
    """Until the web knows the time, HBase has its tables, Flink its job, and the application answers."""
    wait_for("the web", lambda: stack.bed.json(f"{WEB}/serverTime"), seconds)
    wait_for("the collector", lambda: listens(stack, "pinpoint-collector", 9993), seconds)
    wait_for("the tables", lambda: "16 there" in logs(stack, "pinpoint-hbase"), seconds)
    wait_for("flink's job", lambda: jobs(stack) == ["RUNNING"], seconds)
    wait_for("the application", lambda: stack.bed.node.curl(None, f"{QUICKSTART}/"), seconds)


def listens(stack: Stack, service: str, port: int) -> bool:
    container = stack.containers()[service]
    if container.status != "running":
        return False
    return bool(stack.bed.node.net(container, "ss", "-Hltn", "sport", "=", f":{port}", check=False))


def logs(stack: Stack, service: str) -> str:
    return str(stack.containers()[service].logs().decode(errors="replace"))


def jobs(stack: Stack) -> list[str]:
    told = stack.bed.json("http://127.0.0.1:8081/jobs/overview")
    return [each["state"] for each in told["jobs"]] if told else []


def memory(stack: Stack) -> str:
    """What each service's control group holds resident, in MB."""
    found = {}
    for service, container in stack.containers().items():
        usage = container.stats(stream=False)["memory_stats"]
        found[service] = (usage.get("stats") or {}).get("rss", usage.get("usage", 0)) // 1_000_000
    parts = ", ".join(f"{service} {size}" for service, size in sorted(found.items()))
    return f"{sum(found.values())} MB: {parts}"


def settled(stack: Stack, since: int) -> int:
    """The count once nothing more is on its way: the collector writes its sums every few seconds."""
    seen, steady = -1, 0
    while steady < 12:
        now = counted(stack, since)
        seen, steady = now, steady + 1 if now == seen else 0
        time.sleep(1)
    return max(0, seen)


def now_at(stack: Stack) -> int:
    return int(stack.bed.json(f"{WEB}/serverTime")["currentServerTime"])


def requests(stack: Stack, count: int) -> None:
    for _ in range(count):
        assert stack.bed.node.curl(None, f"{QUICKSTART}/getCurrentTimestamp").endswith(
            "/getCurrentTimestamp\n"
        )


def java(stack: Stack, service: str) -> int:
    """The process id of a service's JVM on this machine."""
    for each in stack.containers()[service].top()["Processes"]:
        if any(word == "java" or word.endswith("/java") for word in " ".join(each).split()):
            return int(each[1])
    raise AssertionError(f"no java in {service}")


def live_servers(stack: Stack) -> int:
    told = stack.bed.json("http://127.0.0.1:16010/jmx?qry=Hadoop:service=HBase,name=Master,sub=Server")
    beans: list[dict[str, Any]] = told["beans"] if told else []
    return int(beans[0].get("numRegionServers", 0)) if beans else 0


def reconnected(stack: Stack) -> None:
    """The traced application's four streams to the collector are up again."""
    quickstart = stack.containers()["pinpoint-quickstart"]

    def streams() -> set[str]:
        told = stack.bed.node.net(quickstart, "ss", "-Htn", "dst", COLLECTOR)
        return set(re.findall(rf"{re.escape(COLLECTOR)}\]?:(999[123])", told))

    wait_for("the agent's streams", lambda: streams() == {"9991", "9992", "9993"}, 300)


def traced(stack: Stack) -> None:
    """New requests are on the map, each once."""
    reconnected(stack)
    begun = now_at(stack) - 3_000_000
    before = settled(stack, begun)
    requests(stack, REQUESTS)
    wait_for("all on the map", lambda: counted(stack, begun) >= before + REQUESTS, 120)
    assert settled(stack, begun) == before + REQUESTS
