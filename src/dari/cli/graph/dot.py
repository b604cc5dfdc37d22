"""The picture for Graphviz: who comes from outside on the left, sandboxes in the middle, networks on the right.

Of many sandboxes lines show nothing any more: each project is a table then, and a box says in its networks' colours
where it is. Pure text in the DOT language (https://graphviz.org/doc/info/lang.html); whoever has `dot` can draw it.
Must not know: engines.
"""

from __future__ import annotations

from collections.abc import Iterator

from dari.cli.graph.model import Box, Graph, Wire

# One colour a network, so that its lines can be followed; from ColorBrewer's "Dark2".
_COLOURS = ("#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#a6761d", "#3b6fb6", "#666666")
_SHORT = "#f7f7f5"

_MOST_WITH_LINES = 24
_MOST_COLUMNS = 6


def dot(graph: Graph) -> str:
    lines = _lines if len(graph.boxes) <= _MOST_WITH_LINES else _table_lines
    return "\n".join(lines(graph)) + "\n"


def _table_lines(graph: Graph) -> Iterator[str]:
    """Networks above, below them a table for each project."""
    colours = _colours(graph)
    yield "digraph networks {"
    yield "  graph [rankdir=TB, ranksep=0.3, nodesep=0.3, pad=0.3, fontname=Helvetica];"
    yield "  node [fontname=Helvetica, fontsize=11, shape=plain];"
    yield "  edge [style=invis];"
    clouds = [f"<td>{_cloud(wire, colours[wire.name])}</td>" for wire in graph.wires]
    if clouds:
        rows = "".join(f"<tr>{''.join(row)}</tr>" for row in _rows(clouds, _MOST_COLUMNS))
        yield f"  networks [label=<<table border='0' cellborder='0' cellspacing='6'>{rows}</table>>];"
    above = "networks" if clouds else ""
    for index, (project, members) in enumerate(_by_project(graph).items()):
        yield f"  project{index} [label=<{_project_table(project, [box for _, box in members], colours)}>];"
        if above:
            yield f"  {above} -> project{index};"
        above = f"project{index}"
    yield "}"


def _project_table(project: str, boxes: list[Box], colours: dict[str, str]) -> str:
    columns = min(_MOST_COLUMNS, len(boxes))
    cells = [f"<td valign='top'>{_table(box, colours)}</td>" for box in boxes]
    rows = [f"<tr>{''.join(row)}</tr>" for row in _rows(cells, columns)]
    if project:
        title = f"<td align='left' colspan='{columns}'><font point-size='12'>{_escaped(project)}</font></td>"
        rows.insert(0, f"<tr>{title}</tr>")
    head = f"<table border='1' cellborder='0' cellspacing='6' style='rounded' color='#cccccc' bgcolor='{_SHORT}'>"
    return f"{head}{''.join(rows)}</table>"


def _rows(cells: list[str], columns: int) -> Iterator[list[str]]:
    for start in range(0, len(cells), columns):
        yield cells[start : start + columns]


def _colours(graph: Graph) -> dict[str, str]:
    return {wire.name: _COLOURS[number % len(_COLOURS)] for number, wire in enumerate(graph.wires)}


def _by_project(graph: Graph) -> dict[str, list[tuple[int, Box]]]:
    projects: dict[str, list[tuple[int, Box]]] = {}
    for number, box in enumerate(graph.boxes):
        projects.setdefault(box.project, []).append((number, box))
    return projects


