"""Files of containers: archive, changes, export. Translation only. Source: Docker Engine API v1.51, "Container"."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
from aiohttp import web

from dari.api import progress, wire
from dari.api.route import Route
from dari.engine import archive
from dari.engine.base import Engine
from dari.model.errors import InvalidArgument
from dari.units import format_moment

_KINDS = {"C": 0, "A": 1, "D": 2}
_CHUNK = 1 << 18


def stat_header(found: archive.PathStat) -> str:
    """The value of `X-Docker-Container-Path-Stat`."""
    shape: dict[str, Any] = {
        "name": found.name,
        "size": found.size,
        "mode": found.go_mode,
        "mtime": format_moment(found.modified),
        "linkTarget": found.link_target,
    }
    return base64.b64encode(msgspec.json.encode(shape)).decode()


def _path(request: web.Request) -> str:
    path = request.query.get("path", "")
    if not path:
        raise InvalidArgument("missing parameter: path")
    return path


async def archive_head(request: web.Request, eng: Engine) -> web.StreamResponse:
    found = await archive.look(eng, request.match_info["id"], _path(request))
    return web.Response(headers={"X-Docker-Container-Path-Stat": stat_header(found)})


async def archive_get(request: web.Request, eng: Engine) -> web.StreamResponse:
    found, source = await archive.fetch(eng, request.match_info["id"], _path(request))
    headers = {"X-Docker-Container-Path-Stat": stat_header(found)}
    return await progress.send_bytes(request, source, headers)


async def archive_put(request: web.Request, eng: Engine) -> web.StreamResponse:
    await archive.put(
        eng,
        request.match_info["id"],
        _path(request),
        request.content.iter_chunked(_CHUNK),
        keep_kind=wire.flag(request, "noOverwriteDirNonDir"),
        is_users=wire.flag(request, "copyUIDGID"),
    )
    return web.Response(status=200)


async def changes(request: web.Request, eng: Engine) -> web.StreamResponse:
    found = await archive.changes(eng, request.match_info["id"])
    return wire.json_response([{"Path": each.path, "Kind": _KINDS[each.kind]} for each in found] or None)


async def export(request: web.Request, eng: Engine) -> web.StreamResponse:
    source = await archive.export(eng, request.match_info["id"])
    return await progress.send_bytes(request, source, {"Content-Type": "application/octet-stream"})


ROUTES = [
    Route("HEAD", "/containers/{id:.*}/archive", archive_head),
    Route("GET", "/containers/{id:.*}/archive", archive_get),
    Route("PUT", "/containers/{id:.*}/archive", archive_put),
    Route("GET", "/containers/{id:.*}/changes", changes),
    Route("GET", "/containers/{id:.*}/export", export),
]
