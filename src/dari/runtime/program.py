"""Running another program to its end, its output read line by line.

For skopeo and buildah, which report as they go. Must not know: images.
"""

from __future__ import annotations

import asyncio
import asyncio.subprocess
import contextlib
import fcntl
import os
import re
import struct
import termios
from collections.abc import Callable, Mapping, Sequence

# A program ends with the daemon: what it leaves half-done is tidied at the next start, not raced with.
_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
_KEPT_LINES = 40
_MAX_LINE = 1 << 20
# Lines and columns: room for every bar a program draws.
_TERMINAL_SIZE = (1000, 160)
_MOVES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


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
    on_error: Callable[[str], None] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    has_terminal: bool = False,
) -> list[str]:
    """Run `argv`; each line of its output and errors goes to `on_line` as it comes. The last lines are returned.

    With `on_error` the lines of its errors go there, and are those returned; what was said before a line of the
    output comes before it. With `has_terminal` its output is a wide terminal, whose lines come without what moves
    the cursor and are not among those returned.
    Cancelled, it kills the program and waits for it. Raises ProgramFailed, FileNotFoundError.
    """
    lines: list[str] = []

    def keep(line: str) -> None:
        lines.append(line)
        del lines[:-_KEPT_LINES]

    # What is drawn again and again is not kept: the reason of a failure would be lost among it.
    terminal = _Terminal(on_line or (lambda _: None)) if has_terminal else None
    errors = _Errors(keep, on_error) if on_error is not None else None
    place = asyncio.subprocess.PIPE if terminal else asyncio.subprocess.STDOUT
    if errors is not None:
        place = errors.other_end
    try:
        process = await asyncio.create_subprocess_exec(
            *_DIES_WITH_US,
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=terminal.other_end if terminal else asyncio.subprocess.PIPE,
            stderr=place,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            limit=_MAX_LINE,
        )
        try:
            stream = process.stderr if terminal else process.stdout
            assert stream is not None
            async for raw in stream:
                line = raw.decode(errors="replace").rstrip("\r\n")
                if errors is not None:
                    errors.drain()
                else:
                    keep(line)
                if on_line is not None:
                    on_line(line)
            code = await process.wait()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
    finally:
        if terminal is not None:
            terminal.close()
        if errors is not None:
            errors.close()
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


class _Errors:
    """A pipe whose lines go to both functions. `other_end` is for the program."""

    def __init__(self, keep: Callable[[str], None], take: Callable[[str], None]) -> None:
        self._keep, self._take = keep, take
        self._rest = b""
        self._end, self.other_end = os.pipe()
        os.set_blocking(self._end, False)
        asyncio.get_running_loop().add_reader(self._end, self.drain)

    def drain(self) -> None:
        """Take what has come so far."""
        while True:
            try:
                data = os.read(self._end, 65536)
            except BlockingIOError:
                return
            if not data:
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._say(line)

    def _say(self, raw: bytes) -> None:
        line = raw.decode(errors="replace").rstrip("\r")
        self._keep(line)
        self._take(line)

    def close(self) -> None:
        """What the program wrote last is taken first."""
        self.drain()
        if self._rest:
            self._say(self._rest)
        asyncio.get_running_loop().remove_reader(self._end)
        os.close(self._end)
        os.close(self.other_end)


class _Terminal:
    """A pseudo terminal whose lines go to `take`. `other_end` is for the program."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._rest = b""
        self._end, self.other_end = os.openpty()
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", *_TERMINAL_SIZE, 0, 0))
        os.set_blocking(self._end, False)
        asyncio.get_running_loop().add_reader(self._end, self._read)

    def _read(self) -> bool:
        """False where there is nothing to read now."""
        try:
            data = os.read(self._end, 65536)
        except OSError:
            # Nothing there, or EIO: nobody has the other end any more (pty(7)).
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(_MOVES.sub(b"", line).strip(b"\r").decode(errors="replace"))
        return bool(data)

    def close(self) -> None:
        """What the program wrote last is taken first."""
        while self._read():
            pass
        asyncio.get_running_loop().remove_reader(self._end)
        os.close(self._end)
        os.close(self.other_end)
