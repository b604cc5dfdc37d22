"""explain: why one end reaches another, or does not: what should be, what is, and what a real packet meets.

Both pictures of the kernel are walked by the same code (net.explain), a packet is sent meanwhile from a thread of
its own, and what differs is the finding. Of an end on another node that node tells its half (across.py).
Must not know: HTTP, how names are spelled by a user.
Next: ends.py, lookup.py, conclude.py, causes.py.
"""

from __future__ import annotations

import asyncio
import difflib
import socket
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import msgspec

from dari.kernel.outside import Places
from dari.kernel.probe import Probing, some_ports
from dari.kernel.probed import ProbeResult, Shot
from dari.model import explain as nouns
from dari.model.errors import Internal, Unsupported
from dari.net.facts import HostFacts
from dari.net.packet import OUTSIDE, Hop, Listeners, Probe, Trace
from dari.net.state import HOST, Address
from dari.reconcile import (
    across,
    causes,
    conclude,
    ends,
    far,
    far_words,
    lookup,
    relays,
    shared_networks,
    splice,
)
from dari.reconcile.context import Context
from dari.reconcile.ends import Aim, End
from dari.reconcile.picture import Picture, Walker, look
from dari.reconcile.settle import look_at_host
from dari.reconcile.talk import NoAnswerError
from dari.reconcile.telling import hop_line, named, probe_line, walk_lines

_NAME_SECONDS = 2.0
_SERVERS_ASKED = 3
_DIFFERENCES_SHOWN = 20
_NAMES_SHOWN = 12
# For a packet of which the other node says already that it does not arrive: it is sent to see whether that is so.
_LOST_SECONDS = 0.3


@dataclass(slots=True)
class Inquiry:
    """A question on its way to an answer. `name`: what the source would look up, "" where it asks by address."""

    source: End
    target: End
    protocol: str
    port: int
    is_probed: bool
    timeout: float
    name: str = ""
    places: Places | None = None
    known: lookup.Known | None = None
    aims: list[Aim] = field(default_factory=list)
    hops: list[Hop] = field(default_factory=list)
    listeners: Listeners | None = None
    result: ProbeResult | None = None
    # On another node, and what that host says to a ping.
    far: far.Far | None = None
    underlay: ProbeResult | None = None
    # What that node tells of its half; None where it was not asked, or `far_problem` says why it did not answer.
    across: splice.Across | None = None
    far_problem: str = ""
    # Of the name: "" as it should be, else what is wrong with it.
    trouble: nouns.Conclusion | None = None
    reason: causes.Why | None = None


async def explain(ctx: Context, inquiry: Inquiry) -> nouns.Explanation:
    """The whole answer. Raises Internal, Unsupported (no place for `outside` on this host)."""
    if "outside" not in (inquiry.source.kind, inquiry.target.kind):
        return await _answer(ctx, inquiry)
    # There is one outside at a time: two links would have the same addresses.
    async with ctx.lock(OUTSIDE):
        return await _answer(ctx, inquiry)


async def _answer(ctx: Context, inquiry: Inquiry) -> nouns.Explanation:
    if "outside" in (inquiry.source.kind, inquiry.target.kind):
        inquiry.places = places(await look_at_host(ctx))
    _find_aims(ctx, inquiry)
    _find_far(ctx, inquiry)
    async with AsyncExitStack() as stack:
        other = await _ask_far(ctx, inquiry, stack)
        picture = await look(ctx, _concerned(inquiry))
        try:
            await _gather(ctx, inquiry, other)
        except OSError as error:
            raise Internal(f"the probe could not be made: {error.strerror or error}") from error
    if not inquiry.aims:
        return _without_aim(inquiry, picture)
    return _with_walks(ctx, inquiry, picture)


def places(facts: HostFacts) -> Places:
    """Where outside lies. Raises Unsupported."""
    try:
        return Places(facts.routes, facts.has_ipv6)
    except LookupError as error:
        raise Unsupported(str(error)) from error


