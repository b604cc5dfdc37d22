"""darid killed at every call to a plugin, before the plugin acted and after: finished or undone, nothing lost or left.

The plugin runs in the test and makes real interfaces in the machine; it notes every call that contradicts what it
was told before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from docker.types import IPAMConfig
from tests.fakes.plugin import FakePlugin, FakePools, Request
from tests.scenarios.conftest import IMAGE, Node, wait_for

UP = ("RequestPool", "RequestAddress", "CreateNetwork", "CreateEndpoint", "Join", "EndpointOperInfo")
UP += ("ProgramExternalConnectivity",)
DOWN = (
    "RevokeExternalConnectivity",
    "Leave",
    "DeleteEndpoint",
    "ReleaseAddress",
    "DeleteNetwork",
    "ReleasePool",
)
MOMENTS = [(method, moment) for method in (*UP, *DOWN) for moment in ("before", "after")]


class Model:
    """What the plugin holds, and `contradictions`: calls that cannot be right after those before."""

    def __init__(self, node: Node, plugin: FakePlugin) -> None:
        self.node = node
        self.pools = FakePools(plugin)
        self.networks: set[str] = set()
        self.endpoints: set[str] = set()
        self.joined: set[str] = set()
        self.contradictions: list[str] = []
        self.deadly: tuple[str, str] | None = None
        acts: dict[str, Callable[[Request], Request]] = {
            "CreateNetwork": self.create_network,
            "DeleteNetwork": lambda body: self._forget(self.networks, body["NetworkID"]),
            "CreateEndpoint": self.create_endpoint,
            "DeleteEndpoint": self.delete_endpoint,
            "Join": self.join,
            "Leave": lambda body: self._forget(self.joined, body["EndpointID"]),
            **dict.fromkeys(
                ("EndpointOperInfo", "ProgramExternalConnectivity", "RevokeExternalConnectivity"),
                lambda _: {},
            ),
        }
        for name, act in acts.items():
            plugin.answers[f"NetworkDriver.{name}"] = self._dangerous(name, act)
        for name in ("RequestPool", "ReleasePool", "RequestAddress", "ReleaseAddress"):
            known = plugin.answers[f"IpamDriver.{name}"]
            plugin.answers[f"IpamDriver.{name}"] = self._dangerous(name, known)

    def _dangerous(self, name: str, act: Callable[[Request], Request]) -> Callable[[Request], Request]:
        def answer(body: Request) -> Request:
            if self.deadly == (name, "before"):
                self.deadly = None
                self.node.kill()
                return {}
            found = act(body)
            if self.deadly == (name, "after"):
                self.deadly = None
                self.node.kill()
            return found

        return answer

    def _forget(self, where: set[str], each: str) -> Request:
        where.discard(each)
        return {}

    def create_network(self, body: Request) -> Request:
        if body["NetworkID"] in self.networks:
            self.contradictions.append("a network twice")
        self.networks.add(body["NetworkID"])
        return {}

    def create_endpoint(self, body: Request) -> Request:
        endpoint = body["EndpointID"]
        if endpoint in self.endpoints or body["NetworkID"] not in self.networks:
            self.contradictions.append("an endpoint twice, or of no network")
        self.endpoints.add(endpoint)
        self.node.run(
            "ip", "link", "add", f"p{endpoint[:8]}", "type", "veth", "peer", "name", f"q{endpoint[:8]}"
        )
        return {}

    def delete_endpoint(self, body: Request) -> Request:
        endpoint = body["EndpointID"]
        if endpoint in self.joined:
            self.contradictions.append("an endpoint deleted that has not left")
        self.endpoints.discard(endpoint)
        self.node.run("ip", "link", "delete", f"p{endpoint[:8]}", check=False)
        return {}

    def join(self, body: Request) -> Request:
        endpoint = body["EndpointID"]
        if endpoint not in self.endpoints or endpoint in self.joined or not Path(body["SandboxKey"]).exists():
            self.contradictions.append("a join of no endpoint, a second one, or into no namespace")
        self.joined.add(endpoint)
        gateway = "169.254.7.7"
        return {
            "InterfaceName": {"SrcName": f"q{endpoint[:8]}", "DstPrefix": "eth"},
            "Gateway": gateway,
            "StaticRoutes": [{"Destination": f"{gateway}/32", "RouteType": 1}],
        }

    def is_empty(self) -> bool:
        return not (self.networks or self.endpoints or self.joined or self.pools.held)


@pytest.fixture
def model(node: Node) -> Iterator[Model]:
    with FakePlugin(Path(node.exec_root) / "plugins", "acme") as plugin:
        made = Model(node, plugin)
        yield made
        made.deadly = None
        if node.daemon is None:
            node.start()
        node.clear()


def insist(node: Node, step: Callable[[docker.DockerClient], Any]) -> Any:
    """Until it is done: a daemon that was killed is started, as its supervisor would."""

    def once() -> list[Any]:
        if node.daemon is None:
            node.start()
        with contextlib.suppress(docker.errors.DockerException, requests.exceptions.RequestException):
            with contextlib.closing(node.client) as client:
                return [step(client)]
        return []

    return wait_for("a step", once, 60)[0]


def create(client: docker.DockerClient) -> None:
    if not client.networks.list(names=["quick"]):
        client.networks.create("quick", driver="acme", ipam=IPAMConfig(driver="acme"))


def run(client: docker.DockerClient) -> None:
    try:
        container = client.containers.get("web")
    except docker.errors.NotFound:
        container = client.containers.create(IMAGE, ["sleep", "1000"], name="web", network="quick")
    if container.status != "running":
        container.start()


def remove(client: docker.DockerClient) -> None:
    with contextlib.suppress(docker.errors.NotFound):
        client.containers.get("web").remove(force=True)


def remove_network(client: docker.DockerClient) -> None:
    for network in client.networks.list(names=["quick"]):
        network.remove()


@pytest.mark.parametrize(
    ("method", "moment"),
    MOMENTS,
)
def test_killed_at(node: Node, model: Model, method: str, moment: str) -> None:
    model.deadly = (method, moment)
    insist(node, create)
    insist(node, run)
    wait_for(
        "one network, one endpoint",
        lambda: len(model.networks) == len(model.endpoints) == len(model.joined) == 1,
        60,
    )
    web = node.client.containers.get("web")
    assert "eth0" in node.net(web, "ip", "-o", "addr")
    assert "default via 169.254.7.7" in node.net(web, "ip", "route")
    if method in UP:
        assert model.deadly is None, f"{method} was never called"
    insist(node, remove)
    insist(node, remove_network)
    assert model.deadly is None, f"{method} was never called"
    if node.daemon is None:
        node.start()
    if (method, moment) in (("RequestPool", "after"), ("RequestAddress", "after")):
        # What was given and never heard of: the protocol has no word to give it back.
        wait_for("the plugin is told", lambda: not (model.networks or model.endpoints or model.joined), 60)
        assert len(model.pools.held) == 1
        assert "if it gave one, it cannot be given back" in node.log()
    else:
        wait_for("the plugin is told", model.is_empty, 60)
    assert model.contradictions == []
