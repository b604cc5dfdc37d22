"""ZooKeeper as a store: a commit is one multi, the mirror follows a log of changed keys, a session is a session.

Below the prefix: `layout`, `rows/<table>/<rest of the key, quoted>`, `log/n-<sequence>` (which keys a transaction
changed; the last few hundred are kept) and `epochs/<table>`. A revision is the node's mzxid. ZooKeeper's check
compares a node's version, which begins anew when a node is deleted and made again; so a transaction that deletes
moves its table's epoch on, and a check compares both. Nodes of a session that died leave no entry in the log: tables
with such nodes are watched themselves. kazoo has no persistent watches, hence the log.
Source: ZooKeeper Programmer's Guide (versions, ephemeral nodes, multi, watches).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote
from uuid import uuid4

import msgspec

from dari.store.address import StoreAddress
from dari.store.base import (
    ABSENT,
    NotDone,
    Row,
    Session,
    StoreAway,
    StoreUnavailable,
    Txn,
    TxnConflict,
    tells_away,
)
from dari.store.layout import check_layout, new_layout
from dari.store.reachable import why_not
from dari.store.replica import Replica, Replicated
from dari.store.zk_client import MultiFailed, ZkClient

log = logging.getLogger(__name__)

_SESSION_SECONDS = 10.0
# Until somebody looks why there is none.
_LOOK_SECONDS = 3.0
_TRIES = 12
_KEPT = 256
_PAUSE_SECONDS = (0.1, 0.2, 0.5, 1.0)
_READ_AT_ONCE = 500
_NOTHING = "-"


@dataclass(frozen=True, slots=True)
class _Node:
    """What a check needs: the node's version, and its table's epoch from before the node was read."""

    version: int
    epoch: int
    is_ephemeral: bool


class ZkSession:
    """A ZooKeeper session of its own. It has ended when the server says so, or when nothing was heard for its time to
    live."""

    def __init__(self, address: StoreAddress, ttl: float) -> None:
        self.id = uuid4().hex
        self._ended = asyncio.Event()
        self._connected = asyncio.Event()
        self._countdown: asyncio.TimerHandle | None = None
        self.is_abandoned = False
        self.client = ZkClient(address, ttl, self._heard)
        self.client.start()

    async def connected(self, seconds: float) -> None:
        """Raises StoreUnavailable where no server answers in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._connected.wait()
        except TimeoutError as error:
            raise StoreUnavailable("no server took the session in time") from error

    def is_alive(self) -> bool:
        return not self._ended.is_set()

    async def ended(self) -> None:
        await self._ended.wait()

    async def close(self) -> None:
        self._end()
        await self.client.close()

    async def abandon(self) -> None:
        """kazoo can only end a session; so nothing is said, and its threads go with this process."""
        self._end()
        self.is_abandoned = True

    def _heard(self, state: str) -> None:
        if self._countdown is not None:
            self._countdown.cancel()
            self._countdown = None
        if state == "CONNECTED":
            self._connected.set()
        elif state == "LOST":
            if self._connected.is_set():
                self._end()
        elif not self._ended.is_set():
            self._countdown = asyncio.get_running_loop().call_later(self.client.ttl, self._end)

    def _end(self) -> None:
        if self._countdown is not None:
            self._countdown.cancel()
        self._ended.set()


