"""Which containers a list or a prune means: Docker's filters, applied to views.

Pure. Different keys must all hold, values of one key are alternatives (labels: all). Source: Docker Engine API
v1.51, `ContainerList`, `ContainerPrune`. Must not know: stores, JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dari.engine.selection import check, moment, truth
from dari.engine.validate import parse_range
from dari.engine.view import ContainerView
from dari.model.errors import InvalidArgument, NotFound

Filters = Mapping[str, Sequence[str]]

_LIST_KEY_TEXT = """
ancestor before exited expose health id is-task isolation label label! name network publish since status volume
"""
_LIST_KEYS = frozenset(_LIST_KEY_TEXT.split())
_PRUNE_KEYS = frozenset(("label", "label!", "until"))
_STATES = ("created", "dead", "exited", "paused", "removing", "restarting", "running")
_HEALTH = ("none", "starting", "healthy", "unhealthy")


@dataclass(frozen=True, slots=True)
class ListQuery:
    """`limit` latest containers whatever their state, 0 = no limit; `show_all` also those that do not run."""

    show_all: bool = False
    limit: int = 0
    filters: Filters = field(default_factory=dict)


def check_filters(filters: Filters, allowed: Container[str] = _LIST_KEYS) -> None:
    """Raises InvalidArgument for an unknown key or a value its key does not know."""
    check(filters, allowed)
    for value in filters.get("status", ()):
        if value not in _STATES:
            raise InvalidArgument(f"invalid filter 'status={value}'")
    for value in filters.get("health", ()):
        if value not in _HEALTH:
            raise InvalidArgument(f"invalid filter 'health={value}'")
    for value in filters.get("exited", ()):
        if not re.fullmatch(r"-?\d+", value):
            raise InvalidArgument(f"invalid filter 'exited={value}'")
    if "is-task" in filters:
        truth("is-task", filters["is-task"])
    for key in ("publish", "expose"):
        for value in filters.get(key, ()):
            _port_span(key, value)
    for key in ("name", "id"):
        for value in filters.get(key, ()):
            _compile(key, value)


def select(
    views: Iterable[ContainerView],
    query: ListQuery,
    *,
    resolve: Callable[[str], ContainerView | None],
    images: Callable[[str], frozenset[str]],
) -> list[ContainerView]:
    """The views that `query` means, newest first.

    `resolve` finds the container that `before` or `since` names; `images` the ids of an ancestor and of what was
    built on it. Raises InvalidArgument, NotFound.
    """
    filters = query.filters
    check_filters(filters)
    tests = _tests(filters, images)
    shows_all = query.show_all or query.limit > 0 or bool(filters.get("status"))
    before = _moment(filters, "before", resolve, min)
    since = _moment(filters, "since", resolve, max)
    found: list[ContainerView] = []
    for view in sorted(views, key=lambda view: view.container.created, reverse=True):
        created = view.container.created
        if not shows_all and view.container.status.state not in ("running", "paused", "restarting"):
            continue
        if (before is not None and created >= before) or (since is not None and created <= since):
            continue
        if all(test(view) for test in tests):
            found.append(view)
            if len(found) == query.limit:
                break
    return found


def select_pruned(views: Iterable[ContainerView], filters: Filters, now: int) -> list[ContainerView]:
    """Stopped containers that a prune with `filters` removes. Raises InvalidArgument."""
    check_filters(filters, _PRUNE_KEYS)
    untils = filters.get("until")
    limit = moment(untils, now) if untils else None
    return [
        view
        for view in views
        if view.container.status.state in ("created", "exited", "dead")
        and (limit is None or view.container.created < limit)
        and match_labels(view.container.config.labels, filters)
    ]


def match_labels(labels: Mapping[str, str], filters: Filters) -> bool:
    """`label=key`, `label=key=value` all hold, and no `label!` does."""
    return all(_has_label(labels, wanted) for wanted in filters.get("label", ())) and not any(
        _has_label(labels, unwanted) for unwanted in filters.get("label!", ())
    )


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _tests(
    filters: Filters, images: Callable[[str], frozenset[str]]
) -> list[Callable[[ContainerView], bool]]:
    tests: list[Callable[[ContainerView], bool]] = []
    if values := filters.get("status"):
        tests.append(lambda view, wanted=frozenset(values): view.container.status.state in wanted)  # type: ignore[misc]
    if values := filters.get("id"):
        ids = [_compile("id", value) for value in values]
        tests.append(lambda view: any(pattern.search(view.container.id) for pattern in ids))
    if values := filters.get("name"):
        names = [_compile("name", value) for value in values]
        tests.append(
            lambda view: any(
                pattern.search(view.container.name) or pattern.search(f"/{view.container.name}")
                for pattern in names
            )
        )
    if filters.get("label") or filters.get("label!"):
        tests.append(lambda view: match_labels(view.container.config.labels, filters))
    if values := filters.get("exited"):
        codes = frozenset(int(value) for value in values)
        tests.append(
            lambda view: (
                view.container.status.state in ("exited", "dead")
                and view.container.status.started > 0
                and view.container.status.exit_code in codes
            )
        )
    if values := filters.get("health"):
        wanted_health = frozenset(values)
        tests.append(lambda view: _health(view) in wanted_health)
    if values := filters.get("ancestor"):
        wanted_images = frozenset().union(*(images(value) for value in values))
        tests.append(lambda view: view.container.image_id in wanted_images)
    if values := filters.get("network"):
        tests.append(lambda view, wanted=tuple(values): _is_on(view, wanted))  # type: ignore[misc]
    if values := filters.get("volume"):
        tests.append(lambda view, wanted=frozenset(values): _mounts(view, wanted))  # type: ignore[misc]
    if values := filters.get("publish"):
        published = [_port_span("publish", value) for value in values]
        tests.append(lambda view: _publishes(view, published))
    if values := filters.get("expose"):
        exposed = [_port_span("expose", value) for value in values]
        tests.append(lambda view: _exposes(view, exposed))
    if values := filters.get("is-task"):
        # This engine's containers are never tasks of a foreign orchestrator.
        wants_tasks = truth("is-task", values)
        tests.append(lambda _view: not wants_tasks)
    return tests


def _compile(key: str, value: str) -> re.Pattern[str]:
    try:
        return re.compile(value)
    except re.error as error:
        raise InvalidArgument(f"invalid filter '{key}={value}': {error}") from None


def _health(view: ContainerView) -> str:
    health = view.container.status.health
    return health.status if health is not None else "none"


def _is_on(view: ContainerView, wanted: tuple[str, ...]) -> bool:
    mode = view.container.host.network_mode
    return any(
        mode == value
        or any(place.network.name == value or place.network.id.startswith(value) for place in view.places)
        for value in wanted
    )


def _mounts(view: ContainerView, wanted: frozenset[str]) -> bool:
    return any(
        mount.target in wanted or (mount.volume or mount.source) in wanted for mount in view.container.mounts
    )


def _publishes(view: ContainerView, spans: list[tuple[int, int, str]]) -> bool:
    # Docker compares the host's side of a binding.
    return any(
        first <= each.host_port + each.count - 1 and each.host_port <= last and each.protocol == kind
        for each in view.ports
        if each.host_port
        for first, last, kind in spans
    )


def _exposes(view: ContainerView, spans: list[tuple[int, int, str]]) -> bool:
    exposed = [_plain_port(port) for port in view.container.config.exposed_ports]
    return any(
        first <= port <= last and proto == kind for port, proto in exposed for first, last, kind in spans
    )


def _plain_port(text: str) -> tuple[int, str]:
    number, _, protocol = text.partition("/")
    span = parse_range(number)
    return (span[0] if span else 0), protocol or "tcp"


def _port_span(key: str, value: str) -> tuple[int, int, str]:
    number, _, protocol = value.partition("/")
    span = parse_range(number)
    if span is None:
        raise InvalidArgument(f"invalid filter '{key}={value}'")
    return *span, protocol or "tcp"


def _moment(
    filters: Filters,
    key: str,
    resolve: Callable[[str], ContainerView | None],
    choose: Callable[[Iterable[int]], int],
) -> int | None:
    moments = []
    for name in filters.get(key, ()):
        view = resolve(name)
        if view is None:
            raise NotFound(f"No such container: {name}")
        moments.append(view.container.created)
    return choose(moments) if moments else None
