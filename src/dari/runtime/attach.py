"""A client of conmon's attach socket: frames out, stdin in.

conmon waits for its slowest client, and the container with it. So much is taken at once and kept until asked for;
beyond that the container waits, as with Docker.
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
# Bytes kept for a client that does not read them yet.
_KEPT = 4 << 20
# conmon reads at most this much of one packet.
_STDIN_PIECE = 8192


class Attachment:
    """Satisfies `launch.Stdio`. Use `connect`.

    With `loses_stdin` conmon ends the container's input when *any* client goes. One that never typed must not do
    that to the others, so its connection stays, unread by anybody, until the container ends.
    """

    def __init__(self, connection: socket.socket, loses_stdin: bool) -> None:
        self._lingers = loses_stdin
        self._socket = connection
        self._frames: deque[tuple[int, bytes]] = deque()
        self._has_ended = False
        self._is_closed = False
        self._size = 0
        self._is_full = False
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection.fileno(), self._take)

    async def read(self) -> tuple[int, bytes] | None:
        while not self._frames:
            if self._has_ended or self._is_closed:
                return None
            self._waiter = self._loop.create_future()
            await self._waiter
        frame = self._frames.popleft()
        self._size -= len(frame[1])
        if self._is_full and self._size < _KEPT // 2:
            self._resume()
        return frame

    async def write(self, data: bytes) -> None:
        self._lingers = False
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
        self._lingers = False
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            # The other side has gone already, and the stdin with it.
            pass

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._lingers and not self._has_ended:
            self._frames.clear()
            if self._is_full:
                self._resume()
            self._wake()
            return
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
                if self._is_closed:
                    self._socket.close()
                break
            if self._is_closed:
                continue
            self._frames.append((_STREAMS.get(packet[0], STDOUT), packet[1:]))
            self._size += len(packet) - 1
            if self._size > _KEPT:
                self._is_full = True
                self._loop.remove_reader(self._socket.fileno())
                break
        self._wake()

    def _resume(self) -> None:
        self._is_full = False
        if not self._has_ended:
            self._loop.add_reader(self._socket.fileno(), self._take)

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


def connect(bundle: str, loses_stdin: bool = False) -> Attachment:
    """Attach to the container of `bundle`; `loses_stdin`: see `Attachment`. Raises OSError if none listens."""
    # The path of a socket is short (108 bytes); the way over a descriptor of its folder is always short enough.
    folder = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{folder}/attach")
        connection.setblocking(False)
        return Attachment(connection, loses_stdin)
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(folder)


async def accepted() -> None:
    """Wait until conmon has taken the connections made to it, 0.2 s at most.

    A connection in the listener's queue is connected for its client, but conmon sends it nothing yet: what a
    container writes at once after its start would be missed. The kernel shows such a one as connecting (state 02)
    and without an inode, under the listener's path (net/unix/af_unix.c, unix_seq_show).
    """
    for _ in range(200):
        with open("/proc/self/net/unix", "rb") as table:
            if not any(row.endswith(b"/attach\n") and row.split()[5:7] == [b"02", b"0"] for row in table):
                return
        await asyncio.sleep(0.001)
