"""`/containers/{id}/logs`, `/stats`, `/top`: translation only. Source: Docker Engine API v1.51, "Container"."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

import msgspec
from aiohttp import web

from dari.api import stream, wire
from dari.api.route import Route
from dari.api.streams import content_type, frame
from dari.engine import logs
from dari.engine.base import Engine
from dari.engine.logs import LogEntry, LogQuery, Stats
from dari.engine.lookup import find_container
from dari.model.container import Container
from dari.model.errors import InvalidArgument
from dari.units import SECOND, ZERO_TIME, format_time, parse_time

_EMPTY_CPU: dict[str, Any] = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}


async def container_logs(request: web.Request, eng: Engine) -> web.StreamResponse:
    query = _query(request, eng)
    container = find_container(eng, request.match_info["id"])
    is_tty = container.config.tty
    line = _writer(
        is_tty=is_tty,
        with_times=wire.flag(request, "timestamps"),
        details=logs.details(container) if wire.flag(request, "details") else None,
    )
    batches = logs.read(eng, container, query)
    response = await stream.open_stream(request, content_type(request, is_tty=is_tty))
    with contextlib.suppress(ConnectionResetError):
        async for entries in stream.while_listening(request, batches):
            await response.write(b"".join(map(line, entries)))
    return response


def _query(request: web.Request, eng: Engine) -> LogQuery:
    """Raises InvalidArgument."""
    stdout, stderr = wire.flag(request, "stdout"), wire.flag(request, "stderr")
    if not stdout and not stderr:
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    tail = request.query.get("tail", "all")
    return LogQuery(
        stdout=stdout,
        stderr=stderr,
        since=_moment(request, "since", eng),
        until=_moment(request, "until", eng),
        # Docker takes what is not a number for "all".
        tail=int(tail) if tail.isdigit() else -1,
        follow=wire.flag(request, "follow"),
    )


def _moment(request: web.Request, name: str, eng: Engine) -> int:
    text = request.query.get(name, "")
    if text in ("", "0"):
        return 0
    try:
        return max(0, parse_time(text, eng.ctx.now()))
    except ValueError:
        raise InvalidArgument(f'invalid value for "{name}": {text!r}') from None


def _writer(*, is_tty: bool, with_times: bool, details: dict[str, str] | None) -> Callable[[LogEntry], bytes]:
    prefix = b""
    if details is not None:
        pairs = sorted(details.items())
        prefix = ",".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in pairs).encode() + b" "

    def plain(entry: LogEntry) -> bytes:
        data = prefix + entry.data
        return _time(entry.time) + data if with_times else data

    if is_tty:
        return plain
    return lambda entry: frame(entry.stream, plain(entry))


def _time(ns: int) -> bytes:
    """RFC 3339 with nine digits, so that columns line up."""
    seconds, fraction = divmod(ns, SECOND)
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{fraction:09d}Z ".encode()


async def container_top(request: web.Request, eng: Engine) -> web.StreamResponse:
    return wire.json_response(await logs.top(eng, request.match_info["id"], request.query.get("ps_args", "")))


async def container_stats(request: web.Request, eng: Engine) -> web.StreamResponse:
    container = find_container(eng, request.match_info["id"])
    samples = logs.stats(eng, container.id)
    if wire.flag(request, "stream", True):
        return await _stream_stats(request, container, samples)
    is_quick = wire.flag(request, "one-shot")
    before, present = await anext(samples)
    if present is not None and not is_quick:
        # Percentages need two samples; who asks for one answer gets them a second apart.
        before, present = await anext(samples)
    await _close(samples)
    return wire.json_response(stats_json(container, before, present))


async def _stream_stats(
    request: web.Request, container: Container, samples: AsyncIterator[tuple[Stats | None, Stats | None]]
) -> web.StreamResponse:
    response = await stream.open_stream(request)
    with contextlib.suppress(ConnectionResetError):
        async for before, present in stream.while_listening(request, samples):
            await response.write(msgspec.json.encode(stats_json(container, before, present)) + b"\n")
    return response


async def _close(samples: object) -> None:
    close = getattr(samples, "aclose", None)
    if close is not None:
        await asyncio.shield(close())


def stats_json(container: Container, before: Stats | None, present: Stats | None) -> dict[str, Any]:
    """One object of the stream. A container that does not run has zeros."""
    body: dict[str, Any] = {
        "name": f"/{container.name}",
        "id": container.id,
        "read": format_time(present.read) if present is not None else ZERO_TIME,
        "preread": format_time(before.read) if before is not None else ZERO_TIME,
        "num_procs": 0,
        "pids_stats": {},
        "storage_stats": {},
        "memory_stats": {},
        "blkio_stats": _EMPTY_BLKIO,
        "cpu_stats": _EMPTY_CPU,
        "precpu_stats": msgspec.to_builtins(before.cpu_stats) if before is not None else _EMPTY_CPU,
    }
    if present is not None:
        shown: dict[str, Any] = msgspec.to_builtins(present)
        shown.pop("read")
        body.update(shown)
        if not present.networks:
            body.pop("networks", None)
        if not present.pids_stats.limit:
            body["pids_stats"].pop("limit", None)
    return body


_EMPTY_BLKIO: dict[str, Any] = dict.fromkeys(
    (
        "io_service_bytes_recursive",
        "io_serviced_recursive",
        "io_queue_recursive",
        "io_service_time_recursive",
        "io_wait_time_recursive",
        "io_merged_recursive",
        "io_time_recursive",
        "sectors_recursive",
    )
)

ROUTES = [
    Route("GET", "/containers/{id:.*}/logs", container_logs),
    Route("GET", "/containers/{id:.*}/stats", container_stats),
    Route("GET", "/containers/{id:.*}/top", container_top),
]
