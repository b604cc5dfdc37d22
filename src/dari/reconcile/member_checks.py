"""Asking members that are not containers how they are, and saying what they answered.

Each registration is checked by one node, its owner; when that node is gone another takes it over. A member with a
time to live speaks for itself: without a heartbeat in time it is withdrawn. The node that heard the last one counts
the time: a heartbeat that comes to another node moves that duty there by one write of the member's row, and those
that follow it cost nothing. Must not know: HTTP's API, DNS.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import msgspec

from dari.model.errors import NotFound, Unavailable
from dari.model.registration import Check, Registration, Verdict
from dari.reconcile import members
from dari.reconcile.context import Context
from dari.reconcile.node_claims import why_not_joined
from dari.reconcile.settle import settle_quietly
from dari.store.base import StoreAway, StoreUnavailable, Txn, TxnConflict
from dari.store.federation import Federation
from dari.units import SECOND

log = logging.getLogger(__name__)

_Tell = Callable[[int, Verdict, str], Awaitable[None]]

_OUTPUT_LIMIT = 512
_ADOPT_SECONDS = 2.0
_AGAIN_SECONDS = 1.0
_TRIES = 16


@dataclass(slots=True)
class _Hearing:
    """A member whose heartbeats this node counts. `is_over`: none came in time, it is being withdrawn."""

    registration: Registration
    beat: asyncio.Event
    task: asyncio.Task[None] | None = None
    is_over: bool = False


class Checker:
    """The checks this node does. `run` goes on until cancelled; `beat` hears a heartbeat."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._tasks: dict[str, tuple[Registration, asyncio.Task[None]]] = {}
        self._hearing: dict[str, _Hearing] = {}

    async def run(self) -> None:
        try:
            async for _ in _often(self._ctx.shared.watch(self._ctx.tables.registrations.prefix)):
                await self._adopt()
                self._sort()
                await settle_quietly(self._ctx, members.ZONE_ID)
        finally:
            for _, task in self._tasks.values():
                task.cancel()
            for each in self._hearing.values():
                if each.task is not None:
                    each.task.cancel()

    async def beat(self, registration_id: str) -> None:
        """A sign of life, whichever node counts them.

        Raises NotFound where there is no such member (any more), Unavailable where another node counts and the store
        cannot be told.
        """
        for _ in range(_TRIES):
            hearing = self._hearing.get(registration_id)
            if hearing is not None and hearing.is_over:
                # It may have been registered again since.
                self._sort()
                hearing = self._hearing.get(registration_id)
            if hearing is not None:
                if hearing.is_over:
                    raise _unknown(registration_id)
                hearing.beat.set()
                return
            found = await self._find(registration_id)
            if found.hearer != self._ctx.node_id:
                await self._take_over(found)
            self._sort()
        raise Unavailable(f"registration {registration_id} is being changed by other requests, try again")

    async def _find(self, registration_id: str) -> Registration:
        """A member that speaks for itself. Raises NotFound, Unavailable (the store has to be asked, and is away)."""
        for is_fresh in (False, True):
            if is_fresh:
                # It may have been registered at another node a moment ago.
                await refresh(self._ctx)
            for each in self._ctx.tables.registrations.all(self._ctx.shared):
                if each.id == registration_id and any(check.kind == "ttl" for check in each.checks):
                    return each
        raise _unknown(registration_id)

    async def _take_over(self, found: Registration) -> None:
        """Count from now on; where the row has changed meanwhile nothing is done. Raises Unavailable."""
        ctx = self._ctx
        what = f"the heartbeat of {found.name} ({found.id}) was not counted: another node counts them"
        if problem := why_not_joined(ctx):
            raise Unavailable(f"{what}, and this one cannot take that over: {problem}")
        txn = Txn()
        here = msgspec.structs.replace(found, heard_by=ctx.node_id)
        ctx.tables.registrations.replace(txn, ctx.shared, here, found.name, found.id)
        try:
            await ctx.shared.commit(txn)
        except TxnConflict:
            log.debug("%s (%s) was changed meanwhile", found.name, found.id)
        except StoreUnavailable as error:
            raise Unavailable(f"{what}, and this one cannot take that over: {error.message}") from error

    async def _adopt(self) -> None:
        """Take over what nodes that are gone checked or heard: the living node whose id comes first does."""
        ctx = self._ctx
        if ctx.node is None:
            return
        living = {each.id for each in ctx.tables.nodes.all(ctx.shared)}
        if ctx.node_id not in living or min(living) != ctx.node_id:
            return
        for each in ctx.tables.registrations.all(ctx.shared):
            owner = each.owner if each.owner in living else ctx.node_id
            heard_by = each.heard_by if each.heard_by in living else ""
            adopted = msgspec.structs.replace(each, owner=owner, heard_by=heard_by)
            if adopted != each:
                await self._write(each, adopted)

    def _sort(self) -> None:
        """One task for each registration of ours that has checks, and one for each whose heartbeats are counted here,
        begun anew where it was changed by its maker."""
        ctx = self._ctx
        known = ctx.tables.registrations.all(ctx.shared)
        self._sort_checks({each.id: each for each in known if _asked(each) and each.owner == ctx.node_id})
        self._sort_hearing(
            {each.id: each for each in known if _time_to_live(each) and each.hearer == ctx.node_id}
        )

    def _sort_checks(self, wanted: dict[str, Registration]) -> None:
        for known in [*self._tasks]:
            before, task = self._tasks[known]
            if known not in wanted or wanted[known].created != before.created:
                task.cancel()
                del self._tasks[known]
        for each in wanted.values():
            if each.id not in self._tasks:
                self._tasks[each.id] = (each, asyncio.create_task(self._watch(each)))

    def _sort_hearing(self, wanted: dict[str, Registration]) -> None:
        for known, hearing in [*self._hearing.items()]:
            if known not in wanted or wanted[known].created != hearing.registration.created:
                if hearing.task is not None:
                    hearing.task.cancel()
                del self._hearing[known]
        for each in wanted.values():
            if each.id not in self._hearing:
                hearing = self._hearing[each.id] = _Hearing(each, asyncio.Event())
                hearing.task = asyncio.create_task(self._expire(hearing, _time_to_live(each)))

    async def _watch(self, registration: Registration) -> None:
        """All checks of one member that are asked; it is as good as the worst of them."""
        verdicts: dict[int, tuple[Verdict, str]] = {}
        asked = _asked(registration)

        async def tell(index: int, verdict: Verdict, output: str) -> None:
            verdicts[index] = (verdict, output)
            worst = next((each for each in verdicts.values() if each[0] == "critical"), None)
            if worst is None and len(verdicts) < len(asked):
                return
            await self._say(registration, *(worst or ("passing", "")))

        async with asyncio.TaskGroup() as group:
            for index, check in enumerate(asked):
                group.create_task(self._repeat(registration, check, index, tell))

    async def _repeat(self, registration: Registration, check: Check, index: int, tell: _Tell) -> None:
        failures = 0
        while True:
            output = await ask(registration, check)
            failures = failures + 1 if output else 0
            if not output:
                await tell(index, "passing", "")
            elif failures >= check.retries:
                await tell(index, "critical", output)
            await asyncio.sleep(check.interval / SECOND)

    async def _expire(self, hearing: _Hearing, seconds: float) -> None:
        while True:
            hearing.beat.clear()
            try:
                async with asyncio.timeout(seconds):
                    await hearing.beat.wait()
            except TimeoutError:
                break
        hearing.is_over = True
        one = hearing.registration
        log.info("%s (%s) was not heard of in time: withdrawn", one.name, one.id)
        await self._withdraw(one)

    async def _withdraw(self, registration: Registration) -> None:
        """What another node has heard of meanwhile is not withdrawn: the store knows who was first."""
        ctx, table = self._ctx, self._ctx.tables.registrations
        key = table.key(registration.name, registration.id)
        while True:
            row, now = ctx.shared.get(key), table.at(ctx.shared, key)
            if row is None or now is None or now.hearer != ctx.node_id or now.created != registration.created:
                return
            try:
                await ctx.shared.commit(Txn(checks={key: row.revision}, deletes={key}))
                return
            except StoreUnavailable as error:
                log.info("%s waits to be withdrawn: %s", registration.name, error.message)
            except TxnConflict:
                log.debug("%s was changed meanwhile", registration.name)
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _say(self, registration: Registration, verdict: Verdict, output: str) -> None:
        now = self._ctx.tables.registrations.get(self._ctx.shared, registration.name, registration.id)
        if now is None or (now.verdict, now.output) == (verdict, output):
            return
        changed = self._ctx.now() if now.verdict != verdict else now.changed
        told = msgspec.structs.replace(now, verdict=verdict, output=output, changed=changed)
        await self._write(now, told)

    async def _write(self, before: Registration, after: Registration) -> None:
        txn = Txn()
        self._ctx.tables.registrations.replace(txn, self._ctx.shared, after, before.name, before.id)
        try:
            await self._ctx.shared.commit(txn)
        except TxnConflict:
            log.debug("%s was changed meanwhile", before.name)
        except StoreUnavailable as error:
            log.info("what %s is cannot be told: %s", before.name, error.message)


