"""Containers on the example plugin's networks: packets, names, restarts, the stock docker command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import docker
import pytest
from docker.types import IPAMConfig, IPAMPool
from tests.patience import PATIENCE
from tests.scenarios.conftest import IMAGE, Node, wait_for
from tests.scenarios.plugins.conftest import Routed


def create(node: Node, subnet: str = "") -> docker.models.networks.Network:
    pools = [IPAMPool(subnet=subnet)] if subnet else []
    ipam = IPAMConfig(driver="routed", pool_configs=pools)
    return node.client.networks.create("quick", driver="routed", ipam=ipam)


def reaches(node: Node, container: object, address: str) -> bool:
    return "1 received" in node.net(container, "ping", "-c", "1", "-W", "5", address, check=False)


def test_containers_reach_each_other_the_host_and_by_name(node: Node, routed: Routed) -> None:
    network = create(node)
    web = node.serve("web", "hello", network="quick")
    client = node.sleeper("client", network="quick")
    address = node.address(web, "quick")
    assert address.startswith("10.201.0.")
    assert reaches(node, client, address)
    assert node.curl(client, f"http://{address}/") == "hello\n"
    assert node.curl(None, f"http://{address}/") == "hello\n"
    assert node.resolve(client, "web") == [address]
    inside = json.loads(node.net(web, "ip", "-j", "addr", "show", "eth0"))[0]
    assert [f"{one['local']}/{one['prefixlen']}" for one in inside["addr_info"]] == [f"{address}/32"]
    routes = node.net(web, "ip", "route")
    assert "default via 169.254.1.1 dev eth0" in routes and "169.254.1.1 dev eth0" in routes
    network.reload()
    assert network.attrs["Containers"][web.id]["IPv4Address"] == f"{address}/32"
    assert network.attrs["Driver"] == "routed" and network.attrs["IPAM"]["Driver"] == "routed"
    assert network.attrs["IPAM"]["Config"] == [{"Subnet": "10.201.0.0/24"}]
    assert "routed" in node.client.info()["Plugins"]["Network"]


def test_stop_start_connect_and_disconnect(node: Node, routed: Routed) -> None:
    network = create(node, "10.201.0.0/24")
    web = node.sleeper("web", network="quick")
    first = node.address(web, "quick")
    web.stop(timeout=0)
    assert routed.state()["endpoints"] == {} and routed.state()["pools"] == {"10.201.0.0/24": []}
    web.start()
    assert node.address(web, "quick") == first
    network.disconnect(web)
    assert routed.state()["endpoints"] == {}
    assert "eth0" not in node.net(web, "ip", "link")
    network.connect(web, ipv4_address="10.201.0.77")
    assert node.address(web, "quick") == "10.201.0.77"
    assert reaches(node, web, "169.254.1.1")
    assert "default via 169.254.1.1" in node.net(web, "ip", "route")


def test_beside_a_bridge(node: Node, routed: Routed) -> None:
    create(node)
    node.client.networks.create("near")
    web = node.sleeper("web", network="near")
    node.client.networks.get("quick").connect(web)
    links = {each["ifname"] for each in json.loads(node.net(web, "ip", "-j", "link"))}
    assert links == {"lo", "eth0", "eth1"}
    # "near" sorts first, so the bridge leads to the world.
    assert "dev eth0" in node.net(web, "ip", "route", "show", "default")
    node.client.networks.get("near").disconnect(web)
    assert "via 169.254.1.1 dev eth1" in node.net(web, "ip", "route", "show", "default")


def test_darid_killed_and_the_plugin_restarted_under_running_containers(node: Node, routed: Routed) -> None:
    create(node)
    web = node.sleeper("web", network="quick")
    client = node.sleeper("client", network="quick")
    address = node.address(web, "quick")
    before = node.net(web, "ip", "addr")
    command = ["nsenter", "-t", str(node.pid(client)), "-n", "ping", "-c", "1", "-W", "5", address]
    node.kill()
    routed.kill()
    subprocess.run(command, check=True, capture_output=True)
    node.start()
    assert node.net(web, "ip", "addr") == before
    routed.start()
    third = node.sleeper("third", network="quick")
    assert reaches(node, third, address)
    web.remove(force=True)
    assert len(routed.state()["endpoints"]) == 2


def test_what_ends_without_its_plugin_is_told_when_it_is_back(node: Node, routed: Routed) -> None:
    network = create(node)
    web = node.sleeper("web", network="quick")
    routed.stop()
    web.remove(force=True)
    network.remove()
    assert [each.name for each in node.client.networks.list(names=["quick"])] == []
    assert routed._state.exists() and len(routed.state()["endpoints"]) == 1
    routed.start()
    wait_for(
        "the plugin is told",
        lambda: routed.state() == {"networks": {}, "endpoints": {}, "pools": {}},
        60,
    )


def test_a_refusal_leaves_nothing(node: Node, routed: Routed) -> None:
    network = create(node)
    with pytest.raises(docker.errors.APIError) as caught:
        node.client.containers.run(
            IMAGE, ["sleep", "9"], name="web", network="quick", ports={"80/tcp": 8080}, detach=True
        )
    assert "routed networks publish no ports" in str(caught.value)
    assert "driver failed programming external connectivity on endpoint web" in str(caught.value)
    assert routed.state()["endpoints"] == {} and routed.state()["pools"] == {"10.201.0.0/24": []}
    node.client.containers.get("web").remove()
    network.remove()
    create(node, "10.203.0.0/24")
    address = {"quick": node.client.api.create_endpoint_config(ipv4_address="10.203.0.9")}
    networking = node.client.api.create_networking_config(address)
    for name in ("first", "second"):
        node.client.api.create_container(IMAGE, ["sleep", "99"], name=name, networking_config=networking)
    node.client.containers.get("first").start()
    with pytest.raises(docker.errors.APIError, match=r"remote: address 10\.203\.0\.9 is in use") as refused:
        node.client.containers.get("second").start()
    assert refused.value.status_code == 500
    assert len(routed.state()["endpoints"]) == 1


def test_the_stock_command_line(node: Node, routed: Routed) -> None:
    program = shutil.which("docker")
    if program is None:
        pytest.skip("needs the docker command")

    def run(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [program or "", *words],
            capture_output=True,
            text=True,
            env={**os.environ, "DOCKER_HOST": f"unix://{node.socket}"},
            timeout=60 * PATIENCE,
        )
        assert done.returncode == code, done.stderr
        return done.stdout.strip() if code == 0 else done.stderr.strip()

    assert run("network", "create", "-d", "nope", "x", code=1).endswith('plugin "nope" not found')
    assert run("network", "create", "--ipam-driver", "nope", "x", code=1).endswith('plugin "nope" not found')
    assert run("network", "create", "--ipam-driver", "null", "x", code=1).count("ipv4 pool is empty") == 1
    run("network", "create", "-d", "routed", "--subnet", "10.202.0.0/24", "-o", "color=red", "far")
    assert run("network", "ls", "-f", "driver=routed", "--format", "{{.Name}} {{.Driver}} {{.Scope}}") == (
        "far routed local"
    )
    run("run", "-d", "--name", "web", "--network", "far", "--ip", "10.202.0.7", IMAGE, "sleep", "1000")
    shown = run("inspect", "web", "--format", "{{.NetworkSettings.Networks.far.IPAddress}}")
    assert shown == "10.202.0.7"
    assert "169.254.1.1" in run("exec", "web", "ip", "route")
    # Addresses of the default driver, without a gateway: the plugin wants none.
    config = json.loads(run("network", "inspect", "far", "--format", "{{json .IPAM.Config}}"))
    assert config == [{"Subnet": "10.202.0.0/24"}]
    assert "routed" in json.loads(run("info", "--format", "{{json .Plugins.Network}}"))
    assert "has active endpoints" in run("network", "rm", "far", code=1)
    run("rm", "-f", "web")
    run("network", "rm", "far")
