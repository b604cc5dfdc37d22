"""etcd as a store: a commit is one etcd transaction, the mirror follows one watch, a session is a lease.

A key's revision is etcd's mod_revision, so checks cost nothing. A watch that hangs (a partition without a reset, a
member cut off from the others) is noticed by a linearizable read every two seconds, which only a member in the
majority can answer. Sources: etcd v3 API reference; "KV API guarantees".
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import msgspec

from dari.store.address import StoreAddress
from dari.store.base import ABSENT, Row, Session, StoreUnavailable, Txn, TxnConflict
from dari.store.etcd_gateway import Gateway, GatewayError, Json, decode, encode, number
from dari.store.layout import Layout, check_layout, new_layout
from dari.store.replica import Replica, Replicated

log = logging.getLogger(__name__)

_PING_SECONDS = 2.0
_TURNS, _TURN_SECONDS = 10, 0.2
_PAUSE_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)
_LAYOUT = "layout"


class Compacted(Exception):
    """The watch asked for what etcd has thrown away."""


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
        super().__init__(Replica(address.url, address.copy_path))
        self._seen = 0
        self._heard = 0
        self._follower = asyncio.create_task(self._follow())

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
            ],
            # What is there instead comes with the refusal, so that the next try starts from the truth.
            "failure": [{"requestRange": {"key": self._key(key)}} for key in txn.checks],
        }
        try:
            answer = await self._gateway.call("/v3/kv/txn", body)
        except GatewayError as error:
            if "too many operations" in str(error):
                count = max(len(txn.checks), len(txn.puts) + len(deletes))
                raise StoreUnavailable(
                    f"{error} ({count} in one transaction): start etcd with --max-txn-ops={2 * count}"
                ) from error
            if "requested lease not found" in str(error):
                raise StoreUnavailable(f"{error}: the session has ended") from error
            raise
        revision = number(answer["header"].get("revision"))
        if not answer.get("succeeded"):
            raise TxnConflict(self._learn(txn, answer, revision))
        self._replica.committed(txn.puts, deletes, revision)
        return revision

    async def refresh(self, prefix: str) -> None:
        answer = await self._gateway.call("/v3/kv/range", _range(self._top + prefix))
        rows = self._rows_of(answer)
        revision = number(answer["header"].get("revision"))
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
            raise StoreUnavailable(f"the store {status.url} is away: {status.reason}")

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
        """Read everything, then watch, for ever. The pauses grow while the store stays away."""
        failures = 0
        while True:
            try:
                revision = await self._read_whole()
                failures = 0
                await self._watch_from(revision + 1)
            except Compacted:
                continue
            except StoreUnavailable as error:
                self._replica.disconnected(str(error))
                if failures or not isinstance(error, GatewayError):
                    self._gateway.move_on()
            except Exception as error:
                log.exception("following the store %s", self.status().url)
                self._replica.disconnected(str(error))
            await asyncio.sleep(_PAUSE_SECONDS[min(failures, len(_PAUSE_SECONDS) - 1)])
            failures += 1

    async def _read_whole(self) -> int:
        await self._ensure_layout()
        answer = await self._gateway.call("/v3/kv/range", _range(self._top), seconds=30.0)
        revision = number(answer["header"].get("revision"))
        self._replica.replace(self._rows_of(answer), revision)
        self._seen = revision
        self._replica.connected()
        return revision

    def _rows_of(self, answer: Json) -> dict[str, Row]:
        return {
            decode(kv["key"]).decode().removeprefix(self._top): Row(
                decode(kv.get("value")), number(kv["mod_revision"])
            )
            for kv in answer.get("kvs", ())
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
            "create_request": {**_range(self._top), "start_revision": str(revision), "progress_notify": True}
        }
        stream = self._gateway.stream("/v3/watch", request)
        reader = asyncio.create_task(self._take(stream))
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

    async def _take(self, stream: AsyncIterator[Json]) -> None:
        async for result in stream:
            self._heard += 1
            if number(result.get("compact_revision")):
                raise Compacted
            if result.get("canceled"):
                raise StoreUnavailable(f"its watch was cancelled: {result.get('cancel_reason', '')}")
            revision = number(result.get("header", {}).get("revision"))
            puts: dict[str, Row] = {}
            deletes: dict[str, int] = {}
            for event in result.get("events", ()):
                kv = event["kv"]
                key = decode(kv["key"]).decode().removeprefix(self._top)
                changed = number(kv["mod_revision"])
                if event.get("type") == "DELETE":
                    puts.pop(key, None)
                    deletes[key] = changed
                else:
                    deletes.pop(key, None)
                    puts[key] = Row(decode(kv.get("value")), changed)
            self._replica.seen(puts, deletes)
            self._seen = max(self._seen, revision)
            self._replica.passed(self._seen)

    async def _ping(self) -> None:
        """A read only the majority can answer. What it said a turn ago has not come by the watch: the watch hangs."""
        newest, count = 0, len(self._replica.mirror)
        while True:
            await asyncio.sleep(_PING_SECONDS)
            asked = {"key": encode(self._top), "range_end": encode(_end(self._top)), "limit": "1",
                     "sort_target": "MOD", "sort_order": "DESCEND", "keys_only": True}  # fmt: skip
            answer = await self._gateway.call("/v3/kv/range", asked)
            now = number(answer.get("count"))
            is_behind = self._seen < newest or (now == count and now != len(self._replica.mirror))
            if is_behind and not await self._hears():
                raise StoreUnavailable("its watch hangs")
            count = now
            kvs = answer.get("kvs")
            newest = number(kvs[0].get("mod_revision")) if kvs else 0
            self._replica.connected()

    async def _hears(self) -> bool:
        """Whether the watch still tells something. A daemon that had no time to listen is behind as well, and reading
        everything again would leave it even less."""
        heard = self._heard
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
