"""Plugins: what they were told against what is wanted. Must not know: how they are told."""

from __future__ import annotations

from dari.model.finding import Finding
from dari.reconcile import plugin_boot
from dari.reconcile.checks.found import Found
from dari.reconcile.context import Context


async def look(ctx: Context) -> list[Found]:
    """Raises Internal."""
    found = []
    for op in (await plugin_boot.examine(ctx)).ops:
        network = ctx.tables.networks.get(ctx.shared, op.object.key[1])
        finding = Finding(
            "plugin.behind",
            "warning",
            f"network {network.name if network else op.object.key[1][:12]}",
            f"its plugin has not heard of what is wanted: {op}",
            "the plugin did not answer when it was told",
            "dari doctor --fix, once the plugin runs",
            True,
            (str(op),),
        )
        found.append(Found(finding, "plugins"))
    return found
