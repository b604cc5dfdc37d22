"""The end of a question that is on another node: which one, whether it lives, and what that node tells of its half.

Must not know: how rows carry it (talk.py), what the answer means. Next: far.py, across.py.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace

from dari.kernel.probe import some_ports
from dari.kernel.probed import Shot
from dari.kernel.shot import echo_padding
from dari.net.packet import Hop
from dari.net.state import HOST
from dari.reconcile import across, ends, far, far_words, splice
from dari.reconcile.context import Context
from dari.reconcile.inquiry import Inquiry
from dari.reconcile.talk import NoAnswerError


def find(ctx: Context, inquiry: Inquiry) -> None:
    """Where the other end is on another node: which one, and whether it lives."""
    where = inquiry.source.netns or HOST
    if inquiry.aims:
        aim = inquiry.aims[0]
        inquiry.far = found = far.of_address(ctx, aim.address) if aim.netns is None else None
        if found is not None:
            said = "" if found.node is not None else ", of which nothing was heard for its time to live"
            text = f"{aim.address} is {found.name}'s, on node {found.host}{said}"
            inquiry.hops.append(Hop("name", where, text, is_ok=found.node is not None))
    elif inquiry.name and inquiry.source.is_own and inquiry.trouble is None:
        networks = [network for network, _ in ends.places_of(ctx, inquiry.source)]
        inquiry.far = found = far.of_name(ctx, networks, inquiry.name)
        if found is not None:
            text = f"{inquiry.name} is not told: its node {found.host} does not live"
            inquiry.hops.append(Hop("name", where, text, is_ok=False))
    if inquiry.far is not None and inquiry.far.node is None:
        inquiry.trouble, inquiry.reason = "away", far.dead(inquiry.far)
    elif inquiry.far is not None and (reason := far.unencrypted(ctx, inquiry.far)) is not None:
        inquiry.trouble, inquiry.reason = "away", reason
        inquiry.hops.append(Hop("encrypt", where, reason.text, is_ok=False))


async def ask(ctx: Context, inquiry: Inquiry, stack: AsyncExitStack) -> across.Other | None:
    """Have the other end's node walk its half, and look out for the packet, while this one does the same."""
    if inquiry.far is None or inquiry.far.node is None or not inquiry.aims:
        return None
    source = next(
        (
            each
            for network, each in ends.places_of(ctx, inquiry.source)
            if network.id == inquiry.far.network.id
        ),
        None,
    )
    aim = inquiry.aims[0]
    own = source and (source.ipv4 if aim.address.version == 4 else source.ipv6)
    if not own:
        # It does not go through the network's tunnel.
        return None
    pair = far_words.Pair(
        source=own,
        source_name=inquiry.source.name,
        target=str(aim.address),
        protocol=inquiry.protocol,
        port=aim.port if inquiry.protocol != "icmp" else 0,
    )
    other = await stack.enter_async_context(across.Other(ctx, inquiry.far.node, inquiry.timeout))
    other.ready([pair], some_ports() if inquiry.is_probed else ())
    return other


def pings(ctx: Context, inquiry: Inquiry) -> list[Shot]:
    """What its host is asked besides: a small ping, and one as large as both hosts' interfaces take."""
    if inquiry.far is None or inquiry.far.underlay is None or inquiry.far.node is None or ctx.node is None:
        return []
    address = inquiry.far.underlay
    padding = echo_padding(far.narrower(ctx.node, inquiry.far.node), address.version)
    return [Shot(HOST, address, "icmp"), Shot(HOST, address, "icmp", payload=padding)]


async def hear(inquiry: Inquiry, other: across.Other) -> None:
    """Its node's half, or why it does not tell."""
    where = inquiry.source.netns or HOST
    host = inquiry.far.host if inquiry.far is not None else ""
    try:
        [inquiry.across] = await other.halves()
    except NoAnswerError as error:
        inquiry.far_problem = str(error)
        text = f"{error}: what becomes of the packet there is guessed from the store"
        inquiry.hops.append(Hop("name", where, text, is_ok=False))
    else:
        inquiry.hops.append(Hop("name", where, f"node {host} answers: its half is its own kernel's"))


async def hear_of_packet(inquiry: Inquiry, other: across.Other) -> None:
    """What its node saw of the packet."""
    assert inquiry.across is not None and inquiry.result is not None
    try:
        told = await other.sightings([(0, inquiry.result.source_port)])
    except NoAnswerError as error:
        inquiry.result = replace(inquiry.result, untraced=str(error))
        return
    [seen] = told.sightings
    inquiry.across = replace(inquiry.across, sighting=seen)
    inquiry.result = splice.seen_by_both(inquiry.result, seen, told.untraced)
