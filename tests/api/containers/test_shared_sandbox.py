"""Containers that share the network of another one keep it, whatever becomes of the other one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.api.containers.conftest import Run, until
from tests.fakes.engine import Api, World

from dari.engine import mounts
from dari.net.state import Addr, KernelState, Netns, NftElement, Sysctl, Veth
from dari.reconcile import boot
from dari.runtime.launch import Created, Launch

pytestmark = pytest.mark.usefixtures("found")


async def network(api: Api, name: str, subnet: str) -> str:
    body = {"Name": name, "IPAM": {"Config": [{"Subnet": subnet}]}}
    status, answer = await api("POST", "/networks/create", body)
    assert status == 201, answer
    return str(answer["Id"])


async def inspect(api: Api, name: str) -> dict[str, Any]:
    status, shape = await api("GET", f"/containers/{name}/json")
    assert status == 200, shape
    return dict(shape)


async def address(api: Api, name: str, network: str) -> str:
    return str((await inspect(api, name))["NetworkSettings"]["Networks"][network]["IPAddress"])


async def state(api: Api, name: str) -> str:
    return str((await inspect(api, name))["State"]["Status"])


def lasting(kernel: KernelState) -> set[object]:
    """Without sysctls, which nobody takes back."""
    return {each for each in kernel if not isinstance(each, Sysctl)}


def in_sandboxes(kernel: KernelState) -> set[object]:
    """What belongs to sandboxes: their namespaces, the pairs and the addresses inside."""
    return {
        each for each in kernel if isinstance(each, Netns | Veth) or (isinstance(each, Addr) and each.netns)
    }


def published(kernel: KernelState) -> set[str]:
    return {
        each.element
        for each in kernel
        if isinstance(each, NftElement) and each.set.startswith("publish") and "tcp" in each.element
    }


@pytest.mark.parametrize("ending", ["restart?t=0", "kill"])
async def test_the_owner_restarts(found: World, api: Api, run: Run, ending: str) -> None:
    await network(api, "web", "10.7.0.0/24")
    await run("vpn", {"NetworkMode": "web", "PortBindings": {"80/tcp": [{"HostPort": "18080"}]}})
    await run("app", {"NetworkMode": "container:vpn"})
    await run("side", {"NetworkMode": "container:vpn"})
    before = found.kernel.state
    assert (await api("POST", f"/containers/vpn/{ending}"))[0] == 204
    if ending == "kill":
        assert await state(api, "vpn") == "exited"
        assert found.kernel.state == before
        # As long as one lives there another can come back.
        assert (await api("POST", "/containers/app/restart?t=0"))[0] == 204
        assert (await api("POST", "/containers/vpn/start"))[0] == 204
    assert await state(api, "vpn") == "running"
    assert found.kernel.state == before
    assert await address(api, "vpn", "web") == "10.7.0.2"


async def test_the_last_one_out_frees_everything(found: World, api: Api, run: Run) -> None:
    await network(api, "web", "10.7.0.0/24")
    before = lasting(found.kernel.state)
    await run("vpn", {"NetworkMode": "web"})
    await run("app", {"NetworkMode": "container:vpn"})
    await api("POST", "/containers/vpn/kill")
    assert in_sandboxes(found.kernel.state)
    await api("POST", "/containers/app/kill")
    await until(lambda: lasting(found.kernel.state) == before)
    refused = await api("POST", "/containers/app/start")
    assert (
        refused[0] == 409
        and "cannot join network namespace of a non running container" in refused[1]["message"]
    )


async def test_the_owner_is_removed_and_made_again(found: World, api: Api, run: Run) -> None:
    await network(api, "web", "10.7.0.0/24")
    host = {"NetworkMode": "web", "PortBindings": {"80/tcp": [{"HostPort": "18080"}]}}
    old_id = await run("vpn", host)
    await run("app", {"NetworkMode": "container:vpn"})
    before = in_sandboxes(found.kernel.state)
    ports = published(found.kernel.state)
    assert ports
    assert (await api("DELETE", "/containers/vpn?force=1"))[0] == 204
    # Nothing moved, and the network knows whose it is.
    assert in_sandboxes(found.kernel.state) == before
    assert published(found.kernel.state) == ports
    status, answer = await api("DELETE", "/networks/web")
    assert status == 403 and 'name:"vpn"' in answer["message"]
    assert (await inspect(api, "app"))["HostConfig"]["NetworkMode"] == f"container:{old_id}"
    found.kernel.applied.clear()
    new_id = await run("vpn", host)
    assert in_sandboxes(found.kernel.state) == before
    assert published(found.kernel.state) == ports
    assert not [op for op in found.kernel.applied if isinstance(op.object, Netns | Veth)]
    assert (await inspect(api, "app"))["HostConfig"]["NetworkMode"] == f"container:{new_id}"
    shape = (await api("GET", "/networks/web"))[1]
    assert list(shape["Containers"]) == [new_id]
    # The files others have bound are the heir's now.
    assert "10.7.0.2" in Path(found.ctx.config.containers_dir, new_id, "hosts").read_text()
    assert found.ctx.tables.sandboxes_left.get(found.ctx.local, "vpn") == []


async def test_the_heir_wants_other_networks_and_ports(found: World, api: Api, run: Run) -> None:
    for name, subnet in (("web", "10.7.0.0/24"), ("db", "10.8.0.0/24"), ("log", "10.9.0.0/24")):
        await network(api, name, subnet)
    both = {"NetworkingConfig": {"EndpointsConfig": {"web": {}, "db": {}}}}
    await run("vpn", {"NetworkMode": "web", "PortBindings": {"80/tcp": [{"HostPort": "18080"}]}}, **both)
    await run("app", {"NetworkMode": "container:vpn"})
    kept = {each for each in in_sandboxes(found.kernel.state) if not isinstance(each, Veth)}
    await api("DELETE", "/containers/vpn?force=1")
    both = {"NetworkingConfig": {"EndpointsConfig": {"web": {}, "log": {}}}}
    await run("vpn", {"NetworkMode": "web", "PortBindings": {"80/tcp": [{"HostPort": "18081"}]}}, **both)
    shape = (await inspect(api, "vpn"))["NetworkSettings"]["Networks"]
    assert {name: each["IPAddress"] for name, each in shape.items()} == {"web": "10.7.0.2", "log": "10.9.0.2"}
    addresses = {str(each.address) for each in in_sandboxes(found.kernel.state) if isinstance(each, Addr)}
    assert addresses == {"10.7.0.2/24", "10.9.0.2/24"}
    assert any(isinstance(each, Netns) and each in kept for each in found.kernel.state)
    assert [text for text in published(found.kernel.state) if "18081" in text]
    assert not [text for text in published(found.kernel.state) if "18080" in text]
    # An address of its own: that endpoint is made anew, in the sandbox that stays.
    await api("DELETE", "/containers/vpn?force=1")
    asked = {"NetworkingConfig": {"EndpointsConfig": {"web": {"IPAMConfig": {"IPv4Address": "10.7.0.9"}}}}}
    await run("vpn", {"NetworkMode": "web"}, **asked)
    assert await address(api, "vpn", "web") == "10.7.0.9"
    assert len([each for each in found.kernel.state if isinstance(each, Netns)]) == 1


async def test_compose_renames_the_new_one_into_place(found: World, api: Api, run: Run) -> None:
    await network(api, "web", "10.7.0.0/24")
    await run("vpn", {"NetworkMode": "web"})
    await run("app", {"NetworkMode": "container:vpn"})
    before = in_sandboxes(found.kernel.state)
    body = {"Image": "busybox", "HostConfig": {"NetworkMode": "web"}}
    status, made = await api("POST", "/containers/create?name=0123456789ab_vpn", body)
    assert status == 201
    # Somebody already refers to the new one.
    shared = {"Image": "busybox", "HostConfig": {"NetworkMode": f"container:{made['Id']}"}}
    assert (await api("POST", "/containers/create?name=side", shared))[0] == 201
    for method, path in (
        ("POST", "/containers/vpn/stop?t=0"),
        ("DELETE", "/containers/vpn"),
        ("POST", f"/containers/{made['Id']}/rename?name=vpn"),
        ("POST", "/containers/vpn/start"),
        ("POST", "/containers/side/start"),
    ):
        status, answer = await api(method, path)
        assert status == 204, (path, answer)
    assert in_sandboxes(found.kernel.state) == before
    netns = {
        found.runtime.containers[(await inspect(api, name))["Id"]].launch.netns for name in ("app", "side")
    }
    assert len(netns) == 1


async def test_the_last_one_goes_while_the_heir_starts(
    found: World, api: Api, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    await network(api, "web", "10.7.0.0/24")
    await run("vpn", {"NetworkMode": "web"})
    await run("app", {"NetworkMode": "container:vpn"})
    assert (await api("DELETE", "/containers/vpn?force=1"))[0] == 204
    body = {"Image": "busybox", "HostConfig": {"NetworkMode": "web"}}
    assert (await api("POST", "/containers/create?name=vpn", body))[0] == 201
    create = found.runtime.create

    async def late(launch: Launch) -> Created:
        assert (await api("POST", "/containers/app/stop?t=0"))[0] == 204
        return await create(launch)

    monkeypatch.setattr(found.runtime, "create", late)
    assert (await api("POST", "/containers/vpn/start"))[0] == 204
    assert len({each for each in found.kernel.state if isinstance(each, Netns)}) == 1
    assert await address(api, "vpn", "web") == "10.7.0.2"
    monkeypatch.undo()
    assert (await api("POST", "/containers/vpn/stop?t=0"))[0] == 204
    assert in_sandboxes(found.kernel.state) == set()


async def test_a_guest_is_made_while_the_heir_takes_over(
    found: World, api: Api, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    await network(api, "web", "10.7.0.0/24")
    await run("vpn", {"NetworkMode": "web"})
    await run("app", {"NetworkMode": "container:vpn"})
    assert (await api("DELETE", "/containers/vpn?force=1"))[0] == 204
    body = {"Image": "busybox", "HostConfig": {"NetworkMode": "web"}}
    assert (await api("POST", "/containers/create?name=vpn", body))[0] == 201
    prepare = mounts.prepare

    async def late(*args: Any, **named: Any) -> Any:
        monkeypatch.undo()
        assert (await api("POST", "/containers/vpn/start"))[0] == 204
        return await prepare(*args, **named)

    monkeypatch.setattr(mounts, "prepare", late)
    await run("side", {"NetworkMode": "container:vpn"})
    launched = found.runtime.containers
    netns = {launched[(await inspect(api, name))["Id"]].launch.netns for name in ("app", "vpn", "side")}
    assert len(netns) == 1


async def test_stopped_ones_follow_to_the_new_owner(found: World, api: Api, run: Run) -> None:
    await network(api, "web", "10.7.0.0/24")
    before = lasting(found.kernel.state)
    await run("vpn", {"NetworkMode": "web"})
    await run("app", {"NetworkMode": "container:vpn"})
    await api("POST", "/containers/app/stop?t=0")
    await api("DELETE", "/containers/vpn?force=1")
    assert lasting(found.kernel.state) == before
    assert (await api("POST", "/containers/app/start"))[0] == 404
    new_id = await run("vpn", {"NetworkMode": "web"})
    assert (await api("POST", "/containers/app/start"))[0] == 204
    assert (await inspect(api, "app"))["HostConfig"]["NetworkMode"] == f"container:{new_id}"
    await api("DELETE", "/containers/app?force=1")
    await api("DELETE", "/containers/vpn?force=1")
    assert lasting(found.kernel.state) == before


async def test_nothing_is_left_when_the_last_one_goes(found: World, api: Api, run: Run) -> None:
    await network(api, "web", "10.7.0.0/24")
    before, rows = lasting(found.kernel.state), set(found.ctx.local.read(""))
    await run("vpn", {"NetworkMode": "web", "PortBindings": {"80/tcp": [{"HostPort": "18080"}]}})
    await run("app", {"NetworkMode": "container:vpn"})
    await api("DELETE", "/containers/vpn?force=1")
    await api("DELETE", "/containers/app?force=1")
    assert lasting(found.kernel.state) == before
    left = {key for key in found.ctx.local.read("") if not key.startswith("events/")}
    assert left == {key for key in rows if not key.startswith("events/")}


async def test_a_new_daemon_knows_whose_sandboxes_were_left(found: World, api: Api, run: Run) -> None:
    await network(api, "web", "10.7.0.0/24")
    await run("vpn", {"NetworkMode": "web"})
    await run("app", {"NetworkMode": "container:vpn"})
    await api("DELETE", "/containers/vpn?force=1")
    before = found.kernel.state
    await boot.free_forgotten(found.ctx)
    await boot.settle_everything(found.ctx)
    assert found.kernel.state == before
    # A daemon killed between the rows of the last sharer and its sandbox's.
    from dari.store.base import Txn

    app = (await inspect(api, "app"))["Id"]
    await api("POST", "/containers/app/kill")
    await found.ctx.local.commit(Txn(deletes={f"containers/{app}"}))
    await boot.free_forgotten(found.ctx)
    assert found.ctx.tables.sandboxes_left.get(found.ctx.local, "vpn") == []


async def test_another_name_or_a_network_of_the_host_inherits_nothing(
    found: World, api: Api, run: Run
) -> None:
    await network(api, "web", "10.7.0.0/24")
    await run("vpn", {"NetworkMode": "web"})
    await run("app", {"NetworkMode": "container:vpn"})
    await api("DELETE", "/containers/vpn?force=1")
    await run("other", {"NetworkMode": "web"})
    assert await address(api, "other", "web") == "10.7.0.3"
    await run("vpn", {"NetworkMode": "host"})
    assert len(found.ctx.tables.sandboxes_left.get(found.ctx.local, "vpn")) == 1


async def test_who_waits_for_its_restart_keeps_the_network(found: World, api: Api, run: Run) -> None:
    await network(api, "web", "10.7.0.0/24")
    await run("vpn", {"NetworkMode": "web"})
    app = await run("app", {"NetworkMode": "container:vpn", "RestartPolicy": {"Name": "always"}})
    before = found.kernel.state
    found.runtime.end(app, 1)
    rows = found.ctx.tables.containers
    await until(lambda: rows.get(found.ctx.local, app).status.state == "restarting")  # type: ignore[union-attr]
    await api("POST", "/containers/vpn/kill")
    assert found.kernel.state == before
    await until(lambda: rows.get(found.ctx.local, app).status.state == "running")  # type: ignore[union-attr]
    found.runtime.end(app, 1)
    await until(lambda: rows.get(found.ctx.local, app).status.state == "restarting")  # type: ignore[union-attr]
    await api("POST", "/containers/app/stop?t=0")
    await until(lambda: not in_sandboxes(found.kernel.state))
