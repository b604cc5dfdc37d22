"""What plugins were asked, and their answers, in the store: the intent first, then that it is held.

A claim is written before the call and confirmed after it, so that a daemon killed in between knows what may have to be
taken back. Must not know: which call belongs to which claim.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from dari.kernel.plugin import PluginFailure, PluginMissing
from dari.model.errors import DariError, Internal, NotFound
from dari.model.network import Endpoint, NetworkSpec
from dari.model.plugin import Answer, PluginClaim
from dari.net.drivers import DRIVERS
from dari.reconcile.context import Context
from dari.store.base import Txn
from dari.units import SECOND

log = logging.getLogger(__name__)

T = TypeVar("T")
A = TypeVar("A", bound=Answer)

# Seconds a plugin is waited for that did not answer a moment ago, and how long a moment is (ns).
_SHORT = 5.0
_MEMORY = 60 * SECOND

BUILT_IN_IPAM = ("", "default", "null")


class PluginError(Internal):
    """A plugin failed. `is_answered`: it said so itself; else what became of the call is not known."""

    def __init__(self, message: str, *, is_answered: bool) -> None:
        super().__init__(message)
        self.is_answered = is_answered


def is_remote(spec: NetworkSpec) -> bool:
    """Whether the network is made by a plugin."""
    return spec.driver not in DRIVERS


def has_remote_ipam(spec: NetworkSpec) -> bool:
    """Whether a plugin gives the network's addresses."""
    return spec.ipam_driver not in BUILT_IN_IPAM


def kind_of(error: PluginFailure) -> DariError:
    if isinstance(error, PluginMissing):
        return NotFound(str(error))
    text = str(error)
    return PluginError(text, is_answered=bool(error.status) or text.startswith("remote: "))


async def in_plugin(ctx: Context, work: Callable[[], T]) -> T:
    """`work` in a thread nobody else waits for. Raises NotFound (no such plugin), PluginError."""
    call = asyncio.get_running_loop().run_in_executor(ctx.plugins.threads, work)
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        # The call goes on, and what undoes it must not overtake it.
        await asyncio.wait([call])
        raise
    except PluginFailure as error:
        raise kind_of(error) from error


async def ask(
    ctx: Context,
    plugin: str,
    method: str,
    request: msgspec.Struct | None,
    kind: type[A],
    timeout: float | None = None,
) -> A:
    """The plugin's answer, waited for `timeout` seconds at most. Raises NotFound, PluginError."""
    return await in_plugin(ctx, lambda: ctx.plugins.call(plugin, method, request, kind, timeout))


def of(ctx: Context, *parts: str) -> list[PluginClaim]:
    """Claims below a network id, or a network id and a kind; all of them without parts."""
    return ctx.tables.plugin_claims.all(ctx.local, *parts)


def get(ctx: Context, claim: PluginClaim) -> PluginClaim | None:
    """The claim as it stands in the store."""
    return ctx.tables.plugin_claims.get(ctx.local, *claim.key)


def put(ctx: Context, txn: Txn, claim: PluginClaim) -> None:
    ctx.tables.plugin_claims.put(txn, claim, *claim.key)


def delete(ctx: Context, txn: Txn, claim: PluginClaim) -> None:
    ctx.tables.plugin_claims.delete(txn, *claim.key)


def end(ctx: Context, txn: Txn, endpoint: Endpoint) -> None:
    """Add to `txn` that an endpoint has ended: what a plugin still holds of it is not its next start's."""
    for claim in of(ctx, endpoint.network_id):
        if claim.endpoint_id == endpoint.id and not claim.is_over:
            put(ctx, txn, msgspec.structs.replace(claim, is_over=True))


async def intend(ctx: Context, claim: PluginClaim) -> None:
    """Written before the call."""
    txn = Txn()
    put(ctx, txn, msgspec.structs.replace(claim, is_held=False, is_over=False))
    await ctx.local.commit(txn)


async def hold(ctx: Context, claim: PluginClaim, also: Callable[[Txn], None] | None = None) -> PluginClaim:
    """Confirmed after it, with what else follows from the answer in the same transaction."""
    held = msgspec.structs.replace(claim, is_held=True, is_over=False)
    txn = Txn()
    put(ctx, txn, held)
    if also is not None:
        also(txn)
    await ctx.local.commit(txn)
    return held


async def forget(ctx: Context, claims: Iterable[PluginClaim]) -> None:
    txn = Txn()
    for claim in claims:
        delete(ctx, txn, claim)
    if not txn.is_empty():
        await ctx.local.commit(txn)


async def take_back(ctx: Context, claim: PluginClaim, method: str, request: msgspec.Struct) -> bool:
    """Undo a claim by a call; whether it is settled. A plugin that says no is not asked again; one that does not
    answer is, later (plugins.py): the claim stays, in doubt."""
    silent = ctx.settling.silent
    is_silent = time.monotonic_ns() - silent.get(claim.plugin, -_MEMORY) < _MEMORY
    try:
        # One that has just failed is given a short chance only.
        timeout = _SHORT if is_silent or not claim.is_held else None
        await ask(ctx, claim.plugin, method, request, Answer, timeout)
    except DariError as error:
        log.warning("plugin %s: %s was not taken back: %s", claim.plugin, _shown(claim), error.message)
        if not (isinstance(error, PluginError) and error.is_answered):
            silent[claim.plugin] = time.monotonic_ns()
            if claim.is_held:
                await intend(ctx, claim)
            return False
    silent.pop(claim.plugin, None)
    await forget(ctx, [claim])
    return True


def _shown(claim: PluginClaim) -> str:
    what = claim.address or claim.endpoint_id[:12]
    return (
        f"{claim.kind} {what} of network {claim.network_id[:12]}"
        if what
        else f"network {claim.network_id[:12]}"
    )
