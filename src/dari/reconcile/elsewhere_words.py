"""What another node answered as this node tells it: every place with the name of the node it is on. Pure.

Must not know: how the answer came.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from dari.model.explain import End, Explanation, HopLine, PassedLine, ProbeLine, StepLine, Walk

_Line = TypeVar("_Line", HopLine, StepLine, PassedLine)


def told_by(told: Explanation, node: str, address: str) -> Explanation:
    """`node` and `address`: of the node that answered."""
    advice = told.advice
    if "dari " in advice and "on node " not in advice:
        advice += f", on node {node}"
    text = told.text.replace("the host", f"node {node}")
    return msgspec.structs.replace(
        told,
        source=_end(told.source, node),
        target=_end(told.target, node),
        text=text,
        advice=advice,
        names=[_hop(each, node) for each in told.names],
        wanted=_walk(told.wanted, node),
        found=_walk(told.found, node),
        probe=_probe(told.probe, node) if told.probe is not None else None,
        asked_node=f"{node} ({address})",
    )


def _end(end: End, node: str) -> End:
    if end.kind not in ("container", "host", "outside"):
        return end
    return msgspec.structs.replace(end, name=f"{end.name}@{node}")


def _placed(line: _Line, node: str) -> _Line:
    return line if "@" in line.where else msgspec.structs.replace(line, where=f"{line.where}@{node}")


def _hop(hop: HopLine, node: str) -> HopLine:
    return msgspec.structs.replace(_placed(hop, node), text=hop.text.replace("the host", f"node {node}"))


def _walk(walk: Walk, node: str) -> Walk:
    return msgspec.structs.replace(walk, hops=[_hop(each, node) for each in walk.hops])


def _probe(probe: ProbeLine, node: str) -> ProbeLine:
    return msgspec.structs.replace(
        probe,
        steps=[_placed(each, node) for each in probe.steps],
        caught=_placed(probe.caught, node) if probe.caught is not None else None,
        passed=[_placed(each, node) for each in probe.passed],
    )
