"""Endpoints the store has and this host does not stand behind are given back, and no others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.unit.reconcile.test_peers import context, folder

from dari.model.container import Container, ContainerConfig, ContainerStatus, Health, HostConfig
from dari.model.network import Endpoint, Sandbox
from dari.reconcile import boot, endpoints, strays
from dari.reconcile.context import Context
from dari.store.base import ABSENT, Row, StoreUnavailable, Txn
from dari.store.federation import Federation
from dari.store.memory import MemoryStore
from dari.store.tables import is_shared

__all__ = ["folder"]

NET = "wide".ljust(25, "0")


def endpoint(name: str, *, node: str = "own", is_active: bool = True, ipv4: str = "10.0.0.2") -> Endpoint:
    return Endpoint(
        id=name, network_id=NET, sandbox_id=f"s-{name}", container_id=f"c-{name}", node=node, is_active=is_active,
        ipv4=ipv4 if is_active else "",
    )  # fmt: skip


class Late(MemoryStore):
    """A shared store that does what it is asked and gives no answer; it has not told of the rows `unheard` yet."""

    cluster_id = "c"
    is_late = True
    unheard = ""

    def get(self, key: str) -> Row | None:
        return None if key == self.unheard else super().get(key)

    async def commit(self, txn: Txn) -> int:
        revision = await super().commit(txn)
        if self.is_late:
            raise StoreUnavailable("its leader has changed")
        return revision

    def forget(self) -> None:
        raise NotImplementedError

    async def whole(self) -> None:
        raise NotImplementedError

    async def refresh(self, prefix: str) -> None:
        raise NotImplementedError


class Looks:
    """A session that lasts for so many looks."""

    def __init__(self, count: int) -> None:
        self.id, self.count = "joined", count

    def is_alive(self) -> bool:
        self.count -= 1
        return self.count >= 0

    async def ended(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def abandon(self) -> None:
        raise NotImplementedError


async def a_world(folder: str) -> Context:
    ctx = context(folder, MemoryStore())
    ctx.session_id = "joined"
    txn, tables = Txn(), ctx.tables
    runs, late, removed = (
        endpoint("runs"),
        endpoint("late", ipv4="10.0.0.3"),
        endpoint("removed", is_active=False),
    )
    for each in (runs, late, removed, endpoint("theirs", node="b", ipv4="10.0.0.4")):
        tables.endpoints.put(txn, each, NET, each.id)
        if each.ipv4:
            tables.leases.put(txn, each.id, NET, each.ipv4)
    tables.sandboxes.put(txn, Sandbox(id="s-runs", container_id="c-runs", is_active=True), "s-runs")
    tables.sandboxes.put(txn, Sandbox(id="s-late", container_id="c-late"), "s-late")
    await ctx.local.commit(txn)
    return ctx


async def test_what_the_store_did_late_is_given_back(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strays, "_CALM_SECONDS", 0.0)
    ctx = await a_world(folder)
    astray = strays.among(ctx, ctx.shared.read(""))
    assert [each.id for each in astray] == ["late", "removed"]
    await strays.tend(ctx, Looks(3))
    left = {each.id: each.is_active for each in ctx.tables.endpoints.all(ctx.shared)}
    assert left == {"runs": True, "late": False, "theirs": True}
    assert [key[1] for key in ctx.tables.leases.keys(ctx.shared)] == ["10.0.0.2", "10.0.0.4"]
    assert strays.among(ctx, ctx.shared.read("")) == []


async def test_an_address_the_store_gave_late_to_what_was_gone_by_then_is_given_back(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strays, "_CALM_SECONDS", 0.0)
    remote = Late()
    both = Federation(MemoryStore(), remote, is_shared)
    ctx = context(folder, both)
    ctx.session_id = "joined"
    tables, gone, kept, others = ctx.tables, endpoint("gone"), endpoint("kept", ipv4="10.0.0.3"), "10.0.0.4"
    try:
        for each in (gone, kept):
            txn = Txn()
            tables.endpoints.put(txn, each, NET, each.id)
            tables.leases.put(txn, each.id, NET, each.ipv4)
            txn.checks[tables.leases.key(NET, each.ipv4)] = ABSENT
            with pytest.raises(StoreUnavailable):
                await both.commit(txn)
        txn = Txn()
        tables.sandboxes.put(txn, Sandbox(id="s-kept", container_id="c-kept", is_active=True), "s-kept")
        # Removed by somebody who did not know of its address; and one of somebody of whom no more is known yet.
        tables.endpoints.delete(txn, NET, "gone")
        tables.leases.put(txn, "soon", NET, others)
        tables.endpoints.put(txn, endpoint("soon", node="b", ipv4=others), NET, "soon")
        remote.unheard = tables.endpoints.key(NET, "soon")
        remote.is_late = False
        await both.commit(txn)
        assert len(tables.leases.keys(both)) == 3
        await strays.tend(ctx, Looks(3))
        assert [key[1] for key in tables.leases.keys(both)] == ["10.0.0.3", others]
        # Once more after the next doubt.
        remote.is_late, remote.unheard = True, ""
        txn = Txn()
        tables.endpoints.delete(txn, NET, "soon")
        await both.commit(txn)
        remote.is_late = False
        await strays.tend(ctx, Looks(3))
        assert [key[1] for key in tables.leases.keys(both)] == ["10.0.0.3"]
    finally:
        await both.close()


async def test_a_health_check_that_ended_while_the_store_was_away_is_told(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strays, "_CALM_SECONDS", 0.0)
    ctx = await a_world(folder)
    status = ContainerStatus(state="running", health=Health(status="unhealthy"))
    txn = Txn()
    made = Container(
        id="c-runs", name="runs", created=1, image_id="i", config=ContainerConfig(), host=HostConfig(),
        sandbox_id="s-runs", status=status,
    )  # fmt: skip
    ctx.tables.containers.put(txn, made, made.id)
    await ctx.local.commit(txn)
    await strays.tend(ctx, Looks(3))
    told = ctx.tables.endpoints.get(ctx.shared, NET, "runs")
    assert told is not None
    assert (told.is_active, told.health) == (True, "unhealthy")
    assert strays.among(ctx, ctx.shared.read("")) == []


async def test_a_node_that_has_not_joined_touches_nothing(folder: str) -> None:
    """Its id may be a living node's, whose data it is a copy of."""
    ctx = await a_world(folder)
    ctx.session_id = ""
    assert strays.among(ctx, ctx.shared.read("")) == []
    assert ctx.node is not None
    txn = Txn()
    ctx.tables.nodes.put(txn, msgspec.structs.replace(ctx.node, address="192.0.2.99"), "own")
    await ctx.local.commit(txn)
    before = set(ctx.shared.read("endpoints/")), set(ctx.shared.read("leases/"))
    await boot.free_forgotten(ctx)
    assert (set(ctx.shared.read("endpoints/")), set(ctx.shared.read("leases/"))) == before


