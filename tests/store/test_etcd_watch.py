"""How etcd is followed: from where it was left off, in parts, and anew where that does not do."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.patience import PATIENCE
from tests.store import servers
from tests.store.conftest import Open

from dari.store import etcd
from dari.store.address import parse
from dari.store.base import Row, Txn
from dari.store.door import RemoteStore
from dari.store.etcd import EtcdStore
from dari.store.etcd_gateway import Gateway

ETCD = "etcd"


async def until(is_so: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds * PATIENCE):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each reading of everything had."""
    found: list[int] = []
    read = EtcdStore._read

    async def counted(self: EtcdStore, prefix: str) -> Any:
        rows, revision = await read(self, prefix)
        if prefix == self._top:
            found.append(len(rows))
        return rows, revision

    monkeypatch.setattr(EtcdStore, "_read", counted)
    return found


async def with_a_copy(open_remote: Open, copy: str) -> tuple[str, RemoteStore]:
    """Rows that one node has a copy of, and that another has changed since."""
    prefix = f"/left-{uuid4().hex[:8]}"
    store = await open_remote(ETCD, prefix, copy)
    await store.commit(Txn(puts={"n/1": b"one", "n/2": b"two", "n/3": b"three"}))
    # Its watch has told so, too: that is what the copy says.
    await until(lambda: store._seen >= store.get("n/1").revision)  # type: ignore[attr-defined,union-attr]
    await store.close()
    other = await open_remote(ETCD, prefix)
    await other.commit(Txn(puts={"n/2": b"deux", "n/4": b"four"}, deletes={"n/1"}))
    return prefix, other


async def test_a_node_that_returns_hears_what_it_missed_and_reads_nothing_again(
    open_remote: Open, tmp_path: Path, readings: list[int]
) -> None:
    prefix, other = await with_a_copy(open_remote, str(tmp_path / "copy.db"))
    readings.clear()
    back = await open_remote(ETCD, prefix, str(tmp_path / "copy.db"))
    assert back.read("") == other.read("")
    assert {key: row.value for key, row in back.read("").items()} == {
        "n/2": b"deux", "n/3": b"three", "n/4": b"four",
    }  # fmt: skip
    assert readings == []


async def test_what_etcd_has_forgotten_is_read_whole(
    open_remote: Open, cluster_of: Callable[[str], servers.Cluster], tmp_path: Path, readings: list[int]
) -> None:
    prefix, other = await with_a_copy(open_remote, str(tmp_path / "copy.db"))
    newest = await other.commit(Txn(puts={"n/3": b"trois"}))
    gateway = Gateway(parse(cluster_of(ETCD).url))
    try:
        await gateway.call("/v3/kv/compaction", {"revision": str(newest)})
    finally:
        await gateway.close()
    readings.clear()
    back = await open_remote(ETCD, prefix, str(tmp_path / "copy.db"))
    await until(lambda: back.read("") == other.read(""))
    assert readings == [3]


async def test_a_server_that_comes_back_is_not_asked_for_everything(
    tmp_path: Path, readings: list[int]
) -> None:
    with servers.running(ETCD, tmp_path) as cluster:
        stores = [EtcdStore(parse(cluster.url)) for _ in range(3)]
        try:
            for each in stores:
                await each.whole()
            await stores[0].commit(Txn(puts={"n/1": b"one"}))
            await until(lambda: all(each._seen > 2 for each in stores))
            readings.clear()
            cluster.members[0].kill()
            await until(lambda: not any(each.status().is_connected for each in stores))
            cluster.members[0].start()
            cluster.wait()
            await until(lambda: all(each.status().is_connected for each in stores))
            await stores[0].commit(Txn(puts={"n/2": b"two"}, deletes={"n/1"}))
            await until(lambda: all(list(each.read("")) == ["n/2"] for each in stores))
            assert readings == []
        finally:
            for each in stores:
                await each.close()


async def test_much_is_read_in_parts_of_one_moment(
    open_remote: Open, monkeypatch: pytest.MonkeyPatch, readings: list[int]
) -> None:
    monkeypatch.setattr(etcd, "_ROWS_AT_ONCE", 3)
    a = await open_remote(ETCD)
    await a.commit(Txn(puts={f"n/{number:02}": b"" for number in range(20)}))
    await a.commit(Txn(puts={"n": b"", "n/": b"odd"}))
    readings.clear()
    b = await open_remote(ETCD)
    assert readings == [22]
    assert b.read("") == a.read("")
    await b.commit(Txn(deletes={"n", "n/"}))
    await b.refresh("n/")
    assert len(b.read("n/")) == 20


