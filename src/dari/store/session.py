"""Sessions of stores that live in this process: they end when told to, and tell those who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import uuid4


class LocalSession:
    """`end` takes the session's keys away; it gets the session's id."""

    def __init__(self, end: Callable[[str], Awaitable[None]]) -> None:
        self.id = uuid4().hex
        self._end = end
        self._ended = asyncio.Event()

    def is_alive(self) -> bool:
        return not self._ended.is_set()

    async def ended(self) -> None:
        await self._ended.wait()

    async def close(self) -> None:
        if self.is_alive():
            self._ended.set()
            await self._end(self.id)

    async def abandon(self) -> None:
        """This process is all there is to keep it: it ends here."""
        await self.close()
