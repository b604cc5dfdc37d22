"""Whose leases are nobody's: those of other nodes' containers are not."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from dari.model.network import Endpoint
from dari.reconcile.checks.claims import orphaned_leases
from dari.store.base import Txn
from dari.store.memory import MemoryStore
from dari.store.tables import Tables

SHARED, OWN = "shared".ljust(25, "0"), "own"


def test_a_lease_is_held_by_an_active_endpoint_of_any_node() -> None:
    store, tables, txn = MemoryStore(), Tables(), Txn()
    places = [
        (SHARED, "here", "a", True),
        (SHARED, "there", "b", True),
        (SHARED, "ended", "b", False),
        (OWN, "local", "", True),
    ]
    for number, (network, name, node, is_active) in enumerate(places):
        endpoint = Endpoint(
            id=name, network_id=network, sandbox_id="", container_id=name, node=node, is_active=is_active
        )
        tables.endpoints.put(txn, endpoint, network, name)
        tables.leases.put(txn, name, network, f"10.0.0.{number}")
    tables.leases.put(txn, "gone", OWN, "10.0.0.9")
    asyncio.run(store.commit(txn))
    ctx = SimpleNamespace(local=store, shared=store, tables=tables, node_id="a")
    assert set(orphaned_leases(ctx)) == {(SHARED, "10.0.0.2"), (OWN, "10.0.0.9")}  # type: ignore[arg-type]