def _asked(registration: Registration) -> list[Check]:
    """Its checks that somebody has to do."""
    return [each for each in registration.checks if each.kind != "ttl"]


def _time_to_live(registration: Registration) -> float:
    """Seconds without a heartbeat after which it is withdrawn; 0 where it need not send any."""
    return next((each.interval / SECOND for each in registration.checks if each.kind == "ttl"), 0.0)


def _unknown(registration_id: str) -> NotFound:
    return NotFound(f"no such registration with a time to live: {registration_id}; register again")


async def refresh(ctx: Context) -> None:
    """Have all registrations as they are in the store now. Raises Unavailable."""
    if isinstance(ctx.shared, Federation):
        status = ctx.shared.status()
        if not status.is_connected:
            raise StoreAway(status.url, status.reason)
        await ctx.shared.remote.refresh(ctx.tables.registrations.prefix)


async def _often(changes: AsyncIterator[frozenset[str]]) -> AsyncIterator[None]:
    """At every change, and now and then without one: nodes come and go, too."""
    pending: asyncio.Task[frozenset[str]] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(changes))
            done, _ = await asyncio.wait({pending}, timeout=_ADOPT_SECONDS)
            if done:
                try:
                    pending.result()
                except StopAsyncIteration:
                    return
                pending = None
            yield
    finally:
        if pending is not None:
            pending.cancel()


