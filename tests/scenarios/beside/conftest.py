"""A dockerd in the machine's namespaces, and a world outside that sees whom it talks to."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import IMAGE, Node, image_tar, wait_for

UPLINK, OUTSIDE = "192.0.2.1", "192.0.2.2"

_SERVER = """\
import http.server as h
class A(h.BaseHTTPRequestHandler):
  def do_GET(s):
    s.send_response(200); s.end_headers(); s.wfile.write(s.client_address[0].encode())
h.ThreadingHTTPServer(('', 80), A).serve_forever()
"""


class Outside:
    """A host behind the machine's uplink, 192.0.2.0/30: `curl` asks from there, port 80 tells who asks."""

    def __init__(self, machine: Node) -> None:
        self.machine = machine
        ready = "while ! ip addr show dev out0 2>/dev/null | grep -q 'inet '; do sleep 0.02; done"
        self.process = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", f'ip link set lo up; {ready}; exec python3 -c "$0"', _SERVER],
            stderr=subprocess.DEVNULL,
        )
        wait_for(
            "a namespace of its own",
            lambda: os.readlink(f"/proc/{self.process.pid}/ns/net") != os.readlink("/proc/self/ns/net"),
        )
        far = ["peer", "name", "out0", "netns", str(self.process.pid)]
        machine.run("ip", "link", "add", "up0", "type", "veth", *far)
        machine.run("ip", "addr", "add", f"{UPLINK}/30", "dev", "up0")
        machine.run("ip", "link", "set", "up0", "up")
        machine.run("ip", "route", "add", "default", "via", OUTSIDE)
        self.run("ip", "link", "set", "out0", "up")
        self.run("ip", "addr", "add", f"{OUTSIDE}/30", "dev", "out0")
        # It knows the way to every container, so that only rules keep it out.
        self.run("ip", "route", "add", "default", "via", UPLINK)
        wait_for("the outside's server", lambda: machine.curl(None, f"http://{OUTSIDE}/") == UPLINK)

    def run(self, *command: str) -> str:
        inside = ["nsenter", "-t", str(self.process.pid), "-n", *command]
        return subprocess.run(inside, capture_output=True, text=True, check=False).stdout

    def curl(self, url: str) -> str:
        return self.run("curl", "-s", "--connect-timeout", "2", "-m", "40", url)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.machine.run("ip", "link", "del", "up0", check=False)


class Dockerd:
    """Debian's dockerd with its rules by iptables; `client` speaks to it."""

    def __init__(self, machine: Node) -> None:
        if shutil.which("dockerd") is None:
            pytest.skip("needs dockerd")
        self.machine = machine
        self.root = f"/tmp/beside-{os.path.basename(machine.exec_root)}"
        os.makedirs(self.root)
        self.process: subprocess.Popen[bytes] | None = None
        # dockerd sets FORWARD's policy to DROP only where it is the one that turns forwarding on.
        machine.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
        self.start()
        self.client.api.import_image_from_data(
            image_tar(), repository="busybox", tag="latest", changes=["ENV PATH=/bin"]
        )

    @property
    def client(self) -> docker.DockerClient:
        return docker.DockerClient(
            base_url=f"unix://{self.root}/docker.sock", version="1.41", timeout=60 * PATIENCE
        )

    def start(self) -> None:
        command = ["dockerd", "-H", f"unix://{self.root}/docker.sock", "--data-root", f"{self.root}/data"]
        command += ["--exec-root", f"{self.root}/run", "--pidfile", f"{self.root}/pid"]
        command += ["--storage-driver", "vfs", "--userland-proxy=false"]
        with open(f"{self.root}/log", "ab") as log:
            self.process = subprocess.Popen(
                ["nsenter", "-t", str(self.machine.holder.pid), "-n", "-m", *command], stdout=log, stderr=log
            )
        wait_for("dockerd's answer", self._answers, 40)

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            with open(f"{self.root}/log") as log:
                raise AssertionError(log.read()[-2000:])
        with (
            contextlib.suppress(docker.errors.DockerException, OSError),
            contextlib.closing(self.client) as one,
        ):
            return bool(one.ping())
        return False

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30 * PATIENCE)

    def serve(self, name: str, text: str, **options: Any) -> Any:
        """A container of dockerd's that answers HTTP on port 80."""
        command = f"mkdir -p /www && echo {text} > /www/index.html && exec httpd -f -p 80 -h /www"
        made = self.client.containers.run(IMAGE, ["sh", "-c", command], name=name, detach=True, **options)
        listening = ("ss", "-Hltn", "sport", "=", ":80")
        wait_for(f"{name}'s server", lambda: self.machine.net(made, *listening, check=False))
        made.reload()
        return made

    def clear(self) -> None:
        for container in self.client.containers.list(all=True):
            container.remove(force=True)
        self.client.networks.prune()

    def rules(self) -> str:
        """Its rules, counters and ours left out."""
        lines = (
            self.machine.run("iptables-save") + self.machine.run("ip6tables-save", check=False)
        ).splitlines()
        return "\n".join(
            line.partition(" [")[0]
            for line in lines
            if not line.startswith("#") and "--comment dari" not in line
        )

    def close(self) -> None:
        self.clear()
        self.stop()
        for family in ("ip", "ip6"):
            for table in ("filter", "nat", "mangle", "raw"):
                self.machine.run("nft", "delete", "table", family, table, check=False)
        self.machine.run("ip", "link", "del", "docker0", check=False)
        shutil.rmtree(self.root, ignore_errors=True)


@pytest.fixture(scope="module")
def outside(machine: Node) -> Iterator[Outside]:
    made = Outside(machine)
    yield made
    made.close()


@pytest.fixture(scope="module")
def module_dockerd(machine: Node, outside: Outside) -> Iterator[Dockerd]:
    made = Dockerd(machine)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def dockerd(module_dockerd: Dockerd, node: Node) -> Iterator[Dockerd]:
    """dockerd, without containers and networks before and after each test; dari knows that it is there."""

    def has_rule() -> bool:
        return 'comment "dari"' in node.run(
            "nft", "list", "chain", "ip", "filter", "DOCKER-USER", check=False
        )

    wait_for("dari's rule beside Docker's", has_rule, 25)
    yield module_dockerd
    module_dockerd.clear()
