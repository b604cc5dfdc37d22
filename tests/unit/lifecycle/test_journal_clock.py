"""The journal and a clock that is set: nothing new is lost, whatever time it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tests.patience import PATIENCE

from dari.engine import events
from dari.model.event import Event
from dari.reconcile.journal import announce, emit
from dari.reconcile.life import Life
from dari.store.base import Txn
from dari.store.memory import MemoryStore
from dari.store.tables import Tables
from dari.units import SECOND

HOUR = 3600 * SECOND


class Clock:
    def __init__(self) -> None:
        self.time = 100 * HOUR

    def __call__(self) -> int:
        self.time += 1
        return self.time


def context(store: MemoryStore, clock: Clock) -> Any:
    return SimpleNamespace(local=store, tables=Tables(), now=clock, journal=0, listeners=set())


def event(name: str) -> Event:
    return Event(type="container", action=name, actor_id="c")


def run(test: Callable[[Any, Clock], Awaitable[None]]) -> None:
    clock = Clock()

    async def whole() -> None:
        async with asyncio.timeout(20 * PATIENCE):
            await test(context(MemoryStore(), clock), clock)

    asyncio.run(whole())


async def heard(ctx: Any, count: int, since: int | None = None, *happening: str) -> list[str]:
    """The actions a subscriber is told, `happening` while it listens."""
    following = asyncio.create_task(events.follow(ctx))
    source = events.subscribe(SimpleNamespace(ctx=ctx), since, None, {})  # type: ignore[arg-type]

    async def tell() -> None:
        await asyncio.sleep(0.05)
        for each in happening:
            await announce(ctx, event(each))

    telling = asyncio.create_task(tell())
    found = []
    try:
        while len(found) < count:
            found.append((await anext(source)).action)  # type: ignore[call-overload]
    finally:
        telling.cancel()
        following.cancel()
        await asyncio.wait([following, telling])
    return found


@pytest.mark.parametrize("jump", [-5 * HOUR, 0, 7 * HOUR])
def test_events_are_told_though_the_clock_was_set(jump: int) -> None:
    async def test(ctx: Any, clock: Clock) -> None:
        await announce(ctx, event("before"))
        clock.time += jump
        assert await heard(ctx, 2, None, "one", "two") == ["one", "two"]

    run(test)


def test_a_new_daemon_with_another_clock_tells_them_too() -> None:
    async def test(ctx: Any, clock: Clock) -> None:
        await announce(ctx, event("before"))
        clock.time -= 5 * HOUR
        anew = context(ctx.local, clock)
        assert await heard(anew, 3, 0, "one", "two") == ["before", "one", "two"]
        # In the order they happened, with the time the clock said.
        rows = anew.tables.events.all(anew.local)
        assert [each.action for each in rows] == ["before", "one", "two"]
        assert rows[1].time < rows[0].time

    run(test)


def test_the_oldest_go_first_whatever_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEPT", 3)

    async def test(ctx: Any, clock: Clock) -> None:
        for number in range(3):
            await announce(ctx, event(f"old{number}"))
        clock.time -= 5 * HOUR
        await announce(ctx, event("new"))
        await events._trim(ctx)
        assert [each.action for each in ctx.tables.events.all(ctx.local)] == ["old1", "old2", "new"]

    run(test)


def test_one_that_is_committed_behind_a_later_one_is_told() -> None:
    async def test(ctx: Any, clock: Clock) -> None:
        slow, quick = Txn(), Txn()
        emit(ctx, slow, event("slow"))
        emit(ctx, quick, event("quick"))
        following = asyncio.create_task(events.follow(ctx))
        told: list[str] = []
        ctx.listeners.add(lambda each: told.append(each.action))
        await asyncio.sleep(0.02)
        for number, each in enumerate((quick, slow), 1):
            await ctx.local.commit(each)
            while len(told) < number:  # noqa: ASYNC110 - a list has no event to wait for
                await asyncio.sleep(0.01)
        following.cancel()
        await asyncio.wait([following])
        assert told == ["quick", "slow"]

    run(test)


def test_how_long_a_run_lasted_is_not_the_wall_clocks_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic_ns", lambda: 30 * SECOND)
    assert Life(begun=10 * SECOND).ran_for(100 * HOUR, 95 * HOUR) == 20 * SECOND
    assert Life().ran_for(100 * HOUR, 100 * HOUR + 5) == 5
    assert Life().ran_for(100 * HOUR, 95 * HOUR) == 0
