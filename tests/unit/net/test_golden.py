"""Each golden folder: in.yaml is what is desired, state.txt what the kernel should look like, plan.txt the steps.

`before` in in.yaml is what was desired last (nothing, if absent). DARI_GOLDEN=1 writes the texts anew; the diff is
then reviewed like code.
"""

from __future__ import annotations

import os
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from dari.net.desired import (
    Desired,
    EndpointWant,
    LinkWant,
    NetworkWant,
    PublishWant,
    RouteWant,
    SandboxWant,
    SubnetWant,
)
from dari.net.drivers import driver
from dari.net.facts import HostFacts
from dari.net.ipam import mac_of
from dari.net.plan import plan
from dari.net.render import render
from dari.net.text import describe_state

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.parent for path in GOLDEN.glob("*/*/in.yaml"))
FILES = {"in.yaml", "state.txt", "plan.txt"}


def desired_from(tree: dict[str, Any]) -> Desired:
    return Desired(
        tuple(_network(name, body or {}) for name, body in (tree.get("networks") or {}).items()),
        tuple(
            _endpoint(name, network, body or {})
            for name, sandbox in (tree.get("sandboxes") or {}).items()
            for network, body in ((sandbox or {}).get("endpoints") or {}).items()
        ),
        tuple(_sandbox(name, body or {}) for name, body in (tree.get("sandboxes") or {}).items()),
    )


def _network(name: str, body: dict[str, Any]) -> NetworkWant:
    subnets = body.pop("subnets", {})
    return NetworkWant(
        id=name,
        name=name,
        bridge_name=body.pop("bridge", f"br-{name}"),
        altname=f"dari-net-{name}",
        subnets=tuple(
            _subnet(prefix, more if isinstance(more, dict) else {"gateway": more})
            for prefix, more in subnets.items()
        ),
        **body,
    )


def _subnet(prefix: str, more: dict[str, str | None]) -> SubnetWant:
    gateway, ip_range = more.get("gateway"), more.get("ip_range")
    return SubnetWant(
        ip_network(prefix),
        ip_interface(gateway) if gateway else None,
        ip_network(ip_range) if ip_range else None,
    )


def _endpoint(sandbox: str, network: str, body: dict[str, Any]) -> EndpointWant:
    addresses = tuple(ip_interface(each) for each in body.pop("addresses"))
    return EndpointWant(
        id=f"{sandbox}-{network}",
        network_id=network,
        sandbox_id=sandbox,
        host_interface=body.pop("host_interface", f"veth-{sandbox}"),
        interface=body.pop("interface", "eth0"),
        mac=body.pop("mac", mac_of(addresses[0].ip)),
        addresses=addresses,
        gateways=tuple(ip_address(each) for each in body.pop("gateways", [])),
        routes=tuple(
            RouteWant(ip_network(to), ip_address(via) if via else None)
            for to, via in body.pop("routes", {}).items()
        ),
        altname=f"dari-ep-{sandbox}-{network}",
        **body,
    )


def _sandbox(name: str, body: dict[str, Any]) -> SandboxWant:
    return SandboxWant(
        id=name,
        netns=name,
        sysctls=body.get("sysctls", {}),
        dns_port=body.get("dns_port"),
        publishes=tuple(_publish(each) for each in body.get("publishes", [])),
        links=tuple(_link(each) for each in body.get("links", [])),
    )


def _link(text: str) -> LinkWant:
    """`172.17.0.3 -> 172.17.0.2 tcp 80`."""
    source, _, target, protocol, port = text.split()
    return LinkWant(IPv4Address(source), IPv4Address(target), protocol, int(port))


def _publish(text: str) -> PublishWant:
    """`tcp 0.0.0.0 8080 -> 172.18.0.2 80`."""
    protocol, host_ip, host_port, _, target, port = text.split()
    assert protocol in ("tcp", "udp", "sctp")
    return PublishWant(protocol, ip_address(host_ip), int(host_port), ip_address(target), int(port))  # type: ignore[arg-type]


@pytest.mark.parametrize("case", CASES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_golden(case):
    tree = yaml.safe_load((case / "in.yaml").read_text())
    facts = HostFacts(**tree.get("facts", {}))
    wanted = desired_from(tree)
    for network in wanted.networks:
        driver(network.driver).check(network, facts)
    state = render(wanted, facts)
    found = render(desired_from(tree.get("before", {})), facts)
    texts = {
        "state.txt": describe_state(state, has_tables=tree.get("has_tables", False)),
        "plan.txt": str(plan(state, found)),
    }
    if os.environ.get("DARI_GOLDEN") == "1":
        for name, text in texts.items():
            (case / name).write_text(text)
    assert {name: (case / name).read_text() for name in texts} == texts


def test_no_orphans():
    """Every folder below golden/ is a whole case of a driver that exists."""
    assert CASES
    for folder in (path for path in GOLDEN.glob("*/*") if path.is_dir()):
        driver(folder.parent.name)
        assert {each.name for each in folder.iterdir()} == FILES
