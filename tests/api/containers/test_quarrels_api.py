"""A node whose name another living one has: nothing more comes on networks that nodes share until that has ended."""

from __future__ import annotations

from typing import Any

import pytest
from tests.api.containers.conftest import Run, until
from tests.fakes.engine import Api, World

from dari.model.cluster import Node
from dari.model.network import Network, NetworkSpec, Subnet
from dari.net.overlay import VNI_OPTION
from dari.reconcile import watch
from dari.store.base import Txn

NET = "wide".ljust(25, "0")
WHY = (
    "cannot join network wide: node a has not joined the others, and cannot while this is so: another node (a at "
    "192.0.2.2, id other) is named a: start one of them with --node-name"
)


@pytest.fixture
async def wide(found: World) -> None:
    """An overlay, and a node that has joined."""
    ctx, txn = found.ctx, Txn()
    spec = NetworkSpec(name="wide", driver="overlay", scope="global", options={VNI_OPTION: "5000"})
    subnet = Subnet(subnet="10.9.0.0/24", gateway="10.9.0.1")
    ctx.tables.networks.insert(txn, Network(id=NET, created=1, spec=spec, subnets=[subnet]), NET)
    ctx.tables.network_names.insert(txn, NET, "wide")
    await ctx.shared.commit(txn)
    ctx.node, ctx.session_id = Node(id="own", name="a", address="192.0.2.1"), "joined"


async def quarrel(found: World) -> None:
    """It was away for its time to live, and another one has its name by now."""
    tables, txn = found.ctx.tables, Txn()
    tables.nodes.put(txn, Node(id="other", name="a", address="192.0.2.2"), "other")
    tables.node_names.put(txn, "other", "a")
    await found.ctx.shared.commit(txn)
    found.ctx.session_id = ""


async def make_up(found: World) -> None:
    txn = Txn()
    found.ctx.tables.nodes.delete(txn, "other")
    found.ctx.tables.node_names.delete(txn, "a")
    await found.ctx.shared.commit(txn)


def placed(found: World) -> list[tuple[str, bool]]:
    return [(each.ipv4, each.is_active) for each in found.ctx.tables.endpoints.all(found.ctx.shared, NET)]


async def test_starts_and_connects_are_refused_and_local_ones_go_on(
    found: World, api: Api, run: Run, wide: None
) -> None:
    await run("before", {"NetworkMode": "wide"})
    await run("local")
    await quarrel(found)
    body = {"Image": "busybox", "HostConfig": {"NetworkMode": "wide"}}
    assert (await api("POST", "/containers/create?name=late", body))[0] == 201
    status, answer = await api("POST", "/containers/late/start")
    assert (status, answer["message"]) == (503, WHY)
    status, answer = await api("POST", "/networks/wide/connect", {"Container": "local"})
    assert (status, answer["message"]) == (503, WHY)
    assert [is_active for _, is_active in placed(found)].count(True) == 1
    await run("more")
    assert (await api("POST", "/containers/before/stop"))[0] == 204
    assert not any(is_active for _, is_active in placed(found))
    await make_up(found)
    assert (await api("POST", "/containers/late/start"))[0] == 204
    assert (await api("POST", "/networks/wide/connect", {"Container": "local"}))[0] == 200


async def test_what_its_policy_wants_running_starts_once_the_quarrel_has_ended(
    found: World, api: Api, run: Run, wide: None, state_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_SHORTEST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(watch, "_LONGEST_RETRY_SECONDS", 0.01)
    always = {"NetworkMode": "wide", "RestartPolicy": {"Name": "always"}}
    restarted, booted, dropped = [await run(name, always) for name in ("restarted", "booted", "dropped")]
    for each in (booted, dropped):
        assert (await api("POST", f"/containers/{each}/stop"))[0] == 204
    await quarrel(found)
    found.runtime.end(restarted, 1)
    await watch.start_wanted(found.ctx)

    async def has_failed(name: str) -> bool:
        return bool((await state_of(name))["Error"] == WHY)

    for name in ("restarted", "booted", "dropped"):
        await until(lambda name=name: has_failed(name))  # type: ignore[misc]
    assert (await api("POST", "/containers/dropped/update", {"RestartPolicy": {"Name": "no"}}))[0] == 200
    await make_up(found)

    async def runs(name: str) -> bool:
        return bool((await state_of(name))["Running"])

    await until(lambda: runs("restarted"))
    await until(lambda: runs("booted"))
    assert not await runs("dropped")
