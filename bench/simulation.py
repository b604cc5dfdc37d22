"""Many nodes on one store: how long until all of them know a change, what the store sends for it, what a node needs.

    sudo python -m bench.simulation [--store etcd|zk] [--nodes 200] [--whole 200] [--endpoints 50] [--groups 20]
                                    [--changes 100] [--apart 0.25] [--processes 2] [--restart]

Real: the store, its client with its copy on disk, the mirror, membership, following, rendering, planning, zone files
and the nudge. Simulated: the kernel (tests/fakes/kernel.py) and the responder, which says yes to every nudge. `--whole`
nodes are like that, the others light (bench/simulated_nodes.py); they share a few processes. Endpoints lie on groups:
every network is shared by the nodes of two neighbouring groups. A change is one endpoint's row, put by somebody else;
the time counts from before its transaction until a node on that network has its kernel and names as they should be.
As many changes are of a network nobody is on: what they cost is what a change costs a node it does not concern.
`--restart`: then the store's server is killed and started again, and one more node started, twice.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import resource
import shutil
import socket
import statistics
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from tests.store import servers

from bench.simulated_nodes import (
    Size,
    be_patient,
    endpoint_of,
    fill,
    network_of,
    node_id,
    node_of,
    work,
    write,
)
from dari.store import address
from dari.store.base import Txn
from dari.store.door import RemoteStore, open_store
from dari.store.tables import Tables

_QUIET_SECONDS = 20
_CALM_SECONDS = 5


@dataclass(frozen=True)
class Asked:
    size: Size
    whole: int
    changes: int
    apart: float
    processes: int
    restarts: bool


class Server:
    """What a store's server tells of itself. etcd counts bytes it sent to clients, ZooKeeper packets."""

    def __init__(self, kind: str, member: servers.Member) -> None:
        self.member, self._kind = member, kind
        self.unit = "KiB" if kind == "etcd" else "packets"

    def sent(self) -> float:
        if self._kind == "etcd":
            with urllib.request.urlopen(f"http://127.0.0.1:{self.member.port}/metrics", timeout=60) as answer:
                text = answer.read().decode()
            found = re.search(r"^etcd_network_client_grpc_sent_bytes_total (\S+)", text, re.M)
            return float(found[1]) / 1024 if found else 0.0
        with socket.create_connection(("127.0.0.1", self.member.port), 60) as link:
            link.sendall(b"srvr")
            text = b"".join(iter(lambda: link.recv(4096), b"")).decode()
        found = re.search(r"^Sent: (\d+)", text, re.M)
        return float(found[1]) if found else 0.0

    def cpu(self) -> float:
        words = self._proc("stat").rpartition(") ")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def mib(self, name: str = "VmRSS") -> int:
        found = re.search(rf"{name}:\s+(\d+)", self._proc("status"))
        return int(found[1]) // 1024 if found else 0

    def _proc(self, name: str) -> str:
        assert self.member.process is not None
        return Path(f"/proc/{self.member.process.pid}/{name}").read_text()


class Worker:
    """A process of nodes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, size: Size, url: str, folder: str, whole: range, light: range) -> Worker:
        words = [sys.executable, "-m", "bench.simulation", "--nodes", str(size.nodes)]
        words += ["--endpoints", str(size.endpoints), "--groups", str(size.groups), "--work", url, folder]
        words += [str(each) for each in (whole.start, whole.stop, light.start, light.stop)]
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, limit=1 << 28))

    async def hear(self) -> Any:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError("a process of nodes has ended")
        return json.loads(line)

    async def ask(self, word: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())
        return await self.hear()


async def ask_all(workers: list[Worker], word: str, part: str) -> list[float]:
    return [(await each.ask(word))[part] for each in workers]


def parts(numbers: range, count: int) -> list[range]:
    ends = [numbers.start + len(numbers) * each // count for each in range(count + 1)]
    return [range(*pair) for pair in itertools.pairwise(ends)]


@dataclass
class Phase:
    """What changes cost all together: the server, and the nodes' processes."""

    server: Server
    workers: list[Worker]
    began: float = 0.0
    sent: float = 0.0
    cpu: float = 0.0
    nodes: float = 0.0

    async def start(self) -> None:
        self.began, self.sent, self.cpu = time.monotonic(), self.server.sent(), self.server.cpu()
        self.nodes = sum(await ask_all(self.workers, "cpu", "cpu"))

    async def stop(self) -> None:
        """From now on the figures are what was spent."""
        self.nodes = sum(await ask_all(self.workers, "cpu", "cpu")) - self.nodes
        self.sent, self.cpu = self.server.sent() - self.sent, self.server.cpu() - self.cpu
        self.began = time.monotonic() - self.began

    def above(self, quiet: Phase) -> tuple[float, float, float]:
        """What was sent and spent beyond what is with nothing happening."""
        share = self.began / quiet.began
        return self.sent - quiet.sent * share, self.cpu - quiet.cpu * share, self.nodes - quiet.nodes * share


