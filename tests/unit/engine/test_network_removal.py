"""Removing a network of several hosts: who is on it stays connected, who comes meanwhile wins or is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.store.test_federation import Away

from dari.engine import overlay
from dari.model.cluster import Node
from dari.model.errors import Conflict
from dari.model.network import Network, NetworkSpec
from dari.reconcile import endpoints, shared_networks
from dari.store.base import Txn, TxnConflict
from dari.store.federation import Federation
from dari.store.memory import MemoryStore
from dari.store.tables import Tables, is_shared

NET = "wide".ljust(25, "0")
WIDE = Network(id=NET, created=1, spec=NetworkSpec(name="wide", driver="overlay", scope="global"))


@pytest.fixture
async def shared() -> AsyncIterator[Federation]:
    made = Federation(MemoryStore(), Away(), is_shared)
    txn, tables = Txn(), Tables()
    tables.networks.put(txn, WIDE, NET)
    for each in ("a", "b"):
        tables.nodes.put(txn, daemon(made, each).ctx.node, each)
    await made.commit(txn)
    yield made
    await made.close()


def daemon(shared: Federation, name: str, started: int = 1) -> Any:
    node = Node(id=name, name=name, address="192.0.2.1", started=started)
    ctx = SimpleNamespace(shared=shared, local=shared, tables=Tables(), node=node, node_id=name, tasks=set())
    return SimpleNamespace(ctx=ctx)


def row(eng: Any) -> Network:
    found = eng.ctx.tables.networks.get(eng.ctx.shared, NET)
    assert isinstance(found, Network)
    return found


async def test_nobody_else_gets_on_it_or_removes_it_meanwhile(shared: Federation) -> None:
    a, b = daemon(shared, "a"), daemon(shared, "b")
    await overlay.close_door(a, WIDE)
    assert shared_networks.is_closed(b.ctx, row(b))
    with pytest.raises(Conflict, match="being changed by other requests"):
        await overlay.close_door(b, row(b))
    await overlay.open_door(a, WIDE)
    assert row(b) == WIDE


async def test_who_died_over_it_holds_nobody_up_and_removes_nothing(shared: Federation) -> None:
    a, b = daemon(shared, "a"), daemon(shared, "b")
    await overlay.close_door(a, WIDE)
    txn = Txn(deletes={a.ctx.tables.nodes.key("a")})
    await shared.commit(txn)
    assert not shared_networks.is_closed(b.ctx, row(b))
    joining = Txn()
    endpoints._stand_on(b.ctx, joining, row(b))
    late = Txn()
    overlay.stand_on_closed(a, late, WIDE)
    await shared.commit(joining)
    a.ctx.tables.networks.delete(late, NET)
    with pytest.raises(TxnConflict):
        await shared.commit(late)
    with pytest.raises(Conflict):
        overlay.stand_on_closed(a, Txn(), WIDE)
    await overlay.open_door(a, WIDE)
    assert row(b) == WIDE


async def test_a_daemon_started_anew_does_not_keep_what_the_one_before_closed(shared: Federation) -> None:
    await overlay.close_door(daemon(shared, "a"), WIDE)
    again = daemon(shared, "a", started=2)
    txn = Txn()
    again.ctx.tables.nodes.put(txn, again.ctx.node, "a")
    await shared.commit(txn)
    assert not shared_networks.is_closed(again.ctx, row(again))
    await overlay.close_door(again, row(again))
    assert row(again) == msgspec.structs.replace(WIDE, closed_by="a@2")
