"""Containers on overlay networks alone: the way out, published ports, and what Docker's docker_gwbridge is for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import docker
import pytest
from tests.scenarios.cluster.conftest import SUBNET, Hosts, all_joined, eventually, some_hosts
from tests.scenarios.conftest import IMAGE
from tests.scenarios.network.test_explain import explain, told, verify
from tests.store import servers

# Answers each connection with the address it came from; PORT is the first argument.
_MIRROR = """
import socket, sys
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
while True:
    client, peer = server.accept()
    client.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + peer[0].encode())
    client.close()
"""
WORLD = f"http://{SUBNET}.1:9000/"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Two hosts, and a server in the world beyond them."""
    if not servers.has_etcd():
        pytest.skip("needs etcd")
    with some_hosts("etcd", tmp_path_factory.mktemp("outward"), 2) as made:
        world = subprocess.Popen([*made.switch.prefix, sys.executable, "-c", _MIRROR, "9000"])
        try:
            eventually("all joined", lambda: all_joined(made))
            yield made
        finally:
            world.kill()
            world.wait()


@pytest.fixture
def hosts(pair: Hosts) -> Iterator[Hosts]:
    pair.clear()
    yield pair
    pair.clear()


def create(hosts: Hosts, name: str, **options: object) -> None:
    hosts[0].client.networks.create(name, driver="overlay", attachable=True, **options)
    eventually("it is everywhere", lambda: hosts[1].client.networks.list(names=[name]))


def test_each_leaves_by_its_own_host_with_that_hosts_address(hosts: Hosts) -> None:
    create(hosts, "wide")
    for host in hosts.hosts:
        one = host.sleeper(f"on-{host.name}", network="wide")
        assert host.curl(one, WORLD) == host.underlay
        # One interface, one way: no second one as on docker_gwbridge.
        assert host.inside(one, "ls", "/sys/class/net").split() == ["eth0", "lo"]
        (route,) = host.net(one, "ip", "route", "show", "default").splitlines()
        gateway = route.split()[2]
        assert "1 received" in host.net(one, "ping", "-n", "-c", "1", "-W", "2", gateway)
        assert sorted(each.name for each in host.client.networks.list()) == ["bridge", "host", "none", "wide"]


def test_a_published_port_is_reached_on_its_host_by_the_world_and_the_other_host(hosts: Hosts) -> None:
    create(hosts, "wide")
    ports = {"80/tcp": 8080}
    web = hosts[0].serve("web", "here", network="wide", ports=ports)
    away = hosts[1].sleeper("away", network="wide")
    url = f"http://{hosts[0].underlay}:8080/"
    assert hosts.switch.run("curl", "-s", "--connect-timeout", "2", "-m", "40", url) == "here\n"
    # From the other host itself, from a container there, from the host, and from the container that publishes it.
    assert [hosts[1].curl(None, url), hosts[1].curl(away, url)] == ["here\n", "here\n"]
    assert [hosts[0].curl(None, url), hosts[0].curl(web, url)] == ["here\n", "here\n"]
    assert hosts[0].curl(None, "http://127.0.0.1:8080/") == "here\n"
    # The other host has nothing there; its port is free for another one.
    assert hosts[1].curl(None, f"http://{hosts[1].underlay}:8080/") == ""
    hosts[1].serve("other", "there", network="wide", ports=ports)
    assert hosts.switch.run("curl", "-s", "-m", "40", f"http://{hosts[1].underlay}:8080/") == "there\n"


def test_who_asks_a_published_port_is_seen_with_his_own_address(hosts: Hosts) -> None:
    create(hosts, "wide")
    script = "#!/bin/sh\\necho Content-type: text/plain; echo; echo $REMOTE_ADDR\\n"
    made = f"mkdir -p /www/cgi-bin; printf '{script}' > /www/cgi-bin/who; chmod +x /www/cgi-bin/who"
    command = f"{made}; exec httpd -f -h /www"
    hosts[0].client.containers.run(
        IMAGE, ["sh", "-c", command], name="web", network="wide", ports={"80/tcp": 8080}, detach=True
    )
    url = f"http://{hosts[0].underlay}:8080/cgi-bin/who"
    eventually("it answers", lambda: hosts[1].curl(None, url))
    # httpd writes IPv4 as a part of IPv6.
    assert (
        hosts.switch.run("curl", "-s", "--connect-timeout", "2", "-m", "40", url) == f"[::ffff:{SUBNET}.1]\n"
    )
    assert hosts[1].curl(None, url) == f"[::ffff:{hosts[1].underlay}]\n"
    # A container of the other host leaves with that host's address.
    assert hosts[1].curl(hosts[1].sleeper("away", network="wide"), url) == f"[::ffff:{hosts[1].underlay}]\n"


def test_an_internal_overlay_has_no_way_out_and_publishes_nothing(hosts: Hosts) -> None:
    create(hosts, "inner", internal=True)
    shut = hosts[0].serve("shut", "x", network="inner", ports={"80/tcp": 8080})
    near = hosts[1].sleeper("near", network="inner")
    address = hosts[0].address(shut, "inner")
    eventually("its neighbour", lambda: hosts[1].curl(near, f"http://{address}/") == "x\n")
    assert hosts[0].curl(shut, WORLD) == ""
    assert hosts[0].curl(None, f"http://{hosts[0].underlay}:8080/") == ""


def test_a_docker_gwbridge_somebody_makes_is_a_bridge_as_any_other(hosts: Hosts) -> None:
    """Docker's documentation has users make it by hand, to choose its subnet."""
    create(hosts, "wide")
    pool = docker.types.IPAMPool(subnet="10.11.0.0/16")
    options = {
        "com.docker.network.bridge.name": "docker_gwbridge",
        "com.docker.network.bridge.enable_icc": "false",
        "com.docker.network.bridge.enable_ip_masquerade": "true",
    }
    made = hosts[0].client.networks.create(
        "docker_gwbridge", options=options, ipam=docker.types.IPAMConfig(pool_configs=[pool])
    )
    assert "docker_gwbridge" in hosts[0].run("ip", "-br", "link")
    one = hosts[0].sleeper("one", network="wide")
    assert hosts[0].curl(one, WORLD) == hosts[0].underlay
    assert list(one.attrs["NetworkSettings"]["Networks"]) == ["wide"]
    made.connect(one)
    assert hosts[0].curl(one, WORLD) == hosts[0].underlay
    made.disconnect(one)
    assert hosts[0].curl(one, WORLD) == hosts[0].underlay


def test_explain_and_verify_know_the_way(hosts: Hosts) -> None:
    create(hosts, "wide")
    hosts[0].serve("web", "here", network="wide", ports={"80/tcp": 8080})
    assert told(explain(hosts[0], "web", "outside", 80)) == (True, "reachable")
    assert told(explain(hosts[0], "outside", "web", 80)) == (True, "reachable")
    assert told(explain(hosts[0], "web", f"{SUBNET}.1", 9000)) == (True, "reachable")
    to_host = explain(hosts[0], "web", "host", 8080)
    assert told(to_host) == (True, "reachable"), to_host["Text"]
    assert verify(hosts[0])["IsAsAsked"]
