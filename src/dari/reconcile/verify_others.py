"""The other nodes of a `verify`: their doors, their halves of the ways, and what they saw of the packets.

A node that does not answer is a problem told, not an error. Must not know: walks, what it comes to. Next: across.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from dari.model.network import Endpoint
from dari.reconcile import ends, far, far_words
from dari.reconcile.across import Other
from dari.reconcile.context import Context
from dari.reconcile.ends import End
from dari.reconcile.splice import seen_by_both
from dari.reconcile.talk import NoAnswerError
from dari.reconcile.verify_round import Attempt, Others, Round

PAIRS_AT_ONCE = far_words.MOST_PAIRS // 2
"""Of one node: what it tells of them has to fit into a row of the store, however long their ways are."""


def others(ctx: Context, containers: list[End]) -> list[far.Far]:
    """Who is on other nodes, on the networks of these containers."""
    networks = {network.id: network for each in containers for network, _ in ends.places_of(ctx, each)}
    return far.on(ctx, networks.values())


def far_end(other: far.Far) -> End:
    """They are asked, not made to ask: their namespaces are not here."""
    node = other.node.name if other.node is not None else other.endpoint.node
    return End("address", f"{other.name}@{node}", far=(other.network, other.endpoint))


async def meet(
    ctx: Context, stack: AsyncExitStack, alive: list[far.Far], timeout: float
) -> dict[str, Others]:
    """Ask every node with such ends for their doors, all at once. `timeout` as of `Other`."""
    found: dict[str, Others] = {}
    for each in alive:
        if each.node is not None and each.node.id not in found:
            found[each.node.id] = Others(await stack.enter_async_context(Other(ctx, each.node, timeout)))
    await asyncio.gather(
        *(
            _learn_doors(others, [each.endpoint for each in alive if each.endpoint.node == node_id])
            for node_id, others in found.items()
        )
    )
    return found


async def _learn_doors(others: Others, endpoints: list[Endpoint]) -> None:
    try:
        for door in await others.other.doors([each.ipv4 or each.ipv6 for each in endpoints]):
            others.doors.setdefault(door.address, []).append(door)
    except NoAnswerError as error:
        others.problem = str(error)


@dataclass(slots=True)
class Batch:
    """What is sent at one time; `asked`: what each other node, by its id, is asked of these."""

    attempts: list[Attempt] = field(default_factory=list)
    asked: dict[str, list[tuple[Attempt, far_words.Pair]]] = field(default_factory=dict)


def batches(ctx: Context, round_: Round) -> list[Batch]:
    """All attempts, in as many goes as the busiest node needs, since it takes only so many pairs at once."""
    made = [Batch()]
    for attempt in round_.attempts:
        place = attempt.inquiry.target.far
        others = round_.others.get(place[1].node) if place is not None else None
        pair = _pair(ctx, attempt) if others is not None and not others.problem else None
        if pair is None or others is None:
            made[0].attempts.append(attempt)
            continue
        node_id = others.other.node.id
        batch = next((each for each in made if len(each.asked.get(node_id, ())) < PAIRS_AT_ONCE), None)
        if batch is None:
            made.append(batch := Batch())
        batch.attempts.append(attempt)
        batch.asked.setdefault(node_id, []).append((attempt, pair))
    return made


async def ready(round_: Round, batch: Batch, ports: Sequence[int]) -> None:
    """Have the other nodes walk their halves of what concerns them, and look out for the packets."""
    asked = {node_id: each for node_id, each in batch.asked.items() if not round_.others[node_id].problem}
    for node_id, pairs in asked.items():
        round_.others[node_id].other.ready([pair for _, pair in pairs], ports)
    for node_id, pairs in asked.items():
        others = round_.others[node_id]
        try:
            for (attempt, _), half in zip(pairs, await others.other.halves(), strict=True):
                attempt.across = half
        except NoAnswerError as error:
            others.problem = str(error)


def _pair(ctx: Context, attempt: Attempt) -> far_words.Pair | None:
    """None where it does not go through the network's tunnel."""
    source, aim = attempt.inquiry.source, attempt.aim
    for network, endpoint in ends.places_of(ctx, source):
        own = endpoint.ipv4 if aim.address.version == 4 else endpoint.ipv6
        if aim.network is not None and network.id == aim.network.id and own:
            return far_words.Pair(
                source=own,
                source_name=source.name,
                target=str(aim.address),
                protocol=attempt.inquiry.protocol,
                port=aim.port if attempt.inquiry.protocol != "icmp" else 0,
            )
    return None


async def reports(round_: Round, batch: Batch) -> None:
    """What those nodes saw of the packets that were sent."""
    await asyncio.gather(
        *(
            _hear_report(others, [attempt for attempt, _ in batch.asked[node_id]])
            for node_id in batch.asked
            if not (others := round_.others[node_id]).problem
        )
    )


async def _hear_report(others: Others, asked: list[Attempt]) -> None:
    sent = [(number, each) for number, each in enumerate(asked) if each.result is not None]
    try:
        told = await others.other.sightings(
            [(number, each.result.source_port) for number, each in sent if each.result is not None]
        )
    except NoAnswerError as error:
        others.problem = str(error)
        return
    for (_, attempt), seen in zip(sent, told.sightings, strict=True):
        assert attempt.result is not None
        attempt.result = seen_by_both(attempt.result, seen, told.untraced)
