"""What a container changed: its upper folder against the layers below, as a list and as a layer.

Pure reading of folders. Must not know: mounts, containers. Sources: kernel overlayfs.rst ("whiteouts and opaque
directories"), OCI image specification "layer.md" (`.wh.` files).
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from dari.runtime.tree import add_path

_OPAQUE = "trusted.overlay.opaque"

# Mount points every container gets; the runtime makes them in the upper folder where the image lacks them.
RUNTIME_POINTS = frozenset(
    ("dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", ".dockerenv", "dev/shm",
     "dev/pts", "dev/mqueue", "dev/console", "run/.containerenv")
)  # fmt: skip


class Change(NamedTuple):
    """`kind` is Docker's: C changed, A added, D deleted. `path` is absolute in the container."""

    kind: Literal["C", "A", "D"]
    path: str


class _Entry(NamedTuple):
    relative: str
    seen: os.stat_result
    below: os.stat_result | None


def changes(upper: str, lowers: Sequence[str]) -> list[Change]:
    """All changes, parents before children, in name order."""
    found: list[Change] = []
    for entry in _entries(upper, lowers):
        path = "/" + entry.relative
        if _is_whiteout(entry.seen):
            if entry.below is not None:
                found.append(Change("D", path))
        else:
            found.append(Change("A" if entry.below is None else "C", path))
    return found


def write_layer(upper: str, lowers: Sequence[str], archive: tarfile.TarFile) -> None:
    """The changes as an OCI layer."""
    for entry in _entries(upper, lowers):
        folder, name = os.path.split(entry.relative)
        if _is_whiteout(entry.seen):
            if entry.below is not None:
                archive.addfile(tarfile.TarInfo(os.path.join(folder, f".wh.{name}")))
            continue
        add_path(archive, f"{upper}/{entry.relative}", entry.relative)
        if stat.S_ISDIR(entry.seen.st_mode) and _is_opaque(f"{upper}/{entry.relative}"):
            archive.addfile(tarfile.TarInfo(f"{entry.relative}/.wh..wh..opq"))


def upper_size(upper: str) -> int:
    """Bytes of the files in the upper folder, each link counted once."""
    total, links = 0, set()
    for folder, _, names in os.walk(upper):
        for name in names:
            try:
                seen = os.lstat(os.path.join(folder, name))
            except FileNotFoundError:
                continue
            if seen.st_nlink > 1:
                if seen.st_ino in links:
                    continue
                links.add(seen.st_ino)
            if stat.S_ISREG(seen.st_mode):
                total += seen.st_size
    return total


def _entries(upper: str, lowers: Sequence[str], folder: str = "") -> Iterator[_Entry]:
    """Entries that are the user's doing. A folder that only holds the runtime's mount points is none."""
    for name in sorted(os.listdir(f"{upper}/{folder}")):
        relative = os.path.join(folder, name)
        path = f"{upper}/{relative}"
        try:
            seen = os.lstat(path)
        except FileNotFoundError:
            continue
        is_folder = stat.S_ISDIR(seen.st_mode)
        if relative in RUNTIME_POINTS and _is_empty(path, seen, relative):
            continue
        below = _below(lowers, relative)
        if not is_folder:
            yield _Entry(relative, seen, below)
            continue
        inner = _entries(upper, lowers, relative)
        first = next(inner, None)
        if first is None and _is_runtimes(path, seen, below):
            continue
        yield _Entry(relative, seen, below)
        if first is not None:
            yield first
            yield from inner


def _is_empty(path: str, seen: os.stat_result, relative: str) -> bool:
    if stat.S_ISDIR(seen.st_mode):
        return all(f"{relative}/{name}" in RUNTIME_POINTS for name in os.listdir(path))
    return seen.st_size == 0 or stat.S_ISLNK(seen.st_mode)


def _is_runtimes(path: str, seen: os.stat_result, below: os.stat_result | None) -> bool:
    """Whether a folder without changes inside is there only because a mount point was made in it."""
    if below is None:
        return bool(os.listdir(path))
    return _is_same(seen, below) and not _is_opaque(path)


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)


def has_folder(lowers: Sequence[str], path: str) -> bool:
    """Whether the layers, top first, show a folder at an absolute path without a link on the way; never if in doubt."""
    seen = _below(lowers, path.strip("/"))
    return seen is not None and stat.S_ISDIR(seen.st_mode)


def _below(lowers: Sequence[str], relative: str) -> os.stat_result | None:
    """What the layers below show at a path, None if nothing."""
    parts = relative.split("/")
    for lower in lowers:
        try:
            seen = os.lstat(f"{lower}/{relative}")
            return None if _is_whiteout(seen) else seen
        except (FileNotFoundError, NotADirectoryError):
            pass
        for depth in range(1, len(parts)):
            ancestor = f"{lower}/{'/'.join(parts[:depth])}"
            try:
                seen = os.lstat(ancestor)
            except (FileNotFoundError, NotADirectoryError):
                break
            if not stat.S_ISDIR(seen.st_mode) or _is_opaque(ancestor):
                return None
    return None


def _is_whiteout(seen: os.stat_result) -> bool:
    return stat.S_ISCHR(seen.st_mode) and seen.st_rdev == 0


def _is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False
