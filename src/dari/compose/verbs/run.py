"""`run`: a one-off container of a service, with its own command."""

from __future__ import annotations

import secrets
import shlex
import sys
import threading
from collections.abc import Mapping
from typing import Any

from dari.client.errors import ApiError
from dari.compose import images, labels
from dari.compose.convert import container_body, endpoint
from dari.compose.create import Wish, prepare, with_models
from dari.compose.load.canonical import ports as parse_ports
from dari.compose.load.canonical import volumes as parse_volumes
from dari.compose.load.errors import ComposeError
from dari.compose.load.paths import absolute
from dari.compose.plan import UpOptions, selected_services
from dari.compose.plan.content import content_files
from dari.compose.plan.ops import Builder, add_hooks
from dari.compose.project import Mount, Port, Project, Service
from dari.compose.session import Session, UserError
from dari.compose.verbs.exec import environment, resize
from dari.compose.waiting import Ending


def run(session: Session, options: Any) -> int:
    """Exit code: the command's; 0 with `-d`."""
    if options.publish and options.service_ports:
        raise UserError("--service-ports and --publish are incompatible")
    project = session.project([options.service])
    wish = _wish(session, options)
    project = with_models(session, project, wish)
    service = project.services[options.service]
    _start_dependencies(session, project, service, options, wish)
    slug = secrets.token_hex(6)
    name = options.name or project.separator.join((project.name, service.name, "run", slug))
    changed = _changed(session, project, service, options)
    ids = images.present(session.docker, [service.image])
    body = _body(
        session,
        project.replace(services={**project.services, service.name: changed}),
        changed,
        slug,
        ids,
        options,
    )
    has_tty = bool(body["Tty"])
    docker = session.docker
    progress = session.progress(is_quiet=options.quiet, is_beside_logs=True)
    progress.begin(f"Container {name}", "Creating")
    if session.flags.is_dry_run:
        progress.end(f"Container {name}", "Created")
        return 0
    made = docker.post("/containers/create", body, name=name, platform=service.platform or None)
    progress.end(f"Container {name}", "Created")
    container = made["Id"]
    if session.api < (1, 44):
        for one in changed.networks[1:]:
            config = endpoint(
                project,
                changed,
                one,
                1,
                api=session.api,
                oneoff=slug,
                counts={},
                with_aliases=options.use_aliases,
            )
            docker.post(
                f"/networks/{project.networks[one.network].name}/connect",
                {"Container": container, "EndpointConfig": config},
            )
    _put_files(session, project, changed, container)
    hooks = _Hooks(session, changed, container, name)
    if options.detach:
        docker.post(f"/containers/{container}/start")
        session.say(container)
        hooks.begin()
        return hooks.end()
    code = _attach(session, container, has_tty, options, hooks)
    return hooks.end() or code


def _wish(session: Session, options: Any) -> Wish:
    return Wish(
        UpOptions(
            services=(options.service,),
            no_recreate=True,
            no_deps=options.no_deps,
            ignore_orphans=session.flag("COMPOSE_IGNORE_ORPHANS"),
            remove_orphans=options.remove_orphans or session.flag("COMPOSE_REMOVE_ORPHANS"),
        ),
        pull=options.pull or "",
        is_pull_quiet=options.quiet_pull or options.quiet,
        is_build_forced=options.build,
        is_build_quiet=options.quiet_build or options.quiet,
    )


def _start_dependencies(
    session: Session, project: Project, service: Service, options: Any, wish: Wish
) -> None:
    """Networks, volumes and the services that this one needs; conditions are waited for."""
    names = selected_services(project, [service.name], options.no_deps)
    # The one-off service itself is planned with no container, so that its networks and volumes are made and
    # its image is fetched, while conditions on its dependencies are met before it starts.
    scaled = wish.options.replace(services=tuple(names), scale={service.name: 0}, no_deps=True)
    wish.options = scaled
    kept = Project(**{**project.__dict__, "services": project.services})
    plan, observed = prepare(session, kept, wish)
    own = {one.id for one in observed.of_service(service.name)}
    ops = [op for op in plan.ops if not any(f"/containers/{one}" in op.path for one in own)]
    if ops or plan.warnings or plan.kept:
        progress = session.progress(is_quiet=options.quiet)
        outcome = session.carry_out(plan.replace(ops=tuple(ops)), progress)
        if not outcome.is_success:
            raise UserError("\n".join(outcome.errors))
    if not options.no_deps and not session.flags.is_dry_run:
        _wait_for_conditions(session, project, service)


