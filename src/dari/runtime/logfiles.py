"""The files of one log: the one written to, `<path>`, and older ones, `<path>.1` the youngest of them.

Which there are, and where in them the last lines or a time begin. Files are held open, since names move while one
reads; older ones may be packed (`<path>.1.gz`). Must not know: who writes, who rotates (rotation.py).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime

from dari.runtime import logpack
from dari.runtime.logline import END, Joiner

log = logging.getLogger(__name__)

_BLOCK = 1 << 18
# Below this a search by time is not worth it.
_SMALL = 1 << 20
_SECOND = 1_000_000_000
# Each try that fails means that a rotation came in between.
_TRIES = 20


class LogFile:
    """A file of a log, held open; a packed one is unpacked when its text is asked for first."""

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        self._folder = os.path.dirname(path)
        self._held = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._text = -1
        about = os.fstat(self._held)
        self.held_inode = about.st_ino
        # In ns; a packed file has the time of the plain one.
        self.changed = about.st_mtime_ns
        self.is_packed = path.endswith(logpack.SUFFIX)
        # Whether packed or not: what a follower knows the file by.
        self.inode = logpack.origin(self._held) if self.is_packed else about.st_ino

    def text(self) -> int:
        """A descriptor of the plain text, good until `close`. Takes its time where it is packed. Raises OSError."""
        if not self.is_packed:
            return self._held
        if self._text < 0:
            self._text = logpack.unpack(self._held, self._folder)
        return self._text

    def size(self) -> int:
        """Bytes of plain text. Raises OSError."""
        return os.fstat(self.text()).st_size

    def close(self) -> None:
        os.close(self._held)
        if self._text >= 0:
            os.close(self._text)


def numbered(path: str) -> list[tuple[int, str]]:
    """The files there are, youngest first, with their numbers; 0 is `path` itself.

    Where a file is there packed and plain, its packing was not finished: the plain one comes first and counts.
    """
    folder, name = os.path.split(path)
    found = []
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    for each in names:
        if each == name:
            found.append((0, path))
        elif each.startswith(f"{name}."):
            number = each[len(name) + 1 :].removesuffix(logpack.SUFFIX)
            if number.isdecimal():
                found.append((int(number), f"{folder}/{each}"))
    return sorted(found)


def _counting(path: str) -> list[str]:
    """The names of the files, youngest first, each once."""
    found: dict[int, str] = {}
    for number, each in numbered(path):
        found.setdefault(number, each)
    return list(found.values())


def open_all(path: str) -> list[LogFile]:
    """All the files, oldest first, none twice and none left out. Raises OSError."""
    for _ in range(_TRIES):
        names = _counting(path)
        opened: list[LogFile] = []
        for each in names:
            try:
                opened.append(LogFile(each))
            except FileNotFoundError:
                break
        # Names that move while they are opened: what is there afterwards tells.
        if len(opened) == len(names) and [file.held_inode for file in opened] == _inodes(_counting(path)):
            return opened[::-1]
        for file in opened:
            file.close()
    raise BlockingIOError(f"the log {path} is rotated faster than it can be opened")


def newer(path: str, file: LogFile) -> list[LogFile]:
    """The files begun after `file`, oldest first; empty while it is the one written to."""
    try:
        if os.stat(path).st_ino == file.inode:
            return []
    except FileNotFoundError:
        # In the middle of a rotation: the old file is still written to.
        return []
    files = open_all(path)
    # One that is not there any more is older than all that are. The youngest counts: while `file` is held no other
    # gets its inode, but one that was packed before may have had it.
    count = max((index + 1 for index, each in enumerate(files) if each.inode == file.inode), default=0)
    for each in files[:count]:
        each.close()
    return files[count:]


def _inodes(names: list[str]) -> list[int]:
    found = []
    for each in names:
        try:
            found.append(os.stat(each).st_ino)
        except FileNotFoundError:
            return []
    return found


def tail_place(files: list[LogFile], count: int, stdout: bool = True, stderr: bool = True) -> tuple[int, int]:
    """In which of `files` (oldest first), and where, the last `count` lines of the wanted streams begin."""
    wanted = tuple(name for name, is_on in ((b"stdout", stdout), (b"stderr", stderr)) if is_on)
    if count <= 0 or not wanted:
        return len(files) - 1, files[-1].size()
    found, is_last = 0, True
    for index in range(len(files) - 1, -1, -1):
        for start, line in _lines_backwards(files[index].text(), files[index].size()):
            parts = line.split(b" ", 3)
            if len(parts) < 3 or parts[1] not in wanted:
                continue
            # Pieces at the very end are a line that has not ended yet.
            if parts[2] != b"P" or is_last:
                if found == count:
                    return index, start + len(line) + 1
                found += 1
            is_last = False
    return 0, 0


def end_lines(path: str) -> None:
    """Before another run is written there: a line that the last one did not end is over, and what comes is none of its
    pieces."""
    try:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        size, tags = os.fstat(file).st_size, dict[bytes, bytes]()
        for start, line in _lines_backwards(file, size):
            parts = line.split(b" ", 3)
            if len(parts) == 4 and parts[1] in (b"stdout", b"stderr"):
                tags.setdefault(parts[1], parts[2])
            # A stream that has been silent for so long is let be.
            if len(tags) == 2 or size - start > _BLOCK:
                break
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000+00:00").encode()
        marks = [b" ".join((stamp, stream, END, b"\n")) for stream, tag in tags.items() if tag == b"P"]
        if marks:
            os.write(file, b"".join(marks))
    except OSError as error:
        # A disk that is full: the run is worth more.
        log.warning("%s: a line that the last run did not end goes on with what comes: %s", path, error)
    finally:
        os.close(file)


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


def since_place(files: list[LogFile], since: int) -> tuple[int, int]:
    """A place before the first line that is not older than `since` (ns): in which of `files`, and where."""
    for index, file in enumerate(files):
        # A file's own time comes from a clock that is some milliseconds behind the lines'.
        if file.changed + _SECOND >= since:
            return index, since_offset(file.text(), since) if file.size() > _SMALL else 0
    return len(files) - 1, files[-1].size()


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
