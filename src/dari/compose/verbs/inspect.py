"""`port`, `top`, `ls`, `events`, `version`, `volumes`: looking without touching."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from dari.compose import labels, tables
from dari.compose.session import Session, UserError
from dari.compose.verbs.exec import one_container
from dari.units import format_time


def port(session: Session, options: Any) -> int:
    """`port SERVICE PRIVATE_PORT`: the public address."""
    number, _, protocol = options.private_port.partition("/")
    protocol = protocol or options.protocol
    if not number.isdigit():
        raise UserError(f"invalid port {options.private_port!r}")
    container = one_container(session, options.service, options.index)
    for entry in container.ports:
        if (
            entry.get("PrivatePort") == int(number)
            and entry.get("Type") == protocol
            and entry.get("PublicPort")
        ):
            address = entry.get("IP") or "0.0.0.0"
            session.say(
                f"[{address}]:{entry['PublicPort']}" if ":" in address else f"{address}:{entry['PublicPort']}"
            )
            return 0
    known = ", ".join(f"{one.get('PrivatePort')}/{one.get('Type')}" for one in container.ports)
    raise UserError(f"no port {number}/{protocol} for container {container.name}: {known}")


def top(session: Session, options: Any) -> int:
    titles = {"SERVICE": None, "#": None}
    entries: list[dict[str, str]] = []
    for one in session.containers(options.services, all=False):
        found = session.docker.get(f"/containers/{one.id}/top")
        titles.update(dict.fromkeys(found["Titles"]))
        for row in found.get("Processes") or []:
            cells = dict(zip(found["Titles"], map(str, row), strict=False))
            entries.append({"SERVICE": one.service, "#": str(one.number), **cells})
    if entries:
        rows = [[entry.get(title, "-") for title in titles] for entry in entries]
        session.say(tables.table(list(titles), rows, least=4, between=2))
    return 0


def ls(session: Session, options: Any) -> int:
    """`ls`: the projects of an engine, from the labels of its containers."""
    found: dict[str, dict[str, Any]] = {}
    wanted = [text.partition("=")[2] for text in options.filter if text.startswith("name=")]
    for text in options.filter:
        key, separator, _ = text.partition("=")
        if not separator:
            raise UserError(
                f'invalid argument "{text}" for "--filter" flag: bad format of filter (expected name=value)'
            )
        if key != "name":
            raise UserError(f"invalid filter '{key}'")
    if options.format not in (None, "", "table", "json"):
        raise UserError(f'format value "{options.format}" could not be parsed: parsing failed')
    for entry in (
        session.docker.get("/containers/json", all=options.all, filters={"label": [labels.PROJECT]}) or []
    ):
        own = entry.get("Labels") or {}
        name = own.get(labels.PROJECT, "")
        if own.get(labels.ONEOFF) == "True" or (wanted and not any(text in name for text in wanted)):
            continue
        project = found.setdefault(name, {"states": {}, "files": own.get(labels.CONFIG_FILES, "N/A")})
        state = entry.get("State", "")
        project["states"][state] = project["states"].get(state, 0) + 1
    rows = [
        (name, ", ".join(f"{state}({count})" for state, count in sorted(one["states"].items())), one["files"])
        for name, one in sorted(found.items())
    ]
    if options.quiet:
        for row in rows:
            session.say(row[0])
    elif options.format == "json":
        entries = [dict(zip(("Name", "Status", "ConfigFiles"), row, strict=True)) for row in rows]
        session.say(json.dumps(entries, separators=(",", ":"), ensure_ascii=False))
    else:
        session.say(tables.table(("NAME", "STATUS", "CONFIG FILES"), rows, least=20))
    return 0


def events(session: Session, options: Any) -> int:
    """`events`: what happens to the project's containers, until interrupted."""
    session.project_or_none(options.services)
    filters = {"type": ["container"], "label": [f"{labels.PROJECT}={session.name()}"]}
    for event in session.docker.stream_json(
        "GET", "/events", filters=filters, since=options.since, until=options.until, raise_errors=False
    ):
        actor = event.get("Actor") or {}
        attributes = actor.get("Attributes") or {}
        service = attributes.get(labels.SERVICE, "")
        if options.services and service not in options.services:
            continue
        moment = event.get("timeNano", 0)
        kept = {
            key: value
            for key, value in attributes.items()
            if not key.startswith(("com.docker.compose.", "dari.compose."))
        }
        stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(moment // 10**9))}.{moment % 10**9 // 1000:06d}"
        if options.json:
            record = {
                "time": format_time(moment),
                "type": "container",
                "service": service,
                "id": actor.get("ID", ""),
                "action": event.get("Action", ""),
                "attributes": kept,
            }
            session.say(json.dumps(record))
        else:
            more = ", ".join(f"{key}={value}" for key, value in sorted(kept.items()))
            session.say(f"{stamp} container {event.get('Action', '')} {actor.get('ID', '')} ({more})")
    return 0


def version(session: Session, options: Any) -> int:
    from dari import __version__

    if options.short:
        session.say(__version__)
    elif options.format == "json":
        session.say(json.dumps({"version": f"v{__version__}"}))
    else:
        session.say(f"Docker Compose version v{__version__} (dari)")
    return 0


def volumes(session: Session, options: Any) -> int:
    """`volumes`: the project's volumes, those the named services use if any are named."""
    found = session.docker.get("/volumes", filters=labels.project_filter(session.name())) or {}
    entries = sorted(found.get("Volumes") or [], key=lambda one: one["Name"])
    if options.services:
        project = session.project_or_none()
        for name in options.services:
            if project and name not in project.services:
                raise UserError(f"no such service: {name}")
        containers = session.containers(options.services)
        names = {mount.get("Name") for one in containers for mount in one.mounts}
        entries = [one for one in entries if one["Name"] in names]
    if options.quiet:
        for one in entries:
            session.say(one["Name"])
    elif options.format in (None, "", "table"):
        rows = [(one.get("Driver", ""), one["Name"]) for one in entries]
        session.say(tables.table(("DRIVER", "VOLUME NAME"), rows))
    else:
        records = [_volume(one) for one in entries]
        if options.format == "json":
            for record in records:
                session.say(json.dumps(record, separators=(",", ":"), ensure_ascii=False))
        else:
            session.say(session.template(options.format, {"Name": "VOLUME NAME"}, records))
    return 0


def _volume(entry: Mapping[str, Any]) -> dict[str, str]:
    found = entry.get("Labels") or {}
    return {
        "Availability": "N/A",
        "Driver": entry.get("Driver", ""),
        "Group": "N/A",
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(found.items())),
        "Links": "N/A",
        "Mountpoint": entry.get("Mountpoint", ""),
        "Name": entry["Name"],
        "Scope": entry.get("Scope", "local"),
        "Size": "N/A",
        "Status": "N/A",
    }
