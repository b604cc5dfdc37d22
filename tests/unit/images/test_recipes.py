"""Which recipe an image's name leads to, and what the demo says while a stack comes up."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[3] / "script"


def script(name: str) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(SCRIPTS / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    made = importlib.util.module_from_spec(spec)
    loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def images() -> ModuleType:
    return script("images")


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("mysql:8.0", ("mysql", "docker.io/library/mysql", "8.0")),
        ("zookeeper:3.4.13", ("zookeeper", "docker.io/library/zookeeper", "3.4.13")),
        ("zookeeper:3.8.0-temurin", ("zookeeper-3.8", "docker.io/library/zookeeper", "3.8.0-temurin")),
        ("pinpointdocker/pinpoint-web", ("pinpoint-web", "docker.io/pinpointdocker/pinpoint-web", "latest")),
        (
            "pinpointdocker/pinpoint-web:latest-metric",
            ("pinpoint-web-metric", "docker.io/pinpointdocker/pinpoint-web", "latest-metric"),
        ),
        (
            "quay.io/prometheus/node-exporter:latest",
            ("node-exporter", "quay.io/prometheus/node-exporter", "latest"),
        ),
    ],
)
def test_a_name_leads_to_a_recipe(images: ModuleType, name: str, target: tuple[str, str, str]) -> None:
    assert images.targets(name) == [target]


def test_stacks_and_folders_are_names_too(images: ModuleType) -> None:
    assert len(images.targets("pinpoint")) == 10 and len(images.targets("prometheus")) >= 5
    assert images.targets("kafka") == [("kafka", "docker.io/ubuntu/kafka", "3.1-22.04_beta")]
    with pytest.raises(images.Failed, match="no recipe for nobody/nothing"):
        images.targets("nobody/nothing")


def test_every_recipe_can_be_built_from(images: ModuleType) -> None:
    known = images.recipes()
    for folder, recipe in known.items():
        assert recipe.get("base", folder) in known, folder
        assert (SCRIPTS.parent / "examples/images" / folder / "Dockerfile").is_file(), folder
        assert ("maven" in recipe) == (SCRIPTS.parent / "examples/images" / folder / "pom.xml").is_file(), (
            folder
        )
        for source in recipe.get("inside", {}).values():
            assert source.split(":")[0] in known, folder


def container(name: str, **state: Any) -> dict[str, Any]:
    started = {"StartedAt": datetime.now(UTC).isoformat()}
    return {
        "Id": f"{name}0123456789ab",
        "Name": f"/{name}",
        "State": {"Status": "running", "Pid": 0, "ExitCode": 0, **started, **state},
        "RestartCount": 2,
        "HostConfig": {"RestartPolicy": {"Name": "always"}, "Links": None},
        "Config": {"Hostname": f"{name}-host", "Labels": {"com.docker.compose.service": f"{name}-service"}, "Env": []},
        "NetworkSettings": {"Ports": {"80/tcp": [{"HostPort": "8080"}], "5/udp": [{"HostPort": "5"}], "81/tcp": None}},
    }  # fmt: skip


def test_who_waits_for_whom() -> None:
    watch = script("what-comes-up")
    web, db = container("web"), container("db")
    web["Config"]["Env"] = ["URL=jdbc:mysql://db-host:3306/x", "OTHER=nobody"]
    web["Config"]["Labels"]["dari.stand-in"] = "the web"
    names = watch.known_names([web, db])
    assert watch.needs(web, names) == {"/db": "db-host"}
    assert watch.published(web) == {80}
    assert watch.missing(web) == watch.Missing("not yet on 80")
    waiting = {"/web": watch.Missing("not yet on 80"), "/db": watch.Missing("restarting")}
    line = "not yet on 80, waits for db-host; started again 2 times"
    assert watch.text(web, waiting, names) == line
    assert watch.text(db, {}, names) == "is there"
    assert watch.text(web, {}, names) == "is there  (a stand-in for the web)"


@pytest.mark.parametrize(
    ("state", "policy", "missing"),
    [
        ({"Status": "exited", "ExitCode": 0}, "no", ""),
        ({"Status": "exited", "ExitCode": 0}, "always", "ended with 0"),
        ({"Status": "exited", "ExitCode": 3}, "no", "ended with 3"),
        ({"Status": "restarting"}, "always", "restarting"),
        ({"Health": {"Status": "starting"}}, "no", "health: starting"),
        ({}, "always", "restarting"),
        ({"StartedAt": "2001-01-01T00:00:00.123456789Z"}, "always", ""),
    ],
)
def test_what_is_missing(state: dict[str, Any], policy: str, missing: str) -> None:
    found = container("web", **state)
    found["HostConfig"]["RestartPolicy"]["Name"] = policy
    found["NetworkSettings"]["Ports"] = {}
    reason = script("what-comes-up").missing(found)
    assert (reason.text if reason else "") == missing


def test_a_port_nobody_opens_is_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Once others of the same container are open, nothing has changed for long, and whom it needs is there."""
    watching = script("what-comes-up")
    web, db = container("web"), container("db")
    web["Config"]["Env"] = ["DB=db-host"]
    for each, port in ((web, 81), (db, 90)):
        each["NetworkSettings"]["Ports"][f"{port}/tcp"] = [{"HostPort": str(port)}]
    opened = {"web": {80}, "db": set()}
    watching.listening = lambda pid: opened[pid]
    web["State"]["Pid"], db["State"]["Pid"] = "web", "db"
    now = 100.0
    watching.time = SimpleNamespace(monotonic=lambda: now)
    watch = watching.Watch()
    assert watch.look([db, web]).keys() == {"/db", "/web"}
    now += watching.SETTLED_SECONDS + 1
    # The database has opened nothing yet.
    assert watch.look([db, web]).keys() == {"/db", "/web"}
    opened["db"] = {80}
    assert watch.look([db, web]).keys() == {"/db"}
    now += watching.SETTLED_SECONDS
    assert watch.look([db, web]) == {}
    told = [line.split("s  ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert told == [
        "db   not yet on 80 90; started again 2 times",
        "web  not yet on 81, waits for db-host; started again 2 times",
        "db   not yet on 90; started again 2 times",
        "web  is there; nobody listens on 81",
        "db   is there; nobody listens on 90",
    ]


def test_ports_behind_each_other_are_one_line() -> None:
    runs = script("what-runs")
    collector = container("collector")
    doors = [{"HostIp": "0.0.0.0", "HostPort": str(port)} for port in (9991, 9992, 9995)]
    collector["NetworkSettings"]["Ports"] = {
        **{f"{each['HostPort']}/tcp": [each] for each in doors},
        "9995/udp": [doors[2], {"HostIp": "::", "HostPort": "9995"}],
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
    }
    assert runs.runs(runs.doors_of(collector)) == [
        ("127.0.0.1", "8080", "collector", "80", "tcp"),
        ("localhost", "9991-9992", "collector", "9991-9992", "tcp"),
        ("localhost", "9995", "collector", "9995", "tcp"),
        ("localhost", "9995", "collector", "9995", "udp"),
    ]


def test_a_page_is_told_from_other_ports() -> None:
    speaks = script("what-runs").speaks_http
    for answer, is_page in ((b"HTTP/1.1 200 OK\r\n\r\n", True), (b"-ERR unknown command\r\n", False)):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def serve(server: socket.socket = server, answer: bytes = answer) -> None:
                peer, _ = server.accept()
                with peer:
                    peer.recv(1000)
                    peer.sendall(answer)

            thread = threading.Thread(target=serve)
            thread.start()
            assert speaks(("127.0.0.1", server.getsockname()[1], "", 0, "tcp")) is is_page
            thread.join()
