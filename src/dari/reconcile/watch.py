"""Containers that end: who notices, what happens next, and how a new daemon takes up the watch.

One task per running container waits for its conmon; an exit is written down, then the container restarts, goes away
or stays. Must not know: HTTP, who asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import msgspec

from dari.model.container import Container
from dari.model.errors import DariError, NotFound, Unavailable
from dari.reconcile import endpoints, health
from dari.reconcile.containers import bring_up, is_alive, record_exit, remove, take_down
from dari.reconcile.context import Context
from dari.reconcile.restart import Verdict, after_exit, at_boot
from dari.reconcile.rows import change, event, find, with_status
from dari.reconcile.settle import settle_quietly
from dari.runtime.launch import Exit
from dari.units import SECOND

log = logging.getLogger(__name__)

_SHORTEST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.5, 10.0

LOST = 255
"""The exit code of a container that ended while nobody could see it (a reboot, a killed conmon)."""


async def start(ctx: Context, container_id: str, *, restart_count: int = 0) -> Container:
    """Bring a container up and watch it. The caller holds its lock; raises as `bring_up`."""
    life = ctx.life(container_id)
    if restart_count == 0:
        life.last_delay = 0
    container = await bring_up(ctx, container_id, restart_count=restart_count)
    life.begun = time.monotonic_ns()
    watch(ctx, container)
    return container


def watch(ctx: Context, container: Container) -> None:
    """Wait for the end of a running container, and check its health meanwhile."""
    life = ctx.life(container.id)
    life.watcher = _spawn(ctx, _wait(ctx, container.id), f"watch {container.short_id}")
    watch_health(ctx, container)


def watch_health(ctx: Context, container: Container) -> None:
    life = ctx.life(container.id)
    if container.status.health is not None and container.status.state == "running":
        life.health = _spawn(ctx, health.check(ctx, container.id), f"health {container.short_id}")


def stop_health(ctx: Context, container_id: str) -> None:
    """A paused or ended container is not asked how it is."""
    life = ctx.life(container_id)
    if life.health is not None:
        life.health.cancel()
        life.health = None


async def _wait(ctx: Context, container_id: str) -> None:
    ended = await ctx.runtime.wait_exit(container_id)
    await _after_end_at_last(ctx, container_id, ended)


async def _after_end_at_last(ctx: Context, container_id: str, ended: Exit) -> None:
    """`after_end`, again and again while the store takes nothing (its disk is full, say): an end must not be lost."""
    delay = _SHORTEST_RETRY_SECONDS
    while True:
        try:
            return await after_end(ctx, container_id, ended)
        except Unavailable as error:
            log.error("the end of container %s is not written down yet: %s", container_id[:12], error.message)
        await asyncio.sleep(delay)
        delay = min(2 * delay, _LONGEST_RETRY_SECONDS)


async def after_end(ctx: Context, container_id: str, ended: Exit) -> None:
    """Everything that follows an exit: status and events at once, then clean-up, then restart or removal."""
    life = ctx.life(container_id)
    async with ctx.lock(container_id):
        container = ctx.tables.containers.get(ctx.local, container_id)
        if container is None:
            return
        stop_health(ctx, container_id)
        life.watcher = None
        ran_for = life.ran_for(container.status.started, ended.finished)
        verdict = after_exit(container, ended.code, life.last_delay, ran_for)
        container = await record_exit(
            ctx, container_id, ended, restart_count=verdict.count if verdict.restarts else None
        )
        removes = container.host.auto_remove and not verdict.restarts and not life.is_kept
        if removes and container.desired_state != "removed" and await _remove_quietly(ctx, container):
            # The removal cleaned up, and told the end as well as itself.
            return
        await asyncio.gather(
            take_down(ctx, container_id), settle_quietly(ctx, container_id, container.sandbox_id)
        )
        life.tell_exit(ended.code)
        if verdict.restarts:
            restart_later(ctx, container, verdict)


async def _remove_quietly(ctx: Context, container: Container) -> bool:
    """Whether it is gone; what stood in the way is in the log."""
    try:
        await remove(ctx, container.id, with_volumes=True)
        return True
    except (DariError, OSError) as error:
        log.error("removing container %s after its end: %s", container.name, error)
        return False


def restart_later(ctx: Context, container: Container, verdict: Verdict) -> None:
    """Start again after the policy's wait, unless somebody stops or removes the container before."""
    life = ctx.life(container.id)
    life.last_delay = verdict.delay
    life.restart = _spawn(ctx, _restart(ctx, container.id, verdict), f"restart {container.short_id}")


