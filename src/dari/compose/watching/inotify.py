"""Changes below folders, as the kernel tells them. Source: inotify(7).

Folders made later are watched too, and what was put into them before we looked is reported. When the kernel's queue
overflows, everything is reported as changed.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
from collections.abc import Callable, Iterable

_EVENT = struct.Struct("iIII")
_MODIFY, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO = 0x2, 0x8, 0x40, 0x80
_CREATE, _DELETE = 0x100, 0x200
_OVERFLOW, _IGNORED, _ISDIR, _ONLYDIR = 0x4000, 0x8000, 0x40000000, 0x01000000
_CLOEXEC, _NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK
_MASK = _MODIFY | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLYDIR


class Watcher:
    """Watches `roots` (absolute; files, folders, or what is not there yet). `is_left_out(path)`: folders to skip.

    Raises OSError when the kernel refuses (limits: sysctl fs.inotify.max_user_watches and max_user_instances).
    """

    def __init__(self, roots: Iterable[str], is_left_out: Callable[[str], bool] = lambda path: False) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.inotify_init1(_NONBLOCK | _CLOEXEC)
        if self._fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{os.strerror(code)} (sysctl fs.inotify.max_user_instances)")
        self._folders: dict[int, str] = {}
        self._roots = list(roots)
        self._is_left_out = is_left_out
        for root in self._roots:
            self._begin(root, None)

    def close(self) -> None:
        os.close(self._fd)

    def fileno(self) -> int:
        return self._fd

    def changes(self, timeout: float | None) -> set[str]:
        """Paths that changed; waits up to `timeout` seconds (None: for ever) for the first."""
        found: set[str] = set()
        if not select.select([self._fd], [], [], timeout)[0]:
            return found
        while True:
            try:
                data = os.read(self._fd, 65536)
            except BlockingIOError:
                return {path for path in found if self._is_asked(path)}
            self._take(data, found)

    def _is_asked(self, path: str) -> bool:
        return any(path == root or path.startswith(root.rstrip("/") + "/") for root in self._roots)

    def _take(self, data: bytes, found: set[str]) -> None:
        position = 0
        while position < len(data):
            descriptor, mask, _, size = _EVENT.unpack_from(data, position)
            name = data[position + _EVENT.size : position + _EVENT.size + size].rstrip(b"\0")
            position += _EVENT.size + size
            if mask & _OVERFLOW:
                for root in self._roots:
                    self._begin(root, found)
                continue
            if mask & _IGNORED:
                self._folders.pop(descriptor, None)
                continue
            folder = self._folders.get(descriptor)
            if folder is None or not name:
                continue
            path = os.path.join(folder, os.fsdecode(name))
            if mask & _ISDIR and mask & (_CREATE | _MOVED_TO):
                found.add(path)
                self._begin(path, found)
                for root in self._roots:
                    if root.startswith(path + "/"):
                        self._begin(root, found)
            elif not (mask & _ISDIR and mask & _MODIFY):
                found.add(path)

    def _begin(self, root: str, found: set[str] | None) -> None:
        """Watches a root and what is below it; adds what is there already to `found`."""
        if not os.path.isdir(root):
            if found is not None and os.path.lexists(root):
                found.add(root)
            above = os.path.dirname(root)
            while not os.path.isdir(above):
                above = os.path.dirname(above)
            self._add(above)
            return
        # A folder that is replaced as a whole is told by the folder above it.
        self._add(os.path.dirname(root))
        stack = [root]
        while stack:
            folder = stack.pop()
            if folder != root and self._is_left_out(folder):
                continue
            self._add(folder)
            try:
                entries = list(os.scandir(folder))
            except OSError:
                continue  # gone in this very moment: its event comes
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
                if found is not None:
                    found.add(entry.path)

    def _add(self, folder: str) -> None:
        descriptor = self._libc.inotify_add_watch(self._fd, os.fsencode(folder), _MASK)
        if descriptor < 0:
            code = ctypes.get_errno()
            if code in (2, 20):  # ENOENT, ENOTDIR: gone in this very moment
                return
            raise OSError(code, f"watch {folder}: {os.strerror(code)} (sysctl fs.inotify.max_user_watches)")
        self._folders[descriptor] = folder
