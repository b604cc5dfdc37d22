"""Options of bridges and endpoints, in the kernel and with packets; Compose's keys reach them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from docker.types import IPAMConfig, IPAMPool
from tests.patience import PATIENCE
from tests.scenarios.conftest import IMAGE, Node
from tests.scenarios.survival.ledger import check_agreement

BRIDGE = "com.docker.network.bridge."
ROOT = Path(__file__).parents[3]


def make(node: Node, name: str, subnet: str, **options: str) -> Any:
    ipam = IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)])
    return node.client.networks.create(name, ipam=ipam, options=options)


def run_on(node: Node, name: str, networks: dict[str, dict[str, Any]]) -> Any:
    """A container on several networks, with the endpoint settings of the API."""
    api = node.client.api
    body = {
        "Image": IMAGE,
        "Cmd": ["sleep", "1000"],
        "HostConfig": {"NetworkMode": next(iter(networks))},
        "NetworkingConfig": {"EndpointsConfig": networks},
    }
    made = api._result(api._post_json(api._url("/containers/create"), data=body, params={"name": name}), True)
    api.start(made["Id"])
    return node.client.containers.get(name)


def inside(node: Node, container: Any, *words: str) -> list[dict[str, Any]]:
    return list(json.loads(node.net(container, "ip", "-j", *words)))


def sysctl(node: Node, container: Any, path: str) -> str:
    return node.net(container, "cat", f"/proc/sys/net/{path}").strip()


def test_everything_on_one_interface(node: Node) -> None:
    make(node, "web", "10.71.0.0/24")
    make(node, "db", "10.72.0.0/24")
    opts = {
        "com.docker.network.endpoint.ifname": "wan0",
        "com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1,"
        "net.ipv4.neigh.IFNAME.gc_stale_time=7",
    }
    addresses = {"IPv4Address": "10.71.0.9", "LinkLocalIPs": ["169.254.71.9"]}
    web = {"IPAMConfig": addresses, "MacAddress": "02:42:0a:47:00:77", "DriverOpts": opts, "GwPriority": -1}
    made = run_on(node, "c1", {"web": web, "db": {"GwPriority": 3}})
    links = {each["ifname"]: each for each in inside(node, made, "addr")}
    assert links["wan0"]["address"] == "02:42:0a:47:00:77"
    found = {f"{one['local']}/{one['prefixlen']}" for one in links["wan0"]["addr_info"]}
    assert found == {"10.71.0.9/24", "169.254.71.9/16"}
    assert "eth0" in links
    assert sysctl(node, made, "ipv4/conf/wan0/log_martians") == "1"
    assert sysctl(node, made, "ipv4/neigh/wan0/gc_stale_time") == "7"
    assert [each["gateway"] for each in inside(node, made, "route", "show", "default")] == ["10.72.0.1"]
    # Link-local addresses speak with each other.
    peer = run_on(node, "c2", {"web": {"IPAMConfig": {"LinkLocalIPs": ["169.254.71.10"]}}})
    assert "1 received" in node.net(peer, "ping", "-c1", "-W5", "169.254.71.9")
    # The other network takes the lead when the first one goes.
    node.client.networks.get("db").disconnect(made)
    assert [each["gateway"] for each in inside(node, made, "route", "show", "default")] == ["10.71.0.1"]


def test_another_gateway_on_the_bridge(node: Node) -> None:
    """inhibit_ipv4: a container is the gateway of its network."""
    node.client.networks.create(
        "lan",
        ipam=IPAMConfig(pool_configs=[IPAMPool(subnet="10.73.0.0/24", gateway="10.73.0.254")]),
        options={f"{BRIDGE}inhibit_ipv4": "true", f"{BRIDGE}name": "lan0"},
    )
    make(node, "out", "10.74.0.0/24")
    server = node.serve("srv", "beyond", network="out")
    host = json.loads(node.run("ip", "-j", "-4", "addr", "show", "lan0"))
    assert not [one for each in host for one in each.get("addr_info", ())]
    router = run_on(node, "router", {"lan": {}, "out": {}})
    inner = node.net(router, "ip", "-j", "-4", "addr", "show", "eth0")
    assert "10.73.0." in inner
    node.net(router, "ip", "addr", "add", "10.73.0.254/24", "dev", "eth0")
    node.net(router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    rules = "add table ip t; add chain ip t p { type nat hook postrouting priority 100; }; add rule ip t p masquerade"
    node.net(router, "nft", rules)
    client = node.sleeper("client", network="lan")
    assert node.curl(client, f"http://{node.address(server, 'out')}/") == "beyond\n"


def test_ipv6_alone_and_both(node: Node) -> None:
    api = node.client.api
    for name, four in (("six", False), ("both", True)):
        body = {"Name": name, "EnableIPv4": four, "EnableIPv6": True}
        api._raise_for_status(api._post_json(api._url("/networks/create"), data=body))
    server = run_on(node, "srv", {"six": {}})
    client = run_on(node, "client", {"six": {}})
    assert node.client.networks.get("six").attrs["IPAM"]["Config"][0]["Subnet"].startswith("fd")
    server.reload()
    place = server.attrs["NetworkSettings"]["Networks"]["six"]
    assert place["IPAddress"] == "" and place["GlobalIPv6Address"].startswith("fd")
    assert "1 received" in node.net(client, "ping", "-6", "-c1", "-W5", place["GlobalIPv6Address"])
    assert inside(node, client, "-4", "addr", "show", "eth0") in ([], [{}])
    told = node.inside(client, "nslookup", "-type=aaaa", "srv", check=False)
    assert place["GlobalIPv6Address"] in told
    dual = run_on(node, "dual", {"both": {}})
    dual.reload()
    place = dual.attrs["NetworkSettings"]["Networks"]["both"]
    assert place["IPAddress"] and place["GlobalIPv6Address"]


def test_an_interface_without_ipv6(node: Node) -> None:
    api = node.client.api
    api._raise_for_status(
        api._post_json(api._url("/networks/create"), data={"Name": "both", "EnableIPv6": True})
    )
    opts = {"com.docker.network.endpoint.sysctls": "net.ipv6.conf.IFNAME.disable_ipv6=1"}
    made = run_on(node, "c1", {"both": {"DriverOpts": opts}})
    assert made.attrs["NetworkSettings"]["Networks"]["both"]["GlobalIPv6Address"] == ""
    assert inside(node, made, "-6", "addr", "show", "eth0") in ([], [{}])


def test_a_container_without_ipv6(node: Node) -> None:
    api = node.client.api
    api._raise_for_status(
        api._post_json(api._url("/networks/create"), data={"Name": "six", "EnableIPv6": True})
    )
    speaks = node.sleeper("speaks", network="six")
    mute = node.sleeper("mute", network="six", sysctls={"net.ipv6.conf.all.disable_ipv6": "1"})
    mute.reload()
    assert mute.attrs["NetworkSettings"]["Networks"]["six"]["GlobalIPv6Address"] == ""
    assert inside(node, mute, "-6", "addr") in ([], [{}])
    # Neither its own files nor the names of others speak of addresses it has not.
    assert ":" not in node.inside(mute, "cat", "/etc/hosts") and "::1" in node.inside(
        speaks, "cat", "/etc/hosts"
    )
    assert node.resolve(speaks, "mute") == [node.address(mute, "six")]
    assert "NXDOMAIN" not in node.inside(speaks, "nslookup", "-type=aaaa", "mute", check=False)
    assert (
        "Address"
        not in node.inside(speaks, "nslookup", "-type=aaaa", "mute", check=False).partition("mute")[2]
    )
    check_agreement(node)


def test_an_mtu_too_small_for_ipv6(node: Node) -> None:
    make(node, "small", "10.77.0.0/24", **{"com.docker.network.driver.mtu": "1000"})
    one = node.sleeper("one", network="small")
    node.sleeper("two", network="small")
    assert {each["mtu"] for each in inside(node, one, "link") if each["ifname"] == "eth0"} == {1000}
    assert "1 packets received" in node.inside(one, "ping", "-c", "1", "-W", "5", "two")
    check_agreement(node)


def test_prefixes_of_interfaces(node: Node) -> None:
    make(node, "web", "10.75.0.0/24", **{"com.docker.network.container_iface_prefix": "net"})
    make(node, "db", "10.76.0.0/24")
    made = run_on(node, "c1", {"web": {}, "db": {}})
    assert {each["ifname"] for each in inside(node, made, "link")} == {"lo", "net0", "eth0"}


COMPOSE = f"""
name: opts
services:
  app:
    image: {IMAGE}
    command: sleep 1000
    networks:
      front:
        interface_name: wan0
        gw_priority: 1
        mac_address: 02:42:0a:4d:00:55
        link_local_ips: [169.254.77.1]
        ipv4_address: 10.77.0.7
        driver_opts:
          com.docker.network.endpoint.sysctls: net.ipv4.conf.IFNAME.log_martians=1
      back: {{}}
