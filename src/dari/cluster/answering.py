"""What other nodes ask this one is answered: rows addressed to it, one talk each, under its session.

Level-triggered like the rest: what asks without an answer is answered, answers whose question is gone are taken away. A
talk that goes silent is forgotten after a time, and there are only so many at once. Must not know: what is asked.
The asking side is reconcile/talk.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from dari.engine.base import Engine
from dari.engine.explain import explain
from dari.model.cluster import Answer, Ask
from dari.model.errors import DariError
from dari.model.explain import Question
from dari.reconcile import far_words
from dari.reconcile.context import Context
from dari.reconcile.far_half import FarHalf
from dari.reconcile.talk import MOST_BYTES, pack, unpack
from dari.store.base import Session, StoreUnavailable, Txn, TxnConflict

log = logging.getLogger(__name__)

MOST_TALKS = 8
SILENT_SECONDS = 90.0
"""A talk's next question may have to wait for all packets of a `verify`."""

_LOOK_SECONDS = 10.0

Errands = Mapping[str, Callable[[bytes], Awaitable[bytes]]]
"""What another node may ask this one to do, by the kind of the question; raises as `FarHalf.answer`."""


@dataclass(slots=True)
class _Talk:
    """`step`: the last one taken up. `half` None: there are too many, or it has gone silent."""

    half: FarHalf | None
    step: int = 0
    heard: float = field(default_factory=time.monotonic)
    task: asyncio.Task[None] | None = None


async def answer(ctx: Context, session: Session, errands: Errands | None = None) -> None:
    """Until cancelled, or the session has ended."""
    errands = errands or {}
    wake = asyncio.Event()
    watching = asyncio.create_task(_wake(wake, ctx.shared.watch(ctx.tables.asks.key(ctx.node_id, ""))))
    talks: dict[str, _Talk] = {}
    try:
        while session.is_alive():
            try:
                await _look(ctx, session, talks, wake, errands)
            except (StoreUnavailable, TxnConflict) as error:
                log.debug("other nodes are answered later: %s", error)
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await wake.wait()
            except TimeoutError:
                pass
            wake.clear()
    finally:
        watching.cancel()
        for each in talks.values():
            await _end(each)


async def _wake(wake: asyncio.Event, source: AsyncIterator[frozenset[str]]) -> None:
    async for _ in source:
        wake.set()


async def _look(
    ctx: Context, session: Session, talks: dict[str, _Talk], wake: asyncio.Event, errands: Errands
) -> None:
    """Take up what is new and end what is over. Raises StoreUnavailable, TxnConflict."""
    tables = ctx.tables
    asked = {key[1]: tables.asks.get(ctx.shared, *key) for key in tables.asks.keys(ctx.shared, ctx.node_id)}
    for talk_id in [each for each in talks if each not in asked]:
        await _end(talks.pop(talk_id))
    for talk in talks.values():
        if talk.half is not None and time.monotonic() - talk.heard > SILENT_SECONDS:
            await _end(talk)
    for talk_id, ask in asked.items():
        if ask is not None:
            task = _take_up(ctx, session, talks, talk_id, ask, errands)
            if task is not None:
                # The next question may be there before the answer's commit has returned.
                task.add_done_callback(lambda _: wake.set())
    left = [key[1] for key in tables.answers.keys(ctx.shared, ctx.node_id) if key[1] not in asked]
    if left:
        txn = Txn()
        for talk_id in left:
            tables.answers.delete(txn, ctx.node_id, talk_id)
        await ctx.shared.commit(txn)


def _take_up(
    ctx: Context, session: Session, talks: dict[str, _Talk], talk_id: str, ask: Ask, errands: Errands
) -> asyncio.Task[None] | None:
    talk = talks.get(talk_id)
    if talk is None:
        busy = sum(each.half is not None for each in talks.values())
        is_new = ask.step == 1 and busy < MOST_TALKS
        talk = talks[talk_id] = _Talk(FarHalf(ctx) if is_new else None)
    if ask.step <= talk.step or (talk.task is not None and not talk.task.done()):
        return None
    talk.step, talk.heard = ask.step, time.monotonic()
    work = _answer(ctx, session, talk, talk_id, ask, errands)
    talk.task = asyncio.create_task(work, name=f"answer {ask.kind}")
    talk.task.add_done_callback(_log_failure)
    return talk.task


async def _answer(
    ctx: Context, session: Session, talk: _Talk, talk_id: str, ask: Ask, errands: Errands
) -> None:
    told = await _told(ctx, talk, ask, errands)
    row = ctx.shared.get(ctx.tables.asks.key(ctx.node_id, talk_id))
    if row is None:
        return
    txn = Txn(session_id=session.id)
    # Taken back meanwhile: nobody would take the answer away.
    txn.checks[ctx.tables.asks.key(ctx.node_id, talk_id)] = row.revision
    ctx.tables.answers.put(txn, told, ctx.node_id, talk_id)
    try:
        await ctx.shared.commit(txn)
    except (StoreUnavailable, TxnConflict) as error:
        log.debug("nobody hears the answer to a question of node %s: %s", ask.node, error)


async def _told(ctx: Context, talk: _Talk, ask: Ask, errands: Errands) -> Answer:
    if talk.half is None:
        why = (
            "it is being asked too much at once"
            if ask.step == 1
            else "it was started anew, or heard nothing for long"
        )
        return Answer(step=ask.step, error=why)
    try:
        errand = errands.get(ask.kind)
        if errand is not None:
            body = await errand(ask.body)
        elif ask.kind == far_words.EXPLAIN:
            body = await _explained(ctx, ask.body)
        else:
            body = await talk.half.answer(ask.kind, ask.body)
    except DariError as error:
        return Answer(step=ask.step, error=error.message)
    except (OSError, ValueError) as error:
        return Answer(step=ask.step, error=str(error))
    if len(body) > MOST_BYTES:
        return Answer(step=ask.step, error="the answer would be too long: ask for less at once")
    return Answer(step=ask.step, body=body)


async def _explained(ctx: Context, body: bytes) -> bytes:
    """A question that starts here. Raises ValueError (not understood), DariError."""
    return pack(await explain(Engine(ctx=ctx), unpack(body, Question)))


async def _end(talk: _Talk) -> None:
    if talk.task is not None and not talk.task.done():
        talk.task.cancel()
        await asyncio.wait([talk.task])
    if talk.half is not None:
        half, talk.half = talk.half, None
        await half.close()


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("%s failed", task.get_name(), exc_info=task.exception())
