"""Paths inside a root that its owner may have filled with hostile symbolic links.

Every look into a container's root goes through here: a link is followed as the container would follow it, never
out of the root. Must not know: containers, OCI. Kernel: openat2(2) with RESOLVE_IN_ROOT (5.6).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat

_SYS_OPENAT2 = 437
_RESOLVE_IN_ROOT = 0x10
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_BENEATH = 0x08
_MAX_LINKS = 255
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def open_in(
    root: str, path: str, flags: int = os.O_RDONLY, mode: int = 0, *, resolve: int = _RESOLVE_IN_ROOT
) -> int:
    """A descriptor of `path` (absolute inside `root`). Raises OSError like os.open."""
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve | _RESOLVE_NO_MAGICLINKS)
        while True:
            fd: int = _libc.syscall(
                ctypes.c_long(_SYS_OPENAT2),
                ctypes.c_int(top),
                ctypes.c_char_p(os.fsencode(path)),
                ctypes.byref(how),
                ctypes.c_size_t(ctypes.sizeof(how)),
            )
            if fd >= 0:
                return fd
            code = ctypes.get_errno()
            # EAGAIN: a rename raced with the walk and the kernel could not be sure (openat2(2)).
            if code not in (errno.EINTR, errno.EAGAIN):
                raise OSError(code, os.strerror(code), path)
    finally:
        os.close(top)


def beneath(root: str, relative: str) -> str:
    """The host path of `relative` below `root`, its links followed. Raises OSError: EXDEV where they lead out."""
    fd = open_in(root, relative, os.O_PATH, resolve=_RESOLVE_BENEATH)
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def read_text_in(root: str, path: str, limit: int = 1 << 20) -> str:
    """A small text file inside `root`; empty if it is not there or not a plain file."""
    try:
        fd = open_in(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EISDIR):
            return ""
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return ""
    with os.fdopen(fd, "rb") as file:
        return file.read(limit).decode(errors="replace")


def resolve_in(root: str, path: str) -> str:
    """`path` with every link replaced as the container sees it; parts that do not exist stay as they are.

    The answer is absolute inside the root. Raises OSError(ELOOP) for a circle.
    """
    pending = [part for part in path.split("/") if part]
    done: list[str] = []
    links = 0
    while pending:
        part = pending.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            if done:
                done.pop()
            continue
        try:
            target = os.readlink(os.path.join(root, *done, part))
        except OSError:
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith("/"):
            done = []
        pending = [*target.split("/"), *pending]
    return "/" + "/".join(done)


def mkdir_in(root: str, path: str, mode: int = 0o755) -> None:
    """Make a folder and its parents inside `root`, owned by this process. Raises OSError."""
    parts = [part for part in resolve_in(root, path).split("/") if part]
    for depth in range(len(parts)):
        here = "/" + "/".join(parts[: depth + 1])
        try:
            os.close(open_in(root, here, os.O_PATH | os.O_DIRECTORY))
            continue
        except FileNotFoundError:
            parent = open_in(root, "/" + "/".join(parts[:depth]), os.O_PATH | os.O_DIRECTORY)
        try:
            os.mkdir(parts[depth], mode, dir_fd=parent)
        except FileExistsError:
            # Somebody inside made it meanwhile; the next step of the walk judges what it is.
            pass
        finally:
            os.close(parent)
