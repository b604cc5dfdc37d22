"""`/images`, `/distribution`, `/commit`: translation only. Source: Docker Engine API v1.51, "Image"."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from dari.api import progress, wire
from dari.api.route import Route
from dari.api.versions import NEWEST, Version, version_of
from dari.engine import commit as commits
from dari.engine import image_removal, images, search, system
from dari.engine.base import Engine
from dari.model.container import ContainerConfig
from dari.model.errors import InvalidArgument, NotFound
from dari.model.image import Image
from dari.model.platform import Platform, parse_platform
from dari.model.reference import parse
from dari.units import SECOND, format_time

Json = dict[str, Any]
Send = Callable[[Json], None]

_CONFIG_ALWAYS = ("Hostname", "Domainname", "User", "AttachStdin", "AttachStdout", "AttachStderr", "Tty",
                  "OpenStdin", "StdinOnce", "Env", "Cmd", "Image", "Volumes", "WorkingDir", "Entrypoint",
                  "OnBuild", "Labels")  # fmt: skip
_NULL_WHEN_EMPTY = ("Volumes", "Labels", "Env")


# What is a container's and was shown as an image's as well, always empty, before 1.50.
_CONFIG_OF_OLD = frozenset(("Hostname", "Domainname", "AttachStdin", "AttachStdout", "AttachStderr", "Tty",
                            "OpenStdin", "StdinOnce", "Image", "NetworkDisabled", "MacAddress",
                            "StopTimeout"))  # fmt: skip


def summary_json(
    image: Image, parent: str, version: Version = NEWEST, *, shared: int = -1, containers: int = -1
) -> Json:
    """One entry of `GET /images/json`; `shared` bytes and `containers` that use it, -1 where nobody counted."""
    tags, digests = image.repo_tags, image.repo_digests
    if version < (1, 43) and not tags:
        tags, digests = ["<none>:<none>"], digests or ["<none>@<none>"]
    shape: Json = {
        "Id": image.id,
        "ParentId": parent,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Created": image.created // SECOND,
        "Size": image.size,
        "SharedSize": shared,
        "Labels": image.config.labels or None,
        "Containers": containers,
    }
    if version < (1, 44):
        shape["VirtualSize"] = image.size
    return shape


def image_json(image: Image, parent: str, eng: Engine, version: Version = NEWEST) -> Json:
    """The body of `GET /images/{name}/json`."""
    rootfs = eng.ctx.images.storage
    raw = json.loads(rootfs.config_bytes(image.id))
    lowers = rootfs.lower_dirs(image.layers)
    data: Json = {}
    if lowers:
        data = {"UpperDir": lowers[0]}
        if len(lowers) > 1:
            data["LowerDir"] = ":".join(lowers[1:])
    shape: Json = {
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Parent": parent,
        "Comment": image.comment,
        "Created": format_time(image.created),
        "DockerVersion": raw.get("docker_version") or "",
        "Author": image.author,
        "Config": config_json(image.config),
        "Architecture": image.architecture,
        "Os": image.os,
        "Size": image.size,
        "GraphDriver": {"Data": data, "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": image.diff_ids},
        "Metadata": {"LastTagTime": format_time(image.tagged)},
    }
    if version >= (1, 50):
        shape["Config"] = {key: value for key, value in shape["Config"].items() if key not in _CONFIG_OF_OLD}
    if not image.created and version >= (1, 44):
        del shape["Created"]
    if image.variant:
        shape["Variant"] = image.variant
    if version < (1, 44):
        shape["VirtualSize"] = image.size
    if version < (1, 45):
        shape["Container"] = raw.get("container") or ""
        shape["ContainerConfig"] = raw.get("container_config") or config_json(ContainerConfig())
    return shape


def config_json(config: ContainerConfig) -> Json:
    shown: Json = msgspec.to_builtins(config)
    for name in _NULL_WHEN_EMPTY:
        shown[name] = shown[name] or None
    return {key: value for key, value in shown.items() if key in _CONFIG_ALWAYS or value}


def removed_json(removed: list[image_removal.Removed]) -> list[Json]:
    return [{"Untagged": each.untagged} if each.untagged else {"Deleted": each.deleted} for each in removed]


async def image_list(request: web.Request, eng: Engine) -> web.StreamResponse:
    filters, version = wire.filters(request), version_of(request)
    if request.query.get("filter") and version < (1, 41):
        filters.setdefault("reference", []).append(request.query["filter"])
    found = images.list_images(eng, filters, show_all=wire.flag(request, "all"))
    everyone = eng.ctx.images.all()
    above = images.parents(everyone)
    shared: dict[str, int] = {}
    if wire.flag(request, "shared-size") and version >= (1, 42):
        shared = system.shared_sizes(everyone)
    users = system.image_users(eng)
    return wire.json_response(
        [
            summary_json(
                each,
                above.get(each.id, ""),
                version,
                shared=shared.get(each.id, -1),
                containers=users[each.id] if version >= (1, 51) else -1,
            )
            for each in found
        ]
    )


class _PlatformJson(msgspec.Struct):
    os: str = ""
    architecture: str = ""
    variant: str = ""


def _platform(request: web.Request, since: Version) -> Platform | None:
    """The platform asked for, as JSON; not read before the version that brought it. Raises InvalidArgument."""
    text = request.query.get("platform", "")
    if not text or version_of(request) < since:
        return None
    if len(request.query.getall("platform")) > 1:
        raise InvalidArgument(
            "multiple platform parameters are not supported in this API version; use API version 1.52 or later"
        )
    try:
        asked = msgspec.json.decode(text, type=_PlatformJson)
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"failed to parse platform: {error}") from None
    platform = Platform(os=asked.os, architecture=asked.architecture, variant=asked.variant)
    if not platform.os and not platform.architecture and platform.variant:
        raise InvalidArgument("optional platform fields provided, but OS and Architecture are missing")
    if not platform.os or not platform.architecture:
        raise InvalidArgument("both OS and Architecture must be provided")
    return platform


async def image_inspect(request: web.Request, eng: Engine) -> web.StreamResponse:
    image = images.find_image(eng, request.match_info["name"], _platform(request, (1, 49)))
    parent = images.parents(eng.ctx.images.all()).get(image.id, "")
    version = version_of(request)
    if request.headers.get("User-Agent", "").startswith("docker-compose/1."):
        # It asks for the newest version and reads the `ContainerConfig` that left with 1.45.
        version = min(version, (1, 44))
    return wire.json_response(image_json(image, parent, eng, version))


async def image_create(request: web.Request, eng: Engine) -> web.StreamResponse:
    query = request.query
    if query.get("fromSrc"):
        return await _import(request, eng)
    name, tag = query.get("fromImage", ""), query.get("tag", "")
    if not name:
        raise InvalidArgument("fromImage or fromSrc must be given")
    credentials = images.parse_credentials(request.headers.get("X-Registry-Auth", ""))
    images.with_tag(name, tag)
    if query.get("platform"):
        parse_platform(query["platform"])

    async def work(send: Send) -> None:
        def report(each: images.Progress) -> None:
            send(progress.progress_json(each))

        # No tag and none in the name: the client asks for all of them, `docker pull` itself sends one.
        is_all = not tag and parse(name, default_tag=False).full == parse(name, default_tag=False).name
        if is_all:
            await images.pull_all(eng, name, credentials, report)
        else:
            await images.pull(eng, name, tag, credentials, report, query.get("platform", ""))

    return await progress.lines(request, work, ends_with_client=True)


async def _import(request: web.Request, eng: Engine) -> web.StreamResponse:
    query = request.query
    async with progress.body_file(request, eng) as path:
        if query["fromSrc"] != "-":
            await commits.fetch(query["fromSrc"], path)

        async def work(send: Send) -> None:
            image = await commits.import_tar(
                eng,
                path,
                query.get("repo", ""),
                query.get("tag", ""),
                query.get("message", ""),
                list(query.getall("changes", [])),
                query.get("platform", ""),
            )
            send({"status": image.id})

        return await progress.lines(request, work)


async def image_push(request: web.Request, eng: Engine) -> web.StreamResponse:
    name, tag = request.match_info["name"], request.query.get("tag", "")
    images.check_pushed(eng, name, tag, _platform(request, (1, 46)))
    credentials = images.parse_credentials(request.headers.get("X-Registry-Auth", ""))

    async def work(send: Send) -> None:
        await images.push(eng, name, tag, credentials, lambda each: send(progress.progress_json(each)))

    return await progress.lines(request, work, ends_with_client=True)


async def image_tag(request: web.Request, eng: Engine) -> web.StreamResponse:
    query = request.query
    await images.tag(eng, request.match_info["name"], query.get("repo", ""), query.get("tag", ""))
    return web.Response(status=201)


async def image_remove(request: web.Request, eng: Engine) -> web.StreamResponse:
    if not request.match_info["name"].strip():
        raise InvalidArgument("image name cannot be blank")
    removed = await image_removal.remove(
        eng,
        request.match_info["name"],
        force=wire.flag(request, "force"),
        keep_parents=wire.flag(request, "noprune"),
    )
    return wire.json_response(removed_json(removed))


async def image_history(request: web.Request, eng: Engine) -> web.StreamResponse:
    image = images.find_image(eng, request.match_info["name"], _platform(request, (1, 48)))
    everyone = {each.id: each for each in eng.ctx.images.all()}
    above = images.parents(list(everyone.values()))
    entries: list[Json] = [
        {
            "Id": "<missing>",
            "Created": step.created // SECOND,
            "CreatedBy": step.created_by,
            "Tags": None,
            "Size": step.size,
            "Comment": step.comment,
        }
        for step in image.history
    ] or [_only_step(image)]
    current: Image | None = image
    while current is not None:
        entries[max(len(current.history), 1) - 1].update(
            {"Id": current.id, "Tags": current.repo_tags or None}
        )
        current = everyone.get(above.get(current.id, ""))
    return wire.json_response(entries[::-1])


def _only_step(image: Image) -> Json:
    return {
        "Id": image.id,
        "Created": image.created // SECOND,
        "CreatedBy": "",
        "Tags": None,
        "Size": image.size,
        "Comment": image.comment,
    }


async def image_get(request: web.Request, eng: Engine) -> web.StreamResponse:
    return await _save(request, eng, [request.match_info["name"]])


async def images_get(request: web.Request, eng: Engine) -> web.StreamResponse:
    names = [part for value in request.query.getall("names", []) for part in value.split(",")]
    if not names:
        raise InvalidArgument("names: no image is named")
    return await _save(request, eng, names)


async def _save(request: web.Request, eng: Engine, names: list[str]) -> web.StreamResponse:
    platform = _platform(request, (1, 48))
    async with eng.ctx.images.transfer.workspace() as folder:
        return await progress.send_file(request, await images.save(eng, folder, names, platform))


async def images_load(request: web.Request, eng: Engine) -> web.StreamResponse:
    platform = _platform(request, (1, 48))
    async with progress.body_file(request, eng) as path:

        async def work(send: Send) -> None:
            for line in await images.load(eng, path, platform):
                send({"stream": f"{line}\n"})

        # As Docker has it: clients look for the error among the lines.
        return await progress.lines(request, work, has_status=False)


async def images_prune(request: web.Request, eng: Engine) -> web.StreamResponse:
    removed, freed = await image_removal.prune(eng, wire.filters(request))
    return wire.json_response({"ImagesDeleted": removed_json(removed) or None, "SpaceReclaimed": freed})


async def images_search(request: web.Request, eng: Engine) -> web.StreamResponse:
    rows = await search.search(
        eng,
        request.query.get("term", ""),
        wire.number(request, "limit", 0) or 0,
        wire.filters(request),
        images.parse_credentials(request.headers.get("X-Registry-Auth", "")),
    )
    return wire.json_response(
        [
            {
                "star_count": row.star_count,
                "is_official": row.is_official,
                "name": row.name,
                "is_automated": False,
                "description": row.description or "",
            }
            for row in rows
        ]
    )


async def distribution(request: web.Request, eng: Engine) -> web.StreamResponse:
    ref = parse(request.match_info["name"])
    credentials = images.parse_credentials(request.headers.get("X-Registry-Auth", ""))
    transfer = eng.ctx.images.transfer
    raw = await transfer.manifest(ref, credentials)
    manifest = msgspec.json.decode(raw)
    kind = manifest.get("mediaType", "application/vnd.oci.image.manifest.v1+json")
    digest = ref.digest or f"sha256:{hashlib.sha256(raw).hexdigest()}"
    platforms = [
        {
            name: each["platform"][name]
            for name in ("architecture", "os", "variant")
            if each.get("platform", {}).get(name)
        }
        for each in manifest.get("manifests") or []
    ]
    if "config" in manifest:
        # One image alone: its platform is in its config.
        about = msgspec.json.decode(await transfer.image_config(ref, credentials))
        platforms = [{name: about[name] for name in ("architecture", "os", "variant") if about.get(name)}]
    return wire.json_response(
        {"Descriptor": {"mediaType": kind, "digest": digest, "size": len(raw)}, "Platforms": platforms}
    )


async def commit(request: web.Request, eng: Engine) -> web.StreamResponse:
    query = request.query
    raw = await wire.read_json(request)
    if not query.get("container"):
        raise NotFound("No such container: ")
    image = await commits.commit_container(
        eng,
        query["container"],
        query.get("repo", ""),
        query.get("tag", ""),
        comment=query.get("comment", ""),
        author=query.get("author", ""),
        changes=list(query.getall("changes", [])),
        config=wire.convert(raw, ContainerConfig) if raw else None,
        is_paused=wire.flag(request, "pause", default=True),
    )
    return wire.json_response({"Id": image.id}, 201)


ROUTES = [
    Route("GET", "/images/json", image_list),
    Route("POST", "/images/create", image_create),
    Route("GET", "/images/search", images_search),
    Route("GET", "/images/get", images_get),
    Route("POST", "/images/load", images_load),
    Route("POST", "/images/prune", images_prune, (1, 25)),
    Route("GET", "/images/{name:.*}/json", image_inspect),
    Route("GET", "/images/{name:.*}/history", image_history),
    Route("GET", "/images/{name:.*}/get", image_get),
    Route("POST", "/images/{name:.*}/push", image_push),
    Route("POST", "/images/{name:.*}/tag", image_tag),
    Route("DELETE", "/images/{name:.*}", image_remove),
    Route("GET", "/distribution/{name:.*}/json", distribution, (1, 30)),
    Route("POST", "/commit", commit),
]
