"""What containers wrote: the log conmon keeps, read in spans or followed. Numbers of what they use, too.

Must not know: HTTP, frames, the log's format. Source: Docker Engine API v1.51, `ContainerLogs`, `ContainerStats`,
`ContainerTop`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from dari.engine.base import Engine
from dari.engine.lookup import find_container
from dari.model.container import Container
from dari.model.errors import Conflict, NotFound, Unsupported
from dari.reconcile.containers import is_alive, log_path
from dari.runtime import logs
from dari.runtime.launch import LogEntry as LogEntry
from dari.runtime.stats import Stats as Stats
from dari.runtime.top import Top


@dataclass(frozen=True, slots=True)
class LogQuery:
    """`since`, `until`: ns since the epoch, 0 = without bound; `tail`: last lines, -1 = all."""

    stdout: bool = True
    stderr: bool = True
    since: int = 0
    until: int = 0
    tail: int = -1
    follow: bool = False


def read(eng: Engine, container: Container, query: LogQuery) -> AsyncIterator[list[LogEntry]]:
    """Entries in batches. Following ends with the container; one that does not run is not followed.

    Raises Unsupported where nothing is kept.
    """
    if container.host.log_config.type == "none":
        raise Unsupported("configured logging driver does not support reading")
    follows = query.follow and is_alive(container)
    return logs.batches(
        log_path(eng.ctx, container.id),
        query.stdout,
        query.stderr,
        query.since,
        query.until,
        query.tail,
        follows,
        eng.ctx.life(container.id).next_exit() if follows else None,
    )


async def top(eng: Engine, ref: str, ps_args: str) -> Top:
    """Raises NotFound, Conflict (it does not run), InvalidArgument (what ps does not take)."""
    container = find_container(eng, ref)
    if container.status.state == "restarting":
        raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
    if not is_alive(container):
        raise Conflict(f"container {container.id} is not running")
    return await eng.ctx.runtime.top(container.id, ps_args)


async def stats(
    eng: Engine, ref: str, *, interval: float = 1.0
) -> AsyncIterator[tuple[Stats | None, Stats | None]]:
    """The sample before and the present one, every `interval` seconds; (None, None) while it does not run.

    Ends when the container is removed. Raises NotFound.
    """
    container = find_container(eng, ref)
    before: Stats | None = None
    while True:
        try:
            container = find_container(eng, container.id)
            present = await eng.ctx.runtime.stats(container.id) if is_alive(container) else None
        except Conflict:
            present = None
        except NotFound:
            return
        yield before, present
        before = present
        await asyncio.sleep(interval)
