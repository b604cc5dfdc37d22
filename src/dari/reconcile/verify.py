"""verify: who can reach whom and who cannot, by what was asked, by what the kernel has, and by real packets.

Every container asks every other one, at each of its addresses and doors; the place outside asks their published
ports, the host all of them. Names are asked for too. Those on other nodes are asked as well, and their nodes tell
their halves and what they saw of the packets. Must not know: HTTP, tables for people.
Next: explain.py (one pair in depth), conclude.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address

from dari.kernel.outside import Places
from dari.kernel.probe import Probing, some_ports
from dari.kernel.probed import ProbeResult, Shot
from dari.model import explain as nouns
from dari.model.errors import Internal, InvalidArgument, NotFound
from dari.model.explain import Cell, Service, Verification
from dari.model.network import Endpoint
from dari.net.packet import OUTSIDE, Listeners, Trace
from dari.net.plan import Op
from dari.net.state import HOST
from dari.reconcile import conclude, ends, far, far_words, lookup, names
from dari.reconcile.across import Between, Other
from dari.reconcile.attached import of_sandbox
from dari.reconcile.context import Context
from dari.reconcile.ends import HOST_END, OUTSIDE_END, Aim, End
from dari.reconcile.explain import Inquiry, listeners, places, probe_of
from dari.reconcile.picture import Picture, Walker, look
from dari.reconcile.splice import Across, seen_by_both
from dari.reconcile.talk import NoAnswerError
from dari.reconcile.telling import named
from dari.reconcile.zones import has_names

MOST_PAIRS = 20_000
"""About a minute of packets."""

_PROJECT = "com.docker.compose.project"
# A listening UDP port above may be a client's.
_EPHEMERAL = 32768
# What the place outside offers, for those who want to go there.
_OUTSIDE_PORT = 80
_DIFFERENCES_SHOWN = 50
# Of a published range, however long: the first ports stand for all of them, which are one rule.
_RANGE_SHOWN = 16


@dataclass(slots=True)
class _Attempt:
    """One packet of a cell: `cell` and, behind the walks and the packet, what they say."""

    cell: int
    inquiry: Inquiry
    aim: Aim
    across: Across | None = None
    wanted: Trace | None = None
    found: Trace | None = None
    result: ProbeResult | None = None


@dataclass(slots=True)
class _Others:
    """The ends on one other node. `problem`: why it tells nothing."""

    other: Other
    doors: dict[str, list[far_words.Door]] = field(default_factory=dict)
    asked: list[_Attempt] = field(default_factory=list)
    problem: str = ""


@dataclass(slots=True)
class _Round:
    """All that is asked at once."""

    ends: list[End]
    services: list[Service]
    # By id of the node: it, the doors of its containers by address, and what it is asked, as indices of attempts.
    others: dict[str, _Others] = field(default_factory=dict)
    cells: list[tuple[int, int]] = field(default_factory=list)
    attempts: list[_Attempt] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _NameCheck:
    """That a sandbox is told a neighbour's name."""

    source: End
    name: str
    known: lookup.Known
    shots: tuple[Shot, ...]


async def verify(ctx: Context, project: str, timeout: float, *, is_probed: bool) -> Verification:
    """Of the running containers of a project, or of all. Raises NotFound (none runs), InvalidArgument (too many
    pairs), Internal, Unsupported."""
    # There is one outside at a time.
    async with ctx.lock(OUTSIDE):
        return await _verify(ctx, project, timeout, is_probed)