async def test_a_claim_that_is_just_being_written_down_stays(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = await a_world(folder)
    turns = 0

    async def start(_: float) -> None:
        nonlocal turns
        turns += 1
        if turns != 2:
            return
        txn = Txn()
        for name in ("late", "removed"):
            sandbox = Sandbox(id=f"s-{name}", container_id=f"c-{name}", is_active=True)
            ctx.tables.sandboxes.put(txn, sandbox, sandbox.id)
        await ctx.local.commit(txn)

    waiting: Any = SimpleNamespace(sleep=start)
    monkeypatch.setattr(strays, "asyncio", waiting)
    await strays.tend(ctx, Looks(4))
    assert len(ctx.tables.endpoints.all(ctx.shared)) == 4


@pytest.mark.parametrize(("lease", "is_ended"), [(None, True), ("late", True), ("theirs", False)])
async def test_an_endpoint_goes_with_the_address_it_says_it_has(
    folder: str, lease: str | None, is_ended: bool
) -> None:
    """The store tells of rows one by one: the endpoint may be heard of before its lease."""
    ctx, late, txn = context(folder, MemoryStore()), endpoint("late"), Txn()
    if lease is not None:
        ctx.tables.leases.put(txn, lease, NET, late.ipv4)
        await ctx.local.commit(txn)
    txn = Txn()
    endpoints.add_release(ctx, txn, late)
    assert (ctx.tables.leases.key(NET, late.ipv4) in txn.deletes) == is_ended
