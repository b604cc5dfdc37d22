"""A container's way up and its way down.

Up: addresses and ports, namespace, root file system, files, conmon, command. Down: the same backwards, whether the
command ended, a start failed half-way or an earlier daemon died in between. Who calls holds the container's lock.
Must not know: HTTP, who asked, how long to wait before a restart (watch.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Awaitable, Callable

import msgspec

from dari.model.container import Container, Health
from dari.model.errors import Conflict, DariError, Internal, NotFound
from dari.model.network import Sandbox
from dari.reconcile import endpoints, inheritance, links, names, pending, rootfs
from dari.reconcile.context import Context
from dari.reconcile.journal import emit
from dari.reconcile.rows import change, commit, event, find, volume_events, with_status
from dari.reconcile.settle import settle, settle_quietly
from dari.runtime.hostfacts import check_descriptors
from dari.runtime.launch import Exit, Launch
from dari.store.base import Txn

log = logging.getLogger(__name__)

LIVING = frozenset(("running", "paused"))


def is_alive(container: Container) -> bool:
    """Whether a process runs (paused counts)."""
    return container.status.state in LIVING


async def bring_up(ctx: Context, container_id: str, *, restart_count: int = 0) -> Container:
    """Start a container that does not run; after a failure nothing is left but the error in its status.

    Raises the kinds of what failed: Conflict (a port or address is taken, a joined container does not run),
    InvalidArgument (the command cannot be executed), Internal.
    """
    container = find(ctx, container_id)
    _check_joined(ctx, container)
    check_descriptors()
    if not os.path.isdir(ctx.config.netns_dir):
        root = ctx.config.exec_root
        raise Internal(
            f"{root}, darid's exec root, was removed under it: restart darid, which makes it again"
        )
    was, life = container, ctx.life(container_id)
    life.is_starting = True
    try:
        await pending.resolve(ctx, container_id)
        await inheritance.take_over(ctx, container_id)
        await endpoints.activate(
            ctx,
            container_id,
            lambda row: msgspec.structs.replace(
                with_status(row, is_stopped_by_user=False), desired_state="running"
            ),
        )
        created = await _launch(ctx, find(ctx, container_id))

        def told(txn: Txn, row: Container) -> None:
            for each in (*volume_events(row, "mount"), event(row, "start")):
                emit(ctx, txn, each)

        container = await change(
            ctx,
            container_id,
            lambda row: with_status(
                row,
                state="running",
                pid=created[0],
                conmon_pid=created[1],
                exit_code=0,
                error="",
                is_oom_killed=False,
                started=ctx.now(),
                restart_count=restart_count,
                health=Health() if has_health_check(row) else None,
            ),
            also=told,
        )
    except BaseException as error:
        # Before the undoing: of two that fail in one sandbox, the later one must not count the other.
        life.is_starting = False
        await _take_back(ctx, was, error)
        raise
    life.is_starting = False
    return container


def has_health_check(container: Container) -> bool:
    health = container.config.healthcheck
    return health is not None and health.test[:1] in (["CMD"], ["CMD-SHELL"])


async def _launch(ctx: Context, container: Container) -> tuple[int, int]:
    sandbox = _sandbox(ctx, container)
    mounting = asyncio.ensure_future(rootfs.mount(ctx, container))
    try:
        await settle(ctx, container.id)
    finally:
        # A mount that is still on its way must not come after the clean-up of a failed start.
        root = await mounting
    files = names.files_in(ctx, sandbox)
    made = await ctx.runtime.create(
        Launch(
            id=container.id,
            config=links.with_variables(ctx, container),
            host=container.host,
            args=[container.path, *container.args],
            rootfs=root,
            mounts=container.mounts,
            netns=_netns(ctx, container),
            hostname=names.hostname_in(ctx, sandbox),
            hosts_file=files.hosts,
            hostname_file=files.hostname,
            resolv_file=files.resolv,
            pid_of_pid=_joined_pid(ctx, container.host.pid_mode),
            pid_of_ipc=_joined_pid(ctx, container.host.ipc_mode),
            ipc_owner_id=joined_id(container.host.ipc_mode),
            log_path="" if container.host.log_config.type == "none" else log_path(ctx, container.id),
            sysctls=sandbox.sysctls if sandbox.mode == "own" else {},
        )
    )
    for warning in made.warnings:
        log.warning("container %s: %s", container.name, warning)
    life = ctx.life(container.id)
    for future in list(life.attachers):
        if not future.done():
            future.set_result(await ctx.runtime.attach(container.id))
    life.attachers.clear()
    await ctx.runtime.start(container.id)
    return made.pid, made.conmon_pid


def _sandbox(ctx: Context, container: Container) -> Sandbox:
    sandbox = ctx.tables.sandboxes.get(ctx.local, container.sandbox_id)
    if sandbox is None:
        raise NotFound(f"No such container: the container whose network {container.name} joins is gone")
    return sandbox


def _netns(ctx: Context, container: Container) -> str | None:
    """The namespace's path; None is the host's. A joined container's sandbox may be the host itself."""
    sandbox = _sandbox(ctx, container)
    return None if sandbox.mode == "host" else sandbox.netns


def joined_id(mode: str) -> str:
    """The id in `container:<id>`; empty for every other mode."""
    return mode.removeprefix("container:") if mode.startswith("container:") else ""


