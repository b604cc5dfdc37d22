"""explain and verify on a living node: each cause of "A cannot reach B" is named, and broken things are found."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
from tests.scenarios.conftest import Node, wait_for

from dari.dns import nudge

_SOURCE = Path(__file__).parents[3] / "src"
# For what is answered or caught; only what vanishes without a trace waits for it.
PATIENCE = 5
ICC = "com.docker.network.bridge.enable_icc"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("dari", timeout=240)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def post(node: Node, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    connection = _Connection(node.socket)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    try:
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def explain(node: Node, source: str, target: str, port: int = 0, **more: Any) -> dict[str, Any]:
    status, answer = post(
        node, "/dari/v1/explain", {"From": source, "To": target, "Port": port, "Timeout": PATIENCE, **more}
    )
    assert status == 200, answer
    return answer


def verify(node: Node, **body: Any) -> dict[str, Any]:
    status, answer = post(node, "/dari/v1/verify", {"Timeout": PATIENCE, **body})
    assert status == 200, answer
    return answer


def told(answer: dict[str, Any]) -> tuple[bool, str]:
    return answer["IsReachable"], answer["Conclusion"]


def cli(node: Node, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dari.cli.main", "-H", f"unix://{node.socket}", *words]
    environment = {**os.environ, "PYTHONPATH": str(_SOURCE)}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


@contextmanager
def rules(node: Node, text: str) -> Iterator[None]:
    """A table `inet theirs` on the host for a while."""
    node.run("nft", f"table inet theirs {{ {text} }}")
    try:
        yield
    finally:
        node.run("nft", "delete", "table", "inet", "theirs")


@pytest.fixture
def shop(node: Node) -> Node:
    """`web` and `db` (which listens on 80, published at 8080) on `shop`; `vault` on the internal `back`."""
    client = node.client
    client.networks.create("shop")
    client.networks.create("back", internal=True)
    node.serve("db", "hi", network="shop", ports={"80/tcp": 8080})
    node.sleeper("web", network="shop")
    node.serve("vault", "hi", network="back")
    return node


def test_what_is_reached_is_said_so(shop: Node) -> None:
    answer = explain(shop, "web", "db", 80)
    assert told(answer) == (True, "reachable") and answer["Version"] == 1
    assert answer["Wanted"]["Verdict"] == answer["Found"]["Verdict"] == "delivered"
    assert (answer["Probe"]["Outcome"], answer["Probe"]["Untraced"]) == ("open", "")
    assert [each["IsOk"] for each in answer["Names"]] == [True, True]
    assert told(explain(shop, "web", "db")) == (True, "reachable")
    assert told(explain(shop, "host", "db", 80)) == (True, "reachable")
    assert told(explain(shop, "web", "outside", 80)) == (True, "reachable")
    assert told(explain(shop, "web", "outside", 53, Protocol="udp")) == (True, "reachable")
    assert told(explain(shop, "web", "host", 8080)) == (True, "reachable")
    outside = explain(shop, "outside", "db", 80)
    assert told(outside) == (True, "reachable") and outside["To"]["Port"] == 80
    # An id is no name: nobody is asked for it. A short one is, where names are answered.
    container = shop.client.containers.get("db")
    by_id = explain(shop, "web", container.id, 80)
    assert told(by_id) == (True, "reachable") and by_id["Names"] == []
    by_id = explain(shop, "web", container.id[:12], 80)
    assert told(by_id) == (True, "reachable") and [each["IsOk"] for each in by_id["Names"]] == [True, True]
    by_id = explain(shop, "vault", container.id[:12], 80)
    assert told(by_id) == (False, "meant") and by_id["Names"] == []


def test_without_a_probe_nothing_is_sent(shop: Node) -> None:
    answer = explain(shop, "web", "db", 80, Probe=False)
    assert told(answer) == (True, "reachable") and answer["Probe"] is None
    assert told(explain(shop, "outside", "db", 80, Probe=False)) == (True, "reachable")
    assert told(explain(shop, "web", "vault", 80, Probe=False)) == (False, "meant")


def test_nobody_listens(shop: Node) -> None:
    answer = explain(shop, "web", "db", 81)
    assert told(answer) == (False, "application")
    assert answer["Verdict"] == "refused" and "80/tcp" in answer["Advice"]
    assert told(explain(shop, "web", "db", 53, Protocol="udp")) == (False, "application")


def test_a_listener_on_loopback_only_is_told(node: Node) -> None:
    node.client.networks.create("shop")
    node.sleeper("web", network="shop")
    lonely = node.client.containers.run(
        "busybox:latest", ["httpd", "-f", "-p", "127.0.0.1:80"], name="lonely", network="shop", detach=True
    )
    wait_for("its socket", lambda: node.net(lonely, "ss", "-Hltn", "sport", "=", ":80"))
    answer = explain(node, "web", "lonely", 80)
    assert told(answer) == (False, "application") and "127.0.0.1" in answer["Advice"]


def test_no_common_network(shop: Node) -> None:
    answer = explain(shop, "web", "vault", 80)
    assert told(answer) == (False, "meant")
    assert {(each["Kind"], each["Name"]) for each in answer["Causes"]} == {
        ("container", "web"),
        ("container", "vault"),
        ("network", "back"),
    }
    assert answer["Advice"] == "dari network connect back web"
    assert answer["Probe"]["Caught"]["Table"] == "dari"
    # From the host it is reached: the host is on every bridge.
    assert told(explain(shop, "host", "vault", 80)) == (True, "reachable")


def test_nothing_leaves_an_internal_network(shop: Node) -> None:
    answer = explain(shop, "vault", "outside", 80)
    assert told(answer) == (False, "meant")
    [cause] = answer["Causes"]
    assert (cause["Name"], cause["Setting"]) == ("back", "--internal")


def test_neighbours_that_may_not_talk(node: Node) -> None:
    node.client.networks.create("mute", options={ICC: "false"})
    node.serve("one", "hi", network="mute")
    node.sleeper("two", network="mute")
    answer = explain(node, "two", "one", 80, Timeout=1)
    assert told(answer) == (False, "meant")
    [cause] = answer["Causes"]
    assert (cause["Name"], cause["Setting"]) == ("mute", f"--opt {ICC}=false")


def test_no_names_on_the_default_bridge(node: Node) -> None:
    node.serve("one", "hi")
    two = node.sleeper("two")
    answer = explain(node, "two", "one", 80)
    assert told(answer) == (False, "meant") and "default bridge" in answer["Text"]
    assert answer["Found"]["Verdict"] == "delivered"
    address = node.address(node.client.containers.get("one"), "bridge")
    assert told(explain(node, "two", address, 80)) == (True, "reachable")
    two.remove(force=True)
    node.client.containers.run(
        "busybox:latest", ["sleep", "1000"], name="two", links={"one": "uno"}, detach=True
    )
    linked = explain(node, "two", "uno", 80)
    assert told(linked) == (True, "reachable") and "/etc/hosts" in linked["Names"][0]["Text"]


def test_names_nobody_has(shop: Node) -> None:
    answer = explain(shop, "web", "nobody", 80)
    assert told(answer) == (False, "meant") or told(answer) == (False, "unexplained")
    assert "nobody" in answer["Text"] and answer["Advice"] == "names it knows: db"
    assert told(explain(shop, "vault", "nobody", 80)) == (False, "meant")


def test_a_target_that_does_not_run(shop: Node) -> None:
    shop.client.containers.get("db").stop(timeout=0)
    answer = explain(shop, "web", "db", 80)
    assert told(answer) == (False, "application") and "not running" in answer["Text"]


def test_a_container_without_network(shop: Node) -> None:
    shop.sleeper("hermit", network_mode="none")
    answer = explain(shop, "hermit", "outside", 80)
    assert told(answer) == (False, "meant") and "no network" in answer["Text"]


def test_containers_that_share_a_network_or_have_the_hosts(shop: Node) -> None:
    shop.sleeper("sidecar", network_mode="container:web")
    assert told(explain(shop, "sidecar", "db", 80)) == (True, "reachable")
    shop.client.containers.run(
        "busybox:latest", ["httpd", "-f", "-p", "7070"], name="bare", network_mode="host", detach=True
    )
    wait_for("its socket", lambda: shop.run("ss", "-Hltn", "sport", "=", ":7070"))
    assert told(explain(shop, "bare", "db", 80)) == (True, "reachable")
    assert told(explain(shop, "host", "bare", 7070)) == (True, "reachable")
    assert told(explain(shop, "outside", "bare", 7070)) == (True, "reachable")
    # By its name nobody knows it, as in Docker.
    answer = explain(shop, "web", "bare", 7070)
    assert told(answer) == (False, "meant") and "is reached" in answer["Text"]
    found = verify(shop)
    assert found["IsAsAsked"], found["Findings"]


def test_on_an_interface_of_the_hosts(node: Node) -> None:
    """macvlan: neighbours reach each other, the host they do not."""
    node.run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
    try:
        for each in ("lan0", "lan1"):
            node.run("ip", "link", "set", each, "up")
        ipam = docker.types.IPAMConfig(
            pool_configs=[docker.types.IPAMPool("192.0.2.0/24", gateway="192.0.2.1")]
        )
        node.client.networks.create("lan", driver="macvlan", options={"parent": "lan0"}, ipam=ipam)
        node.serve("printer", "hi", network="lan")
        node.sleeper("desk", network="lan")
        assert told(explain(node, "desk", "printer", 80)) == (True, "reachable")
        assert told(explain(node, "desk", "printer", 81)) == (False, "application")
        for source, target in (("desk", "host"), ("host", "desk")):
            apart = explain(node, source, target, 80, Timeout=1)
            assert told(apart) == (False, "meant") and "do not hear each other" in apart["Text"]
            assert "dari.host_shim" in apart["Advice"]
        wide = explain(node, "outside", "desk", 80, Timeout=1)
        assert told(wide) == (False, "meant") and "the world reaches it by that network" in wide["Text"]
        # Behind the interface is nobody: neither the router nor another machine.
        for target, mute in (("198.51.100.1", "192.0.2.1"), ("192.0.2.77", "192.0.2.77")):
            answer = explain(node, "desk", target, 80, Timeout=1)
            assert told(answer) == (False, "beyond")
            assert answer["Text"] == f"nobody answers for {mute} where lan0 leads"
        node.run("ip", "link", "set", "lan1", "down")
        unplugged = explain(node, "desk", "printer", 80, Timeout=1)
        assert told(unplugged) == (False, "beyond") and "has no carrier" in unplugged["Text"]
        node.run("ip", "link", "set", "lan1", "up")
        away = explain(node, "desk", "outside", 80)
        assert not away["IsReachable"] and "router of network lan" in away["Text"]
        found = verify(node)
        assert all(each["IsAsAsked"] for each in found["Cells"]), found["Findings"]
    finally:
        node.clear()
        node.run("ip", "link", "del", "lan0", check=False)


def test_a_port_that_is_not_published(shop: Node) -> None:
    answer = explain(shop, "outside", "web", 80)
    assert told(answer) == (False, "meant") and "not published" in answer["Text"]
    assert answer["Probe"]["Caught"]["Table"] == "dari"
    shop.serve("private", "hi", network="shop", ports={"80/tcp": ("127.0.0.1", 8081)})
    answer = explain(shop, "outside", "private", 80)
    assert told(answer) == (False, "meant") and "127.0.0.1:8081 only" in answer["Text"]


def test_a_rule_of_somebody_else(shop: Node) -> None:
    drop = 'tcp dport 80 drop comment "no web today"'
    with rules(shop, f"chain fw {{ type filter hook forward priority 5; {drop}; }};"):
        answer = explain(shop, "outside", "db", 80)
        assert told(answer) == (False, "foreign")
        caught = answer["Probe"]["Caught"]
        assert (caught["Family"], caught["Table"], caught["Chain"]) == ("inet", "theirs", "fw")
        assert caught["Comment"] == "no web today" and "no web today" in answer["Text"]
        found = verify(shop)
        assert not found["IsAsAsked"] and any("no web today" in each for each in found["Findings"])
    assert told(explain(shop, "outside", "db", 80)) == (True, "reachable")


def test_a_refusing_rule_in_a_sandbox(shop: Node) -> None:
    db = shop.client.containers.get("db")
    chain = (
        'chain i { type filter hook input priority 0; tcp dport 80 reject with tcp reset comment "mine"; };'
    )
    shop.net(db, "nft", f"table inet own {{ {chain} }}")
    answer = explain(shop, "web", "db", 80)
    assert told(answer) == (False, "foreign")
    assert (answer["Probe"]["Caught"]["Where"], answer["Probe"]["Caught"]["Comment"]) == ("db", "mine")


def test_a_policy_that_says_no(shop: Node) -> None:
    label = {"dari.policy": "deny; allow friend 80"}
    shop.serve("guarded", "hi", network="shop", labels=label, ports={"80/tcp": 8085})
    shop.sleeper("friend", network="shop")
    answer = explain(shop, "web", "guarded", 80)
    assert told(answer) == (False, "meant") and answer["Verdict"] == "refused"
    [cause] = answer["Causes"]
    assert (cause["Kind"], cause["Name"]) == ("policy", "guarded")
    assert "deny; allow friend 80" in cause["Text"] and answer["Probe"]["Caught"]["Where"] == "guarded"
    assert told(explain(shop, "friend", "guarded", 80)) == (True, "reachable")
    # Published, and yet nobody outside may.
    assert told(explain(shop, "outside", "guarded", 80)) == (False, "meant")
    found = verify(shop)
    assert found["IsAsAsked"], found["Findings"]


def test_a_route_deleted_by_hand(shop: Node) -> None:
    shop.net(shop.client.containers.get("web"), "ip", "route", "del", "default")
    answer = explain(shop, "web", "outside", 80)
    assert told(answer) == (False, "drift")
    assert any("default via" in each and "web" in each for each in answer["Differences"])
    found = verify(shop)
    assert not found["IsAsAsked"] and any("web should reach outside" in each for each in found["Findings"])


def test_an_address_removed_by_hand(shop: Node) -> None:
    db = shop.client.containers.get("db")
    shop.net(db, "ip", "addr", "flush", "dev", "eth0")
    answer = explain(shop, "web", "db", 80)
    assert told(answer) == (False, "drift") and answer["Differences"]


def test_a_link_set_down_by_hand(shop: Node) -> None:
    shop.net(shop.client.containers.get("db"), "ip", "link", "set", "eth0", "down")
    assert told(explain(shop, "web", "db", 80)) == (False, "drift")


def test_isolation_lost_by_hand(node: Node) -> None:
    """What should be stopped and is not is a finding too."""
    network = node.client.networks.create("mute", options={ICC: "false"})
    node.serve("one", "hi", network="mute")
    node.sleeper("two", network="mute")
    ports = json.loads(node.run("ip", "-j", "link", "show", "master", f"br-{network.id[:12]}"))
    assert len(ports) == 2
    for each in ports:
        node.run("bridge", "link", "set", "dev", each["ifname"], "isolated", "off")
    # Where br_netfilter is on, the rules keep them apart as well.
    setting = "net.bridge.bridge-nf-call-iptables"
    before = node.run("sysctl", "-n", setting, check=False).strip()
    if before:
        node.run("sysctl", "-q", "-w", f"{setting}=0")
    try:
        answer = explain(node, "two", "one", 80)
        assert told(answer) == (True, "drift") and "though it should not" in answer["Text"]
        assert len(answer["Differences"]) == 2
        found = verify(node)
        assert any("two should not reach one" in each for each in found["Findings"])
    finally:
        if before:
            node.run("sysctl", "-q", "-w", f"{setting}={before}")


def test_somebody_else_has_the_address(shop: Node) -> None:
    web, db = (shop.client.containers.get(each) for each in ("web", "db"))
    shop.net(web, "ip", "addr", "add", f"{shop.address(db, 'shop')}/32", "dev", "lo")
    answer = explain(shop, "web", "db", 80)
    assert told(answer) == (False, "drift") and "instead of db" in answer["Text"]


def test_a_mute_responder(shop: Node) -> None:
    status = nudge.ping(f"{shop.exec_root}/dns")
    assert status is not None
    os.kill(status.pid, signal.SIGSTOP)
    try:
        answer = explain(shop, "web", "db", 80, Timeout=0.3)
        assert told(answer) == (False, "drift") and "127.0.0.11 did not answer" in answer["Text"]
        # Only the name is at fault.
        assert answer["Probe"]["Outcome"] == "open"
    finally:
        os.kill(status.pid, signal.SIGCONT)
    assert told(explain(shop, "web", "db", 80)) == (True, "reachable")


def test_names_that_are_dropped_on_their_way(shop: Node) -> None:
    web = shop.client.containers.get("web")
    chain = 'chain o { type filter hook output priority -200; udp dport 53 drop comment "mute"; };'
    shop.net(web, "nft", f"table inet own {{ {chain} }}")
    answer = explain(shop, "web", "db", 80)
    assert told(answer) == (False, "foreign") and "mute" in answer["Text"]
    found = verify(shop)
    assert any(each.startswith("web should know db") for each in found["Findings"])


def test_bad_questions(shop: Node) -> None:
    shop.sleeper("asleep", network="shop").stop(timeout=0)
    for body, status, text in (
        ({"From": "ghost", "To": "db"}, 404, "No such container: ghost"),
        ({"From": "asleep", "To": "db"}, 409, "container asleep is not running"),
        ({"From": "outside", "To": "ghost"}, 404, "No such container: ghost"),
        ({"From": "web", "To": "db", "Port": 70000}, 400, "invalid port 70000"),
        ({"From": "web", "To": "db", "Port": 80, "Protocol": "sctp"}, 400, "invalid protocol 'sctp'"),
        ({"From": "web", "To": "db", "Protocol": "udp"}, 400, "udp needs a port"),
        ({"From": "web", "To": "db", "Protocol": "icmp", "Port": 1}, 400, "icmp has no ports"),
        ({"From": "web", "To": "db", "Timeout": 0}, 400, "invalid timeout"),
        ({"From": "web"}, 400, "To is missing"),
        ({"To": "db"}, 400, "From is missing"),
        ({"From": "outside", "To": "outside"}, 400, "outside"),
    ):
        found, answer = post(shop, "/dari/v1/explain", body)
        assert found == status and text in answer["message"], (body, found, answer)
    found, answer = post(shop, "/dari/v1/verify", {"Project": "ghost"})
    assert found == 404 and "ghost" in answer["message"]


def test_verify_is_the_isolation_table(shop: Node) -> None:
    answer = verify(shop)
    assert answer["IsAsAsked"], (answer["Findings"], answer["Differences"])
    names = [each["Name"] for each in answer["Ends"]]
    assert names == ["db", "vault", "web", "outside", "host"]
    reached = set()
    for cell in answer["Cells"]:
        assert cell["Wanted"] == cell["Found"] == cell["Probe"], cell
        if cell["IsReachable"]:
            reached.add((names[cell["From"]], names[answer["Services"][cell["To"]]["End"]]))
    assert reached == {
        ("db", "web"), ("web", "db"), ("outside", "db"), ("db", "outside"), ("web", "outside"),
        ("host", "db"), ("host", "web"), ("host", "vault"),
    }  # fmt: skip
    assert answer["Networks"] == {"shop": [0, 2], "back": [1]}
    published = [each for each in answer["Services"] if each["Published"]]
    assert [each["Published"] for each in published] == [["0.0.0.0:8080"]]
    unprobed = verify(shop, Probe=False)
    assert unprobed["IsAsAsked"] and unprobed["Probes"] == 0
    assert [each["Found"] for each in unprobed["Cells"]] == [each["Found"] for each in answer["Cells"]]


def test_nothing_stays_of_probes(shop: Node) -> None:
    verify(shop)
    assert "dari-trace" not in shop.run("nft", "list", "tables")
    wait_for("the link to outside is gone", lambda: "dariprobe" not in shop.run("ip", "link"))


def test_many_ask_at_once(shop: Node) -> None:
    """Probes under way are nobody's firewall to one another."""
    patient = ("--timeout", str(PATIENCE))
    commands = [
        ("explain", *patient, "web", "db:80"),
        ("explain", *patient, "outside", "db:80"),
        ("verify", *patient),
    ] * 3
    environment = {**os.environ, "PYTHONPATH": str(_SOURCE)}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "dari.cli.main", "-H", f"unix://{shop.socket}", *words],
            env=environment, stdout=subprocess.PIPE, text=True,
        )
        for words in commands
    ]  # fmt: skip
    for each in running:
        said, _ = each.communicate(timeout=240)
        assert each.returncode == 0, said


