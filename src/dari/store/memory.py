"""The store in memory: for tests, and the model the other stores are judged by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

from dari.store.base import ABSENT, Row, Session, Status, Txn, TxnConflict
from dari.store.mirror import Mirror
from dari.store.session import LocalSession


class MemoryStore:
    """See `base.Store`. Revisions count commits."""

    def __init__(self) -> None:
        self._mirror = Mirror()
        self._revision = 0
        self._sessions: dict[str, set[str]] = {}

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
        self._revision += 1
        if txn.session_id:
            self._sessions.setdefault(txn.session_id, set()).update(txn.puts)
        self._mirror.change({k: Row(v, self._revision) for k, v in txn.puts.items()}, txn.deletes)
        return self._revision

    def watch(self, prefix: str) -> AsyncIterator[frozenset[str]]:
        return self._mirror.watch(prefix)

    async def session(self, ttl: float) -> Session:
        return LocalSession(self.end_session)

    async def end_session(self, session_id: str) -> None:
        await self.commit(Txn(deletes=self._sessions.pop(session_id, set())))

    def status(self) -> Status:
        return Status("", is_connected=True, is_known=True)

    async def close(self) -> None:
        self._mirror.close()
        await asyncio.sleep(0)
