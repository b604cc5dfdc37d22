"""The pinpoint stack with the real programs: ZooKeeper, HBase, MariaDB, Redis, Flink, collector, web, a traced Tomcat.

About two gigabytes and some minutes; slow. Images come from `script/images pinpoint` and are kept in the cache.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.scenarios.conftest import wait_for
from tests.stacks.conftest import Beds, Stack
from tests.stacks.pinpoint import BASE, FOLDER, METRIC, NETWORK, OVERRIDE, modes, srvr, state, zoo_port

IMAGES = (
    *("pinpoint", "zookeeper:3.4.13", "mysql:8.0", "redis:7.0.14"),
    *("kafka", "pinot", "telegraf", "zookeeper-3.8", "pinpoint-web-metric", "pinpoint-collector-metric"),
)
WEB, QUICKSTART = "http://127.0.0.1:8080/api", "http://127.0.0.1:8085"
GREEN_SECONDS = 1200
REQUESTS = 25

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the stack's files are not beside the repository"),
    pytest.mark.timeout(3000),
]


@pytest.fixture(scope="module")
def stack(make_bed: Beds, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("files") / "pinpoint-docker"
    shutil.copytree(FOLDER, folder)
    compose = Stack(make_bed(*IMAGES), "dari compose", folder)
    compose("pull", "-q")
    compose("up", "-d")
    try:
        yield compose
    finally:
        compose(*OVERRIDE, "down", "-v", "-t", "5")


@pytest.fixture(scope="module")
def green(stack: Stack) -> float:
    """Seconds from `up` until every program serves."""
    begun = time.monotonic()
    waits(stack, GREEN_SECONDS)
    took = time.monotonic() - begun
    print(f"\ntime to green {took:.0f} s, {memory(stack)}")
    return took


def waits(stack: Stack, seconds: float) -> None:
    """Until the web knows the time, HBase has its tables, Flink its job, and the application answers."""
    wait_for("the web", lambda: stack.bed.json(f"{WEB}/serverTime"), seconds)
    wait_for("the collector", lambda: listens(stack), seconds)
    wait_for("the tables", lambda: "16 there" in logs(stack, "pinpoint-hbase"), seconds)
    wait_for("flink's job", lambda: jobs(stack) == ["RUNNING"], seconds)
    wait_for("the application", lambda: stack.bed.node.curl(None, f"{QUICKSTART}/"), seconds)


def listens(stack: Stack) -> bool:
    collector = stack.containers()["pinpoint-collector"]
    if collector.status != "running":
        return False
    return bool(stack.bed.node.net(collector, "ss", "-Hltn", "sport", "=", ":9993", check=False))


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


def counted(stack: Stack, since: int) -> int:
    """Requests on the link from the user to the application since a moment (ms)."""
    asked = f"applicationName=quickapp&serviceTypeName=TOMCAT&from={since}&to={since + 3_600_000}"
    told = stack.bed.json(f"{WEB}/getServerMapDataV2?{asked}&callerRange=1&calleeRange=1&bidirectional=true")
    links = (told or {}).get("applicationMapData", {}).get("linkDataArray", [])
    found = [
        each for each in links if (each["from"], each["to"]) == ("quickapp_TOMCAT^USER", "quickapp^TOMCAT")
    ]
    return int(found[0]["totalCount"]) if found else 0


def settled(stack: Stack, since: int) -> int:
    """The count once nothing more is on its way: the collector writes its sums every few seconds."""
    seen, steady = -1, 0
    while steady < 12:
        now = counted(stack, since)
        seen, steady = now, steady + 1 if now == seen else 0
        time.sleep(1)
    return seen


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


def leader(stack: Stack, count: int) -> str:
    said = modes(stack, srvr)
    leaders = [service for service, mode in said.items() if mode == "leader"]
    followers = [service for service, mode in said.items() if mode == "follower"]
    return leaders[0] if len(leaders) == 1 and len(followers) == count - 1 else ""


def test_green(green: float, stack: Stack) -> None:
    assert set(stack.containers()) == BASE
    assert stack.bed.node.address(stack.containers()["pinpoint-collector"], NETWORK) == "172.24.0.30"
    labels = {service: each.labels.get("dari.stand-in") for service, each in stack.containers().items()}
    assert {service for service, label in labels.items() if label} == {
        "pinpoint-batch",
        "jobmanager",
        "taskmanager",
    }
    overview = "http://127.0.0.1:8081/overview"
    wait_for("flink's task manager", lambda: (stack.bed.json(overview) or {}).get("taskmanagers") == 1, 180)


def test_names(green: float, stack: Stack) -> None:
    found = stack.containers()
    hbase = found["pinpoint-hbase"]
    address = {service: stack.bed.node.address(each, NETWORK) for service, each in found.items()}
    kinds = {
        "zoo1": "zoo1", "redis": "redis", "pinpoint-redis": "redis", "jobmanager": "jobmanager",
        "pinpoint-flink-jobmanager": "jobmanager", "pinpoint-mysql": "pinpoint-mysql", hbase.id[:12]: "pinpoint-hbase",
    }  # fmt: skip
    for name, service in kinds.items():
        assert stack.inside("pinpoint-web", "getent", "hosts", name).split()[0] == address[service], name
    back = stack.inside("pinpoint-web", "getent", "hosts", address["pinpoint-hbase"])
    assert f"pinpoint-hbase.{NETWORK}" in back
    assert stack.inside("pinpoint-web", "getent", "hosts", "pinpoint-nobody") == ""


def test_zookeeper(green: float, stack: Stack) -> None:
    assert len({zoo_port(stack, service) for service in ("zoo1", "zoo2", "zoo3")}) == 3
    first = wait_for("a leader and two followers", lambda: leader(stack, 3), 60)
    os.kill(java(stack, first), signal.SIGKILL)
    wait_for("all three after a kill", lambda: leader(stack, 3), 120)
    assert state(stack, first)["RestartCount"] >= 1
    first = leader(stack, 3)
    stack("stop", "-t", "5", first)
    second = wait_for("a new leader", lambda: leader(stack, 2), 60)
    assert second != first
    stack("start", first)
    wait_for("all three", lambda: leader(stack, 3), 120)
    assert modes(stack, srvr)[first] == "follower"


def test_the_database(green: float, stack: Stack) -> None:
    query = ("mariadb", "-hpinpoint-mysql", "-uadmin", "-padmin", "pinpoint", "-Ne", "show tables")
    assert len(stack.inside("pinpoint-mysql", *query).split()) == 17


def test_requests_on_the_server_map(green: float, stack: Stack) -> None:
    wait_for("HBase's one region server", lambda: live_servers(stack) == 1, 60)
    reconnected(stack)
    begun = now_at(stack) - 3_000_000
    before = settled(stack, begun)
    requests(stack, REQUESTS)
    wait_for("all on the map", lambda: counted(stack, begun) >= before + REQUESTS, 120)
    assert settled(stack, begun) == before + REQUESTS
    told = wait_for("the application", lambda: stack.bed.json(f"{WEB}/applications"), 400)
    assert ("quickapp", "TOMCAT") in {(each["applicationName"], each["serviceType"]) for each in told}


def live_servers(stack: Stack) -> int:
    told = stack.bed.json("http://127.0.0.1:16010/jmx?qry=Hadoop:service=HBase,name=Master,sub=Server")
    beans: list[dict[str, Any]] = told["beans"] if told else []
    return int(beans[0].get("numRegionServers", 0)) if beans else 0


def test_a_killed_collector(green: float, stack: Stack) -> None:
    before = state(stack, "pinpoint-collector")
    os.kill(java(stack, "pinpoint-collector"), signal.SIGKILL)
    wait_for("a new life", lambda: state(stack, "pinpoint-collector")["Pid"] not in (0, before["Pid"]), 60)
    assert state(stack, "pinpoint-collector")["RestartCount"] == before["RestartCount"] + 1
    assert stack.bed.node.address(stack.containers()["pinpoint-collector"], NETWORK) == "172.24.0.30"
    wait_for("the collector", lambda: listens(stack), 300)
    reconnected(stack)
    begun = now_at(stack) - 3_000_000
    before = settled(stack, begun)
    requests(stack, REQUESTS)
    wait_for("all on the map", lambda: counted(stack, begun) >= before + REQUESTS, 120)


def reconnected(stack: Stack) -> None:
    """The traced application's four streams to the collector are up again."""
    quickstart = stack.containers()["pinpoint-quickstart"]

    def streams() -> set[str]:
        told = stack.bed.node.net(quickstart, "ss", "-Htn", "dst", "172.24.0.30")
        return set(re.findall(r"172\.24\.0\.30\]?:(999[123])", told))

    wait_for("the agent's streams", lambda: streams() == {"9991", "9992", "9993"}, 300)


