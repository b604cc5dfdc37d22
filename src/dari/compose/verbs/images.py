"""`pull`, `push`, `build` and `images`."""

from __future__ import annotations

import json
from typing import Any

from dari.compose import images as image_work
from dari.compose import tables
from dari.compose.load.errors import ComposeError
from dari.compose.plan import selected_services
from dari.compose.project import Project, Service
from dari.compose.session import Session, UserError


def pull(session: Session, options: Any) -> int:
    project = session.project(options.services)
    names = list(options.services) or list(project.services)
    if options.include_deps:
        names = selected_services(project, names)
    if options.policy not in (None, "missing", "always"):
        raise UserError(f'unsupported pull policy "{options.policy}", use missing or always')
    chosen: dict[str, Service] = {}
    policies = {name: options.policy or project.services[name].pull_policy for name in names}
    ids = {}
    if "missing" in policies.values():
        ids = image_work.present(session.docker, [project.services[name].image for name in names])
    progress = session.progress(is_quiet=options.quiet)
    for name in names:
        service = project.services[name]
        # What has the tag latest may always be another one by now.
        is_there = service.image in ids and (options.policy or image_work.split(service.image)[1] != "latest")
        if not service.has_image:
            progress.end(name, "Skipped - No image to be pulled")
        elif policies[name] in ("never", "build"):
            progress.end(name, "Skipped")
        elif policies[name] == "missing" and is_there:
            progress.end(name, "Skipped - Image is already present locally")
        elif options.ignore_buildable and service.build:
            progress.end(name, "Skipped - Image can be built")
        elif service.image in chosen:
            progress.end(name, f"Skipped - Image is already being pulled by {chosen[service.image].name}")
        else:
            chosen[service.image] = service
    try:
        if session.flags.is_dry_run:
            for service in chosen.values():
                progress.begin(service.name, "Pulling")
                progress.end(service.name, "Pulled")
        else:
            _pull(session, list(chosen.values()), progress, options)
    finally:
        progress.close()
    return 0


def _pull(session: Session, chosen: list[Service], progress: Any, options: Any) -> None:
    """What can be built instead may be missing in the registry; the rest must be there."""
    needed = [one for one in chosen if not one.build]
    buildable = [one for one in chosen if one.build]
    missing = image_work.pull(
        session.docker,
        buildable,
        progress,
        session.auth,
        parallel=session.parallel,
        is_failure_ignored=True,
        is_quiet=options.quiet,
    )
    image_work.pull(
        session.docker,
        needed,
        progress,
        session.auth,
        parallel=session.parallel,
        is_failure_ignored=options.ignore_pull_failures,
        is_quiet=options.quiet,
    )
    if missing:
        names = " ".join(sorted(missing))
        session.warn(
            f"Some service image(s) must be built from source by running:\n    dari compose build {names}"
        )


def push(session: Session, options: Any) -> int:
    project = session.project(options.services)
    names = list(options.services) or list(project.services)
    if options.include_deps:
        names = selected_services(project, names)
    code = 0
    progress = session.progress(is_quiet=options.quiet)
    for name in names:
        service = project.services[name]
        if not service.build or not service.has_image:
            continue
        repository, tag = image_work.split(service.image)
        progress.begin(name, "Pushing")
        if session.flags.is_dry_run:
            progress.end(name, "Pushed")
            continue
        try:
            headers = {"X-Registry-Auth": "e30=", **session.auth(service.image)}
            for _ in session.docker.stream_json(
                "POST", f"/images/{repository}/push", headers=headers, tag=tag
            ):
                pass
        except Exception as error:
            progress.fail(name, str(error))
            if not options.ignore_push_failures:
                code = 1
            continue
        progress.end(name, "Pushed")
    progress.close()
    return code


