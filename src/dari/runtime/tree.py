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

from dari.runtime import paths

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
    """Unpack into the folder `root`. Call it in a thread of its own that has chrooted (`in_private_mounts`): its
    working directory moves meanwhile.

    A link there is followed by what it says, never by the kernel's own ways: those below /proc lead out of any root.
    `keep_kind`: a folder is not replaced by another kind of file, nor the reverse. `confines`: a name that climbs out
    of the folder means what is left of it at the top, instead of an error. `owner`: user and group everything gets,
    instead of its own. Raises OSError, tarfile.TarError.
    """
    before = os.open(".", os.O_PATH | os.O_DIRECTORY)
    try:
        _extract(archive, root, keep_kind, confines, owner)
    finally:
        os.fchdir(before)
        os.close(before)


def _extract(
    archive: tarfile.TarFile, root: str, keep_kind: bool, confines: bool, owner: tuple[int, int] | None
) -> None:
    folders: list[tuple[str, tarfile.TarInfo]] = []
    here = ""
    for entry in archive:
        if owner is not None:
            entry.uid, entry.gid = owner
        name = entry.name.strip("/")
        name = posixpath.normpath(f"/{name}" if confines else name or ".")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise PermissionError(errno.EPERM, "the archive leaves its folder", entry.name)
        target = os.path.join(root, *parts)
        above = os.path.dirname(target) if parts else target
        if above != here:
            _enter(above)
            here = above
        last = os.path.basename(target) if parts else "."
        if keep_kind and os.path.lexists(last):
            _check_kind(entry, last, target)
        if entry.isdir():
            target = _make_folder(target, last)
            if parts:
                folders.append((target, entry))
            continue
        _clear(last)
        _make(archive, entry, last, root)
        if not entry.islnk():
            _dress(entry, last)
    for target, entry in reversed(folders):
        _enter(os.path.dirname(target))
        _dress(entry, os.path.basename(target) or ".")


def _enter(folder: str) -> None:
    """Make a folder the working directory, and make it where it is not there."""
    try:
        fd = paths.open_in("/", folder, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        # Not there, or behind one of the kernel's own links.
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        found = paths.resolve_in("/", folder)
        paths.mkdir_in("/", found)
        fd = paths.open_in("/", found, os.O_PATH | os.O_DIRECTORY)
    try:
        os.fchdir(fd)
    finally:
        os.close(fd)


def _make_folder(target: str, last: str) -> str:
    """A folder in the working directory, or the one that a link of that name leads to; its path."""
    if os.path.islink(last):
        found = paths.resolve_in("/", target)
        if os.path.isdir(found):
            return found
    elif os.path.isdir(last):
        return target
    if os.path.lexists(last):
        os.unlink(last)
    os.mkdir(last)
    return target


def _check_kind(entry: tarfile.TarInfo, last: str, target: str) -> None:
    is_folder = os.path.isdir(last)
    if entry.isdir() and not is_folder:
        raise FileExistsError(errno.EEXIST, "cannot overwrite non-directory with directory", target)
    if not entry.isdir() and is_folder and not os.path.islink(last):
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
        folder, name = os.path.split(os.path.join(root, entry.linkname.strip("/")))
        fd = paths.open_in("/", paths.resolve_in("/", folder), os.O_PATH | os.O_DIRECTORY)
        try:
            os.link(name, target, src_dir_fd=fd, follow_symlinks=False)
        finally:
            os.close(fd)
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
