"""Networks as a user meets them: names, isolation, published ports, living changes. Real kernel, docker-py."""

from __future__ import annotations

import subprocess

import docker
import pytest
from docker.types import IPAMConfig, IPAMPool
from tests.scenarios.conftest import IMAGE, Node, wait_for


def test_names_resolve_only_where_they_should(node: Node) -> None:
    client = node.client
    client.networks.create("web")
    client.networks.create("other")
    c1 = node.sleeper("c1", network="web", hostname="front")
    c2 = node.sleeper("c2", network="web")
    c3 = node.sleeper("c3", network="other")
    address = node.address(c2, "web")
    for name in ("c2", "c2.web", c2.id[:12], "C2"):
        assert node.resolve(c1, name) == [address]
    assert node.resolve(c2, "front") == [node.address(c1, "web")]
    assert node.resolve(c3, "c2") == []
    assert "nameserver 127.0.0.11" in node.inside(c1, "cat", "/etc/resolv.conf")
    assert f"{node.address(c1, 'web')}\tfront" in node.inside(c1, "cat", "/etc/hosts")
    c2.stop(timeout=0)
    assert node.resolve(c1, "c2") == []
    c2.start()
    assert node.resolve(c1, "c2") == [node.address(c2, "web")]


def test_aliases_of_several_containers_give_all_addresses(node: Node) -> None:
    client = node.client
    network = client.networks.create("web")
    made = []
    for name in ("a1", "a2"):
        container = client.containers.create(IMAGE, ["sleep", "1000"], name=name, network="web")
        network.disconnect(container)
        network.connect(container, aliases=["all"])
        container.start()
        made.append(container)
    assert node.resolve(made[0], "all") == sorted(node.address(each, "web") for each in made)


def test_networks_are_isolated_from_each_other(node: Node) -> None:
    client = node.client
    client.networks.create("web")
    client.networks.create("other")
    client.networks.create("inner", internal=True)
    server = node.serve("srv", "hello", network="web")
    url = f"http://{node.address(server, 'web')}/"
    near = node.sleeper("near", network="web")
    far = node.sleeper("far", network="other")
    default = node.sleeper("default")
    inner = node.sleeper("inner1", network="inner")
    assert node.curl(near, url) == "hello\n"
    assert node.curl(None, url) == "hello\n"
    assert node.curl(far, url) == ""
    assert node.curl(default, url) == ""
    assert node.curl(inner, url) == ""
    assert "default" not in node.net(inner, "ip", "route")


def test_published_ports(node: Node) -> None:
    client = node.client
    client.networks.create("web")
    ports = {"80/tcp": [8080, ("127.0.0.1", 8081)], "81/tcp": None}
    server = node.serve("srv", "hello", network="web", ports=ports)
    near = node.sleeper("near", network="web")
    gateway = client.networks.get("web").attrs["IPAM"]["Config"][0]["Gateway"]
    assert node.curl(None, "http://127.0.0.1:8080/") == "hello\n"
    assert node.curl(None, f"http://{gateway}:8080/") == "hello\n"
    assert node.curl(near, f"http://{gateway}:8080/") == "hello\n"
    assert node.curl(server, f"http://{gateway}:8080/") == "hello\n"
    assert node.curl(None, "http://127.0.0.1:8081/") == "hello\n"
    assert node.curl(None, f"http://{gateway}:8081/") == ""
    server.reload()
    found = server.attrs["NetworkSettings"]["Ports"]
    assert {(each["HostIp"], each["HostPort"]) for each in found["80/tcp"]} == {
        ("0.0.0.0", "8080"),
        ("127.0.0.1", "8081"),
    }
    assert int(found["81/tcp"][0]["HostPort"]) >= 32768
    with pytest.raises(
        docker.errors.APIError, match=r"Bind for 0\.0\.0\.0:8080 failed: port is already allocated"
    ):
        client.containers.run(IMAGE, ["true"], name="late", ports={"80/tcp": 8080}, detach=True)
    server.remove(force=True)
    assert node.curl(None, "http://127.0.0.1:8080/") == ""
    assert node.serve("s2", "again", ports={"80/tcp": 8080})
    assert node.curl(None, "http://127.0.0.1:8080/") == "again\n"


