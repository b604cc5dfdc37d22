"""The pinpoint stack with miniature programs: thirteen services, five kinds of names, start-up carried by restarts.

Its files are unmodified and looked for beside the repository's folder. The images are miniatures of a few megabytes
(`miniature.py`); test_pinpoint_real.py runs the real programs.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from tests.scenarios.conftest import wait_for
from tests.stacks import miniature
from tests.stacks.conftest import Stack
from tests.stacks.pinpoint import (
    BASE,
    NEEDS_FILES,
    NETWORK,
    SOURCES,
    all_up,
    ask,
    attributes,
    counted,
    files,
    gone,
    main_server,
    modes,
    state,
    zoo_port,
)
from tests.stacks.world import CLIENTS, INTERNET, OUTSIDE, OnDocker, chosen, docker_bed, outside

pytestmark = [
    NEEDS_FILES,
]


bed, on_docker, folder = outside, docker_bed, files


@pytest.fixture(scope="module", params=CLIENTS)
def stack(request: pytest.FixtureRequest, folder: Path) -> Iterator[Stack]:
    compose = Stack(*chosen(request), folder)
    compose("up", "-d")
    try:
        yield compose
    finally:
        compose("down", "-v", "-t", "2")
        gone(compose)


def test_every_program_comes_up(stack: Stack) -> None:
    assert set(stack.containers()) == BASE
    all_up(stack)
    found = attributes(stack)
    assert found["pinpoint-mysql"]["HostConfig"]["RestartPolicy"]["Name"] in ("no", "")
    assert found["pinpoint-agent"]["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    # These two have no policy: they waited by themselves.
    for service in ("jobmanager", "taskmanager"):
        assert state(stack, service)["RestartCount"] == 0
    (script,) = found["pinpoint-mysql"]["Args"][1:]
    assert hashlib.sha256(script.encode()).hexdigest().startswith("a59f77a72d4c5ce9")


def test_addresses(stack: Stack) -> None:
    node = stack.bed.node
    network = node.client.networks.get(NETWORK)
    assert network.attrs["Driver"] == "bridge"
    assert network.attrs["IPAM"]["Config"][0]["Subnet"] == "172.24.0.0/27"
    all_up(stack)
    found = {service: node.address(each, NETWORK) for service, each in stack.containers().items()}
    assert found["pinpoint-collector"] == "172.24.0.30"
    others = [
        ipaddress.ip_address(each) for service, each in found.items() if service != "pinpoint-collector"
    ]
    assert len(set(others)) == 12
    assert all(
        ipaddress.ip_address("172.24.0.2") <= each <= ipaddress.ip_address("172.24.0.29") for each in others
    )
    settings = stack.containers()["pinpoint-collector"].attrs["NetworkSettings"]["Networks"][NETWORK]
    assert (settings["Gateway"], settings["IPPrefixLen"]) == ("172.24.0.1", 27)
    assert settings["IPAMConfig"]["IPv4Address"] == "172.24.0.30"
    pool = docker.types.IPAMPool(subnet="172.24.0.16/28")
    with pytest.raises(docker.errors.APIError, match="Pool overlaps with other one on this address space"):
        node.client.networks.create("overlap", ipam=docker.types.IPAMConfig(pool_configs=[pool]))


def test_five_kinds_of_names(stack: Stack) -> None:
    node, found = stack.bed.node, stack.containers()
    web, hbase = found["pinpoint-web"], found["pinpoint-hbase"]
    all_up(stack, {"pinpoint-web"})
    kinds = {
        "zoo1": "zoo1",  # service
        "redis": "redis",
        "pinpoint-redis": "redis",  # hostname only
        "pinpoint-flink-jobmanager": "jobmanager",  # container name only
        "jobmanager": "jobmanager",
        "pinpoint-mysql": "pinpoint-mysql",  # link
        hbase.id[:12]: "pinpoint-hbase",  # short id
    }
    for name, service in kinds.items():
        assert node.resolve(web, name) == [node.address(found[service], NETWORK)], name
    back = node.inside(web, "nslookup", node.address(hbase, NETWORK))
    assert f"name = pinpoint-hbase.{NETWORK}" in back
    assert "NXDOMAIN" in node.inside(web, "nslookup", "-type=a", "pinpoint-nobody", check=False)
    assert node.resolve(web, SOURCES) == [INTERNET]
    # A link's other names are the linking container's own.
    assert hbase.attrs["Config"]["Hostname"] == hbase.id[:12]
    assert ask(stack.bed, zoo_port(stack, "zoo1"), "get hbase").strip() == hbase.id[:12]


def test_zookeeper_elects(stack: Stack) -> None:
    ports = {service: zoo_port(stack, service) for service in ("zoo1", "zoo2", "zoo3")}
    assert len(set(ports.values())) == 3
    for service, port in ports.items():
        assert stack("port", service, "2181").strip() == f"0.0.0.0:{port}"

    def elected(count: int) -> str:
        """The leader, while `count` servers agree."""
        said = modes(stack, lambda bed, port: ask(bed, port, "srvr"))
        leaders = [service for service, mode in said.items() if mode == "leader"]
        return leaders[0] if len(leaders) == 1 and len(said) == count else ""

    first = wait_for("a leader", lambda: elected(3), 30)
    stack("stop", "-t", "1", first)
    second = wait_for("another leader", lambda: elected(2), 30)
    assert second != first
    # What somebody stopped stays so, `restart: always` or not.
    assert state(stack, first)["Running"] is False
    stack("start", first)
    wait_for("all three", lambda: elected(3), 30)


def test_one_volume_two_containers(stack: Stack) -> None:
    """Filled from the agent's image with its owner, edited by the agent, read by the application."""
    all_up(stack, {"pinpoint-agent", "pinpoint-quickstart"})
    volume = stack.bed.node.client.volumes.get("pinpoint-docker_data-volume")
    mounted = {
        service: [(each["Type"], each.get("Name"), each["Destination"]) for each in attrs["Mounts"]]
        for service, attrs in attributes(stack).items()
    }
    for service in ("pinpoint-agent", "pinpoint-quickstart"):
        assert mounted[service] == [("volume", volume.name, "/pinpoint-agent")]
    config = stack.inside("pinpoint-quickstart", "cat", "/pinpoint-agent/profiles/release/pinpoint.config")
    assert "profiler.transport.grpc.collector.ip=pinpoint-collector\n" in config
    owners = stack.inside(
        "pinpoint-quickstart", "stat", "-c", "%u", "/pinpoint-agent", "/pinpoint-agent/pinpoint-bootstrap.jar"
    )
    assert owners == f"{miniature.AGENT_OWNER}\n" * 2
    # HBase's: one named, one anonymous.
    kinds = {destination: name for _, name, destination in mounted["pinpoint-hbase"]}
    assert kinds["/home/pinpoint/hbase"] == "pinpoint-docker_hbase_data"
    assert re.fullmatch(r"[0-9a-f]{64}", str(kinds["/home/pinpoint/zookeeper"]))
    assert stack.inside("pinpoint-hbase", "cat", "/home/pinpoint/hbase/hbase.version") == "skeleton\n"


