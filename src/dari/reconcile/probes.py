"""A round of probes as requests work with it: in threads, which nobody can cancel.

Whoever is cancelled leaves no round behind (its sockets, and the descriptors that hold namespaces), nor takes one away
from the thread that is at work with it: it is closed behind that thread, in the background.
Must not know: what is asked. Next: kernel/probe.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from dari.kernel.outside import Places
from dari.kernel.probe import Probing
from dari.reconcile.context import Context

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")


class Probes:
    """One round, for one task at a time; `round` is what its threads work with."""

    def __init__(self, ctx: Context, round_: Probing) -> None:
        self.round = round_
        self._ctx = ctx
        self._working: asyncio.Future[Any] | None = None

    @classmethod
    async def make(
        cls,
        ctx: Context,
        namespaces: Iterable[str],
        places: Places | None = None,
        *,
        is_traced: bool = True,
        ports: Sequence[int] = (),
    ) -> Probes:
        """See kernel.host.probing. Raises OSError."""
        making = asyncio.ensure_future(
            asyncio.to_thread(ctx.kernel.probing, namespaces, places, is_traced=is_traced, ports=ports)
        )
        try:
            return cls(ctx, await asyncio.shield(making))
        except asyncio.CancelledError:
            _in_background(ctx, _close_made(making))
            raise

    async def run(self, work: Callable[Concatenate[Probing, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` makes of the round, in a thread."""
        self._working = asyncio.ensure_future(asyncio.to_thread(work, self.round, *args, **kwargs))
        return await asyncio.shield(self._working)

    async def close(self) -> None:
        """Take everything away that was made for it; in the background where a thread is still at work."""
        if self._working is not None and not self._working.done():
            _in_background(self._ctx, self._close_behind(self._working))
        else:
            await asyncio.to_thread(self.round.close)

    async def _close_behind(self, working: asyncio.Future[Any]) -> None:
        await asyncio.wait([working])
        if (error := working.exception()) is not None:
            log.debug("probes nobody waited for failed: %s", error)
        await asyncio.to_thread(self.round.close)


async def _close_made(making: asyncio.Future[Probing]) -> None:
    try:
        made = await making
    except OSError as error:
        log.debug("probes nobody waited for could not be made: %s", error)
        return
    await asyncio.to_thread(made.close)


def _in_background(ctx: Context, work: Coroutine[Any, Any, None]) -> None:
    ctx.tasks.add(task := asyncio.create_task(work, name="close probes"))
    task.add_done_callback(ctx.tasks.discard)
