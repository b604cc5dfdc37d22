"""A further process in a running container: `crun exec`, its streams, its exit code.

The process belongs to this daemon: when the daemon dies its streams end. Must not know: who asked, healthchecks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

from dari.model.errors import Conflict, DariError, Internal
from dari.runtime import crun, oci, users
from dari.runtime.failures import exec_failure
from dari.runtime.launch import STDERR, STDOUT, ExecSpec
from dari.runtime.layout import Layout
from dari.runtime.paths import read_text_in
from dari.runtime.processes import has_ended, open_pidfd, reap, start_time, wait_child
from dari.runtime.record import Record
from dari.runtime.streams import Streams, set_size

# crun waits for the process and would be counted in the container's cgroup; long execs are worth moving it out.
_LONG = 1.0


class ExecHandle:
    """A running exec; satisfies `launch.Stdio` for its streams. `pid` is the process's in this namespace."""

    def __init__(
        self,
        pid: int,
        streams: Streams,
        terminal: int,
        crun_pid: int,
        folder: str,
        leave_cgroup: Callable[[int], None],
    ) -> None:
        self.pid = pid
        self._started = start_time(pid)
        self._streams = streams
        self._terminal = terminal
        self._folder = folder
        self._rest: asyncio.Task[None] | None = None
        self._end = asyncio.create_task(self._reap(crun_pid, leave_cgroup))

    async def read(self) -> tuple[int, bytes] | None:
        """The next piece as (1 stdout | 2 stderr, bytes); None when both have ended."""
        return await self._streams.read()

    async def write(self, data: bytes) -> None:
        await self._streams.write(data)

    async def close_stdin(self) -> None:
        await self._streams.close_stdin()

    def close(self) -> None:
        """Let go of the streams; the process goes on, and what it still says is thrown away.

        A terminal that closed would end it, a pipe that closed at its next word.
        """
        if self._end.done():
            self._streams.close()
            self._terminal = -1
        elif self._rest is None:
            self._rest = asyncio.create_task(self._throw_away())

    async def _throw_away(self) -> None:
        try:
            await self._streams.close_stdin()
            while await self._streams.read() is not None:
                pass
        finally:
            self._streams.close()
            self._terminal = -1

    def resize(self, height: int, width: int) -> None:
        """Nothing happens without a terminal or after its end."""
        if self._terminal >= 0:
            with contextlib.suppress(OSError):
                set_size(self._terminal, height, width)

    def signal(self, signum: int) -> None:
        """To the process itself; nothing happens if it has ended."""
        fd = open_pidfd(self.pid, self._started)
        if fd >= 0:
            try:
                signal.pidfd_send_signal(fd, signum)
            finally:
                os.close(fd)

    async def wait(self) -> int:
        """The exit code, 128+n for a signal. May be awaited by several."""
        return await asyncio.shield(self._end)

    async def _reap(self, crun_pid: int, leave_cgroup: Callable[[int], None]) -> int:
        waiting = asyncio.create_task(wait_child(crun_pid))
        done, _ = await asyncio.wait([waiting], timeout=_LONG)
        if not done:
            # Not yet reaped by us, so the number still is that process.
            await asyncio.to_thread(leave_cgroup, crun_pid)
        code = await waiting
        said = crun.complaint(f"{self._folder}/log")
        shutil.rmtree(self._folder, ignore_errors=True)
        # What only execve(2) itself finds out (an unknown format) comes after the pid: Docker says 126.
        return 126 if code == 1 and '"exec: ' in said else code


async def start(
    layout: Layout,
    record: Record,
    spec: ExecSpec,
    command: Callable[[str], list[str]],
    leave_cgroup: Callable[[int], None],
) -> ExecHandle:
    """`command(log)` is crun with its global options.

    Raises ExecRefused (127, 126), InvalidArgument (no such user), Conflict (the container has ended), Internal.
    """
    if not spec.cmd:
        raise Conflict("No exec command specified")
    folder = f"{layout.bundle}/exec-{secrets.token_hex(4)}"
    try:
        os.mkdir(folder, 0o700)
    except FileNotFoundError:
        raise Conflict(f"container {layout.id[:12]} is not running") from None
    try:
        with open(f"{folder}/process.json", "w") as file:
            json.dump(process_of(record, spec), file)
        argv = [*command(f"{folder}/log"), "exec"]
        argv += ["--process", f"{folder}/process.json", "--pid-file", f"{folder}/pid"]
        argv += ["--tty"] if spec.is_tty else []
        if spec.is_tty:
            return await _with_terminal(argv, layout, spec, folder, leave_cgroup)
        return await _with_pipes(argv, layout, spec, folder, leave_cgroup)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def process_of(record: Record, spec: ExecSpec) -> dict[str, Any]:
    """The OCI process: the container's own, changed where the exec asks for something else."""
    process = dict(record.process)
    user = find_user(record, spec.user)
    names = record.all_capabilities if spec.is_privileged else record.capabilities
    env = dict(entry.partition("=")[::2] for entry in process["env"])
    if record.is_home_default:
        env["HOME"] = user.home
    if spec.is_tty:
        env.setdefault("TERM", "xterm")
    elif record.is_term_default:
        env.pop("TERM", None)
    for entry in spec.env:
        name, equals, value = entry.partition("=")
        if equals:
            env[name] = value
        else:
            env.pop(name, None)
    process.update(
        terminal=spec.is_tty,
        user={"uid": user.uid, "gid": user.gid, "additionalGids": user.groups},
        args=spec.cmd,
        env=[f"{name}={value}" for name, value in env.items()],
        cwd=spec.working_dir or process["cwd"],
        capabilities=oci.capability_sets(names, user.uid),
    )
    process.pop("consoleSize", None)
    height, width = (*spec.console_size, 0, 0)[:2]
    if spec.is_tty and height and width:
        # Known before the command runs, which may ask at once.
        process["consoleSize"] = {"height": height, "width": width}
    return process


