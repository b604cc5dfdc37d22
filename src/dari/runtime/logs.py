"""Reading the log that conmon writes, and the older files of it: the end, a span of time, or on and on.

Reads in blocks and hands out lists, so that a million lines cost a second. Must not know: Docker's stream format,
containers. The format is in logline.py. Source for following: inotify(7).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from dari.runtime import logfiles
from dari.runtime.launch import LogEntry
from dari.runtime.logfiles import LogFile
from dari.runtime.logline import Joiner

T = TypeVar("T")

_BLOCK = 1 << 18
# How long a follower sleeps at most, for what inotify does not tell: a log begun anew under the same name.
_PATIENCE = 1.0
_IN_MODIFY, _IN_ATTRIB, _IN_MOVE_SELF, _IN_DELETE_SELF = 0x2, 0x4, 0x800, 0x400
_IN_NONBLOCK, _IN_CLOEXEC = 0o4000, 0o2000000
_libc = ctypes.CDLL(None, use_errno=True)


async def read(
    path: str,
    stdout: bool = True,
    stderr: bool = True,
    since: int = 0,
    until: int = 0,
    tail: int = -1,
    follow: bool = False,
    ended: Awaitable[object] | None = None,
    cuts_lines: bool = False,
) -> AsyncIterator[LogEntry]:
    """The entries one by one; see `batches`."""
    async for entries in batches(path, stdout, stderr, since, until, tail, follow, ended, cuts_lines):
        for entry in entries:
            yield entry


async def batches(
    path: str,
    stdout: bool = True,
    stderr: bool = True,
    since: int = 0,
    until: int = 0,
    tail: int = -1,
    follow: bool = False,
    ended: Awaitable[object] | None = None,
    cuts_lines: bool = False,
) -> AsyncIterator[list[LogEntry]]:
    """Entries in the order written. `since`, `until`: ns since the epoch, both included, 0 = without bound.

    `tail`: the last so many lines of the wanted streams, -1 = all; time bounds count within them, as Docker has
    it. `follow` goes on until `ended` is done (then what is left is read), or `until` has passed. A log that does
    not exist is an empty one. A line counts with the time it began at; with `cuts_lines` what was written of it after
    `until` is left out all the same. Raises OSError.
    """
    ending = asyncio.ensure_future(ended) if ended is not None else None
    joiner = Joiner(stdout, stderr)
    watch = _Watch(path) if follow else None
    files: list[LogFile] = []
    try:
        files = await _open(path, watch, ending)
        if not files:
            return
        index, offset = await _in_thread(lambda: _begin(files, tail, since, stdout, stderr))
        _drop(files, index)
        rest = b""
        while True:
            file = files[0]
            text = await _in_thread(file.text) if file.is_packed else file.text()
            # Asked before reading: what was written up to the end is then read for certain.
            has_ended = watch is None or (ending is not None and ending.done())
            has_more = False
            while block := os.pread(text, _BLOCK, offset):
                offset += len(block)
                *lines, rest = (rest + block).split(b"\n")
                kept = joiner.until(lines, until) if cuts_lines and until else lines
                entries, is_over = _within(joiner.feed(kept), since, until)
                if len(kept) < len(lines):
                    entries, is_over = entries + _within(joiner.flush(), since, until)[0], True
                if entries:
                    yield entries
                if is_over:
                    return
                if has_more := len(block) == _BLOCK:
                    await asyncio.sleep(0)
            if len(files) > 1:
                _drop(files, 1)
                offset, rest = 0, b""
                continue
            # Somebody may wait for a prompt that has no newline.
            entries, is_over = _within(joiner.flush(), since, until)
            if entries:
                yield entries
            if is_over or watch is None:
                return
            if has_more:
                continue
            if fresh := logfiles.newer(path, file):
                # The writer has let go of the old file by now; what it wrote there last is read first.
                files += fresh
                watch.renew()
                continue
            if has_ended or (until and time.time_ns() > until):
                return
            await watch.wait(ending, until)
    finally:
        _drop(files, len(files))
        if watch is not None:
            watch.close()
        if ending is not None and ending is not ended:
            ending.cancel()


async def _in_thread(function: Callable[[], T]) -> T:
    """Waits for it when it is cancelled, too: its files must not be closed under it."""
    work = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()
        raise


def _begin(files: list[LogFile], tail: int, since: int, stdout: bool, stderr: bool) -> tuple[int, int]:
    """Which of the files, and where in it."""
    if tail >= 0:
        return logfiles.tail_place(files, tail, stdout, stderr)
    return logfiles.since_place(files, since) if since else (0, 0)


def _drop(files: list[LogFile], count: int) -> None:
    """Close the first `count` files."""
    for file in files[:count]:
        file.close()
    del files[:count]


def _within(entries: list[LogEntry], since: int, until: int) -> tuple[list[LogEntry], bool]:
    """The entries inside the bounds, and whether `until` was passed."""
    if since:
        entries = [entry for entry in entries if entry.time >= since]
    if not until:
        return entries, False
    kept = [entry for entry in entries if entry.time <= until]
    return kept, len(kept) < len(entries)


async def _open(path: str, watch: _Watch | None, ending: asyncio.Future[object] | None) -> list[LogFile]:
    while True:
        files = logfiles.open_all(path)
        if files or watch is None or (ending is not None and ending.done()):
            return files
        await asyncio.sleep(0.05)
        watch.renew()


class _Watch:
    """Wakes when the file of a path is written to."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._fd: int = _libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if self._fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"follow a log: {os.strerror(code)} (sysctl fs.inotify.max_user_instances)")
        self._woken = asyncio.Event()
        self._loop.add_reader(self._fd, self._drain)
        self.renew()

    def renew(self) -> None:
        """Watch what the path names now; nothing happens if it names nothing."""
        mask = _IN_MODIFY | _IN_ATTRIB | _IN_MOVE_SELF | _IN_DELETE_SELF
        _libc.inotify_add_watch(self._fd, os.fsencode(self._path), mask)

    async def wait(self, ending: asyncio.Future[object] | None, until: int) -> None:
        """For a write, for `ending`, for `until` (ns), for a second at most."""
        patience = _PATIENCE
        if until:
            patience = min(patience, max(until - time.time_ns(), 0) / 1e9 + 0.001)
        woken = asyncio.ensure_future(self._woken.wait())
        waiting: list[asyncio.Future[Any]] = [woken] if ending is None else [woken, ending]
        try:
            await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
        self._woken.clear()

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _drain(self) -> None:
        try:
            os.read(self._fd, 65536)
        except BlockingIOError:
            return
        self._woken.set()
