"""`dari verify`: who can reach whom and who cannot, and whether that is what was asked for."""

from __future__ import annotations

import json
import shutil
from typing import Any

from dari.cli.context import Context
from dari.cli.explain import JSON, NO_PROBE, TIMEOUT, USAGE_CODE, ask, common
from dari.cli.flags import Flag, Options, verb
from dari.cli.graph.dot import quoted

_YES, _NO, _WRONG, _SELF = "✓", "·", "✗", ""


@verb(
    "verify",
    "[OPTIONS] [PROJECT]",
    "Prove who can reach whom, of a Compose project or of all that runs (exit status 0: as asked, 1: not, 2: the "
    "question is wrong)",
    JSON,
    NO_PROBE,
    TIMEOUT,
    Flag("svg", "text", "Write a picture to this file (needs Graphviz)"),
    most=1,
    usage_code=USAGE_CODE,
)
def verify(context: Context, options: Options) -> int:
    project = options.arguments[0] if options.arguments else ""
    answer = ask(context, "/dari/v1/verify", {"Project": project, **common(options)})
    if options.text("svg"):
        from dari.cli.graph.picture import write

        write(dot(answer), "svg", options.text("svg"), USAGE_CODE)
    if options.on("json"):
        context.say(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        context.say("\n".join(text(answer, shutil.get_terminal_size((120, 24)).columns)))
    return 0 if answer["IsAsAsked"] else 1


def text(answer: dict[str, Any], width: int) -> list[str]:
    """The matrix, or a list where it is too wide; the findings; one line of summary."""
    lines = matrix(answer)
    if any(len(line) > width for line in lines):
        lines = listing(answer)
    if answer["Findings"]:
        lines += ["", "Findings:", *(f"  {each}" for each in answer["Findings"])]
    if answer["Differences"]:
        lines += ["", "What would bring the kernel to what was asked (dari doctor --fix):"]
        lines += [f"  {each}" for each in answer["Differences"]]
    if answer["Untraced"]:
        lines += ["", f"Packets were not traced: {answer['Untraced']}"]
    how = f"{answer['Probes']} packets" if answer["Probes"] else "no packets sent"
    said = "as asked" if answer["IsAsAsked"] else "NOT as asked"
    return [*lines, "", f"{len(answer['Cells'])} pairs, {how}, {answer['Seconds']:.1f} s: {said}"]


def door(answer: dict[str, Any], number: int) -> str:
    """A service as a column's head: `db:5432`, `dns:53/udp`, `web` (by ping)."""
    service = answer["Services"][number]
    name = answer["Ends"][service["End"]]["Name"]
    if not service["Port"] or answer["Ends"][service["End"]]["Kind"] == "outside":
        return str(name)
    kind = "" if service["Protocol"] == "tcp" else f"/{service['Protocol']}"
    return f"{name}:{service['Port']}{kind}"


def sign(cell: dict[str, Any]) -> str:
    if not cell["IsAsAsked"]:
        return _WRONG
    return _YES if cell["IsReachable"] else _NO


def matrix(answer: dict[str, Any]) -> list[str]:
    """Rows ask, columns are asked."""
    columns = sorted({cell["To"] for cell in answer["Cells"]})
    rows = sorted({cell["From"] for cell in answer["Cells"]})
    if not rows:
        return ["Nobody runs who could be asked."]
    cells = {(cell["From"], cell["To"]): sign(cell) for cell in answer["Cells"]}
    heads = [door(answer, each) for each in columns]
    first = max(len("FROM"), *(len(answer["Ends"][each]["Name"]) for each in rows))
    lines = ["  ".join([f"{'FROM':<{first}}", *heads])]
    for row in rows:
        marks = [
            f"{cells.get((row, column), _SELF):<{len(head)}}"
            for column, head in zip(columns, heads, strict=True)
        ]
        lines.append("  ".join([f"{answer['Ends'][row]['Name']:<{first}}", *marks]).rstrip())
    return [*lines, "", f"{_YES} reaches  {_NO} does not, as asked  {_WRONG} not as asked"]


def listing(answer: dict[str, Any]) -> list[str]:
    """The same, a paragraph for each who asks."""
    lines: list[str] = []
    for number, end in enumerate(answer["Ends"]):
        own = [cell for cell in answer["Cells"] if cell["From"] == number]
        if not own:
            continue
        lines.append(end["Name"])
        for mark, words in ((_YES, "reaches"), (_NO, "does not reach, as asked"), (_WRONG, "not as asked")):
            doors = [door(answer, cell["To"]) for cell in own if sign(cell) == mark]
            if doors:
                lines.append(f"  {mark} {words}: {', '.join(doors)}")
    return lines


# The picture


def dot(answer: dict[str, Any]) -> str:
    """The graph's text: an arrow for each pair that reaches, a red one where it is not as asked."""
    lines = ["digraph verify {", '  rankdir=LR; node [shape=box, style=rounded, fontname="sans-serif"];']
    lines.append('  edge [fontname="sans-serif", fontsize=10];')
    shown = {cell["From"] for cell in answer["Cells"]}
    shown |= {answer["Services"][cell["To"]]["End"] for cell in answer["Cells"]}
    for number in sorted(shown):
        end = answer["Ends"][number]
        label = end["Name"] + (f"\n{end['Address']}" if end["Address"] else "")
        lines.append(f"  n{number} [label={quoted(label)}];")
    arrows: dict[tuple[int, int, bool], list[str]] = {}
    for cell in answer["Cells"]:
        if cell["IsAsAsked"] and not cell["IsReachable"]:
            continue
        service = answer["Services"][cell["To"]]
        label = f"{service['Port']}/{service['Protocol']}" if service["Port"] else service["Protocol"]
        arrows.setdefault((cell["From"], service["End"], cell["IsAsAsked"]), []).append(label)
    for (source, target, is_as_asked), labels in sorted(arrows.items()):
        color = "#2a7a3b" if is_as_asked else "#c0182b"
        style = "" if is_as_asked else ", style=dashed, penwidth=2"
        label = quoted(", ".join(labels))
        lines.append(f'  n{source} -> n{target} [label={label}, color="{color}"{style}];')
    return "\n".join([*lines, "}", ""])
