"""Processes by pid and start time, and their ends by pidfd: no process is mistaken for another.

Must not know: containers. Sources: pidfd_open(2), proc(5) stat field 22.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import signal


def start_time(pid: int) -> int:
    """Clock ticks since boot; 0 if there is no such process or it is a zombie."""
    state, started = _state(pid)
    return 0 if state in (b"Z", b"X") else started


def _state(pid: int) -> tuple[bytes, int]:
    """The letter of its state, and when it started; empty and 0 where there is no such process."""
    if pid <= 0:
        return b"", 0
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in brackets may hold anything, so count from its end.
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return b"", 0
    return fields[0], int(fields[19])


def is_alive(pid: int, started: int) -> bool:
    """Whether `pid` is still the process that started at `started` and has not ended."""
    return started != 0 and start_time(pid) == started


def wake(pid: int, started: int) -> None:
    """Let exactly that process go on where a signal has stopped it (SIGSTOP); nothing happens to any other."""
    fd = open_pidfd(pid, started)
    if fd < 0:
        return
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            is_stopped = file.read().rpartition(b")")[2].split()[0] == b"T"
        if is_stopped:
            signal.pidfd_send_signal(fd, signal.SIGCONT)
    except ProcessLookupError:
        return
    finally:
        os.close(fd)


def open_pidfd(pid: int, started: int) -> int:
    """A pidfd of exactly that process; -1 if it has ended. The caller closes it."""
    if pid <= 0 or not started:
        return -1
    try:
        fd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL):
            return -1
        raise
    # Opened first, compared after: the number cannot change hands in between.
    if start_time(pid) != started:
        os.close(fd)
        return -1
    return fd


async def wait_pidfd(fd: int) -> None:
    """Until the process of `fd` has ended (a zombie has)."""
    if _is_readable(fd):
        return
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    # A descriptor has one reader in a loop; a copy lets several wait for one process.
    own = os.dup(fd)

    def ended() -> None:
        loop.remove_reader(own)
        if not done.done():
            done.set_result(None)

    loop.add_reader(own, ended)
    try:
        await done
    finally:
        loop.remove_reader(own)
        os.close(own)


async def wait_end(pid: int) -> None:
    """Until that process, ours or not, has ended; at once where there is none."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await wait_pidfd(fd)
    finally:
        os.close(fd)


async def wait_child(pid: int) -> int:
    """Exit code of a child of this process, 128+n for a signal."""
    fd = os.pidfd_open(pid)
    try:
        await wait_pidfd(fd)
    finally:
        os.close(fd)
    return reap(pid)


def has_ended(pid: int) -> bool:
    """Whether a child of this process has ended; it stays to be reaped."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def reap(pid: int) -> int:
    """Exit code of a child that has ended, 128+n for a signal."""
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def collect(pid: int, started: int) -> None:
    """Reap exactly that process, if it is a child of this one and has ended; nothing happens to any other."""
    if started and _state(pid) == (b"Z", started):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
