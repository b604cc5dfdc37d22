"""When the streams of a container end."""

from __future__ import annotations

import asyncio

from dari.engine import attach
from dari.engine.attach import Ended, UntilExit


async def test_the_end_is_told_when_the_exit_is_written() -> None:
    exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    reading = asyncio.ensure_future(UntilExit(Ended(), exit).read())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not reading.done()
    exit.set_result(7)
    assert await reading is None


async def test_who_lets_go_waits_for_nothing() -> None:
    exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    streams = UntilExit(Ended(), exit)
    reading = asyncio.ensure_future(streams.read())
    await asyncio.sleep(0)
    streams.close()
    assert await reading is None and exit.cancelled()


async def test_streams_lost_while_the_container_goes_on_end_too(monkeypatch) -> None:
    monkeypatch.setattr(attach, "_EXIT_SECONDS", 0.01)
    exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    assert await UntilExit(Ended(), exit).read() is None
    assert not exit.done()
