"""File trees as tar archives and as copies, with everything that makes a file what it is.

Owner, mode, times, extended attributes, links, devices. Must not know: containers, images, volumes. The caller sees
to it that the paths are what he means: nothing here follows the last link. Source: POSIX pax, GNU tar's SCHILY.xattr.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import shutil
import stat
import tarfile
from collections.abc import Iterator
from typing import IO

_XATTR = "SCHILY.xattr."
_PRIVATE = ("trusted.overlay.", "user.overlay.", "system.")


def add_path(archive: tarfile.TarFile, path: str, name: str) -> bool:
    """One entry of the archive; a second name of a file already in it becomes a hard link.

    False for sockets, which no archive holds.
    """
    entry = archive.gettarinfo(path, name)
    if entry is None:
        return False
    # tarfile takes a leading slash away, which is all there is of the root's name.
    entry.name = name
    entry.uname = entry.gname = ""
    entry.pax_headers = {
        _XATTR + key: value.decode("utf-8", "surrogateescape") for key, value in attributes(path).items()
    }
    if entry.isreg():
        with open(path, "rb") as file:
            archive.addfile(entry, _Steady(file, entry.size))
    else:
        archive.addfile(entry)
    return True


def add_tree(archive: tarfile.TarFile, path: str, name: str, closed: frozenset[str] = frozenset()) -> None:
    """`path` and, if it is a folder, all below; other file systems mounted below included.

    Of the folders `closed` only they themselves, not what is in them.
    """
    try:
        add_path(archive, path, name or "./")
    except FileNotFoundError:
        return
    if not os.path.isdir(path) or os.path.islink(path) or path in closed:
        return
    for child in sorted(os.listdir(path)):
        add_tree(archive, os.path.join(path, child), f"{name.rstrip('/')}/{child}" if name else child, closed)


class _Steady(io.RawIOBase):
    """A file that has the size it was announced with, though someone may be writing to it."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        data += b"\0" * (wanted - len(data))
        self._left -= len(data)
        return data


def attributes(path: str) -> dict[str, bytes]:
    """Extended attributes that belong to the file itself."""
    found = {}
    try:
        for key in os.listxattr(path, follow_symlinks=False):
            if not key.startswith(_PRIVATE):
                found[key] = os.getxattr(path, key, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENODATA, errno.EPERM, errno.ENOENT, errno.EACCES):
            raise
    return found


def extract(
    archive: tarfile.TarFile,
    root: str,
    *,
    keep_kind: bool = False,
    confines: bool = False,
    owner: tuple[int, int] | None = None,
) -> None:
    """Unpack into the folder `root`. Call it with `root` chrooted into, or for archives of our own.

    `keep_kind`: a folder is not replaced by another kind of file, nor the reverse. `confines`: a name that climbs out
    of the folder means what is left of it at the top, instead of an error. `owner`: user and group everything gets,
    instead of its own. Raises OSError, tarfile.TarError.
    """
    folders: list[tuple[str, tarfile.TarInfo]] = []
    for entry in archive:
        if owner is not None:
            entry.uid, entry.gid = owner
        name = entry.name.strip("/")
        name = posixpath.normpath(f"/{name}" if confines else name or ".")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise PermissionError(errno.EPERM, "the archive leaves its folder", entry.name)
        target = os.path.join(root, *parts)
        if keep_kind and os.path.lexists(target):
            _check_kind(entry, target)
        if parts:
            os.makedirs(os.path.dirname(target), exist_ok=True)
        if entry.isdir():
            if not os.path.isdir(target):
                if os.path.lexists(target):
                    os.unlink(target)
                os.mkdir(target)
            folders.append((target, entry))
            continue
        _clear(target)
        _make(archive, entry, target, root)
        if not entry.islnk():
            _dress(entry, target)
    for target, entry in reversed(folders):
        if target.rstrip("/") != root.rstrip("/"):
            _dress(entry, target)


