"""Starting, stopping and removing containers, and what else changes them.

Each function takes a reference as the user wrote it. A container's lock is held for what changes it and never while
waiting for its end. Must not know: JSON, HTTP. Source: Docker Engine API v1.51.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

from dari.engine import look
from dari.engine.base import Engine, commit
from dari.engine.filters import Filters, select_pruned
from dari.engine.lookup import find_container
from dari.engine.naming import check_name
from dari.engine.signals import parse_signal
from dari.model.container import Container
from dari.model.errors import Conflict, DariError, InvalidArgument, NotFound, NotModified
from dari.model.event import Event
from dari.reconcile import containers, endpoints, watch
from dari.reconcile.journal import announce, emit
from dari.reconcile.networks import of_sandbox
from dari.reconcile.rows import change, event, with_status
from dari.reconcile.settle import settle
from dari.store.base import Txn, TxnConflict

log = logging.getLogger(__name__)

SIGKILL = 9
DEFAULT_STOP_SECONDS = 10
_KILL_SECONDS = 10.0

Condition = Literal["not-running", "next-exit", "removed"]


async def start(eng: Engine, ref: str) -> None:
    """Raises NotFound, NotModified (it runs), Conflict (paused, being removed, a port is taken), InvalidArgument
    (its command cannot be executed), Internal."""
    container = find_container(eng, ref)
    async with eng.ctx.lock(container.id):
        container = find_container(eng, container.id)
        match container.status.state:
            case "running":
                raise NotModified(f"container {container.name} is already running")
            case "paused":
                raise Conflict("cannot start a paused container, try unpause instead")
            case "removing" | "dead":
                raise Conflict(f"container is marked for removal and cannot be started: {container.name}")
            case "restarting":
                await watch.cancel_restart(eng.ctx, container.id)
        try:
            await watch.start(eng.ctx, container.id)
        except BaseException:
            if container.host.auto_remove:
                await containers.remove(eng.ctx, container.id, with_volumes=True)
            raise


async def stop(eng: Engine, ref: str, *, timeout: int | None = None, signal: str = "") -> None:
    """Ask the container to end, kill it after `timeout` seconds (None = its own, else 10; -1 = wait for ever).

    Raises NotFound, NotModified (it does not run), InvalidArgument (no such signal).
    """
    container = find_container(eng, ref)
    if container.status.state not in ("running", "paused", "restarting"):
        raise NotModified(f"container {container.name} is not running")
    await _stop(eng, container, timeout, signal)
    await _announce(eng, container, "stop")


async def restart(eng: Engine, ref: str, *, timeout: int | None = None, signal: str = "") -> None:
    """Stop if it runs, then start. An auto-removed container stays. Raises as `stop` and `start`."""
    container = find_container(eng, ref)
    life = eng.ctx.life(container.id)
    if container.status.state in ("running", "paused", "restarting"):
        life.is_kept = True
        try:
            await _stop(eng, container, timeout, signal)
        finally:
            life.is_kept = False
    await start(eng, container.id)
    await _announce(eng, container, "restart")


async def _stop(eng: Engine, container: Container, timeout: int | None, signal: str) -> None:
    number = parse_signal(signal or container.config.stop_signal or "TERM")
    if timeout is None:
        timeout = (
            container.config.stop_timeout
            if container.config.stop_timeout is not None
            else DEFAULT_STOP_SECONDS
        )
    ctx = eng.ctx
    async with ctx.lock(container.id):
        container = await _wants_stopped(eng, container)
        if container.status.state == "restarting":
            await watch.cancel_restart(ctx, container.id)
            return
        if not containers.is_alive(container):
            return
        ended = ctx.life(container.id).next_exit()
        if not await _signal(eng, container, number):
            return
    done, _ = await asyncio.wait({ended}, timeout=None if timeout < 0 else timeout)
    if not done:
        await _signal(eng, container, SIGKILL)
        await ended


async def _wants_stopped(eng: Engine, container: Container) -> Container:
    return await change(
        eng.ctx,
        container.id,
        lambda row: msgspec.structs.replace(
            with_status(row, is_stopped_by_user=True), desired_state="stopped"
        ),
    )


async def _signal(eng: Engine, container: Container, number: int) -> bool:
    """Whether there was somebody to signal. A paused container is woken, or it could not act on the signal."""
    ctx = eng.ctx
    try:
        await ctx.runtime.signal(container.id, number)
        if container.status.state == "paused":
            await ctx.runtime.unpause(container.id)
    except (Conflict, NotFound):
        # It ended by itself between the look and the signal; its watcher is on the way.
        return ctx.life(container.id).watcher is not None
    await announce(ctx, event(container, "kill", signal=str(number)))
    return True


async def kill(eng: Engine, ref: str, signal: str = "") -> None:
    """Send a signal (default KILL). Raises NotFound, Conflict (it does not run), InvalidArgument."""
    number = parse_signal(signal or "KILL")
    try:
        container = find_container(eng, ref)
    except NotFound as missing:
        raise NotFound(f"cannot kill container: {ref}: {missing.message}") from None
    ctx = eng.ctx
    ended: asyncio.Future[int] | None = None
    async with ctx.lock(container.id):
        container = find_container(eng, container.id)
        if container.status.state == "restarting":
            await _wants_stopped(eng, container)
            await watch.cancel_restart(ctx, container.id)
            return
        if not containers.is_alive(container):
            raise Conflict(f"cannot kill container: {ref}: container {container.id} is not running")
        own = parse_signal(container.config.stop_signal or "TERM")
        if number in (SIGKILL, own):
            container = await _wants_stopped(eng, container)
        if number == SIGKILL:
            ended = ctx.life(container.id).next_exit()
        if not await _signal(eng, container, number):
            raise Conflict(f"cannot kill container: {ref}: container {container.id} is not running")
    if ended is not None:
        # Docker answers when the container is gone, so that `rm` right after `kill` works.
        await asyncio.wait({ended}, timeout=_KILL_SECONDS)


async def pause(eng: Engine, ref: str) -> None:
    """Raises NotFound, Conflict."""
    container = find_container(eng, ref)
    async with eng.ctx.lock(container.id):
        container = find_container(eng, container.id)
        if container.status.state == "paused":
            raise Conflict(f"Container {container.id} is already paused")
        if container.status.state == "restarting":
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        if container.status.state != "running":
            raise Conflict(f"Container {container.id} is not running")
        await eng.ctx.runtime.pause(container.id)
        watch.stop_health(eng.ctx, container.id)
        await _set_state(eng, container.id, "paused", "pause")


async def unpause(eng: Engine, ref: str) -> None:
    """Raises NotFound, Conflict."""
    container = find_container(eng, ref)
    async with eng.ctx.lock(container.id):
        container = find_container(eng, container.id)
        if container.status.state != "paused":
            raise Conflict(f"Container {container.id} is not paused")
        await eng.ctx.runtime.unpause(container.id)
        container = await _set_state(eng, container.id, "running", "unpause")
        watch.watch_health(eng.ctx, container)


async def _set_state(eng: Engine, container_id: str, state: str, action: str) -> Container:
    return await change(
        eng.ctx, container_id, lambda row: with_status(row, state=state), lambda row: event(row, action)
    )


async def rename(eng: Engine, ref: str, new: str) -> None:
    """Raises NotFound, InvalidArgument, Conflict (the name is in use)."""
    container = find_container(eng, ref)
    if not new:
        raise InvalidArgument("Neither old nor new names may be empty")
    ctx = eng.ctx
    async with ctx.lock(container.id):
        container = find_container(eng, container.id)
        if new.removeprefix("/") == container.name:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        try:
            name = check_name(f"/{new.removeprefix('/')}")
            await _write_name(eng, container, name)
        except (InvalidArgument, Conflict) as refused:
            raise type(refused)(f"Error when allocating new name: {refused.message}") from None
    networks = [each.network_id for each in of_sandbox(ctx, container.sandbox_id) if each.is_active]
    await settle(ctx, container.id, *networks)


async def _write_name(eng: Engine, container: Container, name: str) -> None:
    tables, ctx = eng.ctx.tables, eng.ctx
    owner = tables.names.get(ctx.local, name)
    txn = Txn()
    renamed = msgspec.structs.replace(container, name=name)
    tables.containers.replace(txn, ctx.local, renamed, container.id)
    tables.names.insert(txn, container.id, name)
    tables.names.delete(txn, container.name)
    for endpoint in of_sandbox(ctx, container.sandbox_id):
        if endpoint.container_id == container.id and endpoint.dns_names:
            # The old name may be its host name, too.
            names = endpoints.dns_names(ctx, renamed, endpoint)
            endpoint = msgspec.structs.replace(endpoint, dns_names=names)
            tables.endpoints.put(txn, endpoint, endpoint.network_id, endpoint.id)
    for other in tables.containers.all(ctx.local):
        links = [_relinked(link, container.name, name, other.id == container.id) for link in other.host.links]
        if links != other.host.links:
            row = renamed if other.id == container.id else other
            host = msgspec.structs.replace(row.host, links=links)
            tables.containers.replace(txn, ctx.local, msgspec.structs.replace(row, host=host), other.id)
    emit(ctx, txn, event(renamed, "rename", oldName=f"/{container.name}"))
    try:
        if owner is None:
            await commit(eng, txn)
            return
    except TxnConflict:
        owner = tables.names.get(ctx.local, name) or "?"
    raise Conflict(
        f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )


def _relinked(link: str, old: str, new: str, is_own: bool) -> str:
    """`/target:/name/alias` with a renamed target or (in the renamed container's own links) name."""
    target, _, path = link.partition(":")
    if target == f"/{old}":
        target = f"/{new}"
    if is_own and path.startswith(f"/{old}/"):
        path = f"/{new}/{path.removeprefix(f'/{old}/')}"
    return f"{target}:{path}"


async def remove_link(eng: Engine, ref: str) -> None:
    """Take the link `app/db` from `app`. Raises NotFound, Conflict (that is a container's own name)."""
    path = f"/{ref.lstrip('/')}"
    owner_name, _, alias = path[1:].partition("/")
    if not alias:
        raise Conflict("Conflict, cannot remove the default link name of the container")
    find_container(eng, ref)
    owner = find_container(eng, owner_name)
    ctx = eng.ctx

    def without(row: Container) -> Container:
        links = [each for each in row.host.links if each.partition(":")[2] != path]
        return msgspec.structs.replace(row, host=msgspec.structs.replace(row.host, links=links))

    async with ctx.lock(owner.id):
        await change(ctx, owner.id, without)
    networks = [each.network_id for each in of_sandbox(ctx, owner.sandbox_id) if each.is_active]
    await settle(ctx, owner.id, *networks)


async def remove(eng: Engine, ref: str, *, force: bool = False, with_volumes: bool = False) -> None:
    """Remove a container, with `force` also one that runs. Raises NotFound, Conflict."""
    container = find_container(eng, ref)
    ctx = eng.ctx
    if container.status.state in ("running", "paused", "restarting"):
        if not force:
            raise Conflict(
                f'cannot remove container "/{container.name}": {_REFUSALS[container.status.state]}'
            )
        await _end(eng, container, with_volumes)
    async with ctx.lock(container.id):
        found = ctx.tables.containers.get(ctx.local, container.id)
        if found is None:
            # Auto-removed while it was being ended: what was asked is done.
            return
        if found.status.state == "removing" and not force:
            raise Conflict(f"removal of container {ref} is already in progress")
        if containers.is_alive(found):
            raise Conflict(f'cannot remove container "/{container.name}": it was started again meanwhile')
        await containers.remove(ctx, container.id, with_volumes=with_volumes)


_REFUSALS = {
    "running": "container is running: stop the container before removing or force remove",
    "paused": "container is paused and must be unpaused first",
    "restarting": "container is restarting: stop the container before removing or force remove",
}


async def _end(eng: Engine, container: Container, with_volumes: bool) -> None:
    """Kill for good: no restart, and nobody removes it but the caller."""
    ctx = eng.ctx
    async with ctx.lock(container.id):
        container = await change(
            ctx,
            container.id,
            lambda row: msgspec.structs.replace(
                with_status(row, is_stopped_by_user=True, is_removing_volumes=with_volumes),
                desired_state="removed",
            ),
        )
        if container.status.state == "restarting":
            await watch.cancel_restart(ctx, container.id)
            return
        if not containers.is_alive(container):
            return
        ended = ctx.life(container.id).next_exit()
        is_signalled = await _signal(eng, container, SIGKILL)
    if is_signalled:
        await ended


async def wait(eng: Engine, ref: str, condition: Condition = "not-running") -> Callable[[], Awaitable[int]]:
    """What waits for the exit code. The waiting begins at once, so nothing that ends in between is missed.

    Raises NotFound.
    """
    container = find_container(eng, ref)
    life = eng.ctx.life(container.id)
    if condition == "not-running" and container.status.state not in ("running", "paused", "restarting"):
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.set_result(container.status.exit_code)
    elif condition == "removed":
        future = life.removal()
    else:
        future = life.next_exit()

    async def result() -> int:
        return await future

    return result


async def _announce(eng: Engine, container: Container, action: str) -> None:
    await announce(eng.ctx, event(container, action))


async def prune(eng: Engine, filters: Filters) -> tuple[list[str], int]:
    """Remove stopped containers; their ids and the bytes they had written. Raises InvalidArgument."""
    ctx = eng.ctx
    removed: list[str] = []
    reclaimed = 0
    for view in select_pruned(look.views(eng), filters, ctx.now()):
        container = view.container
        try:
            written = await asyncio.to_thread(ctx.images.rootfs.size, container.id)
            async with ctx.lock(container.id):
                row = ctx.tables.containers.get(ctx.local, container.id)
                if row is None or row.status.state not in ("created", "exited", "dead"):
                    continue
                await containers.remove(ctx, container.id, with_volumes=False)
        except (DariError, OSError) as error:
            log.warning("pruning container %s: %s", container.name, error)
            continue
        removed.append(container.id)
        reclaimed += written
    pruned = Event(type="container", action="prune", actor_id="", attributes={"reclaimed": str(reclaimed)})
    await announce(ctx, pruned)
    return removed, reclaimed
