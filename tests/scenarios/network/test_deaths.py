"""darid and dari-dns killed: what runs goes on, and the next darid agrees with the kernel."""

from __future__ import annotations

import os
import signal
import threading

import docker
import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import IMAGE, Node, wait_for

from dari.dns import nudge


def test_containers_outlive_darid(node: Node) -> None:
    node.client.networks.create("web")
    server = node.serve("srv", "hello", network="web", ports={"80/tcp": 8080})
    c1 = node.sleeper("c1", network="web")
    pids, kernel = (node.pid(server), node.pid(c1)), node.kernel()
    for number in (signal.SIGKILL, signal.SIGTERM):
        node.kill(number)
        assert all(os.path.exists(f"/proc/{pid}") for pid in pids)
        assert (
            node._enter(pids[1], ["-n"], ("curl", "-s", "-m", "20", f"http://{_ip(node, pids[0])}/"), True)
            == "hello\n"
        )
        assert "Address: " in node._enter(pids[1], ["-n", "-m"], ("nslookup", "-type=a", "srv"), False)
        node.start()
        assert (node.pid(server), node.pid(c1)) == pids
        assert node.kernel() == kernel
    assert node.curl(None, "http://127.0.0.1:8080/") == "hello\n"


def _ip(node: Node, pid: int) -> str:
    words = node._enter(pid, ["-n"], ("ip", "-4", "-br", "addr", "show", "eth0"), True).split()
    return words[2].partition("/")[0]


def test_dari_dns_comes_back(node: Node) -> None:
    node.client.networks.create("web")
    c1 = node.sleeper("c1", network="web")
    old = node.kill_dns()

    def is_new() -> bool:
        status = nudge.ping(f"{node.exec_root}/dns", 0.2)
        return status is not None and status.pid != old

    wait_for("a new dari-dns", is_new)
    assert node.resolve(c1, "c1") == [node.address(c1, "web")]


def test_both_killed_while_a_container_stops(node: Node) -> None:
    node.client.networks.create("web")
    c1, c2 = node.sleeper("c1", network="web"), node.sleeper("c2", network="web", ports={"80/tcp": 8080})
    pid = node.pid(c2)
    node.kill()
    node.kill_dns()
    os.kill(pid, signal.SIGKILL)
    node.start()
    wait_for("c2's end is noticed", lambda: node.client.containers.get("c2").status == "exited")
    assert node.resolve(c1, "c2") == []
    assert node.resolve(c1, "c1") == [node.address(c1, "web")]
    wait_for("the port is free", lambda: "8080" not in " ".join(node.kernel()))


@pytest.mark.parametrize("delay", [0.02, 0.06, 0.12, 0.2])
def test_killed_in_the_midst(node: Node, delay: float) -> None:
    """darid dies while containers start and networks change; the next one ends with store and kernel alike."""
    client = node.client
    client.networks.create("web")
    c1 = node.sleeper("c1", network="web")

    def busy() -> None:
        try:
            for number in range(10):
                network = node.client.networks.create(f"n{number}")
                node.sleeper(f"w{number}", network="web", ports={"80/tcp": 8100 + number})
                network.connect(c1)
        except (docker.errors.DockerException, OSError):
            return

    worker = threading.Thread(target=busy)
    worker.start()
    worker.join(delay)
    node.kill()
    worker.join(30 * PATIENCE)
    node.start()
    for container in node.client.containers.list():
        assert os.path.exists(f"/proc/{node.pid(container)}")
        for name, place in container.attrs["NetworkSettings"]["Networks"].items():
            assert place["IPAddress"] in node.net(container, "ip", "-br", "addr"), name
    assert node.pid(c1)
    names = {each.name for each in node.client.networks.list()}
    bridges = [each for each in node.kernel() if each.startswith("link br-")]
    assert len(bridges) == len(names) - 3
    running = node.client.containers.list()
    assert len([each for each in node.kernel() if each.startswith("netns ")]) == len(running)
    assert node.client.containers.run(IMAGE, ["true"], detach=True, network="web").wait()["StatusCode"] == 0
