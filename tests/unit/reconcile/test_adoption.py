"""A daemon that starts takes over what runs, whatever it finds it like."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.reconcile.test_peers import context, folder

from dari.model.container import Container, ContainerConfig, ContainerStatus, HostConfig
from dari.reconcile import watch
from dari.store.base import Txn
from dari.store.memory import MemoryStore

__all__ = ["folder"]


class Frozen:
    """A runtime whose cgroups cannot be written."""

    async def unpause(self, id: str) -> None:
        raise OSError(f"{id} is on a file system that is read-only")


async def test_what_cannot_be_let_go_on_is_watched_and_told_as_paused(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, runtime, watched, txn = context(folder, MemoryStore()), Frozen(), list[str](), Txn()
    made = Container(
        id="c", name="c", created=1, image_id="i", config=ContainerConfig(), host=HostConfig(), sandbox_id="s",
        status=ContainerStatus(state="running", pid=2, conmon_pid=1),
    )  # fmt: skip
    ctx.tables.containers.put(txn, made, "c")
    await ctx.local.commit(txn)
    standing: Any = runtime
    ctx.runtime = standing
    monkeypatch.setattr(watch, "watch", lambda _, container: watched.append(container.status.state))
    await watch._adopt_living(ctx, made, "paused", 2, 1)
    assert watched == ["paused"]
    left = ctx.tables.containers.get(ctx.local, "c")
    assert left is not None
    assert left.status.state == "paused"
