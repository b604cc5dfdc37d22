"""Whatever other hosts' endpoints do one after the other, the kernel is as if the network were settled anew."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.fakes.engine import FakeHolds
from tests.fakes.kernel import FakeKernel
from tests.fakes.responder import FakeResponder
from tests.fakes.runtime import FakeRuntime

from dari.model.cluster import Node
from dari.model.config import Config
from dari.model.network import Endpoint, Network, NetworkSpec, Subnet
from dari.net.facts import HostFacts
from dari.net.overlay import VNI_OPTION, vxlan_name
from dari.net.scope import Key
from dari.net.state import HOST, KernelObject
from dari.reconcile import peers, shared_networks
from dari.reconcile.context import Context
from dari.reconcile.follow import affected
from dari.reconcile.settle import settle
from dari.runtime.images import Images
from dari.store.base import Txn
from dari.store.memory import MemoryStore
from dari.store.tables import Tables

NET = "wide".ljust(25, "0")
LINK = vxlan_name(NET)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[str]:
    config = Config(data_root=str(tmp_path), exec_root=str(tmp_path))
    with FakeResponder(config.dns_dir):
        yield str(tmp_path)


def context(folder: str, store: MemoryStore) -> Context:
    config = Config(data_root=folder, exec_root=folder, resolv_conf="/dev/null")
    return Context(
        config=config,
        local=store,
        shared=store,
        tables=Tables(),
        kernel=FakeKernel(),  # type: ignore[arg-type]
        runtime=FakeRuntime(),  # type: ignore[arg-type]
        images=Images(config),
        node=Node(id="own", name="own", address="192.0.2.1"),
        holds=FakeHolds(),
    )


def endpoint(name: str, node: str, number: int, mac: int, *, is_active: bool = True) -> Endpoint:
    return Endpoint(
        id=name.ljust(64, "0"), network_id=NET, sandbox_id=f"s{name}", container_id=f"c{name}".ljust(64, "0"),
        node=node, is_active=is_active, ipv4=f"10.0.0.{number}", ipv6=f"fd00::{number}", dns_names=[name],
        mac=f"02:42:00:00:00:{mac:02x}",
    )  # fmt: skip


async def a_network(folder: str) -> Context:
    store = MemoryStore()
    ctx = context(folder, store)
    txn = Txn()
    spec = NetworkSpec(name="wide", driver="overlay", scope="global", options={VNI_OPTION: "5000"})
    subnet = Subnet(subnet="10.0.0.0/24", gateway="10.0.0.1")
    ctx.tables.networks.put(txn, Network(id=NET, created=1, spec=spec, subnets=[subnet]), NET)
    for each in ("b", "c"):
        ctx.tables.nodes.put(txn, Node(id=each, name=each, address=f"192.0.2.{ord(each)}"), each)
    put(ctx, txn, endpoint("own", "own", 2, 2))
    put(ctx, txn, endpoint("first", "b", 3, 3))
    await store.commit(txn)
    # The first time the host's own table comes with it, after which all is looked at again.
    await settle(ctx, NET)
    await settle(ctx, NET)
    return ctx


def put(ctx: Context, txn: Txn, row: Endpoint) -> None:
    ctx.tables.endpoints.put(txn, row, NET, row.id)


def kernel_of(ctx: Context) -> FakeKernel:
    assert isinstance(ctx.kernel, FakeKernel)
    return ctx.kernel


def _meet(ctx: Context, txn: Txn) -> bool:
    """Whether two active endpoints would have one address, which leases forbid."""
    rows = {row.id: row for row in ctx.tables.endpoints.all(ctx.shared, NET)}
    for key in txn.deletes:
        rows.pop(key.rpartition("/")[2], None)
    for key, value in txn.puts.items():
        if key.startswith(ctx.tables.endpoints.prefix):
            rows[key.rpartition("/")[2]] = msgspec.json.decode(value, type=Endpoint)
    active = [row for row in rows.values() if row.is_active]
    return any(len({getattr(row, name) for row in active}) < len(active) for name in ("ipv4", "mac"))


async def anew(ctx: Context, folder: str) -> dict[Key, KernelObject]:
    assert isinstance(ctx.shared, MemoryStore)
    other = context(folder, ctx.shared)
    await settle(other, NET)
    return kernel_of(other).objects


async def test_who_is_on_a_network_that_may_be_removed_stays_connected(folder: str) -> None:
    ctx = await a_network(folder)
    before = dict(kernel_of(ctx).objects)
    assert any(LINK in key for key in before)
    network = ctx.tables.networks.get(ctx.shared, NET)
    assert network is not None
    txn = Txn()
    ctx.tables.networks.put(txn, msgspec.structs.replace(network, closed_by="b@0"), NET)
    await ctx.shared.commit(txn)
    await settle(ctx, *affected(ctx, txn.puts))
    assert kernel_of(ctx).objects == before


async def test_any_changes_lead_to_what_one_look_would(folder: str) -> None:
    chance = random.Random(7)
    ctx = await a_network(folder)
    names = [f"e{number}" for number in range(6)]
    steps = 0
    while steps < 60:
        txn = Txn()
        # Addresses pass from one to the other, too: neither is the name's.
        numbers, macs = chance.sample(range(20, 27), 6), chance.sample(range(20, 27), 6)
        for name, number, mac in zip(names, numbers, macs, strict=True):
            row = endpoint(name, chance.choice("bc"), number, mac, is_active=chance.random() < 0.8)
            if chance.random() < 0.3:
                ctx.tables.endpoints.delete(txn, NET, row.id)
            elif chance.random() < 0.6:
                put(ctx, txn, row)
        for node in "bc":
            if chance.random() < 0.1:
                ctx.tables.nodes.delete(txn, node)
            elif chance.random() < 0.1:
                address = f"192.0.2.{chance.randint(90, 92)}"
                ctx.tables.nodes.put(txn, Node(id=node, name=node, address=address), node)
        if _meet(ctx, txn):
            continue
        steps += 1
        await ctx.shared.commit(txn)
        ids = affected(ctx, (*txn.puts, *txn.deletes))
        await settle(ctx, *ids)
        assert kernel_of(ctx).objects == await anew(ctx, folder)
        assert ctx.settling.rendered[NET] >= {key for key in kernel_of(ctx).objects if LINK in key}


async def test_only_a_peers_own_entries_are_touched(folder: str) -> None:
    ctx = await a_network(folder)
    kernel_of(ctx).applied.clear()
    txn = Txn()
    put(ctx, txn, endpoint("second", "c", 4, 4))
    await ctx.shared.commit(txn)
    # Somebody's own entry that nobody asked about is not looked at.
    kernel_of(ctx).remove(("fdb", HOST, LINK, "02:42:00:00:00:03"))
    await settle(ctx, peers.of(NET))
    assert [(each.action, each.object.key[0]) for each in kernel_of(ctx).applied] == [
        ("add", "fdb"), ("add", "neighbour"), ("add", "neighbour"),
    ]  # fmt: skip
    # Its health changed: no business of the kernel's.
    kernel_of(ctx).applied.clear()
    txn = Txn()
    put(ctx, txn, endpoint("second", "c", 4, 4, is_active=True))
    await ctx.shared.commit(txn)
    await settle(ctx, peers.of(NET))
    assert kernel_of(ctx).applied == []
    # The whole network is still what it was.
    await settle(ctx, NET)
    assert kernel_of(ctx).objects == await anew(ctx, folder)


async def test_where_more_is_gone_all_of_it_is_settled(folder: str) -> None:
    ctx = await a_network(folder)
    kernel_of(ctx).remove(("link", HOST, LINK))
    txn = Txn()
    put(ctx, txn, endpoint("second", "c", 4, 4))
    await ctx.shared.commit(txn)
    await settle(ctx, peers.of(NET))
    assert kernel_of(ctx).objects == await anew(ctx, folder)


async def test_a_node_that_left_the_network_has_nothing_of_it(folder: str) -> None:
    ctx = await a_network(folder)
    txn = Txn(deletes={ctx.tables.endpoints.key(NET, "own".ljust(64, "0"))})
    await ctx.shared.commit(txn)
    await settle(ctx, peers.of(NET))
    assert not any(LINK in key for key in kernel_of(ctx).objects)
    assert NET not in ctx.settling.overlays


async def test_subnets_of_overlays_that_left_this_host(folder: str) -> None:
    ctx = await a_network(folder)
    route, other = ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("10.9.0.0/16")
    assert shared_networks.absent_subnets(ctx, HostFacts()) == []
    txn = Txn()
    put(ctx, txn, endpoint("own", "own", 2, 2, is_active=False))
    await ctx.shared.commit(txn)
    assert shared_networks.absent_subnets(ctx, HostFacts(routes=(other,))) == [
        ipaddress.ip_network("10.0.0.0/24")
    ]
    # Somebody else's addresses, as far as this host is concerned.
    assert shared_networks.absent_subnets(ctx, HostFacts(routes=(route,))) == []
