"""Verbs on containers that exist: start, stop, restart, kill, pause, unpause, remove. In dependency order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dari.compose.observed import ObservedContainer
from dari.compose.plan.down import conditions, dependencies
from dari.compose.plan.inits import add_inits
from dari.compose.plan.ops import Builder, Plan, add_hooks, by_dependency, stop_query
from dari.compose.project import Project

_FIRST_THE_NEEDED = frozenset(("start", "restart", "unpause"))


def plan_lifecycle(
    containers: Iterable[ObservedContainer],
    action: str,
    *,
    timeout: float | None = None,
    query: Mapping[str, Any] | None = None,
    is_ordered: bool = True,
    project: Project | None = None,
    api: tuple[int, ...] = (1, 51),
) -> Plan:
    """One call a container; those it makes no difference to are left out.

    start, restart, unpause: what is depended on comes first; stop, pause: dependents first; kill, remove: all
    at once. `api`: the engine's version. `project`: whose services' hooks run around a start, a stop and a restart.
    """
    build = Builder()
    containers = list(containers)
    chosen = [one for one in containers if _applies(one, action)]
    if action == "stop":
        build.kept += [
            (f"Container {one.name}", "Stopped") for one in containers if one.state in ("created", "exited")
        ]
    needs = dependencies(chosen)
    order = by_dependency({one.service for one in chosen}, needs)
    is_forward = action in _FIRST_THE_NEEDED
    done: dict[str, list[int]] = {}
    inits: dict[str, list[int]] = {}
    for name in order if is_forward else reversed(order):
        around = needs.get(name, ()) if is_forward else [one for one in order if name in needs.get(one, ())]
        before = [number for one in around for number in done.get(one, ())] if is_ordered else []
        if action in ("kill", "remove"):
            before = []
        for container in (one for one in chosen if one.service == name):
            service = project.services.get(name) if project else None
            model = service.model if service else {}
            needs_first: list[int] = list(before)
            if is_forward and is_ordered:
                waits = _waits(build, container, chosen, done)
                before = [*before, *waits]
                needs_first = list(before)
            label = f"{name}:{container.number}"
            if action in ("stop", "restart") and container.state == "running":
                hooks = model.get("pre_stop") or ()
                needs_first = add_hooks(
                    build, label, name, container.id, container.name, "pre_stop", hooks, before
                )
            if action == "start" and project and service and container.state == "created":
                if name not in inits:
                    inits[name] = add_inits(
                        build, project, service, container.id, before, image_ids={}, api=api
                    )  # fmt: skip
                needs_first = [*before, *inits[name]]
            ends = [_add(build, container, action, needs_first, timeout, query or {})]
            if action in ("start", "restart"):
                hooks = model.get("post_start") or ()
                ends = add_hooks(build, label, name, container.id, container.name, "post_start", hooks, ends)
            done.setdefault(name, []).extend(ends)
    return build.plan()


def _waits(
    build: Builder,
    container: ObservedContainer,
    chosen: Iterable[ObservedContainer],
    done: Mapping[str, Iterable[int]],
) -> list[int]:
    """Steps that wait until what the container depends on is as it asks for."""
    found = []
    for name, (condition, _) in conditions(container).items():
        names = tuple(one.name for one in chosen if one.service == name)
        if condition in ("", "service_started") or not names:
            continue
        what = "healthy" if condition == "service_healthy" else "completed"
        found.append(
            build.add(
                name,
                f"wait until {what}",
                f"{container.service} asks for it",
                done.get(name, ()),
                word="wait",
                title=f"Container {names[0]}",
                kind="wait",
                containers=names,
                condition=condition,
            )
        )
    return found


def _applies(container: ObservedContainer, action: str) -> bool:
    state = container.state
    if action == "start":
        return not container.is_running
    if action in ("stop", "kill"):
        return container.is_running
    if action == "pause":
        return container.is_running  # what is paused already is the engine's to refuse
    if action == "unpause":
        return state == "paused"
    return True


def _add(
    build: Builder,
    container: ObservedContainer,
    action: str,
    before: Iterable[int],
    timeout: float | None,
    query: Mapping[str, Any],
) -> int:
    is_removal = action == "remove"
    asked = dict(query)
    if action in ("stop", "restart"):
        asked.update(stop_query(timeout))
    return build.add(
        f"{container.service}:{container.number}",
        action,
        "",
        before,
        title=f"Container {container.name}",
        method="DELETE" if is_removal else "POST",
        path=f"/containers/{container.id}" + ("" if is_removal else f"/{action}"),
        query=asked,
    )
