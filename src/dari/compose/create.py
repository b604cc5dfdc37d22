"""The common middle of `up`, `create`, `run` and `scale`: images, external resources, observation, plan."""

from __future__ import annotations

from collections.abc import Iterable

from dari.client.errors import ApiError
from dari.compose import images
from dari.compose.hash import volume_hash
from dari.compose.observe import observe
from dari.compose.observed import Observed
from dari.compose.plan import Plan, UpOptions, plan_up, selected_services
from dari.compose.project import Project
from dari.compose.session import Session, UserError
from dari.compose.threads import at_once


class Wish:
    """What the command line asked for; `options` go to the planner as they are."""

    def __init__(
        self,
        options: UpOptions,
        *,
        pull: str = "",
        is_pull_quiet: bool = False,
        is_build_forced: bool = False,
        is_build_forbidden: bool = False,
        is_plan_only: bool = False,
        is_build_quiet: bool = False,
        is_yes: bool = False,
    ) -> None:
        self.options = options
        self.pull = pull
        self.is_pull_quiet = is_pull_quiet
        self.is_build_forced = is_build_forced
        self.is_build_forbidden = is_build_forbidden
        self.is_plan_only = is_plan_only
        self.is_build_quiet = is_build_quiet
        self.is_yes = is_yes


def with_models(session: Session, project: Project, wish: Wish) -> Project:
    """The project with the services that take part told of their AI models. Raises UserError."""
    names = selected_services(project, wish.options.services, wish.options.no_deps)
    if not any(project.services[name].model.get("models") for name in names):
        return project
    from dari.compose import models

    try:
        return models.with_models(
            project,
            names,
            session.progress(is_quiet=wish.is_pull_quiet),
            session.environ,
            is_only_looking=wish.is_plan_only or session.flags.is_dry_run,
        )
    except models.ModelError as error:
        raise UserError(str(error)) from None


def prepare(session: Session, project: Project, wish: Wish) -> tuple[Plan, Observed]:
    """Gets images where that is allowed, looks at the engine and plans. Raises UserError, ImageError, PlanError."""
    check_container_names(project)
    names = selected_services(project, wish.options.services, wish.options.no_deps)
    ids = ensure_images(session, project, names, wish)
    check_external(session, project, names)
    observed = observe(session.docker, project.name)
    options = wish.options.replace(
        image_ids=ids,
        api=session.api,
        new_volumes=_changed_volumes(session, project, observed, names, wish),
        all_resources=session.flags.all_resources,
    )
    return plan_up(project, observed, options), observed


def _changed_volumes(
    session: Session, project: Project, observed: Observed, names: Iterable[str], wish: Wish
) -> tuple[str, ...]:
    """Volumes that differ from what the file says and that the user wants made anew."""
    there = {volume.name: volume.config_hash for volume in observed.volumes}
    used = {
        mount.source for name in names for mount in project.services[name].volumes if mount.type == "volume"
    }
    found = []
    for key in sorted(used - {""}):
        volume = project.volumes[key]
        known = there.get(volume.name)
        if volume.external or not known or known == volume_hash(volume) or wish.is_plan_only:
            continue
        question = (
            f'Volume "{volume.name}" exists but doesn\'t match configuration in compose file. '
            "Recreate (data will be lost)?"
        )
        if wish.is_yes or session.confirm(question):
            found.append(volume.name)
    return tuple(found)


def ensure_images(session: Session, project: Project, names: Iterable[str], wish: Wish) -> dict[str, str]:
    """Image ids by reference, after pulling and building what the services ask for."""
    docker = session.docker
    services = [project.services[name] for name in names]
    # A step that runs the service's own image needs nothing of its own, also where that is built.
    services += [hook for one in services for hook in one.pre_start if hook.image != one.image]
    services = [one for one in services if not one.model.get("provider")]
    ids = images.present(docker, [service.image for service in services])
    if wish.is_plan_only or session.flags.is_dry_run:
        return ids
    pulls = images.to_pull(services, ids, wish.pull, images.stale(docker, services, ids))
    progress = session.progress(is_quiet=wish.is_pull_quiet)
    if pulls:
        try:
            images.pull(docker, pulls, progress, session.auth, parallel=session.parallel)
        finally:
            progress.close()
    builds = [] if wish.is_build_forbidden else images.to_build(services, ids, wish.is_build_forced)
    for service in images.in_build_order(project, builds):
        progress = session.progress(is_quiet=wish.is_build_quiet)
        try:
            images.build_one(
                docker,
                project,
                service,
                progress,
                (lambda text: None) if wish.is_build_quiet else session.write,
                session.build_auth(),
                {"pull": wish.pull == "always"},
            )
        finally:
            progress.close()
    if pulls or builds:
        ids = images.present(docker, [service.image for service in services])
    return ids


def check_container_names(project: Project) -> None:
    """No two services want the same container name. Raises UserError."""
    owners: dict[str, str] = {}
    for name in sorted(project.services):
        chosen = project.services[name].container_name
        if chosen and owners.setdefault(chosen, name) != name:
            raise UserError(
                f'services.{name}: container name "{chosen}" is already in use by service {owners[chosen]}'
            )


def check_external(session: Session, project: Project, names: Iterable[str]) -> None:
    """Every external network and volume in use exists. Raises UserError naming the first that does not."""
    wanted: dict[tuple[str, str], None] = {}
    for name in names:
        service = project.services[name]
        for one in service.networks:
            network = project.networks[one.network]
            if network.external:
                wanted[("network", network.name)] = None
        for mount in service.volumes:
            if mount.type == "volume" and mount.source and project.volumes[mount.source].external:
                wanted[("volume", project.volumes[mount.source].name)] = None
    if not wanted:
        return

    def look(item: tuple[str, str]) -> tuple[str, str] | None:
        kind, name = item
        try:
            session.docker.get(f"/{kind}s/{name}")
        except ApiError as error:
            if error.status == 404:
                return item
            raise
        return None

    for missing in at_once(look, wanted, 8):
        if missing:
            kind, name = missing
            if kind == "volume":
                raise UserError(f'external volume "{name}" not found')
            raise UserError(f"{kind} {name} declared as external, but could not be found")


def scales(entries: Iterable[str]) -> dict[str, int]:
    """`--scale web=3` entries. Raises UserError."""
    found = {}
    for entry in entries or ():
        name, _, text = entry.partition("=")
        if not name or not text.isdigit():
            raise UserError(f'invalid --scale option "{entry}". Should be SERVICE=NUM')
        found[name] = int(text)
    return found
