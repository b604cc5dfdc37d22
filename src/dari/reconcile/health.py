"""Asking a running container how it is, at its interval, and writing the answer down.

The judgement (`judge`) is pure. Probes write no exec events: a few hundred containers would push everything else out
of the journal. Must not know: HTTP, restarts. Source: Docker reference, `HEALTHCHECK`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal

import msgspec

from dari.model.container import Container, ContainerConfig, Health, HealthConfig, HealthResult
from dari.model.errors import DariError
from dari.model.event import Event
from dari.reconcile.attached import of_sandbox
from dari.reconcile.context import Context
from dari.reconcile.rows import change, event, with_status
from dari.reconcile.settle import settle_quietly
from dari.runtime.launch import ExecSpec
from dari.store.base import StoreUnavailable, Txn
from dari.units import SECOND

log = logging.getLogger(__name__)

KEPT = 5
OUTPUT_LIMIT = 4096
_INTERVAL = 30 * SECOND
_TIMEOUT = 30 * SECOND
_START_INTERVAL = 5 * SECOND
_RETRIES = 3
TIMED_OUT = -1


def wait_before(config: HealthConfig, status: str, running_for: int) -> int:
    """Nanoseconds until the next probe: shorter while a container is still within its start period."""
    if status == "starting" and running_for < config.start_period:
        return config.start_interval or _START_INTERVAL
    return config.interval or _INTERVAL


def judge(health: Health, result: HealthResult, config: HealthConfig, running_for: int) -> Health:
    """The health after one more probe; failures within the start period do not count."""
    kept = [*health.log, result][-KEPT:]
    if result.exit_code == 0:
        return Health(status="healthy", failing_streak=0, log=kept)
    if health.status == "starting" and running_for < config.start_period:
        return Health(status="starting", failing_streak=health.failing_streak, log=kept)
    streak = health.failing_streak + 1
    is_over = streak >= (config.retries or _RETRIES)
    return Health(status="unhealthy" if is_over else health.status, failing_streak=streak, log=kept)


def command(config: ContainerConfig) -> list[str]:
    """The probe's command line; empty where there is none."""
    test = config.healthcheck.test if config.healthcheck is not None else []
    match test[:1]:
        case ["CMD"]:
            return test[1:]
        case ["CMD-SHELL"]:
            return [*(config.shell or ["/bin/sh", "-c"]), *test[1:]]
        case _:
            return []


async def check(ctx: Context, container_id: str) -> None:
    """Probe until cancelled, or until the container no longer runs."""
    while True:
        container = ctx.tables.containers.get(ctx.local, container_id)
        if container is None or container.status.state != "running" or container.status.health is None:
            return
        config = container.config.healthcheck
        words = command(container.config)
        if config is None or not words:
            return
        running_for = _running_for(ctx, container)
        await asyncio.sleep(wait_before(config, container.status.health.status, running_for) / SECOND)
        result = await probe(ctx, container, words, config.timeout or _TIMEOUT)
        await _record(ctx, container_id, config, result)


def _running_for(ctx: Context, container: Container) -> int:
    return ctx.life(container.id).ran_for(container.status.started, ctx.now())


async def probe(ctx: Context, container: Container, words: list[str], timeout: int) -> HealthResult:
    """Run the command once. A probe that cannot run, or takes longer than `timeout` (ns), has failed."""
    begin = ctx.now()
    output = bytearray()
    try:
        handle = await ctx.runtime.exec_start(container.id, ExecSpec(cmd=words))
    except (DariError, OSError) as error:
        code = getattr(error, "exit_code", TIMED_OUT)
        return HealthResult(start=begin, end=ctx.now(), exit_code=code, output=str(error))
    try:
        async with asyncio.timeout(timeout / SECOND):
            while (piece := await handle.read()) is not None:
                if len(output) <= OUTPUT_LIMIT:
                    output += piece[1]
            code = await handle.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(handle.pid, signal.SIGKILL)
        text = f"Health check exceeded timeout ({_go_seconds(timeout)})"
        if output:
            text += f": {_shown(output)}"
        return HealthResult(start=begin, end=ctx.now(), exit_code=TIMED_OUT, output=text)
    finally:
        handle.close()
    return HealthResult(start=begin, end=ctx.now(), exit_code=code, output=_shown(output))


def _shown(output: bytearray) -> str:
    text = bytes(output[:OUTPUT_LIMIT]).decode(errors="replace")
    return f"{text}..." if len(output) > OUTPUT_LIMIT else text


def _go_seconds(ns: int) -> str:
    seconds = ns / SECOND
    return f"{seconds:g}s" if seconds >= 1 else f"{ns / 1_000_000:g}ms"


async def _record(ctx: Context, container_id: str, config: HealthConfig, result: HealthResult) -> None:
    container = ctx.tables.containers.get(ctx.local, container_id)
    if container is None or container.status.state != "running" or container.status.health is None:
        return
    was = container.status.health.status

    def judged(row: Container) -> Container:
        health = row.status.health or Health()
        return with_status(row, health=judge(health, result, config, _running_for(ctx, row)))

    found = judge(container.status.health, result, config, _running_for(ctx, container))
    if found.status == was:
        await change(ctx, container_id, judged)
    else:
        networks: list[str] = []

        def tell_endpoints(txn: Txn, row: Container) -> None:
            """Those who look names up prefer instances that are well."""
            networks.clear()
            for endpoint in of_sandbox(ctx, row.sandbox_id):
                if endpoint.is_active and endpoint.container_id == row.id:
                    told = msgspec.structs.replace(endpoint, health=found.status)
                    ctx.tables.endpoints.put(txn, told, endpoint.network_id, endpoint.id)
                    networks.append(endpoint.network_id)

        def told(row: Container) -> Event:
            return event(row, f"health_status: {found.status}")

        try:
            await change(ctx, container_id, judged, told, also=tell_endpoints)
        except StoreUnavailable:
            # Its networks are shared and their store is away: the others learn of it at the next change.
            await change(ctx, container_id, judged, told)
        else:
            await settle_quietly(ctx, *networks)
