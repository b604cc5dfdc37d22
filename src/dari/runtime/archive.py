"""Files in and out of a container: `docker cp`, `docker export`.

Whatever is read or written happens in a thread whose root is the container's: a link made by the container leads where
it leads there, never to the host. Bytes go through pipes. Must not know: HTTP, stores.
Source: Docker Engine API v1.51 `ContainerArchive`, `PutContainerArchive`.
"""

from __future__ import annotations

import asyncio
import os
import stat
import tarfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dari.model.container import Mount
from dari.model.errors import DariError, Forbidden, Internal, InvalidArgument, NotFound
from dari.runtime import layer, paths
from dari.runtime.mounting import MS_BIND, MS_RDONLY, MS_REC, MS_REMOUNT, in_private_mounts, mount
from dari.runtime.paths import read_text_in
from dari.runtime.rootfs import Rootfs
from dari.runtime.tree import add_tree, extract
from dari.runtime.users import find_user
from dari.runtime.volumes import source_of

T = TypeVar("T")

_CHUNK = 1 << 17
# What a running container has there is made by the kernel, not kept in it.
_OF_THE_KERNEL = frozenset(("/proc", "/sys", "/dev"))


@dataclass(frozen=True, slots=True)
class View:
    """How to get at a container's files: by its process while it runs (`pid`), else by mounting them.

    `shown` is what the user calls it, for messages.
    """

    container_id: str
    shown: str
    pid: int
    mounts: Sequence[Mount] = ()
    is_readonly: bool = False


@dataclass(frozen=True, slots=True)
class PathStat:
    """`mode` as in stat(2), `modified` ns since the epoch; `link_target` absolute in the container."""

    name: str
    size: int
    mode: int
    modified: int
    link_target: str = ""

    @property
    def go_mode(self) -> int:
        """The mode as Go's `fs.FileMode` has it, which is what Docker's API carries."""
        mode = self.mode
        bits = stat.S_IMODE(mode) & 0o777
        for flag, bit in ((stat.S_ISUID, 23), (stat.S_ISGID, 22), (stat.S_ISVTX, 20)):
            bits |= 1 << bit if mode & flag else 0
        kinds = {
            stat.S_IFDIR: 1 << 31,
            stat.S_IFLNK: 1 << 27,
            stat.S_IFBLK: 1 << 26,
            stat.S_IFCHR: 1 << 26 | 1 << 21,
            stat.S_IFIFO: 1 << 25,
            stat.S_IFSOCK: 1 << 24,
        }
        return bits | kinds.get(stat.S_IFMT(mode), 0)


def inside(rootfs: Rootfs, view: View, act: Callable[[], T]) -> T:
    """Run `act` with `/` being the container's root, its volumes in place. Blocks. Raises what `act` raises."""

    def enter() -> T:
        root = f"/proc/{view.pid}/root"
        # Of one that ended a moment ago, and is not known to have, the process has no root any more.
        if not view.pid or not os.path.exists(root):
            root = rootfs.merged(view.container_id)
            if not os.path.ismount(root):
                rootfs.mount_at(view.container_id, root)
            if any(each.type == "image" for each in view.mounts):
                rootfs.mount_shown(view.container_id)
            for each in view.mounts:
                _place(root, each)
        os.chroot(root)
        os.chdir("/")
        return act()

    return in_private_mounts(enter)


