"""Running another program to its end, its output read line by line.

For skopeo and buildah, which report as they go. Must not know: images.
"""

from __future__ import annotations

import asyncio
import asyncio.subprocess
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence

# A program ends with the daemon: what it leaves half-done is tidied at the next start, not raced with.
_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
_KEPT_LINES = 40
_MAX_LINE = 1 << 20


class ProgramFailed(Exception):
    """A program ended with an error; `lines` are the last it said, `code` its exit status."""

    def __init__(self, name: str, code: int, lines: Sequence[str]) -> None:
        super().__init__(f"{name} failed ({code}): {lines[-1] if lines else 'it gave no reason'}")
        self.code = code
        self.lines = list(lines)


async def run(
    argv: Sequence[str],
    on_line: Callable[[str], None] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> list[str]:
    """Run `argv`; each line of its output and errors goes to `on_line` as it comes. The last lines are returned.

    Cancelled, it kills the program and waits for it. Raises ProgramFailed, FileNotFoundError.
    """
    process = await asyncio.create_subprocess_exec(
        *_DIES_WITH_US,
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        limit=_MAX_LINE,
    )
    lines: list[str] = []
    try:
        assert process.stdout is not None
        async for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip("\r\n")
            lines.append(line)
            del lines[:-_KEPT_LINES]
            if on_line is not None:
                on_line(line)
        code = await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if code != 0:
        raise ProgramFailed(os.path.basename(argv[0]), code, lines)
    return lines


async def output(argv: Sequence[str]) -> bytes:
    """What `argv` prints, byte for byte. Raises ProgramFailed (with its error lines), FileNotFoundError."""
    process = await asyncio.create_subprocess_exec(
        *_DIES_WITH_US,
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        lines = errors.decode(errors="replace").splitlines()[-_KEPT_LINES:]
        raise ProgramFailed(os.path.basename(argv[0]), process.returncode or 0, lines)
    return out
