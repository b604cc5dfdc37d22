"""A container that is committed stands still for a while, and never longer."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dari.engine import commit
from dari.engine.base import Engine
from dari.model.container import Container
from dari.model.errors import Internal


class Runtime:
    """Counts who stands still."""

    def __init__(self, *, is_slow: bool = False) -> None:
        self.frozen = 0
        self.asked = asyncio.Event()
        self._is_slow = is_slow

    async def pause(self, id: str) -> None:
        self.frozen += 1
        self.asked.set()
        if self._is_slow:
            await asyncio.Event().wait()

    async def unpause(self, id: str) -> None:
        self.frozen -= 1


def _parts(runtime: Runtime) -> tuple[Engine, Container]:
    container = SimpleNamespace(id="c", status=SimpleNamespace(state="running"))
    return cast(Engine, SimpleNamespace(ctx=SimpleNamespace(runtime=runtime))), cast(Container, container)


def _told(monkeypatch: pytest.MonkeyPatch, failing: str = "") -> None:
    async def tell(ctx: Any, action: str) -> None:
        if action == failing:
            raise Internal("the disk is full")

    monkeypatch.setattr(commit, "event", lambda container, action: action)
    monkeypatch.setattr(commit, "tell", tell)


async def test_a_pause_that_cannot_be_told_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    _told(monkeypatch, "pause")
    runtime = Runtime()
    with pytest.raises(Internal):
        async with commit._standing_still(*_parts(runtime)):
            raise AssertionError("nothing is copied then")
    assert runtime.frozen == 0


async def test_a_pause_that_is_cut_short_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    _told(monkeypatch)
    runtime = Runtime(is_slow=True)

    async def still() -> None:
        async with commit._standing_still(*_parts(runtime)):
            raise AssertionError("nothing is copied then")

    task = asyncio.create_task(still())
    await runtime.asked.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled() and runtime.frozen == 0