# The name


def _find_aims(ctx: Context, inquiry: Inquiry) -> None:
    """By what the store says: the name's addresses, else the target's own."""
    source, target = inquiry.source, inquiry.target
    if target.kind == "address":
        aim = ends.at(ctx, ip_address(target.name), inquiry.protocol, inquiry.port)
        inquiry.aims = [aim]
        owner = ends.owner_of(ctx, aim.address)
        if owner is not None:
            inquiry.target = owner[0]
        return
    if inquiry.name and source.is_own and source.sandbox is not None:
        inquiry.known = lookup.known(ctx, source.sandbox, inquiry.name)
        if inquiry.known.addresses:
            _take_addresses(ctx, inquiry, inquiry.known.addresses)
            text = f"{inquiry.name} is {_listed(inquiry.known.addresses)} ({inquiry.known.by})"
            inquiry.hops.append(Hop("name", source.netns or HOST, text))
            return
    if target.kind == "container" and target.netns is None:
        state = target.container.status.state if target.container is not None else "gone"
        inquiry.trouble = "application"
        text = f"{target.name} is not running ({state}): it has no address"
        inquiry.reason = causes.Why(text, f"start it: dari start {target.name}")
        inquiry.hops.append(Hop("name", source.netns or HOST, text, is_ok=False))
        return
    if target.kind != "name":
        inquiry.aims = ends.aims(ctx, source, target, inquiry.protocol, inquiry.port, inquiry.places)
        router = ends.leaves_by(ctx, source)
        if not inquiry.aims and router is not None:
            inquiry.reason = causes.by_another_router(source, target, router)
            inquiry.hops.append(Hop("route", source.netns or HOST, inquiry.reason.text, is_ok=False))
        if inquiry.known is not None:
            inquiry.trouble = "meant"
            inquiry.reason = causes.unnamed(ctx, source, target)
            text = f"{source.name} knows no name {inquiry.name}: {inquiry.reason.text}"
            inquiry.hops.append(Hop("name", source.netns or HOST, text, is_ok=False))


def _find_far(ctx: Context, inquiry: Inquiry) -> None:
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


async def _ask_far(ctx: Context, inquiry: Inquiry, stack: AsyncExitStack) -> across.Other | None:
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
    other = await stack.enter_async_context(across.Other(ctx, inquiry.far.node))
    other.ready([pair], some_ports() if inquiry.is_probed else ())
    return other


async def _hear_far(inquiry: Inquiry, other: across.Other) -> None:
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


def _take_addresses(ctx: Context, inquiry: Inquiry, addresses: Iterable[Address]) -> None:
    versions = ends.versions_of(ctx, inquiry.source)
    known = [each for each in addresses if each.version in versions] or list(addresses)
    # In an order of their own: the responder turns them round with every answer.
    known.sort(key=lambda each: (versions.index(each.version) if each.version in versions else 9, int(each)))
    inquiry.aims = [ends.at(ctx, each, inquiry.protocol, inquiry.port) for each in known]
    owner = ends.owner_of(ctx, known[0])
    inquiry.target = owner[0] if owner is not None else End("address", inquiry.name, inquiry.aims[0].netns)


def _listed(addresses: Sequence[Address]) -> str:
    return ", ".join(map(str, addresses))


# What must be asked of the world, in threads: it takes its time


def _concerned(inquiry: Inquiry) -> set[str]:
    """The sandboxes' namespaces the packet may pass."""
    found = {each for each in (inquiry.source.netns, inquiry.target.netns) if each}
    found |= {aim.netns for aim in inquiry.aims if aim.netns}
    return found - {HOST, OUTSIDE}


