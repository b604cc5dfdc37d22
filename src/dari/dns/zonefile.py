"""A zone file as its reader follows it: what was added since, or all of it anew.

It is held open, so that the file now at its path is known to be the same one or another. Must not know: tables, views.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from dari.dns.zone import Change, ZoneError, decode_change, lines_of


class Text(NamedTuple):
    """A whole file, as lines."""

    first: bytes
    rest: list[bytes]


class ZoneFile:
    """One zone's file, read so far to `_end`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._end = 0
        self._changed = 0

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def read(self, *, is_whole: bool = False) -> list[Change] | Text | None:
        """Changes to make, or a whole text where the file is another one, was changed elsewhere than at its end, or
        `is_whole`; None where there is none. `keep` then says that it was understood. Raises ZoneError, OSError."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self.close()
            return None
        try:
            found = os.fstat(descriptor)
            if self._descriptor >= 0 and not is_whole:
                known = os.fstat(self._descriptor)
                if (known.st_dev, known.st_ino) == (found.st_dev, found.st_ino):
                    changes = self._added(found.st_size, found.st_mtime_ns)
                    if changes is not None:
                        return changes
            self.close()
            self._descriptor, descriptor = descriptor, -1
            return self._whole()
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def forget(self) -> None:
        """What was read is not in force: the next time all of it is read."""
        self.close()

    def _added(self, size: int, changed: int) -> list[Change] | None:
        """The changes behind what was read; None where this is no file that only grew."""
        if size == self._end and changed == self._changed:
            return []
        if size <= self._end:
            return None
        # With the line break before, by which we know that our end is where a line ends.
        data = os.pread(self._descriptor, size - self._end + 1, self._end - 1)
        if not data.startswith(b"\n"):
            return None
        lines = data[1:].split(b"\n")
        try:
            found = [decode_change(line) for line in lines[:-1]]
        except ZoneError:
            return None  # told when it is read whole
        self._end += sum(map(len, lines[:-1])) + len(found)
        self._changed = changed
        return found

    def _whole(self) -> Text:
        stat = os.fstat(self._descriptor)
        data = os.pread(self._descriptor, stat.st_size, 0)
        while len(data) < stat.st_size and (more := os.pread(self._descriptor, stat.st_size, len(data))):
            data += more
        first, rest = lines_of(data)
        self._end = data.rfind(b"\n") + 1 if rest or data.endswith(b"\n") else len(data)
        self._changed = stat.st_mtime_ns
        return Text(first, rest)
