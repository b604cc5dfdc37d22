"""`config`: the project as Compose understands it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dari.compose import dump
from dari.compose import hash as digest
from dari.compose.create import check_container_names
from dari.compose.session import Session, UserError
from dari.compose.yaml_text import as_yaml


def config(session: Session, options: Any) -> int:
    if options.format not in (None, "yaml", "json", "table"):
        raise UserError(f'unsupported format "{options.format}"')
    if options.filter and not options.show_services:
        raise UserError("--filter requires --services")
    if options.variables:
        return _variables(session, options)
    if options.no_interpolate and options.services:
        session.warn("service filtering is not applied when --no-interpolate is set")
    named = () if options.no_interpolate else options.services
    profiles = _profiles(options.filter)
    project = session.load(
        named,
        more_profiles=profiles,
        is_interpolated=not options.no_interpolate,
        is_environment_resolved=not options.no_env_resolution and not options.no_normalize,
        is_path_resolved=not options.no_path_resolution,
        is_checked=not options.no_consistency,
    )
    for name in named:
        if name not in project.services:
            raise UserError(f"no such service: {name}")
    text = None if options.quiet else _listing(session, project, options)
    if text is None:
        if not options.no_consistency and not options.no_interpolate:
            check_container_names(project)
        if options.quiet:
            return 0
        tree = dump.tree(project.model)
        if named:
            from dari.compose.plan import selected_services

            kept = selected_services(project, named)
            tree["services"] = {name: value for name, value in tree["services"].items() if name in kept}
        if not session.flags.all_resources and not options.no_interpolate:
            tree = used(tree)
        if options.resolve_image_digests or options.lock_image_digests:
            _pin(session, tree)
        if options.lock_image_digests:
            tree = {"services": {name: {"image": one["image"]} for name, one in tree["services"].items()}}
        if options.format == "json":
            text = json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
        elif options.no_interpolate:
            text = as_yaml(tree, is_ordered=False)
        else:
            text = as_yaml(dump.doubled(tree))
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(text)
    else:
        session.write(text)
    return 0


def used(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree without networks, volumes, secrets, configs and models that no service uses."""
    wanted: dict[str, set[str]] = {
        name: set() for name in ("networks", "volumes", "secrets", "configs", "models")
    }
    for service in tree["services"].values():
        for one in (service, *(service.get("pre_start") or ())):
            wanted["networks"].update(one.get("networks") or ())
            wanted["models"].update(one.get("models") or ())
            for mount in one.get("volumes") or ():
                if mount.get("type") == "volume" and mount.get("source"):
                    wanted["volumes"].add(mount["source"])
            for section in ("secrets", "configs"):
                wanted[section].update(reference["source"] for reference in one.get(section) or ())
        wanted["secrets"].update(one["source"] for one in (service.get("build") or {}).get("secrets") or ())
    found = dict(tree)
    for section, names in wanted.items():
        if section in found:
            kept = {name: value for name, value in found[section].items() if name in names}
            found[section] = kept
            if not kept:
                del found[section]
    return found


def _profiles(filters: list[str]) -> list[str]:
    found = []
    for text in filters:
        key, separator, value = text.partition("=")
        if key not in ("profile", "label") or not separator:
            raise UserError(f'unknown criteria "{key}", use profile=NAME or label=KEY[=VALUE]')
        if key == "profile":
            if value == "*":
                raise UserError("profiles must be selected explicitly")
            found.append(value)
    return found


def _meets(service: Mapping[str, Any], filters: list[str]) -> bool:
    for text in filters:
        key, _, value = text.partition("=")
        if key == "profile" and value not in (service.get("profiles") or ()):
            return False
        if key == "label":
            name, separator, wanted = value.partition("=")
            labels = service.get("labels") or {}
            if name not in labels or (separator and labels[name] != wanted):
                return False
    return True


def _listing(session: Session, project: Any, options: Any) -> str | None:
    model = project.model
    if options.show_services:
        services = model["services"]
        return _lines(sorted(name for name in services if _meets(services[name], options.filter)))
    if options.volumes:
        return _lines(sorted(_kept(session, project).get("volumes") or ()))
    if options.networks:
        return _lines(sorted(_kept(session, project).get("networks") or ()))
    if options.models:
        models = _kept(session, project).get("models") or {}
        return _lines(sorted({one["model"] for one in models.values()}))
    if options.images:
        return _lines(service.image for service in project.services.values())
    if options.profiles:
        from dari.compose.load.profiles import all_profiles

        return _lines(all_profiles({**model["services"], **project.disabled}))
    if options.hash is not None:
        # As `up` sees it, so that hashes are those of the labels.
        seen = project if options.no_consistency else session.project(options.services)
        names = list(seen.services) if options.hash == "*" else options.hash.split(",")
        for name in names:
            if name not in seen.services:
                raise UserError(f"no such service: {name}")
        return _lines(f"{name} {digest.config_hash(seen, seen.services[name])}" for name in sorted(names))
    if options.environment:
        variables = {**session.variables(), "COMPOSE_PROJECT_NAME": project.name}
        return _lines(f"{name}={value}" for name, value in sorted(variables.items()))
    return None


def _kept(session: Session, project: Any) -> Mapping[str, Any]:
    model: Mapping[str, Any] = project.model
    return model if session.flags.all_resources else used(dump.tree(model))


def _lines(names: Any) -> str:
    return "".join(f"{name}\n" for name in names)


def _variables(session: Session, options: Any) -> int:
    from dari.compose import tables
    from dari.compose.load.pipeline import variables

    if options.services:
        session.warn("service filtering is not applied when --variables is set")
    found = variables(session.files, session.read)
    if options.format in ("json", "yaml"):
        names = ("Name", "DefaultValue", "PresenceValue", "Required")
        records = {
            name: dict(zip(names, (name, default, alternate, required == "true"), strict=True))
            for name, (required, default, alternate) in sorted(found.items())
        }
        if options.format == "json":
            session.say(json.dumps(records, indent=4))
            return 0
        lowered = {name: {key.lower(): value for key, value in one.items()} for name, one in records.items()}
        for name, one in lowered.items():
            session.write(as_yaml({name: {}}).replace(" {}", ""))
            for key, value in one.items():
                session.write("    " + as_yaml({key: value}))
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
