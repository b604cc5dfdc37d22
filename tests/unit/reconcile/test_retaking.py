"""What a node's containers had on shared networks, and others took away while it was cut off, it takes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.unit.reconcile.test_peers import context, folder
from tests.unit.reconcile.test_strays import Late, Looks

from dari.model.cluster import Node
from dari.model.network import Endpoint, Network, NetworkSpec, Sandbox, Subnet
from dari.net.overlay import VNI_OPTION
from dari.reconcile import lost_places, retaking
from dari.reconcile.checks import cluster
from dari.reconcile.context import Context
from dari.store.base import StoreUnavailable, Txn
from dari.store.federation import Federation
from dari.store.memory import MemoryStore
from dari.store.tables import Tables, is_shared

__all__ = ["folder"]

NET, GONE = "wide".ljust(25, "0"), "gone".ljust(25, "0")


class Remote(Late):
    """The shared store; `is_late`: it does not answer. What it has not told of yet it tells when it is asked."""

    is_late = False
    untold: frozenset[str] = frozenset()

    async def refresh(self, prefix: str) -> None:
        told = {key for key in self.untold if key.startswith(prefix)}
        await self.commit(Txn(deletes=told))
        self.untold -= told


def endpoint(
    name: str, number: int, *, node: str = "own", is_active: bool = True, net: str = NET
) -> Endpoint:
    return Endpoint(
        id=name, network_id=net, sandbox_id=f"s-{name}", container_id=f"c-{name}", node=node, is_active=is_active,
        ipv4=f"10.0.0.{number}" if is_active else "", ipv6=f"fd00::{number}" if is_active else "",
        mac=f"02:42:00:00:00:{number:02x}" if is_active else "", dns_names=[name] if is_active else [],
        interface="eth0" if is_active else "", host_interface=f"veth{name}" if is_active else "",
    )  # fmt: skip


def network(net: str) -> Network:
    spec = NetworkSpec(name=net.strip("0"), driver="overlay", scope="global", options={VNI_OPTION: "5000"})
    return Network(id=net, created=1, spec=spec, subnets=[Subnet(subnet="10.0.0.0/24", gateway="10.0.0.1")])


@pytest.fixture
async def remote() -> Remote:
    return Remote()


@pytest.fixture
async def ctx(folder: str, remote: Remote) -> AsyncIterator[Context]:
    both = Federation(MemoryStore(), remote, is_shared)
    made = context(folder, both)  # type: ignore[arg-type]
    made.session_id = "joined"
    txn = Txn()
    for each in (NET, GONE):
        made.tables.networks.put(txn, network(each), each)
    made.tables.nodes.put(txn, Node(id="b", name="bee", address="192.0.2.98"), "b")
    await both.commit(txn)
    try:
        yield made
    finally:
        await both.close()


async def place(ctx: Context, *endpoints: Endpoint) -> None:
    for each in endpoints:
        txn = Txn()
        ctx.tables.endpoints.put(txn, each, each.network_id, each.id)
        for address in filter(None, (each.ipv4, each.ipv6)):
            ctx.tables.leases.put(txn, each.id, each.network_id, address)
        made = Sandbox(id=each.sandbox_id, container_id=each.container_id, is_active=each.is_active)
        ctx.tables.sandboxes.put(txn, made, made.id)
        await ctx.shared.commit(txn)


async def removed(remote: Remote) -> None:
    """`node rm` on another node: it knows nothing of what is kept here."""
    for table in ("endpoints/", "leases/"):
        await remote.commit(Txn(deletes=set(remote.read(table))))


async def take_address(remote: Remote, address: str) -> None:
    txn, theirs = Txn(), msgspec.structs.replace(endpoint("db", 9, node="b"), ipv4=address)
    Tables().endpoints.put(txn, theirs, NET, theirs.id)
    Tables().leases.put(txn, theirs.id, NET, address)
    await remote.commit(Txn(puts={key: value for key, value in txn.puts.items() if is_shared(key, value)}))


def there(ctx: Context) -> dict[str, Endpoint]:
    return {each.id: each for each in ctx.tables.endpoints.all(ctx.shared) if each.node == "own"}


def leases(ctx: Context) -> dict[str, str]:
    table = ctx.tables.leases
    return {parts[1]: table.get(ctx.shared, *parts) or "" for parts in table.keys(ctx.shared)}


def kept(ctx: Context) -> list[str]:
    return [parts[1] for parts in ctx.tables.kept_endpoints.keys(ctx.local)]


async def test_the_same_places_with_the_same_addresses(ctx: Context, remote: Remote) -> None:
    runs, stopped = endpoint("runs", 2), endpoint("stopped", 0, is_active=False)
    await place(ctx, runs, stopped)
    await removed(remote)
    assert there(ctx) == {}
    await retaking.take_back(ctx)
    assert there(ctx) == {"runs": runs, "stopped": stopped}
    assert leases(ctx) == {"10.0.0.2": "runs", "fd00::2": "runs"}
    assert lost_places.missing(ctx) == []
    before = remote.read("")
    await retaking.take_back(ctx)
    assert remote.read("") == before


async def test_an_address_that_is_somebody_elses_is_told_and_taken_once_it_is_free(
    ctx: Context, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retaking, "_LOOK_SECONDS", 0.0)
    await place(ctx, endpoint("runs", 2), endpoint("other", 3))
    await removed(remote)
    await take_address(remote, "10.0.0.2")
    await retaking.take_back(ctx)
    await retaking.tend(ctx, Looks(3))
    assert set(there(ctx)) == {"other"}
    assert leases(ctx)["10.0.0.2"] == "db"
    [told] = [each.finding for each in cluster.look(ctx) if each.finding.id == "cluster.off-network"]
    assert told.object == "container c-runs"
    assert told.text == (
        "it runs without network wide, where it was 10.0.0.2: 10.0.0.2 is db's on node bee by now"
    )
    assert "dari network connect wide c-runs" in told.advice
    await remote.commit(Txn(deletes={f"endpoints/{NET}/db", f"leases/{NET}/10.0.0.2"}))
    await retaking.tend(ctx, Looks(2))
    assert set(there(ctx)) == {"other", "runs"}
    assert not any(each.finding.id == "cluster.off-network" for each in cluster.look(ctx))


async def test_what_was_stopped_meanwhile_asks_for_an_address_at_its_next_start(
    ctx: Context, remote: Remote
) -> None:
    runs = endpoint("runs", 2)
    await place(ctx, runs)
    remote.is_late = True
    txn = Txn()
    stopped = endpoint("runs", 0, is_active=False)
    ctx.tables.endpoints.put(txn, stopped, NET, "runs")
    ctx.tables.sandboxes.put(txn, Sandbox(id="s-runs", container_id="c-runs"), "s-runs")
    await ctx.local.commit(txn)
    remote.is_late = False
    await removed(remote)
    assert isinstance(ctx.shared, Federation)
    ctx.shared._outbox.clear()
    await retaking.take_back(ctx)
    assert (there(ctx), leases(ctx)) == ({"runs": stopped}, {})


async def test_nobody_gets_what_he_asks_for_no_more(ctx: Context, remote: Remote) -> None:
    """Taken off the network, removed, on a network that was removed, or put on it again by hand."""
    off, over, lost, again, copied = (
        endpoint(name, number, net=GONE if name == "lost" else NET)
        for number, name in enumerate(("off", "over", "lost", "again", "copied"), 2)
    )
    await place(ctx, off, over, lost, again, copied)
    txn, tables = Txn(), ctx.tables
    tables.endpoints.delete(txn, NET, "off")
    tables.sandboxes.delete(txn, "s-over")
    tables.kept_endpoints.put(txn, msgspec.structs.replace(copied, node="before"), NET, "copied")
    await ctx.local.commit(txn)
    await removed(remote)
    await remote.commit(Txn(deletes={f"networks/{GONE}"}))
    by_hand = msgspec.structs.replace(endpoint("new", 7), sandbox_id="s-again", container_id="c-again")
    txn = Txn()
    tables.endpoints.put(txn, by_hand, NET, "new")
    await ctx.local.commit(txn)
    await retaking.take_back(ctx)
    assert set(there(ctx)) == {"new"}
    assert kept(ctx) == ["new"]


async def test_a_place_that_is_being_given_up_is_not_taken_back(
    ctx: Context, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gone in the shared store, and not yet here: for a moment it looks lost."""
    monkeypatch.setattr(retaking, "_LOOK_SECONDS", 0.0)
    await place(ctx, endpoint("runs", 2))
    await removed(remote)
    await retaking.tend(ctx, Looks(1))
    assert there(ctx) == {}
    assert await retaking.forget(ctx, "s-runs", NET)
    assert not await retaking.forget(ctx, "s-runs", NET)
    await retaking.tend(ctx, Looks(3))
    assert (there(ctx), kept(ctx)) == ({}, [])