def _lines(graph: Graph) -> Iterator[str]:
    colours = _colours(graph)
    yield "digraph networks {"
    yield "  graph [rankdir=LR, ranksep=1.1, nodesep=0.3, pad=0.3, fontname=Helvetica, compound=true];"
    yield "  node [fontname=Helvetica, fontsize=11, shape=plain];"
    yield "  edge [fontname=Helvetica, fontsize=9, arrowsize=0.7];"
    published = [(number, box) for number, box in enumerate(graph.boxes) if _published(box)]
    if published:
        yield '  outside [shape=cds, style=filled, fillcolor="#eeeeee", color="#888888", label="outside"];'
    for index, (project, members) in enumerate(_by_project(graph).items()):
        if project:
            yield f"  subgraph cluster_{index} {{"
            yield f'    label={quoted(project)}; labeljust=l; style="rounded,filled"; color="#cccccc";'
            yield f'    fillcolor="{_SHORT}"; fontsize=12; margin=14;'
        for number, box in members:
            yield f"    box{number} [label=<{_table(box)}>];"
        if project:
            yield "  }"
    names = {wire.name: f"net{number}" for number, wire in enumerate(graph.wires)}
    for wire in graph.wires:
        yield f"  {names[wire.name]} [label=<{_cloud(wire, colours[wire.name])}>];"
    if names:
        yield f"  {{ rank=sink; {'; '.join(names.values())}; }}"
    for number, box in enumerate(graph.boxes):
        if published and not _published(box):
            # All boxes stand in one column.
            yield f"  outside -> box{number} [style=invis];"
        for tap in box.taps:
            if tap.network in names:
                label = quoted("\n".join(tap.addresses))
                yield (
                    f'  box{number} -> {names[tap.network]} [dir=none, penwidth=2, color="{colours[tap.network]}", '
                    f'label={label}, fontcolor="{colours[tap.network]}"];'
                )
    for number, box in published:
        label = quoted("\n".join(f"{outside} → {inside}" for outside, inside in _published(box)))
        yield f'  outside -> box{number} [label={label}, color="#888888"];'
    yield "}"


def _published(box: Box) -> list[tuple[str, str]]:
    return [port for port in box.ports if port[0]]


def _table(box: Box, colours: dict[str, str] | None = None) -> str:
    """With `colours` of networks it says where the box is and what it publishes, which lines say otherwise."""
    colour, ground = ("#333333", "#ffffff") if box.is_running else ("#aaaaaa", "#f0f0f0")
    rows = [f"<tr><td align='left'><b>{_escaped(name)}</b></td></tr>" for name in box.names]
    inside = [port for outside, port in box.ports if not outside]
    if inside:
        text = _escaped(", ".join(inside))
        rows.append(f"<tr><td align='left'><font point-size='9' color='#777777'>{text}</font></td></tr>")
    if colours is not None:
        for outside, port in _published(box):
            rows.append(
                f"<tr><td align='left'><font point-size='9'>{_escaped(f'{outside} → {port}')}</font></td></tr>"
            )
        for tap in box.taps:
            text = _escaped(" ".join((tap.network, *tap.addresses)))
            ground_of = colours.get(tap.network, "#888888")
            inner = f"<font point-size='9' color='#ffffff'>{text}</font>"
            rows.append(f"<tr><td align='left' bgcolor='{ground_of}'>{inner}</td></tr>")
    if not box.is_running:
        rows.append("<tr><td align='left'><font point-size='9' color='#777777'>not running</font></td></tr>")
    head = f"<table border='1' cellborder='0' cellpadding='4' style='rounded' color='{colour}' bgcolor='{ground}'>"
    return f"{head}{''.join(rows)}</table>"


def _cloud(wire: Wire, colour: str) -> str:
    rows = [f"<tr><td><font color='#ffffff'><b>{_escaped(wire.name)}</b></font></td></tr>"]
    for text in (" ".join(wire.notes), *(subnet for subnet, _ in wire.subnets)):
        if text:
            rows.append(f"<tr><td><font color='#ffffff' point-size='9'>{_escaped(text)}</font></td></tr>")
    head = f"<table border='0' cellborder='0' cellpadding='3' style='rounded' bgcolor='{colour}'>"
    return f"{head}{''.join(rows)}</table>"


def _escaped(text: str) -> str:
    plain = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")
    # An element of blanks alone is no label to dot.
    return plain if plain.strip() else "&#160;"


def quoted(text: str) -> str:
    """A text as a string of the language."""
    inner = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{inner}"'
