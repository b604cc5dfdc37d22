"""What `down` (and `rm`, and `stop`) would do. Dependents go first; what the engine has is enough to know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dari.compose import labels
from dari.compose.observed import Observed, ObservedContainer
from dari.compose.plan.divergence import anonymous_names
from dari.compose.plan.members import add_deregistrations
from dari.compose.plan.ops import Builder, Hooks, Plan, add_hooks, add_provider, by_dependency, stop_query
from dari.compose.record import Record


class DownOptions(Record):
    """`services`: only these, and neither networks nor volumes. `known`: the file's services (None: no file), to tell
    orphans. `images`: what `--rmi` removes. `members`: ids of registrations by key.
    `pre_stop`: commands that run in a service's containers before they are stopped.
    `providers`: services of `project` that a program provides."""

    services: tuple[str, ...] = ()
    known: tuple[str, ...] | None = None
    remove_orphans: bool = False
    ignore_orphans: bool = False
    volumes: bool = False
    images: tuple[str, ...] = ()
    timeout: float | None = None
    pre_stop: Hooks = {}
    project: str = ""
    providers: Mapping[str, Mapping[str, Any]] = {}
    members: Mapping[str, str] = {}


def dependencies(containers: Iterable[ObservedContainer]) -> dict[str, list[str]]:
    """Service to the services it depends on, from the containers' labels."""
    found: dict[str, list[str]] = {}
    for container in containers:
        text = container.labels.get(labels.DEPENDS_ON, "")
        found.setdefault(container.service, []).extend(part.split(":")[0] for part in text.split(",") if part)
    return found


def conditions(container: ObservedContainer) -> dict[str, tuple[str, bool]]:
    """Service a container depends on to the condition and whether it restarts with it, from its labels."""
    found = {}
    for part in container.labels.get(labels.DEPENDS_ON, "").split(","):
        name, _, rest = part.partition(":")
        condition, _, restart = rest.partition(":")
        if name:
            found[name] = (condition, restart == "true")
    return found


def plan_down(observed: Observed, options: DownOptions) -> Plan:
    """Stop and remove containers, then networks, volumes and images."""
    build = Builder()
    containers = list(observed.containers)
    orphans = [one for one in containers if options.known is not None and one.service not in options.known]
    if options.services:
        containers = [one for one in containers if one.service in options.services]
    elif not options.remove_orphans:
        if orphans and not options.ignore_orphans:
            names = " ".join(one.name for one in orphans)
            build.warnings.append(
                f"Found orphan containers ([{names}]) for this project. If you removed or renamed this service in "
                "your compose file, you can run this command with the --remove-orphans flag to clean it up."
            )
        containers = [one for one in containers if one not in orphans]
    gone = _containers(build, containers, options)
    for name, model in sorted(options.providers.items()):
        if not options.services or name in options.services:
            add_provider(build, options.project, name, model, "down", gone)
    if options.services:
        return build.plan()
    add_deregistrations(build, options.members)
    for network in sorted(observed.networks, key=lambda one: one.name):
        build.add(
            f"network {network.key or network.name}",
            "remove",
            "",
            gone,
            is_optional=bool(orphans),
            title=f"Network {network.name}",
            method="DELETE",
            path=f"/networks/{network.id}",
        )
    if options.volumes:
        for volume in sorted(observed.volumes, key=lambda one: one.name):
            build.add(
                f"volume {volume.key or volume.name}",
                "remove",
                "asked for",
                gone,
                title=f"Volume {volume.name}",
                method="DELETE",
                path=f"/volumes/{volume.name}",
            )
        # A volume that was carried over to a newer container is a named one to the engine, so `v` leaves it.
        for name in sorted({name for one in containers for name in anonymous_names(one)}):
            build.add(
                f"volume {name[:12]}",
                "remove",
                "anonymous",
                gone,
                is_optional=True,
                method="DELETE",
                path=f"/volumes/{name}",
            )
    for image in options.images:
        build.add(
            f"image {image}",
            "remove",
            "asked for",
            gone,
            is_optional=True,
            title=f"Image {image}",
            method="DELETE",
            path=f"/images/{image}",
        )
    return build.plan()


def _containers(build: Builder, containers: list[ObservedContainer], options: DownOptions) -> list[int]:
    needs = dependencies(containers)
    order = by_dependency({one.service for one in containers}, needs)
    removed: dict[str, list[int]] = {}
    every: list[int] = []
    for name in reversed(order):
        dependents = [one for one in order if name in needs.get(one, ())]
        before = [number for one in dependents for number in removed.get(one, ())]
        for container in sorted((one for one in containers if one.service == name), key=lambda one: one.name):
            label = f"{name}:{container.number}"
            after = before
            if container.is_running:
                hooks = options.pre_stop.get(name, ()) if container.state == "running" else ()
                hooked = add_hooks(
                    build, label, name, container.id, container.name, "pre_stop", hooks, before
                )
                after = [
                    build.add(
                        label,
                        "stop",
                        "",
                        hooked,
                        title=f"Container {container.name}",
                        path=f"/containers/{container.id}/stop",
                        query=stop_query(options.timeout),
                    )
                ]
            number = build.add(
                label,
                "remove",
                "",
                after,
                title=f"Container {container.name}",
                method="DELETE",
                path=f"/containers/{container.id}",
                query={"v": True, "force": True} if options.volumes else {"force": True},
            )
            removed.setdefault(name, []).append(number)
            every.append(number)
    return every
