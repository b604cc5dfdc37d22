"""The cluster, from where this node stands: the store, its own place in it, the other nodes, their clocks.

Nothing of it is this node's to mend. The entries made of the store's rows are compared in kernel.py. Must not know:
sessions, the store's kind.
"""

from __future__ import annotations

from collections.abc import Iterator

from dari.model.finding import Finding
from dari.reconcile.checks.found import Found
from dari.reconcile.context import Context
from dari.reconcile.node_claims import quarrel

# Less than that is the time a message takes on a busy machine.
_CLOCK_NS = 5_000_000_000


def look(ctx: Context) -> list[Found]:
    return [] if ctx.node is None else [Found(each) for each in _findings(ctx)]


def _findings(ctx: Context) -> Iterator[Finding]:
    own, status = ctx.node, ctx.shared.status()
    assert own is not None
    nodes = {each.id: each for each in ctx.tables.nodes.all(ctx.shared)}
    if not status.is_connected:
        yield Finding(
            "cluster.store-away",
            "error",
            "store",
            f"{status.url} does not answer: networks and members that nodes share cannot be changed",
            status.reason,
            "see that it runs and is reached; what runs goes on meanwhile",
        )
    elif own.id not in nodes:
        yield Finding(
            "cluster.not-joined",
            "error",
            "node",
            f"this node, {own.name}, has not joined: the others know nothing of its containers",
            quarrel(ctx, own),
            "darid's log tells why; it tries again every second",
        )
    placed: dict[str, set[str]] = {}
    for endpoint in ctx.tables.endpoints.all(ctx.shared):
        if endpoint.is_active and endpoint.node:
            placed.setdefault(endpoint.node, set()).add(endpoint.container_id)
    # Without the store nobody is heard of.
    for member in ctx.tables.members.all(ctx.shared) if status.is_connected else ():
        if member.id in nodes or member.id == own.id:
            continue
        count = len(placed.get(member.id, ()))
        many = f"{count} containers" if count > 1 else "container"
        of = f"; names and entries of its {many} on shared networks are gone" if count else ""
        yield Finding(
            "cluster.node-down",
            "warning",
            f"node {member.name}",
            f"nothing was heard of it ({member.address}) for its time to live{of}",
            "its host, its darid or its way to the store is down",
            "start it again; if it is gone for good: dari node rm " + member.name,
        )
    now = ctx.now()
    for node in nodes.values():
        if node.id != own.id and node.joined > now + _CLOCK_NS:
            ahead = (node.joined - now) // 1_000_000_000
            yield Finding(
                "cluster.clock",
                "warning",
                f"node {node.name}",
                f"it joined {ahead} s in the future: its clock is ahead of this node's, or this one's is behind",
                "nothing of dari's depends on it; times in logs and events of the two do not compare",
                "run chrony or systemd-timesyncd on both",
            )
