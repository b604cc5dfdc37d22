"""Two stores as one: this host's, and the one it shares with others.

Which of the two a key belongs to is in the key: shared tables, and rows of networks whose id is a global one
(`units.is_global_id`). A transaction over both is committed in the shared store first (claims), then here; if the
second is refused the first is taken back, and what a crash leaves between them boot frees. What only gives back
(addresses, endpoints that end) does not wait for a store that is away: it is remembered, shown as done, and written
when the store answers again. Must not know: what is in a row.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from itertools import islice

from dari.store.base import ABSENT, Row, Session, Status, Store, StoreUnavailable, Txn, TxnConflict
from dari.store.changelog import ChangeLog
from dari.store.door import RemoteStore

log = logging.getLogger(__name__)

# Rows that end with what they belong to: giving them back needs nobody's consent.
_RETURNABLE = ("endpoints/", "leases/")
_FLUSH_SECONDS = 0.5
_TRIES = 16
# etcd takes 128 operations in a transaction.
_FLUSHED_AT_ONCE = 100


class Federation:
    """See `base.Store`. `is_remote(key, value)` decides; `value` is the row's, as far as there is one."""

    def __init__(
        self, local: Store, remote: RemoteStore, is_remote: Callable[[str, bytes | None], bool]
    ) -> None:
        self.local, self.remote = local, remote
        self._is_remote_key = is_remote
        self._outbox: dict[str, bytes | None] = {}
        # What the rows in it were when that was decided, and the keys that were decided together.
        self._given_back: dict[str, Row | None] = {}
        self._together: dict[str, frozenset[str]] = {}
        self.doubts = 0
        """How often the shared store gave no answer to a commit: it may have been done, or be done later."""
        self._log = ChangeLog()
        self._seen = [0, 0]
        self._flusher = asyncio.create_task(self._flush())
        self._has_post = asyncio.Event()

    def read(self, prefix: str) -> Mapping[str, Row]:
        ours, theirs = self.local.read(prefix), self.remote.read(prefix)
        pending = {key: value for key, value in self._outbox.items() if key.startswith(prefix)}
        if not pending and (not theirs or not ours):
            return theirs or ours
        found = {**theirs, **ours}
        for key, value in pending.items():
            before = found.pop(key, None)
            if value is not None:
                found[key] = Row(value, before.revision if before is not None else ABSENT)
        return dict(sorted(found.items()))

    def get(self, key: str) -> Row | None:
        row = self.local.get(key)
        if row is not None:
            return row
        row = self.remote.get(key)
        if key in self._outbox:
            value = self._outbox[key]
            return None if value is None else Row(value, row.revision if row is not None else ABSENT)
        return row

    def changes(self, since: int) -> tuple[int, frozenset[str] | None]:
        for number, store in enumerate((self.local, self.remote)):
            self._seen[number], keys = store.changes(self._seen[number])
            if keys is None:
                self._log.forget()
            else:
                self._log.add(keys)
        return self._log.since(since)

    def status(self) -> Status:
        return self.remote.status()

    async def commit(self, txn: Txn) -> int:
        ours, theirs = self._split(txn)
        if theirs.is_empty():
            return await self.local.commit(ours)
        for key, revision in theirs.checks.items():
            # A name may be free there and taken here.
            if revision == ABSENT and self.local.get(key) is not None:
                raise TxnConflict(key)
        before = {key: self.remote.get(key) for key in (*theirs.puts, *theirs.deletes)}
        try:
            revision = await self._commit_theirs(theirs, before, may_conflict=bool(ours.checks))
        except StoreUnavailable:
            self.doubts += 1
            if not self._can_wait(theirs):
                raise
            self._keep(theirs, before)
            return await self.local.commit(ours) if not ours.is_empty() else ABSENT
        self._forget(before)
        if ours.is_empty():
            return revision
        try:
            return await self.local.commit(ours)
        except BaseException:
            await asyncio.shield(self._take_back(theirs, before, revision))
            raise

    async def _commit_theirs(self, txn: Txn, before: Mapping[str, Row | None], *, may_conflict: bool) -> int:
        """A store that loses its leader may carry out late what it was asked and did not answer, behind what came after
        it. So what asks for nobody's consent stands on the rows as they are, too, and brings none back that has gone.
        Where a row says something else by now, what was to be given back is more than this, or other: TxnConflict, and
        who asks reads again. `may_conflict`: he does anyway, else the rows are looked at here first."""
        if not self._can_wait(txn):
            return await self.remote.commit(txn)
        now = dict(before)
        for _ in range(_TRIES):
            gone = {key for key, row in now.items() if row is None and before[key] is not None}
            # What this host had not heard of yet belongs to one of the others: where one of them went, it went too.
            gone |= {key for key, row in now.items() if row is None} if gone else set()
            guarded = Txn(
                checks={key: row.revision for key, row in now.items() if row is not None},
                puts={key: value for key, value in txn.puts.items() if key not in gone},
                deletes=txn.deletes - gone,
            )
            if guarded.is_empty():
                return ABSENT
            try:
                return await self.remote.commit(guarded)
            except TxnConflict:
                now = {key: self.remote.get(key) for key in before}
                if may_conflict or any(
                    row is not None and not _says(before[key], row) for key, row in now.items()
                ):
                    raise
        raise TxnConflict(next(iter(before)))

    def watch(self, prefix: str) -> AsyncIterator[frozenset[str]]:
        """Of one table: where it is shared by all the shared store's rows, else the local ones; see `watch_remote`."""
        return (self.remote if self._is_remote_key(prefix, None) else self.local).watch(prefix)

    def watch_remote(self, prefix: str) -> AsyncIterator[frozenset[str]]:
        return self.remote.watch(prefix)

    async def session(self, ttl: float) -> Session:
        return await self.remote.session(ttl)

    async def close(self) -> None:
        self._flusher.cancel()
        await asyncio.gather(self._flusher, return_exceptions=True)
        await self.remote.close()
        await self.local.close()

    def _split(self, txn: Txn) -> tuple[Txn, Txn]:
        ours, theirs = Txn(), Txn(session_id=txn.session_id)
        for key, value in txn.puts.items():
            (theirs if self._is_remote_key(key, value) else ours).puts[key] = value
        for key in txn.deletes:
            (theirs if self._lives_there(key) else ours).deletes.add(key)
        for key, revision in txn.checks.items():
            put = txn.puts.get(key)
            is_theirs = self._is_remote_key(key, put) if put is not None else self._lives_there(key)
            if not is_theirs and revision == ABSENT and self.remote.get(key) is not None:
                raise TxnConflict(key)
            (theirs if is_theirs else ours).checks[key] = revision
        return ours, theirs

    def _lives_there(self, key: str) -> bool:
        row = self.local.get(key)
        if row is not None:
            return False
        row = self.remote.get(key)
        return self._is_remote_key(key, row.value if row is not None else None)

    def _can_wait(self, txn: Txn) -> bool:
        return (
            not txn.checks
            and not txn.session_id
            and all(key.startswith(_RETURNABLE) for key in (*txn.puts, *txn.deletes))
        )

    async def _take_back(self, txn: Txn, before: Mapping[str, Row | None], revision: int) -> None:
        """What is still as `txn` left it, at `revision`."""
        undo = Txn(session_id="")
        for key, row in before.items():
            now = self.remote.get(key)
            if (now.revision if now is not None else ABSENT) != (revision if key in txn.puts else ABSENT):
                continue
            undo.checks[key] = now.revision if now is not None else ABSENT
            if row is None:
                undo.deletes.add(key)
            else:
                undo.puts[key] = row.value
        try:
            if not undo.is_empty():
                await self.remote.commit(undo)
        except TxnConflict as error:
            log.debug("claims of a refused transaction are somebody else's by now: %s", error.key)
        except StoreUnavailable as error:
            log.error("claims of a refused transaction stay until the next start: %s", error)

    async def _flush(self) -> None:
        """Write what waits, as soon as the store answers: of rows that are as they were. While it was away, others may
        have removed this node for good and taken its addresses, and the store may have done late what it was asked
        before: what should become of that is decided anew (strays.py)."""
        while True:
            await self._has_post.wait()
            await asyncio.sleep(_FLUSH_SECONDS)
            if not self.remote.status().is_connected:
                continue
            post = dict(islice(self._outbox.items(), _FLUSHED_AT_ONCE))
            now = self._as_they_were(post)
            txn = Txn(
                checks={key: row.revision for key, row in now.items() if row is not None},
                puts={key: value for key in now if (value := post[key]) is not None},
                deletes={key for key in now if post[key] is None},
            )
            try:
                if not txn.is_empty():
                    await self.remote.commit(txn)
            except (StoreUnavailable, TxnConflict) as error:
                self.doubts += 1
                log.debug("what was given back still waits: %s", error)
                continue
            self._forget([key for key, value in post.items() if self._outbox.get(key, post) == value])
            if not self._outbox:
                self._has_post.clear()
            log.info("%d rows that waited for the store are written", len(post))

    def _as_they_were(self, post: Iterable[str]) -> dict[str, Row | None]:
        """The rows behind these keys, without those of which one that was decided on together says something else by
        now, or is gone. What this host had not heard of yet is as the others of its commit are."""
        changed = {
            key
            for key, before in self._given_back.items()
            if before is not None and not _says(before, self.remote.get(key))
        }
        return {key: self.remote.get(key) for key in post if not self._together[key] & changed}

    def _keep(self, txn: Txn, before: Mapping[str, Row | None]) -> None:
        """What gives back, until the store answers."""
        for key, row in before.items():
            self._given_back.setdefault(key, row)
            self._together[key] = self._together.get(key, frozenset()) | before.keys()
        self._outbox |= {key: None for key in txn.deletes if key not in txn.puts}
        self._outbox |= txn.puts
        self._log.add(before)
        self._has_post.set()

    def _forget(self, keys: Collection[str]) -> None:
        for key in keys:
            self._outbox.pop(key, None)
            self._given_back.pop(key, None)
            self._together.pop(key, None)
        self._log.add(keys)


def _says(before: Row | None, now: Row | None) -> bool:
    """Whether a row is there and says what it said."""
    return before is not None and now is not None and before.value == now.value