def test_a_killed_daemon(green: float, stack: Stack) -> None:
    node = stack.bed.node
    before = {service: state(stack, service)["Pid"] for service in BASE}
    node.kill()
    requests(stack, 5)
    node.start()
    assert {service: state(stack, service)["Pid"] for service in BASE} == before
    requests(stack, 5)


def test_data_survives_down_and_up(green: float, stack: Stack) -> None:
    begun = now_at(stack) - 3_000_000
    count = counted(stack, begun)
    assert count > 0
    ids = stack.ids()
    stack("down", "-t", "30")
    assert stack.containers() == {}
    stack("up", "-d")
    assert set(stack.ids().values()).isdisjoint(ids.values())
    waits(stack, GREEN_SECONDS)
    wait_for("the old requests", lambda: counted(stack, begun) >= count, 300)
    assert "initializing" not in logs(stack, "pinpoint-mysql")
    assert Path(stack.bed.node.client.volumes.get("pinpoint-docker_hbase_data").attrs["Mountpoint"]).is_dir()


def test_the_override_on_the_running_stack(green: float, stack: Stack) -> None:
    """Kafka and its ZooKeeper are real; Pinot, telegraf and the two made anew are stand-ins and say so."""
    before = stack.ids()
    stack(*OVERRIDE, "pull", "-q")
    stack(*OVERRIDE, "up", "-d")
    assert set(stack.containers()) == METRIC
    after = stack.ids()
    anew = {service for service in BASE if before[service] != after[service]}
    assert {"pinpoint-web", "pinpoint-collector"} <= anew
    assert not anew & {"pinpoint-hbase", "pinpoint-mysql", "zoo1", "zoo2", "zoo3", "redis"}

    def ended_well(service: str) -> bool:
        now = state(stack, service)
        return bool(now["Status"] == "exited" and now["ExitCode"] == 0)

    for service in ("pinpoint-kafka-init", "pinot-init"):
        wait_for(f"{service} has ended well", lambda service=service: ended_well(service), 600)
        assert state(stack, service)["RestartCount"] == 0
    assert logs(stack, "pinpoint-kafka-init").count("Created topic") == 7
    labelled = {service for service, each in stack.containers().items() if "dari.stand-in" in each.labels}
    assert labelled == METRIC - {
        "pinpoint-hbase", "pinpoint-mysql", "pinpoint-quickstart", "pinpoint-agent", "zoo1", "zoo2", "zoo3", "redis",
        "pinpoint-kafka", "pinpoint-kafka-init", "pinot-zoo",
    }  # fmt: skip
    for service in ("pinpoint-web", "pinpoint-collector", "telegraf"):
        wait_for(f"{service} is up", lambda service=service: "(stand-in): up" in logs(stack, service), 300)
    assert stack.bed.node.address(stack.containers()["pinpoint-collector"], NETWORK) == "172.24.0.30"
