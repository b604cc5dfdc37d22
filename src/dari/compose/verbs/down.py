"""`down`: stop and remove containers, networks, and with `-v` volumes, with `--rmi` images."""

from __future__ import annotations

from typing import Any

from dari.compose.observe import observe
from dari.compose.plan import DownOptions, plan_down
from dari.compose.project import Project
from dari.compose.session import Session, UserError


def down(session: Session, options: Any) -> int:
    project = session.project_or_none(options.services)
    name = project.name if project else session.flags.name
    observed = observe(session.docker, name)
    known = (*project.services, *project.disabled) if project else None
    plan = plan_down(
        observed,
        DownOptions(
            services=tuple(options.services),
            known=known,
            remove_orphans=options.remove_orphans or session.flag("COMPOSE_REMOVE_ORPHANS"),
            ignore_orphans=session.flag("COMPOSE_IGNORE_ORPHANS"),
            volumes=options.volumes,
            images=_images(project, options.rmi, [one.image for one in observed.containers]),
            timeout=options.timeout,
            pre_stop=pre_stop_hooks(project),
            project=name,
            providers=providers(project),
            members={key: body["ID"] for key, body in project.members.items()} if project else {},
        ),
    )
    if not plan.ops:
        session.warn(f'Warning: No resource found to remove for project "{name}".')
        return 0
    return session.finish(session.carry_out(plan, session.progress()))


def pre_stop_hooks(project: Project | None) -> dict[str, Any]:
    """The `pre_stop` commands of each service that has any."""
    services = project.services if project else {}
    return {
        name: service.model["pre_stop"] for name, service in services.items() if service.model.get("pre_stop")
    }


def providers(project: Project | None) -> dict[str, Any]:
    """The services that a program provides, as `config` prints them."""
    services = project.services if project else {}
    return {name: service.model for name, service in services.items() if service.model.get("provider")}


def _images(project: Project | None, kind: str | None, used: list[str]) -> tuple[str, ...]:
    if not kind:
        return ()
    if kind not in ("all", "local"):
        raise UserError(f'invalid value for --rmi: "{kind}"')
    if project is None:
        return tuple(sorted(set(used))) if kind == "all" else ()
    services = project.services.values()
    return tuple(sorted({one.image for one in services if kind == "all" or not one.has_image}))
