"""The embedded store: SQLite in WAL mode, one writer, a mirror in memory.

`synchronous=NORMAL` loses no committed transaction when a process dies (only a power cut may cost the last ones,
never consistency): 0.06 ms a row against 0.43 with FULL (docs/dependencies.md). Sessions end with the process:
on one host, who restarts must register again, so session rows are removed at open.

A full disk must not keep anybody from stopping and removing what fills it: the write-ahead log is made as large as it
gets between two checkpoints, and the database has free pages, before the disk is full.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Mapping

from dari.model.errors import told
from dari.store.base import ABSENT, Row, Session, Status, StoreUnavailable, Txn, TxnConflict
from dari.store.mirror import Mirror
from dari.store.session import LocalSession

log = logging.getLogger(__name__)

_SCHEMA = """
PRAGMA journal_mode=WAL;
PRAGMA synchronous=NORMAL;
PRAGMA wal_autocheckpoint=1024;
CREATE TABLE IF NOT EXISTS rows(key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL,
    session TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT OR IGNORE INTO meta VALUES ('revision', 0), ('format', 1);
CREATE TABLE IF NOT EXISTS reserve(filler BLOB);
"""
_PAGES = 1024
"""So far the log grows before it begins anew, and so many free pages the database has: 4 MiB each. Beginning anew waits
three times for the disk, and everybody waits with it: 256 pages had thirty starts wait for it five times."""

_COMMITS_BETWEEN_LOOKS = 512


class SqliteStore:
    """See `base.Store`. `path` is a file in an existing folder; a second process that opens it is refused
    (StoreUnavailable), since two daemons on one state would undo each other's work."""

    def __init__(self, path: str) -> None:
        self._lock = os.open(path + ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise StoreUnavailable(f"{path} is in use by another darid") from None
        self._path = path
        try:
            self._db = _open(path)
        except sqlite3.Error as error:
            os.close(self._lock)
            raise StoreUnavailable(f"{path}: {_why(error)}") from error
        self._commits = 0
        self._reserve()
        self._revision = int(self._db.execute("SELECT value FROM meta WHERE name='revision'").fetchone()[0])
        self._mirror = Mirror()
        found = self._db.execute("SELECT key, value, revision FROM rows")
        self._mirror.change({key: Row(bytes(value), revision) for key, value, revision in found}, ())

    def read(self, prefix: str) -> Mapping[str, Row]:
        return self._mirror.read(prefix)

    def get(self, key: str) -> Row | None:
        return self._mirror.get(key)

    def changes(self, since: int) -> tuple[int, frozenset[str] | None]:
        return self._mirror.changes(since)

    async def commit(self, txn: Txn) -> int:
        for key, revision in txn.checks.items():
            row = self._mirror.get(key)
            if (row.revision if row else ABSENT) != revision:
                raise TxnConflict(key)
        revision = self._revision + 1
        puts = [(key, value, revision, txn.session_id) for key, value in txn.puts.items()]
        deletes = [(key,) for key in txn.deletes if key not in txn.puts]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            if deletes:
                self._db.executemany("DELETE FROM rows WHERE key=?", deletes)
            if puts:
                self._db.executemany("INSERT OR REPLACE INTO rows VALUES (?,?,?,?)", puts)
            self._db.execute("UPDATE meta SET value=? WHERE name='revision'", (revision,))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise StoreUnavailable(f"the state database {self._path}: {_why(error)}") from error
        self._revision = revision
        self._commits += 1
        if self._commits % _COMMITS_BETWEEN_LOOKS == 0:
            self._reserve()
        self._mirror.change({k: Row(v, revision) for k, v in txn.puts.items()}, txn.deletes)
        return revision

    def _reserve(self) -> None:
        """Have free pages in the database and a log of its full length; less where the disk is full already."""
        free, size = (
            int(self._db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("freelist_count", "page_size")
        )
        if free >= _PAGES // 2 and os.path.getsize(f"{self._path}-wal") >= _PAGES * size:
            return
        try:
            self._db.execute("INSERT INTO reserve VALUES (zeroblob(?))", (_PAGES * size,))
            self._db.execute("DELETE FROM reserve")
        except sqlite3.Error as error:
            log.warning("the state database has no room kept for a full disk: %s", _why(error))

    def watch(self, prefix: str) -> AsyncIterator[frozenset[str]]:
        return self._mirror.watch(prefix)

    async def session(self, ttl: float) -> Session:
        return LocalSession(self.end_session)

    async def end_session(self, session_id: str) -> None:
        keys = {key for (key,) in self._db.execute("SELECT key FROM rows WHERE session=?", (session_id,))}
        await self.commit(Txn(deletes=keys))

    def status(self) -> Status:
        return Status("", is_connected=True, is_known=True)

    async def close(self) -> None:
        self._mirror.close()
        await asyncio.sleep(0)
        self._db.close()
        os.close(self._lock)


def _open(path: str) -> sqlite3.Connection:
    """Raises sqlite3.Error."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.executescript(_SCHEMA)
        db.execute("DELETE FROM rows WHERE session != ''")
    except sqlite3.Error:
        db.close()
        raise
    return db


def _why(error: sqlite3.Error) -> str:
    """In words a user can act on."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return (
            f"{error}: put a copy of it back, or move it away (darid then knows no container and no network)"
        )
    found = {
        sqlite3.SQLITE_FULL: errno.ENOSPC,
        sqlite3.SQLITE_READONLY: errno.EROFS,
        sqlite3.SQLITE_NOMEM: errno.ENOMEM,
    }.get(code)
    return told(OSError(found, os.strerror(found))) if found is not None else str(error)
