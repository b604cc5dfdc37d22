"""Writing the journal: an event is a row in the transaction of what it tells.

Both rooms above the stores write events: the engine for what was asked, this room for what happened by itself (an
exit, a health check). Who listens is engine/events.py's. Source: Docker Engine API v1.51, `/events`.
"""

from __future__ import annotations

import itertools

import msgspec

from dari.model.event import Event
from dari.reconcile.context import Context
from dari.store.base import Txn

_sequence = itertools.count()


def emit(ctx: Context, txn: Txn, event: Event) -> None:
    """Add a journal row to `txn`; `event.time` 0 = now."""
    time = event.time or ctx.now()
    key = f"{time:020d}-{next(_sequence) % 1_000_000:06d}"
    ctx.tables.events.put(txn, msgspec.structs.replace(event, time=time), key)


async def announce(ctx: Context, event: Event) -> None:
    """An event that changes nothing else (exec, attach, pull): a transaction of its own."""
    txn = Txn()
    emit(ctx, txn, event)
    await ctx.local.commit(txn)