def test_the_command_line(shop: Node) -> None:
    reached = cli(shop, "explain", "web", "db:80")
    assert reached.returncode == 0 and "✓ web reaches db at" in reached.stdout
    closed = cli(shop, "explain", "web", "vault:80")
    assert closed.returncode == 1 and "✗" in closed.stdout and "to do: dari network connect" in closed.stdout
    answer = json.loads(cli(shop, "explain", "--json", "--no-probe", "web", "db:80/tcp").stdout)
    assert answer["Conclusion"] == "reachable" and answer["Probe"] is None
    for words in (("web", "db:0"), ("web", "db:80/sctp"), ("web",), ("ghost", "db:80"), ("web", "db/udp")):
        wrong = cli(shop, "explain", *words)
        assert wrong.returncode == 2 and wrong.stderr and not wrong.stdout, words
    matrix = cli(shop, "verify", "--timeout", str(PATIENCE))
    assert matrix.returncode == 0 and "as asked" in matrix.stdout
    with rules(shop, "chain fw { type filter hook forward priority 5; tcp dport 80 drop; };"):
        matrix = cli(shop, "verify", "--timeout", str(PATIENCE))
        assert matrix.returncode == 1 and "table inet theirs" in matrix.stdout
    assert cli(shop, "verify", "ghost").returncode == 2
    assert cli(shop, "__complete", "explain", "").stdout.split() == ["db", "host", "outside", "vault", "web"]


