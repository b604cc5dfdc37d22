"""The picture as text: each network a wire from top to bottom, each sandbox a box on the wires it is on.

    ╓ back   bridge internal  172.19.0.0/16
    ║ ╓ front  bridge  172.18.0.0/16
    ║ ║  ┌──────────────────┐
    ║ ║  │ web              │
    ●─╫──┤ 172.19.0.2       │
    ║ ●──┤ 172.18.0.2       │
    ║ ║  │ 8080 → 80/tcp    │
    ║ ║  └──────────────────┘

Pure. Must not know: engines.
"""

from __future__ import annotations

from collections.abc import Iterator

from dari.cli.graph.model import Box, Graph, Wire

_PLAIN = str.maketrans(
    {
        "║": "|",
        "╓": ",",
        "●": "o",
        "─": "-",
        "╫": "+",
        "┤": "|",
        "│": "|",
        "┌": "+",
        "┐": "+",
        "└": "+",
        "┘": "+",
        "╙": "'",
        "→": ">",
        "┄": ".",
        "┆": ":",
        "·": ",",
    }
)


def drawn(graph: Graph, *, is_plain: bool = False) -> str:
    """`is_plain`: for terminals that know ASCII only."""
    text = "\n".join(line.rstrip() for line in _lines(graph))
    return text.translate(_PLAIN) if is_plain else text


def _lines(graph: Graph) -> Iterator[str]:
    columns = {wire.name: number for number, wire in enumerate(graph.wires)}
    for number, wire in enumerate(graph.wires):
        yield "║ " * number + "╓ " + _head(wire)
    if not graph.boxes:
        yield "nobody is on a network" if graph.wires else "no containers run"
        return
    rest = "║ " * len(columns)
    width = max(len(line) for box in graph.boxes for line, _ in _content(box))
    last = ""
    for box in graph.boxes:
        yield rest
        if box.project and box.project != last:
            yield f"{rest}  {box.project}"
        last = box.project
        across, down = ("─", "│") if box.is_running else ("┄", "┆")
        yield f"{rest} ┌{across * (width + 2)}┐"
        for line, network in _content(box):
            if network in columns:
                tap = _tap(columns[network], len(columns))
                yield f"{tap}─┤ {line.ljust(width)} {down}"
            else:
                yield f"{rest} {down} {line.ljust(width)} {down}"
        yield f"{rest} └{across * (width + 2)}┘"
    yield ("╙ " * len(columns)).rstrip()


def _tap(column: int, count: int) -> str:
    """A dot on one wire, and a line to the right over all others."""
    return "║ " * column + "●─" + "╫─" * (count - column - 1)


def _head(wire: Wire) -> str:
    subnets = ", ".join(
        subnet + (f" gateway {gateway}" if gateway else "") for subnet, gateway in wire.subnets
    )
    return "  ".join(each for each in (wire.name, " ".join(wire.notes), subnets) if each)


def _content(box: Box) -> Iterator[tuple[str, str]]:
    """(line, the network it taps or "")."""
    yield " + ".join(box.names) + ("" if box.is_running else "  (not running)"), ""
    for tap in box.taps:
        nothing = "the host's addresses" if tap.network == "host" else "no address"
        yield ", ".join(tap.addresses) or nothing, tap.network
    for outside, inside in box.ports:
        yield f"{outside} → {inside}" if outside else f"{inside}  not published", ""