def _wait_for_conditions(session: Session, project: Project, service: Service) -> None:
    import time

    from dari.compose.execute import is_met

    for dependency in service.depends_on:
        if dependency.condition == "service_started" or dependency.service not in project.services:
            continue
        for one in session.containers([dependency.service]):
            while not one.is_oneoff and not is_met(
                session.docker.get(f"/containers/{one.id}/json"), one.name, dependency.condition
            ):
                time.sleep(0.2)


def _changed(session: Session, project: Project, service: Service, options: Any) -> Service:
    """The service with what the command line says."""
    model: dict[str, Any] = {key: value for key, value in service.model.items() if key != "container_name"}
    if options.command:
        model["command"] = options.command
    if options.entrypoint is not None:
        model["entrypoint"] = shlex.split(options.entrypoint) or [""]
        if not options.command:
            model["command"] = None
    for value, key in ((options.user, "user"), (options.workdir, "working_dir")):
        if value:
            model[key] = value
    for values, key, other in (
        (options.cap_add, "cap_add", "cap_drop"),
        (options.cap_drop, "cap_drop", "cap_add"),
    ):
        if values:
            model[key] = [*(model.get(key) or []), *values]
            model[other] = [each for each in model.get(other) or [] if each not in values]
    model["restart"] = "no"
    model["deploy"] = {
        key: value for key, value in (model.get("deploy") or {}).items() if key != "restart_policy"
    }
    given = _from_files(session, options.env_from_file)
    given |= dict(entry.split("=", 1) for entry in environment(session, options.env))
    if any("=" not in entry for entry in options.label):
        raise UserError("label must be set as KEY=VALUE")
    extra_labels = dict(entry.partition("=")[::2] for entry in options.label)
    return service.replace(
        model=model,
        container_name="",
        environment={**service.environment, **given},
        labels={**service.labels, **extra_labels},
        ports=(service.ports if options.service_ports else ()) + _ports(options.publish),
        volumes=service.volumes + _volumes(session, options.volume),
    )


def _from_files(session: Session, paths: list[str]) -> dict[str, str]:
    """The variables of `--env-from-file`. Raises UserError, ComposeError."""
    import os

    from dari.compose.load import dotenv

    found: dict[str, str] = {}
    for path in paths:
        try:
            text = session.read(os.path.abspath(path))
        except OSError as error:
            raise UserError(f"open {path}: {(error.strerror or str(error)).lower()}") from None
        values = dotenv.parse(text, path, session.variables(), before=found)
        found.update({name: value for name, value in values.items() if value is not None})
    return found


def _ports(entries: list[str]) -> tuple[Port, ...]:
    try:
        found = parse_ports(entries)
    except ValueError as error:
        raise UserError(str(error)) from None
    return tuple(
        Port(
            target=one["target"],
            protocol=one["protocol"],
            published=one.get("published", ""),
            host_ip=one.get("host_ip", ""),
        )
        for one in found
    )


def _volumes(session: Session, entries: list[str]) -> tuple[Mount, ...]:
    import os

    try:
        found = parse_volumes(entries)
    except ValueError as error:
        raise ComposeError(str(error)) from None
    mounts = []
    for one in found:
        source = one.get("source", "")
        if one["type"] == "bind":
            source = absolute(source, os.getcwd(), os.path.expanduser("~"))
        mounts.append(
            Mount(
                type=one["type"],
                target=one["target"],
                source=source,
                read_only=bool(one.get("read_only")),
                bind=one.get("bind") or {},
                volume=one.get("volume") or {},
            )
        )
    return tuple(mounts)