def _place(root: str, each: Mount) -> None:
    if each.type == "tmpfs" or not os.path.lexists(each.source):
        return
    try:
        source = source_of(each)
    except InvalidArgument:
        return
    target = paths.resolve_in(root, each.target)
    if os.path.isdir(source):
        paths.mkdir_in(root, target)
    elif not os.path.lexists(root + target):
        paths.mkdir_in(root, os.path.dirname(target))
        os.close(os.open(root + target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(source, root + target, flags=MS_BIND | MS_REC)
    if each.is_read_only:
        mount(source, root + target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


async def look(rootfs: Rootfs, view: View, path: str) -> PathStat:
    """What is at a path; the last link is not followed unless the path ends in a slash. Raises NotFound."""
    return await asyncio.to_thread(inside, rootfs, view, lambda: _look(view, path))


def _look(view: View, path: str) -> PathStat:
    full = _resolved(path)
    try:
        seen = os.lstat(full)
    except OSError as error:
        raise NotFound(f"Could not find the file {path} in container {view.shown}") from error
    if _is_followed(f"/{path}") and not stat.S_ISDIR(seen.st_mode):
        raise InvalidArgument(f"stat {path}: not a directory")
    target = os.path.realpath(full) if stat.S_ISLNK(seen.st_mode) else ""
    name = os.path.basename(os.path.normpath(f"/{path}")) or "/"
    return PathStat(name, seen.st_size, seen.st_mode, seen.st_mtime_ns, target)


def _resolved(path: str) -> str:
    """The path with its folders' links followed; the last part as it is, unless a slash or a dot follows it."""
    absolute = "/" + path.lstrip("/")
    if _is_followed(absolute):
        return os.path.realpath(absolute)
    folder, name = os.path.split(os.path.normpath(absolute))
    return os.path.join(os.path.realpath(folder), name)


def _is_followed(path: str) -> bool:
    """Whether what is meant is the folder a link leads to, not the link."""
    return path.endswith(("/", "/."))


async def fetch(rootfs: Rootfs, view: View, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
    """What is at a path, and it as a tar whose entries start with the path's last name. Raises NotFound."""
    seen = await look(rootfs, view, path)
    is_content = path.rstrip("/").rpartition("/")[2] == "."
    prefix = "." if is_content else seen.name

    def write(file: int) -> None:
        with os.fdopen(file, "wb") as pipe, tarfile.open(fileobj=pipe, mode="w|", bufsize=_CHUNK) as archive:
            add_tree(archive, _resolved(path), prefix, _OF_THE_KERNEL if view.pid else frozenset())

    return seen, _stream(lambda file: inside(rootfs, view, lambda: write(file)))


async def put(
    rootfs: Rootfs,
    view: View,
    path: str,
    body: AsyncIterator[bytes],
    *,
    keep_kind: bool = False,
    user: str = "",
) -> None:
    """Unpack a tar, in any compression, into a folder of the container. `user`: whose everything is then, in the
    words of `--user`; empty: whose it is in the tar.

    Raises NotFound (no such folder), InvalidArgument (no folder, broken archive), Forbidden (read-only place).
    """

    def read(file: int) -> None:
        with os.fdopen(file, "rb") as pipe:
            folder = os.path.realpath("/" + path.lstrip("/"))
            if not os.path.lexists(folder):
                raise NotFound(f"Could not find the file {path} in container {view.shown}")
            if not os.path.isdir(folder):
                raise InvalidArgument(f"extraction point is not a directory: {path}")
            _check_writable(view, folder)
            owner = None
            if user:
                found = find_user(user, read_text_in("/", "/etc/passwd"), read_text_in("/", "/etc/group"))
                owner = found.uid, found.gid
            if not pipe.peek(1):
                # Nothing at all is an archive of nothing.
                return
            try:
                with tarfile.open(fileobj=pipe, mode="r|*", bufsize=_CHUNK) as archive:
                    extract(archive, folder, keep_kind=keep_kind, owner=owner)
            except tarfile.TarError as error:
                raise InvalidArgument(f"unpacking into {path}: {error}") from error
            except OSError as error:
                raise _unpack_error(path, error) from error
            # What follows the archive's end mark is padding: take it, so that the sender is not cut off.
            while pipe.read(_CHUNK):
                pass

    await _feed(lambda file: inside(rootfs, view, lambda: read(file)), body)


def _unpack_error(path: str, error: OSError) -> DariError:
    if error.strerror and ("overwrite" in error.strerror or "leaves" in error.strerror):
        return InvalidArgument(f"{error.strerror}: {error.filename}")
    return Internal(f"unpacking into {path}: {error.strerror or error}: {error.filename or ''}".rstrip(": "))


def _check_writable(view: View, folder: str) -> None:
    over = [each for each in view.mounts if f"{folder}/".startswith(f"{each.target.rstrip('/')}/")]
    place = max(over, key=lambda each: len(each.target), default=None)
    if place is None and view.is_readonly:
        raise Forbidden("container rootfs is marked read-only")
    if place is not None and place.is_read_only:
        raise Forbidden("mounted volume is marked read-only")


def export(rootfs: Rootfs, container_id: str) -> AsyncIterator[bytes]:
    """The container's root without its volumes, as a tar."""

    def write(file: int) -> None:
        with os.fdopen(file, "wb") as pipe, tarfile.open(fileobj=pipe, mode="w|", bufsize=_CHUNK) as archive:
            for name in sorted(os.listdir("/")):
                add_tree(archive, f"/{name}", name)

    view = View(container_id, container_id[:12], 0)
    return _stream(lambda file: inside(rootfs, view, lambda: write(file)))


def write_changes(rootfs: Rootfs, container_id: str, path: str) -> None:
    """The container's changes as an uncompressed layer in the file `path`. Blocks."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        layer.write_layer(rootfs.upper(container_id), rootfs.lowers(container_id), archive)


async def _stream(produce: Callable[[int], None]) -> AsyncIterator[bytes]:
    """Bytes that `produce` writes to the descriptor it is given, in a thread. Its error is raised at the end."""
    source, sink = os.pipe()
    task = asyncio.create_task(asyncio.to_thread(produce, sink))
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(source, "rb")
    )
    try:
        while data := await reader.read(_CHUNK):
            yield data
        await task
    finally:
        # The writer then fails with EPIPE, if it has not ended.
        transport.close()
        await asyncio.gather(task, return_exceptions=True)


async def _feed(consume: Callable[[int], None], body: AsyncIterator[bytes]) -> None:
    """`consume` reads `body` from a descriptor, in a thread; raises what it raises."""
    source, sink = os.pipe()
    task = asyncio.create_task(asyncio.to_thread(consume, source))
    try:
        async for data in body:
            if task.done():
                continue
            try:
                await asyncio.to_thread(_write_all, sink, data)
            except BrokenPipeError:
                # The reader has ended, with an error; the rest of the body is read and dropped.
                continue
    finally:
        os.close(sink)
        await asyncio.gather(task, return_exceptions=True)
    await task


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
