"""Clients that end their half of a connection and still want the answer: `printf 'GET …' | nc -N -U dari.sock`.

Between the transport and aiohttp's protocol, which would close both halves. As in Docker, what was asked completely is
answered, and a stream without end takes the client for gone. Must not know: endpoints. Source: RFC 9112, 9.6.
"""

from __future__ import annotations

import asyncio
from typing import cast

from aiohttp import web

# Turns of the loop until a request that came together with the end is in its handler's hands.
_TURNS = 4


class HalfOpen(asyncio.Protocol):
    """Passes everything on to `inner`, aiohttp's protocol, but for the end of the client's half."""

    def __init__(self, inner: web.RequestHandler) -> None:
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        # What is being answered; the dispatcher says so.
        self.request: web.BaseRequest | None = None
        self.has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def eof_received(self) -> bool:
        self.has_ended = True
        transport = self._transport
        # TLS has no halves.
        if transport is None or transport.get_extra_info("ssl_object") is not None:
            return False
        self._settle(_TURNS)
        return True

    def _settle(self, turns: int) -> None:
        if self.request is None and turns:
            asyncio.get_running_loop().call_soon(self._settle, turns - 1)
            return
        request = self.request
        # What is no HTTP any more (a WebSocket) knows no halves.
        is_websocket = request is not None and request.headers.get("Upgrade", "").lower() == "websocket"
        if request is not None and request.content.is_eof() and not is_websocket:
            # Answer what there is, then close.
            self._inner.close()
        elif self._transport is not None:
            self._transport.close()


class Runner(web.AppRunner):
    """An application's runner whose connections may be half closed."""

    @property
    def server(self) -> web.Server | None:
        made = super().server
        if made is None:
            return None
        # Sites only call it, once for each connection.
        return cast(web.Server, lambda: HalfOpen(made()))


def begin(request: web.BaseRequest) -> None:
    """Say that `request` is being answered on its connection."""
    _mark(request, request)


def end(request: web.BaseRequest) -> None:
    """Say that it has been."""
    _mark(request, None)


def has_ended(request: web.BaseRequest) -> bool:
    """Whether the client has ended its half of the connection."""
    transport = request.transport
    protocol = transport.get_protocol() if transport is not None else None
    return isinstance(protocol, HalfOpen) and protocol.has_ended


def _mark(request: web.BaseRequest, what: web.BaseRequest | None) -> None:
    transport = request.transport
    protocol = transport.get_protocol() if transport is not None else None
    if isinstance(protocol, HalfOpen):
        protocol.request = what
