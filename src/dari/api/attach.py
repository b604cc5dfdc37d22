"""`/containers/{id}/attach`, `/logs`, `/resize`: translation only.

Source: Docker Engine API v1.51, `ContainerAttach`, `ContainerAttachWebsocket`, `ContainerLogs`, `ContainerResize`.
"""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import WSMsgType, web

from dari.api import wire
from dari.api.exec import window
from dari.api.route import Route
from dari.api.streams import Connection, Streams, content_type, join, parse_detach_keys
from dari.engine import attach
from dari.engine.base import Engine
from dari.engine.lookup import find_container
from dari.model.container import Container
from dari.model.errors import InvalidArgument

_HEAD_START = 0.005


def _detach_keys(request: web.Request, container: Container) -> bytes:
    if not container.config.tty:
        return b""
    try:
        return parse_detach_keys(request.query.get("detachKeys", ""))
    except ValueError:
        raise InvalidArgument(
            f"Invalid detach keys ({request.query.get('detachKeys', '')}) provided"
        ) from None


async def container_attach(request: web.Request, eng: Engine) -> web.StreamResponse:
    container = find_container(eng, request.match_info["id"])
    keys = _detach_keys(request, container)
    wants_past, wants_stream = wire.flag(request, "logs"), wire.flag(request, "stream")
    wanted = {1: wire.flag(request, "stdout"), 2: wire.flag(request, "stderr")}
    is_tty = container.config.tty
    streams = await attach.attach(eng, container.id, with_past=wants_past, with_stream=wants_stream)
    try:
        connection = Connection.take_over(request, content_type(request, is_tty=is_tty))
    except ConnectionResetError:
        streams.close()
        raise
    try:
        # docker-py loses output that reaches it in one piece with the answer's head.
        await asyncio.sleep(_HEAD_START)
        is_detached = await join(
            connection,
            streams,
            is_tty=is_tty,
            wants=lambda stream: wanted.get(stream, False),
            takes_input=wants_stream and wire.flag(request, "stdin") and container.config.open_stdin,
            detach_keys=keys,
            # Docker lets go of the output too when the input ends, but where the container's input ends with it.
            ends_with_input=is_tty or not container.config.stdin_once,
        )
    finally:
        connection.close()
    if is_detached:
        await attach.announce_detach(eng, container)
    return web.Response()


async def container_attach_websocket(request: web.Request, eng: Engine) -> web.StreamResponse:
    container = find_container(eng, request.match_info["id"])
    streams = await attach.attach(
        eng, container.id, with_past=wire.flag(request, "logs"), with_stream=wire.flag(request, "stream")
    )
    socket = web.WebSocketResponse()
    output: asyncio.Task[None] | None = None
    try:
        await socket.prepare(request)
        output = asyncio.create_task(_to_websocket(socket, streams))
        async for message in socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY) and container.config.open_stdin:
                data = message.data.encode() if isinstance(message.data, str) else message.data
                with contextlib.suppress(BrokenPipeError):
                    await streams.write(data)
    finally:
        if output is not None:
            output.cancel()
        streams.close()
    return socket


async def _to_websocket(socket: web.WebSocketResponse, streams: Streams) -> None:
    with contextlib.suppress(ConnectionResetError):
        while (piece := await streams.read()) is not None:
            await socket.send_bytes(piece[1])
        await socket.close()


async def container_resize(request: web.Request, eng: Engine) -> web.StreamResponse:
    await attach.resize(eng, request.match_info["id"], *window(request))
    return web.Response(status=200)


ROUTES = [
    Route("POST", "/containers/{id:.*}/attach", container_attach),
    Route("GET", "/containers/{id:.*}/attach/ws", container_attach_websocket),
    Route("POST", "/containers/{id:.*}/resize", container_resize),
]
