"""`/volumes`: translation only. Source: Docker Engine API v1.51, "Volume"."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from dari.api import wire
from dari.api.route import Route
from dari.api.versions import version_of
from dari.engine import volumes
from dari.engine.base import Engine
from dari.model.volume import Volume
from dari.model.wire import DockerNoun
from dari.units import SECOND, format_time

Json = dict[str, Any]


class CreateBody(DockerNoun, frozen=True, kw_only=True):
    name: str = ""
    driver: str = "local"
    driver_opts: dict[str, str] = {}
    labels: dict[str, str] = {}


def volume_json(volume: Volume) -> Json:
    return {
        # Docker shows whole seconds here.
        "CreatedAt": format_time(volume.created // SECOND * SECOND),
        "Driver": volume.driver,
        "Labels": volume.labels or None,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": volume.options or None,
        "Scope": "local",
    }


async def volume_list(request: web.Request, eng: Engine) -> web.StreamResponse:
    found = volumes.list_volumes(eng, wire.filters(request))
    return wire.json_response({"Volumes": [volume_json(each) for each in found], "Warnings": None})


async def volume_create(request: web.Request, eng: Engine) -> web.StreamResponse:
    body = await wire.read_body(request, CreateBody)
    volume = await volumes.create_volume(eng, body.name, body.driver, body.driver_opts, body.labels)
    return wire.json_response(volume_json(volume), 201)


async def volume_inspect(request: web.Request, eng: Engine) -> web.StreamResponse:
    return wire.json_response(volume_json(volumes.find_volume(eng, request.match_info["name"])))


async def volume_remove(request: web.Request, eng: Engine) -> web.StreamResponse:
    await volumes.remove_volume(eng, request.match_info["name"], force=wire.flag(request, "force"))
    return wire.no_content()


async def volumes_prune(request: web.Request, eng: Engine) -> web.StreamResponse:
    removed, freed = await volumes.prune_volumes(
        eng, wire.filters(request), all_by_default=version_of(request) < (1, 42)
    )
    return wire.json_response({"VolumesDeleted": removed, "SpaceReclaimed": freed})


ROUTES = [
    Route("GET", "/volumes", volume_list),
    Route("POST", "/volumes/create", volume_create),
    Route("POST", "/volumes/prune", volumes_prune, (1, 25)),
    Route("GET", "/volumes/{name}", volume_inspect),
    Route("DELETE", "/volumes/{name}", volume_remove),
]
