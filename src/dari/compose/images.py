"""Images of a project: which are there, which must be pulled or built, and doing so.

One list call tells what the engine has; what is missing follows each service's `pull_policy`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from dari.client.docker import Docker
from dari.client.errors import ApiError, ClientError
from dari.compose.progress import Progress
from dari.compose.project import Project, Service
from dari.compose.threads import at_once
from dari.units import SECOND, parse_time

Auth = Callable[[str], Mapping[str, str]]


class ImageError(Exception):
    """An image could not be had; the text is for the user."""


def familiar(reference: str) -> str:
    """A reference as the engine lists it: without docker.io/library, with a tag."""
    for prefix in ("index.docker.io/", "docker.io/"):
        reference = reference.removeprefix(prefix)
    reference = reference.removeprefix("library/")
    if "@" in reference or ":" in reference.rpartition("/")[2]:
        return reference
    return f"{reference}:latest"


def present(docker: Docker, references: Iterable[str]) -> dict[str, str]:
    """Reference to image id, of those the engine has: one list call, and one look at each it did not list."""
    wanted = sorted(set(references))
    if not wanted:
        return {}
    listed = docker.get("/images/json", filters={"reference": [familiar(one) for one in wanted]})
    ids: dict[str, str] = {}
    for image in listed or []:
        for name in [*(image.get("RepoTags") or []), *(image.get("RepoDigests") or [])]:
            ids[familiar(name)] = image["Id"]
    found = {one: ids[familiar(one)] for one in wanted if familiar(one) in ids}
    for one in wanted:
        if one not in found:
            try:
                found[one] = docker.get(f"/images/{one}/json")["Id"]
            except ApiError as error:
                if error.status not in (400, 404):
                    raise
    return found


def refresh_period(service: Service) -> float | None:
    """After how many seconds the service's image is to be pulled again; None when its policy says nothing of it."""
    policy = service.pull_policy
    if policy == "refresh":
        text = service.model.get("pull_refresh_after") or "24h"
    elif policy.startswith("every_"):
        text = policy.removeprefix("every_")
    else:
        text = {"daily": "24h", "weekly": "168h"}.get(policy, "")
    return sum(int(count) * _SECONDS[unit] for count, unit in _PERIOD.findall(text)) if text else None


_PERIOD = re.compile(r"(\d+)([wdhms])")
_SECONDS = {"w": 7 * 86400, "d": 86400, "h": 3600, "m": 60, "s": 1}


def stale(docker: Docker, services: Iterable[Service], ids: Mapping[str, str]) -> set[str]:
    """Names of images that are there and older than their services' pull policies allow.

    The age counts from when the image was last tagged (pulled) here; an engine that does not tell makes it stale.
    """
    found = set()
    for service in services:
        period = refresh_period(service)
        if period is None or service.image not in ids:
            continue
        tagged = (docker.get(f"/images/{ids[service.image]}/json").get("Metadata") or {}).get("LastTagTime")
        moment = parse_time(tagged, 0) / SECOND if tagged else 0.0
        if moment <= 0 or time.time() - moment > period:
            found.add(service.image)
    return found


def to_pull(
    services: Iterable[Service], ids: Mapping[str, str], policy: str = "", old: Collection[str] = ()
) -> list[Service]:
    """Services whose image must be pulled before containers are made.

    `policy` (`always`, `missing`, `never`, `build`) overrides their own; "" and `policy` do not. `old`: images that
    are there but to be pulled again.

    Raises ImageError where a policy forbids what would be needed.
    """
    found: dict[str, Service] = {}
    for service in services:
        own = service.pull_policy or "missing"
        chosen = own if policy in ("", "policy") else policy
        if not service.has_image or service.model.get("provider"):
            continue
        if chosen == "build" or (service.build and chosen != "always"):
            continue
        if chosen == "never":
            if service.image not in ids and not service.build:
                raise ImageError(
                    f"No such image: {service.image} (service {service.name} has pull policy never)"
                )
            continue
        if service.image not in ids or chosen == "always" or (service.image in old and chosen == own):
            found.setdefault(service.image, service)
    return list(found.values())


def to_build(services: Iterable[Service], ids: Mapping[str, str], is_forced: bool) -> list[Service]:
    """Services whose image must be built."""
    return [
        service
        for service in services
        if service.build is not None
        and (is_forced or service.pull_policy == "build" or service.image not in ids)
    ]