def test_connect_and_disconnect_a_running_container(node: Node) -> None:
    client = node.client
    web, db = client.networks.create("web"), client.networks.create("db")
    server = node.serve("srv", "hello", network="db")
    c1 = node.sleeper("c1", network="web")
    url = f"http://{node.address(server, 'db')}/"
    assert node.curl(c1, url) == ""
    db.connect(c1, aliases=["also"])
    assert node.resolve(c1, "srv") == [node.address(server, "db")]
    assert node.resolve(server, "also") == [node.address(c1, "db")]
    assert node.curl(c1, url) == "hello\n"
    assert {"eth0", "eth1"} <= set(node.net(c1, "ls", "/sys/class/net").split()) or "eth1" in node.net(
        c1, "ip", "link"
    )
    db.disconnect(c1)
    assert node.resolve(c1, "srv") == []
    assert node.curl(c1, url) == ""
    assert "eth1" not in node.net(c1, "ip", "link")
    web.disconnect(c1)
    assert "eth0" not in node.net(c1, "ip", "link")
    assert node.pid(c1)


def test_static_addresses_and_ranges(node: Node) -> None:
    client = node.client
    pool = IPAMPool(subnet="10.77.0.0/24", iprange="10.77.0.64/30", gateway="10.77.0.1")
    network = client.networks.create("own", ipam=IPAMConfig(pool_configs=[pool]))
    fixed = client.containers.create(IMAGE, ["sleep", "1000"], name="fixed")
    network.connect(fixed, ipv4_address="10.77.0.65")
    others = [node.sleeper(f"o{number}", network="own") for number in range(3)]
    assert {node.address(each, "own") for each in others} == {"10.77.0.64", "10.77.0.66", "10.77.0.67"}
    with pytest.raises(docker.errors.APIError, match="no available IPv4 addresses"):
        node.sleeper("full", network="own")
    fixed.start()
    assert node.address(fixed, "own") == "10.77.0.65"
    others[0].stop(timeout=0)
    assert node.address(node.sleeper("next", network="own"), "own") == "10.77.0.64"


def test_host_none_and_shared_networks(node: Node) -> None:
    client = node.client
    client.networks.create("web")
    with_host = node.sleeper("hh", network_mode="host")
    assert "dari0" in node.net(with_host, "ip", "link")
    alone = node.sleeper("nn", network_mode="none")
    links = node.net(alone, "ip", "-br", "link").split()
    assert "lo" in links and not any(each.startswith("eth") for each in links)
    owner = node.serve("owner", "mine", network="web")
    guest = node.sleeper("guest", network_mode=f"container:{owner.name}")
    assert node.curl(guest, "http://127.0.0.1/") == "mine\n"
    with pytest.raises(docker.errors.APIError, match="container sharing network namespace"):
        client.networks.get("bridge").connect(guest)


def test_a_foreign_listener_keeps_its_port(node: Node) -> None:
    script = "import socket,sys,time;s=socket.create_server(('0.0.0.0',8099));print('x',flush=True);time.sleep(600)"
    listener = subprocess.Popen(
        ["nsenter", "-t", str(node.holder.pid), "-n", "python3", "-c", script], stdout=subprocess.PIPE
    )
    try:
        assert listener.stdout is not None and listener.stdout.readline()
        with pytest.raises(docker.errors.APIError, match=r"0\.0\.0\.0:8099.*address already in use"):
            node.sleeper("c1", ports={"80/tcp": 8099})
    finally:
        listener.kill()
        listener.wait()


def test_remove_refuses_while_in_use(node: Node) -> None:
    network = node.client.networks.create("web")
    c1 = node.sleeper("c1", network="web")
    with pytest.raises(docker.errors.APIError, match="network web has active endpoints") as caught:
        network.remove()
    assert caught.value.status_code == 403
    c1.stop(timeout=0)
    network.remove()
    assert [each.name for each in node.client.networks.list()] == ["bridge", "host", "none"]


def test_udp_is_published(node: Node) -> None:
    container = node.sleeper("udp", ports={"7000/udp": 7000})
    echo = (
        "import socket;s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.bind(('0.0.0.0',7000));"
        "d,a=s.recvfrom(99);s.sendto(d,a)"
    )
    server = subprocess.Popen(["nsenter", "-t", str(node.pid(container)), "-n", "python3", "-c", echo])
    try:
        wait_for("the UDP server", lambda: node.net(container, "ss", "-Hlun", "sport", "=", ":7000"))
        ask = (
            "import socket;s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.settimeout(20);"
            "s.sendto(b'ping',('127.0.0.1',7000));print(s.recv(9).decode())"
        )
        assert node.run("python3", "-c", ask) == "ping\n"
    finally:
        server.kill()
        server.wait()
