"""The door to crun and conmon: one `Runtime` makes, starts, signals and removes the containers of this host.

A container hangs on its conmon, never on this process: whatever is asked here can be asked again by the next
daemon, which finds it by `adopt`. Must not know: networks (it gets a namespace path), stores, policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec

from dari.model.config import Config
from dari.model.container import HostConfig
from dari.model.errors import Conflict, Internal, NotFound, Unsupported
from dari.runtime import (
    attach,
    conmon,
    crun,
    exec,
    hostfacts,
    logfiles,
    prepare,
    processes,
    record,
    resources,
    rotation,
    stats,
    top,
)
from dari.runtime.cgroups import detect, freeze, kill_all, remove_all
from dari.runtime.exec import ExecHandle
from dari.runtime.failures import LaunchFailed, LaunchRefused, launch_failure
from dari.runtime.launch import Adopted, Created, ExecSpec, Exit, Launch, Stdio
from dari.runtime.layout import Layout, layout_of
from dari.runtime.processes import is_alive, open_pidfd, start_time, wait_pidfd
from dari.runtime.record import Record
from dari.runtime.sealed import Sealed

__all__ = [
    "Adopted",
    "Created",
    "ExecHandle",
    "ExecSpec",
    "Exit",
    "Launch",
    "LaunchFailed",
    "LaunchRefused",
    "Runtime",
    "Stdio",
]

# conmon ends within milliseconds of its container; a second means that it hangs.
_CONMON_PATIENCE = 2.0
_LOST = 255
T = TypeVar("T")


class Runtime:
    def __init__(self, config: Config) -> None:
        """Looks once at what this host has. Raises Internal if conmon, crun or the cgroups are missing.

        Raises Unsupported for another runtime: `start` and `delete` rest on how crun keeps its state.
        """
        if os.path.basename(config.runtime) != "crun":
            raise Unsupported(f"runtime {config.runtime}: only crun is supported")
        self._config = config
        self._conmon = _program("conmon")
        self._crun = Sealed(_program(config.runtime), f"{config.exec_root}/bin/crun")
        self._facts = hostfacts.host_facts()
        self._cgroups = detect()
        self._parent = f"/{config.cgroup_parent.strip('/')}"
        self._conmon_cgroup = f"{self._parent}/conmon"
        self._spawner = conmon.Spawner(lambda: self._cgroups.join(self._conmon_cgroup))
        self._rotator = rotation.Rotator()
        self._kept: dict[str, Record] = {}
        os.makedirs(config.run_dir, mode=0o711, exist_ok=True)
        os.makedirs(f"{config.exec_root}/crun", mode=0o700, exist_ok=True)

    def close(self) -> None:
        """Let go of the thread that starts conmons, and of the logs. Containers go on."""
        self._rotator.close()
        self._spawner.close()
        self._crun.close()

    @property
    def cgroup_version(self) -> int:
        return self._cgroups.version

    async def create(self, launch: Launch) -> Created:
        """Bundle, conmon and crun's init, which waits for `start`. On failure everything made is taken back.

        Raises LaunchRefused (a kind of InvalidArgument: command not found, not executable) or LaunchFailed
        (Internal); both carry `exit_code` (127, 126, 128) as `inspect` shows it. Raises InvalidArgument or
        Unsupported for what cannot be had at all (no such user, device, propagation).
        """
        layout = self._layout(launch.id)
        limits = rotation.limits(launch.host.log_config)
        try:
            # A thread cannot be called back: what it lays out after a cancellation nobody would clear away.
            prepared, is_new = await _to_the_end(asyncio.to_thread(self._lay_out, layout, launch))
            if not is_new:
                # Of a run whose record somebody took away (with the exec root, say): two of one container must not be.
                await remove_all(self._cgroups, prepared.record.cgroup)
                await asyncio.to_thread(self._cgroups.create, prepared.record.cgroup)
            runtime = crun.command(
                self._crun.executable(),
                layout,
                self._cgroups.entering(prepared.record.cgroup),
                layout.runtime_log,
                writes_cgroups=self._cgroups.version == 2,
            )
            argv = conmon.command_line(
                self._conmon,
                runtime,
                layout,
                launch.log_path,
                is_tty=launch.config.tty,
                has_stdin=launch.config.open_stdin,
                keeps_stdin=prepare.keeps_stdin(launch.config),
                # More files than one: conmon would throw the full one away.
                log_size_max=limits.size if limits.files == 1 else -1,
            )
            answer = await _to_the_end(conmon.spawn(self._spawner, layout.bundle, argv))
            if not answer.pid:
                said = crun.complaint(layout.runtime_log) or answer.message
                raise launch_failure(said, launch.args[0])
            warnings = [*prepared.warnings]
            if self._cgroups.version == 1:
                # After crun is done, so that neither its memory nor its processes count against the limits.
                warnings += self._cgroups.apply(prepared.record.cgroup, prepared.resources)
            known = msgspec.structs.replace(
                prepared.record, pid=answer.pid, log_path=launch.log_path, log_limits=limits
            )
            found = _with_pids(layout, known, answer.conmon_pid)
            record.write(layout, found)
            self._keep(found)
            self._rotator.watch(launch.id, launch.log_path, layout.ctl, limits)
            if self._cgroups.version == 2:
                await asyncio.to_thread(self._cgroups.move, self._conmon_cgroup, found.conmon_pid)
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(self.delete(launch.id)))
            raise
        return Created(pid=found.pid, conmon_pid=found.conmon_pid, warnings=warnings)

    async def start(self, id: str) -> None:
        """Let the init of a created container run its command. Conflict if it is not in state created."""
        crun.start(self._layout(id))

    async def signal(self, id: str, signum: int) -> None:
        """Send to the container's init. Conflict ("is not running") if it has ended."""
        known = self._kept.get(id) or self._known(id)
        # A monitor that somebody has stopped would never tell of the end this may lead to.
        processes.wake(known.conmon_pid, known.conmon_started)
        fd = open_pidfd(known.pid, known.pid_started)
        if fd < 0:
            raise _not_running(id)
        try:
            signal.pidfd_send_signal(fd, signum)
        except ProcessLookupError:
            raise _not_running(id) from None
        finally:
            os.close(fd)

    async def pause(self, id: str) -> None:
        """Returns when every process stands still. Conflict if it has ended, Internal without a freezer."""
        known = self._living(id)
        await freeze(self._cgroups, known.cgroup, True)

    async def unpause(self, id: str) -> None:
        known = self._living(id)
        await freeze(self._cgroups, known.cgroup, False)

    async def update(self, id: str, host: HostConfig) -> list[str]:
        """Bring the limits of a living container to those of `host` (memory, cpu, pids, blkio).

        Device rules stay as they are. Returns warnings. Raises InvalidArgument if the kernel refuses a value.
        """
        known = self._living(id)
        numbers = hostfacts.block_numbers(resources.blkio_paths(host))
        wanted = resources.cgroup_resources(host, [], numbers)
        wanted.pop("devices")
        return self._cgroups.apply(known.cgroup, wanted)

    async def delete(self, id: str) -> None:
        """Kill what is left, then remove its cgroups, crun's state and the bundle. Nothing there: no error."""
        self._rotator.forget(id)
        layout = self._layout(id)
        known = self._kept.get(id) or self._find(layout)
        if known is None:
            # It may run all the same: its record went with the exec root.
            await remove_all(self._cgroups, f"{self._parent}/{id}")
            await asyncio.to_thread(shutil.rmtree, layout.bundle, ignore_errors=True)
            return
        if is_alive(known.pid, known.pid_started):
            kill_all(self._cgroups, known.cgroup)
            with contextlib.suppress(Conflict):
                await self.signal(id, signal.SIGKILL)
        await self._end_conmon(known)
        await remove_all(self._cgroups, known.cgroup)
        await asyncio.to_thread(self._clear, layout, known)
        self._kept.pop(id, None)

    async def wait_exit(self, id: str) -> Exit:
        """Wait for the container's end; after it, answers at once until `delete`. NotFound if never created."""
        layout = self._layout(id)
        known = self._kept.get(id) or self._known(id)
        for pid, started in ((known.conmon_pid, known.conmon_started), (known.pid, known.pid_started)):
            # Second, the init itself: with its conmon killed nobody notes its code, but it runs on.
            fd = open_pidfd(pid, started)
            if fd < 0:
                processes.collect(pid, started)
                continue
            try:
                await wait_pidfd(fd)
            finally:
                os.close(fd)
            processes.collect(pid, started)
            if (exit := _exit_of(layout)) is not None:
                return exit
        return _exit_of(layout) or Exit(code=_LOST, finished=time.time_ns())

    async def adopt(self, id: str) -> Adopted | None:
        """What became of a container this or an earlier daemon created; None if nothing of it is left.

        An `exit` with code 255 means that nobody saw its end (a reboot, a killed conmon).
        """
        layout = self._layout(id)
        known = self._find(layout)
        if known is None:
            return None
        if not is_alive(known.pid, known.pid_started):
            exit = _exit_of(layout)
            if exit is None:
                # Between the death of init and conmon's note of it lies a moment.
                await self._end_conmon(known)
                exit = _exit_of(layout) or Exit(code=_LOST, finished=time.time_ns())
            return Adopted(state="exited", conmon_pid=known.conmon_pid, exit=exit)
        self._rotator.watch(id, known.log_path, layout.ctl, known.log_limits)
        if crun.is_waiting(layout):
            return Adopted(state="created", pid=known.pid, conmon_pid=known.conmon_pid)
        is_frozen = self._cgroups.is_frozen(known.cgroup)
        return Adopted(state="paused" if is_frozen else "running", pid=known.pid, conmon_pid=known.conmon_pid)

    def known_ids(self) -> list[str]:
        """Every container that has left something in the exec root, living or not."""
        return sorted(os.listdir(self._config.run_dir))

    def groups(self) -> list[str]:
        """The cgroups right below dari's own, conmon's left out."""
        found = (f"{self._parent}/{each}" for each in self._cgroups.children(self._parent))
        return [each for each in found if each != self._conmon_cgroup]

    def group_pids(self, path: str) -> list[int]:
        """Every process in a cgroup and below."""
        return self._cgroups.pids(path)

    def remove_group(self, path: str) -> bool:
        """False where a process is in it."""
        return self._cgroups.remove(path)

    def pid(self, id: str) -> int:
        """The init's pid in this namespace, 0 if it does not run."""
        known = self._find(self._layout(id))
        return known.pid if known is not None and is_alive(known.pid, known.pid_started) else 0

    async def attach(self, id: str) -> Stdio:
        """The streams from now on. Possible between create and start, and several times at once.

        Raises Conflict if it has ended.
        """
        layout = self._layout(id)
        known = self._find(layout)
        try:
            attachment = attach.connect(layout.bundle, known is not None and known.loses_stdin)
        except OSError:
            raise _not_running(id) from None
        await attach.accepted()
        return attachment

    async def resize(self, id: str, height: int, width: int) -> None:
        """Size of the container's terminal in characters. Conflict if it has ended; no terminal: nothing."""
        try:
            fd = os.open(self._layout(id).ctl, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            raise _not_running(id) from None
        try:
            os.write(fd, f"1 {height} {width}\n".encode())
        finally:
            os.close(fd)

    def exec_check(self, id: str, user: str) -> None:
        """Whether a further process may be `user`. Raises InvalidArgument, Conflict."""
        exec.find_user(self._living(id), user)

    async def exec_start(self, id: str, spec: ExecSpec) -> ExecHandle:
        """Run a further process. Raises ExecRefused (InvalidArgument, `exit_code` 126 or 127), Conflict."""
        known = self._living(id)
        layout = self._layout(id)

        def command(log: str) -> list[str]:
            entering = self._cgroups.entering(known.cgroup)
            return crun.command(self._crun.executable(), layout, entering, log, self._cgroups.version == 2)

        def leave(pid: int) -> None:
            self._cgroups.leave(known.cgroup, pid)

        return await exec.start(layout, known, spec, command, leave)

    async def stats(self, id: str) -> stats.Stats:
        """One sample of what the container uses. Conflict if it has ended."""
        known = self._living(id)
        pid = 0 if known.is_on_host_network else known.pid
        return await asyncio.to_thread(stats.sample, self._cgroups, known.cgroup, pid)

    async def top(self, id: str, ps_args: str) -> top.Top:
        """The processes of the container in the columns of ps. Conflict if it has ended."""
        known = self._living(id)
        return await top.top(self._cgroups.pids(known.cgroup), ps_args)

    def pids(self, id: str) -> list[int]:
        """Every process of the container, in this namespace's numbers."""
        known = self._find(self._layout(id))
        return self._cgroups.pids(known.cgroup) if known is not None else []

    def _layout(self, id: str) -> Layout:
        return layout_of(self._config, id)

    def _lay_out(self, layout: Layout, launch: Launch) -> tuple[prepare.Prepared, bool]:
        """Also whether the container's cgroup is new."""
        prepared = prepare.prepare(launch, self._config, self._facts, layout, self._cgroups.version)
        os.makedirs(layout.exit_dir, mode=0o711)
        # The intent, before anything of it is in the kernel.
        record.write(layout, prepared.record)
        if prepared.record.has_shm_mount:
            prepare.mount_shm(layout.shm, launch.host.shm_size or self._config.default_shm_size)
        if launch.log_path:
            os.makedirs(os.path.dirname(launch.log_path), exist_ok=True)
            logfiles.end_lines(launch.log_path)
        is_new = self._cgroups.create(prepared.record.cgroup)
        with open(layout.config, "wb") as file:
            file.write(msgspec.json.encode(prepared.spec))
        return prepared, is_new

    def _keep(self, found: Record) -> None:
        """Its pids, its cgroup and its mounts; an exec reads the rest from the file."""
        self._kept[found.id] = msgspec.structs.replace(found, process={})

    def _find(self, layout: Layout) -> Record | None:
        known = record.read(layout)
        if known is None or known.conmon_started:
            return known
        return _with_pids(layout, known, _conmon_of(layout.id))

    def _known(self, id: str) -> Record:
        known = self._find(self._layout(id))
        if known is None:
            raise NotFound(f"No such container: {id}")
        return known

    def _living(self, id: str) -> Record:
        known = self._find(self._layout(id))
        if known is None or not is_alive(known.pid, known.pid_started):
            raise _not_running(id)
        return known

    async def _end_conmon(self, known: Record) -> None:
        """conmon ends by itself after its container; one that does not is killed."""
        fd = open_pidfd(known.conmon_pid, known.conmon_started)
        if fd < 0:
            processes.collect(known.conmon_pid, known.conmon_started)
            return
        try:
            try:
                await asyncio.wait_for(wait_pidfd(fd), _CONMON_PATIENCE)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                await wait_pidfd(fd)
        finally:
            os.close(fd)
        processes.collect(known.conmon_pid, known.conmon_started)

    def _clear(self, layout: Layout, known: Record) -> None:
        crun.forget(layout)
        if known.has_shm_mount:
            prepare.unmount(layout.shm)
        shutil.rmtree(layout.bundle, ignore_errors=True)


async def _to_the_end(coming: Coroutine[Any, Any, T]) -> T:
    """Even if the caller is cancelled: half a container could not be taken back."""
    task = asyncio.ensure_future(coming)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise Internal(f"{name} is not installed, or not in PATH")
    return path


def _not_running(id: str) -> Conflict:
    return Conflict(f"container {id} is not running")


def _with_pids(layout: Layout, known: Record, conmon_pid: int) -> Record:
    """The record with what crun noted itself, for a daemon that died before it could, and with conmon's pid."""
    pid, started = known.pid, 0
    try:
        with open(f"{layout.state}/status") as file:
            status = json.load(file)
        pid, started = int(status["pid"]), int(status["process-start-time"])
    except (FileNotFoundError, ValueError, KeyError):
        started = start_time(pid)
    return msgspec.structs.replace(
        known, pid=pid, pid_started=started, conmon_pid=conmon_pid, conmon_started=start_time(conmon_pid)
    )


def _conmon_of(id: str) -> int:
    """The monitor of a container whose daemon died before it could note it; 0 if there is none."""
    found: dict[int, int] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if os.path.basename(words[0]) == b"conmon" and id.encode() in words:
            found[int(name)] = start_time(int(name))
    # Before a child of conmon's is crun it is the same by its words, and younger.
    return min(found, key=lambda pid: (found[pid], pid), default=0)


def _exit_of(layout: Layout) -> Exit | None:
    try:
        with open(layout.exit_file) as file:
            code = int(file.read())
            finished = os.fstat(file.fileno()).st_mtime_ns
    except (FileNotFoundError, ValueError):
        return None
    return Exit(code=code, is_oom_killed=os.path.exists(layout.oom_file), finished=finished)
