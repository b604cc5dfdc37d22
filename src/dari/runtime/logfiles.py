"""The files of one log: the one written to, `<path>`, and older ones, `<path>.1` the youngest of them.

Which there are, and where in them the last lines or a time begin. Files are named by descriptors, since names move
while one reads. Must not know: who writes, who rotates (rotation.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from dari.runtime.logline import Joiner

_BLOCK = 1 << 18
# Below this a search by time is not worth it.
_SMALL = 1 << 20
_SECOND = 1_000_000_000
# Each try that fails means that a rotation came in between.
_TRIES = 20


def numbered(path: str) -> list[tuple[int, str]]:
    """The files there are, youngest first, with their numbers; 0 is `path` itself."""
    folder, name = os.path.split(path)
    found = []
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    for each in names:
        if each == name:
            found.append((0, path))
        elif each.startswith(f"{name}.") and each[len(name) + 1 :].isdecimal():
            found.append((int(each[len(name) + 1 :]), f"{folder}/{each}"))
    return sorted(found)


def open_all(path: str) -> list[int]:
    """Descriptors of all the files, oldest first, none twice and none left out. Raises OSError."""
    for _ in range(_TRIES):
        names = numbered(path)
        opened: list[int] = []
        for _, each in names:
            try:
                opened.append(os.open(each, os.O_RDONLY | os.O_CLOEXEC))
            except FileNotFoundError:
                break
        inodes = [os.fstat(file).st_ino for file in opened]
        # Names that move while they are opened: what is there afterwards tells.
        if len(opened) == len(names) and inodes == _inodes(numbered(path)):
            return opened[::-1]
        for file in opened:
            os.close(file)
    raise BlockingIOError(f"the log {path} is rotated faster than it can be opened")


def newer(path: str, file: int) -> list[int]:
    """Descriptors of the files begun after `file`, oldest first; empty while it is the one written to."""
    was = os.fstat(file).st_ino
    try:
        if os.stat(path).st_ino == was:
            return []
    except FileNotFoundError:
        # In the middle of a rotation: the old file is still written to.
        return []
    files = open_all(path)
    inodes = [os.fstat(each).st_ino for each in files]
    # One that is not there any more is older than all that are.
    count = inodes.index(was) + 1 if was in inodes else 0
    for each in files[:count]:
        os.close(each)
    return files[count:]


def _inodes(names: list[tuple[int, str]]) -> list[int]:
    found = []
    for _, each in names:
        try:
            found.append(os.stat(each).st_ino)
        except FileNotFoundError:
            return []
    return found


def tail_place(files: list[int], count: int, stdout: bool = True, stderr: bool = True) -> tuple[int, int]:
    """In which of `files` (oldest first), and where, the last `count` lines of the wanted streams begin."""
    wanted = tuple(name for name, is_on in ((b"stdout", stdout), (b"stderr", stderr)) if is_on)
    if count <= 0 or not wanted:
        return len(files) - 1, os.fstat(files[-1]).st_size
    found, is_last = 0, True
    for index in range(len(files) - 1, -1, -1):
        for start, line in _lines_backwards(files[index], os.fstat(files[index]).st_size):
            parts = line.split(b" ", 3)
            if len(parts) < 3 or parts[1] not in wanted:
                continue
            # A line ends with F; pieces at the very end are a line that has not ended yet.
            if parts[2] == b"F" or is_last:
                if found == count:
                    return index, start + len(line) + 1
                found += 1
            is_last = False
    return 0, 0


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


def since_place(files: list[int], since: int) -> tuple[int, int]:
    """A place before the first line that is not older than `since` (ns): in which of `files`, and where."""
    for index, file in enumerate(files):
        about = os.fstat(file)
        # A file's own time comes from a clock that is some milliseconds behind the lines'.
        if about.st_mtime_ns + _SECOND >= since:
            return index, since_offset(file, since) if about.st_size > _SMALL else 0
    return len(files) - 1, os.fstat(files[-1]).st_size


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
