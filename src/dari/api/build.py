"""`/build`: translation only. Source: Docker Engine API v1.51 `ImageBuild`, `BuildPrune`."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from dari.api import progress, wire
from dari.api.route import Route
from dari.engine import build as builds
from dari.engine.base import Engine
from dari.model.errors import InvalidArgument, Unsupported
from dari.model.platform import parse_platform

Json = dict[str, Any]


def _json(request: web.Request, name: str) -> Any:
    text = request.query.get(name, "")
    if not text:
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"invalid value for parameter {name}: {error}") from error


def _request(request: web.Request) -> builds.BuildRequest:
    query = request.query
    if query.get("version") == "2":
        raise Unsupported("BuildKit is not offered: build with DOCKER_BUILDKIT=0")
    args = _json(request, "buildargs") or {}
    if query.get("platform"):
        parse_platform(query["platform"])
    return builds.BuildRequest(
        tags=builds.tags_of([name for name in query.getall("t", []) if name]),
        dockerfile=query.get("dockerfile") or "Dockerfile",
        build_args={name: str(value) for name, value in args.items() if value is not None},
        labels=_json(request, "labels") or {},
        target=query.get("target", ""),
        platform=query.get("platform", ""),
        extra_hosts=_hosts(query.getall("extrahosts", [])),
        cache_from=_names(request, "cachefrom"),
        is_cached=not wire.flag(request, "nocache"),
        is_pulled=wire.flag(request, "pull"),
        is_squashed=wire.flag(request, "squash"),
        is_quiet=wire.flag(request, "q"),
        shm_size=wire.number(request, "shmsize", 0) or 0,
        memory=wire.number(request, "memory", 0) or 0,
        cpu_shares=wire.number(request, "cpushares", 0) or 0,
        cpuset_cpus=query.get("cpusetcpus", ""),
        credentials=builds.parse_all_credentials(request.headers.get("X-Registry-Config", "")),
        ulimits=[f"{one['Name']}={one['Soft']}:{one['Hard']}" for one in _json(request, "ulimits") or []],
        **_more(request),
    )


def _names(request: web.Request, name: str) -> list[str]:
    found = _json(request, name) or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise InvalidArgument(f"invalid value for parameter {name}: a list of names is meant")
    return found


class _More(msgspec.Struct, forbid_unknown_fields=True):
    """What dari's Compose asks for beyond Docker's API: secrets in base64, the rest as in the request."""

    secrets: dict[str, bytes] = {}
    ssh: dict[str, str] = {}
    contexts: dict[str, str] = {}
    privileged: bool = False


def _more(request: web.Request) -> dict[str, Any]:
    """The header X-Dari-Build: base64 of JSON, as X-Registry-Config is."""
    text = request.headers.get("X-Dari-Build", "")
    if not text:
        return {}
    try:
        more = msgspec.json.decode(base64.urlsafe_b64decode(text), type=_More)
    except (ValueError, msgspec.DecodeError) as error:
        raise InvalidArgument(f"invalid X-Dari-Build: {error}") from error
    return {
        "secrets": more.secrets,
        "ssh": more.ssh,
        "contexts": more.contexts,
        "is_privileged": more.privileged,
    }


# What a step writes to its standard error is red, as dockerd has it, whoever looks.
_RED, _PLAIN = "\x1b[91m", "\x1b[0m"


class _Teller:
    """A build's report as lines of JSON: its text, and the image of each stage."""

    def __init__(self, send: Callable[[Json], None], *, is_quiet: bool) -> None:
        self._send = send
        self._is_quiet = is_quiet

    def say(self, text: str, *, is_error: bool = False) -> None:
        if not self._is_quiet:
            self._send({"stream": f"{_RED}{text}{_PLAIN}" if is_error else text})

    def stage(self, image_id: str) -> None:
        self._send({"aux": {"ID": image_id}})


def _hosts(values: list[str]) -> list[str]:
    """Clients send a JSON list or one entry a parameter."""
    found = []
    for value in values:
        found += msgspec.json.decode(value, type=list[str]) if value.startswith("[") else [value]
    return found


async def image_build(request: web.Request, eng: Engine) -> web.StreamResponse:
    asked = _request(request)
    network, remote = request.query.get("networkmode", ""), request.query.get("remote", "")
    async with progress.body_file(request, eng) as path:
        if remote and remote != "client-session":
            asked = await builds.from_remote(eng, asked, remote, path)

        async def work(send: Callable[[Json], None]) -> None:
            teller = _Teller(send, is_quiet=asked.is_quiet)
            image = await builds.build(eng, path, asked, network, teller)
            teller.stage(image.id)
            # The last lines are those people and programs look for.
            teller.say(f"Successfully built {image.short_id}\n")
            for ref in asked.tags:
                teller.say(f"Successfully tagged {ref.familiar}\n")
            if asked.is_quiet:
                send({"stream": f"{image.id}\n"})

        return await progress.lines(request, work, ends_with_client=True)


async def build_prune(request: web.Request, eng: Engine) -> web.StreamResponse:
    # Steps of builds are images here and go with `POST /images/prune`: there is no other cache.
    return wire.json_response({"CachesDeleted": None, "SpaceReclaimed": 0})


async def no_buildkit(request: web.Request, eng: Engine) -> web.StreamResponse:
    raise Unsupported("BuildKit is not offered: build with DOCKER_BUILDKIT=0")


ROUTES = [
    Route("POST", "/build", image_build),
    Route("POST", "/build/prune", build_prune, (1, 31)),
    Route("POST", "/session", no_buildkit, (1, 31)),
    Route("POST", "/grpc", no_buildkit, (1, 38)),
]
