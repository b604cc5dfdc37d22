"""An index finds what a search through all rows finds, whatever happened to them."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from dari.model.network import Endpoint
from dari.store.base import Txn
from dari.store.memory import MemoryStore
from dari.store.tables import Index, Table

_IDS = st.sampled_from(["e1", "e2", "e3", "e4"])
_SANDBOXES = st.sampled_from(["", "s1", "s2"])
_STEPS = st.lists(st.tuples(_IDS, st.one_of(st.none(), _SANDBOXES), st.booleans()), max_size=30)


def endpoint(name: str, sandbox: str) -> Endpoint:
    return Endpoint(id=name, network_id="n", sandbox_id=sandbox, container_id="c")


@given(steps=_STEPS)
def test_it_follows_the_rows(steps: list[tuple[str, str | None, bool]]) -> None:
    asyncio.run(follow(steps))


async def follow(steps: list[tuple[str, str | None, bool]]) -> None:
    store, other = MemoryStore(), MemoryStore()
    table = Table("endpoints", Endpoint)
    index = Index(table, Endpoint, lambda row: row.sandbox_id)
    await other.commit(Txn(puts={"endpoints/n/e9": b'{"not": "this store"}'}))
    for name, sandbox, looks in steps:
        txn = Txn()
        if sandbox is None:
            table.delete(txn, "n", name)
        else:
            table.put(txn, endpoint(name, sandbox), "n", name)
        # A table beside it does not matter.
        txn.puts["endpoints-too/n/e1"] = b""
        await store.commit(txn)
        if looks:
            check(index, table, store)
    check(index, table, store)


def check(index: Index[Endpoint, Endpoint], table: Table[Endpoint], store: MemoryStore) -> None:
    rows = table.all(store)
    for word in ("s1", "s2", "s3"):
        assert index.get(store, word) == [row for row in rows if row.sandbox_id == word]
    assert index.get(store, "") == []


async def test_it_starts_anew_where_too_much_changed() -> None:
    store, table = MemoryStore(), Table("endpoints", Endpoint)
    index = Index(table, Endpoint, lambda row: row.sandbox_id)
    txn = Txn()
    table.put(txn, endpoint("e1", "s1"), "n", "e1")
    await store.commit(txn)
    assert len(index.get(store, "s1")) == 1
    txn = Txn(puts={f"x/{number}": b"" for number in range(20_000)})
    table.put(txn, endpoint("e1", "s2"), "n", "e1")
    table.put(txn, endpoint("e2", "s2"), "n", "e2")
    await store.commit(txn)
    assert index.get(store, "s1") == []
    assert [each.id for each in index.get(store, "s2")] == ["e1", "e2"]


async def test_more_than_is_remembered_is_said() -> None:
    store = MemoryStore()
    await store.commit(Txn(puts={"a": b""}))
    count, _ = store.changes(0)
    await store.commit(Txn(puts={f"many/{number}": b"" for number in range(20_000)}))
    later, keys = store.changes(count)
    assert keys is None
    assert store.changes(later) == (later, frozenset())


async def test_another_store_is_another_index() -> None:
    one, two, table = MemoryStore(), MemoryStore(), Table("endpoints", Endpoint)
    index = Index(table, Endpoint, lambda row: row.sandbox_id)
    for store, name in ((one, "e1"), (two, "e2")):
        txn = Txn()
        table.put(txn, endpoint(name, "s1"), "n", name)
        await store.commit(txn)
    assert [each.id for each in index.get(one, "s1")] == ["e1"]
    assert [each.id for each in index.get(two, "s1")] == ["e2"]
