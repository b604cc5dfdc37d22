"""`/dari/v1/registrations` and `/dari/v1/services`: register, look up, watch; Prometheus' http_sd. Translation only.

Source of the last: Prometheus, "Writing HTTP service discovery".
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from dari.api import stream, wire
from dari.api.route import Route
from dari.engine import registrations
from dari.engine.base import Engine
from dari.engine.registrations import Instance
from dari.model.errors import InvalidArgument
from dari.model.registration import Check, Registration
from dari.model.wire import DockerNoun
from dari.units import format_time, parse_duration


class CheckBody(DockerNoun, frozen=True, kw_only=True):
    """Durations as Go writes them (`10s`)."""

    kind: str = ""
    target: str = ""
    interval: str = "10s"
    timeout: str = "2s"
    retries: int = 2


class RegistrationBody(DockerNoun, frozen=True, kw_only=True):
    id: str = msgspec.field(name="ID", default="")
    name: str = ""
    address: str = ""
    port: int = 0
    protocol: str = "tcp"
    weight: int = 1
    tags: list[str] = []
    meta: dict[str, str] = {}
    checks: list[CheckBody] = []


async def registration_create(request: web.Request, eng: Engine) -> web.StreamResponse:
    body = await wire.read_body(request, RegistrationBody)
    if body.protocol not in ("tcp", "udp"):
        raise InvalidArgument(f"invalid protocol {body.protocol!r} of {body.name}: tcp and udp are known")
    made = await registrations.register(
        eng,
        Registration(
            id=body.id,
            name=body.name,
            address=body.address,
            port=body.port,
            protocol=body.protocol,  # type: ignore[arg-type]
            weight=body.weight,
            tags=body.tags,
            meta=body.meta,
            checks=[_check(body.name, each) for each in body.checks],
        ),
    )
    return wire.json_response(registration_json(made), status=201)


def _check(name: str, body: CheckBody) -> Check:
    if body.kind not in ("tcp", "http", "command", "ttl"):
        raise InvalidArgument(f"invalid check {body.kind!r} of {name}: tcp, http, command and ttl are known")
    try:
        interval, timeout = parse_duration(body.interval), parse_duration(body.timeout)
    except ValueError as error:
        raise InvalidArgument(f"invalid {body.kind} check of {name}: {error}") from None
    return Check(
        kind=body.kind,  # type: ignore[arg-type]
        target=body.target,
        interval=interval,
        timeout=timeout,
        retries=body.retries,
    )


async def registration_list(request: web.Request, eng: Engine) -> web.StreamResponse:
    return wire.json_response([registration_json(each) for each in registrations.registrations(eng)])


async def registration_delete(request: web.Request, eng: Engine) -> web.StreamResponse:
    await registrations.deregister(eng, request.match_info["id"])
    return wire.no_content()


async def registration_heartbeat(request: web.Request, eng: Engine) -> web.StreamResponse:
    await registrations.heartbeat(eng, request.match_info["id"])
    return wire.no_content()


async def service_list(request: web.Request, eng: Engine) -> web.StreamResponse:
    found = registrations.services(eng)
    return wire.json_response(
        [{"Name": name, "Instances": [instance_json(each) for each in found[name]]} for name in found]
    )


async def service_lookup(request: web.Request, eng: Engine) -> web.StreamResponse:
    """With `watch=1` a stream of JSON lines, one now and one at every change; `healthy=1` leaves critical ones out
    while there are others; `tag=` takes those that have it."""
    name = request.match_info["name"]
    is_healthy_only = wire.flag(request, "healthy")
    if not wire.flag(request, "watch"):
        found = registrations.lookup(
            eng, name, is_healthy_only=is_healthy_only, tag=request.query.get("tag", "")
        )
        return wire.json_response([instance_json(each) for each in found])
    source = registrations.watch(eng, name, is_healthy_only=is_healthy_only)
    response = await stream.open_stream(request)
    async for now in stream.while_listening(request, source):
        await response.write(msgspec.json.encode([instance_json(each) for each in now]) + b"\n")
    return response


async def http_sd(request: web.Request, eng: Engine) -> web.StreamResponse:
    """Target groups. `service=` and `tag=` narrow them down; a container is a target at each port it exposes."""
    service, tag = request.query.get("service", ""), request.query.get("tag", "")
    groups: list[dict[str, Any]] = []
    # By any name `lookup` knows, a project's too; else everybody by his first one.
    found = {service: registrations.lookup(eng, service)} if service else registrations.services(eng)
    for instances in found.values():
        for each in instances:
            if tag and tag not in each.tags:
                continue
            address = f"[{each.address}]" if ":" in each.address else each.address
            targets = [f"{address}:{port}" for port, protocol in each.ports if protocol == "tcp"]
            if targets:
                groups.append({"targets": targets, "labels": _sd_labels(each)})
    return wire.json_response(groups)


def _sd_labels(instance: Instance) -> dict[str, str]:
    labels = {
        "__meta_dari_service": instance.service,
        "__meta_dari_source": instance.source,
        "__meta_dari_id": instance.id,
        "__meta_dari_network": instance.network,
        "__meta_dari_node": instance.node,
        "__meta_dari_health": instance.verdict,
        "__meta_dari_tags": f",{','.join(instance.tags)}," if instance.tags else "",
    }
    for key, value in instance.meta.items():
        plain = "".join(each if each.isascii() and each.isalnum() else "_" for each in key)
        labels[f"__meta_dari_meta_{plain}"] = value
    return labels


def registration_json(each: Registration) -> dict[str, Any]:
    return {
        "ID": each.id,
        "Name": each.name,
        "Address": each.address,
        "Port": each.port,
        "Protocol": each.protocol,
        "Weight": each.weight,
        "Tags": each.tags,
        "Meta": each.meta,
        "Checks": [
            {
                "Kind": check.kind,
                "Target": check.target,
                "Interval": f"{check.interval / 1e9:g}s",
                "Timeout": f"{check.timeout / 1e9:g}s",
                "Retries": check.retries,
            }
            for check in each.checks
        ],
        "Owner": each.owner,
        "Created": format_time(each.created),
        "Health": each.verdict,
        "Output": each.output,
    }


def instance_json(each: Instance) -> dict[str, Any]:
    return {
        "Service": each.service,
        "ID": each.id,
        "Address": each.address,
        "Ports": [{"Port": port, "Protocol": protocol} for port, protocol in each.ports],
        "Health": each.verdict,
        "Output": each.output,
        "Weight": each.weight,
        "Source": each.source,
        "Network": each.network,
        "Node": each.node,
        "Tags": list(each.tags),
        "Meta": dict(each.meta),
    }


ROUTES = [
    Route("GET", "/dari/v1/registrations", registration_list),
    Route("POST", "/dari/v1/registrations", registration_create),
    Route("DELETE", "/dari/v1/registrations/{id}", registration_delete),
    Route("POST", "/dari/v1/registrations/{id}/heartbeat", registration_heartbeat),
    Route("GET", "/dari/v1/services", service_list),
    Route("GET", "/dari/v1/services/{name}", service_lookup),
    Route("GET", "/dari/v1/http_sd", http_sd),
]
