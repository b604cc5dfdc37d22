"""All that a `verify` asks at once: who, by which of its addresses, at which doors.

Must not know: how it is asked, what it comes to.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from dari.kernel.outside import Places
from dari.kernel.probed import ProbeResult
from dari.model.errors import InvalidArgument
from dari.model.explain import Service
from dari.net.packet import Listeners, Trace
from dari.reconcile import ends, far_words
from dari.reconcile.across import Other
from dari.reconcile.context import Context
from dari.reconcile.doors import doors
from dari.reconcile.ends import Aim, End
from dari.reconcile.inquiry import Inquiry
from dari.reconcile.splice import Across

MOST_PAIRS = 20_000
"""About a minute of packets."""

OUTSIDE_PORT = 80
"""What the place outside offers, for those who want to go there."""


@dataclass(slots=True)
class Attempt:
    """One packet of a cell: `cell` and, behind the walks and the packet, what they say."""

    cell: int
    inquiry: Inquiry
    aim: Aim
    across: Across | None = None
    wanted: Trace | None = None
    found: Trace | None = None
    result: ProbeResult | None = None


@dataclass(slots=True)
class Others:
    """The ends on one other node. `problem`: why it tells nothing."""

    other: Other
    doors: dict[str, list[far_words.Door]] = field(default_factory=dict)
    problem: str = ""


@dataclass(slots=True)
class Round:
    """All that is asked at once."""

    ends: list[End]
    services: list[Service]
    # By id of the node.
    others: dict[str, Others] = field(default_factory=dict)
    cells: list[tuple[int, int]] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)


async def make_round(
    ctx: Context,
    everybody: list[End],
    heard: Listeners,
    timeout: float,
    outside: Places,
    others: dict[str, Others],
    *,
    is_probed: bool,
) -> Round:
    services = [
        each for number, end in enumerate(everybody) for each in _services(end, number, heard, others)
    ]
    round_ = Round(everybody, services, others)
    for from_, source in enumerate(everybody):
        if source.far is not None:
            continue
        # Hundreds who ask hundreds: others have work, too.
        await asyncio.sleep(0)
        for to, service in enumerate(services):
            target = everybody[service.end]
            if service.end == from_ or (source.netns == target.netns and target.kind == "container"):
                continue
            inquiry = Inquiry(
                source, target, service.protocol, service.port, is_probed, timeout, places=outside
            )
            aims = _aims(ctx, inquiry)
            if not aims:
                continue
            round_.cells.append((from_, to))
            if len(round_.cells) > MOST_PAIRS:
                raise InvalidArgument(f"more than {MOST_PAIRS} pairs to ask: name a project")
            round_.attempts += [Attempt(len(round_.cells) - 1, inquiry, aim) for aim in aims]
    return round_


def _aims(ctx: Context, inquiry: Inquiry) -> list[Aim]:
    """Every address on networks both are on; where there is none, the first of each IP version."""
    source, target = inquiry.source, inquiry.target
    if source.kind == "outside" and target.kind != "container":
        return []
    if source.kind == "host" and target.kind == "outside":
        # What the host itself may do outside is not dari's.
        return []
    found = ends.aims(ctx, source, target, inquiry.protocol, inquiry.port, inquiry.places)
    if target.far is not None and target.far[0].id not in {
        each.id for each, _ in ends.places_of(ctx, source)
    }:
        # What is on no network with them never meets those of other nodes, this host included.
        return []
    found = [each for each in found if each.address.version in ends.versions_of(ctx, source)]
    common = {network.id for network, _ in ends.places_of(ctx, source)}
    shared = [each for each in found if each.network is not None and each.network.id in common]
    if shared:
        return shared
    first: dict[int, Aim] = {}
    for each in found:
        first.setdefault(each.address.version, each)
    return list(first.values())


def _services(end: End, number: int, heard: Listeners, others: dict[str, Others]) -> list[Service]:
    if end.kind == "outside":
        return [Service(end=number, protocol="tcp", port=OUTSIDE_PORT, why=[])]
    if end.far is not None:
        _, endpoint = end.far
        known = (
            others[endpoint.node].doors.get(endpoint.ipv4 or endpoint.ipv6)
            if endpoint.node in others
            else None
        )
        # Without doors, or somebody to tell of them, whether it is there is seen all the same.
        return [
            Service(end=number, protocol=each.protocol, port=each.port, why=each.why) for each in known or ()
        ] or [Service(end=number, protocol="icmp", port=0, why=[])]
    if end.kind != "container" or end.container is None:
        return []
    found = doors(end, heard)
    if not found:
        # Somebody without a door is still there, or not.
        return [Service(end=number, protocol="icmp", port=0, why=[])]
    return [
        Service(
            end=number,
            protocol=protocol,
            port=port,
            why=why,
            published=[f"{each.host_ip}:{each.host_port}" for each in ends.publications(end, protocol, port)],
        )
        for protocol, port, why in found
    ]