def _body(
    session: Session, project: Project, service: Service, slug: str, ids: Mapping[str, str], options: Any
) -> dict[str, Any]:
    known = dict.fromkeys(project.volumes, True)
    named = [
        one for one in service.volumes if one.type == "volume" and one.source and one.source not in known
    ]
    service = service.replace(volumes=tuple(one for one in service.volumes if one not in named))
    has_tty = not options.no_tty and not options.detach and sys.stdin.isatty() and sys.stdout.isatty()
    body = container_body(
        project,
        service,
        1,
        image_id=ids.get(service.image, ""),
        api=session.api,
        oneoff=slug,
        with_aliases=options.use_aliases,
    )
    for one in named:
        body["HostConfig"].setdefault("Binds", []).append(
            f"{one.source}:{one.target}:{'ro' if one.read_only else 'rw'}"
        )
    if options.rm:
        # The engine's to do: it also removes what outlives this program.
        body["HostConfig"]["AutoRemove"] = True
    is_attached = options.interactive and not options.detach
    body.update(
        {
            "Tty": has_tty,
            "OpenStdin": options.interactive,
            "StdinOnce": is_attached,
            "AttachStdin": is_attached,
            "AttachStdout": not options.detach,
            "AttachStderr": not options.detach,
        }
    )
    del body["Labels"][labels.CONFIG_HASH]
    return body


def _put_files(session: Session, project: Project, service: Service, container: str) -> None:
    files = content_files(project, service)
    if not files:
        return
    from dari.compose.execute import put_files

    put_files(session.docker, f"/containers/{container}/archive", files)


class _Hooks:
    """The service's `post_start` steps, carried out beside the container once it has been started."""

    def __init__(self, session: Session, service: Service, container: str, name: str) -> None:
        build = Builder()
        steps = service.model.get("post_start") or ()
        add_hooks(build, service.name, service.name, container, name, "post_start", steps, ())
        self._session, self._plan, self._container = session, build.plan(), container
        self._thread: threading.Thread | None = None
        self._code = 0

    def begin(self) -> None:
        if self._plan.ops:
            self._thread = threading.Thread(target=self._run, name="post_start", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        outcome = self._session.carry_out(self._plan, self._session.progress(is_beside_logs=True))
        # What had done its work before its steps came has nothing to be told.
        if outcome.is_success or any(" hook exited with " in text for text in outcome.errors) or self._runs():
            self._code = self._session.finish(outcome)

    def _runs(self) -> bool:
        try:
            return bool(self._session.docker.get(f"/containers/{self._container}/json")["State"]["Running"])
        except ApiError as error:
            if error.status != 404:
                raise
            return False

    def end(self) -> int:
        """Waits for them; 1 where one of them failed, 0 else."""
        while self._thread is not None and self._thread.is_alive():
            # A join without a timeout cannot be interrupted by Ctrl-C on some systems.
            self._thread.join(0.5)
        return self._code


def _attach(session: Session, container: str, has_tty: bool, options: Any, hooks: _Hooks) -> int:
    from dari.client.streams import DEFAULT_DETACH_KEYS, interact, parse_detach_keys

    docker = session.docker
    is_interactive = options.interactive
    stream = docker.hijack(
        "POST",
        f"/containers/{container}/attach",
        stream=True,
        stdin=True if is_interactive else None,
        stdout=True,
        stderr=True,
    )
    with stream:
        # Asked before the start: afterwards one that removes itself may be gone already.
        ending = Ending(docker, container, "removed" if options.rm else "next-exit")
        docker.post(f"/containers/{container}/start")
        hooks.begin()
        try:
            is_detached = interact(
                stream,
                tty=has_tty,
                stdin=0 if is_interactive else None,
                detach_keys=parse_detach_keys(DEFAULT_DETACH_KEYS),
                on_resize=(
                    (lambda rows, columns: resize(session, f"/containers/{container}", rows, columns))
                    if has_tty
                    else None
                ),
            )
        except KeyboardInterrupt:
            docker.post(f"/containers/{container}/stop")
            is_detached = False
    return 0 if is_detached else ending.code()
