"""`logs`: what the containers said, and say."""

from __future__ import annotations

from typing import Any

from dari.compose.logs import Followers, Printer, short_name, stream
from dari.compose.session import Session


def logs(session: Session, options: Any) -> int:
    containers = [one for one in session.containers(options.services) if not one.is_oneoff]
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
    followers.join()
    for text in followers.errors:
        session.complain(text)
    return 1 if followers.errors else 0


def _moment(text: str | None) -> str | None:
    """A time as the API takes it: seconds and nanoseconds."""
    if not text:
        return None
    import time

    from dari.compose.session import UserError
    from dari.units import SECOND, parse_time

    try:
        ns = parse_time(text, time.time_ns())
    except ValueError as error:
        raise UserError(f"invalid time {text!r}: {error}") from None
    return f"{ns // SECOND}.{ns % SECOND:09d}"
