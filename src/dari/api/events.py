"""`GET /events`: the journal as a stream of JSON objects. Source: Docker Engine API v1.51, SystemEvents."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from dari.api import stream, wire
from dari.api.route import Route
from dari.engine import events
from dari.engine.base import Engine
from dari.model.errors import InvalidArgument
from dari.model.event import Event
from dari.units import SECOND, parse_time

_NAMES = """
config container daemon event image label network node plugin scope secret service type volume
"""
_FILTERS = frozenset(_NAMES.split())


def event_json(event: Event) -> dict[str, Any]:
    """Docker's shape; `status`, `id` and `from` are the fields of the first version, for containers and images."""
    shape: dict[str, Any] = {}
    if event.type in ("container", "image"):
        shape["status"] = event.action
        shape["id"] = event.actor_id
        if event.type == "container" and "image" in event.attributes:
            shape["from"] = event.attributes["image"]
    shape["Type"] = event.type
    shape["Action"] = event.action
    shape["Actor"] = {"ID": event.actor_id, "Attributes": event.attributes}
    shape["scope"] = event.scope
    shape["time"] = event.time // SECOND
    shape["timeNano"] = event.time
    return shape


async def system_events(request: web.Request, eng: Engine) -> web.StreamResponse:
    filters = wire.filters(request, _FILTERS)
    since, until = _moment(request, eng, "since"), _moment(request, eng, "until")
    if since is not None and until is not None and since > until:
        asked = request.query
        raise InvalidArgument(
            f"`since` time ({asked['since']}) cannot be after `until` time ({asked['until']})"
        )
    source = events.subscribe(eng, since, until, filters)
    response = await stream.open_stream(request)
    async for event in stream.while_listening(request, source):
        await response.write(msgspec.json.encode(event_json(event)) + b"\n")
    return response


def _moment(request: web.Request, eng: Engine, name: str) -> int | None:
    text = request.query.get(name, "")
    if not text:
        return None
    try:
        return parse_time(text, eng.ctx.now())
    except ValueError as error:
        raise InvalidArgument(f"invalid value for parameter {name}: {error}") from error


ROUTES = [Route("GET", "/events", system_events)]
