"""What other nodes' rows are about, and which shared networks' names are kept here."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from dari.model.cluster import Node
from dari.model.network import Endpoint, Network, NetworkSpec
from dari.reconcile.follow import affected
from dari.reconcile.members import ZONE_ID
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
        settling=SimpleNamespace(ledgers={}),
    )


def test_rows_are_about_their_networks() -> None:
    ctx = context()
    keys = [f"endpoints/{ONE}/e", f"leases/{TWO}/10.0.0.2", "registrations/db/1", "members/b"]
    assert affected(ctx, keys) == [ONE, ZONE_ID]


def test_a_node_is_about_the_networks_it_is_on() -> None:
    ctx = context((ONE, "b", True), (TWO, "b", False), (TWO, "c", True))
    assert affected(ctx, ["nodes/b"]) == [ONE]
    assert affected(ctx, ["nodes/nobody"]) == []
    assert affected(ctx, ["nodes/b", "nodes/c"]) == [ONE, TWO]


def test_names_are_kept_where_somebody_asks_for_them() -> None:
    ctx = context((ONE, "a", True), (ONE, "b", True), (TWO, "b", True))
    assert "c1" in (zone_text(ctx, ONE) or "")
    assert zone_text(ctx, TWO) is None
    assert "c0" in (zone_text(context((TWO, "b", True), dns_listen="127.0.0.54"), TWO) or "")
