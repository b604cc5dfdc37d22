"""What the doctor finds of the cluster, from rows and nothing else."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from dari.model.cluster import Member, Node
from dari.model.network import Endpoint
from dari.reconcile.checks import cluster
from dari.store.base import Status, Txn
from dari.store.memory import MemoryStore
from dari.store.tables import Tables

NOW = 1_000_000_000_000


class AwayStore(MemoryStore):
    def status(self) -> Status:
        return Status("etcd://there:2379", is_connected=False, is_known=True, reason="nobody answers")


def node(name: str, joined: int = NOW) -> Node:
    return Node(id=f"id-{name}", name=name, address=f"10.0.0.{ord(name)}", joined=joined)


def found(
    living: list[Node], members: list[str], store: MemoryStore | None = None, own: str = "a"
) -> list[tuple[str, str]]:
    async def look() -> list[tuple[str, str]]:
        kept, tables = store or MemoryStore(), Tables()
        txn = Txn()
        for each in living:
            tables.nodes.put(txn, each, each.id)
            tables.node_names.put(txn, each.id, each.name)
        for name in members:
            tables.members.put(txn, Member(id=f"id-{name}", name=name, address="10.0.0.1"), f"id-{name}")
            endpoint = Endpoint(
                id=f"e-{name}", network_id="n", sandbox_id="", container_id=f"c-{name}", is_active=True,
                node=f"id-{name}",
            )  # fmt: skip
            tables.endpoints.put(txn, endpoint, "n", endpoint.id)
        await kept.commit(txn)
        ctx: Any = SimpleNamespace(
            shared=kept, local=kept, session_id="", tables=tables, node=node(own), now=lambda: NOW,
            config=SimpleNamespace(data_root="/var/lib/dari"),
        )  # fmt: skip
        return [(each.finding.id, each.finding.text) for each in cluster.look(ctx)]

    return asyncio.run(look())


def test_nothing_where_all_is_well() -> None:
    assert found([node("a"), node("b", NOW + 1_000_000_000)], ["a", "b"]) == []


def test_a_member_that_is_not_heard_of() -> None:
    [(kind, text)] = found([node("a")], ["a", "b"])
    assert kind == "cluster.node-down"
    assert "its container on shared networks" in text


def test_a_clock_that_is_ahead() -> None:
    [(kind, text)] = found([node("a"), node("b", NOW + 3_600_000_000_000)], ["a", "b"])
    assert kind == "cluster.clock"
    assert "3600 s" in text


def test_not_being_there() -> None:
    assert [kind for kind, _ in found([node("b")], ["a", "b"])] == ["cluster.not-joined"]


def test_a_node_of_the_same_id_is_not_this_one() -> None:
    twin = Node(id="id-a", name="z", address="10.0.0.9", joined=NOW)
    assert "cluster.not-joined" in [kind for kind, _ in found([twin], ["a"])]


def test_without_the_store_nobody_is_called_dead() -> None:
    assert [kind for kind, _ in found([node("a")], ["a", "b"], AwayStore())] == ["cluster.store-away"]


def test_a_host_alone_has_no_cluster() -> None:
    ctx: Any = SimpleNamespace(node=None)
    assert cluster.look(ctx) == []
