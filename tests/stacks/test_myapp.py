"""examples/myapp and examples/hello: a built image, a default network, names, published ports, health."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scenarios.conftest import Node, image_tar, wait_for
from tests.stacks.conftest import ROOT, Bed, Stack

CLIENTS = ["dari compose", "docker-compose"]


class Alone(Bed):
    """A bed without a registry: its only images are stand-ins made of busybox."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def close(self) -> None:
        raise AssertionError("the machine is not ours to close")


def answering_database() -> list[str]:
    """A stand-in for postgres: something that answers on 5432."""
    serve = ["sh", "-c", "while :; do echo ready | nc -l -p 5432; done"]
    return ["ENV PATH=/bin", f"CMD {json.dumps(serve)}"]


@pytest.fixture(params=CLIENTS)
def files(request: pytest.FixtureRequest, node: Node, tmp_path: Path) -> Iterator[tuple[Alone, str, Path]]:
    if request.param == "docker-compose" and shutil.which("docker-compose") is None:
        pytest.skip("needs docker-compose 1.29")
    for name in ("myapp", "hello"):
        shutil.copytree(ROOT / "examples" / name, tmp_path / name)
    yield Alone(node), request.param, tmp_path


@pytest.fixture
def myapp(files: tuple[Alone, str, Path]) -> Iterator[Stack]:
    bed, client, folder = files
    bed.node.client.api.import_image_from_data(
        image_tar(), repository="postgres", tag="latest", changes=answering_database()
    )
    stack = Stack(bed, client, folder / "myapp")
    stack("up", "-d")
    yield stack
    stack("down", "-t", "0", "--rmi", "local")


def test_myapp(myapp: Stack) -> None:
    node, found = myapp.bed.node, myapp.containers()
    assert set(found) == {"web", "db"}
    for container in found.values():
        assert list(container.attrs["NetworkSettings"]["Networks"]) == ["myapp_default"]
    network = node.client.networks.get("myapp_default")
    assert network.attrs["Labels"]["com.docker.compose.network"] == "default"
    assert found["web"].attrs["Created"] and len(network.attrs["Containers"]) == 2
    for service, other in (("web", "db"), ("db", "web")):
        assert node.resolve(found[service], other) == [node.address(found[other], "myapp_default")]
    assert node.curl(None, "http://127.0.0.1:8000/") == "<h1>myapp</h1>\n"
    wait_for("the database", lambda: myapp.inside("web", "nc", "-w", "2", "db", "5432") == "ready\n")
    # Between two clients nobody listens for a moment.
    ask = ("nc", "-w", "2", "127.0.0.1", "8001")
    wait_for("the published port", lambda: node.run(*ask, check=False) == "ready\n")


def test_down_leaves_nothing(myapp: Stack) -> None:
    myapp("down", "-t", "0")
    node = myapp.bed.node
    assert myapp.containers() == {}
    assert {each.name for each in node.client.networks.list()} == {"bridge", "host", "none"}
    assert node.curl(None, "http://127.0.0.1:8000/") == ""


def test_hello(files: tuple[Alone, str, Path]) -> None:
    bed, client, folder = files
    hello = Stack(bed, client, folder / "hello")
    hello("up", "-d")
    try:
        web = hello.containers()["web"]
        web.reload()
        assert web.attrs["State"]["Health"]["Status"] == "healthy"
        page = bed.node.curl(None, "http://127.0.0.1:8000/")
        assert "dari" in page
        first = page.splitlines()[0]
        wait_for("the probe's answer", lambda: first in hello("logs", "probe", check=False))
    finally:
        hello("down", "-t", "0")
