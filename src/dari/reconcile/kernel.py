"""One thread for the kernel room, which is synchronous and keeps its sockets and namespaces to that thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from dari.kernel.errors import KernelError
from dari.model.errors import Internal, advice_for
from dari.reconcile.context import Context

T = TypeVar("T")


async def in_kernel(ctx: Context, work: Callable[[], T]) -> T:
    """The result of `work`, done in the kernel room's thread, in the order of the calls. Raises Internal where the
    kernel refuses."""
    try:
        return await asyncio.get_running_loop().run_in_executor(ctx.settling.thread, work)
    except KernelError as error:
        advice = advice_for(error.errno)
        raise Internal(f"the kernel refused: {error}{f' ({advice})' if advice else ''}") from error
