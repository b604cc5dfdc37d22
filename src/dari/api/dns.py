"""`/dari/v1/dns/stats` and `/dari/v1/dns/log`: what dari-dns counts, and what it is asked. Translation only."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from dari.api import stream, wire
from dari.api.route import Route
from dari.engine import resolver
from dari.engine.base import Engine
from dari.units import format_time


async def dns_stats(request: web.Request, eng: Engine) -> web.StreamResponse:
    found = await resolver.stats(eng)
    return wire.json_response(
        {
            "Queries": found["queries"],
            "OverTCP": found["over_tcp"],
            "Made": found["made"],
            "Forwarded": found["forwarded"],
            "Containers": found["views"],
            "Upstreams": {
                name: {
                    "Asked": each["asked"],
                    "Answered": each["answered"],
                    "Failed": each["failed"],
                    "Milliseconds": each["milliseconds"],
                }
                for name, each in found["upstreams"].items()
            },
        }
    )


async def dns_log(request: web.Request, eng: Engine) -> web.StreamResponse:
    """A stream of JSON lines, one a question, from now on; `container=` takes those of one."""
    lines = await resolver.log(eng, request.query.get("container", ""))
    response = await stream.open_stream(request)
    async for line in stream.while_listening(request, lines):
        await response.write(msgspec.json.encode(_line_json(line)) + b"\n")
    return response


def _line_json(line: dict[str, Any]) -> dict[str, Any]:
    return {
        "Time": format_time(line["time"]),
        "Container": line["container"],
        "Name": line["name"],
        "Type": line["type"],
        "Transport": line["transport"],
        "Answer": line["rcode"],
        "Addresses": line["addresses"],
        "By": line["by"],
        "Microseconds": line["microseconds"],
        "Missed": line.get("missed", 0),
    }


ROUTES = [
    Route("GET", "/dari/v1/dns/stats", dns_stats),
    Route("GET", "/dari/v1/dns/log", dns_log),
]
