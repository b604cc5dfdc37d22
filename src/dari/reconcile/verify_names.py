"""That every sandbox is told its neighbours' names: the questions, and what came back.

Must not know: what is done with an address. Next: lookup.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from dari.kernel.probed import ProbeResult, Shot
from dari.reconcile import ends, far, lookup, names
from dari.reconcile.context import Context
from dari.reconcile.ends import End
from dari.reconcile.zones import has_names


@dataclass(frozen=True, slots=True)
class NameCheck:
    """That a sandbox is told a neighbour's name."""

    source: End
    name: str
    known: lookup.Known
    shots: tuple[Shot, ...]


async def name_checks(ctx: Context, containers: list[End], others: list[far.Far]) -> AsyncIterator[NameCheck]:
    """Every neighbour's name, asked for once in each sandbox."""
    done: set[tuple[str, str]] = set()
    zones = lookup.Zones(ctx)
    for source in containers:
        # Hundreds who ask for hundreds: others have work, too.
        await asyncio.sleep(0)
        if source.sandbox is None or source.netns is None or not names.is_answered(ctx, source.sandbox):
            continue
        known_here = {each.id for each, _ in ends.places_of(ctx, source) if has_names(each)}
        told = [
            target.name
            for target in containers
            if target.sandbox is not None
            and any(each.id in known_here for each, _ in ends.places_of(ctx, target))
        ]
        told += [each.name for each in others if each.node is not None and each.network.id in known_here]
        for name in told:
            if (source.netns, name) in done:
                continue
            done.add((source.netns, name))
            known = lookup.known(ctx, source.sandbox, name, zones=zones)
            if known.addresses and not known.is_from_file:
                shots = lookup.questions(name, source.netns, ip_address(names.DNS_ADDRESS))
                yield NameCheck(source, name, known, tuple(shots))


def names_told(checks: list[NameCheck], results: list[ProbeResult]) -> Iterator[str]:
    """What is wrong with the answers to these questions, as sentences."""
    at = 0
    for each in checks:
        own = results[at : at + len(each.shots)]
        at += len(each.shots)
        asked = lookup.judge(ip_address(names.DNS_ADDRESS), own)
        if not asked.is_answered or set(asked.addresses) != set(each.known.addresses):
            should = ", ".join(map(str, each.known.addresses))
            yield f"{each.source.name} should know {each.name} as {should}, but {asked.text}"
