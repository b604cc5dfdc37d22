"""Long answers: JSON objects one after the other, as pull, push, build, load and import send them; bodies to files.

An error before the first line is an HTTP status; after it, a line of its own. Must not know: any endpoint.
Source: Docker Engine API v1.51 `ImageCreate`, "CreateImageInfo"; observed behaviour of its clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from dari.api import stream
from dari.engine.base import Engine
from dari.engine.images import Progress
from dari.model.errors import DariError, is_of_machine, told

log = logging.getLogger(__name__)

_CHUNK = 1 << 18
_LOOK_SECONDS = 1.0

Json = dict[str, Any]


async def lines(
    request: web.Request,
    work: Callable[[Callable[[Json], None]], Awaitable[None]],
    *,
    has_status: bool = True,
    ends_with_client: bool = False,
) -> web.StreamResponse:
    """Run `work`, which sends objects by the function it is given; they go out at once and in order.

    A client that goes away stops the work only where it `ends_with_client`, as Docker's builds and transfers do: its
    user has typed ctrl-c. What fails before anything is sent is told by the answer's
    status, without `has_status` among the objects, as everything that fails later.
    """
    queue: asyncio.Queue[Json | None] = asyncio.Queue()

    async def run() -> None:
        try:
            await work(queue.put_nowait)
        finally:
            queue.put_nowait(None)

    task = asyncio.create_task(run())
    listener = request if ends_with_client else None
    try:
        return await _send(request, queue, task, has_status, listener)
    except _Gone:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, DariError, OSError):
            await task
        raise ConnectionResetError("the client has gone") from None


class _Gone(Exception):
    """Nobody listens any more."""


async def _next(queue: asyncio.Queue[Json | None], listener: web.Request | None) -> Json | None:
    """What is sent next. Raises _Gone where `listener`'s client has gone."""
    if listener is None:
        return await queue.get()
    item = asyncio.ensure_future(queue.get())
    try:
        # Also where there is always something to send, as a transfer's progress.
        while not stream.is_gone(listener):
            if (await asyncio.wait({item}, timeout=_LOOK_SECONDS))[0]:
                break
        else:
            raise _Gone
    finally:
        item.cancel()
    return item.result()


async def _send(
    request: web.Request,
    queue: asyncio.Queue[Json | None],
    task: asyncio.Task[None],
    has_status: bool,
    listener: web.Request | None,
) -> web.StreamResponse:
    first = await _next(queue, listener)
    if first is None and has_status:
        await task
        return await stream.open_stream(request)
    response = await stream.open_stream(request)
    item = first
    while item is not None:
        with contextlib.suppress(ConnectionResetError):
            await response.write(msgspec.json.encode(item) + b"\r\n")
        item = await _next(queue, listener)
    try:
        await task
    except Exception as error:
        if not isinstance(error, DariError):
            log.error("a request failed unexpectedly", exc_info=error)
        if isinstance(error, DariError):
            message = error.message
        elif isinstance(error, OSError) and is_of_machine(error):
            message = told(error)
        else:
            message = f"internal error: {error}"
        detail: Json = {"message": message}
        code = getattr(error, "code", 0)
        if code:
            detail["code"] = code
        body = msgspec.json.encode({"errorDetail": detail, "error": message}) + b"\r\n"
        with contextlib.suppress(ConnectionResetError):
            await response.write(body)
    return response


def progress_json(progress: Progress) -> Json:
    """One line of a transfer."""
    if progress.aux is not None:
        return {"progressDetail": {}, "aux": progress.aux}
    shape: Json = {"status": progress.status}
    if progress.is_layer:
        detail = {"current": progress.current, "total": progress.total}
        shape["progressDetail"] = {name: value for name, value in detail.items() if value}
    if progress.id:
        shape["id"] = progress.id
    return shape


@contextlib.asynccontextmanager
async def body_file(request: web.Request, eng: Engine) -> AsyncIterator[str]:
    """The request's body in a file, gone afterwards."""
    folder = f"{eng.ctx.config.data_root}/tmp"
    os.makedirs(folder, mode=0o700, exist_ok=True)
    file, path = tempfile.mkstemp(dir=folder)
    try:
        with os.fdopen(file, "wb") as out:
            async for data in request.content.iter_chunked(_CHUNK):
                await asyncio.to_thread(out.write, data)
        yield path
    finally:
        os.unlink(path)


async def send_file(request: web.Request, path: str) -> web.StreamResponse:
    """A file as `application/x-tar`."""
    response = await stream.open_stream(request, "application/x-tar")
    with open(path, "rb") as file:
        while data := await asyncio.to_thread(file.read, _CHUNK):
            await response.write(data)
    await response.write_eof()
    return response


async def send_bytes(
    request: web.Request, source: AsyncIterator[bytes], headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Pieces of a tar as they come. An error in the middle cuts the connection: the client must not take what it
    got for the whole."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar", **(headers or {})})
    stream.chunk(request, response)
    try:
        first = await anext(source, b"")
        await response.prepare(request)
        await response.write(first)
        async for data in source:
            await response.write(data)
        await response.write_eof()
    except (OSError, DariError) as error:
        if not response.prepared:
            raise
        log.error("an archive was cut short: %s", error)
        if request.transport is not None:
            request.transport.close()
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()
    return response
