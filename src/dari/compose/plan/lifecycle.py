"""Verbs on containers that exist: start, stop, restart, kill, pause, unpause, remove. In dependency order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dari.compose.observed import ObservedContainer
from dari.compose.plan.down import dependencies
from dari.compose.plan.ops import Builder, Plan, by_dependency, stop_query

_FIRST_THE_NEEDED = frozenset(("start", "restart", "unpause"))


def plan_lifecycle(
    containers: Iterable[ObservedContainer],
    action: str,
    *,
    timeout: float | None = None,
    query: Mapping[str, Any] | None = None,
    is_ordered: bool = True,
) -> Plan:
    """One call a container; those it makes no difference to are left out.

    start, restart, unpause: what is depended on comes first; stop, pause: dependents first; kill, remove: all
    at once.
    """
    build = Builder()
    chosen = [one for one in containers if _applies(one, action)]
    needs = dependencies(chosen)
    order = by_dependency({one.service for one in chosen}, needs)
    is_forward = action in _FIRST_THE_NEEDED
    done: dict[str, list[int]] = {}
    for name in order if is_forward else reversed(order):
        around = needs.get(name, ()) if is_forward else [one for one in order if name in needs.get(one, ())]
        before = [number for one in around for number in done.get(one, ())] if is_ordered else []
        if action in ("kill", "remove"):
            before = []
        for container in (one for one in chosen if one.service == name):
            done.setdefault(name, []).append(_add(build, container, action, before, timeout, query or {}))
    return build.plan()


def _applies(container: ObservedContainer, action: str) -> bool:
    state = container.state
    if action == "start":
        return not container.is_running
    if action in ("stop", "kill"):
        return container.is_running
    if action == "pause":
        return state == "running"
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
