"""A client of conmon's attach socket: frames out, stdin in.

conmon never waits for a slow reader, so a reader task here takes everything at once and keeps it until asked.
Must not know: containers, HTTP. Source: conmon's protocol: SOCK_SEQPACKET, first byte 2 stdout, 3 stderr.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque

from dari.runtime.launch import STDERR, STDOUT

_STREAMS = {2: STDOUT, 3: STDERR}
_FRAME = 65536
# conmon reads at most this much of one packet.
_STDIN_PIECE = 8192


class Attachment:
    """Satisfies `launch.Stdio`. Use `connect`."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._frames: deque[tuple[int, bytes]] = deque()
        self._has_ended = False
        self._is_closed = False
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection.fileno(), self._take)

    async def read(self) -> tuple[int, bytes] | None:
        while not self._frames:
            if self._has_ended:
                return None
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._frames.popleft()

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            piece = view[:_STDIN_PIECE]
            try:
                self._socket.send(piece)
            except BlockingIOError:
                await self._writable()
                continue
            except OSError as error:
                raise BrokenPipeError(error.errno, "the container's stdin is closed") from error
            view = view[len(piece) :]

    async def close_stdin(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            # The other side has gone already, and the stdin with it.
            pass

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._end()
        self._socket.close()

    def _take(self) -> None:
        for _ in range(64):
            try:
                packet = self._socket.recv(_FRAME)
            except BlockingIOError:
                break
            except OSError:
                packet = b""
            if not packet:
                self._end()
                break
            self._frames.append((_STREAMS.get(packet[0], STDOUT), packet[1:]))
        self._wake()

    def _end(self) -> None:
        self._has_ended = True
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _writable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        fd = self._socket.fileno()

        def writable() -> None:
            if not ready.done():
                ready.set_result(None)

        self._loop.add_writer(fd, writable)
        try:
            await ready
        finally:
            self._loop.remove_writer(fd)


def connect(bundle: str) -> Attachment:
    """Attach to the container of `bundle`. Raises OSError if no conmon listens there."""
    # The path of a socket is short (108 bytes); the way over a descriptor of its folder is always short enough.
    folder = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{folder}/attach")
        connection.setblocking(False)
        return Attachment(connection)
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(folder)
