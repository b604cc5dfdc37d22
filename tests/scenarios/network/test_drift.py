"""Somebody meddles with the kernel: doctor names it, mends it, and a flushed firewall comes back by itself."""

from __future__ import annotations

import http.client
import json
import socket

from tests.scenarios.conftest import Node, wait_for


def doctor(node: Node, method: str) -> dict[str, list[str]]:
    """The steps of what it finds of dari's own, by its id."""
    connection = http.client.HTTPConnection("dari")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(node.socket)
    connection.request(method, "/dari/v1/doctor")
    answer = connection.getresponse()
    assert answer.status == 200
    findings = json.loads(answer.read())["Findings"]
    connection.close()
    return {each["Id"]: each["Steps"] for each in findings if each["IsOurs"]}


def test_what_was_taken_away_is_named_and_mended(node: Node) -> None:
    network = node.client.networks.create("web")
    server = node.serve("srv", "hello", network="web", ports={"80/tcp": 8080})
    assert doctor(node, "GET") == {}
    before = node.kernel()
    node.run("ip", "addr", "flush", "dev", f"br-{network.id[:12]}")
    node.net(server, "ip", "route", "del", "default")
    assert node.curl(None, "http://127.0.0.1:8080/") == ""
    findings = doctor(node, "GET")
    assert set(findings) == {"address.missing", "route.missing"}
    assert all(len(each) == 1 and each[0].startswith("+ ") for each in findings.values())
    assert doctor(node, "POST") == findings
    assert doctor(node, "GET") == {}
    assert node.kernel() == before
    assert node.curl(None, "http://127.0.0.1:8080/") == "hello\n"


def test_what_nobody_wants_is_removed(node: Node) -> None:
    before = node.kernel()
    node.run("ip", "link", "add", "stray", "type", "bridge")
    node.run("ip", "link", "property", "add", "dev", "stray", "altname", "dari-net-000000000000")
    assert set(doctor(node, "POST")) == {"link.leftover"}
    wait_for("the strays are gone", lambda: node.kernel() == before)


def test_a_flushed_firewall_comes_back(node: Node) -> None:
    node.serve("srv", "hello", ports={"80/tcp": 8080})
    before = node.kernel()
    node.run("nft", "flush", "ruleset")
    wait_for("the rules are back", lambda: node.run("nft", "list", "tables").strip() != "", 20)
    wait_for("the kernel is as before", lambda: node.kernel() == before)
    assert node.curl(None, "http://127.0.0.1:8080/") == "hello\n"


def test_a_namespace_that_lost_its_name_while_darid_was_away_gets_it_back(node: Node) -> None:
    network = node.client.networks.create("web")
    server = node.serve("srv", "hello", network="web", ports={"80/tcp": 8080})
    node.kill()
    path = server.attrs["NetworkSettings"]["SandboxKey"] or f"{node.exec_root}/netns/none"
    server_pid = int(server.attrs["State"]["Pid"])
    node.run("umount", "-l", path)
    node.run("rm", path)
    node.start()
    assert node.pid(server) == server_pid
    assert node.curl(None, "http://127.0.0.1:8080/") == "hello\n"
    assert doctor(node, "GET") == {}
    peer = node.sleeper("peer", network="web")
    assert node.resolve(peer, "srv") == [node.address(server, "web")] and network.id