def pull(
    docker: Docker,
    services: Iterable[Service],
    progress: Progress,
    auth: Auth,
    *,
    parallel: int = 0,
    is_failure_ignored: bool = False,
    is_quiet: bool = False,
) -> list[str]:
    """Pulls images at the same time; names of the services whose image could not be had.

    Raises ImageError after all have ended, unless failures are to be ignored.
    """
    chosen = list(services)
    if not chosen:
        return []
    docker.api_version  # noqa: B018  negotiated once, before the threads
    errors = at_once(lambda one: _pull_one(docker, one, progress, auth, is_quiet), chosen, parallel or 8)
    failed = [error for error in errors if error]
    if failed and not is_failure_ignored:
        raise ImageError("\n".join(failed))
    return [one.name for one, error in zip(chosen, errors, strict=True) if error]


def _pull_one(docker: Docker, service: Service, progress: Progress, auth: Auth, is_quiet: bool) -> str | None:
    title = f"{service.name} {service.image}" if progress.mode == "tty" else service.name
    progress.begin(title, "Pulling")
    name, tag = split(service.image)
    layers: dict[str, tuple[int, int]] = {}
    try:
        for record in docker.stream_json(
            "POST",
            "/images/create",
            headers=auth(service.image),
            fromImage=name,
            tag=tag,
            platform=service.platform or None,
        ):
            detail = record.get("progressDetail") or {}
            if record.get("id") and detail.get("total") and record.get("status") == "Downloading":
                layers[record["id"]] = (detail.get("current", 0), detail["total"])
                if progress.mode == "tty" and not is_quiet:
                    progress.begin(title, "Pulling", _percent(layers))
    except ClientError as error:
        progress.fail(title, str(error))
        return f"{service.image}: {error}"
    progress.end(title, "Pulled")
    return None


def _percent(layers: Mapping[str, tuple[int, int]]) -> str:
    total = sum(one for _, one in layers.values())
    return f"{sum(one for one, _ in layers.values()) * 100 // total}%" if total else ""


def split(reference: str) -> tuple[str, str]:
    """`(name, tag or digest)` for a pull."""
    name, separator, digest = reference.partition("@")
    if separator:
        return name, digest
    head, separator, tag = reference.rpartition(":")
    if separator and "/" not in tag:
        return head, tag
    return reference, "latest"


def build_query(project: Project, service: Service, options: Mapping[str, Any]) -> dict[str, Any]:
    """The query of POST /build. `options`: no_cache, pull, args (mapping), memory."""
    build = service.build or {}
    arguments = {
        key: project.variables.get(key) if value is None else value
        for key, value in {**(build.get("args") or {}), **(options.get("args") or {})}.items()
    }
    given = {key: value for key, value in arguments.items() if value is not None}
    labels = {
        **(build.get("labels") or {}),
        "com.docker.compose.project": project.name,
        "com.docker.compose.service": service.name,
    }
    hosts = [
        f"{name}:{one}" for name, addresses in (build.get("extra_hosts") or {}).items() for one in addresses
    ]
    platform = _platform(project, service, build.get("platforms") or [])
    limits = [
        {
            "Name": name,
            "Soft": value["soft"] if isinstance(value, dict) else value,
            "Hard": value["hard"] if isinstance(value, dict) else value,
        }
        for name, value in sorted((build.get("ulimits") or {}).items())
    ]
    is_uncached = options.get("no_cache") or build.get("no_cache") or build.get("no_cache_filter")
    return {
        "t": [service.image, *(build.get("tags") or [])],
        "buildargs": given or None,
        "labels": labels,
        "target": build.get("target"),
        "networkmode": build.get("network"),
        "extrahosts": ",".join(hosts) or None,
        "shmsize": build.get("shm_size"),
        "nocache": True if is_uncached else None,
        "ulimits": _json(limits),
        "pull": True if options.get("pull") or build.get("pull") else None,
        "memory": options.get("memory"),
        "platform": platform or None,
        "rm": True,
        "forcerm": True,
    }


def _platform(project: Project, service: Service, platforms: list[str]) -> str:
    """What a service's image is built for; "" is the engine's own. Raises ImageError."""
    default = project.variables.get("DOCKER_DEFAULT_PLATFORM", "")
    if default and not service.platform and platforms and default not in platforms:
        raise ImageError(
            f'service "{service.name}" build.platforms does not support value set by DOCKER_DEFAULT_PLATFORM: {default}'
        )
    chosen = service.platform or default
    if chosen and platforms and chosen not in platforms:
        raise ImageError(f'service "{service.name}" build configuration does not support platform: {chosen}')
    return chosen or (platforms[0] if len(platforms) == 1 else "")


