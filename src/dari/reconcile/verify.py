"""verify: who can reach whom and who cannot, by what was asked, by what the kernel has, and by real packets.

Every container asks every other one, at each of its addresses and doors; the place outside asks their published
ports, the host all of them. Names are asked for too. Those on other nodes are asked as well, and their nodes tell
their halves and what they saw of the packets. Must not know: HTTP, tables for people.
Next: verify_round.py, verify_others.py, verify_names.py, verify_cells.py; explain.py is one pair in depth.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from dari.kernel.outside import Places
from dari.kernel.probe import Probing, some_ports
from dari.model import explain as nouns
from dari.model.errors import Internal, NotFound
from dari.model.explain import Verification
from dari.net.packet import OUTSIDE, Listeners
from dari.net.plan import Op
from dari.net.state import HOST
from dari.reconcile import ends, far, verify_others
from dari.reconcile.across import Between
from dari.reconcile.attached import of_sandbox
from dari.reconcile.context import Context
from dari.reconcile.doors import listeners
from dari.reconcile.ends import HOST_END, OUTSIDE_END, End
from dari.reconcile.inquiry import places, probe_of, shot
from dari.reconcile.picture import Picture, Walker, look
from dari.reconcile.probes import Probes
from dari.reconcile.telling import named
from dari.reconcile.verify_cells import cells_of, findings
from dari.reconcile.verify_names import NameCheck, name_checks, names_told
from dari.reconcile.verify_round import OUTSIDE_PORT, Attempt, Round, make_round

_PROJECT = "com.docker.compose.project"


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
    others = verify_others.others(ctx, containers)
    alive = [verify_others.far_end(each) for each in others if each.node is not None]
    everybody = [*containers, *alive, OUTSIDE_END, HOST_END]
    concerned = {each.netns for each in containers if each.netns}
    async with AsyncExitStack() as stack:
        met = [each for each in others if each.node is not None]
        asked = await verify_others.meet(ctx, stack, met, timeout)
        ports = some_ports()
        try:
            probes = await Probes.make(
                ctx, concerned, outside if is_probed else None, is_traced=is_probed, ports=ports
            )
            try:
                heard = await probes.run(listeners, {*concerned, HOST})
                round_ = await make_round(ctx, everybody, heard, timeout, outside, asked, is_probed=is_probed)
                await probes.run(_serve_outside)
                for batch in verify_others.batches(ctx, round_):
                    await verify_others.ready(round_, batch, ports if is_probed else ())
                    if is_probed:
                        await probes.run(_fire, batch.attempts, timeout)
                        await verify_others.reports(round_, batch)
                checks = [each async for each in name_checks(ctx, containers, others)] if is_probed else []
                told = await probes.run(_ask_names, checks, timeout)
                untraced = probes.round.untraced if is_probed else ""
            finally:
                await probes.close()
        except OSError as error:
            raise Internal(f"the probes could not be made: {error.strerror or error}") from error
    await asyncio.to_thread(_walk, ctx, picture, round_, heard, outside)
    cells = cells_of(round_, picture)
    ops = _differences(ctx, picture, project)
    told += [far.dead(each).text for each in others if each.node is None]
    told += [
        f"{each.problem}: what its containers do is guessed from the store"
        for each in asked.values()
        if each.problem
    ]
    told += findings(round_, cells)
    return Verification(
        project=project,
        is_as_asked=all(each.is_as_asked for each in cells) and not told and not ops,
        ends=[_end_line(ctx, each) for each in everybody],
        networks=_networks(ctx, everybody),
        services=round_.services,
        cells=cells,
        findings=told,
        differences=[named(str(each), picture.names) for each in ops],
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


def _serve_outside(probing: Probing) -> None:
    if probing.outside is not None:
        for version in (4, 6):
            if probing.outside.places.far(version) is not None:
                probing.outside.serve("tcp", version, OUTSIDE_PORT)


def _fire(probing: Probing, attempts: list[Attempt], timeout: float) -> None:
    shots = [shot(each.inquiry, each.aim) for each in attempts]
    for attempt, result in zip(attempts, probing.fire(shots, timeout), strict=True):
        attempt.result = result


def _ask_names(probing: Probing, checks: list[NameCheck], timeout: float) -> list[str]:
    """What is wrong with names."""
    return list(names_told(checks, probing.fire([one for each in checks for one in each.shots], timeout)))


def _walk(ctx: Context, picture: Picture, round_: Round, heard: Listeners, outside: Places) -> None:
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
