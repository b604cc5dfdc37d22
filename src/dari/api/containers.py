"""`/containers`: translation only. Streams of containers are attach.py's, further processes exec.py's.

Source: Docker Engine API v1.51, "Container".
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast

import msgspec
from aiohttp import web

from dari.api import older, stream, wire
from dari.api.casing import member
from dari.api.inspect import container_json, summary_json
from dari.api.networks import EndpointBody, endpoint_spec
from dari.api.route import Route
from dari.api.versions import version_of
from dari.engine import containers, look, update
from dari.engine.base import Engine
from dari.engine.create import RUNTIMES, Request, create, has_unified_cgroups
from dari.engine.filters import ListQuery
from dari.model.container import ContainerConfig, HostConfig
from dari.model.errors import InvalidArgument
from dari.model.network import EndpointSpec

_POLICIES = ("", "no", "always", "on-failure", "unless-stopped")
_LONGEST_NOTHING = 7
_WORD_LISTS = ("cmd", "entrypoint", "shell", "capadd", "capdrop")
_NOT_CONFIG = ("hostconfig", "networkingconfig")
_CONDITIONS = ("not-running", "next-exit", "removed")


async def container_create(request: web.Request, eng: Engine) -> web.StreamResponse:
    raw = await wire.read_json(request)
    if raw is None:
        raise InvalidArgument("invalid JSON: got EOF while reading request body")
    if not isinstance(raw, dict) or not any(name.casefold() not in _NOT_CONFIG for name in raw):
        raise InvalidArgument("config cannot be empty in order to create a container")
    host = _word_lists(_object(member(raw, "HostConfig"), "HostConfig"))
    _check_policy(host)
    if not member(host, "Runtime") and member(raw, "Runtime") in RUNTIMES:
        # docker-py's low-level client names it here; where Docker knows no such field, it has runc anyway.
        host["Runtime"] = member(raw, "Runtime")
    version = version_of(request)
    endpoints = _endpoints(_object(member(raw, "NetworkingConfig"), "NetworkingConfig"))
    asked = Request(
        config=older.config_of(wire.convert(_word_lists(raw), ContainerConfig), version),
        host=older.host_of(
            wire.convert(host, HostConfig), version, has_unified_cgroups=has_unified_cgroups()
        ),
        name=request.query.get("name", ""),
        endpoints=older.endpoints_of(endpoints, version),
        platform=request.query.get("platform", "") if version >= (1, 41) else "",
        binds_recurse_read_only=version >= (1, 44),
    )
    made, warnings = await create(eng, asked)
    return wire.json_response({"Id": made.id, "Warnings": warnings}, 201)


def _word_lists(raw: dict[str, Any]) -> dict[str, Any]:
    """Docker takes a single string where a list of words is meant."""
    return {
        name: [value] if isinstance(value, str) and name.casefold() in _WORD_LISTS else value
        for name, value in raw.items()
    }


def _check_policy(host: dict[str, Any]) -> None:
    name = _policy_name(host)
    if name not in _POLICIES:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )


def _policy_name(host: dict[str, Any]) -> str:
    return str(member(_object(member(host, "RestartPolicy"), "RestartPolicy"), "Name") or "")


def _object(raw: Any, name: str) -> dict[str, Any]:
    """What is given for `name`, which is an object. Raises InvalidArgument."""
    if raw is not None and not isinstance(raw, dict):
        raise InvalidArgument(f"invalid JSON: {name}: expected an object, got {type(raw).__name__}")
    return raw or {}


def _endpoints(raw: dict[str, Any]) -> dict[str, EndpointSpec]:
    """A network without settings (null) is asked for all the same."""
    return {
        name: endpoint_spec(wire.convert(settings or {}, EndpointBody))
        for name, settings in _object(member(raw, "EndpointsConfig"), "EndpointsConfig").items()
    }


async def container_list(request: web.Request, eng: Engine) -> web.StreamResponse:
    filters = wire.filters(request)
    for name in ("before", "since"):
        if value := request.query.get(name):
            filters.setdefault(name, []).append(value)
    query = ListQuery(
        show_all=wire.flag(request, "all"), limit=wire.number(request, "limit", 0) or 0, filters=filters
    )
    found = await look.list_containers(eng, query, with_sizes=wire.flag(request, "size"))
    now, version = eng.ctx.now(), version_of(request)
    return wire.json_response([summary_json(each, now, version) for each in found])


async def container_inspect(request: web.Request, eng: Engine) -> web.StreamResponse:
    found = await look.inspect(eng, request.match_info["id"], with_sizes=wire.flag(request, "size"))
    return wire.json_response(container_json(found, eng.ctx.config, version_of(request)))


async def container_start(request: web.Request, eng: Engine) -> web.StreamResponse:
    # Clients send nothing, `{}` or `null`; what is longer was a configuration once, which would be lost.
    length = request.content_length
    if (length is None and request.body_exists) or (length or 0) > _LONGEST_NOTHING:
        raise InvalidArgument(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    await containers.start(eng, request.match_info["id"])
    return wire.no_content()


def _signal(request: web.Request) -> str:
    """What a stop or restart begins with, empty = as the container says; not known before 1.42."""
    return request.query.get("signal", "") if version_of(request) >= (1, 42) else ""


async def container_stop(request: web.Request, eng: Engine) -> web.StreamResponse:
    signal = _signal(request)
    await containers.stop(eng, request.match_info["id"], timeout=wire.number(request, "t"), signal=signal)
    return wire.no_content()


async def container_restart(request: web.Request, eng: Engine) -> web.StreamResponse:
    signal = _signal(request)
    await containers.restart(eng, request.match_info["id"], timeout=wire.number(request, "t"), signal=signal)
    return wire.no_content()


async def container_kill(request: web.Request, eng: Engine) -> web.StreamResponse:
    await containers.kill(eng, request.match_info["id"], request.query.get("signal", ""))
    return wire.no_content()


async def container_pause(request: web.Request, eng: Engine) -> web.StreamResponse:
    await containers.pause(eng, request.match_info["id"])
    return wire.no_content()


async def container_unpause(request: web.Request, eng: Engine) -> web.StreamResponse:
    await containers.unpause(eng, request.match_info["id"])
    return wire.no_content()


async def container_rename(request: web.Request, eng: Engine) -> web.StreamResponse:
    await containers.rename(eng, request.match_info["id"], request.query.get("name", ""))
    return wire.no_content()


async def container_remove(request: web.Request, eng: Engine) -> web.StreamResponse:
    if wire.flag(request, "link"):
        await containers.remove_link(eng, request.match_info["id"])
        return wire.no_content()
    await containers.remove(
        eng,
        request.match_info["id"],
        force=wire.flag(request, "force"),
        with_volumes=wire.flag(request, "v"),
    )
    return wire.no_content()


async def container_update(request: web.Request, eng: Engine) -> web.StreamResponse:
    raw = _object(await wire.read_json(request), "the body")
    _check_policy(raw)
    has_policy = bool(_policy_name(raw))
    asked = wire.convert(raw, HostConfig)
    if version_of(request) < (1, 40):
        asked = msgspec.structs.replace(asked, pids_limit=None)
    warnings = await update.update(eng, request.match_info["id"], asked, has_policy=has_policy)
    return wire.json_response({"Warnings": warnings})


async def container_prune(request: web.Request, eng: Engine) -> web.StreamResponse:
    removed, reclaimed = await containers.prune(eng, wire.filters(request))
    return wire.json_response({"ContainersDeleted": removed or None, "SpaceReclaimed": reclaimed})


async def container_wait(request: web.Request, eng: Engine) -> web.StreamResponse:
    """The headers are sent when the waiting has begun, so that a client may start the container after them."""
    condition = request.query.get("condition") or "not-running"
    if condition not in _CONDITIONS:
        raise InvalidArgument(f'invalid condition: "{condition}"')
    result = await containers.wait(eng, request.match_info["id"], cast(containers.Condition, condition))
    response = await stream.open_stream(request)
    ending = asyncio.ensure_future(result())
    try:
        while not stream.is_gone(request):
            done, _ = await asyncio.wait({ending}, timeout=1.0)
            if done:
                with contextlib.suppress(ConnectionResetError):
                    await response.write(msgspec.json.encode({"StatusCode": ending.result()}) + b"\n")
                break
    finally:
        ending.cancel()
    return response


ROUTES = [
    Route("POST", "/containers/create", container_create),
    Route("GET", "/containers/json", container_list),
    Route("POST", "/containers/prune", container_prune, (1, 25)),
    Route("GET", "/containers/{id:.*}/json", container_inspect),
    Route("POST", "/containers/{id:.*}/start", container_start),
    Route("POST", "/containers/{id:.*}/stop", container_stop),
    Route("POST", "/containers/{id:.*}/restart", container_restart),
    Route("POST", "/containers/{id:.*}/kill", container_kill),
    Route("POST", "/containers/{id:.*}/pause", container_pause),
    Route("POST", "/containers/{id:.*}/unpause", container_unpause),
    Route("POST", "/containers/{id:.*}/rename", container_rename),
    Route("POST", "/containers/{id:.*}/update", container_update),
    Route("POST", "/containers/{id:.*}/wait", container_wait),
    Route("DELETE", "/containers/{id:.*}", container_remove),
]
