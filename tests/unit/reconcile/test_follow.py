"""What other nodes' rows are about, and which shared networks' names are kept here."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dari.model.cluster import Node
from dari.model.errors import Internal
from dari.model.network import Endpoint, Network, NetworkSpec
from dari.reconcile import follow
from dari.reconcile.follow import Debt, affected
from dari.reconcile.members import ZONE_ID
from dari.reconcile.peers import of as peers_of
from dari.reconcile.zones import zone_text
from dari.store.base import Txn
from dari.store.memory import MemoryStore
from dari.store.tables import Tables

ONE, TWO = "one".ljust(25, "0"), "two".ljust(25, "0")


def context(*placed: tuple[str, str, bool], own: str = "a", dns_listen: str = "") -> Any:
    """`placed`: network, node and whether the endpoint is active."""
    store, tables, txn = MemoryStore(), Tables(), Txn()
    for each in (ONE, TWO):
        spec = NetworkSpec(name=each[:3], driver="overlay", scope="global")
        tables.networks.put(txn, Network(id=each, created=1, spec=spec), each)
    for number, (network, node, is_active) in enumerate(placed):
        endpoint = Endpoint(
            id=f"e{number}", network_id=network, sandbox_id="", container_id=f"c{number}", node=node,
            is_active=is_active, ipv4=f"10.0.0.{number + 2}", dns_names=[f"c{number}"],
        )  # fmt: skip
        tables.endpoints.put(txn, endpoint, network, endpoint.id)
        tables.nodes.put(txn, Node(id=node, name=node, address="192.0.2.1"), node)
    asyncio.run(store.commit(txn))
    return SimpleNamespace(
        shared=store,
        local=store,
        tables=tables,
        node_id=own,
        config=SimpleNamespace(dns_listen=dns_listen),
        settling=SimpleNamespace(ledgers={}, rendered={}, placed=None),
    )


def test_rows_are_about_their_networks() -> None:
    ctx = context((ONE, "a", True))
    keys = [f"endpoints/{ONE}/e", f"leases/{TWO}/10.0.0.2", "registrations/db/1", "members/b"]
    assert affected(ctx, keys) == [ZONE_ID, peers_of(ONE)]


def test_a_node_is_about_the_networks_it_is_on() -> None:
    ctx = context((ONE, "b", True), (TWO, "b", False), (TWO, "c", True), (ONE, "a", True), (TWO, "a", True))
    assert affected(ctx, ["nodes/b"]) == [peers_of(ONE), peers_of(TWO)]
    assert affected(ctx, ["nodes/c"]) == [peers_of(TWO)]
    assert affected(ctx, ["nodes/nobody"]) == []
    assert affected(ctx, ["nodes/b", "nodes/c"]) == [peers_of(ONE), peers_of(TWO)]


def test_networks_of_others_are_left_alone() -> None:
    ctx = context((ONE, "b", True), (TWO, "b", True), (TWO, "a", True))
    assert affected(ctx, [f"endpoints/{ONE}/e0", "nodes/b"]) == [peers_of(TWO)]
    # A network that is made or goes is looked at by all, and so is one of which something is left here.
    assert affected(ctx, [f"networks/{ONE}"]) == [ONE]
    ctx.settling.rendered[ONE] = frozenset()
    assert affected(ctx, [f"endpoints/{ONE}/e0"]) == [peers_of(ONE)]
    # The host's own view has everybody's names in it.
    ctx = context((ONE, "b", True), dns_listen="127.0.0.54")
    assert affected(ctx, [f"endpoints/{ONE}/e0"]) == [peers_of(ONE)]


def test_own_networks_follow_own_endpoints() -> None:
    ctx = context((ONE, "a", True), (TWO, "b", True))
    assert affected(ctx, [f"endpoints/{ONE}/e", f"endpoints/{TWO}/e"]) == [peers_of(ONE)]
    txn = Txn(deletes={f"endpoints/{ONE}/e0"})
    ctx.tables.endpoints.put(
        txn,
        Endpoint(id="e9", network_id=TWO, sandbox_id="", container_id="c9", node="a", is_active=True),
        TWO,
        "e9",
    )
    asyncio.run(ctx.shared.commit(txn))
    assert affected(ctx, [f"endpoints/{ONE}/e", f"endpoints/{TWO}/e"]) == [peers_of(TWO)]


def test_names_are_kept_where_somebody_asks_for_them() -> None:
    ctx = context((ONE, "a", True), (ONE, "b", True), (TWO, "b", True))
    assert "c1" in (zone_text(ctx, ONE) or "")
    assert zone_text(ctx, TWO) is None
    assert "c0" in (zone_text(context((TWO, "b", True), dns_listen="127.0.0.54"), TWO) or "")


@pytest.mark.parametrize(
    "error", [Internal("no room"), ValueError("a fault of ours")], ids=["known", "unknown"]
)
def test_what_cannot_be_settled_is_owed_and_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    settled: list[str] = []
    refusals = 4

    async def settle(ctx: Any, *ids: str) -> None:
        nonlocal refusals
        if "bad" in ids and refusals:
            refusals -= 1
            raise error
        settled.extend(ids)

    async def some() -> tuple[list[str], list[str]]:
        ctx = SimpleNamespace(tasks=set())
        debt = Debt(ctx, first=0.001)  # type: ignore[arg-type]
        await debt.settle(["good", "bad"])
        at_once = list(settled)
        await debt.settle(["bad"])
        async with asyncio.timeout(5):
            await asyncio.gather(*ctx.tasks)
        return at_once, settled

    monkeypatch.setattr(follow, "settle", settle)
    at_once, all_of_them = asyncio.run(some())
    assert at_once == ["good"]
    assert all_of_them == ["good", "bad"]
