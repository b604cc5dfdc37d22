"""`ps`: the project's containers."""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any

from dari.compose import tables
from dari.compose.observed import ObservedContainer
from dari.compose.session import Session, UserError
from dari.compose.waiting import exit_code

_HEADERS = ("NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS")
_TITLES = {"ID": "CONTAINER ID", "RunningFor": "CREATED", "CreatedAt": "CREATED AT"}


def ps(session: Session, options: Any) -> int:
    states = list(options.status)
    for text in options.filter:
        key, separator, value = text.partition("=")
        if not separator:
            raise UserError("arguments to --filter should be in form KEY=VAL")
        if key == "source":
            raise UserError("not implemented")
        if key != "status":
            raise UserError(f"unknown filter {key}")
        states.append(value)
    found = [
        one
        for one in session.containers(options.services, all=options.all or bool(states))
        if options.all or not one.is_oneoff or one.is_running
    ]
    if states:
        found = [one for one in found if one.state in states]
    if not options.orphans:
        project = session.project_or_none()
        if project:
            known = {*project.services, *project.disabled}
            found = [one for one in found if one.service in known]
    form = options.format or _users_format(session)
    if options.quiet:
        for one in found:
            session.say(one.id)
    elif options.show_services:
        for name in dict.fromkeys(one.service for one in found):
            session.say(name)
    elif form == "json":
        for one in found:
            session.say(json.dumps(entry(one, session.name()), separators=(",", ":"), ensure_ascii=False))
    elif form in ("", "table"):
        session.say(tables.table(_HEADERS, [_row(one, options.no_trunc) for one in found]))
    else:
        rows = [entry(one, session.name()) for one in found]
        text = session.template(form, _TITLES, rows)
        if text:
            session.say(text)
    return 0


def _users_format(session: Session) -> str:
    """What the client's configuration file says `ps` prints; "" when it does not."""
    folder = session.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    try:
        known = json.loads(session.read_file(os.path.join(folder, "config.json")))
        return str(known.get("psFormat") or "")
    except (OSError, ValueError, AttributeError):
        return ""


def _row(one: ObservedContainer, is_whole: bool) -> tuple[str, ...]:
    command = f'"{one.command}"' if is_whole else f'"{tables.shorten(one.command, 20)}"'
    return (
        one.name,
        one.image,
        command,
        one.service,
        tables.ago(time.time() - one.created),
        one.status,
        tables.ports(one.ports),
    )


def entry(one: ObservedContainer, project: str) -> dict[str, Any]:
    """A container as `--format json` shows it."""
    health = re.search(r"\((?:health: )?(healthy|unhealthy|starting)\)", one.status)
    mounts = [mount.get("Name") or mount.get("Source", "") for mount in one.mounts]
    return {
        "Command": f'"{tables.shorten(one.command, 20)}"',
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(one.created)),
        "ExitCode": exit_code(one.status) if one.state == "exited" else 0,
        "Health": health.group(1) if health else "",
        "ID": one.id[:12],
        "Image": one.image,
        "Labels": ",".join(f"{key}={value}" for key, value in one.labels.items()),
        "LocalVolumes": str(sum(mount.get("Driver") == "local" for mount in one.mounts)),
        "Mounts": ",".join(mounts),
        "Name": one.name,
        "Names": one.name,
        "Networks": ",".join(one.networks),
        "Ports": tables.ports(one.ports),
        "Project": project,
        "Publishers": [
            {
                "URL": port.get("IP", ""),
                "TargetPort": port.get("PrivatePort", 0),
                "PublishedPort": port.get("PublicPort", 0),
                "Protocol": port.get("Type", "tcp"),
            }
            for port in one.ports
        ],
        "RunningFor": tables.ago(time.time() - one.created),
        "Service": one.service,
        "Size": "0B",
        "State": one.state,
        "Status": one.status,
    }
