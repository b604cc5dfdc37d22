"""Connections that stop being HTTP: attach and exec take the client's connection over and talk raw or in frames.

The connection's transport gets a protocol of ours, so that a client may close its half and still read (aiohttp's own
protocol closes both). Must not know: containers. Source: Docker Engine API v1.51, `ContainerAttach`, "Hijacking" and
"Stream format".
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import struct
from collections.abc import AsyncIterator, Callable
from typing import Protocol, cast

from aiohttp import web

from dari.api import halfopen
from dari.api.versions import HEADERS, version_of

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"

_HEADER = struct.Struct(">BxxxL")
_HIGH_WATER = 1 << 20
_LOOK_SECONDS = 1.0
# What may follow `ctrl-`.
_CONTROLS = frozenset("abcdefghijklmnopqrstuvwxyz@[\\]^_")
DEFAULT_DETACH_KEYS = b"\x10\x11"


class Streams(Protocol):
    """What a session is joined to; the runtime's `Stdio`."""

    async def read(self) -> tuple[int, bytes] | None: ...
    async def write(self, data: bytes) -> None: ...
    async def close_stdin(self) -> None: ...
    def close(self) -> None: ...


def frame(stream: int, data: bytes) -> bytes:
    """One piece of output with its header: stream number, zeros, length."""
    return _HEADER.pack(stream, len(data)) + data


def content_type(request: web.Request, *, is_tty: bool) -> str:
    """Raw with a tty; else multiplexed, which clients before 1.42 know as raw too."""
    return RAW if is_tty or version_of(request) < (1, 42) else MULTIPLEXED


def parse_detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` or `a,b` as the bytes to look for; empty = Docker's default. Raises ValueError."""
    if not text:
        return DEFAULT_DETACH_KEYS
    keys = bytearray()
    for part in text.split(","):
        if len(part) == 1:
            keys += part.encode()
        elif part.startswith("ctrl-") and len(part) == 6 and part[5] in _CONTROLS:
            keys.append(ord(part[5].upper()) - 64)
        else:
            raise ValueError(f"Unknown character: '{part}'")
    return bytes(keys)


class Connection(asyncio.Protocol):
    """A client's connection after HTTP: bytes both ways, each half closed on its own."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._received: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._queued = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self.is_lost = False
        self.lost = asyncio.Event()
        self._sequence = b""
        self._held = b""

    @classmethod
    def take_over(cls, request: web.Request, kind: str) -> Connection:
        """Answer `request` with the switch (101 where the client asked for it, else 200) and take its connection."""
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        connection = cls(transport)
        if halfopen.has_ended(request):
            connection._received.put_nowait(None)
        handler = cast(asyncio.Protocol, request.protocol)
        transport.set_protocol(connection)
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        # aiohttp lets go of a connection it believes lost; what its handler returns then goes nowhere. It would
        # close a transport it still knows.
        handler.transport = None  # type: ignore[attr-defined]
        handler.connection_lost(None)
        lines = ["HTTP/1.1 200 OK", f"Content-Type: {kind}"]
        if request.headers.get("Upgrade"):
            lines = [
                "HTTP/1.1 101 UPGRADED",
                f"Content-Type: {kind}",
                "Connection: Upgrade",
                "Upgrade: tcp",
            ]
        lines += [f"{name}: {value}" for name, value in HEADERS.items()]
        transport.write("\r\n".join([*lines, "", ""]).encode())
        transport.resume_reading()
        return connection

    def data_received(self, data: bytes) -> None:
        self._queued += len(data)
        self._received.put_nowait(data)
        if self._queued > _HIGH_WATER:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._received.put_nowait(None)
        # A client that closed both halves looks the same as one that only ended its input, until it is polled.
        asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._received.put_nowait(None)
        self._writable.set()
        self.lost.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _look(self) -> None:
        if self.is_lost or self._transport.is_closing():
            return
        socket = self._transport.get_extra_info("socket")
        poll = select.poll()
        poll.register(socket.fileno(), 0)
        if poll.poll(0):
            self._transport.abort()
        else:
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    async def receive(self) -> bytes | None:
        """The next bytes of the client, None when it has ended its input."""
        data = await self._received.get()
        if data is not None:
            self._queued -= len(data)
            if self._queued <= _HIGH_WATER and not self._transport.is_closing():
                self._transport.resume_reading()
        return data

    async def send(self, data: bytes) -> None:
        """Raises ConnectionResetError where the client has gone."""
        if self.is_lost or self._transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._transport.write(data)
        await self._writable.wait()

    async def until(self, event: asyncio.Event) -> None:
        """Wait for `event`, or until the client goes."""
        waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self.lost.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()

    def close(self) -> None:
        """Send what is still buffered, then close."""
        self._transport.close()


async def join(
    connection: Connection,
    streams: Streams,
    *,
    is_tty: bool,
    wants: Callable[[int], bool] = lambda _stream: True,
    takes_input: bool = True,
    detach_keys: bytes = b"",
    ends_with_input: bool = False,
) -> bool:
    """Move bytes until the output ends, the client goes or it types the detach keys (then True).

    At the end of the client's input the process sees its own end, or with `ends_with_input` the client is let go of
    and the process's input stays as it is. The streams are detached in the end; the process behind them goes on.
    """
    output = asyncio.ensure_future(_pump_output(connection, streams, is_tty, wants))
    typed: asyncio.Future[bool] | None = None
    tasks: set[asyncio.Future[bool]] = {output, asyncio.ensure_future(_wait_lost(connection))}
    if takes_input:
        typed = asyncio.ensure_future(_pump_input(connection, streams, detach_keys, not ends_with_input))
        tasks.add(typed)
    try:
        while True:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                tasks.discard(task)
                if task.exception() is None and task.result():
                    return task is not output and not connection.is_lost
            if output in done or (ends_with_input and typed in done):
                return False
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        streams.close()


async def _wait_lost(connection: Connection) -> bool:
    await connection.lost.wait()
    return True


async def _pump_output(
    connection: Connection, streams: Streams, is_tty: bool, wants: Callable[[int], bool]
) -> bool:
    while (piece := await streams.read()) is not None:
        stream, data = piece
        if wants(stream):
            await connection.send(data if is_tty else frame(stream, data))
    return True


async def _pump_input(connection: Connection, streams: Streams, keys: bytes, closes: bool) -> bool:
    """True when the detach keys were typed; at the end of the input the process sees its stdin close, if `closes`."""
    held = b""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while (data := await connection.receive()) is not None:
            if keys:
                held, data, is_detached = split_keys(held, data, keys)
                if data:
                    await streams.write(data)
                if is_detached:
                    return True
            else:
                await streams.write(data)
        if held:
            await streams.write(held)
        if closes:
            await streams.close_stdin()
    return False


def split_keys(held: bytes, data: bytes, keys: bytes) -> tuple[bytes, bytes, bool]:
    """Look for `keys` in what was typed: (still undecided bytes, bytes to pass on, whether the keys are complete)."""
    typed = held + data
    index = typed.find(keys)
    if index >= 0:
        return b"", typed[:index], True
    for length in range(min(len(keys) - 1, len(typed)), 0, -1):
        if typed.endswith(keys[:length]):
            return typed[-length:], typed[:-length], False
    return b"", typed, False


async def send_all(response: web.StreamResponse, pieces: AsyncIterator[bytes]) -> None:
    """Write pieces until they end or the client goes."""
    with contextlib.suppress(ConnectionResetError):
        async for piece in pieces:
            await response.write(piece)
