"""Walks, steps and packets as they are told: from the rooms' own nouns to those of the answer.

Must not know: how anything was found out.
"""

from __future__ import annotations

from dari.kernel.probed import ProbeResult, Step
from dari.model import explain as nouns
from dari.net.packet import Hop, Trace
from dari.net.state import HOST
from dari.reconcile import conclude


def named(text: str, names: dict[str, str]) -> str:
    """Namespaces by their containers' names."""
    for netns, name in names.items():
        if netns in text:
            text = text.replace(netns, name)
    return text


def hop_line(hop: Hop, names: dict[str, str]) -> nouns.HopLine:
    return nouns.HopLine(
        stage=hop.stage,
        where=where(hop.where, names),
        text=named(hop.text, names),
        is_ok=hop.is_ok,
        object=list(hop.key) if hop.key is not None else [],
        cause=hop.cause,
        is_answer=hop.is_answer,
        is_beyond=hop.is_beyond,
    )


def where(netns: str, names: dict[str, str]) -> str:
    """A namespace as it is told."""
    return "host" if netns == HOST else names.get(netns, netns)


def walk_lines(trace: Trace, names: dict[str, str]) -> nouns.Walk:
    at = next((index for index, each in enumerate(trace.hops) if each is trace.decided_by), -1)
    hops = [hop_line(each, names) for each in trace.hops]
    return nouns.Walk(verdict=trace.verdict, hops=hops, decided_by=at)


def step_line(step: Step, names: dict[str, str]) -> nouns.StepLine:
    return nouns.StepLine(
        where=where(step.netns, names),
        is_answer=step.is_answer,
        family=step.family,
        table=step.table,
        chain=step.chain,
        rule=step.rule,
        handle=step.handle,
        comment=step.comment,
        verdict=step.verdict,
    )


def probe_line(result: ProbeResult, names: dict[str, str]) -> nouns.ProbeLine:
    return nouns.ProbeLine(
        outcome=result.outcome,
        verdict=conclude.verdict_of(result),
        text=result.text,
        seconds=round(result.seconds, 6),
        is_delivered=result.is_delivered,
        from_address=str(result.source_address) if result.source_address is not None else "",
        steps=[step_line(each, names) for each in result.steps],
        caught=step_line(result.dropped_by, names) if result.dropped_by is not None else None,
        untraced=result.untraced,
        passed=[
            nouns.PassedLine(where=where(netns, names), hook=hook, is_answer=is_answer)
            for netns, hook, is_answer in result.seen
        ],
    )
