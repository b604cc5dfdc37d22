"""`dari verify`: who can reach whom and who cannot, and whether that is what was asked for."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterable
from typing import Any

from dari.cli.context import Context
from dari.cli.explain import JSON, NO_PROBE, TIMEOUT, USAGE_CODE, ask, common, shortened
from dari.cli.flags import Flag, Options, verb
from dari.cli.graph.dot import quoted

_LEAST_WIDTH = 60
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
        lines = listing(answer, width)
    if answer["Findings"]:
        lines += ["", "Findings:", *(f"  {each}" for each in answer["Findings"])]
    if answer["Differences"]:
        lines += ["", "What would bring the kernel to what was asked (dari doctor --fix):"]
        lines += [f"  {each}" for each in shortened(answer["Differences"], 50)]
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


def listing(answer: dict[str, Any], width: int = _LEAST_WIDTH) -> list[str]:
    """The same, a paragraph for all who find the same, whatever themselves aside."""
    groups: dict[tuple[frozenset[int], ...], list[int]] = {}
    for number in range(len(answer["Ends"])):
        view = _view(answer, number)
        if any(view):
            own = {at for at, service in enumerate(answer["Services"]) if service["End"] == number}
            groups.setdefault((view[0] | own, *view[1:]), []).append(number)
    lines: list[str] = []
    for (reached, refused, wrong), members in groups.items():
        lines += _filled(", ".join(answer["Ends"][each]["Name"] for each in members), "", width)
        if len(members) == 1:
            reached = _view(answer, members[0])[0]
        verb_ = "reaches" if len(members) == 1 else "each reaches"
        for mark, words, columns in (
            (_YES, verb_, reached),
            (_NO, "does not reach, as asked", refused),
            (_WRONG, "not as asked", wrong),
        ):
            if columns:
                lines += _filled(f"{mark} {words}: {', '.join(doors(answer, columns))}", "  ", width)
    return lines


def _view(answer: dict[str, Any], number: int) -> tuple[frozenset[int], ...]:
    """What an end reaches, what it does not, and what is wrong with it."""
    own = [cell for cell in answer["Cells"] if cell["From"] == number]
    return tuple(frozenset(cell["To"] for cell in own if sign(cell) == mark) for mark in (_YES, _NO, _WRONG))


def _filled(line: str, indent: str, width: int) -> list[str]:
    return textwrap.wrap(
        line,
        max(width, _LEAST_WIDTH),
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def doors(answer: dict[str, Any], columns: Iterable[int]) -> list[str]:
    """Services by who offers them, ports that follow each other as one: `web:80,8000-8010,53/udp`."""
    by_end: dict[int, list[int]] = {}
    for each in sorted(columns):
        by_end.setdefault(answer["Services"][each]["End"], []).append(each)
    found = []
    for end, own in by_end.items():
        numbered = [each for each in own if door(answer, each) != answer["Ends"][end]["Name"]]
        if len(numbered) < len(own):
            found.append(str(answer["Ends"][end]["Name"]))
        if numbered:
            found.append(f"{answer['Ends'][end]['Name']}:{','.join(_ports(answer, numbered))}")
    return found


def _ports(answer: dict[str, Any], columns: list[int]) -> list[str]:
    spans: list[tuple[str, int, int]] = []
    services = [answer["Services"][each] for each in columns]
    for protocol, port in sorted((each["Protocol"], each["Port"]) for each in services):
        if spans and (spans[-1][0], spans[-1][2] + 1) == (protocol, port):
            spans[-1] = (protocol, spans[-1][1], port)
        else:
            spans.append((protocol, port, port))
    return [
        (str(first) if first == last else f"{first}-{last}") + ("" if protocol == "tcp" else f"/{protocol}")
        for protocol, first, last in spans
    ]


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