async def _gather(ctx: Context, inquiry: Inquiry, other: across.Other | None) -> None:
    concerned = _concerned(inquiry)
    own_places = inquiry.places if inquiry.is_probed else None
    ports = other.ports if other is not None else ()
    probing = await asyncio.to_thread(
        ctx.kernel.probing, concerned, own_places, is_traced=inquiry.is_probed, ports=ports
    )
    try:
        if inquiry.name and inquiry.trouble is None:
            await _ask_name(ctx, inquiry, probing)
        inquiry.listeners = await asyncio.to_thread(listeners, probing, {*concerned, HOST})
        for each in inquiry.aims[:1]:
            if relays.takes(ctx, inquiry.protocol, each.address, each.port):
                inquiry.listeners = inquiry.listeners.beside(HOST, inquiry.protocol, each.address, each.port)
        if other is not None:
            await _hear_far(inquiry, other)
        if inquiry.is_probed and inquiry.aims:
            aim = inquiry.aims[0]
            if (
                inquiry.target.kind == "outside"
                and probing.outside is not None
                and inquiry.protocol != "icmp"
            ):
                probing.outside.serve(inquiry.protocol, aim.address.version, aim.port)
            shots = [shot(inquiry, aim)]
            if inquiry.far is not None and inquiry.far.underlay is not None:
                shots.append(Shot(HOST, inquiry.far.underlay, "icmp"))
            is_lost = inquiry.across is not None and inquiry.across.found.verdict not in (
                "delivered",
                "unknown",
            )
            timeout = min(inquiry.timeout, _LOST_SECONDS) if is_lost else inquiry.timeout
            results = await asyncio.to_thread(probing.fire, shots, timeout)
            inquiry.result, inquiry.underlay = results[0], results[1] if len(results) > 1 else None
            if other is not None and inquiry.across is not None:
                await _hear_of_packet(inquiry, other)
    finally:
        await asyncio.to_thread(probing.close)


async def _hear_of_packet(inquiry: Inquiry, other: across.Other) -> None:
    assert inquiry.across is not None and inquiry.result is not None
    try:
        told = await other.sightings([(0, inquiry.result.source_port)])
    except NoAnswerError as error:
        inquiry.result = replace(inquiry.result, untraced=str(error))
        return
    [seen] = told.sightings
    inquiry.across = replace(inquiry.across, sighting=seen)
    inquiry.result = splice.seen_by_both(inquiry.result, seen, told.untraced)


def shot(inquiry: Inquiry, aim: Aim) -> Shot:
    """The packet of a question."""
    return Shot(inquiry.source.netns or HOST, aim.address, inquiry.protocol, aim.port, aim.netns)


def listeners(probing: Probing, namespaces: Iterable[str]) -> Listeners:
    """Who listens in these namespaces. Raises OSError."""
    found = []
    seen = []
    for name in namespaces:
        sockets = probing.listeners(name)
        if sockets is not None:
            seen.append(name)
            found += [(name, each.protocol, each.address, each.port) for each in sockets]
    return Listeners.of(found, seen)


async def _ask_name(ctx: Context, inquiry: Inquiry, probing: Probing) -> None:
    """Ask as the source would: to see whether a name of ours is answered, and where a name outside leads."""
    source, known = inquiry.source, inquiry.known
    if known is not None and known.addresses:
        if inquiry.is_probed and not known.is_from_file:
            await _check_name(inquiry, probing, known)
        return None
    if inquiry.target.kind != "name":
        return None
    if known is not None and not known.is_forwarded:
        text = f"nobody {source.name} could ask knows {inquiry.name}"
        return _no_name(inquiry, "meant", text, _neighbours(ctx, source, inquiry.name))
    if not source.is_own:
        return await _ask_as_host(ctx, inquiry)
    asked: lookup.Asked | None = None
    for server in lookup.servers(ctx, source.sandbox)[:_SERVERS_ASKED]:
        shots = lookup.questions(inquiry.name, source.netns or HOST, server)
        results = await asyncio.to_thread(probing.fire, shots, max(inquiry.timeout, _NAME_SECONDS))
        asked = lookup.judge(server, results)
        if asked.is_answered:
            break
    if asked is not None and asked.addresses:
        inquiry.hops.append(Hop("name", source.netns or HOST, f"{inquiry.name}: {asked.text}"))
        return _take_addresses(ctx, inquiry, asked.addresses)
    said = asked.text if asked is not None else "there is no server to ask"
    kind: nouns.Conclusion = "meant" if asked is not None and asked.is_answered else "unexplained"
    return _no_name(
        inquiry, kind, f"{inquiry.name} has no address: {said}", _neighbours(ctx, source, inquiry.name)
    )


