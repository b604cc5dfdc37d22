"""Answers that go on: chunks of JSON, and noticing that nobody listens any more.

Must not know: what is streamed. Hijacked connections are streams.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TypeVar

from aiohttp import HttpVersion11, web

from dari.api.halfopen import has_ended

T = TypeVar("T")

_LOOK_SECONDS = 1.0


def is_gone(request: web.BaseRequest) -> bool:
    """Whether the client has closed its connection, or its half of it: who asks for a stream listens to its end."""
    transport = request.transport
    return transport is None or transport.is_closing() or has_ended(request)


async def while_listening(request: web.BaseRequest, source: AsyncIterator[T]) -> AsyncIterator[T]:
    """The items of `source` until it ends or the client has gone; `source` is closed behind it."""
    pending: asyncio.Task[T] | None = None
    try:
        while not is_gone(request):
            if pending is None:
                pending = asyncio.ensure_future(anext(source))
            done, _ = await asyncio.wait({pending}, timeout=_LOOK_SECONDS)
            if not done:
                continue
            try:
                item = pending.result()
            except StopAsyncIteration:
                return
            finally:
                pending = None
            yield item
    finally:
        if pending is not None:
            pending.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await pending
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()


def chunk(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Send in chunks; to a client of HTTP/1.0, which knows none, up to the end of the connection."""
    if request.version >= HttpVersion11:
        response.enable_chunked_encoding()
    else:
        response.force_close()


async def open_stream(request: web.Request, content_type: str = "application/json") -> web.StreamResponse:
    """A chunked response whose headers are sent at once."""
    response = web.StreamResponse(headers={"Content-Type": content_type})
    chunk(request, response)
    await response.prepare(request)
    # The headers leave with the first write; a client that waits for them must not wait for the first event.
    await response.write(b"")
    return response
