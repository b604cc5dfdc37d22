"""Archives the engine sends: to stdout, or to a file that is there whole or not at all."""

from __future__ import annotations

import os
import stat
from typing import Any

from dari.cli.context import Context, Failed

# What a verb is told about where its archive cannot go.
_FAILURES = {"save": "failed to save image", "export": "failed to export container"}


def write_out(context: Context, path: str, verb: str, url: str, **query: Any) -> int:
    """What a GET answers, to the file `path`, to stdout where it is empty. Raises Failed where that is a terminal, or
    the path no file's."""
    if not path and os.isatty(1):
        raise Failed(f"cowardly refusing to {verb} to a terminal. Use the -o flag or redirect")
    if path and (problem := _problem(path)):
        raise Failed(f"{_FAILURES[verb]}: {problem}")
    chunks = context.docker.stream("GET", url, **query)
    if not path:
        for chunk in chunks:
            context.write(chunk)
        return 0
    beside = f"{path}.{os.getpid()}.part"  # a broken transfer must not pass for an archive
    try:
        # An archive may hold secrets; Docker's are its user's alone, too.
        with open(
            os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb"
        ) as file:
            for chunk in chunks:
                file.write(chunk)
        os.replace(beside, path)
    except BaseException:
        if os.path.exists(beside):
            os.unlink(beside)
        raise
    return 0


def _problem(path: str) -> str:
    """Why no file can be put at `path`, in Docker's words; empty if one can. Replacing would take away /dev/null."""
    folder = os.path.dirname(os.path.normpath(path))
    if folder and not os.path.exists(folder):
        return f'invalid output path: directory "{folder}" does not exist'
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return ""
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return f'invalid output path: "{path}" must be a directory or a regular file: got a device'
    kinds = (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISLNK, "a symbolic link directly"),
        (stat.S_ISFIFO, "a named pipe (FIFO)"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next(
        (f"failed to write to {path}: cannot write to {kind}" for is_one, kind in kinds if is_one(mode)), ""
    )
