"""Work side by side, and what is cleared when none of it runs: what one cut short left does not say whose it is.

Must not know: what the work is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable


class UnderWay:
    """Counts pieces of work of one kind."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._count = 0
        self._is_cut = False

    @contextlib.asynccontextmanager
    async def one(self, clear: Callable[[], None]) -> AsyncIterator[None]:
        """A piece of work. Where any was cancelled, the last to end calls `clear` in a thread; new ones wait for it."""
        async with self._lock:
            self._count += 1
        try:
            yield
        except asyncio.CancelledError:
            self._is_cut = True
            raise
        finally:
            async with self._lock:
                self._count -= 1
                if self._is_cut and not self._count:
                    self._is_cut = False
                    await asyncio.to_thread(clear)
