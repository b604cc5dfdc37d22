"""Containers whose places on a shared network another node took away: their next start, connect and disconnect."""

from __future__ import annotations

from typing import Any

import pytest
from tests.api.containers.conftest import Run
from tests.api.containers.test_quarrels_api import NET, wide
from tests.fakes.engine import Api, World

from dari.cluster import nodes
from dari.cluster.membership import Membership
from dari.store.base import Txn

__all__ = ["wide"]
WIDE = {"NetworkMode": "wide"}


async def removed(found: World) -> None:
    """`node rm` on another node."""
    store = found.ctx.shared
    rows = {*store.read(f"endpoints/{NET}"), *store.read(f"leases/{NET}")}
    await store.commit(Txn(deletes=rows))


async def networks(api: Api, name: str) -> dict[str, Any]:
    _, body = await api("GET", f"/containers/{name}/json")
    return {name: each["IPAddress"] for name, each in body["NetworkSettings"]["Networks"].items()}


@pytest.mark.usefixtures("wide")
async def test_the_next_start_asks_for_the_network_again(found: World, api: Api, run: Run) -> None:
    await run("web", WIDE, Hostname="web")
    before = await networks(api, "web")
    await removed(found)
    assert await networks(api, "web") == {}
    assert (await api("POST", "/containers/web/stop"))[0] == 204
    assert (await api("POST", "/containers/web/start"))[0] == 204
    after = await networks(api, "web")
    assert after.keys() == before.keys() == {"wide"}
    assert after["wide"]
    assert len(found.ctx.tables.endpoints.all(found.ctx.shared, NET)) == 1


@pytest.mark.usefixtures("wide")
async def test_a_start_goes_without_a_network_that_was_removed(found: World, api: Api, run: Run) -> None:
    await run("web", WIDE)
    assert (await api("POST", "/containers/web/stop"))[0] == 204
    await removed(found)
    await found.ctx.shared.commit(Txn(deletes={f"networks/{NET}", "network-names/wide"}))
    assert (await api("POST", "/containers/web/start"))[0] == 204
    assert await networks(api, "web") == {}


@pytest.mark.usefixtures("wide")
async def test_connect_and_disconnect(found: World, api: Api, run: Run) -> None:
    await run("one", WIDE)
    await run("two", WIDE)
    await removed(found)
    assert (await api("POST", "/networks/wide/connect", {"Container": "one"}))[0] == 200
    assert (await networks(api, "one"))["wide"]
    for status in (200, 403):
        assert (await api("POST", "/networks/wide/disconnect", {"Container": "two"}))[0] == status
    for name in ("one", "two"):
        assert (await api("POST", f"/containers/{name}/restart"))[0] == 204
    assert (await networks(api, "one"))["wide"]
    assert await networks(api, "two") == {}
    assert len(found.ctx.tables.endpoints.all(found.ctx.shared, NET)) == 1


@pytest.mark.usefixtures("wide")
async def test_who_leaves_asks_for_nothing_back(found: World, api: Api, run: Run) -> None:
    await run("web", WIDE)
    assert (await api("POST", "/containers/web/stop"))[0] == 204
    assert found.ctx.node is not None
    member = found.eng.rooms[nodes.ROOM] = Membership(found.ctx.node, 10.0)
    member.left.set()
    await nodes.leave(found.eng)
    assert found.ctx.tables.kept_endpoints.all(found.ctx.local) == []
    assert found.ctx.tables.endpoints.all(found.ctx.shared, NET) == []
