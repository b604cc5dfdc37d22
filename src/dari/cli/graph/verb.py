"""The verb: asks the engine for its lists, prints the drawing, or has Graphviz write a file."""

from __future__ import annotations

import sys

from dari.cli.context import Context, Failed
from dari.cli.flags import Flag, Options, UsageError, verb
from dari.cli.graph.dot import dot
from dari.cli.graph.drawing import drawn
from dari.cli.graph.model import graph
from dari.cli.graph.picture import write

_FORMATS = ("svg", "png")


@verb(
    "network graph",
    "[OPTIONS] [PROJECT]",
    "Draw the networks, who is on them, addresses and published ports, of one project or all",
    Flag("all", "bool", "Show containers that do not run and networks nobody is on, too", "a"),
    Flag("dot", "bool", "Print it in Graphviz's language"),
    Flag("png", "text", "Write a PNG picture to this file (needs Graphviz)"),
    Flag("svg", "text", "Write an SVG picture to this file (needs Graphviz)"),
    most=1,
)
def show(context: Context, options: Options) -> int:
    project = options.arguments[0] if options.arguments else ""
    files = [(name, options.text(name)) for name in _FORMATS if options.text(name)]
    if options.on("dot") and files:
        raise UsageError("--dot prints, --svg and --png write files: give one of them")
    networks = context.docker.get("/networks")
    containers = context.docker.get("/containers/json", all=True)
    found = graph(networks, containers, project=project, is_everything=options.on("all"))
    if project and not found.boxes:
        raise Failed(f"project {project} has no containers" + ("" if options.on("all") else " that run"))
    for kind, path in files:
        write(dot(found), kind, path)
    if options.on("dot"):
        context.say(dot(found).rstrip())
    elif not files:
        context.say(drawn(found, is_plain="utf" not in (sys.stdout.encoding or "").lower()))
    return 0
