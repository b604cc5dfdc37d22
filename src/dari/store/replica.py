"""A distributed store's rows as this host knows them: the mirror, fed out of order, and a copy on disk.

News of one key come by two ways, from our own commits at once and from the store's watch a little later; a revision
decides which is newer, and a deleted key keeps the revision of its deletion until the watch has passed it. The copy
lets a daemon that starts while the store is away serve what it knew. Must not know: any store's protocol.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from itertools import islice

from dari.store.base import Row, Status
from dari.store.mirror import Mirror

log = logging.getLogger(__name__)

_SAVE_SECONDS = 2.0
_SAVED_AT_ONCE = 2000


class Replica:
    """For one event loop. `copy_path` "" keeps no copy."""

    def __init__(self, url: str, copy_path: str = "") -> None:
        self.mirror = Mirror()
        self.cluster_id = ""
        self._url = url
        self._floors: dict[str, int] = {}
        self._is_known = False
        self._is_connected = False
        self._reason = "not connected yet"
        self._whole = asyncio.Event()
        # Up to where the store's news are in the rows, in its own words; kept with the copy.
        self.mark = ""
        self._copy = _Copy(copy_path, lambda: self.mark) if copy_path else None
        if self._copy is not None:
            self.cluster_id, self.mark, rows = self._copy.load()
            self._is_known = bool(self.cluster_id)
            self.mirror.change(rows, ())

    def status(self) -> Status:
        return Status(self._url, self._is_connected, self._is_known, self._reason)

    async def whole(self) -> None:
        """Returns once all rows are as they were in the store after this process had begun."""
        await self._whole.wait()

    def connected(self) -> None:
        if not self._is_connected:
            log.info("the store %s answers", self._url)
        self._is_connected, self._reason = True, ""

    def disconnected(self, reason: str) -> None:
        if self._is_connected or reason != self._reason:
            log.warning("the store %s is away: %s; what runs goes on, shared changes wait", self._url, reason)
        self._is_connected, self._reason = False, reason

    def committed(self, puts: Mapping[str, bytes], deletes: Iterable[str], revision: int) -> None:
        """Our own transaction went through."""
        self.seen({key: Row(value, revision) for key, value in puts.items()}, {}, revision)
        gone = [key for key in deletes if key not in puts]
        self.seen({}, dict.fromkeys(gone, revision), revision)
        if self._copy is not None:
            # A daemon that is killed now must find what it has on this host, though the store be away.
            self._copy.keep((*puts, *gone))

    def seen(self, puts: Mapping[str, Row], deletes: Mapping[str, int], passed: int = 0) -> None:
        """Rows as they were at their revisions, and keys that were deleted at a revision."""
        fresh = {key: row for key, row in puts.items() if row.revision > self._last(key)}
        gone = [key for key, revision in deletes.items() if revision >= self._last(key)]
        for key in gone:
            self._floors[key] = deletes[key]
        for key in fresh:
            self._floors.pop(key, None)
        self._change(fresh, gone)

    def passed(self, revision: int) -> None:
        """The watch has told everything up to `revision`: older news can no longer come."""
        if self._floors:
            self._floors = {key: floor for key, floor in self._floors.items() if floor > revision}

    def replace(self, rows: Mapping[str, Row], revision: int) -> None:
        """Everything there was at `revision`; what we committed since stays."""
        known = self.mirror.rows
        gone = [key for key, row in known.items() if key not in rows and row.revision <= revision]
        fresh: dict[str, Row] = {}
        for key, row in rows.items():
            before = known.get(key)
            if before is not None and (before.revision > row.revision or before == row):
                continue
            if row.revision > self._floors.get(key, 0):
                fresh[key] = row
        self._change(fresh, gone)
        self.caught_up()

    def caught_up(self) -> None:
        """The rows are as they were in the store a moment ago."""
        self._is_known = True
        self._whole.set()

    def adopt_cluster(self, cluster_id: str) -> None:
        self.cluster_id = cluster_id
        if self._copy is not None:
            self._copy.remember_cluster(cluster_id)

    def forget(self) -> None:
        """Drop the copy, and whose it was."""
        if self._copy is not None:
            self._copy.forget()

    def watch(self, prefix: str) -> AsyncIterator[frozenset[str]]:
        return self.mirror.watch(prefix)

    def close(self) -> None:
        self.mirror.close()
        if self._copy is not None:
            self._copy.close()

    def _last(self, key: str) -> int:
        row = self.mirror.get(key)
        return max(row.revision if row is not None else 0, self._floors.get(key, 0))

    def _change(self, puts: Mapping[str, Row], deletes: Iterable[str]) -> None:
        gone = list(deletes)
        if not puts and not gone:
            return
        self.mirror.change(puts, gone)
        if self._copy is not None:
            self._copy.change(puts, gone)


class Replicated:
    """What a store answers from its replica, whichever server is behind it."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    @property
    def cluster_id(self) -> str:
        return self._replica.cluster_id

    def read(self, prefix: str) -> Mapping[str, Row]:
        return self._replica.mirror.read(prefix)

    def get(self, key: str) -> Row | None:
        return self._replica.mirror.get(key)

    def changes(self, since: int) -> tuple[int, frozenset[str] | None]:
        return self._replica.mirror.changes(since)

    def status(self) -> Status:
        return self._replica.status()

    def forget(self) -> None:
        self._replica.forget()

    async def whole(self) -> None:
        await self._replica.whole()

    def watch(self, prefix: str) -> AsyncIterator[frozenset[str]]:
        return self._replica.watch(prefix)


