"""etcd as a store: a commit is one etcd transaction, the mirror follows one watch, a session is a lease.

A key's revision is etcd's mod_revision, so checks cost nothing. A watch that ended begins again behind what it told
last, in this process or in the one before (the copy on disk knows), so that a server that comes back is not asked for
everything by everybody; all is read, in parts, only where there is nothing to begin from. A watch that hangs (a
partition without a reset, a member cut off from the others) is noticed by a linearizable read every two seconds, which
only a member in the majority can answer. It is of one key, `last`, which every commit puts: etcd's work for a range
grows with the rows in it, whatever the limit. A commit that only deletes may change no row (what it deletes is gone
already), and who waits to hear of it would wait for ever: it puts another key, `quiet`, of which the watch tells too.
Sources: etcd v3 API reference; "KV API guarantees".
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from collections.abc import AsyncIterator
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
from dari.store.etcd_gateway import Gateway, GatewayError, Json, WatchResult, decode, encode, number
from dari.store.layout import Layout, check_layout, new_layout
from dari.store.replica import Replica, Replicated

log = logging.getLogger(__name__)

_PING_SECONDS = 2.0
_TURNS, _TURN_SECONDS = 10, 0.2
_PAUSE_SECONDS = (0.1, 0.2, 0.5, 1.0)
_LAYOUT, _LAST, _QUIET = "layout", "last", "quiet"
# Between two looks at all keys because the store has moved and our watch has told nothing: others may use it too.
_LOOK_SECONDS = 30.0
# A part of what is read whole: some 5 MB of JSON.
_ROWS_AT_ONCE = 5000
_READ_SECONDS = 30.0
# Who has to read everything again is not alone: they spread over the time in which etcd can tell so many rows to many.
_ROWS_A_SECOND = 20_000
_OUT_OF_RANGE = 11


class Compacted(StoreUnavailable):
    """What was asked for is older than what etcd still knows."""

    def __init__(self) -> None:
        super().__init__("it has thrown away what its watch would begin with")


class EtcdSession:
    """A lease, kept alive while this object is. It has ended when etcd says so, or when its time to live has passed
    without an answer: then the others may have seen it end."""

    def __init__(self, gateway: Gateway, lease: int, ttl: float) -> None:
        self.id = str(lease)
        self._gateway, self._lease, self._ttl = gateway, lease, ttl
        self._ended = asyncio.Event()
        self._deadline = time.monotonic() + ttl
        self._task = asyncio.create_task(self._keep())

    def is_alive(self) -> bool:
        return not self._ended.is_set() and time.monotonic() < self._deadline

    async def ended(self) -> None:
        await self._ended.wait()

    async def close(self) -> None:
        self._task.cancel()
        if self._ended.is_set():
            return
        self._ended.set()
        try:
            await self._gateway.call("/v3/lease/revoke", {"ID": self._lease})
        except StoreUnavailable as error:
            log.info("a session could not be ended, it runs out in %.0f s: %s", self._ttl, error)

    async def abandon(self) -> None:
        self._task.cancel()
        self._ended.set()

    async def _keep(self) -> None:
        while time.monotonic() < self._deadline:
            await asyncio.sleep(max(min(self._ttl / 3, self._deadline - time.monotonic()), 0))
            asked = time.monotonic()
            try:
                answer = await self._gateway.call("/v3/lease/keepalive", {"ID": self._lease}, self._ttl / 2)
            except StoreUnavailable as error:
                log.debug("keeping a session alive: %s", error)
                continue
            if number(answer.get("result", answer).get("TTL")) <= 0:
                break
            self._deadline = asked + self._ttl
        self._ended.set()


class EtcdStore(Replicated):
    """See `base.Store`. It connects in the background and never gives up; `whole()` waits for the first reading.

    `cluster_id`: refuse a store that says it is another cluster's ("" = take the one that is there).
    """

    def __init__(self, address: StoreAddress) -> None:
        self._gateway = Gateway(address)
        self._top = f"{address.prefix}/rows/"
        self._meta = f"{address.prefix}/{_LAYOUT}"
        self._last = encode(f"{address.prefix}/{_LAST}")
        self._quiet = encode(f"{address.prefix}/{_QUIET}")
        super().__init__(Replica(address.url, address.copy_path))
        # etcd's own cluster, and the revision up to which all of its rows are known here.
        self._etcd, self._seen = parse_mark(self._replica.mark)
        # The revision that has to be seen before the mirror is as new as the store was when the watch began.
        self._goal = 0
        self._heard = 0
        self._follower = asyncio.create_task(self._follow())

    @tells_away
    async def commit(self, txn: Txn) -> int:
        self._require_layout()
        deletes = txn.deletes - txn.puts.keys()
        lease = {"lease": txn.session_id} if txn.session_id else {}
        body: Json = {
            "compare": [
                {
                    "key": self._key(key),
                    "target": "MOD",
                    "result": "EQUAL",
                    "modRevision": str(revision),
                }
                for key, revision in txn.checks.items()
            ],
            "success": [
                *(
                    {"requestPut": {"key": self._key(key), "value": encode(value), **lease}}
                    for key, value in txn.puts.items()
                ),
                *({"requestDeleteRange": {"key": self._key(key)}} for key in deletes),
                *([{"requestPut": {"key": self._last}}] if txn.puts or deletes else []),
                *([{"requestPut": {"key": self._quiet}}] if deletes and not txn.puts else []),
            ],
            # What is there instead comes with the refusal, so that the next try starts from the truth.
            "failure": [{"requestRange": {"key": self._key(key)}} for key in txn.checks],
        }
        try:
            answer = await self._gateway.call("/v3/kv/txn", body)
        except GatewayError as error:
            if "too many operations" in str(error):
                count = max(len(txn.checks), len(txn.puts) + len(deletes) + 2)
                raise NotDone(
                    f"{error} ({count} in one transaction): start etcd with --max-txn-ops={2 * count}"
                ) from error
            if "requested lease not found" in str(error):
                raise NotDone(f"{error}: the session has ended") from error
            raise
        revision = number(answer["header"].get("revision"))
        if not answer.get("succeeded"):
            raise TxnConflict(self._learn(txn, answer, revision))
        self._replica.committed(txn.puts, deletes, revision)
        return revision

    @tells_away
    async def refresh(self, prefix: str) -> None:
        rows, revision = await self._read(self._top + prefix)
        gone = {key: revision for key in self.read(prefix) if key not in rows}
        self._replica.seen(rows, gone)

    async def session(self, ttl: float) -> Session:
        answer = await self._gateway.call("/v3/lease/grant", {"TTL": str(max(int(ttl + 0.999), 1))})
        return EtcdSession(self._gateway, number(answer["ID"]), float(number(answer["TTL"])))

    async def close(self) -> None:
        self._follower.cancel()
        await asyncio.gather(self._follower, return_exceptions=True)
        self._replica.close()
        await self._gateway.close()

    def _require_layout(self) -> None:
        """Nothing is written to a store before it was seen to be ours."""
        status = self.status()
        if not status.is_connected:
            raise StoreAway(status.url, status.reason)

    def _learn(self, txn: Txn, answer: Json, revision: int) -> str:
        """Put what a refused transaction told into the mirror; the first key that was not as expected."""
        failed = next(iter(txn.checks))
        is_found = False
        for (key, expected), response in zip(txn.checks.items(), answer.get("responses", ()), strict=False):
            kvs = response.get("response_range", {}).get("kvs", ())
            found = number(kvs[0].get("mod_revision")) if kvs else ABSENT
            if found != expected and not is_found:
                failed, is_found = key, True
            if kvs:
                self._replica.seen({key: Row(decode(kvs[0].get("value")), found)}, {})
            else:
                self._replica.seen({}, {key: revision})
        return failed

    def _key(self, key: str) -> str:
        return encode(self._top + key)

    async def _follow(self) -> None:
        """Know everything, then watch, for ever. The pauses grow while the store stays away, and differ."""
        failures = 0
        while True:
            try:
                await self._begin()
                failures = 0
                await self._watch_from(self._seen + 1)
            except Compacted:
                self._seen = 0
                await asyncio.sleep(random.random() * len(self._replica.mirror) / _ROWS_A_SECOND)
                continue
            except StoreUnavailable as error:
                self._replica.disconnected(str(error))
                if failures or not isinstance(error, GatewayError):
                    self._gateway.move_on()
            except Exception as error:
                log.exception("following the store %s", self.status().url)
                self._replica.disconnected(str(error))
            pause = _PAUSE_SECONDS[min(failures, len(_PAUSE_SECONDS) - 1)]
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            failures += 1

    async def _begin(self) -> None:
        """Have something a watch can begin behind: what is known, or everything."""
        await self._ensure_layout()
        last = await self._gateway.range({"key": self._last})
        if self._etcd != last.header.cluster_id or not 0 < self._seen <= last.header.revision:
            self._etcd, self._seen = last.header.cluster_id, 0
        if not self._seen:
            rows, revision = await self._read(self._top)
            self._replica.replace(rows, revision)
            self._see(revision)
        self._goal = last.kvs[0].mod_revision if last.kvs else 0
        self._arrive()

    def _see(self, revision: int) -> None:
        self._seen = max(self._seen, revision)
        self._replica.passed(self._seen)
        self._replica.mark = f"{self._etcd}:{self._seen}"

    def _arrive(self) -> None:
        """Connected is who knows what the store knew when the watch began."""
        if self._seen >= self._goal:
            self._replica.caught_up()
            self._replica.connected()

    async def _read(self, prefix: str) -> tuple[dict[str, Row], int]:
        """All rows below `prefix` as they were at one revision, and that revision. In parts, so that neither side
        holds all of it as JSON. Raises Compacted where that takes longer than etcd remembers."""
        rows: dict[str, Row] = {}
        asked: Json = {**_range(prefix), "limit": str(_ROWS_AT_ONCE)}
        revision, skip = 0, len(self._top)
        while True:
            try:
                answer = await self._gateway.range(asked, _READ_SECONDS)
            except GatewayError as error:
                if error.code == _OUT_OF_RANGE:
                    raise Compacted from error
                raise
            revision = revision or answer.header.revision
            for each in answer.kvs:
                rows[each.key.decode()[skip:]] = Row(each.value, each.mod_revision)
            if not answer.more or not answer.kvs:
                return rows, revision
            # At a revision of the past every member tells the same, without asking the others.
            asked |= {
                "key": encode(answer.kvs[-1].key + b"\0"),
                "revision": str(revision),
                "serializable": True,
            }

    async def _ensure_layout(self) -> None:
        """Raises StoreRefused where the store is another cluster's or of another layout; makes it ours where empty."""
        asked = {"key": encode(self._meta)}
        answer = await self._gateway.call("/v3/kv/range", asked)
        if not answer.get("kvs"):
            fresh = new_layout(self._replica.cluster_id or uuid4().hex)
            await self._gateway.call(
                "/v3/kv/txn",
                {
                    "compare": [
                        {"key": asked["key"], "target": "MOD", "result": "EQUAL", "modRevision": "0"}
                    ],
                    "success": [{"requestPut": {**asked, "value": encode(msgspec.json.encode(fresh))}}],
                },
            )
            answer = await self._gateway.call("/v3/kv/range", asked)
        found: Layout = check_layout(
            decode(answer["kvs"][0].get("value")), self.status().url, self._replica.cluster_id
        )
        if not self._replica.cluster_id:
            self._replica.adopt_cluster(found.cluster)

    async def _watch_from(self, revision: int) -> None:
        """Follow until the watch ends or lags behind. Raises StoreUnavailable, Compacted."""
        request = {
            "create_request": {
                # In key order: `last`, the layout, `quiet`, all rows.
                "key": self._quiet,
                "range_end": encode(_end(self._top)),
                "start_revision": str(revision),
                "progress_notify": True,
            }
        }
        reader = asyncio.create_task(self._take(self._gateway.watch(request)))
        pinger = asyncio.create_task(self._ping())
        try:
            done, _ = await asyncio.wait({reader, pinger}, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            reader.cancel()
            pinger.cancel()
            await asyncio.gather(reader, pinger, return_exceptions=True)
        raise StoreUnavailable("its watch ended")

    async def _take(self, stream: AsyncIterator[WatchResult]) -> None:
        top, skip = self._top, len(self._top)
        async for result in stream:
            self._heard += 1
            if result.compact_revision:
                raise Compacted
            if result.canceled:
                raise StoreUnavailable(f"its watch was cancelled: {result.cancel_reason}")
            if not result.events:
                # What it says when it begins is not how far it has told; progress is told when all is.
                continue
            puts: dict[str, Row] = {}
            deletes: dict[str, int] = {}
            for event in result.events:
                kv = event.kv
                name = kv.key.decode()
                if not name.startswith(top):
                    continue
                key = name[skip:]
                if event.type == "DELETE":
                    puts.pop(key, None)
                    deletes[key] = kv.mod_revision
                else:
                    deletes.pop(key, None)
                    puts[key] = Row(kv.value, kv.mod_revision)
            self._replica.seen(puts, deletes)
            # The header may be ahead of the events; those of one revision come together.
            self._see(result.events[-1].kv.mod_revision)
            if self._goal:
                self._arrive()

    async def _ping(self) -> None:
        """A read only the majority can answer. What had been committed a turn ago and has not come by the watch: the
        watch hangs. Where the store has moved without a commit (a session ended, or others write there too), and once
        when a watch has begun, all keys are looked at."""
        committed, moved, looked = 0, sys.maxsize, -_LOOK_SECONDS
        while True:
            await asyncio.sleep(_PING_SECONDS)
            heard = self._heard
            try:
                answer = await self._gateway.range({"key": self._last})
            except StoreUnavailable:
                if heard == self._heard:
                    raise
                # We had no time for the answer, or the store has much to do; it tells us what changes.
                continue
            if self._seen < committed and not await self._hears():
                raise StoreUnavailable("its watch hangs")
            if self._goal <= self._seen < moved and time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                if await self._lacks_rows():
                    self._seen = 0
                    raise StoreUnavailable("it has other rows than its watch told")
            committed = answer.kvs[0].mod_revision if answer.kvs else 0
            moved = answer.header.revision
            if self._seen >= self._goal:
                self._replica.connected()

    async def _lacks_rows(self) -> bool:
        """Whether the store has more or fewer rows than the mirror, and its watch does not tell why."""
        heard = self._heard
        answer = await self._gateway.range({**_range(self._top), "count_only": True}, _READ_SECONDS)
        if answer.count == len(self._replica.mirror) or await self._hears(heard):
            return False
        return answer.count != len(self._replica.mirror)

    async def _hears(self, since: int | None = None) -> bool:
        """Whether the watch still tells something (or has, since it had told `since` times). A daemon that had no time
        to listen is behind as well, and reading everything again would leave it even less."""
        heard = self._heard if since is None else since
        for _ in range(_TURNS):
            await asyncio.sleep(_TURN_SECONDS)
            if self._heard != heard:
                return True
        return False


def _range(prefix: str) -> Json:
    return {"key": encode(prefix), "range_end": encode(_end(prefix))}


def _end(prefix: str) -> str:
    """The first key behind all that start with `prefix`."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def parse_mark(text: str) -> tuple[str, int]:
    """etcd's cluster and the revision that a copy of the rows was taken at; nothing where there is none."""
    cluster, _, revision = text.rpartition(":")
    return (cluster, int(revision)) if cluster and revision.isdigit() else ("", 0)