def in_build_order(project: Project, services: Iterable[Service]) -> list[Service]:
    """The services, and those whose images they are built upon (contexts `service:NAME`), the latter first."""
    found: dict[str, Service] = {}

    def visit(service: Service) -> None:
        if service.name in found:
            return
        for value in ((service.build or {}).get("additional_contexts") or {}).values():
            kind, _, base = str(value).partition(":")
            if kind == "service":
                visit(project.services[base])
        found[service.name] = service

    for service in services:
        visit(service)
    return list(found.values())


def more_of_build(project: Project, service: Service, ssh: Mapping[str, str]) -> dict[str, Any]:
    """What dari's engine is asked for beyond Docker's classic API: secrets, SSH agents, further contexts, privilege.

    `ssh`: id to socket or key file, over what the file says. Raises ImageError for a secret that has no value.
    """
    import base64
    import os

    build = service.build or {}
    secrets = {}
    for reference in build.get("secrets") or []:
        content = project.secrets[reference["source"]]
        if content.file:
            try:
                with open(content.file, "rb") as file:
                    data = file.read()
            except OSError as error:
                raise ImageError(f"open {content.file}: {(error.strerror or str(error)).lower()}") from None
        elif content.environment in project.variables:
            data = project.variables[content.environment].encode()
        else:
            raise ImageError(
                f'build secret "{content.key}" of service "{service.name}": no file, and no variable is set'
            )
        secrets[reference.get("target") or reference["source"]] = base64.b64encode(data).decode()
    agents = {
        name: path or os.environ.get("SSH_AUTH_SOCK", "") for name, path in (build.get("ssh") or {}).items()
    }
    if not all({**agents, **ssh}.values()):
        raise ImageError("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set")
    contexts = {}
    for name, value in (build.get("additional_contexts") or {}).items():
        kind, _, target = value.partition(":")
        contexts[name] = f"docker-image://{project.services[target].image}" if kind == "service" else value
    found = {
        "secrets": secrets,
        "ssh": {**agents, **ssh},
        "contexts": contexts,
        "privileged": bool(build.get("privileged")),
    }
    return {key: value for key, value in found.items() if value}


def _json(value: Any) -> str | None:
    import json

    return json.dumps(value) if value else None


def build_one(
    docker: Docker,
    project: Project,
    service: Service,
    progress: Progress,
    write: Callable[[str], None],
    headers: Mapping[str, str],
    options: Mapping[str, Any],
) -> str:
    """Builds one service's image and returns its id. Raises ImageError."""
    import base64
    import json
    import os

    from dari.client.build_context import context_archive
    from dari.compose.load.paths import is_remote

    build = service.build or {}
    query = build_query(project, service, options)
    context: str = build["context"]
    body: Any = None
    if is_remote(context):
        query["remote"] = context
        query["dockerfile"] = build.get("dockerfile")
    else:
        body, query["dockerfile"] = _context(context, build, context_archive, os)
    more = more_of_build(project, service, options.get("ssh") or {})
    if more:
        text = base64.urlsafe_b64encode(json.dumps(more).encode()).decode()
        headers = {**headers, "X-Dari-Build": text}
    title = f"Image {service.image}"
    progress.begin(title, "Building")
    image_id = ""
    try:
        for record in docker.stream_json("POST", "/build", body, headers=headers, **query):
            if record.get("stream"):
                write(record["stream"])
            elif record.get("status"):
                write(f"{record.get('id', '')} {record['status']}\n".lstrip())
            image_id = (record.get("aux") or {}).get("ID", image_id)
    except (ClientError, OSError) as error:
        progress.fail(title, str(error))
        raise ImageError(f"failed to build service {service.name}: {error}") from None
    progress.end(title, "Built")
    return image_id


def _context(context: str, build: Mapping[str, Any], archive: Callable[..., Any], os: Any) -> tuple[Any, str]:
    if not os.path.isdir(context):
        reason = "is a file, not a folder" if os.path.exists(context) else "not found"
        raise ImageError(f'unable to prepare context: path "{context}" {reason}')
    if build.get("dockerfile_inline"):
        name = ".dockerfile.inline"
        return archive(context, name, {name: build["dockerfile_inline"].encode()}), name
    path = os.path.join(context, build.get("dockerfile") or "Dockerfile")
    if not os.path.isfile(path):
        raise ImageError(f"failed to read dockerfile: open {path}: no such file or directory")
    relative = os.path.relpath(os.path.realpath(path), os.path.realpath(context))
    if not relative.startswith(".."):
        return archive(context, relative), relative
    with open(path, "rb") as file:
        name = ".dockerfile.outside"
        return archive(context, name, {name: file.read()}), name
