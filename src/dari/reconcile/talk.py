"""Talks: a node asks another one by rows of the store they share, so that no node needs an open port.

A question is a row under the asker's session, its answer one under the other's; whoever dies takes its rows along, and
the asker takes both back when it has heard enough. Nothing depends on a clock but how long the asker waits.
Must not know: what is asked. The other side is cluster/answering.py.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar, cast
from uuid import uuid4

import msgspec

from dari.model.cluster import Answer, Ask, Node
from dari.reconcile.context import Context
from dari.store.base import StoreUnavailable, Txn, TxnConflict

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_BYTES = 384 * 1024
"""Of a packed question or answer; ZooKeeper takes no node of a mebibyte, and every node of the cluster hears of it."""

_MOST_UNPACKED = 32 * 1024 * 1024
_AGAIN_SECONDS = 1.0


class NoAnswerError(Exception):
    """The other node did not answer; the text says why, and names it."""


class Talk:
    """Questions to one node, each after the answer to the one before. `close` takes the rows back."""

    def __init__(self, ctx: Context, node: Node) -> None:
        self.node = node
        self._ctx = ctx
        self._id = uuid4().hex
        self._step = 0
        self._session_id = ctx.session_id

    async def ask(self, kind: str, question: msgspec.Struct, answer: type[T], seconds: float) -> T:
        """Raises NoAnswerError."""
        who = f"node {self.node.name}"
        if not self._session_id or self._session_id != self._ctx.session_id:
            raise NoAnswerError(f"{who} cannot be asked: this node is not joined")
        body = pack(question)
        if len(body) > MOST_BYTES:
            raise NoAnswerError(f"{who} cannot be asked so much at once")
        self._step += 1
        txn = Txn(session_id=self._session_id)
        row = Ask(node=self._ctx.node_id, step=self._step, kind=kind, body=body)
        self._ctx.tables.asks.put(txn, row, self.node.id, self._id)
        try:
            async with asyncio.timeout(seconds):
                await self._ctx.shared.commit(txn)
                found = await self._answer()
        except TimeoutError:
            raise NoAnswerError(f"{who} did not answer within {seconds:.2g} s") from None
        except (StoreUnavailable, TxnConflict) as error:
            raise NoAnswerError(f"{who} cannot be asked: {error}") from error
        if found.error:
            raise NoAnswerError(f"{who} could not tell: {found.error}")
        try:
            return unpack(found.body, answer)
        except ValueError as error:
            raise NoAnswerError(f"{who} answered what is not understood here: {error}") from error

    async def close(self) -> None:
        """Take question and answer back; where the store is away, as soon as it answers."""
        if self._step and not await self._take_back():
            self._ctx.tasks.add(later := asyncio.create_task(self._take_back_later()))
            later.add_done_callback(self._ctx.tasks.discard)

    async def _answer(self) -> Answer:
        table, store = self._ctx.tables.answers, self._ctx.shared
        news = store.watch(table.key(self.node.id, self._id))
        async with aclosing(cast(AsyncGenerator[frozenset[str]], news)):
            async for _ in news:
                found = table.get(store, self.node.id, self._id)
                if found is not None and found.step == self._step:
                    return found
        raise StoreUnavailable("the store was closed")

    async def _take_back(self) -> bool:
        txn = Txn()
        self._ctx.tables.asks.delete(txn, self.node.id, self._id)
        self._ctx.tables.answers.delete(txn, self.node.id, self._id)
        try:
            await self._ctx.shared.commit(txn)
        except (StoreUnavailable, TxnConflict) as error:
            log.debug("a question to node %s is taken back later: %s", self.node.name, error)
            return False
        return True

    async def _take_back_later(self) -> None:
        # With the session the rows go by themselves.
        for wait in itertools.repeat(_AGAIN_SECONDS):
            await asyncio.sleep(wait)
            if self._session_id != self._ctx.session_id or await self._take_back():
                return


def pack(words: msgspec.Struct) -> bytes:
    return zlib.compress(msgspec.json.encode(words), 3)


def unpack(body: bytes, kind: type[T]) -> T:
    """Raises ValueError (also where it is larger than any honest one)."""
    try:
        reader = zlib.decompressobj()
        text = reader.decompress(body, _MOST_UNPACKED)
        if not reader.eof:
            raise ValueError("it is cut short, or too large")
        return msgspec.json.decode(text, type=kind)
    except (zlib.error, msgspec.MsgspecError) as error:
        raise ValueError(str(error)) from error