networks:
  front:
    ipam: {{config: [{{subnet: 10.77.0.0/24}}]}}
    driver_opts: {{com.docker.network.driver.mtu: "1380"}}
  back: {{}}
"""


def test_compose_keys_reach_the_interface(node: Node, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    environment = {**os.environ, "DOCKER_HOST": f"unix://{node.socket}", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "dari.cli.main", "compose", "-f", str(tmp_path / "compose.yaml")]
    done = subprocess.run(
        [*command, "up", "-d"], env=environment, capture_output=True, text=True, timeout=60 * PATIENCE
    )
    assert done.returncode == 0, done.stderr
    made = node.client.containers.get("opts-app-1")
    links = {each["ifname"]: each for each in inside(node, made, "addr")}
    assert (links["wan0"]["address"], links["wan0"]["mtu"]) == ("02:42:0a:4d:00:55", 1380)
    found = {f"{one['local']}/{one['prefixlen']}" for one in links["wan0"]["addr_info"]}
    assert found == {"10.77.0.7/24", "169.254.77.1/16"}
    assert sysctl(node, made, "ipv4/conf/wan0/log_martians") == "1"
    assert [each["gateway"] for each in inside(node, made, "route", "show", "default")] == ["10.77.0.1"]
    # Nothing differs from what was asked.
    again = subprocess.run(
        [*command, "up", "-d"], env=environment, capture_output=True, text=True, timeout=60 * PATIENCE
    )
    assert again.returncode == 0 and node.client.containers.get("opts-app-1").id == made.id
    subprocess.run(
        [*command, "down", "-t", "0"], env=environment, capture_output=True, timeout=60 * PATIENCE, check=True
    )
