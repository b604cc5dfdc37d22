"""Asking members that are not containers how they are, and saying what they answered.

Each registration is checked by one node, its owner; when that node is gone another takes it over. A member with a
time to live speaks for itself: without a heartbeat in time it is withdrawn. Must not know: HTTP's API, DNS.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import msgspec

from dari.model.errors import NotFound
from dari.model.registration import Check, Registration, Verdict
from dari.reconcile import members
from dari.reconcile.context import Context
from dari.reconcile.settle import settle_quietly
from dari.store.base import StoreUnavailable, Txn, TxnConflict
from dari.units import SECOND

log = logging.getLogger(__name__)

_Tell = Callable[[int, Verdict, str], Awaitable[None]]

_OUTPUT_LIMIT = 512
_ADOPT_SECONDS = 2.0


class Checker:
    """The checks this node does. `run` goes on until cancelled; `beat` hears a heartbeat."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._tasks: dict[str, tuple[Registration, asyncio.Task[None]]] = {}
        self._beats: dict[str, asyncio.Event] = {}

    async def run(self) -> None:
        try:
            async for _ in _often(self._ctx.shared.watch(self._ctx.tables.registrations.prefix)):
                await self._adopt()
                self._sort()
                await settle_quietly(self._ctx, members.ZONE_ID)
        finally:
            for _, task in self._tasks.values():
                task.cancel()

    def beat(self, registration_id: str) -> None:
        """A sign of life. Raises NotFound where nobody waits for one."""
        event = self._beats.get(registration_id)
        if event is None:
            raise NotFound(f"no such registration with a time to live: {registration_id}; register again")
        event.set()

    async def _adopt(self) -> None:
        """Take over what nodes that are gone checked: the living node whose id comes first does."""
        ctx = self._ctx
        if ctx.node is None:
            return
        living = {each.id for each in ctx.tables.nodes.all(ctx.shared)}
        if ctx.node_id not in living or min(living) != ctx.node_id:
            return
        for each in ctx.tables.registrations.all(ctx.shared):
            if each.owner not in living:
                await self._write(each, msgspec.structs.replace(each, owner=ctx.node_id))

    def _sort(self) -> None:
        """One task for each registration of ours that has checks, begun anew where it was changed by its maker."""
        ctx = self._ctx
        wanted = {
            each.id: each
            for each in ctx.tables.registrations.all(ctx.shared)
            if each.checks and each.owner == ctx.node_id
        }
        for known in [*self._tasks]:
            before, task = self._tasks[known]
            if known not in wanted or wanted[known].created != before.created:
                task.cancel()
                del self._tasks[known]
                self._beats.pop(known, None)
        for each in wanted.values():
            if each.id not in self._tasks:
                if any(check.kind == "ttl" for check in each.checks):
                    self._beats[each.id] = asyncio.Event()
                self._tasks[each.id] = (each, asyncio.create_task(self._watch(each)))

    async def _watch(self, registration: Registration) -> None:
        """All checks of one member; it is as good as the worst of them."""
        verdicts: dict[int, tuple[Verdict, str]] = {}

        async def tell(index: int, verdict: Verdict, output: str) -> None:
            verdicts[index] = (verdict, output)
            worst = next((each for each in verdicts.values() if each[0] == "critical"), None)
            if worst is None and len(verdicts) < len(registration.checks):
                return
            await self._say(registration, *(worst or ("passing", "")))

        async with asyncio.TaskGroup() as group:
            for index, check in enumerate(registration.checks):
                if check.kind == "ttl":
                    group.create_task(self._expire(registration, check, index, tell))
                else:
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

    async def _expire(self, registration: Registration, check: Check, index: int, tell: _Tell) -> None:
        event = self._beats[registration.id]
        await tell(index, "passing", "")
        while True:
            event.clear()
            try:
                async with asyncio.timeout(check.interval / SECOND):
                    await event.wait()
            except TimeoutError:
                log.info("%s (%s) was not heard of in time: withdrawn", registration.name, registration.id)
                await self._withdraw(registration)
                return

    async def _withdraw(self, registration: Registration) -> None:
        txn = Txn()
        self._ctx.tables.registrations.delete(txn, registration.name, registration.id)
        while True:
            try:
                await self._ctx.shared.commit(txn)
                return
            except StoreUnavailable as error:
                log.info("%s waits to be withdrawn: %s", registration.name, error.message)
                await asyncio.sleep(1.0)

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
