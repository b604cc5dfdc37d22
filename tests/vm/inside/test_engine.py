"""Networks this host's kernel may lack, through the API: ipvlan, sub-interfaces, networks without a parent."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.types import IPAMConfig, IPAMPool
from tests.scenarios.conftest import IMAGE, Node, wait_for
from tests.scenarios.network.test_explain import explain, told


@pytest.fixture
def wire(node: Node) -> Iterator[str]:
    """lan0 of the node, its other end in a namespace whose holder's process id is given."""
    holder = subprocess.Popen(["nsenter", "-t", str(node.holder.pid), "-n", "unshare", "-n", "sleep", "1000"])
    comm = Path(f"/proc/{holder.pid}/comm")
    wait_for("the machine on the wire", lambda: comm.read_text() == "sleep\n")
    pid = str(holder.pid)
    try:
        node.run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "port", "netns", pid)
        node.run("ip", "link", "set", "lan0", "up")
        for command in ("link set lo up", "link set port up", "addr add 192.0.2.1/24 dev port"):
            subprocess.run(["nsenter", "-t", pid, "-n", "ip", *command.split()], check=True)
        yield pid
    finally:
        node.clear()
        node.run("ip", "link", "del", "lan0", check=False)
        holder.kill()
        holder.wait()


def pool(subnet: str, gateway: str | None = None) -> IPAMConfig:
    return IPAMConfig(pool_configs=[IPAMPool(subnet=subnet, gateway=gateway)])


def ping(node: Node, container: object, address: str) -> bool:
    return "1 received" in node.net(container, "ping", "-n", "-c", "1", "-W", "2", address, check=False)


def test_ipvlan_with_names(node: Node, wire: str) -> None:
    options = {"parent": "lan0", "ipvlan_mode": "l2"}
    lan = node.client.networks.create(
        "lan", driver="ipvlan", options=options, ipam=pool("192.0.2.0/24", "192.0.2.1")
    )
    web = node.serve("web", "hello", network="lan")
    near = node.sleeper("near", network="lan")
    assert node.resolve(near, "web") == [node.address(web, "lan")]
    assert node.curl(near, f"http://{node.address(web, 'lan')}/") == "hello\n"
    assert ping(node, near, "192.0.2.1")
    assert "via 192.0.2.1" in node.net(near, "ip", "route", "show", "default")
    lan.disconnect(near)
    assert not ping(node, near, "192.0.2.1")
    lan.connect(near, ipv4_address="192.0.2.99")
    assert ping(node, near, "192.0.2.1")
    web.restart(timeout=0)
    assert ping(node, web, "192.0.2.1")
    node.kill()
    node.start()
    assert ping(node, near, "192.0.2.1")


def test_a_sub_interface_comes_and_goes_with_its_networks(node: Node, wire: str) -> None:
    client = node.client
    made = [
        client.networks.create(name, driver="macvlan", options={"parent": "lan0.20"}, ipam=pool(subnet))
        for name, subnet in (("one", "10.1.0.0/24"), ("two", "10.2.0.0/24"))
    ]
    assert "lan0.20" in node.run("ip", "link")
    box = node.sleeper("box", network="two")
    for command in (
        "link add port.20 link port type vlan id 20",
        "link set port.20 up",
        "addr add 10.2.0.1/24 dev port.20",
    ):
        subprocess.run(["nsenter", "-t", wire, "-n", "ip", *command.split()], check=True)
    assert ping(node, box, "10.2.0.1")
    made[0].remove()
    assert ping(node, box, "10.2.0.1")
    node.kill()
    node.start()
    assert ping(node, box, "10.2.0.1")
    box.remove(force=True)
    made[1].remove()
    assert "lan0.20" not in node.run("ip", "link")


@pytest.mark.parametrize(("driver", "prefix"), [("macvlan", "dm-"), ("ipvlan", "di-")])
def test_a_network_without_a_parent_stays_inside(node: Node, driver: str, prefix: str) -> None:
    network = node.client.networks.create("inner", driver=driver)
    assert prefix + network.id[:12] in node.run("ip", "link")
    web = node.serve("web", "hello", network="inner")
    near = node.client.containers.run(
        IMAGE, ["wget", "-qO-", "http://web/"], network="inner", remove=True, name="near"
    )
    assert near == b"hello\n"
    assert node.net(web, "ip", "route", "show", "default") == ""
    web.remove(force=True)
    network.remove()
    assert prefix not in node.run("ip", "link")


@pytest.mark.parametrize("options", [{"ipvlan_mode": "l2"}, {"ipvlan_mode": "l3"}, {"parent": "lan0.30"}])
def test_explain_where_nobody_is_behind_the_parent(node: Node, wire: str, options: dict[str, str]) -> None:
    options = {"parent": "lan0", **options}
    gateway = None if options.get("ipvlan_mode") == "l3" else "10.7.0.1"
    node.client.networks.create("lan", driver="ipvlan", options=options, ipam=pool("10.7.0.0/24", gateway))
    node.serve("web", "hello", network="lan")
    node.sleeper("near", network="lan")
    assert told(explain(node, "near", "web", 80)) == (True, "reachable")
    away = explain(node, "near", "198.51.100.1", 80, Timeout=1)
    assert told(away) == (False, "beyond"), away["Text"]
    mute = gateway or "198.51.100.1"
    assert away["Text"] == f"nobody answers for {mute} where {options['parent']} leads"
    subprocess.run(["nsenter", "-t", wire, "-n", "ip", "link", "set", "port", "down"], check=True)
    unplugged = explain(node, "near", "198.51.100.1", 80, Timeout=1)
    assert told(unplugged) == (False, "beyond") and "no carrier" in unplugged["Text"], unplugged["Text"]


def test_explain_on_a_network_without_a_parent(node: Node) -> None:
    node.client.networks.create("inner", driver="ipvlan")
    node.serve("web", "hello", network="inner")
    node.sleeper("near", network="inner")
    assert told(explain(node, "near", "web", 80)) == (True, "reachable")
    nobody = explain(node, "near", "198.51.100.1", 80, Timeout=1)
    assert told(nobody) == (False, "meant"), nobody["Text"]
