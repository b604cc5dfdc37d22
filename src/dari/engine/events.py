"""The journal: events are rows written in the transaction of what they tell, listeners hear them after it.

`emit` is called with the transaction; `follow` (one task of the daemon) watches the rows and tells the listeners,
so that nobody hears of what was never committed. Must not know: HTTP. Source: Docker Engine API v1.51, `/events`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from dari.engine.base import Engine
from dari.model.event import Event
from dari.reconcile.context import Context
from dari.reconcile.journal import announce, emit
from dari.store.base import Txn
from dari.units import SECOND

__all__ = ["KEPT", "announce", "emit", "follow", "passes", "subscribe"]

KEPT = 1000
_TRIM_EVERY = 200


async def follow(ctx: Context) -> None:
    """Tell the listeners of every new row and keep the journal at its bound, until cancelled."""
    table = ctx.tables.events
    told = {parts[0] for parts in table.keys(ctx.local)}
    since_trim = _TRIM_EVERY
    async for keys in ctx.local.watch(table.prefix):
        for key in sorted(keys):
            name = key.removeprefix(table.prefix)
            event = table.get(ctx.local, name)
            if event is None:
                told.discard(name)
                continue
            if name in told:
                continue
            told.add(name)
            since_trim += 1
            for listener in list(ctx.listeners):
                listener(event)
        if since_trim >= _TRIM_EVERY:
            since_trim = 0
            await _trim(ctx)


async def _trim(ctx: Context) -> None:
    names = [parts[0] for parts in ctx.tables.events.keys(ctx.local)]
    if len(names) > KEPT:
        txn = Txn()
        for name in names[:-KEPT]:
            ctx.tables.events.delete(txn, name)
        await ctx.local.commit(txn)


async def subscribe(
    eng: Engine, since: int | None, until: int | None, filters: dict[str, list[str]]
) -> AsyncIterator[Event]:
    """Events from `since` (ns; None = from now, or with `until` all there are) to `until` (None = for ever) that pass
    the filters."""
    ctx = eng.ctx
    if since is None and until is not None:
        since = 0
    queue: asyncio.Queue[Event] = asyncio.Queue()
    ctx.listeners.add(queue.put_nowait)
    try:
        replayed = list(ctx.tables.events.all(ctx.local)) if since is not None else []
        for event in replayed:
            if (
                event.time >= (since or 0)
                and (until is None or event.time <= until)
                and passes(event, filters)
            ):
                yield event
        # What came while those were read is among them, or comes now.
        early = queue.qsize()
        while True:
            wait = None if until is None else (until - ctx.now()) / SECOND
            if wait is not None and wait <= 0 and queue.empty():
                return
            try:
                event = await asyncio.wait_for(queue.get(), wait)
            except TimeoutError:
                return
            if until is not None and event.time > until:
                return
            is_known = early > 0 and event in replayed
            early -= 1
            if not is_known and passes(event, filters):
                yield event
    finally:
        ctx.listeners.discard(queue.put_nowait)


def passes(event: Event, filters: dict[str, list[str]]) -> bool:
    """Docker's rule: every key must match, one of its values is enough; labels must all match."""
    attributes = event.attributes
    for name, values in filters.items():
        match name:
            case "event":
                if not any(value in (event.action, event.action.partition(":")[0]) for value in values):
                    return False
            case "type":
                if event.type not in values:
                    return False
            case "scope":
                if event.scope not in values:
                    return False
            case "label":
                if not all(_has_label(attributes, value) for value in values):
                    return False
            case "container" | "network" | "volume" | "daemon":
                if not any(_is_named(event, value) for value in values):
                    return False
            case "image":
                image = event.actor_id if event.type == "image" else attributes.get("image", "")
                if not any(
                    value in (image, image.partition(":")[0], attributes.get("name")) for value in values
                ):
                    return False
            case _:
                return False
    return True


def _is_named(event: Event, value: str) -> bool:
    """Docker compares beginnings, and does not look at what kind of thing bears the name."""
    plain = value.removeprefix("/")
    own = event.attributes.get("name", "")
    return bool(plain) and (event.actor_id.startswith(plain) or own.startswith(plain))


def _has_label(attributes: dict[str, str], asked: str) -> bool:
    name, has_value, value = asked.partition("=")
    return name in attributes and (not has_value or attributes[name] == value)
