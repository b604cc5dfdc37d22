"""The pinpoint stack with the real programs: ZooKeeper, HBase, MariaDB, Redis, Flink, collector, web, a traced Tomcat.

About two gigabytes and some minutes; slow. Images come from `script/images pinpoint` and are kept in the cache.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scenarios.conftest import wait_for
from tests.stacks.conftest import Beds, Stack
from tests.stacks.pinpoint import (
    BASE,
    COLLECTOR,
    IMAGES,
    METRIC,
    NEEDS_FILES,
    NETWORK,
    OVERRIDE,
    REQUESTS,
    WEB,
    all_serve,
    counted,
    files,
    gone,
    has_ended_well,
    java,
    leader,
    listens,
    live_servers,
    logs,
    memory,
    modes,
    now_at,
    reconnected,
    requests,
    settled,
    srvr,
    state,
    traced,
    zoo_port,
)

OVERRIDE_IMAGES = (
    "kafka",
    "pinot",
    "telegraf",
    "zookeeper-3.8",
    "pinpoint-web-metric",
    "pinpoint-collector-metric",
)

pytestmark = [
    pytest.mark.slow,
    NEEDS_FILES,
    pytest.mark.timeout(3000),
]


folder = files


@pytest.fixture(scope="module")
def stack(make_bed: Beds, folder: Path) -> Iterator[Stack]:
    compose = Stack(make_bed(*IMAGES, *OVERRIDE_IMAGES), "dari compose", folder)
    compose("pull", "-q")
    compose("up", "-d")
    try:
        yield compose
    finally:
        compose(*OVERRIDE, "down", "-v", "-t", "5")
        gone(compose)


@pytest.fixture(scope="module")
def green(stack: Stack) -> float:
    """Seconds from `up` until every program serves."""
    begun = time.monotonic()
    all_serve(stack)
    took = time.monotonic() - begun
    print(f"\ntime to green {took:.0f} s, {memory(stack)}")
    return took


def test_green(green: float, stack: Stack) -> None:
    assert set(stack.containers()) == BASE
    assert stack.bed.node.address(stack.containers()["pinpoint-collector"], NETWORK) == COLLECTOR
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
    first = wait_for("a leader and two followers", lambda: leader(stack, 3, srvr), 60)
    os.kill(java(stack, first), signal.SIGKILL)
    wait_for("all three after a kill", lambda: leader(stack, 3, srvr), 120)
    assert state(stack, first)["RestartCount"] >= 1
    first = leader(stack, 3, srvr)
    stack("stop", "-t", "5", first)
    second = wait_for("a new leader", lambda: leader(stack, 2, srvr), 60)
    assert second != first
    stack("start", first)
    wait_for("all three", lambda: leader(stack, 3, srvr), 120)
    assert modes(stack, srvr)[first] == "follower"


def test_the_database(green: float, stack: Stack) -> None:
    query = ("mariadb", "-hpinpoint-mysql", "-uadmin", "-padmin", "pinpoint", "-Ne", "show tables")
    assert len(stack.inside("pinpoint-mysql", *query).split()) == 17


def test_requests_on_the_server_map(green: float, stack: Stack) -> None:
    wait_for("HBase's one region server", lambda: live_servers(stack) == 1, 60)
    traced(stack)
    told = wait_for("the application", lambda: stack.bed.json(f"{WEB}/applications"), 400)
    assert ("quickapp", "TOMCAT") in {(each["applicationName"], each["serviceType"]) for each in told}


def test_a_killed_collector(green: float, stack: Stack) -> None:
    before = state(stack, "pinpoint-collector")
    os.kill(java(stack, "pinpoint-collector"), signal.SIGKILL)
    wait_for("a new life", lambda: state(stack, "pinpoint-collector")["Pid"] not in (0, before["Pid"]), 60)
    assert state(stack, "pinpoint-collector")["RestartCount"] == before["RestartCount"] + 1
    assert stack.bed.node.address(stack.containers()["pinpoint-collector"], NETWORK) == COLLECTOR
    wait_for("the collector", lambda: listens(stack, "pinpoint-collector", 9993), 300)
    reconnected(stack)
    begun = now_at(stack) - 3_000_000
    before = settled(stack, begun)
    requests(stack, REQUESTS)
    wait_for("all on the map", lambda: counted(stack, begun) >= before + REQUESTS, 120)


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
    all_serve(stack)
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

    for service in ("pinpoint-kafka-init", "pinot-init"):
        wait_for(f"{service} has ended well", lambda service=service: has_ended_well(stack, service), 600)
        assert state(stack, service)["RestartCount"] == 0
    assert logs(stack, "pinpoint-kafka-init").count("Created topic") == 7
    labelled = {service for service, each in stack.containers().items() if "dari.stand-in" in each.labels}
    assert labelled == METRIC - {
        "pinpoint-hbase", "pinpoint-mysql", "pinpoint-quickstart", "pinpoint-agent", "zoo1", "zoo2", "zoo3", "redis",
        "pinpoint-kafka", "pinpoint-kafka-init", "pinot-zoo",
    }  # fmt: skip
    for service in ("pinpoint-web", "pinpoint-collector", "telegraf"):
        wait_for(f"{service} is up", lambda service=service: "(stand-in): up" in logs(stack, service), 300)
    assert stack.bed.node.address(stack.containers()["pinpoint-collector"], NETWORK) == COLLECTOR
