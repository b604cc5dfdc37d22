"""settle: calls that come together go together, and each hears of his own failure only."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.fakes.engine import World, add_container, world
from tests.patience import PATIENCE

from dari.kernel.errors import KernelError
from dari.model.errors import Internal, Unavailable
from dari.model.network import EndpointSpec
from dari.net.plan import Plan
from dari.net.state import Netns
from dari.reconcile import endpoints
from dari.reconcile.settle import settle


async def waiting(found: World, count: int) -> list[str]:
    """Sandboxes that are decided but not yet in the kernel; their ids."""
    made = []
    for number in range(count):
        container = await add_container(found, f"c{number}", {"bridge": EndpointSpec()}, is_running=False)
        await endpoints.activate(found.ctx, container.id)
        made.append(container.sandbox_id)
    return made


async def test_calls_that_come_together_are_one_batch(tmp_path: Path) -> None:
    async with world(tmp_path) as found:
        ids = await waiting(found, 30)
        applied: list[Plan] = []
        apply = found.kernel.apply

        def counting(plan: Plan) -> None:
            applied.append(plan)
            apply(plan)

        found.kernel.apply = counting  # type: ignore[method-assign]
        await asyncio.gather(*(settle(found.ctx, each) for each in ids))
        assert len(applied) == 1
        assert sum(isinstance(each, Netns) for each in found.kernel.state) == 30
        await settle(found.ctx, *ids)
        assert len(applied) == 1


async def test_one_failure_is_one_callers(tmp_path: Path) -> None:
    async with world(tmp_path) as found:
        ids = await waiting(found, 3)
        bad = ids[1][:12]
        apply = found.kernel.apply

        def refusing(plan: Plan) -> None:
            for op in plan.ops:
                if op.object == Netns(bad) and op.action == "add":
                    raise KernelError(op, 28, "no space")
            apply(plan)

        found.kernel.apply = refusing  # type: ignore[method-assign]
        told = await asyncio.gather(*(settle(found.ctx, each) for each in ids), return_exceptions=True)
        assert [type(each) for each in told] == [type(None), Internal, type(None)]
        assert {each.name for each in found.kernel.state if isinstance(each, Netns)} == {
            ids[0][:12],
            ids[2][:12],
        }


async def test_a_responder_that_does_not_answer_is_told_of(tmp_path: Path) -> None:
    async with world(tmp_path) as found:
        from dari.engine import networks
        from dari.model.network import NetworkSpec

        found.responder.answer = b"failed"
        with pytest.raises(Unavailable, match="names are not in force"):
            await networks.create(found.eng, NetworkSpec(name="web"))
        found.responder.answer = b"ok"
        await networks.create(found.eng, NetworkSpec(name="web"))


async def test_a_cancelled_batch_leaves_nobody_waiting(tmp_path: Path) -> None:
    """The daemon stops in the midst: those in the batch and those behind it hear of it, and settling still works."""
    async with world(tmp_path) as found:
        first, second = await waiting(found, 2)
        lock = found.ctx.lock("settle")
        await lock.acquire()
        one = asyncio.create_task(settle(found.ctx, first))
        for _ in range(3):
            await asyncio.sleep(0)
        two = asyncio.create_task(settle(found.ctx, second))
        await asyncio.sleep(0)
        assert found.ctx.settling.is_busy and found.ctx.settling.pending
        for task in found.ctx.tasks:
            task.cancel()
        ends = await asyncio.wait_for(asyncio.gather(one, two, return_exceptions=True), 5 * PATIENCE)
        assert [type(each) for each in ends] == [asyncio.CancelledError, asyncio.CancelledError]
        lock.release()
        await asyncio.wait_for(settle(found.ctx, first, second), 5 * PATIENCE)
        assert sum(isinstance(each, Netns) for each in found.kernel.state) == 2
