"""Heartbeats count at every node, one of them keeps the time, and only who is heard by nobody is withdrawn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from tests.patience import PATIENCE

from dari.engine import registrations
from dari.model.cluster import Node
from dari.model.errors import NotFound, Unavailable
from dari.model.registration import Check, Registration
from dari.reconcile import member_checks
from dari.reconcile.member_checks import Checker
from dari.store.base import Row, Status, StoreUnavailable, Txn
from dari.store.federation import Federation
from dari.store.memory import MemoryStore
from dari.store.tables import Tables, is_shared

LONG, SHORT = 3_600_000_000_000, 50_000_000


class Shared(MemoryStore):
    """Counts what is written; `is_away` takes nothing. `late` are rows this node was not told of yet."""

    cluster_id = "c"

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.is_away = False
        self.late: dict[str, bytes] = {}
        self.refreshed: list[str] = []

    async def commit(self, txn: Txn) -> int:
        if self.is_away:
            raise StoreUnavailable("nobody answers")
        self.writes += 1
        return await super().commit(txn)

    def status(self) -> Status:
        return Status("etcd://there", not self.is_away, is_known=True, reason="nobody answers")

    def forget(self) -> None:
        raise NotImplementedError

    async def whole(self) -> None:
        raise NotImplementedError

    async def refresh(self, prefix: str) -> None:
        self.refreshed.append(prefix)
        if self.late:
            await MemoryStore.commit(self, Txn(puts=self.late))
            self.late = {}


def context(store: Any, name: str) -> Any:
    return SimpleNamespace(
        shared=store,
        local=store,
        tables=Tables(),
        node=Node(id=name, name=f"node-{name}", address=f"192.0.2.{ord(name)}"),
        node_id=name,
        session_id=f"of-{name}",
        now=lambda: 7,
        config=SimpleNamespace(data_root="/var/lib/dari"),
    )


@asynccontextmanager
async def nodes(store: Any, *names: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Checker]]:
    """Their checkers, at work; all of them live."""

    async def nothing(*_: Any) -> None:
        return None

    monkeypatch.setattr(member_checks, "settle_quietly", nothing)
    monkeypatch.setattr(member_checks, "_ADOPT_SECONDS", 0.01)
    monkeypatch.setattr(member_checks, "_AGAIN_SECONDS", 0.01)
    contexts = [context(store, name) for name in names]
    txn = Txn()
    for each in contexts:
        each.tables.nodes.put(txn, each.node, each.node_id)
    await MemoryStore.commit(getattr(store, "remote", store), txn)
    made = [Checker(each) for each in contexts]
    tasks = [asyncio.create_task(each.run()) for each in made]
    try:
        async with asyncio.timeout(20 * PATIENCE):
            yield made
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.wait(tasks)


def member(owner: str, interval: int = LONG, *more: Check, created: int = 1) -> Registration:
    checks = [Check(kind="ttl", interval=interval), *more]
    return Registration(id="one", name="db", address="192.0.2.9", owner=owner, created=created, checks=checks)


async def register(store: Shared, made: Registration) -> None:
    txn = Txn()
    Tables().registrations.put(txn, made, made.name, made.id)
    await store.commit(txn)


def now(store: Shared) -> Registration | None:
    return Tables().registrations.get(store, "db", "one")


def hearer(store: Shared) -> str:
    found = now(store)
    return found.hearer if found is not None else ""


async def until(condition: Callable[[], object]) -> None:
    for _ in range(int(2000 * PATIENCE)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it does not become so")


async def test_a_beat_at_another_node_moves_the_duty_and_the_next_ones_cost_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Shared()
    async with nodes(store, "a", "b", monkeypatch=monkeypatch) as (a, b):
        await register(store, member("a"))
        await a.beat("one")
        before = store.writes
        for _ in range(20):
            await b.beat("one")
        assert (store.writes - before, hearer(store)) == (1, "b")
        await until(lambda: not a._hearing)
        found = now(store)
        assert found is not None
        assert found.owner == "a"
        await a.beat("one")
        assert (store.writes - before, hearer(store)) == (2, "a")


async def test_who_is_not_heard_of_is_withdrawn_by_the_node_that_heard_it_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Shared()
    async with nodes(store, "a", "b", monkeypatch=monkeypatch) as (a, b):
        await register(store, member("a", SHORT))
        await b.beat("one")
        await until(lambda: now(store) is None)
        for each in (a, b):
            with pytest.raises(NotFound, match="register again"):
                await each.beat("one")
        await register(store, member("a", LONG, created=2))
        await b.beat("one")
        assert hearer(store) == "b"


async def test_a_beat_that_came_first_elsewhere_keeps_a_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node whose time has passed does not know of it yet; the store does."""

    class Behind(Shared):
        old: Row | None = None

        def get(self, key: str) -> Row | None:
            row = super().get(key)
            if key.startswith("registrations/") and self.old is not None:
                row, self.old = self.old, None
            return row

    store = Behind()
    async with nodes(store, "a", "b", monkeypatch=monkeypatch) as (a, b):
        await register(store, member("a"))
        old = store.get("registrations/db/one")
        await b.beat("one")
        store.old = old
        await a._withdraw(member("a"))
        assert store.old is None
        assert hearer(store) == "b"


