"""Writing the journal: an event is a row in the transaction of what it tells.

Both rooms above the stores write events: the engine for what was asked, this room for what happened by itself (an
exit, a health check). Keys are in the order things happened, whatever the clock does. Who listens is
engine/events.py's. Source: Docker Engine API v1.51, `/events`.
"""

from __future__ import annotations

import msgspec

from dari.model.event import Event
from dari.reconcile.context import Context
from dari.store.base import Txn


def emit(ctx: Context, txn: Txn, event: Event) -> None:
    """Add a journal row to `txn`; `event.time` 0 = now."""
    time = event.time or ctx.now()
    # A clock that was set back must not put what is new behind what is old: the oldest go first.
    ctx.journal = max(time, (ctx.journal or _last(ctx)) + 1)
    ctx.tables.events.put(txn, msgspec.structs.replace(event, time=time), f"{ctx.journal:020d}-000000")


def _last(ctx: Context) -> int:
    names = [parts[0] for parts in ctx.tables.events.keys(ctx.local)]
    return int(names[-1].partition("-")[0]) if names else 0


async def announce(ctx: Context, event: Event) -> None:
    """An event that changes nothing else (exec, attach, pull): a transaction of its own."""
    txn = Txn()
    emit(ctx, txn, event)
    await ctx.local.commit(txn)
