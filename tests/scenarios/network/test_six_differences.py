"""The six differences between the default and a user-defined bridge: each is shown on both."""

from __future__ import annotations

import json
from typing import Any

import docker
import pytest
from tests.scenarios.conftest import IMAGE, Node, wait_for

ICC = "com.docker.network.bridge.enable_icc"
MTU = "com.docker.network.driver.mtu"


def link(node: Node, container: Any, name: str = "eth0") -> dict[str, Any]:
    return dict(json.loads(node.net(container, "ip", "-j", "link", "show", name))[0])


def test_1_names(node: Node) -> None:
    """On a user-defined bridge containers know each other by name and alias; on the default one by address alone,
    unless they are linked by hand."""
    web = node.client.networks.create("web")
    db = node.client.containers.create(IMAGE, ["sleep", "1000"], name="db", network="web")
    web.disconnect(db)
    web.connect(db, aliases=["store"])
    db.start()
    app = node.sleeper("app", network="web")
    assert node.resolve(app, "db") == node.resolve(app, "store") == [node.address(db, "web")]

    old_db = node.sleeper("old-db")
    old_app = node.sleeper("old-app")
    assert node.resolve(old_app, "old-db") == []
    assert "old-db" not in node.inside(old_app, "cat", "/etc/hosts")
    assert "1 packets received" in node.inside(old_app, "ping", "-c1", "-W5", node.address(old_db, "bridge"))
    linked = node.sleeper("linked", links={"old-db": "store"})
    line = f"{node.address(old_db, 'bridge')}\tstore"
    assert line in node.inside(linked, "cat", "/etc/hosts")
    assert "1 packets received" in node.inside(linked, "ping", "-c1", "-W5", "store")


def test_2_isolation(node: Node) -> None:
    """Who says nothing is on the default bridge with everybody who says nothing; a user-defined one holds its own."""
    stranger = node.serve("stranger", "everybody")
    node.client.networks.create("web")
    own = node.serve("own", "ours", network="web")
    neighbour = node.sleeper("neighbour")
    assert node.curl(neighbour, f"http://{node.address(stranger, 'bridge')}/") == "everybody\n"
    assert node.curl(neighbour, f"http://{node.address(own, 'web')}/") == ""
    friend = node.sleeper("friend", network="web")
    assert node.curl(friend, f"http://{node.address(own, 'web')}/") == "ours\n"
    assert node.curl(friend, f"http://{node.address(stranger, 'bridge')}/") == ""


def test_3_living_connection(node: Node) -> None:
    """A container joins and leaves user-defined networks while it runs. The default bridge can be left too, but
    what it was told there (links) is not told anew: it has to be made again for that."""
    web = node.client.networks.create("web")
    db = node.serve("db", "data", network="web")
    app = node.sleeper("app")
    pid = node.pid(app)
    web.connect(app)
    assert node.resolve(app, "db") == [node.address(db, "web")]
    assert node.curl(app, f"http://{node.address(db, 'web')}/") == "data\n"
    web.disconnect(app)
    assert node.resolve(app, "db") == [] and node.pid(app) == pid
    target = node.sleeper("target")
    linked = node.sleeper("linked", links={"target": "t"})
    bridge = node.client.networks.get("bridge")
    with pytest.raises(
        docker.errors.APIError, match="network-scoped alias is supported only for containers in user"
    ):
        bridge.connect(db, aliases=["late"])
    bridge.disconnect(linked)
    assert "\tt " not in node.inside(linked, "cat", "/etc/hosts")
    assert target.status


def test_4_own_configuration(node: Node) -> None:
    """Each user-defined network has its own MTU and rules; the default bridge has one for all."""
    client = node.client
    client.networks.create("small", options={MTU: "1280"})
    client.networks.create("mute", options={ICC: "false"})
    small = node.sleeper("small-1", network="small")
    plain = [node.sleeper(f"plain-{number}") for number in (1, 2)]
    assert link(node, small)["mtu"] == 1280
    assert {link(node, each)["mtu"] for each in plain} == {1500}
    server = node.serve("mute-1", "nobody", network="mute")
    other = node.sleeper("mute-2", network="mute")
    assert node.curl(other, f"http://{node.address(server, 'mute')}/") == ""
    talker = node.serve("talker", "all")
    assert node.curl(plain[0], f"http://{node.address(talker, 'bridge')}/") == "all\n"


def test_5_shared_environment(node: Node) -> None:
    """Links on the default bridge hand over variables; on a user-defined network a shared volume does."""
    node.sleeper("old-db", environment={"SECRET": "s3"})
    linked = node.sleeper("linked", links={"old-db": "db"})
    environment = linked.exec_run("env").output.decode().splitlines()
    assert "DB_ENV_SECRET=s3" in environment and "DB_NAME=/linked/db" in environment
    node.client.networks.create("web")
    shared = {"facts": {"bind": "/facts", "mode": "rw"}}
    writer = node.sleeper("writer", network="web", environment={"SECRET": "s3"}, volumes=shared)
    made = node.client.containers.create(
        IMAGE, ["sleep", "1000"], name="reader", network="web", volumes=shared
    )
    web = node.client.networks.get("web")
    web.disconnect(made)
    web.connect(made, links=[("writer", "w")])
    made.start()
    assert not [line for line in made.exec_run("env").output.decode().splitlines() if line.startswith("W_")]
    assert node.resolve(made, "w") == [node.address(writer, "web")]
    writer.exec_run(["sh", "-c", "echo s3 > /facts/secret"])
    assert made.exec_run(["cat", "/facts/secret"]).output == b"s3\n"


def test_6_exposure(node: Node) -> None:
    """On one user-defined bridge all ports are open to each other and none to other networks; `-p` opens one to all."""
    client = node.client
    client.networks.create("web")
    client.networks.create("other")
    server = node.serve("srv", "open", network="web", ports={"80/tcp": 18080})
    server.exec_run(["sh", "-c", "httpd -p 81 -h /www"])
    wait_for("a second server", lambda: node.net(server, "ss", "-Hltn", "sport", "=", ":81"))
    friend = node.sleeper("friend", network="web")
    far = node.sleeper("far", network="other")
    address = node.address(server, "web")
    for port in (80, 81):
        assert node.curl(friend, f"http://{address}:{port}/") == "open\n"
        assert node.curl(far, f"http://{address}:{port}/") == ""
    gateway = client.networks.get("other").attrs["IPAM"]["Config"][0]["Gateway"]
    assert node.curl(far, f"http://{gateway}:18080/") == "open\n"
    assert node.curl(None, "http://127.0.0.1:18080/") == "open\n"
