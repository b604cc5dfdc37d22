"""Many nodes on one etcd: how long until all of them know a change, what the store sends for it, what a node needs.

    sudo python -m bench.simulation [--nodes 200] [--endpoints 50] [--whole 40] [--changes 100] [--groups 20]

Real: etcd, its client, the mirror, membership, following, rendering, planning, zone files and the nudge. Simulated:
the kernel (tests/fakes/kernel.py) and the responder, which says yes to every nudge. `--whole` nodes are like that, in
two processes; the others have their rows in the store and a watch like theirs, and throw away what it tells. Endpoints
lie on groups: every network is shared by the nodes of two neighbouring groups. A change is one endpoint's row, put by a
node; the time counts from before its transaction until a node on that network has its kernel and names as they should
be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from tests.fakes.engine import FakeHolds
from tests.fakes.kernel import FakeKernel
from tests.fakes.responder import FakeResponder
from tests.fakes.runtime import FakeRuntime
from tests.store import servers

from dari.cluster import membership
from dari.cluster.membership import Membership
from dari.model.cluster import Node
from dari.model.config import Config
from dari.model.network import Endpoint, Network, NetworkSpec, Subnet
from dari.net.overlay import VNI_OPTION
from dari.reconcile import follow
from dari.reconcile.context import Context
from dari.reconcile.settle import settle
from dari.runtime.images import Images
from dari.store import address
from dari.store.base import Txn
from dari.store.door import RemoteStore, open_store
from dari.store.etcd import EtcdStore
from dari.store.federation import Federation
from dari.store.memory import MemoryStore
from dari.store.tables import Tables, is_shared

PROCESSES = 2
TTL = 60.0
_ROWS_AT_ONCE = 100
_QUIET_SECONDS = 10


@dataclass(frozen=True)
class Size:
    """`whole` of the `nodes` run the whole code."""

    nodes: int
    endpoints: int
    whole: int
    groups: int

    def networks_of(self, node: int) -> tuple[int, int]:
        group = node * self.groups // self.nodes
        return group, (group + 1) % self.groups


def node_id(number: int) -> str:
    return f"node-{number:05}"


def node_of(number: int) -> Node:
    return Node(id=node_id(number), name=f"n{number}", address=f"172.20.{number >> 8}.{number & 255}")


def network_id(number: int) -> str:
    return f"{number:05}".ljust(25, "s")


def endpoint_of(node: int, number: int, network: int, mark: str = "") -> Endpoint:
    # Nodes of one network are neighbours: no two of them meet.
    host = (node * 128 + number) % 65_000 + 2
    return Endpoint(
        id=f"{mark or 'e'}{node:05}x{number:05}".ljust(64, "0"),
        network_id=network_id(network),
        sandbox_id=f"s{node:05}x{number:05}".ljust(64, "0"),
        container_id=f"{mark or 'c'}{node:05}x{number:05}".ljust(64, "0"),
        is_active=True,
        ipv4=f"10.{network}.{host >> 8}.{host & 255}",
        ipv4_prefix=16,
        mac=f"02:42:{network:02x}:{len(mark):02x}:{host >> 8:02x}:{host & 255:02x}",
        interface="eth0",
        dns_names=[f"{mark}c{node}-{number}", f"{mark}c{node}x{number}"],
        node=node_id(node),
    )


def fill(size: Size, tables: Tables, txn: Txn, node: int) -> None:
    """A node's endpoints, each with its lease."""
    networks = size.networks_of(node)
    for number in range(size.endpoints):
        each = endpoint_of(node, number, networks[number % 2])
        tables.endpoints.put(txn, each, each.network_id, each.id)
        tables.leases.put(txn, each.id, each.network_id, each.ipv4)


async def write(store: EtcdStore | Federation | RemoteStore, txn: Txn, session: str = "") -> None:
    """In parts that etcd takes."""
    rows = list(txn.puts.items())
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        await store.commit(Txn(puts=dict(rows[start : start + _ROWS_AT_ONCE]), session_id=session))


@dataclass
class Whole:
    """A node that runs the whole code. `done`: when it had settled a key."""

    ctx: Context
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    done: list[tuple[str, float]] = field(default_factory=list)

    async def timed(self, source: AsyncIterator[frozenset[str]]) -> AsyncIterator[frozenset[str]]:
        """`follow` asks for the next keys when the last ones are settled."""
        async for keys in source:
            yield keys
            now = time.monotonic()
            self.done += [(key, now) for key in keys if "/probe" in key]


