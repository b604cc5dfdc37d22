"""The streams of containers: those of the running process, of the next run, and what the log kept.

Must not know: HTTP, frames. Source: Docker Engine API v1.51, `ContainerAttach`, `ContainerLogs`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Protocol

from dari.engine import logs
from dari.engine.base import Engine
from dari.engine.logs import LogEntry, LogQuery
from dari.engine.lookup import find_container
from dari.model.container import Container
from dari.model.errors import Conflict, NotFound
from dari.reconcile.containers import is_alive
from dari.reconcile.journal import announce
from dari.reconcile.rows import event
from dari.runtime.launch import Stdio

_EXIT_SECONDS = 2.0


class Streams(Protocol):
    """See `runtime.launch.Stdio`."""

    async def read(self) -> tuple[int, bytes] | None: ...
    async def write(self, data: bytes) -> None: ...
    async def close_stdin(self) -> None: ...
    def close(self) -> None: ...


class NextRun:
    """The streams of a container that does not run yet; they begin with its next start.

    Reading waits for that start; it ends without a byte where the container is removed before.
    """

    def __init__(self, coming: asyncio.Future[Stdio]) -> None:
        self._coming = coming
        self._is_closed = False

    async def _stdio(self) -> Stdio | None:
        try:
            return await asyncio.shield(self._coming)
        except asyncio.CancelledError:
            if self._coming.cancelled():
                return None
            raise

    async def read(self) -> tuple[int, bytes] | None:
        stdio = await self._stdio()
        return None if stdio is None else await stdio.read()

    async def write(self, data: bytes) -> None:
        stdio = await self._stdio()
        if stdio is None:
            raise BrokenPipeError("the container was removed before it started")
        await stdio.write(data)

    async def close_stdin(self) -> None:
        stdio = await self._stdio()
        if stdio is not None:
            await stdio.close_stdin()

    def close(self) -> None:
        if self._coming.done() and not self._coming.cancelled():
            self._coming.result().close()
        else:
            self._coming.cancel()


class UntilExit:
    """Streams that end once the container's exit is written, as in Docker: who reads them to their end and asks for
    the exit code then, gets that of this run. `exit` is done with that code.

    Streams that end although the container goes on (whoever held them died) end soon, too.
    """

    def __init__(self, streams: Streams, exit: asyncio.Future[int]) -> None:
        self._streams = streams
        self._exit = exit

    async def read(self) -> tuple[int, bytes] | None:
        piece = await self._streams.read()
        if piece is None:
            await asyncio.wait([self._exit], timeout=_EXIT_SECONDS)
        return piece

    async def write(self, data: bytes) -> None:
        await self._streams.write(data)

    async def close_stdin(self) -> None:
        await self._streams.close_stdin()

    def close(self) -> None:
        self._exit.cancel()
        self._streams.close()


def check_attachable(container: Container) -> None:
    """Raises Conflict where the container's state forbids it."""
    if container.status.state == "paused":
        raise Conflict(f"container {container.id} is paused, unpause the container before attach")
    if container.status.state == "restarting":
        raise Conflict(f"container {container.id} is restarting, wait until the container is running")


class Past:
    """What the log kept of a container's output, then its streams (if it has any)."""

    def __init__(self, batches: AsyncIterator[list[LogEntry]], streams: Streams | None) -> None:
        self._batches: AsyncIterator[list[LogEntry]] | None = batches
        self._entries: deque[LogEntry] = deque()
        self._streams = streams

    async def read(self) -> tuple[int, bytes] | None:
        while self._batches is not None and not self._entries:
            try:
                self._entries.extend(await anext(self._batches))
            except StopAsyncIteration:
                self._batches = None
        if self._entries:
            entry = self._entries.popleft()
            return entry.stream, entry.data
        return None if self._streams is None else await self._streams.read()

    async def write(self, data: bytes) -> None:
        if self._streams is not None:
            await self._streams.write(data)

    async def close_stdin(self) -> None:
        if self._streams is not None:
            await self._streams.close_stdin()

    def close(self) -> None:
        if self._streams is not None:
            self._streams.close()


async def attach(eng: Engine, ref: str, *, with_past: bool, with_stream: bool) -> Streams:
    """The streams from now on, or from the next start where the container does not run; `with_past` begins with
    what the log kept, without `with_stream` that is all.

    Raises NotFound, Conflict.
    """
    container = find_container(eng, ref)
    check_attachable(container)
    await announce(eng.ctx, event(container, "attach"))
    # Attached first and read after: what is written in between is in both, and told apart by its time;
    # of a line that is not finished, what was written of it so far.
    streams = await _until_exit(eng, container) if with_stream else None
    if not with_past:
        return streams or Ended()
    query = LogQuery(until=eng.ctx.now(), cuts_lines=True)
    return Past(logs.read(eng, container, query), streams)


async def _until_exit(eng: Engine, container: Container) -> Streams:
    # Before anything more is waited for: an end in between counts.
    exit = eng.ctx.life(container.id).next_exit()
    now = eng.ctx.tables.containers.get(eng.ctx.local, container.id)
    if is_alive(container) and (now is None or not is_alive(now)):
        # It ended while the attach was announced; what it said is in the log.
        exit.cancel()
        return Ended()
    try:
        return UntilExit(await _present(eng, container), exit)
    except BaseException:
        exit.cancel()
        raise


async def _present(eng: Engine, container: Container) -> Streams:
    if not is_alive(container):
        return NextRun(eng.ctx.life(container.id).next_start())
    try:
        return await eng.ctx.runtime.attach(container.id)
    except (NotFound, Conflict, ConnectionError, FileNotFoundError):
        # It ended a moment ago; what it said is in the log.
        return Ended()


class Ended:
    """Streams that have nothing more to say."""

    async def read(self) -> tuple[int, bytes] | None:
        return None

    async def write(self, data: bytes) -> None:
        raise BrokenPipeError("the container has ended")

    async def close_stdin(self) -> None:
        return None

    def close(self) -> None:
        return None


async def announce_detach(eng: Engine, container: Container) -> None:
    await announce(eng.ctx, event(container, "detach"))


async def resize(eng: Engine, ref: str, height: int, width: int) -> None:
    """Raises NotFound, Conflict (it does not run)."""
    container = find_container(eng, ref)
    if not is_alive(container):
        raise Conflict(f"container {container.id} is not running")
    await eng.ctx.runtime.resize(container.id, height, width)
    await announce(eng.ctx, event(container, "resize", height=str(height), width=str(width)))
