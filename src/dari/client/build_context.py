"""The archive a build sends: a folder as a tar stream, less what `.dockerignore` excludes.

Reference: https://docs.docker.com/build/concepts/context/#dockerignore-files. Must not know engines: it reads
a folder and gives bytes.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator

_BLOCK = 1 << 18
END = bytes(1024)  # two empty blocks end an archive


class Ignore:
    """The patterns of a `.dockerignore`: the last one that matches a path, or a folder above it, decides."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._rules: list[tuple[re.Pattern[str], bool]] = []
        for line in lines:
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            is_exception = text.startswith("!")
            cleaned = os.path.normpath(text.lstrip("!").strip()).lstrip("/")
            if cleaned in ("", "."):
                continue
            self._rules.append((_pattern(cleaned), is_exception))

    @property
    def has_exceptions(self) -> bool:
        """Whether something inside an excluded folder may come back."""
        return any(is_exception for _, is_exception in self._rules)

    def excludes(self, path: str) -> bool:
        """Whether a path relative to the context (`/` as separator) stays out."""
        parts = path.split("/")
        is_out = False
        for pattern, is_exception in self._rules:
            if is_exception == is_out and any(
                pattern.fullmatch("/".join(parts[:count])) for count in range(1, len(parts) + 1)
            ):
                is_out = not is_exception
        return is_out


def read_ignore(folder: str, dockerfile: str = "Dockerfile") -> Ignore:
    """The context's patterns: `<dockerfile>.dockerignore` if there is one, else `.dockerignore`."""
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            with open(path, encoding="utf-8-sig") as file:
                return Ignore(file)
    return Ignore(())


def context_archive(
    folder: str, dockerfile: str = "Dockerfile", extra: dict[str, bytes] | None = None
) -> Iterator[bytes]:
    """The tar of a context in pieces; `extra` adds files by name (a Dockerfile from elsewhere).

    Owners are root's, as Docker's client sends them. The Dockerfile always comes along. Raises OSError.
    """
    if not os.path.isdir(folder):
        raise NotADirectoryError(f"unable to prepare context: path {folder!r} not found")
    ignore = read_ignore(folder, dockerfile)
    always = {os.path.normpath(dockerfile), ".dockerignore"}
    with tarfile.open(fileobj=io.BytesIO(), mode="w") as archive:  # only to describe files; links stay links
        for name, path in _files(folder, ignore, always):
            entry = archive.gettarinfo(path, name)
            if entry is not None:  # None: a socket, which no archive can hold
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = ""
                yield from entry_bytes(entry, path)
    for name, data in (extra or {}).items():
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        yield _header(entry) + data + bytes(-len(data) % 512)
    yield END


def entry_bytes(entry: tarfile.TarInfo, path: str) -> Iterator[bytes]:
    """One entry of a tar, in pieces, so that large files never are in memory. Raises OSError."""
    yield _header(entry)
    if not entry.isreg():
        return
    left = entry.size
    with open(path, "rb") as file:
        while left:
            data = file.read(min(left, _BLOCK))
            if not data:
                raise OSError(f"{path} became shorter while it was read")
            left -= len(data)
            yield data
    yield bytes(-entry.size % 512)


def _header(entry: tarfile.TarInfo) -> bytes:
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _files(folder: str, ignore: Ignore, always: set[str]) -> Iterator[tuple[str, str]]:
    stack = [""]
    while stack:
        relative = stack.pop()
        for entry in sorted(os.scandir(os.path.join(folder, relative)), key=lambda entry: entry.name):
            name = f"{relative}/{entry.name}" if relative else entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            is_out = name not in always and ignore.excludes(name)
            if is_folder and (not is_out or ignore.has_exceptions or _holds(name, always)):
                stack.append(name)
            if not is_out:
                yield name, entry.path


def _holds(folder: str, names: set[str]) -> bool:
    return any(name.startswith(f"{folder}/") for name in names)


def _pattern(text: str) -> re.Pattern[str]:
    """A regular expression of Go's filepath.Match with `**` for any number of folders."""
    out = ""
    at = 0
    while at < len(text):
        if text.startswith("**/", at):
            out, at = f"{out}(?:.*/)?", at + 3
        elif text.startswith("**", at):
            out, at = f"{out}.*", at + 2
        elif text[at] == "*":
            out, at = f"{out}[^/]*", at + 1
        elif text[at] == "?":
            out, at = f"{out}[^/]", at + 1
        elif text[at] == "[" and "]" in text[at + 2 :]:
            end = text.index("]", at + 2)
            out, at = f"{out}[{text[at + 1 : end]}]", end + 1
        elif text[at] == "\\" and at + 1 < len(text):
            out, at = f"{out}{re.escape(text[at + 1])}", at + 2
        else:
            out, at = f"{out}{re.escape(text[at])}", at + 1
    return re.compile(out, re.DOTALL)
