"""Values below /proc/sys, of the namespace the calling thread is in.

Paths have slashes (`net/ipv4/ip_forward`). Must not know: namespaces, why a value is wanted.
"""

from __future__ import annotations

import errno
import os

_ROOT = "/proc/sys"


def _path(path: str) -> str:
    """Raises OSError(EINVAL) for a path that leaves /proc/sys."""
    if path.startswith("/") or ".." in path.split("/") or not path:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
    return f"{_ROOT}/{path}"


def read(path: str) -> str | None:
    """The value, its blanks single; None where there is no such value."""
    try:
        with open(_path(path)) as file:
            return " ".join(file.read().split())
    except (FileNotFoundError, NotADirectoryError):
        return None


def write(path: str, value: str) -> None:
    """Raises OSError: ENOENT (no such value), EINVAL (the kernel refuses it), EACCES (read-only)."""
    descriptor = os.open(_path(path), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode() + b"\n")
    finally:
        os.close(descriptor)