def _check_joined(ctx: Context, container: Container) -> None:
    """Raises Conflict where a container whose namespace is joined does not run."""
    host = container.host
    for mode, what in ((host.network_mode, "network"), (host.pid_mode, "PID"), (host.ipc_mode, "IPC")):
        owner_id = joined_id(mode)
        if not owner_id:
            continue
        if what == "network" and _is_shared_alive(ctx, container):
            continue
        owner = ctx.tables.containers.get(ctx.local, owner_id)
        if owner is None:
            raise NotFound(f"No such container: {owner_id}")
        if not is_alive(owner):
            if what == "IPC":
                raise Conflict(f"cannot join IPC of a non running container: {owner.id}")
            if what == "PID":
                raise Internal(f"failed to join PID namespace: container {owner.id} is not running")
            raise Conflict(
                f"cannot join {what} namespace of a non running container: container {owner.name} is "
                f"{owner.status.state}"
            )


def _is_shared_alive(ctx: Context, container: Container) -> bool:
    """Whether the sandbox a container shares is in use, be its owner running, stopped or gone."""
    sandbox = ctx.tables.sandboxes.get(ctx.local, container.sandbox_id)
    return sandbox is not None and sandbox.is_active


def _joined_pid(ctx: Context, mode: str) -> int:
    owner_id = joined_id(mode)
    return ctx.runtime.pid(owner_id) if owner_id else 0


def log_path(ctx: Context, container_id: str) -> str:
    return f"{ctx.config.containers_dir}/{container_id}/{container_id}-json.log"


async def _take_back(ctx: Context, was: Container, error: BaseException) -> None:
    """Undo a start that failed; what fails on the way is logged and the rest is done all the same."""
    message = error.message if isinstance(error, DariError) else str(error)
    code = getattr(error, "exit_code", 128)

    def failed(row: Container) -> Container:
        state = "exited" if was.status.finished else "created"
        row = with_status(row, state=state, exit_code=code, error=message, pid=0, conmon_pid=0)
        return msgspec.structs.replace(row, desired_state="stopped" if was.status.finished else "created")

    await take_down(ctx, was.id)
    await change(ctx, was.id, failed, also=lambda txn, row: endpoints.deactivate(ctx, txn, row.id))
    await settle_quietly(ctx, was.id)


async def take_down(ctx: Context, container_id: str) -> None:
    """Remove what a run leaves: crun's state, cgroups, the mounted root. Nothing there is fine; no error escapes."""
    steps: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
        ("runtime", lambda: ctx.runtime.delete(container_id)),
        ("root", lambda: rootfs.unmount(ctx, container_id)),
    )
    for what, step in steps:
        try:
            await step()
        except (DariError, OSError) as error:
            log.error("cleaning the %s of container %s: %s", what, container_id[:12], error)


async def record_exit(
    ctx: Context, container_id: str, exit: Exit, *, restart_count: int | None = None
) -> Container:
    """Write an exit down: status, freed addresses and ports, `die` (and `oom`), in one transaction.

    `restart_count` is the number of the restart that follows, None if none does; Docker counts it from the exit on.
    """
    finished = exit.finished or ctx.now()

    def ended(row: Container) -> Container:
        return with_status(
            row,
            state="exited" if restart_count is None else "restarting",
            restart_count=row.status.restart_count if restart_count is None else restart_count,
            pid=0,
            conmon_pid=0,
            exit_code=exit.code,
            is_oom_killed=exit.is_oom_killed,
            finished=finished,
            health=_ended_health(row),
        )

    def also(txn: Txn, row: Container) -> None:
        if exit.is_oom_killed:
            emit(ctx, txn, event(row, "oom"))
        seconds = max(0, finished - row.status.started) // 1_000_000_000
        emit(ctx, txn, event(row, "die", execDuration=str(seconds), exitCode=str(exit.code)))
        endpoints.deactivate(ctx, txn, row.id)
        for each in volume_events(row, "unmount"):
            emit(ctx, txn, each)

    return await change(ctx, container_id, ended, also=also)


def _ended_health(row: Container) -> Health | None:
    """A container that does not run is not healthy; Docker shows `unhealthy` after its end."""
    if row.status.health is None:
        return None
    return Health(
        status="unhealthy", failing_streak=row.status.health.failing_streak, log=row.status.health.log
    )


async def remove(ctx: Context, container_id: str, *, with_volumes: bool) -> None:
    """Remove a container that does not run, with its sandbox, files and (on wish) anonymous volumes.

    The row says `removing` first, so that a daemon killed half-way goes on at its next start.
    """
    container = await change(
        ctx,
        container_id,
        lambda row: msgspec.structs.replace(
            with_status(row, state="removing", is_removing_volumes=with_volumes), desired_state="removed"
        ),
        also=lambda txn, row: endpoints.deactivate(ctx, txn, row.id),
    )
    await take_down(ctx, container_id)
    await rootfs.remove(ctx, container)
    inheritance.keep_files(ctx, container)
    await asyncio.to_thread(_remove_files, ctx, container_id)
    await rootfs.release_volumes(ctx, container, with_volumes=with_volumes)

    def removed(txn: Txn) -> None:
        ctx.tables.containers.delete(txn, container_id)
        if ctx.tables.names.get(ctx.local, container.name) == container_id:
            ctx.tables.names.delete(txn, container.name)
        inheritance.remove(ctx, txn, container)
        emit(ctx, txn, event(container, "destroy"))

    await commit(ctx, f"container {container_id[:12]}", removed)
    await settle_quietly(ctx, container_id, container.sandbox_id)
    inheritance.forget_files(ctx, container.sandbox_id)
    ctx.life(container_id).tell_removal(container.status.exit_code)
    ctx.lives.pop(container_id, None)
    ctx.locks.pop(container_id, None)


def _remove_files(ctx: Context, container_id: str) -> None:
    for folder in (f"{ctx.config.containers_dir}/{container_id}", f"{ctx.config.run_dir}/{container_id}"):
        shutil.rmtree(folder, ignore_errors=True)
