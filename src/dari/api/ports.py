"""`/dari/v1/containers/{id}/ports`: published ports as they are, more of them, fewer of them.

Docker's API has no call for it. The body of POST is `{"PortBindings": …}` as in `HostConfig`; keys may be ranges
(`8000-8010/tcp`). DELETE takes `port` (`80-90/tcp`), and `hostport` and `hostip` where only that binding is meant.
All answer `{"Ports": {"8000-8010/tcp": [{"HostIp": …, "HostPort": "9000-9010"}]}}`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from aiohttp import web

from dari.api import wire
from dari.api.casing import member
from dari.api.route import Route
from dari.engine import ports
from dari.engine.base import Engine
from dari.model.container import PortBinding
from dari.model.errors import InvalidArgument
from dari.model.network import PublishedPort


class PublishBody(msgspec.Struct, frozen=True, kw_only=True):
    """What POST takes."""

    port_bindings: dict[str, list[PortBinding] | None] = msgspec.field(
        name="PortBindings", default_factory=dict
    )


async def ports_list(request: web.Request, eng: Engine) -> web.StreamResponse:
    return wire.json_response(_json(ports.published(eng, request.match_info["id"])))


async def ports_publish(request: web.Request, eng: Engine) -> web.StreamResponse:
    raw = await wire.read_json(request)
    if raw is None:
        raise InvalidArgument("invalid JSON: got EOF while reading request body")
    body = wire.convert(raw, PublishBody)
    bindings = {name: wants or [] for name, wants in body.port_bindings.items()}
    # A port without bindings is any free one of the host's, as for `docker run -p 80`.
    for name in member(raw, "PortBindings") or {}:
        bindings.setdefault(name, [])
    return wire.json_response(_json(await ports.publish(eng, request.match_info["id"], bindings)), 201)


async def ports_unpublish(request: web.Request, eng: Engine) -> web.StreamResponse:
    query = request.query
    target = ports.target(
        query.get("port", ""), query.get("hostip", ""), wire.number(request, "hostport", 0) or 0
    )
    return wire.json_response(_json(await ports.unpublish(eng, request.match_info["id"], target)))


def _json(published: Iterable[PublishedPort]) -> dict[str, Any]:
    found: dict[str, list[dict[str, str]]] = {}
    for each in published:
        key = f"{_span(each.container_port, each.count)}/{each.protocol}"
        host_port = _span(each.host_port, each.count) if each.host_port else ""
        found.setdefault(key, []).append({"HostIp": each.host_ip, "HostPort": host_port})
    return {"Ports": found}


def _span(first: int, count: int) -> str:
    return str(first) if count == 1 else f"{first}-{first + count - 1}"


ROUTES = [
    Route("GET", "/dari/v1/containers/{id}/ports", ports_list),
    Route("POST", "/dari/v1/containers/{id}/ports", ports_publish),
    Route("DELETE", "/dari/v1/containers/{id}/ports", ports_unpublish),
]
