"""What every operation of the engine is given: one value, no verbs.

`Engine` is made by daemon.py and passed as the first argument to each function of this room; what the rooms below
need of it is `ctx`. Must not know: JSON, HTTP, the kernel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from dari.model.errors import Conflict, Unavailable
from dari.reconcile.context import Context
from dari.store.base import StoreUnavailable, Txn, TxnConflict


@dataclass(slots=True)
class Engine:
    """`id` is the daemon's own (stable over restarts); `started` ns since the epoch.

    `rooms` holds what an operation keeps in memory between requests (running execs, pulls under way), one value
    for each module that needs one, under that module's name.
    """

    ctx: Context
    id: str = ""
    name: str = ""
    started: int = 0
    rooms: dict[str, Any] = field(default_factory=dict)


async def commit(eng: Engine, txn: Txn) -> None:
    """Commit to the local store. Raises TxnConflict (a check failed: look again), Unavailable."""
    try:
        await eng.ctx.local.commit(txn)
    except StoreUnavailable as error:
        raise Unavailable(str(error)) from error


async def retry(attempt: Callable[[], Awaitable[None]], what: str, times: int = 16) -> None:
    """Run `attempt` again while its commit loses races. Raises Conflict naming `what` when it always does."""
    for _ in range(times):
        try:
            return await attempt()
        except TxnConflict:
            continue
    raise Conflict(f"{what} is being changed by other requests, try again")