def say(text: str) -> None:
    print(text, flush=True)


def load() -> str:
    return f"load {os.getloadavg()[0]:.1f}"


async def run(asked: Asked, kind: str, server: Server, folder: str) -> None:
    be_patient()
    size, tables = asked.size, Tables()
    url = f"{kind}://127.0.0.1:{server.member.port}"
    store = open_store(address.parse(url))
    await store.whole()
    txn = Txn()
    for number in range(size.groups + 1):
        network = network_of(number)
        tables.networks.put(txn, network, network.id)
    for number in range(size.nodes):
        fill(size, tables, txn, number)
    for number in range(asked.whole, size.nodes):
        tables.nodes.put(txn, node_of(number), node_id(number))
    await write(store, txn)
    workers = await start_all(asked, url, folder, server)
    await asyncio.sleep(_CALM_SECONDS)
    quiet, near, far = (Phase(server, workers) for _ in range(3))
    await quiet.start()
    await asyncio.sleep(_QUIET_SECONDS)
    await quiet.stop()
    say(f"nothing happening: {quiet.sent / quiet.began:.1f} {server.unit}/s, {quiet.cpu / quiet.began * 100:.1f} % "
        f"of a CPU for the server, {quiet.nodes / quiet.began / size.nodes * 1000:.2f} ms a second a node")  # fmt: skip
    puts = await changes(asked, tables, store, near, "probe", is_near=True)
    await changes(asked, tables, store, far, "far", is_near=False)
    sent, cpu, spent = near.above(quiet)
    count = asked.changes
    say(f"a change: {sent / count:.1f} {server.unit} and {cpu / count * 1000:.1f} ms for the server, "
        f"{spent / count * 1000:.1f} ms for all nodes together ({load()})")  # fmt: skip
    sent, cpu, spent = far.above(quiet)
    say(f"one that concerns nobody: {sent / count:.1f} {server.unit} and {cpu / count * 1000:.1f} ms for the server, "
        f"{spent / count / size.nodes * 1e6:.0f} µs for a node ({load()})")  # fmt: skip
    say(f"the server has {server.mib()} MiB, at most {server.mib('VmHWM')}")
    if asked.restarts:
        await restart(asked, server, workers)
        await newcomer(asked, url, folder)
    told = [await each.ask("end") for each in workers]
    report(asked, puts, told)
    await store.close()


async def start_all(asked: Asked, url: str, folder: str, server: Server) -> list[Worker]:
    size, count = asked.size, asked.processes
    began, cpu = time.monotonic(), server.cpu()
    whole, light = parts(range(asked.whole), count), parts(range(asked.whole, size.nodes), count)
    workers = [await Worker.start(size, url, folder, *each) for each in zip(whole, light, strict=True)]
    await asyncio.gather(*(each.hear() for each in workers))
    say(f"{size.nodes} nodes, {asked.whole} of them whole, have joined and settled in {time.monotonic() - began:.0f} "
        f"s, for which the server spent {server.cpu() - cpu:.0f} s ({load()})")  # fmt: skip
    return workers


async def changes(
    asked: Asked, tables: Tables, store: RemoteStore, phase: Phase, mark: str, *, is_near: bool
) -> dict[str, tuple[int, float]]:
    size = asked.size
    puts: dict[str, tuple[int, float]] = {}
    await phase.start()
    for number in range(asked.changes):
        if is_near:
            # A whole node's neighbourhood, or nobody would be there to tell.
            node = number * asked.whole // asked.changes
            network = size.networks_of(node)[0]
        else:
            node, network = size.nodes + 1, size.groups
        made = endpoint_of(node, 100 + number % 28, network, f"{mark}{number}-")
        txn = Txn()
        tables.endpoints.put(txn, made, made.network_id, made.id)
        puts[tables.endpoints.key(made.network_id, made.id)] = network, time.monotonic()
        await store.commit(txn)
        await asyncio.sleep(asked.apart)
    await asyncio.sleep(_CALM_SECONDS)
    await phase.stop()
    return puts