async def begin(size: Size, number: int, url: str, folder: str) -> Whole:
    config = Config(
        data_root=f"{folder}/{number}", exec_root=f"{folder}/{number}", resolv_conf="/dev/null", store=url
    )
    os.makedirs(config.data_root)
    store = Federation(MemoryStore(), open_store(address.parse(url)), is_shared)
    ctx = Context(
        config=config,
        local=store,
        shared=store,
        tables=Tables(),
        kernel=FakeKernel(),  # type: ignore[arg-type]
        runtime=FakeRuntime(),  # type: ignore[arg-type]
        images=Images(config),
        holds=FakeHolds(),
    )
    await store.remote.whole()
    ctx.node = node_of(number)
    FakeResponder(config.dns_dir).__enter__()
    made = Whole(ctx)
    joined = Membership(ctx.node, TTL)
    works = (membership.keep(ctx, joined), follow.follow(ctx, made.timed(store.watch_remote(""))))
    made.tasks = [asyncio.create_task(each) for each in works]
    await joined.joined.wait()
    await settle(ctx, *(network_id(each) for each in size.networks_of(number)))
    return made


async def work(size: Size, url: str, folder: str, numbers: range) -> None:
    """A process of whole nodes: say when they are ready, and at the end what was seen."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    nodes = [await begin(size, number, url, folder) for number in numbers]
    print("ready", flush=True)
    line = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    cpu = time.process_time()
    while await line == "cpu\n":
        print(json.dumps(time.process_time() - cpu), flush=True)
        line = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    told = {
        "done": {str(number): node.done for number, node in zip(numbers, nodes, strict=True)},
        "kib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / len(nodes),
        "rows": len(nodes[0].ctx.shared.read("")),
        "cpu": time.process_time() - cpu,
    }
    print(json.dumps(told), flush=True)
    # Sessions and rows go with the store.
    os._exit(0)


async def listen(store: EtcdStore, count: int) -> list[asyncio.Task[None]]:
    """Watches as other nodes have, whose answers nobody reads further."""

    async def ear() -> None:
        top = store._top
        request = {"create_request": {"key": _b64(top), "range_end": _b64(top[:-1] + chr(ord(top[-1]) + 1))}}
        async for _ in store._gateway.stream("/v3/watch", request):
            pass

    return [asyncio.create_task(ear()) for _ in range(count)]


def _b64(text: str) -> str:
    import base64

    return base64.b64encode(text.encode()).decode()


class Etcd:
    """What etcd tells of itself. Bytes count what it sent to clients."""

    def __init__(self, port: int, pid: int) -> None:
        self._url, self._stat = f"http://127.0.0.1:{port}/metrics", Path(f"/proc/{pid}/stat")
        self._status = Path(f"/proc/{pid}/status")

    def sent(self) -> float:
        with urllib.request.urlopen(self._url, timeout=30) as answer:
            text = answer.read().decode()
        found = re.search(r"^etcd_network_client_grpc_sent_bytes_total (\S+)", text, re.M)
        return float(found[1]) if found else 0.0

    def cpu(self) -> float:
        words = self._stat.read_text().rpartition(") ")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def mib(self) -> int:
        found = re.search(r"VmRSS:\s+(\d+)", self._status.read_text())
        return int(found[1]) // 1024 if found else 0


async def run(size: Size, changes: int, url: str, etcd: Etcd, folder: str) -> None:
    tables = Tables()
    store = open_store(address.parse(url))
    assert isinstance(store, EtcdStore)
    await store.whole()
    session = await store.session(TTL)
    txn = Txn()
    for number in range(size.groups):
        options = {VNI_OPTION: str(5000 + number)}
        subnet = Subnet(subnet=f"10.{number}.0.0/16", gateway=f"10.{number}.255.254")
        spec = NetworkSpec(name=f"net{number}", driver="overlay", scope="global", options=options)
        network = Network(id=network_id(number), created=1, spec=spec, subnets=[subnet])
        tables.networks.put(txn, network, network.id)
    for number in range(size.nodes):
        fill(size, tables, txn, number)
    await write(store, txn)
    living = Txn()
    for number in range(size.whole, size.nodes):
        tables.nodes.put(living, node_of(number), node_id(number))
    await write(store, living, session.id)
    began = time.monotonic()
    workers = await asyncio.gather(*(start(size, url, folder, part) for part in range(PROCESSES)))
    print(f"{size.whole} whole nodes have joined and settled in {time.monotonic() - began:.0f} s", flush=True)
    ears = await listen(store, size.nodes - size.whole)
    await asyncio.sleep(5)
    sent, cpu = etcd.sent(), etcd.cpu()
    busy = [await ask(each) for each in workers]
    await asyncio.sleep(_QUIET_SECONDS)
    quiet = (etcd.sent() - sent) / _QUIET_SECONDS, (etcd.cpu() - cpu) / _QUIET_SECONDS
    idle = [
        (now - before) / _QUIET_SECONDS
        for now, before in zip([await ask(each) for each in workers], busy, strict=True)
    ]
    sent, cpu, began = etcd.sent(), etcd.cpu(), time.monotonic()
    puts: dict[str, tuple[int, float]] = {}
    for number in range(changes):
        # A whole node's neighbourhood, or nobody would be there to tell.
        node = number % size.whole
        on = size.networks_of(node)[0]
        made = endpoint_of(node, 100 + number // size.whole, on, f"probe{number}-")
        change = Txn()
        tables.endpoints.put(change, made, made.network_id, made.id)
        puts[tables.endpoints.key(made.network_id, made.id)] = on, time.monotonic()
        await store.commit(change)
        await asyncio.sleep(0.25)
    await asyncio.sleep(5)
    lasted = time.monotonic() - began
    told = [await finish(each) for each in workers]
    report(size, puts, told)
    per_change = (etcd.sent() - sent - quiet[0] * lasted) / changes
    spent = (etcd.cpu() - cpu - quiet[1] * lasted) / changes
    print(f"store: {per_change / 1024:.0f} KiB sent and {spent * 1000:.1f} ms of CPU for a change; {etcd.mib()} MiB; "
          f"nothing happening {quiet[0] / 1024:.0f} KiB/s and {quiet[1] * 100:.0f} % of a CPU")  # fmt: skip
    print(f"a whole node: {statistics.mean(each['kib'] for each in told) / 1024:.1f} MiB for {told[0]['rows']} rows; "
          f"{sum(idle) / size.whole * 1000:.2f} ms of CPU a second with nothing happening")  # fmt: skip
    for ear in ears:
        ear.cancel()
    await asyncio.gather(*ears, return_exceptions=True)
    await store.close()


def report(size: Size, puts: dict[str, tuple[int, float]], told: list[dict[str, Any]]) -> None:
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
        key: sum(network in size.networks_of(number) for number in range(size.whole))
        for key, (network, _) in puts.items()
    }
    missing = [key for key, count in expected.items() if heard.get(key, 0) < count]
    single.sort()
    ends = sorted(last.values())
    print(f"{size.nodes} nodes with {size.endpoints} endpoints, {len(puts)} changes, heard {len(single)} times, "
          f"missing {len(missing)}")  # fmt: skip
    if single:
        print(f"a node knows a change after p50 {share_of(single, 0.5):.0f} ms, p99 {share_of(single, 0.99):.0f} ms; "
              f"the last one p50 {share_of(ends, 0.5):.0f} ms, p99 {share_of(ends, 0.99):.0f} ms")  # fmt: skip


def share_of(found: list[float], share: float) -> float:
    return found[min(len(found) - 1, int(len(found) * share))]


async def start(size: Size, url: str, folder: str, part: int) -> asyncio.subprocess.Process:
    share = size.whole // PROCESSES
    words = [
        sys.executable,
        "-m",
        "bench.simulation",
        "--nodes",
        str(size.nodes),
        "--endpoints",
        str(size.endpoints),
    ]
    words += ["--whole", str(size.whole), "--groups", str(size.groups)]
    words += ["--work", url, folder, str(part * share), str((part + 1) * share)]
    pipe = subprocess.PIPE
    made = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, limit=1 << 26)
    assert made.stdout is not None
    if await made.stdout.readline() != b"ready\n":
        raise RuntimeError("a process of nodes has ended")
    return made


async def ask(worker: asyncio.subprocess.Process, word: str = "cpu") -> Any:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{word}\n".encode())
    return json.loads(await worker.stdout.readline())


async def finish(worker: asyncio.subprocess.Process) -> dict[str, Any]:
    told: dict[str, Any] = await ask(worker, "end")
    await worker.wait()
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--endpoints", type=int, default=50)
    parser.add_argument("--whole", type=int, default=40)
    parser.add_argument("--groups", type=int, default=20)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    size = Size(asked.nodes, asked.endpoints, asked.whole - asked.whole % PROCESSES, asked.groups)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if asked.work:
        url, folder, first, end = asked.work
        uvloop.run(work(size, url, folder, range(int(first), int(end))))
        return
    folder = tempfile.mkdtemp(dir="/dev/shm")
    [member] = servers.etcd_members(Path(folder) / "etcd", 1)
    member.start()
    try:
        assert member.process is not None
        etcd = Etcd(member.port, member.process.pid)
        uvloop.run(run(size, asked.changes, f"etcd://127.0.0.1:{member.port}", etcd, folder))
    finally:
        member.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
