"""Which published ports the relay carries: those at [::1], which the kernel cannot translate, and those of an IPv6
address whose container has an IPv4 address only. All others that are held (holds.py) it only holds, too.

The held socket listens, where it is carried, and is handed over; the relay outlives this daemon, and the next one takes
its handles back from it, so that nobody else has the port in between. It is started when the first port is published;
what is only held is handed over a moment later, since no start has to wait for it. Must not know: rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from dari.model.network import PublishedPort, Sandbox
from dari.net.state import Address
from dari.reconcile.context import Context
from dari.reconcile.holds import Claim
from dari.reconcile.networks import gateway_endpoint, of_sandbox
from dari.relay import door
from dari.runtime.processes import wait_end

log = logging.getLogger(__name__)

_START_SECONDS = 5.0
_HAND_OVER_SECONDS = 0.2
_LOOK_SECONDS = 5.0
_QUESTIONS = 3
WHOLE = -1
HELD = ("", 0)
"""The target of ports that are only held."""


class Want(NamedTuple):
    """One relayed port: its claim, its place in it, and where its connections go. Place WHOLE: a long range by one
    socket, `target` the first port's."""

    claim: Claim
    place: int
    target: tuple[str, int]


def _directory(ctx: Context) -> str:
    return f"{ctx.config.exec_root}/relay"


def _name(claim: Claim, port: int) -> str:
    return f"{claim.protocol} [{claim.address}]:{port}"


def _range_name(claim: Claim) -> str:
    return f"{claim.protocol} [{claim.address}]:{claim.first}-{claim.last}"


def _held_name(claim: Claim) -> str:
    return f"held {claim.protocol} [{claim.address}]:{claim.first}-{claim.last}"


def claim_of(published: PublishedPort) -> Claim:
    last = published.host_port + published.count - 1
    return Claim(published.protocol, published.host_ip, published.host_port, last)


def _wanted(ctx: Context, sandbox: Sandbox) -> Iterator[tuple[str, Want]]:
    published = [each for each in sandbox.ports if ":" in each.host_ip and each.host_port]
    if not published:
        return
    endpoint = gateway_endpoint(ctx, (each for each in of_sandbox(ctx, sandbox.id) if each.is_active))
    address = (endpoint.ipv6 or endpoint.ipv4) if endpoint is not None else ""
    for each in published:
        claim, host = claim_of(each), ip_address(each.host_ip)
        is_translated = ":" in address and not host.is_loopback and not host.is_unspecified
        if not address or is_translated or claim.protocol == "sctp":
            continue
        if not claim.is_held:
            yield _range_name(claim), Want(claim, WHOLE, (address, each.container_port))
        else:
            for place, (host_port, container_port) in enumerate(each.pairs()):
                yield _name(claim, host_port), Want(claim, place, (address, container_port))


def _held(ctx: Context, sandbox: Sandbox) -> Iterator[tuple[str, Claim]]:
    """What is only held of a sandbox's ports."""
    carried = {want.claim for _, want in _wanted(ctx, sandbox)}
    for each in sandbox.ports:
        claim = claim_of(each)
        if each.host_port and claim.is_held and claim not in carried:
            yield _held_name(claim), claim


def wanted(ctx: Context) -> dict[str, tuple[str, Want]]:
    """By name the sandbox that publishes a relayed port, and where it goes."""
    return {
        name: (sandbox.id, want)
        for sandbox in ctx.tables.sandboxes.all(ctx.local)
        for name, want in _wanted(ctx, sandbox)
    }


def takes(ctx: Context, protocol: str, address: Address, port: int) -> bool:
    """Whether a range's one socket takes it: the kernel lists nobody who listens on that port."""
    return any(
        claim.protocol == protocol
        and claim.first <= port <= claim.last
        and ip_address(claim.address) in (address, IPv6Address(0))
        for _, (claim, place, _) in wanted(ctx).values()
        if place == WHOLE
    )


async def entries(ctx: Context) -> dict[str, tuple[str, int]] | None:
    """What the relay carries, and where to; None where none answers."""
    found = await asyncio.to_thread(door.entries, _directory(ctx))
    return None if found is None else found[1]


async def renew(ctx: Context) -> None:
    """End a relay that hangs, and have one carry everything that is wanted."""
    # Its end is heard of (`_again`), which takes the lock.
    await _end_mute(ctx)
    async with ctx.lock("settle"):
        ctx.relays.told.clear()
        await carry(ctx, {owner for owner, _ in wanted(ctx).values()})