async def ask(registration: Registration, check: Check) -> str:
    """Do a check once. Empty where it passed, else what was wrong, in one line."""
    try:
        async with asyncio.timeout(check.timeout / SECOND):
            match check.kind:
                case "tcp":
                    return await _tcp(check.target or _place(registration))
                case "http":
                    return await _http(check.target or f"http://{_place(registration)}/")
                case _:
                    return await _command(check.target)
    except TimeoutError:
        return f"no answer within {check.timeout / SECOND:g}s"


def _place(registration: Registration) -> str:
    address = f"[{registration.address}]" if ":" in registration.address else registration.address
    return f"{address}:{registration.port}"


async def _tcp(target: str) -> str:
    host, _, port = target.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except OSError as error:
        return f"{target}: {(error.strerror or str(error)).lower()}"
    writer.close()
    return ""


async def _http(url: str) -> str:
    try:
        async with aiohttp.ClientSession(trust_env=False) as client:
            async with client.get(url, allow_redirects=False) as response:
                return "" if response.status < 400 else f"{url}: status {response.status}"
    except (aiohttp.ClientError, OSError) as error:
        return f"{url}: {error}"[:_OUTPUT_LIMIT]


async def _command(line: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *shlex.split(line),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except (OSError, ValueError) as error:
        return f"{line}: {error}"
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode == 0:
        return ""
    return (output.decode(errors="replace").strip() or f"exit status {process.returncode}")[:_OUTPUT_LIMIT]
