"""Verbs on names: what dari-dns is asked as it happens, and its counters."""

from __future__ import annotations

import json
from typing import Any

from dari.cli.context import Context
from dari.cli.flags import Flag, Options, verb
from dari.cli.table import table


@verb(
    "dns log",
    "[OPTIONS] [CONTAINER]",
    'Show what containers ask, as they ask it ("host": what the host asks)',
    Flag("count", "int", "End after so many questions"),
    Flag(
        "follow", "bool", "Go on until interrupted (it always does: nothing is kept to be shown later)", "f"
    ),
    Flag("json", "bool", "As JSON, one line a question"),
    most=1,
)
def log(context: Context, options: Options) -> int:
    from dari.client.discovery import json_lines

    left = int(options.text("count") or 0)
    one = options.arguments[0] if options.arguments else None
    for line in json_lines(context.docker.stream("GET", "/dari/v1/dns/log", container=one)):
        context.say(json.dumps(line, ensure_ascii=False) if options.on("json") else _text(line))
        left -= 1
        if left == 0:
            break
    return 0


def _text(line: dict[str, Any]) -> str:
    told = ", ".join(line["Addresses"]) or line["Answer"] or "(no answer)"
    how = " over tcp" if line["Transport"] == "tcp" else ""
    by = " by an upstream" if line["By"] == "upstream" else ""
    missed = f"  ({line['Missed']} questions before this one were missed)" if line["Missed"] else ""
    text = f"{line['Time']} {line['Container']}: {line['Name']} {line['Type']}{how} -> {told}{by}"
    return f"{text}, {line['Microseconds']} µs{missed}"


@verb(
    "dns stats",
    "[OPTIONS]",
    "Show what dari-dns has counted since it started",
    Flag("json", "bool", "As JSON"),
    most=0,
)
def stats(context: Context, options: Options) -> int:
    found = context.docker.get("/dari/v1/dns/stats")
    if options.on("json"):
        context.say(json.dumps(found, ensure_ascii=False))
        return 0
    context.say(
        f"{found['Queries']} questions, {found['OverTCP']} of them over TCP; {found['Made']} answers were not ready, "
        f"{found['Forwarded']} questions went to upstreams"
    )
    asked = [[name, str(count)] for name, count in found["Containers"].items()]
    context.say(table(["CONTAINER", "QUESTIONS"], asked))
    if found["Upstreams"]:
        rows = [
            [
                name,
                str(each["Asked"]),
                str(each["Answered"]),
                str(each["Failed"]),
                f"{each['Milliseconds']:g} ms",
            ]
            for name, each in found["Upstreams"].items()
        ]
        context.say(table(["UPSTREAM", "ASKED", "ANSWERED", "FAILED", "MEAN"], rows))
    return 0