def test_a_port_of_both_kinds(stack: Stack) -> None:
    all_up(stack, {"pinpoint-collector"})
    collector = stack.containers()["pinpoint-collector"]
    bound = collector.attrs["NetworkSettings"]["Ports"]
    listed = stack.bed.node.client.api.containers(filters={"name": "pinpoint-collector"})[0]["Ports"]
    for port in (9995, 9996):
        for kind in ("tcp", "udp"):
            assert bound[f"{port}/{kind}"][0]["HostPort"] == str(port)
            assert (port, port, kind) in {
                (each["PrivatePort"], each.get("PublicPort"), each["Type"]) for each in listed
            }
        # From another machine, to this one's address.
        for address in (OUTSIDE, "127.0.0.1"):
            word = f"datagram-{port}-{address}"
            send(stack.bed, address, port, word)
            wait_for("the datagram", lambda word=word, port=port: word in stack.inside(
                "pinpoint-collector", "cat", f"/tmp/udp-{port}"), 10)  # fmt: skip
        assert (
            stack.bed.world.run("sh", "-c", f"echo hello | timeout 5 nc -w 3 {OUTSIDE} {port}")
            == "collector\n"
        )


def send(bed: Any, address: str, port: int, word: str) -> None:
    """A datagram, from outside unless to this machine's loopback."""
    program = "import socket, sys; _, word, *to = sys.argv\n"
    program += "socket.socket(type=socket.SOCK_DGRAM).sendto(word.encode() + b'\\n', (to[0], int(to[1])))"
    if address.startswith("127."):
        bed.node.run(sys.executable, "-c", program, word, address, str(port))
    else:
        bed.world.run(sys.executable, "-c", program, word, address, str(port))


