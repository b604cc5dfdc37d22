"""The nodes of bench/simulation.py: what is in the store, and the processes that are many nodes each.

A whole node is all of darid that other nodes can be felt by: the store's client with its copy on disk, membership,
following, rendering, planning, zone files and the nudge. A light one has the client, a session and its watch, and
parses what it is told into rows that those of its process share; somebody else has put its own row. A process is asked
by lines on standard input: `cpu`, `connected`, `end`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from tests.fakes.engine import FakeHolds
from tests.fakes.kernel import FakeKernel
from tests.fakes.responder import FakeResponder
from tests.fakes.runtime import FakeRuntime

from dari.cluster import membership
from dari.cluster.membership import Membership
from dari.model.cluster import Node
from dari.model.config import Config
from dari.model.network import Endpoint, Network, NetworkSpec, Sandbox, Subnet
from dari.net.overlay import VNI_OPTION
from dari.net.plan import Plan
from dari.reconcile import follow, names
from dari.reconcile.context import Context
from dari.reconcile.settle import settle
from dari.runtime.images import Images
from dari.store import address
from dari.store.base import Row, Txn
from dari.store.door import RemoteStore, open_store
from dari.store.etcd import EtcdStore, parse_mark
from dari.store.etcd_gateway import Gateway
from dari.store.federation import Federation
from dari.store.memory import MemoryStore
from dari.store.replica import Replica
from dari.store.tables import Tables, is_shared

TTL = 60.0
# Nodes of a process that begin at a time: each of them reads everything, and all wait for it meanwhile.
_AT_ONCE = 5
# A hundred nodes share a processor here: answers are waited for longer than one node would.
_PATIENCE_SECONDS = 120.0
_ROWS_AT_ONCE = 100


@dataclass(frozen=True)
class Size:
    """Endpoints lie on groups: each network is shared by the nodes of two neighbouring groups. One network more, the
    last, has nobody on it."""

    nodes: int
    endpoints: int
    groups: int

    def networks_of(self, node: int) -> tuple[int, int]:
        group = min(node * self.groups // self.nodes, self.groups - 1)
        return group, (group + 1) % self.groups


def node_id(number: int) -> str:
    return f"node-{number:05}"


def node_of(number: int) -> Node:
    return Node(id=node_id(number), name=f"n{number}", address=f"172.20.{number >> 8}.{number & 255}")


def network_id(number: int) -> str:
    return f"{number:05}".ljust(25, "s")


def network_of(number: int) -> Network:
    part = f"10.{number & 255}" if number < 256 else f"11.{number & 255}"
    spec = NetworkSpec(
        name=f"net{number}", driver="overlay", scope="global", options={VNI_OPTION: str(5000 + number)}
    )
    subnet = Subnet(subnet=f"{part}.0.0/16", gateway=f"{part}.255.254")
    return Network(id=network_id(number), created=1, spec=spec, subnets=[subnet])


def endpoint_of(node: int, number: int, network: int, mark: str = "") -> Endpoint:
    """`number` up to 127; those of one network are neighbours, so no two of them meet."""
    host = (node * 128 + number) % 65_000 + 2
    ids = [hashlib.sha256(f"{each} {mark} {node} {number}".encode()).hexdigest() for each in range(3)]
    return Endpoint(
        id=f"{mark}{ids[0]}"[:64],
        network_id=network_id(network),
        sandbox_id=ids[1],
        container_id=ids[2],
        is_active=True,
        ipv4=f"{'10' if network < 256 else '11'}.{network & 255}.{host >> 8}.{host & 255}",
        ipv4_prefix=16,
        mac=f"02:42:{network >> 8:02x}:{network & 255:02x}:{host >> 8:02x}:{host & 255:02x}",
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


async def write(store: RemoteStore, txn: Txn) -> None:
    """In parts that etcd takes."""
    rows = list(txn.puts.items())
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        await store.commit(Txn(puts=dict(rows[start : start + _ROWS_AT_ONCE])))


class PlainKernel(FakeKernel):
    """Takes everything without looking whether it can be: looking at all objects for each would be most of the work."""

    def apply(self, plan: Plan, *, stop_after: int | None = None) -> None:
        for op in plan.ops[:stop_after]:
            if op.action == "delete":
                self.objects.pop(op.object.key, None)
            else:
                self.objects[op.object.key] = op.object


class Peopled(MemoryStore):
    """Behind every endpoint there is a sandbox in use: nobody takes one for a stray, a probe's neither."""

    _ROW = Row(msgspec.json.encode(Sandbox(id="", container_id="", is_active=True)), 1)

    def get(self, key: str) -> Row | None:
        return self._ROW if key.startswith("sandboxes/") else super().get(key)


