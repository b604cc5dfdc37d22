"""What explain says of the mistakes people make: the reason, the object and what to do are named."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from tests.scenarios.conftest import Node
from tests.scenarios.network.test_explain import cli, explain, post, rules, told

UPLINK, ROUTER, FAR = "192.0.2.10", "192.0.2.1", "203.0.113.7"


@pytest.fixture
def uplink(node: Node) -> Iterator[Node]:
    """The node has an interface `up0`; behind it are a router and, on it, FAR, where nobody listens."""
    world = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE)
    assert world.stdout is not None
    world.stdout.readline()
    try:
        node.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1", "netns", str(world.pid))
        for words in (("addr", "add", f"{UPLINK}/24", "dev", "up0"), ("link", "set", "up0", "up")):
            node.run("ip", *words)
        far = f"ip addr add {ROUTER}/24 dev up1; ip addr add {FAR}/32 dev lo; ip link set lo up; ip link set up1 up"
        # A new namespace begins as the host's own is: it must not refuse what it has no route for.
        still = "sysctl -qw net.ipv4.ip_forward=0"
        subprocess.run(["nsenter", "-t", str(world.pid), "-n", "sh", "-c", f"{still}; {far}"], check=True)
        node.run("ip", "route", "add", "default", "via", ROUTER)
        yield node
    finally:
        node.clear()
        node.run("ip", "link", "delete", "up0", check=False)
        world.kill()
        world.wait()
        world.stdout.close()


def test_from_an_address_outside(uplink: Node) -> None:
    uplink.client.networks.create("shop")
    uplink.serve("db", "hi", network="shop", ports={"80/tcp": ("0.0.0.0", 8080)})
    policy = {"dari.policy": "deny; allow 198.51.100.0/24 80"}
    uplink.serve("pol", "hi", network="shop", labels=policy, ports={"80/tcp": ("0.0.0.0", 8090)})
    uplink.serve("mine", "hi", network="shop", ports={"80/tcp": ("127.0.0.1", 8081)})
    answer = explain(uplink, FAR, "db", 80)
    assert told(answer) == (True, "reachable") and answer["Probe"] is None
    assert answer["From"]["Kind"] == "outside" and "comes in over up0" in answer["Names"][0]["Text"]
    ways = " ".join(each["Text"] for each in answer["Found"]["Hops"])
    assert f"{UPLINK}:8080 becomes" in ways and "forwards it from up0" in ways
    # The port of the host's is asked for as well, and its address.
    assert told(explain(uplink, FAR, "db", 8080)) == (True, "reachable")
    by_address = explain(uplink, FAR, UPLINK, 8080)
    assert told(by_address) == (True, "reachable") and by_address["To"]["Name"] == "db"
    answer = explain(uplink, FAR, "2001:db8::1", 8080)
    assert told(answer) == (False, "meant") and f"{FAR} asks by IPv4" in answer["Text"]
    answer = explain(uplink, FAR, "mine", 8081)
    assert told(answer) == (False, "meant") and "published on 127.0.0.1:8081 only" in answer["Text"]
    answer = explain(uplink, FAR, "pol", 80)
    assert told(answer) == (False, "meant") and f"does not let {FAR} in" in answer["Text"]
    assert told(explain(uplink, "198.51.100.9", "pol", 80)) == (True, "reachable")
    # A rule that names the uplink is met by nothing that is sent from here.
    with rules(
        uplink,
        "chain fw { type filter hook forward priority 0;"
        ' iifname "up0" tcp dport 80 ip saddr != 198.51.100.0/24 drop\n }\n',
    ):
        assert told(explain(uplink, FAR, "db", 80)) == (False, "foreign")
        assert told(explain(uplink, "198.51.100.9", "db", 80)) == (True, "reachable")
        assert told(explain(uplink, "outside", "db", 80)) == (True, "reachable")
    uplink.run("sysctl", "-w", "net.ipv4.ip_forward=0")
    answer = explain(uplink, FAR, "db", 80)
    uplink.run("sysctl", "-w", "net.ipv4.ip_forward=1")
    assert not answer["IsReachable"] and "sysctl -w net.ipv4.ip_forward=1" in answer["Advice"], answer["Text"]
    uplink.run("ip", "route", "delete", "default")
    answer = explain(uplink, FAR, "db", 80)
    assert told(answer) == (False, "beyond") and f"no way to {FAR}" in answer["Text"]


def test_what_is_out_there(uplink: Node) -> None:
    uplink.sleeper("web", network="bridge")
    refused = explain(uplink, "web", FAR, 80)
    assert (
        told(refused) == (False, "application") and f"{FAR} at {FAR} port 80/tcp refuses" in refused["Text"]
    )
    silent = explain(uplink, "web", "198.51.100.1", 80, Timeout=1)
    assert told(silent) == (False, "beyond"), silent["Text"]
    assert silent["Text"].startswith("198.51.100.1 port 80/tcp does not answer: it left this host over up0")
    status, made = post(
        uplink, "/dari/v1/registrations", {"Name": "ext", "Address": FAR, "Port": 80, "Protocol": "tcp"}
    )
    assert status in (200, 201), made
    try:
        uplink.client.networks.create("shop")
        uplink.sleeper("one", network="shop")
        other_port = explain(uplink, "one", "ext", 81)
        assert told(other_port) == (False, "application")
        assert f"ext is registered at port 80/tcp of {FAR}" in other_port["Text"]
        assert "a registered member" in other_port["Names"][0]["Text"]
        assert FAR in explain(uplink, "host", "ext", 80)["Text"]
    finally:
        cli(uplink, "deregister", made["ID"])


def test_a_name_of_two_of_which_one_answers(node: Node) -> None:
    node.client.networks.create("shop")
    node.sleeper("web", network="shop")
    node.serve("good", "hi", network="shop")
    node.sleeper("bad", network="shop")
    for each in ("good", "bad"):
        node.client.networks.get("shop").disconnect(each)
        node.client.networks.get("shop").connect(each, aliases=["app"])
    answer = explain(node, "web", "app", 80)
    # Whichever of the two is the lowest, the other one is told of.
    assert ", but app is also" in answer["Text"], answer["Text"]
    assert ("(bad): it arrives, but nobody in bad listens" in answer["Text"]) is answer["IsReachable"]
    assert told(explain(node, "web", "good", 80)) == (True, "reachable")
    bad = node.client.containers.get("bad")
    node.net(
        bad, "nft", "table inet own { chain i { type filter hook input priority 0; tcp dport 80 drop\n }\n }"
    )
    stopped = explain(node, "web", "bad", 80)
    assert told(stopped) == (False, "foreign") and stopped["Text"].endswith("table inet own, in bad")
    assert "NET_ADMIN in bad" in stopped["Advice"]


def test_mistakes_inside(node: Node) -> None:
    client = node.client
    client.networks.create("shop")
    db = node.serve("db", "hi", network="shop", ports={"80/tcp": ("127.0.0.1", 8080)})
    web = node.sleeper(
        "web", network="shop", extra_hosts={"cache": "10.9.9.9"}, environment=["http_proxy=http://p:1"]
    )
    node.sleeper("cache", network="shop")
    node.sleeper("side", network_mode="container:db")
    node.sleeper("bare", network_mode="host")
    node.sleeper("hermit", network_mode="none")

    def says(source: str, target: str, port: int, **more: Any) -> tuple[str, str, str]:
        answer = explain(node, source, target, port, **{"Timeout": 1, **more})
        assert not answer["IsReachable"], answer["Text"]
        return answer["Conclusion"], answer["Text"], answer["Advice"]

    conclusion, text, advice = says("web", "dbb", 80)
    assert advice.startswith("did you mean db? names it knows: ")
    conclusion, text, advice = says("web", "localhost", 8080)
    assert conclusion == "application" and "is the container itself" in text and "ask db:80" in advice
    conclusion, text, advice = says("web", "cache", 80)
    assert conclusion == "meant" and "10.9.9.9 by /etc/hosts of web, which hides" in text
    conclusion, text, advice = says("web", "side", 80)
    assert conclusion == "meant" and "it shares db's network" in text and advice == "ask for db"
    assert "--add-host" in says("web", "bare", 80)[2]
    assert "instead of none" in says("web", "hermit", 80)[2]
    conclusion, text, advice = says("web", "fd00::5", 80)
    assert "its networks have none (shop)" in text and "--ipv6" in advice
    assert "8080 only" in says("host", "::1", 8080)[2] or "127.0.0.1:8080" in says("host", "::1", 8080)[2]
    assert "port 80/tcp of db is published at 127.0.0.1:8080" in says("host", "127.0.0.1", 80)[2]
    unused = f"{node.address(web, 'shop').rpartition('.')[0]}.250"
    assert f"nobody on network shop has the address {unused}" in says("web", unused, 80)[1]
    names = [each["Text"] for each in explain(node, "web", "db", 80)["Names"]]
    assert names[0].startswith("web has http_proxy=http://p:1")
    db.pause()
    assert says("web", "db", 80) == (
        "application",
        "db is paused: its kernel takes what comes, and nobody in it answers",
        "let it go on: dari unpause db",
    )
    db.unpause()
    # Somebody shares its network: its address stays.
    db.stop(timeout=0)
    conclusion, text, advice = says("web", "db", 80)
    assert conclusion == "application" and "db is not running (exited)" in text
    said = cli(node, "explain", "--timeout", "1", "web", "dbb:80").stdout
    assert "This is what was asked for" not in said