async def _restart(ctx: Context, container_id: str, verdict: Verdict) -> None:
    await asyncio.sleep(verdict.delay / SECOND)
    life = ctx.life(container_id)
    async with ctx.lock(container_id):
        container = ctx.tables.containers.get(ctx.local, container_id)
        if container is None or container.status.state != "restarting":
            return
        life.restart = None
        try:
            await start(ctx, container_id, restart_count=verdict.count)
        except (DariError, OSError) as error:
            log.error("restarting container %s: %s", container.name, error)
            if isinstance(error, Unavailable):
                _start_at_last(ctx, container)
            left = ctx.tables.containers.get(ctx.local, container_id)
            if left is not None and left.status.state == "restarting":
                # Not even its failure could be written down: it is still waiting for its restart.
                delay = min(max(2 * verdict.delay, SECOND), int(_LONGEST_RETRY_SECONDS * SECOND))
                restart_later(ctx, container, replace(verdict, delay=delay))


async def cancel_restart(ctx: Context, container_id: str) -> None:
    """A waiting restart is called off: the container counts as ended. The caller holds the lock."""
    life = ctx.life(container_id)
    if life.restart is not None:
        life.restart.cancel()
        life.restart = None
    container = await change(
        ctx,
        container_id,
        lambda row: with_status(row, state="exited"),
        also=lambda txn, row: endpoints.deactivate(ctx, txn, row.id),
    )
    await settle_quietly(ctx, container_id, container.sandbox_id)
    life.tell_exit(find(ctx, container_id).status.exit_code)


async def adopt(ctx: Context) -> None:
    """Take up every container of the store as an earlier daemon left it; running ones are never touched.

    Those that ended meanwhile are treated as if they ended now; half-made starts and removals are undone or
    finished; policies start what should run.
    """
    containers = ctx.tables.containers.all(ctx.local)
    await asyncio.gather(*(_adopt_one(ctx, container) for container in containers))


async def start_wanted(ctx: Context) -> None:
    """Start what its policy wants running; those whose network or namespaces others own come after them."""
    waiting = [each for each in ctx.tables.containers.all(ctx.local) if _starts_at_boot(each)]
    for is_joining in (False, True):
        batch = sorted((each for each in waiting if _joins(each) is is_joining), key=lambda c: c.created)
        refused = await asyncio.gather(*(_start_wanted(ctx, each.id) for each in batch))
        for each, is_again in zip(batch, refused, strict=True):
            if is_again:
                _start_at_last(ctx, each)


def _starts_at_boot(container: Container) -> bool:
    return container.status.state == "exited" and at_boot(container)


def _joins(container: Container) -> bool:
    host = container.host
    return any(mode.startswith("container:") for mode in (host.network_mode, host.pid_mode, host.ipc_mode))


async def _start_wanted(ctx: Context, container_id: str) -> bool:
    """Whether it is to be tried again: what refused it passes by itself (the store is away, say)."""
    async with ctx.lock(container_id):
        container = ctx.tables.containers.get(ctx.local, container_id)
        if container is None or not _starts_at_boot(container):
            return False
        try:
            await start(ctx, container_id)
        except (DariError, OSError) as error:
            log.error("starting container %s: %s", container.name, error)
            return isinstance(error, Unavailable)
    return False