async def test_a_copy_that_lacks_a_row_is_found_out(open_remote: Open, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy.db")
    prefix, other = await with_a_copy(open_remote, copy)
    with closing(sqlite3.connect(copy)) as db, db:
        db.execute("DELETE FROM rows WHERE key = 'n/3'")
    back = await open_remote(ETCD, prefix, copy)
    assert back.get("n/3") is None
    await until(lambda: back.read("") == other.read(""))


async def test_a_copy_that_could_not_be_written_is_no_beginning(
    open_remote: Open, tmp_path: Path, readings: list[int]
) -> None:
    copy = str(tmp_path / "copy.db")
    prefix = f"/full-{uuid4().hex[:8]}"
    store = await open_remote(ETCD, prefix, copy)
    await store.commit(Txn(puts={"n/1": b"one"}))
    with closing(sqlite3.connect(copy, isolation_level=None)) as db:
        db.execute("PRAGMA busy_timeout=0")
        store._replica._copy._db.execute("PRAGMA busy_timeout=0")  # type: ignore[attr-defined]
        db.execute("BEGIN IMMEDIATE")
        store._replica._copy._save()  # type: ignore[attr-defined]
        db.execute("ROLLBACK")
    await store.commit(Txn(puts={"n/2": b"two"}))
    await store.close()
    readings.clear()
    back = await open_remote(ETCD, prefix, copy)
    assert readings == [2]
    assert list(back.read("")) == ["n/1", "n/2"]


async def test_others_who_write_to_the_same_etcd_are_no_reason_to_begin_again(
    open_remote: Open, cluster_of: Callable[[str], servers.Cluster], monkeypatch: pytest.MonkeyPatch,
    readings: list[int],
) -> None:  # fmt: skip
    monkeypatch.setattr(etcd, "_PING_SECONDS", 0.05)
    monkeypatch.setattr(etcd, "_TURN_SECONDS", 0.02)
    store = await open_remote(ETCD)
    await store.commit(Txn(puts={"n/1": b"one"}))
    gateway = Gateway(parse(cluster_of(ETCD).url))
    watch = store._watch_from  # type: ignore[attr-defined]
    begun: list[int] = []

    async def counted(revision: int) -> None:
        begun.append(revision)
        await watch(revision)

    monkeypatch.setattr(store, "_watch_from", counted)
    readings.clear()
    try:
        for number in range(20):
            await gateway.call(
                "/v3/kv/put", {"key": etcd.encode("/elsewhere"), "value": etcd.encode(str(number))}
            )
            await asyncio.sleep(0.05)
    finally:
        await gateway.close()
    assert store.status().is_connected
    assert begun == [] and readings == []
    assert store.get("n/1") == Row(b"one", store.get("n/1").revision)  # type: ignore[union-attr]


async def test_a_watch_that_tells_nothing_is_begun_anew(
    open_remote: Open, monkeypatch: pytest.MonkeyPatch, readings: list[int]
) -> None:
    monkeypatch.setattr(etcd, "_PING_SECONDS", 0.05)
    monkeypatch.setattr(etcd, "_TURN_SECONDS", 0.02)
    a = await open_remote(ETCD)
    watch = Gateway.watch
    silent: list[int] = []

    async def deaf(self: Gateway, body: Any) -> Any:
        async for result in watch(self, body):
            if not silent:
                yield result

    monkeypatch.setattr(Gateway, "watch", deaf)
    b = await open_remote(ETCD)
    await a.commit(Txn(puts={"n/1": b"one"}))
    await until(lambda: b.get("n/1") is not None)
    readings.clear()
    silent.append(1)
    await a.commit(Txn(puts={"n/1": b"uno"}))
    await until(lambda: not b.status().is_connected)
    silent.clear()
    await until(lambda: b.read("") == a.read(""))
    # It goes on where it was.
    assert readings == []


async def test_a_commit_that_changes_no_row_is_heard_of(
    open_remote: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it deletes is gone already, with the session that put it, say."""
    monkeypatch.setattr(etcd, "_PING_SECONDS", 0.1)
    prefix, copy = f"/left-{uuid4().hex[:8]}", str(tmp_path / "copy.db")
    store = await open_remote(ETCD, prefix, copy)
    await store.commit(Txn(puts={"n/1": b"one"}))
    revision = await store.commit(Txn(deletes={"n/2"}))
    await until(lambda: store._seen >= revision)  # type: ignore[attr-defined]
    await store.close()
    back = await open_remote(ETCD, prefix, copy)
    assert back.status().is_connected
    assert set(back.read("")) == {"n/1"}
