"""doctor: is everything as the store says, and what would make it so?

Findings come from the checks (checks/), each with the way it would be mended. A finding counts when two looks see it:
what is being settled at this moment is no trouble. Mending does what the findings say and nothing else, then looks
again: what is still there was not mended. Must not know: HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass

from dari.dns import nudge, spawn
from dari.model.errors import Conflict, DariError, Unavailable
from dari.model.finding import Finding
from dari.reconcile import boot, names, plugin_boot, relays
from dari.reconcile.checks import claims, cluster, host, kernel, life, naming, plugged, relayed
from dari.reconcile.checks.found import Found
from dari.reconcile.context import Context
from dari.reconcile.kernel import in_kernel
from dari.reconcile.rows import commit
from dari.reconcile.settle import settle_everything

log = logging.getLogger(__name__)

_PAUSE = 0.05
# An exit is heard of, and written down, within this time.
_LONG_PAUSE = 0.5
_ROUNDS = 3
_COMEBACK_SECONDS = 10.0
_PING_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finding, and whether it was mended."""

    finding: Finding
    is_mended: bool


async def examine(ctx: Context) -> list[Finding]:
    """Everything that is not as it should be, the worst first; nothing is changed. Raises Internal."""
    return [each.finding for each in await _examine(ctx)]


async def mend(ctx: Context) -> list[Outcome]:
    """Mend what is ours. What was found, each with whether it is gone now. Raises Internal."""
    left = await _examine(ctx)
    seen: dict[tuple[str, str, str], Finding] = {}
    for _ in range(_ROUNDS):
        ours = [each for each in left if each.finding.is_ours]
        # Mending may bring more to light: what hung on something that was missing.
        seen |= {each.finding.key: each.finding for each in ours}
        if not ours:
            break
        await _carry_out(ctx, ours)
        left = await _examine(ctx)
    still = {each.finding.key for each in left}
    outcomes = [Outcome(finding, key not in still) for key, finding in seen.items()]
    outcomes += [Outcome(each.finding, False) for each in left if each.finding.key not in seen]
    return sorted(outcomes, key=lambda each: each.finding.rank)


async def _examine(ctx: Context) -> list[Found]:
    first = await _look(ctx)
    if not any(_is_fleeting(each) for each in first):
        return _sorted(first)
    # A batch that waited while the first look held the lock goes before the second.
    await asyncio.sleep(
        _LONG_PAUSE if any(each.finding.id.startswith("container.") for each in first) else _PAUSE
    )
    second = {each.finding.key: each for each in await _look(ctx)}
    return _sorted(each for each in first if not _is_fleeting(each) or each.finding.key in second)


def _is_fleeting(each: Found) -> bool:
    """Whether work in progress may look like it. What the host is like does not change in a moment."""
    return not each.finding.id.startswith("host.")


def _sorted(found: Iterable[Found]) -> list[Found]:
    by_key = {each.finding.key: each for each in found}
    return sorted(by_key.values(), key=lambda each: each.finding.rank)


async def _look(ctx: Context) -> list[Found]:
    async with ctx.lock("settle"):
        facts, _, survey, found = await kernel.look(ctx)
        found += await naming.look(ctx)
    found += await life.look(ctx)
    found += claims.look(ctx)
    found += cluster.look(ctx)
    found += await plugged.look(ctx)
    found += await relayed.look(ctx)
    found += await host.look(ctx, facts, survey)
    return _without_echoes(found)


def _without_echoes(found: list[Found]) -> list[Found]:
    """Without what follows from another finding: a namespace that lost its name looks missing to the plan."""
    unbound = {each.finding.object for each in found if each.rebinding}
    dead = any(each.finding.id == "resolver.dead" for each in found)
    lost = {
        each.finding.object for each in found if each.finding.id in ("resolver.view", "namespace.missing")
    }
    closed = [
        each.finding.cause.rpartition(" of ")[2]
        for each in found
        if each.finding.id == "host.forward-dropped"
    ]
    kept = []
    for each in found:
        finding = each.finding
        if (
            finding.id == "rules.foreign-drop"
            and finding.object == "host"
            and any(f"a rule in {chain} " in finding.text for chain in closed)
        ):
            continue
        if (
            finding.object in unbound
            and not each.rebinding
            and finding.id.startswith(("namespace.", "link.", "resolver."))
        ):
            continue
        if finding.id == "resolver.silent" and (dead or finding.object in lost):
            continue
        kept.append(each)
    return kept


# Mending


async def _carry_out(ctx: Context, found: list[Found]) -> None:
    ways = {each.way for each in found if each.way}
    await life.rebind(ctx, [each.rebinding for each in found if each.rebinding])
    if "claims" in ways:
        await _free_claims(ctx)
    for each in found:
        if each.way in ("runtime", "rootfs", "cgroup"):
            await _remove(ctx, each)
    async with ctx.lock("settle"):
        if "plan" in ways:
            await settle_everything(ctx)
        repairs = [each.repair for each in found if each.repair]
        if repairs:
            await in_kernel(ctx, lambda: ctx.kernel.mend(repairs))
    if "plugins" in ways:
        await plugin_boot.catch_up(ctx)
    if "relay" in ways:
        await relays.renew(ctx)
    if "responder" in ways:
        await _revive(ctx)
    if "names" in ways or "responder" in ways:
        await _renew_names(ctx)


async def _free_claims(ctx: Context) -> None:
    what = "what has no owner"
    try:
        await commit(ctx, what, lambda txn: claims.add_frees(ctx, txn))
        for _ in range(0, len(claims.shared_orphans(ctx)), claims.LEASES_AT_ONCE):
            await commit(ctx, what, lambda txn: claims.add_shared_frees(ctx, txn))
    except (Unavailable, Conflict) as error:
        # The rest is mended all the same; the next look tells what is still there.
        log.warning("what has no owner is not given back: %s", error.message)


async def _remove(ctx: Context, found: Found) -> None:
    try:
        if found.way == "runtime":
            await ctx.runtime.delete(found.object_id)
        elif found.way == "rootfs":
            await asyncio.to_thread(ctx.images.rootfs.unmount, found.object_id)
        else:
            await asyncio.to_thread(ctx.runtime.remove_group, found.object_id)
    except (OSError, DariError) as error:
        # The next look tells whether it is still there.
        log.warning("%s: %s", found.finding.text, error)


async def _revive(ctx: Context) -> None:
    """End a dari-dns that hangs; the daemon starts another one (daemon/responder.py). Waits for it."""
    if await asyncio.to_thread(nudge.ping, ctx.config.dns_dir, _PING_SECONDS) is None:
        pid = spawn.running(ctx.config.dns_dir, f"{ctx.config.exec_root}/dari-dns.pid")
        if pid:
            log.warning("dari-dns (pid %d) does not answer, ending it", pid)
            os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + _COMEBACK_SECONDS
    while time.monotonic() < end:
        if await asyncio.to_thread(nudge.ping, ctx.config.dns_dir, _PING_SECONDS) is not None:
            return
        await asyncio.sleep(_PAUSE)


async def _renew_names(ctx: Context) -> None:
    """All files as they should be, and read again even where they are."""
    async with ctx.lock("settle"):
        names.forget_files(ctx, is_trusted=False)
        try:
            await boot.settle_all_names(ctx)
        except DariError as error:
            log.error("%s", error.message)
