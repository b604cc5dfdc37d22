"""A plugin on Docker's own helper library for plugins: what others read into the protocol, darid means.

The library comes from the Go module proxy; without Go or the proxy there is nothing to test.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.types import IPAMConfig
from tests.scenarios.conftest import Node, wait_for

SOURCE = Path(__file__).parent / "helpers"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    go = shutil.which("go")
    if go is None:
        pytest.skip("needs Go")
    got = subprocess.run([go, "mod", "download"], cwd=SOURCE, capture_output=True, text=True, timeout=110)
    if got.returncode:
        pytest.skip(f"the helper library cannot be had: {got.stderr[-300:]}")
    target = tmp_path_factory.mktemp("go") / "helpers"
    environment = {**os.environ, "CGO_ENABLED": "0"}
    subprocess.run([go, "build", "-o", target, "."], cwd=SOURCE, check=True, env=environment, timeout=300)
    return target


class Helped:
    def __init__(self, node: Node, program: Path) -> None:
        self.folder = Path(node.exec_root) / "plugins"
        self.folder.mkdir(exist_ok=True)
        command = ["nsenter", "-t", str(node.holder.pid), "-n", str(program), str(self.folder)]
        self.process = subprocess.Popen(command)
        wait_for("the plugin's sockets", (self.folder / "state").exists)

    def held(self) -> list[int]:
        """Networks, endpoints and addresses the plugin holds."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(self.folder / "state"))
            asking.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while piece := asking.recv(4096):
                answer += piece
        return [int(word) for word in answer.rpartition(b"\r\n\r\n")[2].split()]


@pytest.fixture
def helped(node: Node, program: Path) -> Iterator[Helped]:
    made = Helped(node, program)
    yield made
    node.clear()
    wait_for("nothing is left in the plugin", lambda: made.held() == [0, 0, 0])
    made.process.kill()
    made.process.wait()
    for name in ("helped.sock", "helpedpools.sock", "state"):
        (made.folder / name).unlink()


@pytest.mark.slow
def test_a_plugin_on_dockers_helper_library(node: Node, helped: Helped) -> None:
    ipam = IPAMConfig(driver="helpedpools")
    with pytest.raises(Exception, match="give -o color=red"):
        node.client.networks.create("far", driver="helped", ipam=ipam)
    assert helped.held() == [0, 0, 0]
    network = node.client.networks.create("far", driver="helped", ipam=ipam, options={"color": "red"})
    network.reload()
    assert network.attrs["IPAM"]["Config"] == [{"Subnet": "10.210.0.0/24", "Gateway": "10.210.0.1"}]
    web = node.sleeper("web", network="far", ports={"80/tcp": 8080})
    assert helped.held() == [1, 1, 2]
    inside = json.loads(node.net(web, "ip", "-j", "addr", "show", "eth0"))[0]
    assert inside["address"] == "02:aa:bb:cc:dd:01"
    assert node.address(web, "far") == "10.210.0.2"
    assert "1 received" in node.net(web, "ping", "-c", "1", "-W", "5", "10.210.0.1")
    routes = node.net(web, "ip", "route")
    assert "default via 10.210.0.1 dev eth0" in routes and "10.211.0.0/24 dev eth0" in routes
    web.stop(timeout=0)
    assert helped.held() == [1, 0, 1]
    web.start()
    node.kill()
    node.start()
    web.remove(force=True)
    network.remove()
    assert helped.held() == [0, 0, 0]
