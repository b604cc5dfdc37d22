"""The verb: asks the engine for its lists, prints the drawing, or has Graphviz write a file."""

from __future__ import annotations

import sys

from dari.cli.context import Context, Failed
from dari.cli.flags import Flag, Options, UsageError, verb
from dari.cli.graph.dot import dot
from dari.cli.graph.drawing import drawn
from dari.cli.graph.model import Graph, graph

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
        _write(found, kind, path)
    if options.on("dot"):
        context.say(dot(found).rstrip())
    elif not files:
        context.say(drawn(found, is_plain="utf" not in (sys.stdout.encoding or "").lower()))
    return 0


def _write(found: Graph, kind: str, path: str) -> None:
    import shutil
    import subprocess

    program = shutil.which("dot")
    if program is None:
        raise Failed(
            f"{path}: Graphviz draws pictures and is not installed (Debian: apt install graphviz); "
            "without a file the drawing is printed, with --dot its source"
        )
    done = subprocess.run(
        [program, f"-T{kind}", "-o", path], input=dot(found).encode(), capture_output=True, check=False
    )
    if done.returncode:
        raise Failed(f"{path}: {done.stderr.decode(errors='replace').strip() or 'dot failed'}")