async def _verify(ctx: Context, project: str, timeout: float, is_probed: bool) -> Verification:
    started = time.monotonic()
    containers = _containers(ctx, project)
    picture = await look(ctx)
    outside = places(picture.facts)
    others = _others(ctx, containers)
    alive = [_far_end(each) for each in others if each.node is not None]
    everybody = [*containers, *alive, OUTSIDE_END, HOST_END]
    concerned = {each.netns for each in containers if each.netns}
    async with AsyncExitStack() as stack:
        asked = await _meet(ctx, stack, [each for each in others if each.node is not None])
        ports = some_ports()
        try:
            probing = await asyncio.to_thread(
                ctx.kernel.probing,
                concerned,
                outside if is_probed else None,
                is_traced=is_probed,
                ports=ports,
            )
            try:
                heard = await asyncio.to_thread(listeners, probing, {*concerned, HOST})
                round_ = _round(ctx, everybody, heard, timeout, outside, asked, is_probed=is_probed)
                await _ready(ctx, round_, ports if is_probed else ())
                checks = list(_name_checks(ctx, containers, others)) if is_probed else []
                told = await asyncio.to_thread(_fire, probing, round_, checks, timeout, is_probed)
                untraced = probing.untraced if is_probed else ""
            finally:
                await asyncio.to_thread(probing.close)
        except OSError as error:
            raise Internal(f"the probes could not be made: {error.strerror or error}") from error
        if is_probed:
            await _reports(round_)
    await asyncio.to_thread(_walk, ctx, picture, round_, heard, outside)
    cells = [_cell(round_, number, picture) for number in range(len(round_.cells))]
    ops = _differences(ctx, picture, project)
    told += [far.dead(each).text for each in others if each.node is None]
    told += [
        f"{each.problem}: what its containers do is guessed from the store"
        for each in asked.values()
        if each.problem
    ]
    findings = [*told, *_findings(round_, cells)]
    return Verification(
        project=project,
        is_as_asked=all(each.is_as_asked for each in cells) and not told and not ops,
        ends=[_end_line(ctx, each) for each in everybody],
        networks=_networks(ctx, everybody),
        services=round_.services,
        cells=cells,
        findings=findings,
        differences=[named(str(each), picture.names) for each in ops[:_DIFFERENCES_SHOWN]],
        probes=len(round_.attempts) + sum(len(each.shots) for each in checks) if is_probed else 0,
        seconds=round(time.monotonic() - started, 3),
        untraced=untraced,
    )


def _containers(ctx: Context, project: str) -> list[End]:
    found = [
        each
        for each in ctx.tables.containers.all(ctx.local)
        if ends.is_running(each) and (not project or each.config.labels.get(_PROJECT) == project)
    ]
    if project and not found:
        raise NotFound(f"no container of project {project} is running")
    return [ends.end_of(ctx, each) for each in sorted(found, key=lambda each: each.name)]


def _others(ctx: Context, containers: list[End]) -> list[far.Far]:
    """Who is on other nodes, on the networks of these containers."""
    networks = {network.id: network for each in containers for network, _ in ends.places_of(ctx, each)}
    return far.on(ctx, networks.values())


def _far_end(other: far.Far) -> End:
    """They are asked, not made to ask: their namespaces are not here."""
    node = other.node.name if other.node is not None else other.endpoint.node
    return End("address", f"{other.name}@{node}", far=(other.network, other.endpoint))


def _end_line(ctx: Context, end: End) -> nouns.End:
    addresses = ends.addresses_of(ctx, end)
    return ends.line(end, address=str(addresses[0]) if addresses else "")