class _Copy:
    """The rows in a SQLite file, written a moment after they changed. Losing it costs nothing but a start without
    the store. `mark_of` tells the mark the rows are of."""

    def __init__(self, path: str, mark_of: Callable[[], str]) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
            "CREATE TABLE IF NOT EXISTS rows(key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL)"
            " WITHOUT ROWID;"
            "CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT NOT NULL)"
        )
        self._mark_of = mark_of
        self._has_all = True
        self._pending: dict[str, Row | None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def load(self) -> tuple[str, str, dict[str, Row]]:
        """Whose it is, its mark, and the rows in key order."""
        meta = dict(self._db.execute("SELECT name, value FROM meta"))
        rows = self._db.execute("SELECT key, value, revision FROM rows ORDER BY key")
        return (
            meta.get("cluster", ""),
            meta.get("mark", "") if meta.get("cluster") else "",
            {key: Row(bytes(value), revision) for key, value, revision in rows},
        )

    def remember_cluster(self, cluster_id: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('cluster', ?)", (cluster_id,))

    def forget(self) -> None:
        self._pending.clear()
        self._has_all = False
        self._db.executescript("DELETE FROM rows; DELETE FROM meta;")

    def change(self, puts: Mapping[str, Row], deletes: Iterable[str]) -> None:
        self._pending.update(puts)
        self._pending.update(dict.fromkeys(deletes))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SAVE_SECONDS, self._save)

    def keep(self, keys: Iterable[str]) -> None:
        """Write what waits of these at once, behind what they may hang on: rows that came a moment before them."""
        last = [key for key in keys if key in self._pending]
        if last:
            self._save_part(dict.fromkeys((*islice(self._pending, _SAVED_AT_ONCE), *last)))

    def _save(self) -> None:
        """A part of what waits, so that nobody waits long for a whole store to be written; the mark with the last."""
        self._timer = None
        if len(self._pending) > _SAVED_AT_ONCE:
            self._timer = asyncio.get_running_loop().call_later(_SAVE_SECONDS / 10, self._save)
        self._save_part(list(islice(self._pending, _SAVED_AT_ONCE)))

    def _save_part(self, keys: Iterable[str]) -> None:
        part = {key: self._pending.pop(key) for key in keys}
        try:
            self._write(part)
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            # What is written from now on has a hole: the next start reads everything.
            self._has_all = False
            log.error("the copy of the shared store could not be written: %s", error)

    def _write(self, part: Mapping[str, Row | None]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("DELETE FROM rows WHERE key=?", [(k,) for k, row in part.items() if row is None])
        self._db.executemany(
            "INSERT OR REPLACE INTO rows VALUES (?,?,?)",
            [(key, row.value, row.revision) for key, row in part.items() if row is not None],
        )
        if not self._pending:
            mark = self._mark_of() if self._has_all else ""
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('mark', ?)", (mark,))
        self._db.execute("COMMIT")

    def close(self) -> None:
        while self._timer is not None:
            self._timer.cancel()
            self._save()
        self._db.close()
