"""Two nodes of one name, one address or one id: the second is told by whom, and takes nothing."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dari.cluster import membership
from dari.cluster.membership import Membership
from dari.model.cluster import Node
from dari.reconcile.node_claims import quarrel
from dari.store.base import TxnConflict
from dari.store.memory import MemoryStore
from dari.store.tables import Tables

ONE = Node(id="one", name="a", address="192.0.2.1")


def context() -> Any:
    return SimpleNamespace(
        shared=MemoryStore(),
        tables=Tables(),
        now=lambda: 7,
        node=None,
        session_id="",
        config=SimpleNamespace(data_root="/var/lib/dari"),
    )


async def join(ctx: Any, node: Node) -> None:
    await membership._join(ctx, Membership(node), await ctx.shared.session(10))


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (Node(id="two", name="a", address="192.0.2.2"), "another node (a at 192.0.2.1, id one) is named a: "),
        (
            Node(id="two", name="b", address="192.0.2.1"),
            "(a at 192.0.2.1, id one) has address 192.0.2.1: ",
        ),
        (Node(id="one", name="b", address="192.0.2.2"), "remove /var/lib/dari/engine-id"),
        (
            Node(id="one", name="a", address="192.0.2.2"),
            "a node with this one's id, a at 192.0.2.1, is alive",
        ),
    ],
)
def test_the_second_one_is_told(other: Node, text: str) -> None:
    async def test() -> None:
        ctx = context()
        await join(ctx, ONE)
        before = dict(ctx.shared.read(""))
        with pytest.raises(TxnConflict):
            await join(ctx, other)
        assert text in quarrel(ctx, other)
        assert dict(ctx.shared.read("")) == before

    asyncio.run(test())


def test_the_same_one_again_is_no_quarrel() -> None:
    async def test() -> None:
        ctx = context()
        await join(ctx, ONE)
        again = msgspec.structs.replace(ONE, started=9)
        assert quarrel(ctx, again) == ""
        await join(ctx, again)
        assert ctx.tables.nodes.get(ctx.shared, "one").started == 9

    asyncio.run(test())
