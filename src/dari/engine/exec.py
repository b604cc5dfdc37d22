"""Further processes in running containers: made, started, resized, looked at.

An exec lives in memory, as long as its container and this daemon. Must not know: JSON, HTTP. Source: Docker Engine
API v1.51, "Exec".
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

import msgspec

from dari.engine.base import Engine
from dari.engine.lookup import find_container
from dari.model.container import Container
from dari.model.errors import Conflict, InvalidArgument, NotFound
from dari.reconcile.journal import announce
from dari.reconcile.rows import event
from dari.runtime.exec import ExecHandle
from dari.runtime.launch import ExecSpec as ExecSpec
from dari.units import new_id

_KEPT_ENDED = 256
# How long a resize waits for the process it is meant for.
_START_SECONDS = 10.0


@dataclass(slots=True)
class Exec:
    """`exit_code` None until it has ended; `handle` None until it was started."""

    id: str
    container_id: str
    spec: ExecSpec
    detach_keys: str = ""
    # When the container it was made in was started.
    run: int = 0
    handle: ExecHandle | None = None
    is_running: bool = False
    is_started: bool = False
    exit_code: int | None = None
    # Runs, or never will.
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pid(self) -> int:
        return self.handle.pid if self.handle is not None and self.is_running else 0


def _room(eng: Engine) -> dict[str, Exec]:
    room: dict[str, Exec] = eng.rooms.setdefault("exec", {})
    return room


def find(eng: Engine, exec_id: str) -> Exec:
    """Raises NotFound."""
    room = _room(eng)
    found = room.get(exec_id)
    if found is None:
        matches = [each for each in room.values() if len(exec_id) >= 4 and each.id.startswith(exec_id)]
        found = matches[0] if len(matches) == 1 else None
    if found is None or eng.ctx.tables.containers.get(eng.ctx.local, found.container_id) is None:
        raise NotFound(f"No such exec instance: {exec_id}")
    return found


async def create(eng: Engine, ref: str, spec: ExecSpec, detach_keys: str = "") -> Exec:
    """Raises NotFound, Conflict (the container does not run, is paused), InvalidArgument (no command, no such user)."""
    container = find_container(eng, ref)
    _check_running(container, ref)
    if not spec.cmd:
        raise InvalidArgument("No exec command specified")
    if spec.user:
        eng.ctx.runtime.exec_check(container.id, spec.user)
    made = Exec(
        id=new_id(),
        container_id=container.id,
        spec=spec,
        detach_keys=detach_keys,
        run=container.status.started,
    )
    room = _room(eng)
    room[made.id] = made
    _forget_old(eng, room)
    await announce(eng.ctx, event(container, f"exec_create: {_line(spec)}", execID=made.id))
    return made


def _line(spec: ExecSpec) -> str:
    """The command as Docker's events tell it: a blank after the program even where nothing follows."""
    return f"{spec.cmd[0]} {' '.join(spec.cmd[1:])}"


def _check_running(container: Container, ref: str) -> None:
    state = container.status.state
    if state == "paused":
        raise Conflict(f"Container {ref} is paused, unpause the container before exec")
    if state == "restarting":
        raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
    if state != "running":
        raise Conflict(f"container {container.id} is not running")


def _forget_old(eng: Engine, room: dict[str, Exec]) -> None:
    """Execs of removed containers, and all but the last ended ones, are of no use to anybody."""
    tables, store = eng.ctx.tables, eng.ctx.local
    gone = [each.id for each in room.values() if tables.containers.get(store, each.container_id) is None]
    ended = [each.id for each in room.values() if each.exit_code is not None]
    for exec_id in {*gone, *ended[:-_KEPT_ENDED]}:
        room.pop(exec_id, None)


def find_startable(eng: Engine, exec_id: str) -> Exec:
    """One whose container runs; whether it was started before is `start`'s to say.

    Raises NotFound (its container has ended), Conflict (that is paused).
    """
    found = find(eng, exec_id)
    container = find_container(eng, found.container_id)
    is_over = container.status.state not in ("running", "paused", "restarting")
    if is_over or container.status.started != found.run:
        # As in Docker, what was made to be run in a container goes with its end.
        raise NotFound(f"No such exec instance: {exec_id}")
    _check_running(container, container.id)
    return found


async def start(eng: Engine, exec_id: str, *, is_detached: bool, console_size: list[int]) -> ExecHandle:
    """Run it. The streams are the caller's; without a caller (detached) they are read and thrown away.

    Raises NotFound, Conflict (started before, too), ExecRefused (the command cannot be executed).
    """
    found = find_startable(eng, exec_id)
    if found.is_started:
        state = "is already running" if found.exit_code is None else "has already run"
        raise Conflict(f"Error: Exec command {found.id} {state}")
    container = find_container(eng, found.container_id)
    found.is_started = True
    spec = _with_size(found.spec, console_size)
    try:
        handle = await eng.ctx.runtime.exec_start(container.id, spec)
    except BaseException as error:
        found.exit_code = getattr(error, "exit_code", 126)
        found.begun.set()
        found.ended.set()
        raise
    found.handle, found.is_running = handle, True
    found.begun.set()
    action = f"exec_start: {_line(spec)}"
    await announce(eng.ctx, event(container, action, execID=found.id))
    task = asyncio.create_task(
        _watch(eng, found, container, handle, is_detached), name=f"exec {found.id[:12]}"
    )
    eng.ctx.tasks.add(task)
    task.add_done_callback(eng.ctx.tasks.discard)
    return handle


def _with_size(spec: ExecSpec, console_size: list[int]) -> ExecSpec:
    return msgspec.structs.replace(spec, console_size=console_size) if any(console_size) else spec


async def _watch(
    eng: Engine, found: Exec, container: Container, handle: ExecHandle, is_detached: bool
) -> None:
    if is_detached:
        await handle.close_stdin()
        # A process whose output nobody reads would stop at a full pipe.
        while await handle.read() is not None:
            pass
    found.exit_code = await handle.wait()
    found.is_running = False
    found.ended.set()
    await announce(eng.ctx, event(container, "exec_die", execID=found.id, exitCode=str(found.exit_code)))


async def resize(eng: Engine, exec_id: str, height: int, width: int) -> None:
    """Clients ask as soon as the answer to their start begins: what is about to run is waited for, as in Docker.

    Raises NotFound, Conflict.
    """
    found = find(eng, exec_id)
    if found.exit_code is None and not found.is_running:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(found.begun.wait(), _START_SECONDS)
    if found.handle is None or not found.is_running:
        raise Conflict(f"exec {exec_id} is not running")
    found.handle.resize(height, width)
