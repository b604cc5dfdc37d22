"""A live node with two networks, four containers and a neighbour outside; and what its doctor says.

`front` (HTTP, published) and `shop` are on web, `ledger` (HTTP) and `clerk` on books. `flows` are the ways that must be
open; each is tried with a real connection.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from typing import Any

from tests.patience import PATIENCE
from tests.scenarios.conftest import Node, wait_for

OUTSIDE, UPLINK = "198.51.100.2", "198.51.100.1"
PORT = 8080


class Town:
    def __init__(self, node: Node) -> None:
        self.node = node
        self.is_dirty = False
        self.neighbours: list[subprocess.Popen[bytes]] = []
        self.outside = self.stranger()
        node.run(
            "ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", str(self.outside)
        )
        node.run("ip", "addr", "add", f"{UPLINK}/24", "dev", "up0")
        node.run("ip", "link", "set", "up0", "up")
        self.at(self.outside, "ip", "addr", "add", f"{OUTSIDE}/24", "dev", "eth0")
        self.at(self.outside, "ip", "link", "set", "eth0", "up")
        node.run("ip", "route", "add", "default", "via", OUTSIDE)
        self.build()

    def build(self) -> None:
        node, client = self.node, self.node.client
        node.clear()
        self.ids = {name: client.networks.create(name).id for name in ("web", "books")}
        self.front = node.serve("front", "hello", network="web", ports={"80/tcp": [PORT, ("::1", PORT)]})
        self.shop = node.sleeper("shop", network="web")
        self.ledger = node.serve("ledger", "sums", network="books")
        self.clerk = node.sleeper("clerk", network="books")
        self.addresses = {
            each.name: node.address(each, network)
            for network, members in (("web", (self.front, self.shop)), ("books", (self.ledger, self.clerk)))
            for each in members
        }
        self.pids = {each.name: node.pid(each) for each in (self.front, self.shop, self.ledger, self.clerk)}
        self.is_dirty = False

    def close(self) -> None:
        for each in self.neighbours:
            each.kill()
            each.wait()

    # Names

    def bridge(self, network: str = "web") -> str:
        return f"br-{self.ids[network][:12]}"

    def gateway(self, network: str = "web") -> str:
        return str(self.node.client.networks.get(network).attrs["IPAM"]["Config"][0]["Gateway"])

    def subnet(self, network: str = "web") -> str:
        return str(self.node.client.networks.get(network).attrs["IPAM"]["Config"][0]["Subnet"])

    def spare(self, network: str = "web") -> str:
        """An address of the network nobody has."""
        return self.gateway(network).rpartition(".")[0] + ".222"

    def mac(self, container: str) -> str:
        return str(self.link(container)["address"])

    def link(self, container: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.inside(container, "ip", "-j", "link", "show", "eth0"))
        return found[0]

    def veth(self, container: str) -> str:
        """The host's end of a container's eth0."""
        index = self.link(container)["link_index"]
        links = json.loads(self.node.run("ip", "-j", "link"))
        return next(str(each["ifname"]) for each in links if each["ifindex"] == index)

    def netns(self, container: str) -> str:
        return os.path.basename(
            self.node.client.containers.get(container).attrs["NetworkSettings"]["SandboxKey"]
        )

    # Commands

    def host(self, *command: str) -> str:
        return self.node.run(*command)

    def nft(self, text: str) -> str:
        return self.node.run("nft", text)

    def inside(self, container: str, *command: str) -> str:
        return self.at(self.pids[container], *command)

    def at(self, pid: int, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            ["nsenter", "-t", str(pid), "-n", *command], capture_output=True, text=True, timeout=20 * PATIENCE
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout if not done.returncode or not check else ""

    def stranger(self) -> int:
        """The pid of a process in a network namespace of its own, apart from dari."""
        made = subprocess.Popen(["unshare", "-n", "sh", "-c", "ip link set lo up; exec sleep 10000"])
        self.neighbours.append(made)

        def is_up() -> bool:
            with open(f"/proc/{made.pid}/comm", encoding="ascii") as file:
                return file.read() == "sleep\n"

        wait_for("the stranger", is_up)
        return made.pid

    # Flows

    def flows(self, seconds: float = 5.0) -> dict[str, Callable[[], bool]]:
        """By name, whether a way is open; after `seconds` without an answer it is not."""

        def get(pid: int, url: str) -> bool:
            return bool(self.at(pid, "curl", "-s", "-m", f"{seconds}", url, check=False))

        def ping() -> bool:
            told = self.at(self.pids["shop"], "ping", "-c", "1", "-W", f"{seconds}", OUTSIDE, check=False)
            return "1 received" in told

        return {
            "name": lambda: self.node.resolve(self.shop, "front") == [self.addresses["front"]],
            "bridge": lambda: get(self.pids["shop"], f"http://{self.addresses['front']}/"),
            "inside": lambda: get(self.pids["clerk"], f"http://{self.addresses['ledger']}/"),
            "host": lambda: get(self.node.holder.pid, f"http://127.0.0.1:{PORT}/"),
            "relay": lambda: get(self.node.holder.pid, f"http://[::1]:{PORT}/"),
            "outside": lambda: get(self.outside, f"http://{UPLINK}:{PORT}/"),
            "world": ping,
        }

    def closed(self) -> list[str]:
        return [name for name, is_open in self.flows().items() if not is_open()]

    # The doctor

    def doctor(self, method: str) -> list[dict[str, Any]]:
        """What counts of its findings: what is said of this machine itself is left out."""
        connection = http.client.HTTPConnection("dari")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        connection.sock.connect(self.node.socket)
        connection.request(method, "/dari/v1/doctor")
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert answer.status == 200, body
        found: list[dict[str, Any]] = json.loads(body)["Findings"]
        return [each for each in found if each["Id"] not in MACHINE]

    def stop_responder(self) -> None:
        from dari.dns import nudge

        status = nudge.ping(f"{self.node.exec_root}/dns")
        assert status is not None
        os.kill(status.pid, signal.SIGSTOP)

    def nudge(self, *paths: str) -> None:
        from dari.dns import nudge

        nudge.nudge(f"{self.node.exec_root}/dns", paths)


_OF_THE_MACHINE = (
    "cgroup-v1 cgroup-controllers clock clock-free kernel-feature open-files disk-full inodes program-missing"
    " legacy-iptables mtu"
)
MACHINE = frozenset(f"host.{name}" for name in _OF_THE_MACHINE.split())
"""Findings about the machine the test runs on, whatever dari does there."""