async def _end_mute(ctx: Context) -> None:
    """One that hangs has the sockets, and who speaks to it waits; asked more than once, for a machine may be busy."""
    pid = await asyncio.to_thread(door.owner, _directory(ctx))
    for _ in range(_QUESTIONS if pid else 0):
        if await entries(ctx) is not None:
            return
    if pid:
        log.warning("the relay (pid %d) does not answer, ending it", pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        await wait_end(pid)


async def carry(ctx: Context, sandbox_ids: Iterable[str]) -> None:
    """Make the relay agree with what these sandboxes publish. What goes wrong is in the log: the ports answer at all
    other addresses all the same."""
    told = ctx.relays.told
    new: dict[str, Want] = {}
    for sandbox_id in sandbox_ids:
        sandbox = ctx.tables.sandboxes.get(ctx.local, sandbox_id)
        wants = dict(_wanted(ctx, sandbox)) if sandbox is not None else {}
        held = dict(_held(ctx, sandbox)) if sandbox is not None else {}
        drop(
            ctx,
            [n for n, (who, _) in told.items() if who == sandbox_id and n not in wants and n not in held],
        )
        if any(name not in told and claim in ctx.holds.held for name, claim in held.items()):
            _hand_over_later(ctx)
        for name, want in wants.items():
            if told.get(name) != (sandbox_id, want.target):
                new[name] = want
                told[name] = (sandbox_id, want.target)
    found = {name: sock for name, want in new.items() if (sock := _socket(ctx, name, want)) is not None}
    if found and await _ensure(ctx):
        for name, sock in found.items():
            _add(ctx, name, new[name], sock)
    if not told and ctx.relays.pid:
        stop(ctx)


def _hand_over_later(ctx: Context) -> None:
    if ctx.relays.handing is not None and not ctx.relays.handing.done():
        return
    task = ctx.relays.handing = asyncio.create_task(_hand_over(ctx), name="handing over held ports")
    ctx.tasks.add(task)
    task.add_done_callback(ctx.tasks.discard)


async def _hand_over(ctx: Context) -> None:
    """Everything that is held and the relay has not got."""
    await asyncio.sleep(_HAND_OVER_SECONDS)
    ctx.relays.handing = None
    if not await _ensure(ctx) or await asyncio.to_thread(door.held, _directory(ctx)) is None:
        return
    # From here on nobody else's turn comes.
    for sandbox in ctx.tables.sandboxes.all(ctx.local):
        for name, claim in _held(ctx, sandbox):
            sockets = ctx.holds.held.get(claim)
            if not sockets or name in ctx.relays.told:
                continue
            if door.hold(_directory(ctx), name, sockets):
                ctx.relays.told[name] = (sandbox.id, HELD)
            else:
                log.warning("the relay does not take %s: it is free while darid is away", name)
    if not ctx.relays.told:
        stop(ctx)


def _socket(ctx: Context, name: str, want: Want) -> socket.socket | None:
    if want.place == WHOLE:
        return _range_socket(name, want.claim)
    sockets = ctx.holds.held.get(want.claim, [])
    if want.place < len(sockets):
        return sockets[want.place]
    log.error("%s is not held and cannot be relayed", name)
    return None


def _range_socket(name: str, claim: Claim) -> socket.socket | None:
    """At any free port: the kernel is told which ones it is for."""
    kind = socket.SOCK_STREAM if claim.protocol == "tcp" else socket.SOCK_DGRAM
    made = socket.socket(socket.AF_INET6, kind)
    try:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((claim.address, 0))
    except OSError as error:
        made.close()
        log.error("%s cannot be relayed: %s", name, error.strerror)
        return None
    return made


def _add(ctx: Context, name: str, want: Want, sock: socket.socket) -> None:
    if want.claim.protocol == "tcp":
        # Its connections inherit this: what lingers of them must not keep the port from the next who gets it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.listen(128)
    claim = want.claim
    span = (claim.address, claim.first, claim.last) if want.place == WHOLE else None
    if not door.add(_directory(ctx), name, claim.protocol, want.target, sock, span):
        log.error("the relay does not take %s", name)
    if span is not None:
        # The relay alone has it; another one gets another.
        sock.close()


def drop(ctx: Context, names: Iterable[str]) -> None:
    """The relay lets go of these, as far as it has them."""
    gone = [name for name in names if ctx.relays.told.pop(name, None) is not None]
    if gone and not door.drop(_directory(ctx), gone):
        log.warning("the relay does not answer: %s", ", ".join(gone))


def drop_claims(ctx: Context, claims: Iterable[Claim]) -> None:
    """The same for all ports of these claims."""
    names = []
    for claim in claims:
        names += [_held_name(claim), _range_name(claim)]
        if ":" in claim.address:
            names += [_name(claim, port) for port in range(claim.first, claim.last + 1)]
    drop(ctx, names)


async def end_lost(ctx: Context) -> None:
    """End a relay whose door went with an exec root that somebody removed: it has the ports, and nobody can ask it."""
    if os.path.exists(os.path.join(_directory(ctx), door.SOCKET)):
        return
    for pid in await asyncio.to_thread(lambda: [*_relays_of(_directory(ctx))]):
        log.warning("a relay without a door (pid %d) has ports, ending it", pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        await wait_end(pid)


def _relays_of(directory: str) -> Iterator[int]:
    """Processes in our network namespace that were started as relays over a folder."""
    words = [each.encode() for each in door.command(directory)[1:]]
    here = os.readlink("/proc/self/ns/net")
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                found = file.read().split(b"\0")
            if found[1:-1] == words and os.readlink(f"/proc/{name}/ns/net") == here:
                yield int(name)
        except OSError:
            # It ended meanwhile.
            continue


async def adopt(ctx: Context) -> None:
    """Take back what a relay of an earlier daemon carries; what nobody wants any more it lets go of."""
    found = await asyncio.to_thread(door.entries, _directory(ctx))
    if found is None:
        await _end_mute(ctx)
        return
    pid, entries = found
    await _adopt_held(ctx)
    wants = wanted(ctx)
    handles: dict[Claim, dict[int, socket.socket]] = {}
    for name, target in entries.items():
        if name in wants and wants[name][1].place == WHOLE:
            ctx.relays.told[name] = (wants[name][0], target)
            continue
        sock = door.get(_directory(ctx), name) if name in wants else None
        if sock is None:
            door.drop(_directory(ctx), [name])
            continue
        owner, want = wants[name]
        handles.setdefault(want.claim, {})[want.place] = sock
        ctx.relays.told[name] = (owner, target)
    for claim, sockets in handles.items():
        if len(sockets) == claim.last - claim.first + 1:
            ctx.holds.held[claim] = [sockets[place] for place in range(len(sockets))]
        else:
            # Cut short by a death: bound anew.
            for each in sockets.values():
                each.close()
            drop_claims(ctx, [claim])
    _supervise(ctx, pid)


async def _adopt_held(ctx: Context) -> None:
    wants = {
        name: (sandbox.id, claim)
        for sandbox in ctx.tables.sandboxes.all(ctx.local)
        for name, claim in _held(ctx, sandbox)
    }
    for name in await asyncio.to_thread(door.held, _directory(ctx)) or ():
        owner, claim = wants.get(name, ("", None))
        sockets = door.get_all(_directory(ctx), name) if claim is not None else []
        if claim is not None and len(sockets) == claim.last - claim.first + 1:
            ctx.holds.held[claim] = sockets
            ctx.relays.told[name] = (owner, HELD)
            continue
        for each in sockets:
            each.close()
        door.drop(_directory(ctx), [name])


async def _ensure(ctx: Context) -> bool:
    """Whether a relay answers, started if need be."""
    async with ctx.lock("relay"):
        return await _started(ctx)


async def _started(ctx: Context) -> bool:
    directory = _directory(ctx)
    if await asyncio.to_thread(door.entries, directory) is not None:
        return True
    child = await asyncio.to_thread(_start, ctx)
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        if await asyncio.to_thread(door.entries, directory) is not None:
            _supervise(ctx, child.pid, child)
            return True
        await asyncio.sleep(0.01)
    log.error(
        "the relay does not start, see %s/relay.log: ports at [::1] do not answer, others are free while darid is away",
        ctx.config.exec_root,
    )
    return False


def _start(ctx: Context) -> subprocess.Popen[bytes]:
    with open(f"{ctx.config.exec_root}/relay.log", "ab") as output:
        return subprocess.Popen(
            door.command(_directory(ctx)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
        )


def _supervise(ctx: Context, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
    ctx.relays.pid = pid
    task = asyncio.create_task(_again(ctx, pid, child), name=f"relay {pid}")
    ctx.tasks.add(task)
    task.add_done_callback(ctx.tasks.discard)


async def _again(ctx: Context, pid: int, child: subprocess.Popen[bytes] | None) -> None:
    """When the relay ends, of itself or because it hangs, another one takes over: the sockets are here too."""
    while True:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await wait_end(pid)
            break
        except TimeoutError:
            await _end_mute(ctx)
    if child is not None:
        child.poll()
    if ctx.relays.pid != pid:
        # It was told to end; another one may be there already.
        return
    owners = {owner for owner, _ in ctx.relays.told.values()}
    ctx.relays.told.clear()
    ctx.relays.pid = 0
    if owners:
        log.warning("the relay (pid %d) ended, starting it again", pid)
        async with ctx.lock("settle"):
            await carry(ctx, owners)


def stop(ctx: Context) -> None:
    """End the relay, if one runs; for when it has nothing to carry any more."""
    ctx.relays.told.clear()
    pid, ctx.relays.pid = ctx.relays.pid, 0
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
