"""inotify(7): a descriptor that becomes readable when something happens in folders.

Must not know: why somebody watches.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from types import TracebackType

_CHANGES = (
    0x2 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200
)  # MODIFY, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE
_libc = ctypes.CDLL(None, use_errno=True)


class Folders:
    """Those of the folders that exist are watched until closed."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Raises OSError where the kernel has no inotify instance left."""
        self._descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        for path in paths:
            _libc.inotify_add_watch(self._descriptor, os.fsencode(path), _CHANGES)

    def fileno(self) -> int:
        return int(self._descriptor)

    def __enter__(self) -> Folders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
