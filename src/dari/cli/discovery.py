"""Verbs on members of services: register, deregister, lookup, services."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from dari.cli.context import Context
from dari.cli.flags import Flag, Options, UsageError, verb
from dari.cli.listing import FORMAT, show
from dari.cli.table import table

T = TypeVar("T")

_COLUMNS = ["SERVICE", "ADDRESS", "PORTS", "HEALTH", "SOURCE", "NETWORK", "TAGS"]


@verb(
    "register",
    "[OPTIONS] NAME",
    "Make something that is no container a member of a service",
    Flag("address", "text", "Where it is: ADDRESS or ADDRESS:PORT"),
    Flag(
        "check",
        "list",
        "How it is: tcp[:HOST:PORT], http[:URL], command:WORDS or ttl:TIME, then ,interval=10s",
    ),
    Flag("id", "text", "Its id, to change what is registered (default: a new one)"),
    Flag("meta", "list", "What else is to be known of it: KEY=VALUE"),
    Flag("tag", "list", "A word to find it by"),
    Flag("udp", "bool", "Its port is a UDP port"),
    Flag("weight", "int", "How often it is named first, beside the others' weights (default 1)"),
    least=1,
    most=1,
)
def register(context: Context, options: Options) -> int:
    from dari.compose.load.members import parse_check, split_address

    if not options.text("address"):
        raise UsageError("--address is needed: where the member is, ADDRESS or ADDRESS:PORT")
    address, port = _parsed(split_address, str(options.text("address")))
    pairs = [each.partition("=") for each in options.texts("meta")]
    body = {
        "ID": options.text("id") or "",
        "Name": options.arguments[0],
        "Address": address,
        "Port": port,
        "Protocol": "udp" if options.on("udp") else "tcp",
        **({"Weight": int(weight)} if (weight := options.text("weight")) else {}),
        "Tags": options.texts("tag"),
        "Meta": {key: value for key, _, value in pairs},
        "Checks": [_parsed(parse_check, each) for each in options.texts("check")],
    }
    context.say(context.docker.post("/dari/v1/registrations", body)["ID"])
    return 0


def _parsed(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


@verb("deregister", "ID|NAME [ID|NAME...]", "End a registration", least=1)
def deregister(context: Context, options: Options) -> int:
    return context.each(options.arguments, lambda ref: context.docker.delete(f"/dari/v1/registrations/{ref}"))


@verb(
    "lookup",
    "[OPTIONS] NAME",
    "Tell who is a member of a service; exit status 1 if nobody is",
    Flag("healthy", "bool", "Leave out members that are critical while there are others"),
    Flag("json", "bool", "As JSON, one line for each change with --watch"),
    Flag("tag", "text", "Only members with this tag"),
    Flag("watch", "bool", "Tell it again whenever it changes", "w"),
    least=1,
    most=1,
)
def lookup(context: Context, options: Options) -> int:
    path = f"/dari/v1/services/{options.arguments[0]}"
    query: dict[str, Any] = {
        "healthy": int(options.on("healthy")) or None,
        "tag": options.text("tag") or None,
    }
    if options.on("watch"):
        from dari.client.discovery import json_lines

        for now in json_lines(context.docker.stream("GET", path, watch=1, **query)):
            _tell(context, options, now)
        return 0
    found = context.docker.get(path, **query)
    _tell(context, options, found)
    return 0 if found else 1


def _tell(context: Context, options: Options, found: list[dict[str, Any]]) -> None:
    if options.on("json"):
        context.say(json.dumps(found, ensure_ascii=False))
        return
    context.say(table(_COLUMNS, [_row(each) for each in found]))


def _row(item: dict[str, Any]) -> list[str]:
    ports = ", ".join(f"{each['Port']}/{each['Protocol']}" for each in item["Ports"])
    health = item["Health"] + (f" ({item['Output']})" if item.get("Output") else "")
    return [
        item["Service"],
        item["Address"],
        ports,
        health,
        item["Source"],
        item["Network"],
        ",".join(item["Tags"]),
    ]


@verb("services", "[OPTIONS]", "List services and how their members are", FORMAT, most=0)
def services(context: Context, options: Options) -> int:
    rows = []
    for service in context.docker.get("/dari/v1/services"):
        members = service["Instances"]
        rows.append(
            {
                "Name": service["Name"],
                "Members": str(len(members)),
                "Passing": str(sum(each["Health"] == "passing" for each in members)),
                "Critical": str(sum(each["Health"] == "critical" for each in members)),
                "Addresses": ", ".join(dict.fromkeys(each["Address"] for each in members)),
            }
        )
    columns = {
        "SERVICE": "Name",
        "MEMBERS": "Members",
        "PASSING": "Passing",
        "CRITICAL": "Critical",
        "ADDRESSES": "Addresses",
    }
    return show(context, options, columns, rows)
