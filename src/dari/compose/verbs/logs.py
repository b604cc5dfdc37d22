"""`logs`: what the containers said, and say; with `-f` those that start meanwhile too, until none runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dari.client.errors import ApiError
from dari.compose import labels
from dari.compose.logs import Followers, Printer, short_name, stream
from dari.compose.session import Session

# How long to wait for what a container said last, in seconds.
_LAST_LINES = 10.0


def logs(session: Session, options: Any) -> int:
    begun = time.time()
    containers = [one for one in session.containers(options.services) if not one.is_oneoff]
    listed = time.time()
    if options.index:
        containers = [one for one in containers if one.number == options.index]
    project = session.project_or_none()
    colour = False if options.no_color else {"never": False, "always": True}.get(session.ansi)
    printer = Printer(has_prefix=not options.no_log_prefix, is_coloured=colour)
    name = session.name()
    names = {one.id: short_name(name, one.name) for one in containers}
    printer.register(names.values())
    query = {
        "follow": True if options.follow else None,
        "timestamps": True if options.timestamps else None,
        "tail": options.tail,
        "since": _moment(options.since),
        "until": _moment(options.until),
    }

    def has_tty(service: str) -> bool | None:
        return project.services[service].tty if project and service in project.services else None

    if not options.follow:
        for one in containers:
            stream(session.docker, one.id, printer, names[one.id], has_tty=has_tty(one.service), **query)
        return 0
    followers = Followers(session.docker, printer)
    for one in containers:
        followers.follow(one.id, names[one.id], query, has_tty(one.service))
    alive = {one.id for one in containers if one.is_running}
    if alive and not options.until:
        _go_on(session, options, printer, followers, alive, {**query, "tail": None}, (begun, listed))
    followers.join()
    for text in followers.errors:
        session.complain(text)
    return 1 if followers.errors else 0


def _go_on(
    session: Session,
    options: Any,
    printer: Printer,
    followers: Followers,
    alive: set[str],
    query: Mapping[str, Any],
    moments: tuple[float, float],
) -> None:
    """Tells of containers that end, follows those that start, until none of them is `alive`.

    `moments`: around the look at what there is, in seconds of the epoch.
    """
    begun, listed = moments
    project = session.name()
    filters = {"type": ["container"], "event": ["start", "die"], "label": [f"{labels.PROJECT}={project}"]}
    for event in session.docker.stream_json(
        "GET", "/events", filters=filters, since=f"{begun:.9f}", raise_errors=False
    ):
        actor = event.get("Actor") or {}
        attributes = actor.get("Attributes") or {}
        container, name = actor.get("ID", ""), short_name(project, attributes.get("name", ""))
        if not _is_wanted(attributes, options):
            continue
        if event.get("Action") == "start":
            if container in alive and event.get("timeNano", 0) / 1e9 < listed:
                continue  # it is being followed from this start on
            followers.wait_for(container, 1)
            alive.add(container)
            since = f"{event.get('timeNano', 0) / 1e9:.9f}"
            followers.follow(container, name, {**query, "since": since})
        elif container in alive:
            followers.wait_for(container, _LAST_LINES)
            printer.notice(name, f"exited with code {attributes.get('exitCode', '0')}")
            if not _comes_back(session, container):
                alive.discard(container)
            if not alive:
                return


def _is_wanted(attributes: Mapping[str, str], options: Any) -> bool:
    if options.index and attributes.get(labels.NUMBER) != str(options.index):
        return False
    if attributes.get(labels.ONEOFF) == "True":
        return False
    return not options.services or attributes.get(labels.SERVICE) in options.services


def _comes_back(session: Session, container: str) -> bool:
    """Whether what has just ended is started again by the engine, or has been already."""
    try:
        state = session.docker.get(f"/containers/{container}/json")["State"]
    except ApiError:
        return False
    return bool(state.get("Restarting") or state.get("Running"))


def _moment(text: str | None) -> str | None:
    """A time as the API takes it: seconds and nanoseconds."""
    if not text:
        return None
    from dari.compose.session import UserError
    from dari.units import SECOND, parse_time

    try:
        ns = parse_time(text, time.time_ns())
    except ValueError as error:
        raise UserError(f"invalid time {text!r}: {error}") from None
    return f"{ns // SECOND}.{ns % SECOND:09d}"
