"""What a piece of work that was cut short leaves is cleared when no other piece runs."""

from __future__ import annotations

import asyncio

from dari.runtime.underway import UnderWay


async def test_the_last_clears_after_one_that_was_cut() -> None:
    cleared: list[str] = []
    work, go = UnderWay(), asyncio.Event()

    async def piece() -> None:
        async with work.one(lambda: cleared.append("all")):
            await go.wait()

    cut, other = asyncio.create_task(piece()), asyncio.create_task(piece())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    cut.cancel()
    await asyncio.gather(cut, return_exceptions=True)
    assert (cut.cancelled(), cleared) == (True, [])
    go.set()
    await other
    assert cleared == ["all"]


async def test_nothing_is_cleared_where_none_was_cut() -> None:
    cleared: list[str] = []
    work = UnderWay()
    async with work.one(lambda: cleared.append("all")):
        pass
    assert cleared == []