class ZooKeeperStore(Replicated):
    """See `base.Store`. It connects in the background and never gives up; `whole()` waits for the first reading."""

    def __init__(self, address: StoreAddress) -> None:
        self._address = address
        self._rows = f"{address.prefix}/rows"
        self._log = f"{address.prefix}/log"
        self._epochs = f"{address.prefix}/epochs"
        self._meta = f"{address.prefix}/layout"
        super().__init__(Replica(address.url, address.copy_path))
        self._nodes: dict[str, _Node] = {}
        self._known_epochs: dict[str, int] = {}
        self._tables: set[str] = set()
        self._mortal: set[str] = set()  # tables that have had nodes of sessions
        self._dirty_tables: set[str] = set()
        self._last = ""
        self._sessions: dict[str, ZkSession] = {}
        self._news = asyncio.Event()
        self._is_fresh = False  # connected, and everything read since
        self._generation = 0
        self._client = ZkClient(address, _SESSION_SECONDS, self._heard)
        self._client.start()
        self._follower = asyncio.create_task(self._follow())
        self._looker = asyncio.create_task(self._say_why())

    async def session(self, ttl: float) -> Session:
        made = ZkSession(self._address, ttl)
        try:
            await made.connected(_SESSION_SECONDS)
        except BaseException:
            await made.close()
            raise
        self._sessions = {id: each for id, each in self._sessions.items() if each.is_alive()}
        self._sessions[made.id] = made
        return made

    @tells_away
    async def refresh(self, prefix: str) -> None:
        """A server may be behind: it is made to catch up with the leader first."""
        self._require_connection()
        table = _table(prefix)
        await self._client.sync(self._rows)
        here = await self._client.children(f"{self._rows}/{table}") or []
        now = {_join(table, rest) for rest in here}
        await self._look({key for key in now | set(self.read(prefix)) if key.startswith(prefix)})

    async def close(self) -> None:
        working = (self._follower, self._looker)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        for each in self._sessions.values():
            if not each.is_abandoned:
                await each.close()
        await self._client.close()
        self._replica.close()

    def _require_connection(self) -> None:
        """Else kazoo would keep what is asked, and nobody be told why."""
        status = self.status()
        if not status.is_connected:
            raise StoreAway(status.url, status.reason)

    @tells_away
    async def commit(self, txn: Txn) -> int:
        self._require_connection()
        deletes = txn.deletes - txn.puts.keys()
        # What somebody else made a moment ago is not known here yet, and is deleted all the same.
        await self._look([key for key in deletes if self.get(key) is None])
        await self._ensure_tables(_table(key) for key in (*txn.puts, *deletes, *txn.checks))
        client = self._client
        if txn.session_id:
            session = self._sessions.get(txn.session_id)
            if session is None or not session.is_alive():
                raise NotDone("the session has ended")
            client = session.client
        for _ in range(_TRIES):
            await self._check_mirror(txn)
            work = _Work(self, client.multi(), txn, deletes)
            work.write()
            try:
                results = await client.commit(work.multi)
            except MultiFailed as failure:
                # The mirror was behind: look at what is there and try again, or lose the race for good.
                log.debug("%s in %s", failure, work.about)
                await self._look(work.about[failure.index])
                continue
            return await self._done(txn, deletes, work, results)
        raise TxnConflict(next(iter(txn.checks), next(iter(txn.puts), "")))

    async def _check_mirror(self, txn: Txn) -> None:
        """Raises TxnConflict where a key is not as expected, once the mirror has been brought up to date on it."""
        for key, expected in txn.checks.items():
            if self._revision(key) != expected:
                await self._look([key])
                if self._revision(key) != expected:
                    raise TxnConflict(key)

    def _revision(self, key: str) -> int:
        row = self.get(key)
        return row.revision if row is not None else ABSENT

    async def _done(self, txn: Txn, deletes: set[str], work: _Work, results: list[Any]) -> int:
        revision = await self._revision_of(results)
        for index, table in work.bumps.items():
            self._known_epochs[table] = max(self._known_epochs.get(table, 0), results[index].version)
        for key, index in work.put_at.items():
            result = results[index]
            version = result.version if not isinstance(result, str) else 0
            epoch = self._known_epochs.get(_table(key), 0)
            if _table(key) not in work.bumps.values():
                known = self._nodes.get(key)
                epoch = known.epoch if known is not None else epoch
            self._nodes[key] = _Node(version, epoch, bool(txn.session_id))
        for key in deletes:
            self._nodes.pop(key, None)
        if txn.session_id:
            self._watch_mortal(_table(key) for key in txn.puts)
        self._replica.committed(txn.puts, deletes, revision)
        return revision

    async def _revision_of(self, results: list[Any]) -> int:
        """All operations of a multi have one zxid; a written node's stat tells it, a made one has to be asked."""
        for result in results:
            if hasattr(result, "mzxid"):
                return int(result.mzxid)
        entry = next(each for each in reversed(results) if isinstance(each, str))
        stat = await self._client.stat(entry)
        if stat is None:
            raise StoreUnavailable(f"{self._address.url}: the log entry of a transaction is gone")
        return int(stat.czxid)

    async def _ensure_tables(self, tables: Iterable[str]) -> None:
        for table in dict.fromkeys(tables):
            if table not in self._tables:
                # In this order: whoever finds the table need not ask whether its epoch was made, too.
                await self._client.ensure(f"{self._epochs}/{table}")
                await self._client.ensure(f"{self._rows}/{table}")
                self._tables.add(table)

    def node_path(self, key: str) -> str:
        table, rest = _split(key)
        return f"{self._rows}/{table}/{rest}"

    def epoch_path(self, table: str) -> str:
        return f"{self._epochs}/{table}"

    @property
    def log_path(self) -> str:
        return f"{self._log}/n-"

    def known(self, key: str) -> _Node | None:
        return self._nodes.get(key) if self.get(key) is not None else None

    # What follows keeps the mirror up to date.

    def _heard(self, state: str) -> None:
        self._is_fresh = False
        self._generation += 1
        if state != "CONNECTED":
            self._replica.disconnected(
                "no server answers" if state == "SUSPENDED" else "the session was lost"
            )
        self._news.set()

    def _tell_log(self) -> None:
        self._news.set()

    def _watch_mortal(self, tables: Iterable[str]) -> None:
        fresh = set(tables) - self._mortal
        self._mortal |= fresh
        self._dirty_tables |= fresh
        if fresh:
            self._news.set()

    def _tell_table(self, table: str) -> None:
        self._dirty_tables.add(table)
        self._news.set()

    async def _say_why(self) -> None:
        """kazoo only tells that it has no session: find out what is in the way, as long as that is so."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._client.is_connected:
                continue
            port = "clientPort" if self._client.is_tls else "secureClientPort"
            hint = f"takes connections and no session: is it ZooKeeper, and not its {port}?"
            reason = await why_not(self._address, hint)
            if not self._client.is_connected:
                self._replica.disconnected(f"no server takes a session ({reason})")

    async def _follow(self) -> None:
        failures = 0
        while True:
            await self._news.wait()
            self._news.clear()
            if not self._client.is_connected:
                continue
            try:
                if not self._is_fresh:
                    await self._read_whole()
                else:
                    await self._read_news()
                failures = 0
            except StoreUnavailable as error:
                self._replica.disconnected(str(error))
                self._is_fresh = False
            except Exception as error:
                log.exception("following the store %s", self._address.url)
                self._replica.disconnected(str(error))
                self._is_fresh = False
            if not self._is_fresh:
                await asyncio.sleep(_PAUSE_SECONDS[min(failures, len(_PAUSE_SECONDS) - 1)])
                failures += 1
                self._news.set()

    async def _read_whole(self) -> None:
        generation = self._generation
        await self._ensure_layout()
        for path in (self._rows, self._log, self._epochs):
            await self._client.ensure(path)
        # The log is watched before the rows are read: what changes meanwhile is told again.
        entries = await self._client.children(self._log, self._tell_log) or []
        last, newest = max(entries, default=""), self._client.seen
        keys: list[str] = []
        for table in await self._client.children(self._rows) or []:
            self._tables |= await self._read_epochs([table])
            keys += [
                _join(table, rest) for rest in await self._client.children(f"{self._rows}/{table}") or []
            ]
        rows, _ = await self._fetch(keys)
        self._replica.replace(rows, newest)
        self._nodes = {key: node for key, node in self._nodes.items() if self.get(key) is not None}
        self._last = last
        self._dirty_tables |= self._mortal
        if generation == self._generation:
            self._is_fresh = True
            self._replica.connected()
        self._news.set()

    async def _read_news(self) -> None:
        """The keys that the log and the tables of sessions' nodes say have changed."""
        entries = sorted(await self._client.children(self._log, self._tell_log) or [])
        fresh = [entry for entry in entries if entry > self._last]
        is_gap = bool(self._last) and bool(fresh) and self._last not in entries and entries[0] == fresh[0]
        if is_gap:
            # We slept for longer than the log remembers.
            self._is_fresh = False
            return
        keys: dict[str, None] = {}
        for found in await self._client.get_all(f"{self._log}/{entry}" for entry in fresh):
            if found is None:
                self._is_fresh = False
                return
            keys.update(dict.fromkeys(msgspec.json.decode(found[0], type=list[str])))
        tables, self._dirty_tables = self._dirty_tables, set()
        for table in tables:
            here = await self._client.children(
                f"{self._rows}/{table}",
                lambda table=table: self._tell_table(table),  # type: ignore[misc]
            )
            known = set(self.read(f"{table}/"))
            now = {_join(table, rest) for rest in here or []}
            keys.update(dict.fromkeys(known ^ now))
        await self._look(keys)
        if fresh:
            self._last = fresh[-1]
            await self._trim(entries)

    async def _trim(self, entries: list[str]) -> None:
        """Whoever sees the log at twice its length cuts it."""
        if len(entries) < 2 * _KEPT:
            return
        multi = self._client.multi()
        for entry in entries[:-_KEPT]:
            multi.delete(f"{self._log}/{entry}")
        try:
            await self._client.commit(multi)
        except MultiFailed as failure:
            log.debug("somebody else cuts the log: %s", failure)

    async def _look(self, keys: Iterable[str]) -> None:
        """Read these keys again and tell the mirror."""
        asked = list(keys)
        if not asked:
            return
        await self._read_epochs(dict.fromkeys(_table(key) for key in asked))
        rows, revision = await self._fetch(asked)
        gone = {key: max(revision, self._revision(key)) for key in asked if key not in rows}
        for key in gone:
            self._nodes.pop(key, None)
        self._replica.seen(rows, gone)

    async def _read_epochs(self, tables: Iterable[str]) -> set[str]:
        """The tables that have one."""
        names = list(tables)
        found = await self._client.get_all(self.epoch_path(table) for table in names)
        for table, each in zip(names, found, strict=True):
            self._known_epochs[table] = each[1].version if each is not None else 0
        return {table for table, each in zip(names, found, strict=True) if each is not None}

    async def _fetch(self, keys: list[str]) -> tuple[dict[str, Row], int]:
        rows: dict[str, Row] = {}
        newest = 0
        for start in range(0, len(keys), _READ_AT_ONCE):
            part = keys[start : start + _READ_AT_ONCE]
            epochs = dict(self._known_epochs)
            for key, found in zip(
                part, await self._client.get_all(self.node_path(key) for key in part), strict=True
            ):
                if found is None:
                    continue
                value, stat = found
                newest = max(newest, int(stat.mzxid))
                rows[key] = Row(value, int(stat.mzxid))
                known = self.get(key)
                if known is None or known.revision <= stat.mzxid:
                    is_mortal = bool(stat.ephemeralOwner)
                    self._nodes[key] = _Node(stat.version, epochs.get(_table(key), 0), is_mortal)
                    if is_mortal:
                        self._watch_mortal([_table(key)])
        return rows, newest

    async def _ensure_layout(self) -> None:
        found = await self._client.get(self._meta)
        if found is None:
            fresh = new_layout(self._replica.cluster_id or uuid4().hex)
            await self._client.ensure(self._meta, msgspec.json.encode(fresh))
            found = await self._client.get(self._meta)
        if found is None:
            raise StoreUnavailable(f"{self._address.url}: the layout is gone again")
        layout = check_layout(found[0], self._address.url, self._replica.cluster_id)
        if not self._replica.cluster_id:
            self._replica.adopt_cluster(layout.cluster)