async def restart(asked: Asked, server: Server, workers: list[Worker]) -> None:
    """All lose their watch at one moment."""
    server.member.kill()
    while any(await ask_all(workers, "connected", "connected")):  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    server.member.start()
    began = time.monotonic()
    while sum(await ask_all(workers, "connected", "connected")) < asked.size.nodes:
        await asyncio.sleep(0.1)
        if time.monotonic() - began > 600:
            raise RuntimeError("nodes do not come back")
    took, sent = time.monotonic() - began, server.sent()
    say(f"after a restart of the server all nodes are connected in {took:.1f} s: {sent:.0f} {server.unit} "
        f"sent, {server.cpu():.1f} s of its CPU, at most {server.mib('VmHWM')} MiB ({load()})")  # fmt: skip


async def newcomer(asked: Asked, url: str, folder: str) -> None:
    """One node more, in the last group: a process of its own, twice, the second time with its copy."""
    size, last = asked.size, asked.size.nodes
    for what in ("new", "with a copy"):
        worker = await Worker.start(size, url, folder, range(last, last + 1), range(0))
        ready = await worker.hear()
        await asyncio.sleep(3)
        told = await worker.ask("end")
        await worker.process.wait()
        say(f"a node as a process, {what}: ready after {ready['ready']:.1f} s and {ready['cpu']:.1f} s of CPU, "
            f"{told['rss'] / 1024:.0f} MiB ({load()})")  # fmt: skip


def report(asked: Asked, puts: dict[str, tuple[int, float]], told: list[dict[str, Any]]) -> None:
    size = asked.size
    single: list[float] = []
    last: dict[str, float] = {}
    heard: dict[str, int] = {}
    for each in told:
        for number, done in each["done"].items():
            for key, at in done:
                network, began = puts[key]
                if network in size.networks_of(int(number)):
                    single.append((at - began) * 1000)
                    last[key] = max(last.get(key, 0.0), (at - began) * 1000)
                    heard[key] = heard.get(key, 0) + 1
    expected = {
        key: sum(network in size.networks_of(number) for number in range(asked.whole))
        for key, (network, _) in puts.items()
    }
    missing = [key for key, count in expected.items() if heard.get(key, 0) < count]
    single.sort()
    ends = sorted(last.values())
    say(f"{size.nodes} nodes with {size.endpoints} endpoints, {len(puts)} changes, heard {len(single)} times, "
        f"missing {len(missing)}")  # fmt: skip
    if single:
        say(f"a node knows a change after p50 {share_of(single, 0.5):.0f} ms, p99 {share_of(single, 0.99):.0f} ms; "
            f"the last one p50 {share_of(ends, 0.5):.0f} ms, p99 {share_of(ends, 0.99):.0f} ms")  # fmt: skip
    kib = statistics.mean(each["kib"] for each in told if each["rows"])
    rows = max(each["rows"] for each in told)
    say(f"a whole node more in a process: {kib / 1024:.1f} MiB for {rows} rows")


def share_of(found: list[float], share: float) -> float:
    return found[min(len(found) - 1, int(len(found) * share))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=("etcd", "zk"), default="etcd")
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--whole", type=int, default=0, help="all, where it is not said")
    parser.add_argument("--endpoints", type=int, default=50)
    parser.add_argument("--groups", type=int, default=20)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--apart", type=float, default=0.25, help="seconds between two changes")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--restart", action="store_true")
    parser.add_argument("--work", nargs=6, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    size = Size(asked.nodes, asked.endpoints, asked.groups)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if asked.work:
        url, folder, *numbers = asked.work
        first, last, first_light, last_light = map(int, numbers)
        uvloop.run(work(size, url, folder, range(first, last), range(first_light, last_light)))
        return
    folder = tempfile.mkdtemp(dir="/dev/shm")
    try:
        with servers.running(asked.store, Path(folder) / "server") as cluster:
            [member] = cluster.members
            whole = asked.whole or size.nodes
            wish = Asked(size, whole, asked.changes, asked.apart, asked.processes, asked.restart)
            uvloop.run(run(wish, asked.store, Server(asked.store, member), folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
