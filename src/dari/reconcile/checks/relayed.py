"""The relay: does it live, and carry what it should? Must not know: how it is told."""

from __future__ import annotations

from dari.model.finding import Finding
from dari.reconcile import relays
from dari.reconcile.checks.found import Found
from dari.reconcile.context import Context

_FIX = "dari doctor --fix"


async def look(ctx: Context) -> list[Found]:
    wanted = relays.wanted(ctx)
    if not wanted:
        return []
    carried = await relays.entries(ctx)
    if carried is None:
        text = f"the relay does not answer: {', '.join(sorted(wanted))} reach nobody"
        return [Found(Finding("relay.dead", "error", "host", text, "it ended or hangs", _FIX, True), "relay")]
    found = []
    for name, (sandbox_id, want) in wanted.items():
        if carried.get(name) == want.target:
            continue
        sandbox = ctx.tables.sandboxes.get(ctx.local, sandbox_id)
        container = ctx.tables.containers.get(ctx.local, sandbox.container_id) if sandbox else None
        owner = f"container {container.name}" if container else "host"
        text = (
            f"the relay does not carry {name} to it"
            if name not in carried
            else f"the relay carries {name} elsewhere"
        )
        found.append(Found(Finding("relay.wrong", "error", owner, text, "", _FIX, True), "relay"))
    return found
