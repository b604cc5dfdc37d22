"""One suite over every store: what a caller may count on whichever store is behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.patience import PATIENCE
from tests.store.conftest import Open

from dari.store.base import ABSENT, Store, StoreUnavailable, Txn, TxnConflict
from dari.store.memory import MemoryStore
from dari.store.sqlite import SqliteStore


def make(kind: str, folder: Path) -> Store:
    return MemoryStore() if kind == "memory" else SqliteStore(str(folder / "state.db"))


@pytest.fixture(params=["memory", "sqlite", "etcd", "zk"])
async def store(request: pytest.FixtureRequest, open_remote: Open, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param in ("memory", "sqlite"):
        made = make(request.param, tmp_path)
        yield made
        await made.close()
    else:
        yield await open_remote(request.param)


async def test_commit_makes_rows_readable_in_key_order(store: Store) -> None:
    await store.commit(Txn(puts={"a/2": b"two", "a/1": b"one", "b/1": b"other"}))
    assert [(k, r.value) for k, r in store.read("a/").items()] == [("a/1", b"one"), ("a/2", b"two")]
    assert store.get("b/1").value == b"other"  # type: ignore[union-attr]
    assert store.get("a/3") is None


async def test_revisions_grow_and_mark_the_rows_they_wrote(store: Store) -> None:
    first = await store.commit(Txn(puts={"k": b"1", "other": b"x"}))
    second = await store.commit(Txn(puts={"k": b"2"}))
    assert second > first
    assert store.get("k").revision == second  # type: ignore[union-attr]
    assert store.get("other").revision == first  # type: ignore[union-attr]


async def test_absent_check_fails_for_an_existing_key_and_writes_nothing(store: Store) -> None:
    await store.commit(Txn(puts={"lease": b"a"}))
    with pytest.raises(TxnConflict) as caught:
        await store.commit(Txn(checks={"lease": ABSENT}, puts={"lease": b"b", "side": b"x"}))
    assert caught.value.key == "lease"
    assert store.get("lease").value == b"a"  # type: ignore[union-attr]
    assert store.get("side") is None


async def test_revision_check_fails_once_somebody_else_wrote(store: Store) -> None:
    revision = await store.commit(Txn(puts={"k": b"1"}))
    await store.commit(Txn(checks={"k": revision}, puts={"k": b"2"}))
    with pytest.raises(TxnConflict):
        await store.commit(Txn(checks={"k": revision}, puts={"k": b"3"}))
    with pytest.raises(TxnConflict):
        await store.commit(Txn(checks={"gone": 7}, deletes={"k"}))
    assert store.get("k").value == b"2"  # type: ignore[union-attr]


async def test_delete_of_a_missing_key_is_done(store: Store) -> None:
    await store.commit(Txn(puts={"k": b"1"}))
    await store.commit(Txn(deletes={"k", "never"}))
    assert store.read("") == {}


async def test_put_wins_over_delete_of_the_same_key(store: Store) -> None:
    await store.commit(Txn(puts={"k": b"1"}))
    await store.commit(Txn(puts={"k": b"2"}, deletes={"k"}))
    assert store.get("k").value == b"2"  # type: ignore[union-attr]


async def test_watch_names_all_keys_first_then_what_changed(store: Store) -> None:
    await store.commit(Txn(puts={"n/1": b"", "n/2": b"", "m/1": b""}))
    watch = store.watch("n/")
    assert await anext(watch) == {"n/1", "n/2"}
    await store.commit(Txn(puts={"m/2": b""}))
    await store.commit(Txn(puts={"n/3": b""}, deletes={"n/1"}))
    seen: set[str] = set()
    async with asyncio.timeout(5):
        while seen != {"n/1", "n/3"}:
            seen |= await anext(watch)
            assert seen <= {"n/1", "n/3"}


async def test_a_slow_watcher_gets_the_union_of_what_it_missed(store: Store) -> None:
    watch = store.watch("n/")
    assert await anext(watch) == frozenset()
    for number in range(50):
        await store.commit(Txn(puts={f"n/{number}": b""}))
    seen: set[str] = set()
    async with asyncio.timeout(5):
        while len(seen) < 50:
            seen |= await anext(watch)
    assert seen == {f"n/{number}" for number in range(50)}


async def test_keys_of_a_session_vanish_with_it(store: Store) -> None:
    session = await store.session(10)
    await store.commit(Txn(puts={"nodes/a": b"here"}, session_id=session.id))
    await store.commit(Txn(puts={"stays": b"x"}))
    assert session.is_alive()
    assert store.get("nodes/a") is not None
    watch = store.watch("nodes/")
    assert await anext(watch) == {"nodes/a"}
    await session.close()
    assert not session.is_alive()
    async with asyncio.timeout(10 * PATIENCE):
        await session.ended()
        while store.get("nodes/a") is not None:
            assert await anext(watch) == {"nodes/a"}
    assert store.get("stays") is not None


async def test_sqlite_keeps_rows_and_drops_sessions_over_a_restart(tmp_path: Path) -> None:
    first = SqliteStore(str(tmp_path / "state.db"))
    session = await first.session(10)
    await first.commit(Txn(puts={"nodes/a": b""}, session_id=session.id))
    revision = await first.commit(Txn(puts={"k": b"1"}))
    await first.close()
    second = SqliteStore(str(tmp_path / "state.db"))
    assert {k: r.value for k, r in second.read("").items()} == {"k": b"1"}
    assert second.get("k").revision == revision  # type: ignore[union-attr]
    assert await second.commit(Txn(puts={"k": b"2"})) > revision
    await second.close()


async def test_a_second_daemon_on_one_database_is_refused(tmp_path: Path) -> None:
    first = SqliteStore(str(tmp_path / "state.db"))
    with pytest.raises(StoreUnavailable, match="in use by another darid"):
        SqliteStore(str(tmp_path / "state.db"))
    await first.close()


_KEYS = st.sampled_from(["a", "b", "c/1", "c/2"])
_TXNS = st.lists(
    st.tuples(
        st.dictionaries(_KEYS, st.binary(max_size=3), max_size=3),
        st.sets(_KEYS, max_size=2),
        st.dictionaries(_KEYS, st.integers(0, 4), max_size=1),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=_TXNS)
async def test_every_store_takes_and_refuses_the_same_transactions(
    history: list[tuple[dict[str, bytes], set[str], dict[str, int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    stores = [make("memory", Path()), make("sqlite", tmp_path_factory.mktemp("store"))]
    for puts, deletes, checks in history:
        outcomes = []
        for each in stores:
            try:
                outcomes.append(await each.commit(Txn(dict(checks), dict(puts), set(deletes))))
            except TxnConflict as conflict:
                outcomes.append(conflict.key)  # type: ignore[arg-type]
        assert outcomes[0] == outcomes[1]
    assert stores[0].read("") == stores[1].read("")
    for each in stores:
        await each.close()


async def test_changes_names_what_changed_since(store: Store) -> None:
    await store.commit(Txn(puts={"a": b"1", "b": b"1"}))
    count, _ = store.changes(0)
    assert store.changes(count) == (count, frozenset())
    await store.commit(Txn(puts={"a": b"2"}))
    await store.commit(Txn(deletes={"b", "never"}))
    later, keys = store.changes(count)
    assert keys == {"a", "b"}
    assert store.changes(later) == (later, frozenset())