async def test_while_a_withdrawal_waits_for_the_store_a_late_beat_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Shared()
    async with nodes(store, "a", monkeypatch=monkeypatch) as (a,):
        await register(store, member("a", SHORT))
        await a.beat("one")
        store.is_away = True
        await until(lambda: a._hearing["one"].is_over)
        with pytest.raises(NotFound):
            await a.beat("one")
        store.is_away = False
        await until(lambda: now(store) is None)


async def test_without_the_store_the_node_that_counts_goes_on_and_another_says_why_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Shared()
    async with nodes(store, "a", "b", monkeypatch=monkeypatch) as (a, b):
        await register(store, member("a"))
        await a.beat("one")
        store.is_away = True
        await a.beat("one")
        with pytest.raises(
            Unavailable, match=r"db \(one\) was not counted: another node counts.*nobody answers"
        ):
            await b.beat("one")
        assert hearer(store) == "a"


async def test_a_node_that_has_not_joined_counts_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Shared()
    async with nodes(store, "a", "b", monkeypatch=monkeypatch) as (_, b):
        await register(store, member("a"))
        b._ctx.session_id = ""
        txn = Txn()
        Tables().node_names.put(txn, "a", "node-b")
        await store.commit(txn)
        with pytest.raises(
            Unavailable, match=r"node node-b has not joined the others: another node .* is named"
        ):
            await b.beat("one")
        assert hearer(store) == "a"


async def test_what_a_dead_node_heard_or_checked_others_take_over(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Shared()
    async with nodes(store, "a", "b", "c", monkeypatch=monkeypatch) as (_, b, c):
        await register(store, member("b"))
        await c.beat("one")
        await store.commit(Txn(deletes={"nodes/c"}))
        await until(lambda: hearer(store) == "b")
        await b.beat("one")
        await store.commit(Txn(deletes={"nodes/b"}))
        await until(lambda: hearer(store) == "a")
        found = now(store)
        assert found is not None
        assert (found.owner, found.heard_by) == ("a", "")


async def test_what_is_asked_stays_with_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    store, asked = Shared(), list[str]()

    async def ask(registration: Registration, check: Check) -> str:
        asked.append(check.kind)
        return ""

    monkeypatch.setattr(member_checks, "ask", ask)
    async with nodes(store, "a", "b", monkeypatch=monkeypatch) as (a, b):
        await register(store, member("a", LONG, Check(kind="command", target="true", interval=LONG)))
        await b.beat("one")
        await until(lambda: "one" in a._tasks and asked == ["command"])
        assert not b._tasks


async def test_what_another_node_registered_a_moment_ago_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remote = Shared()
    store = Federation(MemoryStore(), remote, is_shared)
    try:
        async with nodes(store, "b", monkeypatch=monkeypatch) as (b,):
            txn = Txn()
            Tables().registrations.put(txn, member("a"), "db", "one")
            remote.late = txn.puts
            await b.beat("one")
            assert hearer(remote) == "b"
            with pytest.raises(NotFound):
                await b.beat("two")
            remote.is_away = True
            with pytest.raises(StoreUnavailable, match="the store etcd://there is away: nobody answers"):
                await b.beat("two")
    finally:
        await store.close()


async def test_so_it_is_when_it_is_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: Any) -> None:
        return None

    monkeypatch.setattr(registrations, "settle", nothing)
    remote = Shared()
    store = Federation(MemoryStore(), remote, is_shared)
    try:
        eng: Any = SimpleNamespace(ctx=context(store, "b"))
        txn = Txn()
        Tables().registrations.put(txn, member("a"), "db", "one")
        remote.late = txn.puts
        await registrations.deregister(eng, "db")
        assert now(remote) is None
        with pytest.raises(NotFound):
            await registrations.deregister(eng, "db")
    finally:
        await store.close()
