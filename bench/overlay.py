"""An overlay network beside the same links built by hand: throughput and round trips between two hosts.

    sudo python -m bench.overlay [--rounds N] [--seconds N] [--names | --encrypted]

Two hosts as namespaces on a switch, one etcd. By hand means on the same two hosts: a namespace, a veth pair, a bridge,
a VXLAN interface on it with static entries (no learning), the same MTU, no rule that looks at its packets. iperf3 and
a program that sends four bytes to and fro (UDP) run by turns over both, so that a busy machine slows both.
Where it is very busy, the processor time for a Gbit (of both iperf3, in whose name the kernel works)
says more than the Gbit. Nothing is asserted.

With `--encrypted` an encrypted overlay is measured beside one in the clear, both dari's, on the same two hosts; the
kernel then works in threads of its own as well, so the processor time is the whole machine's. It needs a kernel with
WireGuard: `script/vm --run python -m bench.overlay --encrypted` where this one has none.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.scenarios.cluster.conftest import Host, all_joined, some_hosts
from tests.scenarios.conftest import wait_for

from dari.net import firewall
from dari.net.desired import SandboxWant

_TABLE = firewall.sandbox_table(SandboxWant("box", "box", dns_port=61053))
NAMES = _TABLE.text if _TABLE is not None else ""
"""What a sandbox has for its names."""
PORT, ECHO_PORT, TRIPS = 5201, 5300, 2000
VNI, UDP_PORT = 77, 4799
ECHO = f"""
import socket
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.bind(("", {ECHO_PORT}))
while True:
    data, peer = link.recvfrom(64)
    link.sendto(data, peer)
"""
TRIP = f"""
import socket, statistics, sys, time
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.connect((sys.argv[1], {ECHO_PORT}))
link.settimeout(2)
took = []
for number in range({TRIPS}):
    sent = number.to_bytes(4, "big")
    began = time.perf_counter_ns()
    link.send(sent)
    try:
        while link.recv(64) != sent:
            pass
    except TimeoutError:
        # UDP may be lost, while keys are agreed on, say, or late; that is no round trip.
        continue
    took.append(time.perf_counter_ns() - began)
print(statistics.median(took) / 1000)
"""


@dataclass(frozen=True)
class Speed:
    """Gbit/s, and milliseconds of processor for a Gbit: what both ends had, and what the whole machine spent."""

    rate: float
    ends: float
    machine: float


def _machine_busy() -> float:
    """Seconds of processor this machine has spent since it started, in steps of 10 ms (proc(5), /proc/stat)."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = (
        Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return sum(map(int, (user, nice, system, irq, softirq))) / os.sysconf("SC_CLK_TCK")


