"""The system calls Python 3.11 has no function for: setns, unshare, mount, umount2.

All raise OSError. Namespaces are a property of the *thread*: who calls these decides which thread that is.
Must not know: what a sandbox is.
"""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def setns(descriptor: int, kind: int = CLONE_NEWNET) -> None:
    """setns(2) of the calling thread."""
    _check(_libc.setns(descriptor, kind), "setns")


def unshare(flags: int) -> None:
    """unshare(2) of the calling thread."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, flags: int, filesystem: str = "none") -> None:
    """mount(2) without options."""
    _check(
        _libc.mount(source.encode(), target.encode(), filesystem.encode(), ctypes.c_ulong(flags), None),
        target,
    )


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target.encode(), flags), target)