@dataclass
class SimulatedNode:
    """`done`: when it had settled a probe's key."""

    number: int
    ctx: Context
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    done: list[tuple[str, float]] = field(default_factory=list)

    async def timed(self, source: AsyncIterator[frozenset[str]]) -> AsyncIterator[frozenset[str]]:
        """`follow` asks for the next keys when the last ones are settled."""
        async for keys in source:
            yield keys
            now = time.monotonic()
            self.done += [(key, now) for key in keys if "/probe" in key]


def context_of(number: int, url: str, folder: str) -> Context:
    config = Config(
        data_root=f"{folder}/{number}", exec_root=f"{folder}/{number}", resolv_conf="/dev/null", store=url
    )
    os.makedirs(config.data_root, exist_ok=True)
    place = dataclasses.replace(address.parse(url), copy_path=f"{config.data_root}/shared.db")
    store = Federation(Peopled(), open_store(place), is_shared)
    return Context(
        config=config,
        local=store,
        shared=store,
        tables=Tables(),
        kernel=PlainKernel(),  # type: ignore[arg-type]
        runtime=FakeRuntime(),  # type: ignore[arg-type]
        images=Images(config),
        node=node_of(number),
        holds=FakeHolds(),
    )


async def begin(size: Size, number: int, url: str, folder: str) -> SimulatedNode:
    """A whole node, joined and settled."""
    made = SimulatedNode(number, context_of(number, url, folder))
    ctx, store = made.ctx, made.ctx.shared
    assert isinstance(store, Federation)
    await store.remote.whole()
    if not os.path.exists(ctx.config.dns_dir):
        FakeResponder(ctx.config.dns_dir).__enter__()
    assert ctx.node is not None
    joined = Membership(ctx.node, TTL)
    works = (membership.keep(ctx, joined), follow.follow(ctx, made.timed(store.watch_remote(""))))
    made.tasks = [asyncio.create_task(each) for each in works]
    await joined.joined.wait()
    await settle(ctx, *(network_id(each) for each in size.networks_of(number)))
    return made


async def begin_light(url: str, rows: list[Replica]) -> EtcdStore:
    """`rows`: those of this process, once somebody has read them. etcd only."""
    store = EtcdStore(address.parse(url))
    if rows:
        # As a node that has a copy of them on disk.
        store._replica = rows[0]
        store._etcd, store._seen = parse_mark(rows[0].mark)
    await store.whole()
    if not rows:
        rows.append(store._replica)
    await store.session(TTL)
    return store


def resident() -> int:
    """KiB in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def be_patient() -> None:
    """For this process: hundreds of nodes share its processor."""
    names._COMEBACK_SECONDS = _PATIENCE_SECONDS
    for asking in (Gateway.call, Gateway.range):
        asking.__defaults__ = (_PATIENCE_SECONDS,)


async def work(size: Size, url: str, folder: str, numbers: range, light: range) -> None:
    """A process of nodes: say when they are ready, then answer."""
    be_patient()
    before, began = resident(), time.monotonic()
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> SimulatedNode:
        async with gate:
            return await begin(size, number, url, folder)

    nodes = await asyncio.gather(*(one(number) for number in numbers))
    after = resident()
    rows: list[Replica] = []
    others = [await begin_light(url, rows) for _ in light]
    gc.collect()
    print(json.dumps({"ready": time.monotonic() - began, "cpu": time.process_time()}), flush=True)
    loop, cpu = asyncio.get_running_loop(), time.process_time()
    while True:
        word = (await loop.run_in_executor(None, sys.stdin.readline)).strip()
        answer: dict[str, Any] = {"cpu": time.process_time() - cpu, "load": os.getloadavg()[0]}
        if word == "connected":
            stores = (*(each.ctx.shared for each in nodes), *others)
            answer["connected"] = sum(each.status().is_connected for each in stores)
        if word in ("", "end"):
            answer["done"] = {str(each.number): each.done for each in nodes}
            answer["kib"] = (after - before) / max(len(nodes), 1)
            answer["rss"] = resident()
            answer["rows"] = len(nodes[0].ctx.shared.read("")) if nodes else 0
        print(json.dumps(answer), flush=True)
        if word in ("", "end"):
            # Sessions and rows go with the store.
            os._exit(0)
