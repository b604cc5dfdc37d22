"""Changing a container's row, and the events such changes are told by.

Must not know: why a row changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from dari.model.container import Container
from dari.model.errors import Conflict, NotFound
from dari.model.event import Event
from dari.reconcile.context import Context
from dari.reconcile.journal import emit
from dari.store.base import Txn, TxnConflict

_TRIES = 16


def event(container: Container, action: str, **attributes: str) -> Event:
    """An event about a container: its labels, its image's reference and its name come with it."""
    return Event(
        type="container",
        action=action,
        actor_id=container.id,
        attributes={
            **container.config.labels,
            **attributes,
            "image": container.config.image,
            "name": container.name,
        },
    )


def find(ctx: Context, container_id: str) -> Container:
    """The row of a container. Raises NotFound."""
    container = ctx.tables.containers.get(ctx.local, container_id)
    if container is None:
        raise NotFound(f"No such container: {container_id}")
    return container


def volume_events(container: Container, action: Literal["mount", "unmount"]) -> list[Event]:
    """What Docker tells of the volumes of a container that starts or ends."""
    found = []
    for mount in container.mounts:
        if mount.type != "volume":
            continue
        attributes = {"driver": mount.driver, "container": container.id}
        if action == "mount":
            attributes |= {
                "destination": mount.target,
                "read/write": str(not mount.is_read_only).lower(),
                "propagation": mount.propagation,
            }
        found.append(Event(type="volume", action=action, actor_id=mount.volume, attributes=attributes))
    return found


async def change(
    ctx: Context,
    container_id: str,
    update: Callable[[Container], Container],
    *events: Callable[[Container], Event],
    also: Callable[[Txn, Container], None] | None = None,
) -> Container:
    """Replace a row by `update` of it, with events and whatever `also` adds, in one transaction.

    Raises NotFound, Conflict where other requests keep changing the row.
    """
    container = find(ctx, container_id)

    def changed(txn: Txn) -> None:
        nonlocal container
        container = update(find(ctx, container_id))
        ctx.tables.containers.replace(txn, ctx.local, container, container_id)
        for make in events:
            emit(ctx, txn, make(container))
        if also is not None:
            also(txn, container)

    await commit(ctx, f"container {container_id[:12]}", changed)
    return container


async def commit(ctx: Context, subject: str, compose: Callable[[Txn], None]) -> None:
    """Commit what `compose` adds to a transaction, which is composed anew where a row changed meanwhile.

    Raises what `compose` does, StoreUnavailable, Conflict where other requests keep changing the rows of `subject`.
    """
    for _ in range(_TRIES):
        txn = Txn()
        compose(txn)
        if txn.is_empty():
            return
        try:
            await ctx.local.commit(txn)
        except TxnConflict:
            continue
        return
    raise Conflict(f"{subject} is being changed by other requests, try again")


def with_status(container: Container, **fields: Any) -> Container:
    """The same container with fields of its status replaced."""
    return msgspec.structs.replace(container, status=msgspec.structs.replace(container.status, **fields))
