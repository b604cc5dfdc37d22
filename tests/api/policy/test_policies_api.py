"""Policies over a fake kernel: whose table changes when peers come, go and change their names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
from tests.fakes.engine import World, add_container, api_of, world

from dari.model.container import Container
from dari.model.network import EndpointSpec
from dari.net.state import NftElement
from dari.reconcile import endpoints
from dari.reconcile.settle import settle
from dari.store.base import Txn


def allowed(found: World, container: Container) -> set[str]:
    """The addresses that may call this container."""
    sandbox = found.ctx.tables.sandboxes.get(found.ctx.local, container.sandbox_id)
    assert sandbox is not None
    netns = sandbox.netns.rpartition("/")[2]
    return {
        each.element.partition(" ")[0]
        for each in found.kernel.objects.values()
        if isinstance(each, NftElement) and each.netns == netns and each.set == "allow4"
    }


async def policed(found: World, name: str, text: str) -> Container:
    """A container with a policy; the label is put on before it starts."""
    container = await add_container(found, name, {"web": EndpointSpec()}, is_running=False)
    config = msgspec.structs.replace(container.config, labels={"dari.policy": text})
    status = msgspec.structs.replace(container.status, state="running")
    container = msgspec.structs.replace(container, config=config, status=status)
    txn = Txn()
    found.ctx.tables.containers.put(txn, container, container.id)
    await found.ctx.local.commit(txn)
    await endpoints.activate(found.ctx, container.id)
    await settle(found.ctx, container.id)
    return container


def addresses(found: World, *containers: Container) -> set[str]:
    rows: Iterable[Container] = containers
    return {
        each.ipv4
        for container in rows
        for each in found.ctx.tables.endpoints_of_sandbox.get(found.ctx.shared, container.sandbox_id)
    }


async def test_peers_come_go_and_change_their_names(tmp_path: Path) -> None:
    async with world(tmp_path) as found, api_of(found) as api:
        assert (await api("POST", "/networks/create", {"Name": "web"}))[0] == 201
        db = await policed(found, "db", "deny; allow app,cache 80")
        assert allowed(found, db) == set()
        app = await add_container(found, "app", {"web": EndpointSpec()})
        alias = await add_container(found, "box", {"web": EndpointSpec(aliases=["cache"])})
        stranger = await add_container(found, "stranger", {"web": EndpointSpec()})
        assert allowed(found, db) == addresses(found, app, alias)
        assert (await api("POST", f"/containers/{stranger.id}/rename?name=app2"))[0] == 204
        assert (await api("POST", f"/containers/{app.id}/rename?name=old-app"))[0] == 204
        assert allowed(found, db) == addresses(found, alias)
        assert (await api("POST", f"/containers/{stranger.id}/rename?name=app"))[0] == 204
        assert allowed(found, db) == addresses(found, alias, stranger)
        body = {"Container": alias.id, "Force": True}
        assert (await api("POST", "/networks/web/disconnect", body))[0] == 200
        assert allowed(found, db) == addresses(found, stranger)


async def test_only_tables_that_speak_of_somebody_are_looked_at(tmp_path: Path) -> None:
    async with world(tmp_path) as found, api_of(found) as api:
        assert (await api("POST", "/networks/create", {"Name": "web"}))[0] == 201
        for number in range(8):
            await policed(found, f"db{number}", f"deny; allow app{number} 80")
        found.kernel.applied.clear()
        app = await add_container(found, "app3", {"web": EndpointSpec()})
        elements = [op.object for op in found.kernel.applied if isinstance(op.object, NftElement)]
        assert len({each.netns for each in elements if each.set == "allow4"}) == 1
        assert addresses(found, app) == {
            each.element.partition(" ")[0] for each in elements if each.set == "allow4"
        }


async def test_a_networks_policy_reaches_those_who_were_there_before(tmp_path: Path) -> None:
    async with world(tmp_path) as found, api_of(found) as api:
        labels = {"dari.policy": "deny; allow app to db 80"}
        assert (await api("POST", "/networks/create", {"Name": "web", "Labels": labels}))[0] == 201
        db = await add_container(found, "db", {"web": EndpointSpec()})
        other = await add_container(found, "other", {"web": EndpointSpec()})
        app = await add_container(found, "app", {"web": EndpointSpec()})
        assert allowed(found, db) == addresses(found, app)
        assert allowed(found, other) == set()
