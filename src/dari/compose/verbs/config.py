"""`config`: the project as Compose understands it."""

from __future__ import annotations

import json
from typing import Any

from dari.compose import dump
from dari.compose import hash as digest
from dari.compose.session import Session, UserError


def config(session: Session, options: Any) -> int:
    if options.variables:
        return _variables(session, options)
    project = session.load(
        options.services,
        is_interpolated=not options.no_interpolate,
        is_environment_resolved=not options.no_env_resolution,
        is_path_resolved=not options.no_path_resolution,
        is_checked=not options.no_consistency,
    )
    for name in options.services:
        if name not in project.services:
            raise UserError(f"no such service: {name}")
    if options.quiet:
        return 0
    text = _listing(session, project, options)
    if text is None:
        tree = dump.tree(project.model)
        if options.services:
            from dari.compose.plan import selected_services

            kept = selected_services(project, options.services)
            tree["services"] = {name: value for name, value in tree["services"].items() if name in kept}
        if options.resolve_image_digests or options.lock_image_digests:
            _pin(session, tree)
        if options.format == "json":
            text = json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
        else:
            text = dump.as_yaml(dump.doubled(tree) if not options.no_interpolate else tree)
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(text)
    else:
        session.write(text)
    return 0


def _listing(session: Session, project: Any, options: Any) -> str | None:
    if options.show_services:
        return _lines(project.services)
    if options.volumes:
        return _lines(project.volumes)
    if options.networks:
        return _lines(project.networks)
    if options.images:
        return _lines(dict.fromkeys(service.image for service in project.services.values()))
    if options.profiles:
        from dari.compose.load.profiles import all_profiles

        every = {**project.model["services"], **project.disabled}
        return _lines(all_profiles(every))
    if options.hash is not None:
        project = session.project(options.services)  # as `up` sees it, so that hashes are those of the labels
        names = list(project.services) if options.hash == "*" else options.hash.split(",")
        for name in names:
            if name not in project.services:
                raise UserError(f"no such service: {name}")
        return _lines(
            f"{name} {digest.config_hash(project, project.services[name])}" for name in sorted(names)
        )
    if options.environment:
        variables = {**session.variables(), "COMPOSE_PROJECT_NAME": project.name}
        return _lines(f"{name}={value}" for name, value in sorted(variables.items()))
    return None


def _lines(names: Any) -> str:
    return "".join(f"{name}\n" for name in names)


def _variables(session: Session, options: Any) -> int:
    from dari.compose import tables
    from dari.compose.load.pipeline import variables

    found = variables(session.files, session.read)
    if options.format == "json":
        session.say(
            json.dumps(
                {
                    name: {
                        "Name": name,
                        "DefaultValue": default,
                        "PresenceValue": alternate,
                        "Required": required == "true",
                    }
                    for name, (required, default, alternate) in sorted(found.items())
                },
                indent=2,
            )
        )
        return 0
    rows = [(name, *found[name]) for name in sorted(found)]
    session.say(tables.table(("NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"), rows))
    return 0


def _pin(session: Session, tree: dict[str, Any]) -> None:
    """Replaces each image by its digest, as the registry tells it."""
    for service in tree["services"].values():
        image = service.get("image")
        if not image or "@" in image:
            continue
        found = session.docker.get(f"/distribution/{image}/json")
        service["image"] = f"{image}@{found['Descriptor']['digest']}"
