"""Pipes and terminals of a child as one stream of frames, read only as fast as they are taken.

Must not know: whose they are.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import struct
import termios
from collections import deque

_PIECE = 65536
# Frames kept before reading stops and the pipe's own limit makes the writer wait.
_KEPT = 16


class Streams:
    """Satisfies `launch.Stdio` over descriptors this object owns: `outputs` (fd, stream), `stdin` or -1."""

    def __init__(self, outputs: list[tuple[int, int]], stdin: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._outputs = dict(outputs)
        self._paused: set[int] = set()
        self._stdin = stdin
        self._frames: deque[tuple[int, bytes]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        for fd in self._outputs:
            os.set_blocking(fd, False)
            self._loop.add_reader(fd, self._take, fd)
        if stdin >= 0:
            os.set_blocking(stdin, False)

    async def read(self) -> tuple[int, bytes] | None:
        while not self._frames:
            if not self._outputs:
                return None
            self._waiter = self._loop.create_future()
            await self._waiter
        frame = self._frames.popleft()
        if self._paused and len(self._frames) < _KEPT:
            for fd in self._paused:
                self._loop.add_reader(fd, self._take, fd)
            self._paused.clear()
        return frame

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._stdin < 0:
                raise BrokenPipeError(errno.EPIPE, "no stdin is attached")
            try:
                written = os.write(self._stdin, view)
            except BlockingIOError:
                await self._writable(self._stdin)
                continue
            except OSError as error:
                raise BrokenPipeError(error.errno, "the process's stdin is closed") from error
            view = view[written:]

    async def close_stdin(self) -> None:
        # A terminal has one descriptor for both ways; its end of input is a character.
        if self._stdin >= 0 and self._stdin not in self._outputs:
            os.close(self._stdin)
            self._stdin = -1

    def close(self) -> None:
        for fd in list(self._outputs):
            self._drop(fd)
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def _take(self, fd: int) -> None:
        try:
            data = os.read(fd, _PIECE)
        except BlockingIOError:
            return
        except OSError:
            # EIO: the last holder of the terminal is gone (pty(7)).
            data = b""
        if data:
            self._frames.append((self._outputs[fd], data))
            if len(self._frames) >= _KEPT:
                self._loop.remove_reader(fd)
                self._paused.add(fd)
        else:
            self._drop(fd)
        self._wake()

    def _drop(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        self._paused.discard(fd)
        self._outputs.pop(fd, None)
        os.close(fd)
        if fd == self._stdin:
            self._stdin = -1
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _writable(self, fd: int) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()

        def writable() -> None:
            if not ready.done():
                ready.set_result(None)

        self._loop.add_writer(fd, writable)
        try:
            await ready
        finally:
            self._loop.remove_writer(fd)


def set_size(fd: int, height: int, width: int) -> None:
    """Window size of a terminal (TIOCSWINSZ, ioctl_tty(2))."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