class _Work:
    """A multi being written: `about[i]` are the keys operation i was about, `put_at[key]` the operation that puts it,
    `bumps` the operations that move a table's epoch on."""

    def __init__(self, store: ZooKeeperStore, multi: Any, txn: Txn, deletes: set[str]) -> None:
        self._store, self.multi, self._txn, self._deletes = store, multi, txn, deletes
        self.about: list[list[str]] = []
        self.put_at: dict[str, int] = {}
        self.bumps: dict[int, str] = {}

    def write(self) -> None:
        self._checks()
        moved: dict[str, None] = {}
        for key, value in self._txn.puts.items():
            self._put(key, value, moved)
        for key in self._deletes:
            if self._store.known(key) is not None:
                self._did([key])
                self.multi.delete(self._store.node_path(key))
                moved[_table(key)] = None
        for table in moved:
            self.bumps[self._did([])] = table
            self.multi.set_data(self._store.epoch_path(table), b"")
        changed = [*self._txn.puts, *self._deletes]
        self._did([])
        self.multi.create(self._store.log_path, msgspec.json.encode(changed), sequence=True)

    def _checks(self) -> None:
        epochs: dict[tuple[str, int], list[str]] = {}
        for key, expected in self._txn.checks.items():
            path = self._store.node_path(key)
            if expected == ABSENT:
                if key not in self._txn.puts:
                    # There is no check for absence: making it and taking it back is one.
                    for operation in (self.multi.create, self.multi.delete):
                        self._did([key])
                        operation(path)
                continue
            node = self._store.known(key)
            if node is None:
                raise TxnConflict(key)
            self._did([key])
            self.multi.check(path, node.version)
            epochs.setdefault((_table(key), node.epoch), []).append(key)
        for (table, epoch), keys in epochs.items():
            self._did(keys)
            self.multi.check(self._store.epoch_path(table), epoch)

    def _put(self, key: str, value: bytes, moved: dict[str, None]) -> None:
        path, node = self._store.node_path(key), self._store.known(key)
        is_mortal = bool(self._txn.session_id)
        is_new = node is None or self._txn.checks.get(key) == ABSENT
        if not is_new and (is_mortal or (node is not None and node.is_ephemeral)):
            # A node's owner is decided when it is made.
            self._did([key])
            self.multi.delete(path)
            is_new = True
            moved[_table(key)] = None
        if is_mortal:
            moved[_table(key)] = None
        self.put_at[key] = self._did([key])
        if is_new:
            self.multi.create(path, value, ephemeral=is_mortal)
        else:
            self.multi.set_data(path, value)

    def _did(self, keys: list[str]) -> int:
        self.about.append(keys)
        return len(self.about) - 1


def _split(key: str) -> tuple[str, str]:
    table, slash, rest = key.partition("/")
    return quote(table, safe="") or _NOTHING, ("=" + quote(rest, safe=":@+,")) if slash else _NOTHING


def _join(table: str, rest: str) -> str:
    name = unquote(table)
    return name if rest == _NOTHING else f"{name}/{unquote(rest[1:])}"


def _table(key: str) -> str:
    return _split(key)[0]
