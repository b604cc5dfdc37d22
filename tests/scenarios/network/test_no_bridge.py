"""A daemon without a default bridge: `darid --bridge none`."""

from __future__ import annotations

import json
from typing import Any

from docker.types import IPAMConfig, IPAMPool
from tests.scenarios.conftest import IMAGE, Node


def again(node: Node, **settings: str) -> None:
    node.kill(15)
    node.config_file().write_text(json.dumps(settings))
    node.start()


def interfaces(node: Node, container: Any) -> set[str]:
    return {each["ifname"] for each in json.loads(node.net(container, "ip", "-j", "link"))}


def names(node: Node) -> set[str]:
    return {each.name for each in node.client.networks.list()}


def test_without_a_default_bridge_and_with_one_again(node: Node) -> None:
    client = node.client
    before = client.containers.create(IMAGE, ["sleep", "1000"], name="before")
    runs = node.sleeper("runs")
    again(node, bridge="none")
    # While somebody is on it, it stays.
    assert names(node) == {"bridge", "host", "none"}
    runs.remove(force=True)
    again(node, bridge="none")
    assert names(node) == {"host", "none"}
    assert "dari0" not in node.run("ip", "link")
    before.start()
    assert interfaces(node, before) == {"lo"}
    assert interfaces(node, node.sleeper("named", network_mode="bridge")) == {"lo"}
    # Not of the pools, which the next default bridge is cut from.
    pool = IPAMPool(subnet="10.77.0.0/24")
    client.networks.create("own", ipam=IPAMConfig(pool_configs=[pool]))
    assert interfaces(node, node.sleeper("other", network="own")) == {"lo", "eth0"}
    for each in client.containers.list():
        each.stop(timeout=0)
    again(node)
    assert names(node) == {"bridge", "host", "none", "own"}
    before.start()
    assert interfaces(node, before) == {"lo", "eth0"}
    assert node.address(before, "bridge")
