"""doctor: does the kernel look as the store says, and what would make it so?

A finding is a step of the plan from what is found to what is wanted, with its cause. Must not know: HTTP.
"""

from __future__ import annotations

from dari.net.plan import Plan, plan
from dari.net.scope import Scope
from dari.reconcile import plugin_boot
from dari.reconcile.context import Context
from dari.reconcile.kernel import in_kernel
from dari.reconcile.settle import look_at_host, render_everything, settle_everything


async def examine(ctx: Context) -> Plan:
    """What differs, as the steps that would mend it; nothing is changed. Raises Internal."""
    facts = await look_at_host(ctx)
    _, wanted = render_everything(ctx, facts)
    scope = Scope.everything(wanted)
    found = await in_kernel(ctx, lambda: plan(wanted, ctx.kernel.read(scope)))
    return Plan((*found.ops, *(await plugin_boot.examine(ctx)).ops))


async def mend(ctx: Context) -> Plan:
    """Carry those steps out; what was done. Raises Internal."""
    told = await plugin_boot.examine(ctx)
    async with ctx.lock("settle"):
        done = await settle_everything(ctx)
    if not told.is_empty:
        await plugin_boot.catch_up(ctx)
    return Plan((*done.ops, *told.ops))