def _check_kind(entry: tarfile.TarInfo, target: str) -> None:
    is_folder = os.path.isdir(target)
    if entry.isdir() and not is_folder:
        raise FileExistsError(errno.EEXIST, "cannot overwrite non-directory with directory", target)
    if not entry.isdir() and is_folder and not os.path.islink(target):
        raise FileExistsError(errno.EEXIST, "cannot overwrite directory with non-directory", target)


def _clear(target: str) -> None:
    if os.path.lexists(target):
        if os.path.isdir(target) and not os.path.islink(target):
            shutil.rmtree(target)
        else:
            os.unlink(target)


def _make(archive: tarfile.TarFile, entry: tarfile.TarInfo, target: str, root: str) -> None:
    if entry.issym():
        os.symlink(entry.linkname, target)
    elif entry.islnk():
        os.link(os.path.join(root, entry.linkname.strip("/")), target, follow_symlinks=False)
    elif entry.isfifo():
        os.mkfifo(target)
    elif entry.isdev():
        kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
        os.mknod(target, kind | 0o600, os.makedev(entry.devmajor, entry.devminor))
    else:
        source = archive.extractfile(entry)
        with open(target, "xb") as file:
            if source is not None:
                shutil.copyfileobj(source, file, 1 << 18)


def _dress(entry: tarfile.TarInfo, target: str) -> None:
    os.chown(target, entry.uid, entry.gid, follow_symlinks=False)
    if not entry.issym():
        os.chmod(target, entry.mode)
    for key, value in entry.pax_headers.items():
        if key.startswith(_XATTR):
            _set_attribute(target, key.removeprefix(_XATTR), value.encode("utf-8", "surrogateescape"))
    os.utime(target, (entry.mtime, entry.mtime), follow_symlinks=False)


def _set_attribute(target: str, key: str, value: bytes) -> None:
    try:
        os.setxattr(target, key, value, follow_symlinks=False)
    except OSError as error:
        # The file system may know fewer kinds of attributes than the one the archive was made on.
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise


def copy_tree(source: str, target: str) -> None:
    """Copy the content of the folder `source` into the folder `target`, which takes its owner, mode and
    attributes. Raises OSError."""
    links: dict[tuple[int, int], str] = {}
    for path, seen in _walk(source):
        relative = os.path.relpath(path, source)
        to = target if relative == "." else os.path.join(target, relative)
        if stat.S_ISDIR(seen.st_mode):
            os.makedirs(to, exist_ok=True)
        elif seen.st_nlink > 1 and (seen.st_dev, seen.st_ino) in links:
            os.link(links[seen.st_dev, seen.st_ino], to, follow_symlinks=False)
            continue
        else:
            _copy_node(path, to, seen)
            links[seen.st_dev, seen.st_ino] = to
        _copy_looks(path, to, seen)
    # The folders' times last: filling them changed them.
    for path, seen in _walk(source):
        if stat.S_ISDIR(seen.st_mode):
            relative = os.path.relpath(path, source)
            to = target if relative == "." else os.path.join(target, relative)
            os.utime(to, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def _walk(top: str) -> Iterator[tuple[str, os.stat_result]]:
    seen = os.lstat(top)
    yield top, seen
    if stat.S_ISDIR(seen.st_mode):
        for name in sorted(os.listdir(top)):
            yield from _walk(os.path.join(top, name))


def _copy_node(path: str, to: str, seen: os.stat_result) -> None:
    if stat.S_ISLNK(seen.st_mode):
        os.symlink(os.readlink(path), to)
    elif stat.S_ISREG(seen.st_mode):
        shutil.copyfile(path, to)
    else:
        os.mknod(to, stat.S_IFMT(seen.st_mode) | 0o600, seen.st_rdev)


def _copy_looks(path: str, to: str, seen: os.stat_result) -> None:
    os.chown(to, seen.st_uid, seen.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(seen.st_mode):
        os.chmod(to, stat.S_IMODE(seen.st_mode))
    for key, value in attributes(path).items():
        _set_attribute(to, key, value)
    os.utime(to, ns=(seen.st_atime_ns, seen.st_mtime_ns), follow_symlinks=False)
