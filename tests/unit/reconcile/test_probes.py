"""Who is cancelled over probes leaves none behind, and takes none away from a thread that is at work with them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from tests.patience import PATIENCE

from dari.reconcile import far_words
from dari.reconcile.far_half import FarHalf
from dari.reconcile.talk import pack


class Round:
    """Stands for a round of probes. `troubles`: what was done with it that must not be."""

    def __init__(self) -> None:
        self.is_busy = self.is_closed = False
        self.troubles: list[str] = []

    ears: tuple[int, ...] = ()

    def close(self) -> None:
        if self.is_busy or self.is_closed:
            self.troubles.append("closed while at work" if self.is_busy else "closed twice")
        self.is_closed = True


class Kernel:
    """Takes its time over making a round, or over looking who listens, until `go` is set."""

    def __init__(self, *, slow: str) -> None:
        self.slow, self.begun, self.go = slow, threading.Event(), threading.Event()
        self.rounds: list[Round] = []

    def probing(self, names: Iterable[str], *_: object, **__: object) -> Round:
        self._take_time("making")
        made = Round()
        made.listeners = lambda name: self._listeners(made)  # type: ignore[attr-defined]
        self.rounds.append(made)
        return made

    def _listeners(self, of: Round) -> tuple[()]:
        of.is_busy = True
        self._take_time("listening")
        of.is_busy = False
        return ()

    def _take_time(self, what: str) -> None:
        if what == self.slow:
            self.begun.set()
            self.go.wait(20 * PATIENCE)


async def until(condition: Callable[[], object]) -> None:
    for _ in range(500 * PATIENCE):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not become so")


async def cancelled_over(kernel: Kernel, monkeypatch: Any) -> None:
    """The asker went while that was under way; the thread ends later."""
    end = SimpleNamespace(netns="box", is_own=False, container=None)
    monkeypatch.setattr("dari.reconcile.ends.owners_of", lambda ctx, asked: dict.fromkeys(asked, (end, None)))
    ctx: Any = SimpleNamespace(kernel=kernel, tasks=set())
    half = FarHalf(ctx)
    body = pack(far_words.Doors(addresses=["10.0.0.2"]))
    asking = asyncio.create_task(half.answer(far_words.DOORS, body))
    await until(kernel.begun.is_set)
    asking.cancel()
    await asyncio.wait([asking])
    await half.close()
    assert asking.cancelled() and not any(each.is_closed for each in kernel.rounds)
    kernel.go.set()
    await until(lambda: kernel.rounds and all(each.is_closed for each in kernel.rounds))
    await until(lambda: not ctx.tasks)
    assert [each.troubles for each in kernel.rounds] == [[]]


async def test_what_is_made_for_nobody_is_taken_away(monkeypatch: Any) -> None:
    await cancelled_over(Kernel(slow="making"), monkeypatch)


async def test_what_a_thread_works_with_is_taken_away_behind_it(monkeypatch: Any) -> None:
    await cancelled_over(Kernel(slow="listening"), monkeypatch)
