"""The embedded store where its disk is full: what ends is still written down, and errors say what to do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dari.store.base import StoreUnavailable, Txn
from dari.store.sqlite import SqliteStore


def fill(store: SqliteStore) -> None:
    """No page more than the database has now."""
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count={pages}")


def test_rows_change_and_go_on_a_full_disk_and_the_log_does_not_grow(tmp_path: Path) -> None:
    async def run() -> None:
        store = SqliteStore(str(tmp_path / "dari.db"))
        log = tmp_path / "dari.db-wal"
        for number in range(50):
            await store.commit(Txn(puts={f"/containers/{number}": b"x" * 3000}))
        fill(store)
        size = log.stat().st_size
        for turn in range(40):
            for number in range(50):
                await store.commit(Txn(puts={f"/containers/{number}": bytes(3000 + turn)}))
        await store.commit(Txn(deletes={f"/containers/{number}" for number in range(50)}))
        assert log.stat().st_size == size
        # An end to what is kept there is too; it says so, and what there is stays as it was.
        with pytest.raises(StoreUnavailable, match="no space left on device: free some"):
            for number in range(1000):
                await store.commit(Txn(puts={f"/filler/{number}": bytes(3000)}))
        found = len(store.read("/filler/"))
        assert 0 < found < 1000
        await store.commit(Txn(deletes={"/filler/0"}))
        await store.commit(Txn(puts={"/filler/0": b"again"}))
        await store.close()
        again = SqliteStore(str(tmp_path / "dari.db"))
        assert len(again.read("/filler/")) == found
        await again.close()

    asyncio.run(run())


@pytest.mark.parametrize(("content", "said"), [(b"x" * 5000, "is not a database"), (None, "unable to open")])
def test_what_is_no_database_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "dari.db"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match=said) as caught:
        SqliteStore(str(path))
    assert str(path) in caught.value.message
    # Nothing is held: the next try has the lock.
    with pytest.raises(StoreUnavailable, match=said):
        SqliteStore(str(path))
