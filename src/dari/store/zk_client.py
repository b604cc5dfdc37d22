"""kazoo for one event loop: its results as awaitables, its errors as the store's.

kazoo works in threads of its own; everything here is called from the loop. It is imported when a ZooKeeper store is
opened and not before (67 ms). Source: kazoo's API documentation; ZooKeeper Programmer's Guide.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import (
    AuthFailedError,
    KazooException,
    NoAuthError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.retry import KazooRetry
from kazoo.security import make_digest_acl

from dari.store.address import StoreAddress
from dari.store.base import StoreRefused, StoreUnavailable

logging.getLogger("kazoo").setLevel(logging.CRITICAL)

REQUEST_SECONDS = 4.0


class MultiFailed(Exception):
    """A transaction was refused because of operation `index`: `error` is kazoo's."""

    def __init__(self, index: int, error: KazooException) -> None:
        super().__init__(f"operation {index}: {error!r}")
        self.index = index
        self.error = error


class ZkClient:
    """One ZooKeeper session. `on_state` hears CONNECTED, SUSPENDED or LOST, in the loop."""

    def __init__(self, address: StoreAddress, ttl: float, on_state: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.is_tls = address.is_tls or bool(address.ca or address.cert)
        auth = [("digest", f"{address.user}:{address.password}")] if address.user else None
        acl = [make_digest_acl(address.user, address.password, all=True)] if address.user else None
        self._kazoo = KazooClient(
            hosts=",".join(address.hosts),
            timeout=ttl,
            auth_data=auth,
            default_acl=acl,
            use_ssl=self.is_tls,
            ca=address.ca or None,
            certfile=address.cert or None,
            keyfile=address.key or None,
            connection_retry=KazooRetry(max_tries=-1, delay=0.1, backoff=2, max_delay=1.0),
        )
        self._kazoo.add_listener(lambda state: self._tell(on_state, str(state)))
        self._is_started = False

    def _tell(self, on_state: Callable[[str], None], state: str) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(on_state, state)

    def start(self) -> None:
        """Connect in the background, for ever."""
        self._kazoo.start_async()
        self._is_started = True

    @property
    def is_connected(self) -> bool:
        return bool(self._kazoo.connected)

    @property
    def ttl(self) -> float:
        """The session's time to live, as agreed with the server, in seconds."""
        return float(self._kazoo._session_timeout) / 1000

    @property
    def seen(self) -> int:
        """How far the server had come with its last answer: whatever it answers from now on has all up to that zxid."""
        return int(self._kazoo.last_zxid)

    async def close(self) -> None:
        """End the session: its ephemeral nodes go."""
        if self._is_started:
            self._is_started = False
            await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._kazoo.stop()
        self._kazoo.close()

    async def get(self, path: str, on_change: Callable[[], None] | None = None) -> tuple[bytes, Any] | None:
        """Data and stat; None where there is no such node."""
        found = await self._one(self._kazoo.get_async(path, watch=self._watcher(on_change)), path)
        return None if found is None else (found[0] or b"", found[1])

    async def get_all(self, paths: Iterable[str]) -> list[tuple[bytes, Any] | None]:
        """`get` of many at once, answered in the order the server did them: first to last."""
        asked = [self._kazoo.get_async(path) for path in paths]
        found = [await self._one(each, "") for each in asked]
        return [None if each is None else (each[0] or b"", each[1]) for each in found]

    async def children(self, path: str, on_change: Callable[[], None] | None = None) -> list[str] | None:
        found = await self._one(self._kazoo.get_children_async(path, watch=self._watcher(on_change)), path)
        return None if found is None else list(found)

    async def sync(self, path: str) -> None:
        """Have the server catch up with the leader."""
        await self._wait(self._kazoo.sync_async(path), path)

    async def stat(self, path: str) -> Any | None:
        return await self._one(self._kazoo.exists_async(path), path)

    async def ensure(self, path: str, value: bytes = b"") -> None:
        """Make the node and those above it where they are missing."""
        from kazoo.exceptions import NodeExistsError

        try:
            await self._wait(self._kazoo.create_async(path, value, makepath=True), path)
        except NodeExistsError:
            return

    def multi(self) -> Any:
        return self._kazoo.transaction()

    async def commit(self, transaction: Any) -> list[Any]:
        """The results of its operations. Raises MultiFailed, StoreUnavailable, StoreRefused."""
        if not self.is_connected:
            # kazoo would keep it and send it later, when nobody waits for it any more.
            raise StoreUnavailable("there is no connection")
        results: list[Any] = await self._wait(transaction.commit_async(), "a transaction")
        for index, result in enumerate(results):
            if isinstance(result, NoAuthError):
                raise StoreRefused("no right to write there (user and password?)")
            if isinstance(result, KazooException) and not isinstance(
                result, RolledBackError | RuntimeInconsistency
            ):
                raise MultiFailed(index, result)
        return results

    def _watcher(self, on_change: Callable[[], None] | None) -> Callable[[Any], None] | None:
        if on_change is None:
            return None
        # kazoo tells a watcher of lost connections too; the state listener does that here.
        return lambda event: None if self._loop.is_closed() else self._call(on_change)

    def _call(self, on_change: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(on_change)

    async def _one(self, asked: Any, path: str) -> Any:
        from kazoo.exceptions import NoNodeError

        try:
            return await self._wait(asked, path)
        except NoNodeError:
            return None

    async def _wait(self, asked: Any, what: str) -> Any:
        """Raises StoreUnavailable, StoreRefused; NoNodeError and NodeExistsError as they are."""
        from kazoo.exceptions import NodeExistsError, NoNodeError

        done: asyncio.Future[Any] = self._loop.create_future()

        def settle(value: Any, error: BaseException | None) -> None:
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(value)

        def finished(result: Any) -> None:
            if self._loop.is_closed():
                return
            error = result.exception
            self._loop.call_soon_threadsafe(settle, None if error else result.value, error)

        asked.rawlink(finished)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await done
        except (NoNodeError, NodeExistsError):
            raise
        except TimeoutError as error:
            raise StoreUnavailable(f"it did not answer in time ({what})") from error
        except (NoAuthError, AuthFailedError) as error:
            raise StoreRefused(f"no right to {what} (user and password?)") from error
        except KazooException as error:
            raise StoreUnavailable(f"{type(error).__name__} {error}".rstrip()) from error
