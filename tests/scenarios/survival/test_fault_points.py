"""darid killed before and after each thing it does for a port, a start, a connection: the next one agrees with itself.

After each death: the kernel is as the store says, what the container publishes is what answers, its ports can be
taken away and had again, and in the end nothing is left.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from tests.patience import PATIENCE
from tests.scenarios.conftest import IMAGE, Node, wait_for

from dari.client.docker import Docker
from dari.client.errors import ClientError

pytestmark = pytest.mark.slow

_MOST_POINTS = 80


class FaultyNode(Node):
    program = (str(Path(__file__).parents[1] / "faulty_darid.py"),)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyNode]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folder = tmp_path_factory.mktemp("faulty")
    os.environ["DARI_TEST_FAULT"] = str(folder / "fault")
    node = FaultyNode(folder)
    try:
        node.load_image()
        node.client.networks.create("web")
        node.client.networks.create("side")
        yield node
    finally:
        del os.environ["DARI_TEST_FAULT"]
        node.close()


def _ports(node: Node) -> Docker:
    return Docker(f"unix://{node.socket}")


PATH = "/dari/v1/containers/srv/ports"
BINDINGS = {"80/tcp": [{"HostPort": "8080"}], "9000-9099/udp": [{"HostPort": "19000-19099"}]}


def _publish(node: Node) -> None:
    _ports(node).post(PATH, {"PortBindings": BINDINGS})


def _unpublish(node: Node) -> None:
    _ports(node).delete(PATH, port="9010/udp")
    _ports(node).delete(PATH, port="80/tcp")


def _start(node: Node) -> None:
    node.client.containers.get("srv").start()


def _stop(node: Node) -> None:
    node.client.containers.get("srv").stop(timeout=0)


def _connect(node: Node) -> None:
    node.client.networks.get("side").connect("srv")


def _disconnect(node: Node) -> None:
    node.client.networks.get("side").disconnect("srv")


def _remove(node: Node) -> None:
    node.client.containers.get("srv").remove(force=True)


# What is done, and what was done before: publish, start, connect (a container is always created).
ACTIONS: list[tuple[str, Callable[[Node], None], tuple[Callable[[Node], None], ...]]] = [
    ("publish", _publish, (_start,)),
    ("unpublish", _unpublish, (_start, _publish)),
    ("start", _start, (_publish,)),
    ("stop", _stop, (_publish, _start)),
    ("connect", _connect, (_publish, _start)),
    ("disconnect", _disconnect, (_publish, _start, _connect)),
    ("remove", _remove, (_publish, _start, _connect)),
]


@pytest.mark.parametrize(("name", "act", "before"), ACTIONS, ids=[each[0] for each in ACTIONS])
def test_killed_at_each_point(
    faulty: FaultyNode, name: str, act: Callable[[Node], None], before: tuple[Callable[[Node], None], ...]
) -> None:
    fault = Path(os.environ["DARI_TEST_FAULT"])
    empty = faulty.kernel()
    # Two points in a row, after one thing and before the next, find the same world: every other one is enough.
    for number in range(1, _MOST_POINTS, 2):
        faulty.client.containers.create(
            IMAGE, ["sh", "-c", "mkdir /www; httpd -f -p 80 -h /www"], name="srv", network="web"
        )
        for each in before:
            each(faulty)
        fault.write_text(str(number))
        with contextlib.suppress(requests.RequestException, docker.errors.APIError, ClientError, OSError):
            act(faulty)
        assert faulty.daemon is not None
        is_dead = _is_dead(faulty)
        fault.unlink()
        if is_dead:
            faulty.daemon.wait(20 * PATIENCE)
            faulty.start()
        _check(faulty, f"{name}, point {number}")
        for container in faulty.client.containers.list(all=True):
            container.remove(force=True)
        wait_for("nothing is left", lambda: faulty.kernel() == empty)
        if not is_dead:
            # Past the last point: it simply worked.
            assert number > 2, f"{name} passed no point"
            return
    raise AssertionError(f"{name} has more than {_MOST_POINTS} points")


def _is_dead(node: Node) -> bool:
    """The points are passed before the answer, but for what is done behind the client's back."""
    assert node.daemon is not None
    with contextlib.suppress(docker.errors.DockerException, requests.RequestException):
        node.client.ping()
        return False
    wait_for("its end", lambda: node.daemon is not None and node.daemon.poll() is not None)
    return True


def _check(node: Node, where: str) -> None:
    found: list[dict[str, Any]] = []

    def settled() -> bool:
        # A restart policy's or an exit's clean-up may still be under way.
        found[:] = [each for each in _ports(node).get("/dari/v1/doctor")["Findings"] if each["IsOurs"]]
        return not found

    with contextlib.suppress(AssertionError):
        wait_for("agreement", settled, 5)
    assert not found, f"{where}: {found}"
    for container in node.client.containers.list(all=True):
        shown = _ports(node).get(PATH)["Ports"]
        told = container.attrs["HostConfig"]["PortBindings"] or {}
        if container.status != "running":
            assert not shown, where
            continue
        assert len(shown) == len(told), f"{where}: {shown} {told}"
        is_published = "80/tcp" in shown
        wait_for(
            f"{where}: an answer as published",
            lambda is_published=is_published: _answers(node) is is_published,
        )


def _answers(node: Node) -> bool:
    return "404" in node.curl(None, "http://127.0.0.1:8080/nothing")