async def test_what_was_removed_and_not_heard_of_yet_is_taken_back(ctx: Context, remote: Remote) -> None:
    """A session may be there before the news are."""
    runs = endpoint("runs", 2)
    await place(ctx, runs)
    remote.untold = frozenset((f"leases/{NET}/10.0.0.2", f"leases/{NET}/fd00::2", f"endpoints/{NET}/runs"))
    await retaking.take_back(ctx)
    assert remote.untold == set()
    assert there(ctx) == {"runs": runs}


async def test_what_others_take_away_from_a_node_that_is_there_they_mean(
    ctx: Context, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`network disconnect --force` on another node."""
    await place(ctx, endpoint("runs", 2), endpoint("other", 3))
    looks = 0

    async def look(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            await remote.commit(Txn(deletes={f"endpoints/{NET}/runs", f"leases/{NET}/10.0.0.2"}))

    waiting: Any = SimpleNamespace(sleep=look)
    monkeypatch.setattr(retaking, "asyncio", waiting)
    await retaking.tend(ctx, Looks(3))
    assert set(there(ctx)) == {"other"}
    assert kept(ctx) == ["other"]


async def test_a_store_that_is_away_again_is_waited_for(
    ctx: Context, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retaking, "_LOOK_SECONDS", 0.0)
    await place(ctx, endpoint("runs", 2))
    await removed(remote)
    commit = remote.commit

    async def refused(txn: Txn) -> int:
        raise StoreUnavailable("nobody answers")

    monkeypatch.setattr(remote, "commit", refused)
    await retaking.take_back(ctx)
    await retaking.tend(ctx, Looks(3))
    assert there(ctx) == {}
    monkeypatch.setattr(remote, "commit", commit)
    await retaking.tend(ctx, Looks(2))
    assert set(there(ctx)) == {"runs"}


async def test_what_a_killed_daemon_did_not_keep_is_kept_at_the_next_joining(
    ctx: Context, remote: Remote
) -> None:
    runs = endpoint("runs", 2)
    await place(ctx, runs)
    await ctx.local.commit(Txn(deletes={f"kept-endpoints/{NET}/runs"}))
    await retaking.take_back(ctx)
    assert ctx.tables.kept_endpoints.all(ctx.local) == [runs]


async def test_endpoints_of_this_host_alone_are_kept_once(ctx: Context) -> None:
    txn = Txn()
    ctx.tables.endpoints.put(txn, endpoint("local", 2), "n" * 64, "local")
    assert list(txn.puts) == [f"endpoints/{'n' * 64}/local"]
