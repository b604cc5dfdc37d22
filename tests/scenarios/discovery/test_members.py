"""Members of services: containers by themselves, everything else by registering; checks decide, names follow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import Node, wait_for

from dari.client.discovery import Discovery
from dari.client.errors import ApiError

SOURCE = str(Path(__file__).parents[3] / "src")


@pytest.fixture
def members(node: Node) -> Iterator[Discovery]:
    with Discovery(f"unix://{node.socket}") as made:
        yield made
        for each in made._docker.get("/dari/v1/registrations"):
            made.deregister(each["ID"])


def dari(node: Node, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dari.cli.main", "-H", f"unix://{node.socket}", *words],
        env={**os.environ, "PYTHONPATH": SOURCE},
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
    )


def test_containers_are_members_from_start_to_stop(node: Node, members: Discovery) -> None:
    node.client.networks.create("net")
    node.serve("web1", "one", network="net", labels={"com.docker.compose.service": "web", "dari.tags": "a,b"})
    (found,) = members.lookup("web1")
    assert found["Source"] == "container"
    assert found["Network"] == "net"
    assert found["Tags"] == ["a", "b"]
    assert members.lookup("web1.net") != []
    assert members.lookup(found["ID"][:12]) == [{**found, "Service": found["ID"][:12]}]
    assert [each["Meta"]["container"] for each in members.services()["web"]] == ["web1"]
    node.client.containers.get("web1").stop(timeout=0)
    assert members.lookup("web1") == []


def test_a_container_is_listed_under_its_name_and_found_by_aliases(node: Node, members: Discovery) -> None:
    node.client.networks.create("net")
    aliases = node.client.api.create_endpoint_config(aliases=["*.web", "store"])
    node.sleeper("Db", network="net", networking_config={"net": aliases})
    found = members.services()
    assert [each["Service"] for each in found["db"]] == ["db"]
    assert not {"*.web", "store"} & found.keys()
    assert members.lookup("store") == [{**found["db"][0], "Service": "store"}]


def test_a_project_is_part_of_the_name_as_in_dns(node: Node, members: Discovery) -> None:
    node.client.networks.create("net")
    asker = node.sleeper("asker", network="net")
    for project in ("shop", "Blog"):
        labels = {"com.docker.compose.project": project, "com.docker.compose.service": "web"}
        alias = node.client.api.create_endpoint_config(aliases=["web"])
        options = {"labels": labels, "ports": {"80/tcp": None}, "networking_config": {"net": alias}}
        node.serve(f"{project}-web-1", project, network="net", **options)
    assert len(members.lookup("web")) == 2
    for name in ("web.shop", "shop-web-1.shop", "WEB.SHOP."):
        (found,) = members.lookup(name)
        assert found["Meta"]["container"] == "shop-web-1"
        assert [found["Address"]] == node.resolve(asker, name.rstrip("."))
        assert found["Ports"] == [{"Port": 80, "Protocol": "tcp"}]
    (found,) = next(iter(members.watch("web.blog")))
    assert found["Meta"]["container"] == "Blog-web-1"
    shown = dari(node, "lookup", "web.shop")
    assert (shown.returncode, shown.stdout.splitlines()[1].split()[:3]) == (
        0,
        ["web.shop", node.resolve(asker, "web.shop")[0], "80/tcp"],
    )
    assert dari(node, "lookup", "web.nobody").returncode == 1


def test_what_is_no_container_has_a_name_everywhere(node: Node, members: Discovery) -> None:
    node.client.networks.create("net")
    asker = node.sleeper("asker", network="net")
    told = dari(node, "register", "db", "--address", "192.0.2.5:5432", "--tag", "primary", "--meta", "zone=a")
    assert (told.returncode, told.stderr) == (0, "")
    registered = told.stdout.strip()
    assert node.resolve(asker, "db") == ["192.0.2.5"]
    shown = dari(node, "lookup", "db")
    assert shown.stdout.splitlines()[1].split() == [
        "db",
        "192.0.2.5",
        "5432/tcp",
        "passing",
        "registration",
        "primary",
    ]
    members.register("db", "192.0.2.6", 5432)
    assert node.resolve(asker, "db") == ["192.0.2.5", "192.0.2.6"]
    assert dari(node, "services").stdout.splitlines()[-1].split()[:3] == ["db", "2", "2"]
    refused = dari(node, "deregister", "db")
    assert refused.returncode == 1
    assert "has 2 registrations" in refused.stderr
    assert dari(node, "deregister", registered).returncode == 0
    assert node.resolve(asker, "db") == ["192.0.2.6"]
    assert dari(node, "lookup", "nobody").returncode == 1


def test_a_check_decides_and_names_follow(node: Node, members: Discovery) -> None:
    node.client.networks.create("net")
    asker = node.sleeper("asker", network="net")
    check = {"Kind": "tcp", "Interval": "100ms", "Timeout": "500ms", "Retries": 2}
    members.register("api", "127.0.0.1", 8099, checks=[check], tags=["here"])
    members.register("api", "192.0.2.9", 8099)
    wait_for(
        "the verdict", lambda: {each["Health"] for each in members.lookup("api")} == {"passing", "critical"}
    )
    assert [each["Address"] for each in members.lookup("api")] == ["192.0.2.9", "127.0.0.1"]
    assert [each["Address"] for each in members.lookup("api", healthy=True)] == ["192.0.2.9"]
    assert "connection refused" in members.lookup("api")[1]["Output"]
    wait_for("the name", lambda: node.resolve(asker, "api") == ["192.0.2.9"])
    server = subprocess.Popen(
        [
            "nsenter",
            "-t",
            str(node.holder.pid),
            "-n",
            sys.executable,
            "-m",
            "http.server",
            "8099",
            "--bind",
            "127.0.0.1",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for("it passes", lambda: {each["Health"] for each in members.lookup("api")} == {"passing"})
        wait_for("both names", lambda: node.resolve(asker, "api") == ["127.0.0.1", "192.0.2.9"])
    finally:
        server.kill()
        server.wait()


def test_http_and_command_checks(node: Node, members: Discovery) -> None:
    quick = {"Interval": "100ms", "Retries": 1}
    members.register("good", "192.0.2.1", checks=[{"Kind": "command", "Target": "test -d /", **quick}])
    members.register(
        "bad", "192.0.2.1", checks=[{"Kind": "command", "Target": "sh -c 'echo broken; exit 3'", **quick}]
    )
    members.register(
        "page", "192.0.2.1", checks=[{"Kind": "http", "Target": "http://127.0.0.1:9/x", **quick}]
    )
    wait_for("verdicts", lambda: members.lookup("good")[0]["Health"] == "passing")
    wait_for("verdicts", lambda: members.lookup("bad")[0]["Output"] == "broken")
    wait_for("verdicts", lambda: members.lookup("page")[0]["Health"] == "critical")


def test_a_member_that_is_not_heard_of_is_withdrawn(node: Node, members: Discovery) -> None:
    ttl = 1.0
    checks = [{"Kind": "ttl", "Interval": "1s"}]
    made = members.register("ghost", "192.0.2.7", checks=checks)
    began = time.monotonic()
    while time.monotonic() - began < 2 * ttl:
        last = time.monotonic()
        try:
            members.heartbeat(made["ID"])
            time.sleep(0.2)
            assert members.lookup("ghost")
        except (ApiError, AssertionError):
            # On a machine so slow that its time was over nothing is shown by this: once more.
            if time.monotonic() - last < ttl / 2:
                raise
            made = members.register("ghost", "192.0.2.7", checks=checks)
            began = time.monotonic()
    wait_for("it is withdrawn", lambda: not members.lookup("ghost"))
    with pytest.raises(ApiError) as caught:
        members.heartbeat(made["ID"])
    assert caught.value.status == 404
    assert "register again" in str(caught.value)


def test_a_watch_tells_every_change(node: Node, members: Discovery) -> None:
    node.client.networks.create("net")
    heard: list[list[str]] = []

    def listen() -> None:
        with Discovery(f"unix://{node.socket}") as other:
            for now in other.watch("web"):
                heard.append(sorted(each["Address"] for each in now))
                if len(heard) > 2 and not now:
                    return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    wait_for("the first word", lambda: heard == [[]])
    made = members.register("web", "192.0.2.3")
    wait_for("one", lambda: heard[-1] == ["192.0.2.3"])
    container = node.sleeper("web", network="net")
    wait_for("two", lambda: len(heard[-1]) == 2)
    container.remove(force=True)
    members.deregister(made["ID"])
    wait_for("none", lambda: heard[-1] == [])
    listener.join(10 * PATIENCE)


def test_unwell_containers_are_not_named_while_others_are(node: Node, members: Discovery) -> None:
    client = node.client
    client.networks.create("net")
    asker = node.sleeper("asker", network="net")
    check = {
        "test": ["CMD-SHELL", "test ! -e /tmp/ill"],
        "interval": 200_000_000,
        "timeout": 5_000_000_000,
        "retries": 1,
    }
    made: list[Any] = []
    for number in range(2):
        container = client.containers.create(
            "busybox", ["sleep", "1000"], name=f"w{number}", healthcheck=check
        )
        client.networks.get("net").connect(container, aliases=["w"])
        client.networks.get("bridge").disconnect(container)
        container.start()
        made.append(container)
    addresses = [node.address(each, "net") for each in made]
    wait_for("both", lambda: node.resolve(asker, "w") == sorted(addresses))
    node.inside(made[0], "touch", "/tmp/ill")
    wait_for("one", lambda: node.resolve(asker, "w") == [addresses[1]])
    assert node.resolve(asker, "w0") == [addresses[0]]
    assert [each["Health"] for each in members.lookup("w")] == ["passing", "critical"]
    node.inside(made[1], "touch", "/tmp/ill")
    wait_for("both again: none is better", lambda: node.resolve(asker, "w") == sorted(addresses))
    node.inside(made[0], "rm", "/tmp/ill")
    wait_for("the other", lambda: node.resolve(asker, "w") == [addresses[0]])


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"Name": "no spaces", "Address": "192.0.2.1"}, "invalid service name"),
        ({"Name": "", "Address": "192.0.2.1"}, "invalid service name"),
        ({"Name": "x", "Address": "somewhere"}, "invalid address 'somewhere' of x"),
        ({"Name": "x", "Address": "0.0.0.0"}, "nobody can be reached there"),
        ({"Name": "x", "Address": "255.255.255.255"}, "nobody can be reached there"),
        ({"Name": "x", "Address": "192.0.2.1", "ID": "a/b"}, "invalid id 'a/b' of x"),
        ({"Name": "x", "Address": "192.0.2.1", "ID": ".."}, "invalid id '..' of x"),
        ({"Name": "x", "Address": "192.0.2.1", "Port": 70000}, "invalid port 70000 of x"),
        ({"Name": "x", "Address": "192.0.2.1", "Tags": ["a b"]}, "invalid tag 'a b' of x"),
        ({"Name": "x", "Address": "192.0.2.1", "Checks": [{"Kind": "icmp"}]}, "invalid check 'icmp'"),
        ({"Name": "x", "Address": "192.0.2.1", "Checks": [{"Kind": "tcp"}]}, "it has no port"),
        (
            {"Name": "x", "Address": "192.0.2.1", "Checks": [{"Kind": "ttl", "Interval": "soon"}]},
            "invalid ttl check",
        ),
        ({"Name": "x", "Address": "192.0.2.1", "Protocol": "smoke"}, "invalid protocol 'smoke' of x"),
    ],
)
def test_what_makes_no_sense_is_refused(members: Discovery, body: dict[str, Any], text: str) -> None:
    with pytest.raises(ApiError) as caught:
        members._docker.post("/dari/v1/registrations", body)
    assert caught.value.status == 400
    assert text in str(caught.value)
    assert members._docker.get("/dari/v1/registrations") == []


def test_the_weight_of_a_known_member_may_change(members: Discovery) -> None:
    body = {"ID": "heavy", "Name": "x", "Address": "192.0.2.1"}
    for weight in (1, 3):
        members._docker.post("/dari/v1/registrations", {**body, "Weight": weight})
    assert [each["Weight"] for each in members.lookup("x")] == [3]
    members.deregister("heavy")


def test_prometheus_finds_its_targets(node: Node, members: Discovery) -> None:
    members.register("exporter", "192.0.2.8", 9100, tags=["metrics"], meta={"team": "x"})
    groups = json.loads(json.dumps(members._docker.get("/dari/v1/http_sd", tag="metrics")))
    assert groups == [
        {
            "targets": ["192.0.2.8:9100"],
            "labels": {
                "__meta_dari_service": "exporter",
                "__meta_dari_source": "registration",
                "__meta_dari_id": groups[0]["labels"]["__meta_dari_id"],
                "__meta_dari_network": "",
                "__meta_dari_node": "",
                "__meta_dari_health": "passing",
                "__meta_dari_tags": ",metrics,",
                "__meta_dari_meta_team": "x",
            },
        }
    ]


def test_registrations_survive_a_killed_daemon(node: Node, members: Discovery) -> None:
    node.client.networks.create("net")
    asker = node.sleeper("asker", network="net")
    members.register("kept", "192.0.2.44", checks=[{"Kind": "ttl", "Interval": "60s"}])
    pid = node.pid(asker)
    node.kill()
    told = node._enter(pid, ["-n", "-m", "-u"], ("nslookup", "-type=a", "kept"), True)
    assert "192.0.2.44" in told
    node.start()
    assert [each["Address"] for each in members.lookup("kept")] == ["192.0.2.44"]
    assert node.resolve(asker, "kept") == ["192.0.2.44"]


def test_members_of_a_compose_file_come_and_go_with_it(
    node: Node, members: Discovery, tmp_path: Path
) -> None:
    (tmp_path / "compose.yaml").write_text(
        """
services:
  asker: {image: "busybox:latest", command: [sleep, "1000"], stop_grace_period: 0s}
x-members:
  db: {address: "192.0.2.5:5432", tags: [primary]}
"""
    )

    def compose(*words: str) -> str:
        done = dari(node, "compose", "-p", "mixed", "-f", str(tmp_path / "compose.yaml"), *words)
        assert done.returncode == 0, done.stderr
        return done.stderr

    compose("up", "-d")
    (found,) = members.lookup("db")
    assert found["Tags"] == ["primary"]
    assert node.resolve(node.client.containers.get("mixed-asker-1"), "db") == ["192.0.2.5"]
    compose("up", "-d")
    compose("down")
    assert members.lookup("db") == []
