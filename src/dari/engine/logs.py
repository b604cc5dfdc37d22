"""What containers wrote: the log conmon keeps, read in spans or followed. Numbers of what they use, too.

Must not know: HTTP, frames, the log's format. Source: Docker Engine API v1.51, `ContainerLogs`, `ContainerStats`,
`ContainerTop`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from dari.engine.base import Engine
from dari.engine.lookup import find_container
from dari.model.container import Container
from dari.model.errors import Conflict, NotFound, Unsupported
from dari.reconcile.containers import is_alive, log_path
from dari.reconcile.journal import announce
from dari.reconcile.rows import event
from dari.runtime import logs
from dari.runtime.launch import LogEntry as LogEntry
from dari.runtime.stats import Stats as Stats
from dari.runtime.top import Top


@dataclass(frozen=True, slots=True)
class LogQuery:
    """`since`, `until`: ns since the epoch, 0 = without bound; `tail`: last lines, -1 = all.

    `cuts_lines`: a line goes no further than it was written until then.
    """

    stdout: bool = True
    stderr: bool = True
    since: int = 0
    until: int = 0
    tail: int = -1
    follow: bool = False
    cuts_lines: bool = False


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
        query.cuts_lines,
    )


def details(container: Container) -> dict[str, str]:
    """What the log options `labels`, `env`, their `-regex` kin and `tag` make each line bear, for who asks for it."""
    options = container.host.log_config.config
    env = dict(entry.partition("=")[::2] for entry in container.config.env)
    found: dict[str, str] = {}
    for source, names, pattern in (
        (container.config.labels, options.get("labels", ""), options.get("labels-regex", "")),
        (env, options.get("env", ""), options.get("env-regex", "")),
    ):
        found |= {name: source[name] for name in names.split(",") if name in source}
        if pattern:
            found |= {name: value for name, value in source.items() if _matches(pattern, name)}
    if tag := options.get("tag"):
        found["tag"] = _tag(tag, container)
    return found


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return False


def _tag(text: str, container: Container) -> str:
    """The template of a tag with what Docker's documentation says may stand in it."""
    image = container.image_id.removeprefix("sha256:")
    values = {
        "ID": container.short_id,
        "FullID": container.id,
        "Name": container.name,
        "ImageID": image[:12],
        "ImageFullID": container.image_id,
        "ImageName": container.config.image,
        "DaemonName": "docker",
    }
    return re.sub(r"\{\{\s*\.(\w+)\s*\}\}", lambda found: values.get(found[1], found[0]), text)


async def top(eng: Engine, ref: str, ps_args: str) -> Top:
    """Raises NotFound, Conflict (it does not run), InvalidArgument (what ps does not take)."""
    container = find_container(eng, ref)
    if container.status.state == "restarting":
        raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
    if not is_alive(container):
        raise Conflict(f"container {container.id} is not running")
    found = await eng.ctx.runtime.top(container.id, ps_args)
    await announce(eng.ctx, event(container, "top"))
    return found


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
