"""A plan in two halves: what makes the containers, and what starts them. Pure.

As Docker Compose's `up` does it: everything exists before anything starts, so that one may attach in between.
"""

from __future__ import annotations

from dari.compose.plan.ops import Op, Plan


def halves(plan: Plan) -> tuple[Plan, Plan]:
    """The steps before any start, and the starts with what waits for them."""
    late: set[int] = set()
    for op in plan.ops:
        if _belongs_to_start(op) or late.intersection(op.needs):
            late.add(op.number)
    first = tuple(op for op in plan.ops if op.number not in late)
    second = tuple(
        op.replace(needs=tuple(need for need in op.needs if need in late))
        for op in plan.ops
        if op.number in late
    )
    return plan.replace(ops=first), Plan(ops=second)


def _belongs_to_start(op: Op) -> bool:
    return op.kind in ("wait", "init") or op.action in ("start", "restart")
