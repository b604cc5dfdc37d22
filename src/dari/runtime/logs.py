"""Reading the log that conmon writes: the end of it, a span of time, or on and on.

Reads in blocks and hands out lists, so that a million lines cost a second. Must not know: Docker's stream format,
containers. The format is in logline.py. Source for following: inotify(7).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

from dari.runtime.launch import LogEntry
from dari.runtime.logline import Joiner

_BLOCK = 1 << 18
# Below this a search by time is not worth it.
_SMALL = 1 << 20
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
) -> AsyncIterator[LogEntry]:
    """The entries one by one; see `batches`."""
    async for entries in batches(path, stdout, stderr, since, until, tail, follow, ended):
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
) -> AsyncIterator[list[LogEntry]]:
    """Entries in the order written. `since`, `until`: ns since the epoch, both included, 0 = without bound.

    `tail`: the last so many lines of the wanted streams, -1 = all; time bounds count within them, as Docker has
    it. `follow` goes on until `ended` is done (then what is left is read), or `until` has passed. A log that does
    not exist is an empty one. Raises OSError.
    """
    ending = asyncio.ensure_future(ended) if ended is not None else None
    joiner = Joiner(stdout, stderr)
    watch = _Watch(path) if follow else None
    file = await _open(path, watch, ending)
    try:
        if file is None:
            return
        offset = await asyncio.to_thread(_begin, file, tail, since, stdout, stderr)
        rest = b""
        while True:
            # Asked before reading: what was written up to the end is then read for certain.
            has_ended = watch is None or (ending is not None and ending.done())
            has_more = False
            while block := os.pread(file, _BLOCK, offset):
                offset += len(block)
                *lines, rest = (rest + block).split(b"\n")
                entries, is_over = _within(joiner.feed(lines), since, until)
                if entries:
                    yield entries
                if is_over:
                    return
                if has_more := len(block) == _BLOCK:
                    await asyncio.sleep(0)
            # Somebody may wait for a prompt that has no newline.
            entries, is_over = _within(joiner.flush(), since, until)
            if entries:
                yield entries
            if is_over or watch is None:
                return
            if has_more:
                continue
            if (fresh := _reopened(path, file)) is not None:
                os.close(file)
                file, offset, rest = fresh, 0, b""
                watch.renew()
                continue
            if has_ended or (until and time.time_ns() > until):
                return
            await watch.wait(ending, until)
    finally:
        if file is not None:
            os.close(file)
        if watch is not None:
            watch.close()
        if ending is not None and ending is not ended:
            ending.cancel()


def tail_offset(file: int, count: int, stdout: bool = True, stderr: bool = True) -> int:
    """Where the last `count` lines of the wanted streams begin, found from the end in blocks."""
    wanted = tuple(name for name, is_on in ((b"stdout", stdout), (b"stderr", stderr)) if is_on)
    position = os.fstat(file).st_size
    if count <= 0 or not wanted:
        return position
    found, is_last = 0, True
    for start, line in _lines_backwards(file, position):
        parts = line.split(b" ", 3)
        if len(parts) < 3 or parts[1] not in wanted:
            continue
        # A line ends with F; pieces at the very end are a line that has not ended yet.
        if parts[2] == b"F" or is_last:
            if found == count:
                return start + len(line) + 1
            found += 1
        is_last = False
    return 0


def _lines_backwards(file: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Offsets and lines, last first; an unfinished last one is left out."""
    rest = b""
    is_first = True
    while end > 0:
        start = max(0, end - _BLOCK // 4)
        block = os.pread(file, end - start, start) + rest
        lines = block.split(b"\n")
        if is_first:
            lines[-1:] = []
            is_first = False
        # The first of them may begin in the block before.
        positions = []
        position = start
        for line in lines:
            positions.append(position)
            position += len(line) + 1
        for index in range(len(lines) - 1, 0, -1):
            yield positions[index], lines[index]
        if start == 0:
            if lines:
                yield 0, lines[0]
            return
        # The newline after the kept piece belongs to it, so that it splits as before.
        rest = lines[0] + b"\n" if lines else b""
        end = start


def since_offset(file: int, since: int) -> int:
    """A place before the first line that is not older than `since`, near it (lines are in order of time)."""
    joiner = Joiner(True, True)
    low, high = 0, os.fstat(file).st_size
    while high - low > _BLOCK:
        middle = (low + high) // 2
        block = os.pread(file, _BLOCK, middle)
        lines = block.split(b"\n")
        stamp = next((word for line in lines[1:-1] if (word := line.split(b" ", 1)[0])), b"")
        try:
            is_older = joiner.time(stamp) < since
        except ValueError:
            return low
        if is_older:
            low = middle
        else:
            high = middle
    return low


def _begin(file: int, tail: int, since: int, stdout: bool, stderr: bool) -> int:
    if tail >= 0:
        return tail_offset(file, tail, stdout, stderr)
    if since and os.fstat(file).st_size > _SMALL:
        return since_offset(file, since)
    return 0


def _within(entries: list[LogEntry], since: int, until: int) -> tuple[list[LogEntry], bool]:
    """The entries inside the bounds, and whether `until` was passed."""
    if since:
        entries = [entry for entry in entries if entry.time >= since]
    if not until:
        return entries, False
    kept = [entry for entry in entries if entry.time <= until]
    return kept, len(kept) < len(entries)


def _reopened(path: str, file: int) -> int | None:
    """A descriptor of the log that has taken the place of `file`; None if it is still the same."""
    was = os.fstat(file)
    try:
        now = os.stat(path)
    except FileNotFoundError:
        return None
    if now.st_ino == was.st_ino:
        return None
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


async def _open(path: str, watch: _Watch | None, ending: asyncio.Future[object] | None) -> int | None:
    while True:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if watch is None or (ending is not None and ending.done()):
                return None
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
