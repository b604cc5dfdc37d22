"""An overlay network beside the same links built by hand: throughput and round trips between two hosts.

    sudo python -m bench.overlay [--rounds N] [--seconds N] [--names]

Two hosts as namespaces on a switch, one etcd. By hand means on the same two hosts: a namespace, a veth pair, a bridge,
a VXLAN interface on it with static entries (no learning), the same MTU, no rule that looks at its packets. iperf3 and
a program that sends a byte to and fro (UDP) run by turns over the one and the other, so that a busy machine slows both.
Where it is very busy, the processor time for a Gbit (of both iperf3, in whose name the kernel works)
says more than the Gbit. Nothing is asserted.
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
from pathlib import Path

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
for _ in range({TRIPS}):
    began = time.perf_counter_ns()
    link.send(b"x")
    link.recv(64)
    took.append(time.perf_counter_ns() - began)
print(statistics.median(took) / 1000)
"""


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

    def speed(self, seconds: int) -> tuple[float, float]:
        """Gbit/s, and milliseconds of processor that both ends had for a Gbit."""
        said = self.run("iperf3", "-J", "-c", self.address, "-p", str(PORT), "-t", str(seconds))
        end = json.loads(said)["end"]
        got = float(end["sum_received"]["bits_per_second"]) / 1e9
        had = end["cpu_utilization_percent"]
        return got, (float(had["host_total"]) + float(had["remote_total"])) * 10 / got

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
    parser.add_argument(
        "--names", action="store_true", help="give the namespaces made by hand what sandboxes have for names"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, some_hosts("etcd", Path(folder), 2) as hosts:
        wait_for("all joined", lambda: all_joined(hosts))
        near, far = hosts[0], hosts[1]
        near.client.networks.create("wide", driver="overlay")
        wait_for("the network", lambda: far.client.networks.list(names=["wide"]))
        asking, asked_for = near.sleeper("near", network="wide"), far.sleeper("far", network="wide")
        address = far.address(asked_for, "wide")
        link = json.loads(near.net(asking, "ip", "-j", "link", "show", "eth0"))[0]
        with by_hand(hosts.hosts, int(link["mtu"]), has_names=asked.names) as pids:
            ways = [
                Way("dari", near.pid(asking), far.pid(asked_for), address),
                Way("by hand", pids[0], pids[1], "10.200.0.2"),
            ]
            try:
                for way in ways:
                    wait_for(f"{way.name}'s server", way.answers)
                _measure(ways, asked.rounds, asked.seconds, int(link["mtu"]))
            finally:
                for way in ways:
                    way.close()
        hosts.clear()


def _measure(ways: list[Way], rounds: int, seconds: int, mtu: int) -> None:
    speeds: list[list[float]] = []
    costs: list[list[float]] = []
    trips: list[list[float]] = []
    for number in range(rounds):
        # Who goes first changes: what one warms up the other must not always find warm.
        order = ways if number % 2 else ways[::-1]
        speed = {way.name: way.speed(seconds) for way in order}
        trip = {way.name: way.trip() for way in order}
        speeds.append([speed[way.name][0] for way in ways])
        costs.append([speed[way.name][1] for way in ways])
        trips.append([trip[way.name] for way in ways])
    for what, unit, found in (
        ("throughput", "Gbit/s", speeds),
        ("processor for a Gbit", "ms", costs),
        ("round trip", "µs", trips),
    ):
        ours, theirs = (statistics.median(column) for column in zip(*found, strict=True))
        ratio = statistics.median(one / other for one, other in found)
        print(f"{what}, MTU {mtu}: dari {ours:.2f} {unit}, by hand {theirs:.2f} {unit}, ratio {ratio:.3f}")
    print("load", *os.getloadavg())


if __name__ == "__main__":
    main()