async def _check_name(inquiry: Inquiry, probing: Probing, known: lookup.Known) -> None:
    server = ip_address("127.0.0.11")
    netns = inquiry.source.netns or HOST
    shots = lookup.questions(inquiry.name, netns, server)
    results = await asyncio.to_thread(probing.fire, shots, inquiry.timeout)
    asked = lookup.judge(server, results)
    if asked.is_answered and set(asked.addresses) == set(known.addresses):
        inquiry.hops.append(Hop("name", netns, asked.text))
        return
    text = f"{inquiry.name} should be {_listed(known.addresses)}, but {asked.text}"
    step = next((each.dropped_by for each in results if each.dropped_by is not None), None)
    if conclude.is_foreign_step(step):
        assert step is not None
        text += f"; {conclude.said(step)} drops the question"
    inquiry.hops.append(Hop("name", netns, text, is_ok=False))
    inquiry.trouble = "foreign" if conclude.is_foreign_step(step) else "drift"
    inquiry.reason = causes.Why(text, "dari doctor --fix; the responder's log is dari-dns.log")


async def _ask_as_host(ctx: Context, inquiry: Inquiry) -> None:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(inquiry.name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        return _no_name(inquiry, "meant", f"{inquiry.name} has no address: {error.strerror or error}", "")
    addresses = [ip_address(str(each[4][0]).partition("%")[0]) for each in found]
    inquiry.hops.append(Hop("name", HOST, f"{inquiry.name} is {_listed(addresses)} (the host's resolver)"))
    return _take_addresses(ctx, inquiry, dict.fromkeys(addresses))


def _no_name(inquiry: Inquiry, kind: nouns.Conclusion, text: str, advice: str) -> None:
    inquiry.hops.append(Hop("name", inquiry.source.netns or HOST, text, is_ok=False))
    inquiry.trouble = kind
    inquiry.reason = causes.Why(text, advice)


def _neighbours(ctx: Context, source: End, name: str) -> str:
    """The names it does know, as advice: the most like the one asked for, where there are many."""
    known: dict[str, None] = {}
    for network, own in ends.places_of(ctx, source):
        if network.is_predefined:
            continue
        for endpoint in shared_networks.living(ctx, ctx.tables.endpoints.all(ctx.shared, network.id)):
            if endpoint.id != own.id:
                owner = ctx.tables.containers.get(ctx.local, endpoint.container_id)
                known.update(dict.fromkeys([owner.name] if owner is not None else endpoint.dns_names[:1]))
                known.update(dict.fromkeys(endpoint.spec.aliases))
    if not known:
        return "it shares no network with names with anybody"
    like = difflib.get_close_matches(name, known, _NAMES_SHOWN, cutoff=0)
    more = f" and {len(known) - len(like)} more" if len(known) > len(like) else ""
    return f"names it knows: {', '.join(like)}{more}"


# The answer


def _without_aim(inquiry: Inquiry, picture: Picture) -> nouns.Explanation:
    reason = inquiry.reason or causes.Why(
        f"{inquiry.target.name} has no address that {inquiry.source.name} could ask"
    )
    hops = [hop_line(each, picture.names) for each in inquiry.hops]
    walk_ = nouns.Walk(verdict="unreachable", hops=hops, decided_by=len(hops) - 1)
    return nouns.Explanation(
        source=ends.line(inquiry.source),
        target=_target_line(inquiry, None),
        is_reachable=False,
        verdict="unreachable",
        conclusion=inquiry.trouble or "meant",
        text=reason.text,
        advice=reason.advice,
        causes=list(reason.causes),
        names=hops,
        wanted=walk_,
        found=walk_,
    )


def _target_line(inquiry: Inquiry, aim: Aim | None) -> nouns.End:
    """With the port that was asked for, which is another than the packet's where a published one leads there."""
    address = str(aim.address) if aim is not None else ""
    found = ends.line(inquiry.target, inquiry.protocol, address)
    return msgspec.structs.replace(found, port=inquiry.port)


def _with_walks(ctx: Context, inquiry: Inquiry, picture: Picture) -> nouns.Explanation:
    aim = inquiry.aims[0]
    walker = Walker(picture, inquiry.listeners, inquiry.places)
    wanted, found = walker.walk(probe_of(inquiry, aim))
    if inquiry.far is not None:
        between = across.Between(ctx, walker)
        wanted, found = between.whole(wanted, found, inquiry.far.network, inquiry.far.node, inquiry.across)
    judged = conclude.conclude(wanted, found, inquiry.result)
    text, advice, listed = _words(ctx, inquiry, aim, judged)
    if inquiry.across is not None and _is_told(inquiry.across, judged.hop) and "node " not in text:
        text += f", on node {inquiry.across.node}"
    told: list[str] = []
    if judged.conclusion == "drift" or inquiry.trouble == "drift":
        told, at = _drifted(inquiry, picture, wanted, found, judged)
        if at:
            advice += f", on node {at}"
        if not told and inquiry.trouble is None:
            advice = "nothing of dari's is amiss: take away what was added by hand" + (
                f" on node {at}" if at else ""
            )
    conclusion = judged.conclusion
    underlay = inquiry.underlay
    if conclusion == "unexplained" and underlay is not None and underlay.outcome != "answered":
        conclusion = "away"
    if inquiry.trouble is not None and conclusion in ("reachable", "application", "meant"):
        reason = inquiry.reason or causes.Why("the name is not known")
        conclusion = inquiry.trouble
        reached = f"; by its address {aim.address} it is reached" if judged.conclusion == "reachable" else ""
        text, advice, listed = reason.text + reached, reason.advice, list(reason.causes)
    names = picture.names
    return nouns.Explanation(
        source=ends.line(inquiry.source, address=_source_address(inquiry)),
        target=_target_line(inquiry, aim),
        is_reachable=judged.verdict == "delivered" and inquiry.trouble is None,
        verdict="unreachable" if inquiry.trouble is not None else judged.verdict,
        conclusion=conclusion,
        text=named(text, names),
        advice=advice,
        causes=listed,
        differences=[named(each, names) for each in told],
        names=[hop_line(each, names) for each in inquiry.hops],
        wanted=walk_lines(wanted, names),
        found=walk_lines(found, names),
        probe=probe_line(inquiry.result, names) if inquiry.result is not None else None,
        node=inquiry.far.host if inquiry.far is not None else "",
        node_problem=inquiry.far_problem,
    )


def probe_of(inquiry: Inquiry, aim: Aim) -> Probe:
    """The question as the walk takes it."""
    source = inquiry.source.netns or HOST
    far = inquiry.places.far(aim.address.version) if inquiry.places is not None else None
    return Probe(
        source_netns=source,
        destination=aim.address,
        protocol=inquiry.protocol,  # type: ignore[arg-type]
        port=aim.port if inquiry.protocol != "icmp" else None,
        source_address=far if source == OUTSIDE else None,
        in_interface=OUTSIDE if source == OUTSIDE else "",
    )


def _source_address(inquiry: Inquiry) -> str:
    found = inquiry.result.source_address if inquiry.result is not None else None
    return str(found) if found is not None else ""


def _words(
    ctx: Context, inquiry: Inquiry, aim: Aim, judged: conclude.Judgement
) -> tuple[str, str, list[nouns.Cause]]:
    source, target = inquiry.source.name, inquiry.target.name
    door = f"{aim.address}" + (f" port {aim.port}/{inquiry.protocol}" if aim.port else "")
    match judged.conclusion:
        case "reachable":
            return f"{source} reaches {target} at {door}", "", []
        case "application":
            return judged.text, _start_what(inquiry, aim), []
        case "drift":
            return judged.text, "dari doctor --fix", []
        case "foreign":
            advice = "change that rule, or let it accept what dari accepts (docs/how-to/firewalls.md)"
            return judged.text, advice, []
        case "beyond":
            return judged.text, causes.beyond(judged.hop), []
        case "meant":
            across_ = inquiry.across
            if across_ is not None and across_.half.text and _is_told(across_, judged.hop):
                return across_.half.text, across_.half.advice, list(across_.half.causes)
            found = causes.why(
                ctx, inquiry.source, inquiry.target, aim, inquiry.protocol, inquiry.port, judged.hop
            )
            return found.text, found.advice, list(found.causes)
        case _:
            if inquiry.far is not None and inquiry.result is not None and not inquiry.result.is_delivered:
                sighting = inquiry.across.sighting if inquiry.across is not None else None
                reason = far.lost(ctx, inquiry.far, inquiry.underlay, sighting)
                return reason.text, reason.advice, []
            return judged.text, "", []


def _start_what(inquiry: Inquiry, aim: Aim) -> str:
    """What does listen there, as advice."""
    if aim.netns is None:
        if inquiry.far is None:
            return ""
        said = inquiry.across.half.listening if inquiry.across is not None else ""
        return f"{said or 'start what should listen there'}, on node {inquiry.far.host}"
    if aim.published is not None:
        return ""
    return listening(inquiry.listeners, aim.netns or HOST, inquiry.protocol, aim.port)


def listening(heard: Listeners | None, netns: str, protocol: str, asked: int) -> str:
    """What listens in a namespace instead of the port that was asked for, as advice."""
    sockets = heard.sockets.get(netns) if heard is not None else None
    if not sockets:
        return ""
    same = sorted(str(at) for kind, at, port in sockets if (kind, port) == (protocol, asked))
    if same:
        return f"it listens on {', '.join(same)} only: let it listen on 0.0.0.0 (or ::)"
    others = sorted(
        {f"{port}/{kind}" for kind, at, port in sockets if not at.is_loopback and port < 32768},
        key=lambda each: int(each.partition("/")[0]),
    )
    return f"what listens there: {', '.join(others)}" if others else "start what should listen there"


def _drifted(
    inquiry: Inquiry, picture: Picture, wanted: Trace, found: Trace, judged: conclude.Judgement
) -> tuple[list[str], str]:
    """The steps that would mend it, and the name of the other node where they are to be done there."""
    if inquiry.across is not None:
        caught = judged.step is not None and judged.step.netns.endswith(f"@{inquiry.across.node}")
        if caught or _is_told(inquiry.across, judged.hop or found.decided_by):
            return list(inquiry.across.half.differences), inquiry.across.node
    return differences(picture, (wanted, found)), ""


def _is_told(other: splice.Across, hop: Hop | None) -> bool:
    """Whether the other node told that hop."""
    return hop is not None and any(hop is each for each in (*other.wanted.hops, *other.found.hops))


def differences(picture: Picture, traces: tuple[Trace, Trace]) -> list[str]:
    """The steps that would mend what these ways lean on; all of them where none is about that."""
    keys = conclude.leant_on(traces)
    ops = picture.differences()
    about = [each for each in ops if each.object.key in keys]
    return [str(each) for each in (about or ops)[:_DIFFERENCES_SHOWN]]