class Way:
    """`near` asks `far`, processes in the two namespaces, at `address`."""

    def __init__(self, name: str, near: int, far: int, address: str) -> None:
        self.name, self.near, self.address = name, near, address
        self.servers = [
            subprocess.Popen(["nsenter", "-t", str(far), "-n", *words], stdout=subprocess.DEVNULL)
            for words in (["iperf3", "-s", "-p", str(PORT)], [sys.executable, "-c", ECHO])
        ]

    def run(self, *words: str) -> str:
        done = subprocess.run(
            ["nsenter", "-t", str(self.near), "-n", *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(words[:4])}: {done.stderr or done.stdout}")
        return done.stdout

    def answers(self) -> bool:
        with contextlib.suppress(RuntimeError):
            return bool(self.run("iperf3", "-c", self.address, "-p", str(PORT), "-n", "1K"))
        return False

    def speed(self, seconds: int) -> Speed:
        before = _machine_busy()
        said = self.run("iperf3", "-J", "-c", self.address, "-p", str(PORT), "-t", str(seconds))
        busy = _machine_busy() - before
        end = json.loads(said)["end"]
        received, had = end["sum_received"], end["cpu_utilization_percent"]
        got = float(received["bits_per_second"]) / 1e9
        return Speed(
            got,
            (float(had["host_total"]) + float(had["remote_total"])) * 10 / got,
            busy * 1000 / (float(received["bytes"]) * 8 / 1e9),
        )

    def trip(self) -> float:
        """Microseconds there and back, the median."""
        return float(self.run(sys.executable, "-c", TRIP, self.address))

    def close(self) -> None:
        for server in self.servers:
            server.kill()
            server.wait()


@contextlib.contextmanager
def by_hand(hosts: list[Host], mtu: int, *, has_names: bool) -> Iterator[list[int]]:
    """The processes that hold the two namespaces; they have 10.200.0.1 and .2."""
    holders = [subprocess.Popen(["unshare", "-n", "sleep", "100000"]) for _ in hosts]
    macs = [f"02:aa:00:00:00:0{number + 1}" for number in range(len(hosts))]
    try:
        for number, (host, holder) in enumerate(zip(hosts, holders, strict=True)):
            wait_for("a namespace", lambda holder=holder: _is_apart(holder.pid))  # type: ignore[misc]
            other = 1 - number
            for line in (
                f"link add hand0 mtu {mtu} type bridge",
                f"link add handv mtu {mtu} type veth peer name eth0 address {macs[number]} mtu {mtu} "
                f"netns {holder.pid}",
                f"link add handx mtu {mtu} type vxlan id {VNI} local {host.underlay} dstport {UDP_PORT} nolearning",
                "link set handv master hand0 up",
                "link set handx master hand0 up",
                "link set hand0 up",
            ):
                host.run("ip", *line.split())
            host.run("bridge", "fdb", "append", macs[other], "dev", "handx", "dst", hosts[other].underlay)
            inside = ["nsenter", "-t", str(holder.pid), "-n", "ip"]
            for line in (
                f"addr add 10.200.0.{number + 1}/24 dev eth0",
                "link set eth0 up",
                "link set lo up",
                f"neigh add 10.200.0.{other + 1} lladdr {macs[other]} dev eth0",
            ):
                subprocess.run([*inside, *line.split()], check=True)
            if has_names:
                subprocess.run([*inside[:-1], "nft", "-f", "-"], input=NAMES, text=True, check=True)
        yield [holder.pid for holder in holders]
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()


def _is_apart(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text() == "sleep\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=1)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--names", action="store_true", help="give the namespaces made by hand what sandboxes have for names"
    )
    what.add_argument(
        "--encrypted", action="store_true", help="an encrypted overlay beside one in the clear, both dari's"
    )
    asked = parser.parse_args()
    # An emulated host is silent for longer than a real one.
    options = ("--store-ttl", "30") if os.environ.get("DARI_VM") else ()
    with tempfile.TemporaryDirectory() as folder, some_hosts("etcd", Path(folder), 2, *options) as hosts:
        wait_for("all joined", lambda: all_joined(hosts))
        pair = (
            _between_overlays(hosts.hosts)
            if asked.encrypted
            else _beside_one_by_hand(hosts.hosts, asked.names)
        )
        with pair as ways:
            try:
                for way in ways:
                    wait_for(f"{way.name}'s server", way.answers)
                _measure(ways, asked.rounds, asked.seconds)
            finally:
                for way in ways:
                    way.close()
        hosts.clear()


@contextlib.contextmanager
def _beside_one_by_hand(hosts: list[Host], has_names: bool) -> Iterator[list[Way]]:
    near, far, address = _overlay(hosts, "wide")
    mtu = _mtu(hosts[0], near)
    with by_hand(hosts, mtu, has_names=has_names) as pids:
        print(f"MTU {mtu}")
        yield [
            Way("dari", hosts[0].pid(near), hosts[1].pid(far), address),
            Way("by hand", pids[0], pids[1], "10.200.0.2"),
        ]


@contextlib.contextmanager
def _between_overlays(hosts: list[Host]) -> Iterator[list[Way]]:
    ways = []
    for name, options in (("encrypted", {"encrypted": ""}), ("clear", {})):
        near, far, address = _overlay(hosts, name, options)
        print(f"{name}: MTU {_mtu(hosts[0], near)}")
        ways.append(Way(name, hosts[0].pid(near), hosts[1].pid(far), address))
    yield ways


def _overlay(hosts: list[Host], name: str, options: dict[str, str] | None = None) -> tuple[Any, Any, str]:
    """A container on each host on a new overlay, and the second's address."""
    hosts[0].client.networks.create(name, driver="overlay", attachable=True, options=options)
    wait_for("the network", lambda: hosts[1].client.networks.list(names=[name]))
    near, far = hosts[0].sleeper(f"near-{name}", network=name), hosts[1].sleeper(f"far-{name}", network=name)
    return near, far, hosts[1].address(far, name)


def _mtu(host: Host, container: Any) -> int:
    return int(json.loads(host.net(container, "ip", "-j", "link", "show", "eth0"))[0]["mtu"])


def _measure(ways: list[Way], rounds: int, seconds: int) -> None:
    speeds: list[list[Speed]] = []
    trips: list[list[float]] = []
    for number in range(rounds):
        # Who goes first changes: what one warms up the other must not always find warm.
        order = ways if number % 2 else ways[::-1]
        speed = {way.name: way.speed(seconds) for way in order}
        trip = {way.name: way.trip() for way in order}
        speeds.append([speed[way.name] for way in ways])
        trips.append([trip[way.name] for way in ways])
        told = ", ".join(
            f"{way.name} {speed[way.name].rate:.3f} Gbit/s {trip[way.name]:.1f} µs" for way in ways
        )
        print(f"round {number + 1}: {told}", flush=True)
    for what, unit, found in (
        ("throughput", "Gbit/s", [[each.rate for each in pair] for pair in speeds]),
        ("processor for a Gbit, both ends", "ms", [[each.ends for each in pair] for pair in speeds]),
        ("processor for a Gbit, the machine", "ms", [[each.machine for each in pair] for pair in speeds]),
        ("round trip", "µs", trips),
    ):
        ours, theirs = (statistics.median(column) for column in zip(*found, strict=True))
        ratios = [one / other for one, other in found]
        print(
            f"{what}: {ways[0].name} {ours:.3f} {unit}, {ways[1].name} {theirs:.3f} {unit}, "
            f"ratio {statistics.median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    print("load", *os.getloadavg())


if __name__ == "__main__":
    main()