COMPOSE = """\
services:
  guarded:
    image: busybox
    command: [httpd, -f, -p, "80"]
    networks: [front]
    x-policy:
      default: deny
  web:
    image: busybox
    command: [sleep, "1000"]
    networks: [front]
  vault:
    image: busybox
    command: [httpd, -f, -p, "80"]
    networks:
      - back
networks:
  front: {}
  back:
    internal: true
"""


def test_the_line_of_the_compose_file_is_named(node: Node, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(COMPOSE)
    up = cli(node, "compose", "-f", str(file), "-p", "shop", "up", "-d", "--pull", "never")
    assert up.returncode == 0, up.stderr
    closed = cli(node, "explain", "shop-web-1", "shop-vault-1:80")
    assert closed.returncode == 1
    for line in (
        f"{file}:11: networks: [front]",
        f"{file}:15: networks:",
        f"{file}:20: internal: true",
    ):
        assert line in closed.stdout, closed.stdout
    out = json.loads(cli(node, "explain", "--json", "shop-vault-1", "outside:80").stdout)
    [cause] = out["Causes"]
    assert (cause["Project"], cause["Line"]) == ("shop", f"{file}:20: internal: true")
    refused = cli(node, "explain", "shop-web-1", "guarded:80")
    assert refused.returncode == 1 and f"{file}:6: x-policy:" in refused.stdout, refused.stdout
    node.sleeper("stranger")
    answer = verify(node, Project="shop")
    assert [each["Name"] for each in answer["Ends"]] == [
        "shop-guarded-1", "shop-vault-1", "shop-web-1", "outside", "host",
    ]  # fmt: skip
    assert answer["IsAsAsked"], answer["Findings"]
