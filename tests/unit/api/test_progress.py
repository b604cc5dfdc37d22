"""What goes on as long as its client listens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web
from tests.patience import PATIENCE

from dari.api import progress
from dari.api.halfopen import Runner


async def _work_is_ended(work: Callable[[Callable[[Any], None]], Any]) -> bool:
    """Whether `work` is cancelled once a client, which has read a line, has gone."""
    ended = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        async def watched(send: Callable[[Any], None]) -> None:
            try:
                await work(send)
            except asyncio.CancelledError:
                ended.set()
                raise

        return await progress.lines(request, watched, ends_with_client=True)

    app = web.Application()
    app.router.add_post("/", handler)
    runner = Runner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        await reader.readuntil(b"word")
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(5 * PATIENCE):
            await ended.wait()
    except TimeoutError:
        return False
    finally:
        await runner.cleanup()
    return True


async def test_work_that_is_quiet_ends_with_its_client() -> None:
    async def work(send: Callable[[Any], None]) -> None:
        send({"stream": "word"})
        await asyncio.Event().wait()

    assert await _work_is_ended(work)


async def test_work_that_talks_all_the_time_ends_with_its_client() -> None:
    async def work(send: Callable[[Any], None]) -> None:
        while True:
            send({"stream": "word"})
            await asyncio.sleep(0.01)

    assert await _work_is_ended(work)
