"""What is known of a container only while this daemon runs: who watches it, who waits for it.

Nothing here survives a restart and nothing needs to: `boot` makes it anew from the store and from conmon. Must not
know: stores, the kernel, HTTP.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from dari.runtime.launch import Stdio


@dataclass(slots=True)
class Life:
    """`last_delay` is the wait (ns) before the present run, 0 when a user started it. Futures of `attachers` get
    the streams between create and start; those of `exits` and `removals` the exit code."""

    watcher: asyncio.Task[None] | None = None
    health: asyncio.Task[None] | None = None
    restart: asyncio.Task[None] | None = None
    last_delay: int = 0
    # When the present run was begun, by the monotonic clock in ns; 0 where an earlier daemon did.
    begun: int = 0
    # While a restart by a user is between stop and start, the end does not remove the container.
    is_kept: bool = False
    # While it is on its way to run, it counts as one who lives in its sandbox.
    is_starting: bool = False
    attachers: list[asyncio.Future[Stdio]] = field(default_factory=list)
    exits: list[asyncio.Future[int]] = field(default_factory=list)
    removals: list[asyncio.Future[int]] = field(default_factory=list)

    def ran_for(self, started: int, now: int) -> int:
        """How long the present run has lasted, in ns; `started` and `now` are the wall clock's, which counts only where
        nobody here saw it begin."""
        return time.monotonic_ns() - self.begun if self.begun else max(0, now - started)

    def next_exit(self) -> asyncio.Future[int]:
        """Done with the exit code when the container ends next."""
        return _joined(self.exits)

    def removal(self) -> asyncio.Future[int]:
        """Done with the last exit code when the container is removed."""
        return _joined(self.removals)

    def next_start(self) -> asyncio.Future[Stdio]:
        """Done with the streams of the next run, before its first byte."""
        return _joined(self.attachers)

    def tell_exit(self, code: int) -> None:
        _resolve(self.exits, code)

    def tell_removal(self, code: int) -> None:
        _resolve(self.exits, code)
        _resolve(self.removals, code)
        for future in self.attachers:
            future.cancel()
        self.attachers.clear()


def _joined(waiters: list[Any]) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    waiters.append(future)
    future.add_done_callback(lambda done: waiters.remove(done) if done in waiters else None)
    return future


def _resolve(waiters: list[Any], value: int) -> None:
    for future in list(waiters):
        if not future.done():
            future.set_result(value)
    waiters.clear()
