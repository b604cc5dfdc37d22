"""mount(2), umount2(2) and a place to mount without anybody seeing it.

Must not know: what is mounted or why. Sources: mount(2), mount_namespaces(7), kernel overlayfs.rst.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SLAVE = 0x80000
MNT_DETACH = 2
_CLONE_NEWNS = 0x00020000
_CLONE_FS = 0x00000200
_PAGE = 4096

# Options of mount(8) that are flags of the call: name → (flag, whether it sets it).
FLAG_OPTIONS = {
    "ro": (MS_RDONLY, True), "rw": (MS_RDONLY, False),
    "nosuid": (MS_NOSUID, True), "suid": (MS_NOSUID, False),
    "nodev": (MS_NODEV, True), "dev": (MS_NODEV, False),
    "noexec": (MS_NOEXEC, True), "exec": (MS_NOEXEC, False),
    "sync": (0x10, True), "async": (0x10, False),
    "dirsync": (0x80, True), "mand": (0x40, True), "nomand": (0x40, False),
    "noatime": (0x400, True), "atime": (0x400, False),
    "nodiratime": (0x800, True), "diratime": (0x800, False),
    "bind": (MS_BIND, True), "rbind": (MS_BIND | MS_REC, True),
    "relatime": (0x200000, True), "norelatime": (0x200000, False),
    "strictatime": (0x1000000, True), "defaults": (0, True),
}  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError with the target as its file name."""
    arguments = [os.fsencode(text) if text else None for text in (source or "none", target, kind, data)]
    _check(
        _libc.mount(
            arguments[0], arguments[1], arguments[2], ctypes.c_ulong(flags), ctypes.c_char_p(arguments[3])
        ),
        target,
    )


def unmount(target: str) -> None:
    """Unmount, lazily where it is busy. Nothing mounted there: no error. Raises OSError."""
    for flags in (0, MNT_DETACH):
        try:
            _check(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), target)
            return
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return
            if error.errno != errno.EBUSY or flags:
                raise


def mount_options(text: str) -> tuple[int, str]:
    """Options of mount(8), comma separated, as flags and the rest for the file system."""
    flags, rest = 0, []
    for option in text.split(","):
        if option in FLAG_OPTIONS:
            flag, is_set = FLAG_OPTIONS[option]
            flags = flags | flag if is_set else flags & ~flag
        elif option:
            rest.append(option)
    return flags, ",".join(rest)


def mount_overlay(
    lowers: Sequence[str], target: str, upper: str = "", work: str = "", *, is_volatile: bool = False
) -> None:
    """Mount an overlay; without `upper` it is read-only. `lowers` top first. Raises OSError.

    `volatile`: no sync to disk for this tree, faster to remove. The other options pin what a kernel's build may
    default otherwise: `changes` reads the upper folder and knows neither redirects nor metadata-only copies.
    """
    extra = "index=off,redirect_dir=off,metacopy=off"
    if upper:
        extra += f",upperdir={_escaped(upper)},workdir={_escaped(work)}" + (
            ",volatile" if is_volatile else ""
        )
        flags = 0
    else:
        flags = MS_RDONLY
        # A read-only overlay wants two layers.
        if len(lowers) == 1:
            mount(lowers[0], target, flags=MS_BIND)
            return
    data = f"lowerdir={':'.join(map(_escaped, lowers))},{extra}"
    if len(os.fsencode(data)) < _PAGE:
        mount("overlay", target, "overlay", flags, data)
        return
    # mount(2) takes one page of options: name the layers from the folder they all are below.
    top = os.path.commonpath(lowers)
    short = [_escaped(os.path.relpath(lower, top)) for lower in lowers]

    def from_top() -> None:
        os.chdir(top)
        mount("overlay", target, "overlay", flags, f"lowerdir={':'.join(short)},{extra}")

    apart(_CLONE_FS, from_top)


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def apart(flags: int, act: Callable[[], T]) -> T:
    """Run `act` in a thread of its own that has left what `flags` say it shares; the thread ends with it."""
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            _check(_libc.unshare(ctypes.c_int(flags)), "unshare")
            results.append(act())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body, name="apart")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def in_private_mounts(act: Callable[[], T]) -> T:
    """Run `act` in a thread with a mount namespace of its own: what it mounts nobody else sees, and it is gone
    with the thread, whatever happens."""

    def body() -> T:
        mount("", "/", flags=MS_SLAVE | MS_REC)
        return act()

    return apart(_CLONE_NEWNS | _CLONE_FS, body)