def _start_at_last(ctx: Context, container: Container) -> None:
    """Start what its policy wants running, again and again until it runs or nobody wants it."""

    async def again() -> None:
        delay = 2 * _SHORTEST_RETRY_SECONDS
        while True:
            await asyncio.sleep(delay)
            if not await _start_wanted(ctx, container.id):
                return
            delay = min(2 * delay, _LONGEST_RETRY_SECONDS)

    _spawn(ctx, again(), f"start {container.short_id}")


async def _adopt_one(ctx: Context, container: Container) -> None:
    try:
        await _adopt(ctx, container)
    except NotFound:
        return
    except (DariError, OSError) as error:
        log.error("adopting container %s: %s", container.name, error)


async def _adopt(ctx: Context, container: Container) -> None:
    state = container.status.state
    is_left_over = container.host.auto_remove and state == "exited"
    if state == "removing" or container.desired_state == "removed" or is_left_over:
        async with ctx.lock(container.id):
            with_volumes = container.host.auto_remove or container.status.is_removing_volumes
            await remove(ctx, container.id, with_volumes=with_volumes)
        return
    found = await ctx.runtime.adopt(container.id)
    if found is not None and found.exit is None and found.state in ("running", "paused"):
        await _adopt_living(ctx, container, found.state, found.pid, found.conmon_pid)
        return
    if is_alive(container):
        ended = (
            found.exit
            if found is not None and found.exit is not None
            else Exit(code=LOST, finished=ctx.now())
        )
        try:
            await after_end(ctx, container.id, ended)
        except Unavailable:
            life = ctx.life(container.id)
            work = _after_end_at_last(ctx, container.id, ended)
            life.watcher = _spawn(ctx, work, f"end of {container.short_id}")
        return
    if found is not None:
        # A start that was under way when the daemon died; nobody was told that it succeeded.
        await _undo_start(ctx, container)
    elif container.desired_state == "running" and state != "restarting":
        await _undo_start(ctx, container)
    elif ctx.images.rootfs.is_mounted(container.id):
        # Its end was written down, and the clean-up cut short.
        await take_down(ctx, container.id)
    if state == "restarting":
        count = container.status.restart_count
        restart_later(ctx, container, Verdict(restarts=True, delay=SECOND // 10, count=count))


async def _adopt_living(ctx: Context, container: Container, state: str, pid: int, conmon_pid: int) -> None:
    if state == "paused" and container.status.state == "running":
        # A commit or a pause was cut short, and nobody was told of it.
        try:
            await ctx.runtime.unpause(container.id)
            state = "running"
        except (DariError, OSError) as error:
            log.error("container %s stays paused: %s", container.name, error)
    if not is_alive(container):
        # The command was let go, and the daemon died before it could say so.
        container = await change(
            ctx,
            container.id,
            lambda row: with_status(
                row, state=state, pid=pid, conmon_pid=conmon_pid, exit_code=0, error="", started=ctx.now()
            ),
            lambda row: event(row, "start"),
        )
    elif container.status.state != state:
        container = await change(ctx, container.id, lambda row: with_status(row, state=state))
    watch(ctx, container)


async def _undo_start(ctx: Context, container: Container) -> None:
    async with ctx.lock(container.id):
        await take_down(ctx, container.id)
        wanted = "stopped" if container.status.finished else "created"
        await change(
            ctx,
            container.id,
            lambda row: msgspec.structs.replace(row, desired_state=wanted),
            also=lambda txn, row: endpoints.deactivate(ctx, txn, row.id),
        )
        await settle_quietly(ctx, container.id, container.sandbox_id)


def _spawn(ctx: Context, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    task = asyncio.create_task(work, name=name)
    ctx.tasks.add(task)
    task.add_done_callback(ctx.tasks.discard)
    task.add_done_callback(_log_failure)
    return task


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("%s failed", task.get_name(), exc_info=task.exception())
