"""Nodes ask each other by rows: who answers, who is told why not, and that nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.patience import PATIENCE

from dari.cluster import answering
from dari.model.cluster import Node
from dari.reconcile.talk import NoAnswerError, Talk, pack, unpack
from dari.store.base import Txn
from dari.store.memory import MemoryStore
from dari.store.tables import Tables


class Words(msgspec.Struct):
    text: str


class Echo:
    """Stands for a node's half: says what it heard. `closed` counts those that were ended."""

    closed = 0
    holds: asyncio.Event | None = None

    def __init__(self, ctx: Any) -> None:
        self.heard: list[str] = []

    async def answer(self, kind: str, body: bytes) -> bytes:
        if kind == "wrong":
            raise ValueError("that is wrong")
        if Echo.holds is not None:
            await Echo.holds.wait()
        self.heard.append(unpack(body, Words).text)
        return pack(Words(" ".join(self.heard)))

    async def close(self) -> None:
        Echo.closed += 1


B = Node(id="b", name="bee", address="192.0.2.2")


def context(store: MemoryStore, node_id: str, session_id: str) -> Any:
    return SimpleNamespace(shared=store, tables=Tables(), node_id=node_id, session_id=session_id, tasks=set())


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[MemoryStore, Any]]:
    """A store, and who asks over it; node b answers."""
    store = MemoryStore()
    asker, answerer = await store.session(1), await store.session(1)
    task = asyncio.create_task(answering.answer(context(store, "b", answerer.id), answerer))
    try:
        yield store, context(store, "a", asker.id)
    finally:
        task.cancel()
        await asyncio.wait([task])


def run(test: Callable[[MemoryStore, Any], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "FarHalf", Echo)
    monkeypatch.setattr(Echo, "closed", 0)
    monkeypatch.setattr(Echo, "holds", None)

    async def whole() -> None:
        async with asyncio.timeout(20 * PATIENCE), pair() as (store, ctx):
            await test(store, ctx)

    asyncio.run(whole())


async def until(condition: Callable[[], object]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not become so")


async def is_clean(store: MemoryStore) -> None:
    await until(lambda: not store.read("asks/") and not store.read("answers/"))


def test_a_talk_has_its_answers_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(store: MemoryStore, ctx: Any) -> None:
        talk = Talk(ctx, B)
        assert (await talk.ask("say", Words("one"), Words, 5)).text == "one"
        assert (await talk.ask("say", Words("two"), Words, 5)).text == "one two"
        with pytest.raises(NoAnswerError, match="node bee could not tell: that is wrong"):
            await talk.ask("wrong", Words("x"), Words, 5)
        await talk.close()
        await is_clean(store)
        await until(lambda: Echo.closed)

    run(test, monkeypatch)


def test_nobody_answers_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(store: MemoryStore, ctx: Any) -> None:
        Echo.holds = asyncio.Event()
        talk = Talk(ctx, B)
        with pytest.raises(NoAnswerError, match=r"node bee did not answer within 0\.05 s"):
            await talk.ask("say", Words("one"), Words, 0.05)
        await talk.close()
        # What was being answered when the question was taken back is not written.
        Echo.holds.set()
        await is_clean(store)
        await until(lambda: Echo.closed)
        assert not store.read("answers/")

    run(test, monkeypatch)


def test_an_asker_that_dies_takes_its_question_along_and_the_answer_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(store: MemoryStore, ctx: Any) -> None:
        await Talk(ctx, B).ask("say", Words("one"), Words, 5)
        assert store.read("asks/") and store.read("answers/")
        await store.end_session(ctx.session_id)
        await is_clean(store)

    run(test, monkeypatch)


def test_too_many_at_once_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(store: MemoryStore, ctx: Any) -> None:
        talks = [Talk(ctx, B) for _ in range(answering.MOST_TALKS)]
        for talk in talks:
            await talk.ask("say", Words("one"), Words, 5)
        late = Talk(ctx, B)
        with pytest.raises(NoAnswerError, match="too much at once"):
            await late.ask("say", Words("one"), Words, 5)
        for talk in (*talks, late):
            await talk.close()
        await is_clean(store)

    run(test, monkeypatch)


def test_a_node_that_was_started_anew_does_not_go_on_with_a_talk(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(store: MemoryStore, ctx: Any) -> None:
        talk = Talk(ctx, B)
        talk._step = 1
        with pytest.raises(NoAnswerError, match="started anew"):
            await talk.ask("say", Words("two"), Words, 5)

    run(test, monkeypatch)


def test_a_node_that_has_not_joined_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(store: MemoryStore, ctx: Any) -> None:
        talk = Talk(ctx, B)
        ctx.session_id = ""
        with pytest.raises(NoAnswerError, match="not joined"):
            await talk.ask("say", Words("one"), Words, 5)
        assert not store.read("asks/")

    run(test, monkeypatch)


def test_answers_an_earlier_daemon_left_are_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(store: MemoryStore, ctx: Any) -> None:
        await store.commit(Txn(puts={"answers/b/old": b'{"step":1}'}))
        await Talk(ctx, B).ask("say", Words("one"), Words, 5)
        await until(lambda: store.get("answers/b/old") is None)

    run(test, monkeypatch)


@pytest.mark.parametrize("body", [b"", b"nonsense", pack(Words("x"))[:-3], b"{}"])
def test_what_is_not_understood_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        unpack(body, Words)
