"""A program kept in memory that nobody can write to, for what would otherwise make such a copy at each of its starts.

crun must not be overwritten by a container that gets hold of it (CVE-2019-5736), so it binds itself read-only under a
name in /tmp and executes itself once more; not if it finds itself in a sealed memfd already. That is half of its start.
Must not know: containers. Source: memfd_create(2), fcntl(2) "File Sealing".
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os

log = logging.getLogger(__name__)

_MFD_EXEC = 0x10
"""Linux 6.3; Python knows no name for it."""
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

_Stamp = tuple[int, int, int, int]


class Sealed:
    """The program at `path`, to be executed as `link`: a symbolic link to this process's copy, so that it keeps its
    name. Nobody needs the link once this process is gone."""

    def __init__(self, path: str, link: str) -> None:
        self._path, self._link = path, link
        self._fd = -1
        self._stamp: _Stamp | None = None

    def executable(self) -> str:
        """What to execute. The copy is made at the first call, and anew where the program was changed (an upgrade) or
        the link taken away; where the system allows none it is the program itself."""
        try:
            stamp = _stamp(self._path)
        except OSError:
            # Who executes it hears why not.
            return self._path
        if stamp != self._stamp or (self._fd >= 0 and not os.path.islink(self._link)):
            self._stamp = stamp
            try:
                self._copy()
            except OSError as error:
                log.info("%s is executed from its file, not from memory: %s", self._path, error)
                self.close()
        return self._link if self._fd >= 0 else self._path

    def close(self) -> None:
        """Processes that run the copy go on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with contextlib.suppress(OSError):
                os.unlink(self._link)

    def _copy(self) -> None:
        with open(self._path, "rb") as file:
            data = file.read()
        fd = _memfd(os.path.basename(self._path))
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(data)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            os.makedirs(os.path.dirname(self._link), mode=0o700, exist_ok=True)
            new = f"{self._link}.new"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
            os.symlink(f"/proc/{os.getpid()}/fd/{fd}", new)
            if not os.access(new, os.X_OK):
                raise PermissionError(f"{new} cannot be executed")
            os.replace(new, self._link)
        except BaseException:
            os.close(fd)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd


def _memfd(name: str) -> int:
    """Raises OSError where memory must not be executed (the sysctl vm.memfd_noexec)."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_EXEC)
    except OSError as error:
        if isinstance(error, PermissionError):
            raise
        return os.memfd_create(name, flags)


def _stamp(path: str) -> _Stamp:
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