def find_user(record: Record, asked: str) -> users.User:
    """Whom a further process would run as. Raises InvalidArgument where the container knows no such user or group."""
    return users.find_user(
        asked or record.user,
        read_text_in(record.rootfs, "/etc/passwd"),
        read_text_in(record.rootfs, "/etc/group"),
        record.group_add,
    )


async def _with_pipes(
    argv: list[str], layout: Layout, spec: ExecSpec, folder: str, leave_cgroup: Callable[[int], None]
) -> ExecHandle:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    theirs = [null, null, null]
    outputs: list[tuple[int, int]] = []
    stdin = -1
    try:
        if spec.attach_stdin:
            theirs[0], stdin = os.pipe2(os.O_CLOEXEC)
        for number, wanted in ((STDOUT, spec.attach_stdout), (STDERR, spec.attach_stderr)):
            if wanted:
                ours, theirs[number] = os.pipe2(os.O_CLOEXEC)
                outputs.append((ours, number))
        pid = _spawn([*argv, layout.id], theirs)
    except BaseException:
        for fd in (stdin, *(fd for fd, _ in outputs)):
            if fd >= 0:
                os.close(fd)
        raise
    finally:
        for fd in {null, *theirs}:
            os.close(fd)
    streams = Streams(outputs, stdin)
    try:
        inner = await _pid_of(pid, layout, spec, folder, None)
    except BaseException:
        streams.close()
        raise
    return ExecHandle(inner, streams, -1, pid, folder, leave_cgroup)


async def _with_terminal(
    argv: list[str], layout: Layout, spec: ExecSpec, folder: str, leave_cgroup: Callable[[int], None]
) -> ExecHandle:
    top = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    console = _Console(listener, spec.console_size)
    try:
        # A socket's path is short (108 bytes), so both sides take the way over this descriptor.
        address = f"/proc/{os.getpid()}/fd/{top}/console"
        listener.bind(address)
        listener.listen(1)
        pid = _spawn([*argv, "--console-socket", address, layout.id], [null, null, null])
        inner = await _pid_of(pid, layout, spec, folder, console)
    except BaseException:
        console.close()
        raise
    finally:
        listener.close()
        os.close(top)
        os.close(null)
    terminal = console.terminal
    if terminal < 0:
        raise Internal(f"exec in container {layout.id[:12]}: crun handed over no terminal")
    streams = Streams([(terminal, STDOUT)], terminal)
    return ExecHandle(inner, streams, terminal, pid, folder, leave_cgroup)


class _Console:
    """Takes the terminal that crun sends; `terminal` is -1 until it came."""

    def __init__(self, listener: socket.socket, size: Sequence[int]) -> None:
        self.terminal = -1
        self._size = (*size, 0, 0)[:2]
        self._listener = listener
        self._peer: socket.socket | None = None

    def look(self) -> None:
        try:
            if self._peer is None:
                self._peer, _ = self._listener.accept()
                self._peer.setblocking(False)
            _, fds, _, _ = socket.recv_fds(self._peer, 4096, 1)
        except BlockingIOError:
            return
        if fds:
            self.terminal = fds[0]
            os.set_inheritable(self.terminal, False)
            # At once: the command is about to run, and may ask.
            if all(self._size):
                set_size(self.terminal, *self._size)
            self._peer.close()

    def close(self) -> None:
        if self._peer is not None:
            self._peer.close()
        if self.terminal >= 0:
            os.close(self.terminal)
            self.terminal = -1


def _spawn(argv: list[str], stdio: list[int]) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(stdio)]
    return os.posix_spawn(argv[0], argv, dict(os.environ), file_actions=actions, setsid=True)


async def _pid_of(pid: int, layout: Layout, spec: ExecSpec, folder: str, console: _Console | None) -> int:
    """The pid crun wrote, once the process is set up. Raises what crun complained about."""
    while True:
        if console is not None and console.terminal < 0:
            console.look()
        with contextlib.suppress(FileNotFoundError, ValueError), open(f"{folder}/pid") as file:
            inner = int(file.read())
            if console is None or console.terminal >= 0:
                return inner
        if has_ended(pid) and not os.path.exists(f"{folder}/pid"):
            reap(pid)
            raise _refusal(layout, spec, crun.complaint(f"{folder}/log"))
        await asyncio.sleep(0.001)


def _refusal(layout: Layout, spec: ExecSpec, said: str) -> DariError:
    if "No such process" in said or "error opening file" in said or "does not exist" in said:
        return Conflict(f"container {layout.id[:12]} is not running")
    return exec_failure(said, spec.cmd[0])