def _networks(ctx: Context, everybody: list[End]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, end in enumerate(everybody):
        for network, _ in ends.places_of(ctx, end):
            members = found.setdefault(network.name, [])
            if number not in members:
                members.append(number)
    return found


# What is asked


def _round(
    ctx: Context,
    everybody: list[End],
    heard: Listeners,
    timeout: float,
    outside: Places,
    others: dict[str, _Others],
    *,
    is_probed: bool,
) -> _Round:
    services = [
        each for number, end in enumerate(everybody) for each in _services(end, number, heard, others)
    ]
    round_ = _Round(everybody, services, others)
    for from_, source in enumerate(everybody):
        if source.far is not None:
            continue
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
            round_.attempts += [_Attempt(len(round_.cells) - 1, inquiry, aim) for aim in aims]
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


def _services(end: End, number: int, heard: Listeners, others: dict[str, _Others]) -> list[Service]:
    if end.kind == "outside":
        return [Service(end=number, protocol="tcp", port=_OUTSIDE_PORT, why=[])]
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


def doors(end: End, heard: Listeners) -> list[tuple[str, int, list[str]]]:
    """A container's doors by port: protocol, port and why it is one."""
    found: dict[tuple[str, int], dict[str, None]] = {}
    for protocol, port, why in _doors(end, heard):
        found.setdefault((protocol, port), {})[why] = None
    ordered = sorted(found.items(), key=lambda each: (each[0][1], each[0][0]))
    return [(protocol, port, list(why)) for (protocol, port), why in ordered]


def _doors(end: End, heard: Listeners) -> Iterator[tuple[str, int, str]]:
    if end.is_own:
        for each in ends.publications(end)[:_RANGE_SHOWN]:
            if each.protocol in ("tcp", "udp"):
                yield each.protocol, each.container_port, "published"
    for text in end.container.config.exposed_ports if end.container is not None else ():
        port, _, protocol = text.partition("/")
        if port.isdigit() and protocol in ("tcp", "udp", ""):
            yield protocol or "tcp", int(port), "exposed"
    if not end.is_own:
        # The host's own sockets are not this container's doors.
        return
    for kind, at, number in heard.sockets.get(end.netns or HOST, ()):
        if not at.is_loopback and (kind == "tcp" or number < _EPHEMERAL):
            yield kind, number, "listening"


def _name_checks(ctx: Context, containers: list[End], others: list[far.Far]) -> Iterator[_NameCheck]:
    """Every neighbour's name, asked for once in each sandbox."""
    done: set[tuple[str, str]] = set()
    for source in containers:
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
            known = lookup.known(ctx, source.sandbox, name)
            if known.addresses and not known.is_from_file:
                shots = lookup.questions(name, source.netns, ip_address(names.DNS_ADDRESS))
                yield _NameCheck(source, name, known, tuple(shots))


# Other nodes


async def _meet(ctx: Context, stack: AsyncExitStack, alive: list[far.Far]) -> dict[str, _Others]:
    """Ask every node with such ends for their doors, all at once."""
    found: dict[str, _Others] = {}
    for each in alive:
        if each.node is not None and each.node.id not in found:
            found[each.node.id] = _Others(await stack.enter_async_context(Other(ctx, each.node)))
    await asyncio.gather(
        *(
            _learn_doors(others, [each.endpoint for each in alive if each.endpoint.node == node_id])
            for node_id, others in found.items()
        )
    )
    return found


async def _learn_doors(others: _Others, endpoints: list[Endpoint]) -> None:
    try:
        for door in await others.other.doors([each.ipv4 or each.ipv6 for each in endpoints]):
            others.doors.setdefault(door.address, []).append(door)
    except NoAnswerError as error:
        others.problem = str(error)


async def _ready(ctx: Context, round_: _Round, ports: Sequence[int]) -> None:
    """Have the other nodes walk their halves of what concerns them, and look out for the packets."""
    pairs: dict[str, list[far_words.Pair]] = {}
    for attempt in round_.attempts:
        place = attempt.inquiry.target.far
        others = round_.others.get(place[1].node) if place is not None else None
        pair = _pair(ctx, attempt) if others is not None and not others.problem else None
        if pair is not None and others is not None:
            pairs.setdefault(others.other.node.id, []).append(pair)
            others.asked.append(attempt)
    for node_id, asked in pairs.items():
        round_.others[node_id].other.ready(asked, ports)
    for node_id in pairs:
        others = round_.others[node_id]
        try:
            for attempt, half in zip(others.asked, await others.other.halves(), strict=True):
                attempt.across = half
        except NoAnswerError as error:
            others.problem = str(error)


def _pair(ctx: Context, attempt: _Attempt) -> far_words.Pair | None:
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


async def _reports(round_: _Round) -> None:
    await asyncio.gather(
        *(_hear_report(each) for each in round_.others.values() if each.asked and not each.problem)
    )


async def _hear_report(others: _Others) -> None:
    sent = [(number, each) for number, each in enumerate(others.asked) if each.result is not None]
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


# Asking


def _fire(
    probing: Probing, round_: _Round, checks: list[_NameCheck], timeout: float, is_probed: bool
) -> list[str]:
    """Send everything; what is wrong with names."""
    if not is_probed:
        return []
    if probing.outside is not None:
        for version in (4, 6):
            if probing.outside.places.far(version) is not None:
                probing.outside.serve("tcp", version, _OUTSIDE_PORT)
    shots = [
        Shot(each.inquiry.source.netns or HOST, each.aim.address, each.inquiry.protocol, each.aim.port, each.aim.netns)
        for each in round_.attempts
    ]  # fmt: skip
    for attempt, result in zip(round_.attempts, probing.fire(shots, timeout), strict=True):
        attempt.result = result
    return list(_names_told(checks, probing.fire([one for each in checks for one in each.shots], timeout)))


def _names_told(checks: list[_NameCheck], results: list[ProbeResult]) -> Iterator[str]:
    at = 0
    for each in checks:
        own = results[at : at + len(each.shots)]
        at += len(each.shots)
        asked = lookup.judge(ip_address(names.DNS_ADDRESS), own)
        if not asked.is_answered or set(asked.addresses) != set(each.known.addresses):
            should = ", ".join(map(str, each.known.addresses))
            yield f"{each.source.name} should know {each.name} as {should}, but {asked.text}"


def _walk(ctx: Context, picture: Picture, round_: _Round, heard: Listeners, outside: Places) -> None:
    walker = Walker(picture, heard, outside)
    between = Between(ctx, walker)
    for each in round_.attempts:
        each.wanted, each.found = walker.walk(probe_of(each.inquiry, each.aim))
        place = each.inquiry.target.far
        others = round_.others.get(place[1].node) if place is not None else None
        if place is not None and others is not None:
            each.wanted, each.found = between.whole(
                each.wanted, each.found, place[0], others.other.node, each.across
            )


# What it comes to


def _cell(round_: _Round, number: int, picture: Picture) -> Cell:
    from_, to = round_.cells[number]
    own = [each for each in round_.attempts if each.cell == number]
    worst = next((each for each in own if not _is_as_asked(each)), own[0])
    wanted, found = worst.wanted, worst.found
    assert wanted is not None and found is not None
    text = ""
    is_as_asked = all(_is_as_asked(each) for each in own)
    if not is_as_asked:
        judged = conclude.conclude(wanted, found, worst.result)
        why = judged.text
        if worst.result is not None and worst.result.outcome == "failed":
            why = f"the packet could not be sent: {worst.result.text}"
        text = named(f"at {worst.aim.address}: {why}", picture.names)
    return Cell(
        source=from_,
        target=to,
        wanted=wanted.verdict,
        found=found.verdict,
        probe=conclude.verdict_of(worst.result) if worst.result is not None else "",
        is_reachable=_is_reachable(worst),
        is_as_asked=is_as_asked,
        text=text,
    )


def _is_reachable(attempt: _Attempt) -> bool:
    """What was asked for; where the walk cannot tell, what the packet found."""
    assert attempt.wanted is not None
    should = conclude.arrives(attempt.wanted)
    if should is None:
        did = conclude.has_arrived(attempt.result) if attempt.result is not None else None
        return bool(did)
    return should


def _is_as_asked(attempt: _Attempt) -> bool:
    assert attempt.wanted is not None and attempt.found is not None
    opinions = {conclude.arrives(attempt.wanted), conclude.arrives(attempt.found)}
    if opinions == {True} and conclude.place_of(attempt.wanted) != conclude.place_of(attempt.found):
        return False
    if attempt.result is not None:
        if attempt.result.outcome == "failed":
            # Nothing is proven.
            return False
        opinions.add(conclude.has_arrived(attempt.result))
    return len(opinions - {None}) <= 1


def _findings(round_: _Round, cells: list[Cell]) -> Iterator[str]:
    for cell in cells:
        if cell.is_as_asked:
            continue
        service = round_.services[cell.target]
        door = f":{service.port}/{service.protocol}" if service.port else ""
        source, target = round_.ends[cell.source].name, round_.ends[service.end].name
        should = "should reach" if cell.is_reachable else "should not reach"
        yield f"{source} {should} {target}{door}: {cell.text}"


def _differences(ctx: Context, picture: Picture, project: str) -> tuple[Op, ...]:
    """The steps that would mend the kernel, as far as they are this project's or everybody's."""
    ops = picture.differences()
    if not project:
        return ops
    own: set[str] = set()
    for container in ctx.tables.containers.all(ctx.local):
        if container.config.labels.get(_PROJECT) == project:
            own.add(container.sandbox_id)
            own |= {each.network_id for each in of_sandbox(ctx, container.sandbox_id)}
    return tuple(
        each for each in ops if not (owners := picture.owners.get(each.object.key, ())) or own & set(owners)
    )
