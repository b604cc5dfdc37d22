"""`dari cp`: files between here and a container, with the rules of Docker's `cp` (those of `cp -a`).

The archive a container sends is not trusted: nothing is written outside the destination.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from typing import Any

from dari.cli.context import Context, Failed
from dari.cli.flags import Flag, Options, verb
from dari.cli.output import write_out

_GO_DIRECTORY = 1 << 31
_CHUNK = 1 << 18


@verb(
    "cp",
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|- | SRC_PATH|- CONTAINER:DEST_PATH",
    "Copy files/folders between a container and the local filesystem",
    Flag("archive", "bool", "Archive mode (copy all uid/gid information)", "a"),
    Flag("follow-link", "bool", "Always follow symbol link in SRC_PATH", "L"),
    Flag("quiet", "bool", "Suppress progress output during copy", "q"),
    least=2,
    most=2,
)
def cp(context: Context, options: Options) -> int:
    source, target = map(split, options.arguments)
    if source[0] and target[0]:
        raise Failed("copying between containers is not supported")
    if not source[0] and not target[0]:
        raise Failed("must specify at least one container source")
    if source[0]:
        return _from_container(context, options, source[0], source[1], target[1])
    return _to_container(context, options, source[1], target[0], target[1])


@verb(
    "export",
    "[OPTIONS] CONTAINER",
    "Export a container's filesystem as a tar archive",
    Flag("output", "text", "Write to a file, instead of STDOUT", "o"),
    least=1,
    most=1,
)
def export(context: Context, options: Options) -> int:
    return write_out(context, options.text("output"), "export", f"/containers/{options.arguments[0]}/export")


def split(text: str) -> tuple[str, str]:
    """Container and path of `CONTAINER:PATH`; "" and the path of a local one (`./a:b`, `/a:b`, `-`)."""
    container, separator, path = text.partition(":")
    if not separator or text.startswith(("/", ".", "-")):
        return "", text
    return container, path


def _stat(context: Context, container: str, path: str) -> dict[str, Any] | None:
    from dari.client.errors import ApiError

    try:
        headers = context.docker.head(f"/containers/{container}/archive", path=path)
    except ApiError as error:
        if error.status != 404:
            raise
        # HEAD has no body to tell a missing path from a missing container.
        context.docker.get(f"/containers/{container}/json")
        return None
    found = json.loads(base64.b64decode(headers["x-docker-container-path-stat"]))
    assert isinstance(found, dict)
    return found


def _from_container(context: Context, options: Options, container: str, path: str, target: str) -> int:
    stat = _stat(context, container, path)
    if stat is None:
        raise Failed(f"Error response from daemon: Could not find the file {path} in container {container}")
    if options.on("follow-link") and stat.get("linkTarget"):
        path = stat["linkTarget"]
    chunks = context.docker.stream("GET", f"/containers/{container}/archive", path=path)
    if target == "-":
        for chunk in chunks:
            context.write(chunk)
        return 0
    copies_contents = path.endswith("/.")
    is_folder = bool(stat["mode"] & _GO_DIRECTORY)
    root = os.path.basename(os.path.normpath(path))
    if os.path.isdir(target):
        folder, name = target, "" if copies_contents else root
    else:
        if target.endswith("/") and not is_folder:
            raise Failed(f"destination directory {target} must exist")
        if os.path.exists(target) and is_folder:
            raise Failed(f"cannot copy directory {path} to file {target}")
        folder, name = os.path.split(os.path.normpath(target))
        folder = folder or "."
        if not os.path.isdir(folder):
            raise Failed(f"destination directory {folder} must exist")
    with tarfile.open(fileobj=_Reader(chunks), mode="r|*") as archive:
        extract(archive, folder, name, keeps_owner=options.on("archive"))
    if not options.on("quiet") and os.isatty(2):
        context.complain(f"Successfully copied to {target}")
    return 0


def extract(archive: tarfile.TarFile, folder: str, name: str, *, keeps_owner: bool) -> None:
    """Write an archive below `folder`; its topmost entry is called `name` there ("": its content alone).

    Raises Failed for an entry that would lead out of `folder`.
    """
    base = os.path.realpath(folder)
    folders: list[tuple[str, tarfile.TarInfo]] = []
    for entry in archive:
        # The topmost entry is "." where the content of a folder was asked for.
        parts = [part for part in entry.name.split("/") if part]
        if ".." in parts:
            raise Failed(f"the archive's entry {entry.name!r} leads out of {folder}")
        inner = [*([name] if name else []), *(part for part in parts[1:] if part != ".")]
        if not inner:
            continue
        path = os.path.join(base, *inner)
        if os.path.commonpath([base, os.path.realpath(os.path.dirname(path))]) != base:
            raise Failed(f"the archive's entry {entry.name!r} leads out of {folder}")
        if entry.isdir():
            if os.path.islink(path) or (os.path.exists(path) and not os.path.isdir(path)):
                raise Failed(f"cannot copy directory {entry.name} over {path}")
            os.makedirs(path, exist_ok=True)
            folders.append((path, entry))
            continue
        _write(archive, entry, path, base, name)
        if not entry.issym() and not entry.islnk():
            _finish(path, entry, keeps_owner)
        elif keeps_owner and entry.issym():
            os.lchown(path, entry.uid, entry.gid)
    for path, entry in reversed(folders):  # last: a folder without w could not be filled
        _finish(path, entry, keeps_owner)


def _write(archive: tarfile.TarFile, entry: tarfile.TarInfo, path: str, base: str, name: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        raise Failed(f"cannot copy {entry.name} over directory {path}")
    if os.path.lexists(path):
        os.unlink(path)
    if entry.issym():
        os.symlink(entry.linkname, path)
    elif entry.islnk():
        parts = [part for part in entry.linkname.split("/") if part]
        other = os.path.join(base, *([name] if name else []), *parts[1:])
        if ".." in parts or os.path.commonpath([base, os.path.realpath(other)]) != base:
            raise Failed(f"the archive's link {entry.name!r} leads out of the destination")
        os.link(other, path, follow_symlinks=False)
    elif entry.isreg():
        content = archive.extractfile(entry)
        assert content is not None
        with open(path, "xb") as file:
            shutil.copyfileobj(content, file, _CHUNK)
    elif entry.isfifo():
        os.mkfifo(path)
    else:
        os.mknod(
            path,
            entry.mode | (0o020000 if entry.ischr() else 0o060000),
            os.makedev(entry.devmajor, entry.devminor),
        )


def _finish(path: str, entry: tarfile.TarInfo, keeps_owner: bool) -> None:
    if keeps_owner:
        os.chown(path, entry.uid, entry.gid)
    os.chmod(path, entry.mode & 0o7777)
    os.utime(path, (entry.mtime, entry.mtime))


def _to_container(context: Context, options: Options, source: str, container: str, target: str) -> int:
    stat = _stat(context, container, target)
    if stat is not None and stat.get("linkTarget"):
        target = stat["linkTarget"]
        stat = _stat(context, container, target)
    is_folder = stat is not None and bool(stat["mode"] & _GO_DIRECTORY)
    if source == "-":
        if not is_folder:
            raise Failed(f'destination "{container}:{target}" must be a directory')
        body = _stdin()
        folder = target
    else:
        folder, body = _pack(options, source, container, target, stat is not None, is_folder)
    context.docker.put(
        f"/containers/{container}/archive",
        body,
        path=folder,
        noOverwriteDirNonDir=True,
        copyUIDGID=True if options.on("archive") else None,
    )
    return 0


def _pack(
    options: Options, source: str, container: str, target: str, exists: bool, is_folder: bool
) -> tuple[str, Iterator[bytes]]:
    if not os.path.lexists(source):
        raise Failed(f"lstat {os.path.abspath(source)}: no such file or directory")
    source_is_folder = os.path.isdir(source) and not (os.path.islink(source) and not source.endswith("/"))
    if exists and not is_folder and source_is_folder:
        raise Failed(f"cannot copy directory {source} to file {container}:{target}")
    if is_folder:
        name = "" if source.endswith("/.") else os.path.basename(os.path.abspath(source))
        folder = target
    else:
        if target.endswith("/") and not source_is_folder:
            raise Failed(f"destination directory {container}:{target} must exist")
        folder, name = os.path.split(os.path.normpath(target))
        folder = folder or "/"
    path = os.path.realpath(source) if options.on("follow-link") else source
    return folder, archive_of(path, name, keeps_owner=options.on("archive"))


def archive_of(path: str, name: str, *, keeps_owner: bool) -> Iterator[bytes]:
    """The tar of a file or folder, called `name` inside ("": a folder's content), in pieces."""
    from dari.client.build_context import END, entry_bytes

    with tarfile.open(fileobj=io.BytesIO(), mode="w") as archive:  # only to describe files
        for inner, outer in _walk(path, name):
            entry = archive.gettarinfo(outer, inner or ".")
            if entry is None:  # a socket, which no archive can hold
                continue
            if not keeps_owner:
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = ""
            yield from entry_bytes(entry, outer)
    yield END


def _walk(path: str, name: str) -> Iterator[tuple[str, str]]:
    yield name, path
    if os.path.isdir(path) and not (os.path.islink(path) and not path.endswith(("/", "/."))):
        for entry in sorted(os.listdir(path)):
            yield from _walk(os.path.join(path, entry), f"{name}/{entry}" if name else entry)


def _stdin() -> Iterator[bytes]:
    while chunk := os.read(0, _CHUNK):
        yield chunk


class _Reader(io.RawIOBase):
    """A stream of pieces as a file for tarfile."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._ahead = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._ahead) < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._ahead += chunk
        cut = len(self._ahead) if size < 0 else size
        data, self._ahead = self._ahead[:cut], self._ahead[cut:]
        return data