def build(session: Session, options: Any) -> int:
    """Builds the named services (all that can be built), those they depend on for `additional_contexts` first."""
    if options.check:
        raise UserError("--check needs BuildKit, which this engine does not have; nothing was built")
    project = session.project(options.services)
    names = list(options.services) or list(project.services)
    if options.with_dependencies:
        names = selected_services(project, names)
    chosen = [project.services[name] for name in names if project.services[name].build is not None]
    if not chosen:
        session.warn("No services to build")
        return 0
    if options.print:
        session.say(json.dumps(_bake(project, chosen), indent=2))
        return 0
    arguments: dict[str, str] = {}
    for entry in options.build_arg:
        key, separator, value = entry.partition("=")
        arguments[key] = value if separator else session.environ.get(key, "")
    ssh = {}
    if options.ssh is not None:
        for entry in (options.ssh or "default").split(","):
            name, _, path = entry.partition("=")
            ssh[name] = path or session.environ.get("SSH_AUTH_SOCK", "")
    for service in image_work.in_build_order(project, chosen):
        if len((service.build or {}).get("platforms") or ()) > 1:
            session.warn(f'service "{service.name}": an image is built for one platform only')
        progress = session.progress(is_quiet=options.quiet)
        if session.flags.is_dry_run:
            progress.begin(f"Image {service.image}", "Building")
            progress.end(f"Image {service.image}", "Built")
            continue
        try:
            image_work.build_one(
                session.docker,
                project,
                service,
                progress,
                (lambda text: None) if options.quiet else session.write,
                session.build_auth(),
                {
                    "no_cache": options.no_cache,
                    "pull": options.pull,
                    "args": arguments,
                    "memory": _bytes(options.memory),
                    "ssh": ssh,
                },
            )
        finally:
            progress.close()
        if options.push:
            push(session, _PushOptions([service.name], options.quiet))
    return 0


def _bytes(text: str | None) -> int | None:
    from dari.units import parse_size

    try:
        return parse_size(text) if text else None
    except ValueError:
        raise UserError(f"invalid argument {text!r} for -m, --memory: invalid size") from None


class _PushOptions:
    def __init__(self, services: list[str], quiet: bool) -> None:
        self.services, self.quiet = services, quiet
        self.include_deps = self.ignore_push_failures = False


def _bake(project: Project, services: list[Service]) -> dict[str, Any]:
    targets = {}
    for service in services:
        build = service.build or {}
        entry = {
            "context": build["context"],
            "dockerfile": build.get("dockerfile"),
            "dockerfile-inline": build.get("dockerfile_inline"),
            "args": build.get("args"),
            "target": build.get("target"),
            "tags": [service.image, *(build.get("tags") or [])],
        }
        targets[service.name] = {key: value for key, value in entry.items() if value}
    return {"group": {"default": {"targets": [one.name for one in services]}}, "target": targets}


def images(session: Session, options: Any) -> int:
    """`images`: what the containers were made from."""
    found = [one for one in session.containers(options.services) if not one.is_oneoff]
    if not found:
        if not options.quiet:
            session.say(tables.table(_HEADERS, [], least=20))
        return 0
    wanted = sorted({one.image_id for one in found})
    inspected = {one: session.docker.get(f"/images/{one}/json") for one in wanted}
    if options.quiet:
        for image_id in wanted:
            session.say(image_id.removeprefix("sha256:"))
        return 0
    rows, entries = [], []
    for one in found:
        image = inspected[one.image_id]
        repository, _, tag = _tag(image, one.image).rpartition(":")
        rows.append(
            (
                one.name,
                repository or "<none>",
                tag or "<none>",
                image.get("Os", "") + "/" + image.get("Architecture", ""),
                one.image_id.removeprefix("sha256:")[:12],
                tables.size(image.get("Size", 0)),
                _created(image),
            )
        )
        entries.append(
            {
                "ID": one.image_id,
                "ContainerName": one.name,
                "Repository": repository,
                "Tag": tag,
                "Platform": rows[-1][3],
                "Size": image.get("Size", 0),
                "Created": image.get("Created"),
            }
        )
    if options.format == "json":
        session.say(json.dumps(entries, indent=4, ensure_ascii=False))
    elif options.format in (None, "table"):
        session.say(tables.table(_HEADERS, rows, least=20))
    else:
        raise UserError(f'format value "{options.format}" could not be parsed: parsing failed')
    return 0


_HEADERS = ("CONTAINER", "REPOSITORY", "TAG", "PLATFORM", "IMAGE ID", "SIZE", "CREATED")


def _tag(image: dict[str, Any], asked: str) -> str:
    tags: list[str] = image.get("RepoTags") or []
    wanted = image_work.familiar(asked)
    for tag in tags:
        if image_work.familiar(tag) == wanted:
            return tag
    return tags[0] if tags else ""


def _created(image: dict[str, Any]) -> str:
    import time

    from dari.units import SECOND, parse_time

    text = image.get("Created") or ""
    if not text:
        return ""
    try:
        return tables.ago(time.time() - parse_time(text, 0) / SECOND)
    except ValueError as error:
        raise ComposeError(f"the engine sent the time {text!r}: {error}") from None