def test_requests_on_the_map(stack: Stack) -> None:
    all_up(stack)
    before = counted(stack)
    assert before >= 0
    for _ in range(25):
        assert stack.bed.node.curl(None, "http://127.0.0.1:8085/getCurrentTimestamp") == "span: stored\n"
    assert counted(stack) == before + 25
    assert wait_for("the task manager", lambda: stack.bed.json("http://127.0.0.1:8081/overview")) == {
        "taskmanagers": 1
    }


def test_a_killed_collector_is_back(stack: Stack) -> None:
    all_up(stack, {"pinpoint-collector"})
    node, before = stack.bed.node, state(stack, "pinpoint-collector")
    os.kill(main_server(before["Pid"]), signal.SIGKILL)

    def is_back() -> bool:
        now = state(stack, "pinpoint-collector")
        return bool(now["Pid"] not in (0, before["Pid"]))

    wait_for("the collector again", is_back, 30)
    assert state(stack, "pinpoint-collector")["RestartCount"] == before["RestartCount"] + 1
    assert node.address(stack.containers()["pinpoint-collector"], NETWORK) == "172.24.0.30"
    all_up(stack, {"pinpoint-collector"})
    assert stack.bed.node.curl(None, "http://127.0.0.1:8085/") == "span: stored\n"


def test_restarts_carry_the_web(stack: Stack) -> None:
    """Without the name it dials it ends and is started again, until the name is there."""
    all_up(stack)
    stack("stop", "-t", "1", "redis")
    before = state(stack, "pinpoint-web")
    os.kill(main_server(before["Pid"]), signal.SIGKILL)
    wait_for(
        "a second try", lambda: state(stack, "pinpoint-web")["RestartCount"] >= before["RestartCount"] + 2, 60
    )
    text = stack.containers()["pinpoint-web"].logs().decode()
    assert "web: pinpoint-redis:6379 does not answer" in text
    stack("start", "redis")
    all_up(stack, {"pinpoint-web", "redis"})


def test_data_and_names_after_down_and_up(stack: Stack) -> None:
    all_up(stack)
    count, tables = counted(stack), ask(stack.bed, 3306, "tables").strip()
    assert tables == "17"
    ids = stack.ids()
    stack("down", "-t", "1")
    client = stack.bed.node.client
    assert stack.containers() == {} and NETWORK not in {each.name for each in client.networks.list()}
    assert {each.name for each in client.volumes.list()} >= {
        "pinpoint-docker_data-volume", "pinpoint-docker_mysql_data", "pinpoint-docker_hbase_data"
    }  # fmt: skip
    stack("up", "-d")
    assert set(stack.ids().values()).isdisjoint(ids.values())
    all_up(stack)
    assert counted(stack) == count
    assert ask(stack.bed, 3306, "tables").strip() == "17"
    assert "initializing" not in stack.containers()["pinpoint-mysql"].logs().decode()
    assert stack.bed.node.address(stack.containers()["pinpoint-collector"], NETWORK) == "172.24.0.30"


def test_a_new_daemon_finds_the_stack(stack: Stack) -> None:
    """kill -9 of darid: the stack goes on; what ends meanwhile is started again when darid is back."""
    if isinstance(stack.bed, OnDocker):
        pytest.skip("a property of dari's")
    all_up(stack)
    node, count = stack.bed.node, counted(stack)
    before = {service: state(stack, service) for service in BASE}
    node.kill()
    assert node.curl(None, "http://127.0.0.1:8085/") == "span: stored\n"
    os.kill(main_server(before["pinpoint-collector"]["Pid"]), signal.SIGKILL)
    node.start()
    all_up(stack)
    for service in BASE - {"pinpoint-collector"}:
        assert state(stack, service)["Pid"] == before[service]["Pid"], service
    assert node.address(stack.containers()["pinpoint-collector"], NETWORK) == "172.24.0.30"
    assert node.curl(None, "http://127.0.0.1:8085/") == "span: stored\n"
    assert counted(stack) == count + 2
