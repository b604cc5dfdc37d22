"""Starting, ending and removing through the API, over fakes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.api.containers.conftest import Run, until
from tests.fakes.engine import Api, World

from dari.reconcile import watch
from dari.runtime.failures import LaunchRefused


def actions(found: World) -> list[str]:
    return [each.action for each in found.ctx.tables.events.all(found.ctx.local) if each.type == "container"]


async def is_now(api: Api, name: str, status: str) -> bool:
    _, body = await api("GET", f"/containers/{name}/json")
    return bool(body["State"]["Status"] == status)


async def test_up_and_down(found: World, api: Api, run: Run, state_of: Any) -> None:
    container_id = await run("web", Cmd=["top"])
    state = await state_of("web")
    assert (state["Status"], state["Running"]) == ("running", True)
    assert state["Pid"] > 0
    assert found.runtime.containers[container_id].launch.args == ["top"]
    assert (await api("POST", "/containers/web/start"))[0] == 304
    assert found.ctx.images.rootfs.is_mounted(container_id)
    found.runtime.end(container_id, 3)
    await until(lambda: container_id not in found.runtime.containers)
    state = await state_of("web")
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 3, 0)
    assert not found.ctx.images.rootfs.is_mounted(container_id)
    assert found.ctx.tables.leases.all(found.ctx.local) == []
    assert actions(found) == ["create", "start", "die"]
    assert (await api("POST", "/containers/web/stop"))[0] == 304
    assert (await api("DELETE", "/containers/web"))[0] == 204
    assert (await api("GET", "/containers/web/json"))[0] == 404
    assert actions(found)[-1] == "destroy"
    assert found.ctx.tables.sandboxes.all(found.ctx.local) == []
    assert found.ctx.tables.endpoints.all(found.ctx.shared) == []


async def test_stop_asks_then_kills(found: World, api: Api, run: Run, state_of: Any) -> None:
    container_id = await run("web")
    found.runtime.deadly = {9}
    fake = found.runtime.containers[container_id]
    assert (await api("POST", "/containers/web/stop?t=0"))[0] == 204
    assert fake.signals == [15, 9]
    assert (await state_of("web"))["ExitCode"] == 137
    assert actions(found) == ["create", "start", "kill", "kill", "die", "stop"]


async def test_the_stop_signal_of_the_container_is_used(found: World, api: Api, run: Run) -> None:
    container_id = await run("web", StopSignal="SIGINT")
    found.runtime.deadly = {2}
    fake = found.runtime.containers[container_id]
    assert (await api("POST", "/containers/web/stop"))[0] == 204
    assert fake.signals == [2]


async def test_kill(found: World, api: Api, run: Run) -> None:
    container_id = await run("web")
    assert (await api("POST", "/containers/web/kill?signal=HUP"))[0] == 204
    assert found.runtime.containers[container_id].signals == [1]
    assert (await api("POST", "/containers/web/kill?signal=NOPE"))[0] == 400
    assert (await api("POST", "/containers/web/kill"))[0] == 204
    status, answer = await api("POST", "/containers/web/kill")
    assert (status, answer["message"]) == (
        409,
        f"cannot kill container: web: container {container_id} is not running",
    )


async def test_a_running_container_is_removed_only_by_force(api: Api, run: Run) -> None:
    await run("web")
    status, answer = await api("DELETE", "/containers/web")
    assert (status, answer["message"]) == (
        409,
        'cannot remove container "/web": container is running: '
        "stop the container before removing or force remove",
    )
    assert (await api("DELETE", "/containers/web?force=1"))[0] == 204
    assert (await api("DELETE", "/containers/web"))[0] == 404


async def test_auto_remove(found: World, api: Api, run: Run) -> None:
    container_id = await run("once", {"AutoRemove": True})
    waiting = asyncio.create_task(api("POST", "/containers/once/wait?condition=removed"))
    await until(lambda: found.ctx.life(container_id).removals)
    found.runtime.end(container_id, 7)
    status, body = await waiting
    assert (status, body) == (200, {"StatusCode": 7})
    assert (await api("GET", "/containers/once/json"))[0] == 404
    assert actions(found) == ["create", "start", "die", "destroy"]


async def test_wait_begins_before_the_start(found: World, api: Api) -> None:
    _, made = await api("POST", "/containers/create?name=web", {"Image": "busybox"})
    url = "http://dari/containers/web/wait?condition=next-exit"
    async with api.session.post(url) as response:
        assert response.status == 200
        assert (await api("POST", "/containers/web/start"))[0] == 204
        found.runtime.end(made["Id"], 5)
        assert await response.json() == {"StatusCode": 5}
    # It does not run: the answer is there at once.
    assert await api("POST", "/containers/web/wait") == (200, {"StatusCode": 5})
    assert (await api("POST", "/containers/web/wait?condition=soon"))[0] == 400


async def test_a_refused_command_leaves_nothing(found: World, api: Api, state_of: Any) -> None:
    await api("POST", "/containers/create?name=web", {"Image": "busybox", "Cmd": ["nope"]})
    found.runtime.refuse = LaunchRefused('exec: "nope": executable file not found in $PATH', 127)
    status, answer = await api("POST", "/containers/web/start")
    assert status == 400
    assert "executable file not found" in answer["message"]
    state = await state_of("web")
    assert (state["Status"], state["ExitCode"]) == ("created", 127)
    assert "executable file not found" in state["Error"]
    assert found.ctx.tables.leases.all(found.ctx.local) == []
    assert not found.ctx.images.rootfs.mounted
    assert not any(key[0] == "netns" for key in found.kernel.objects)
    assert (await api("POST", "/containers/web/start"))[0] == 204
    assert (await state_of("web"))["Error"] == ""


async def test_pause(found: World, api: Api, run: Run, state_of: Any) -> None:
    container_id = await run("web")
    assert (await api("POST", "/containers/web/unpause"))[0] == 409
    assert (await api("POST", "/containers/web/pause"))[0] == 204
    assert (await state_of("web"))["Status"] == "paused"
    status, answer = await api("POST", "/containers/web/pause")
    assert (status, answer["message"]) == (409, f"Container {container_id} is already paused")
    assert (await api("POST", "/containers/web/start"))[0] == 409
    assert (await api("POST", "/containers/web/unpause"))[0] == 204
    assert actions(found)[-2:] == ["pause", "unpause"]


async def test_rename(api: Api, run: Run) -> None:
    await run("web")
    await run("other")
    assert (await api("POST", "/containers/web/rename?name=site"))[0] == 204
    assert (await api("GET", "/containers/site/json"))[1]["Name"] == "/site"
    assert (await api("GET", "/containers/web/json"))[0] == 404
    assert (await api("POST", "/containers/site/rename?name=site"))[0] == 400
    assert (await api("POST", "/containers/site/rename?name=other"))[0] == 409
    assert (await api("POST", "/containers/site/rename?name=-x"))[0] == 400


async def test_a_renamed_container_keeps_the_host_name_that_was_its_name_too(api: Api, run: Run) -> None:
    await api("POST", "/networks/create", {"Name": "net"})
    container_id = await run("web", {"NetworkMode": "net"}, Hostname="web")
    assert (await api("POST", "/containers/web/rename?name=site"))[0] == 204
    _, body = await api("GET", "/containers/site/json")
    # The order is Docker's.
    assert body["NetworkSettings"]["Networks"]["net"]["DNSNames"] == ["site", container_id[:12], "web"]


async def test_restart_policy_brings_it_back(found: World, api: Api, run: Run, state_of: Any) -> None:
    container_id = await run("web", {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 1}})
    first = found.runtime.containers[container_id]
    found.runtime.end(container_id, 1)
    await until(lambda: found.runtime.containers.get(container_id) not in (None, first))
    await until(lambda: is_now(api, "web", "running"))
    _, body = await api("GET", "/containers/web/json")
    assert body["RestartCount"] == 1
    found.runtime.end(container_id, 1)
    await until(lambda: container_id not in found.runtime.containers)
    await until(lambda: is_now(api, "web", "exited"))
    # Longer than it would wait for a restart.
    await asyncio.sleep(0.15)
    assert (await state_of("web"))["Status"] == "exited"


async def test_a_stopped_container_is_not_restarted(found: World, api: Api, run: Run, state_of: Any) -> None:
    await run("web", {"RestartPolicy": {"Name": "always"}})
    assert (await api("POST", "/containers/web/stop"))[0] == 204
    await asyncio.sleep(0.15)
    assert (await state_of("web"))["Status"] == "exited"


async def test_a_waiting_restart_can_be_called_off(found: World, api: Api, run: Run, state_of: Any) -> None:
    container_id = await run("web", {"RestartPolicy": {"Name": "always"}})
    found.runtime.end(container_id, 1)
    await until(lambda: is_now(api, "web", "restarting"))
    assert (await api("DELETE", "/containers/web"))[0] == 409
    assert (await api("POST", "/containers/web/stop"))[0] == 204
    await asyncio.sleep(0.15)
    assert (await state_of("web"))["Status"] == "exited"


async def test_restart_keeps_an_auto_removed_container(
    found: World, api: Api, run: Run, state_of: Any
) -> None:
    container_id = await run("web", {"AutoRemove": True})
    assert (await api("POST", "/containers/web/restart"))[0] == 204
    assert (await state_of("web"))["Status"] == "running"
    assert container_id in found.runtime.containers
    assert actions(found)[-1] == "restart"


async def test_joining_a_network(found: World, api: Api, run: Run) -> None:
    owner = await run("owner")
    await run("guest", {"NetworkMode": "container:owner"})
    launches = {each.launch.id: each.launch for each in found.runtime.containers.values()}
    guest = next(launch for launch in launches.values() if launch.id != owner)
    assert guest.netns == launches[owner].netns
    assert guest.hosts_file == launches[owner].hosts_file
    assert (await api("POST", "/containers/owner/stop"))[0] == 204
    assert (await api("POST", "/containers/guest/stop"))[0] == 204
    status, answer = await api("POST", "/containers/guest/start")
    assert status == 409
    assert "non running container" in answer["message"]


async def test_prune(found: World, api: Api, run: Run) -> None:
    await run("up")
    await api("POST", "/containers/create?name=new", {"Image": "busybox"})
    status, body = await api("POST", "/containers/prune")
    assert status == 200
    assert (len(body["ContainersDeleted"]), body["SpaceReclaimed"]) == (1, 4096)
    assert [each["Names"] for each in (await api("GET", "/containers/json?all=1"))[1]] == [["/up"]]


async def test_update(found: World, api: Api, run: Run) -> None:
    await run("web")
    body = {"Memory": 64 << 20, "MemorySwap": 128 << 20, "RestartPolicy": {"Name": "always"}}
    assert await api("POST", "/containers/web/update", body) == (200, {"Warnings": []})
    _, shown = await api("GET", "/containers/web/json")
    assert shown["HostConfig"]["Memory"] == 64 * 1024 * 1024
    assert shown["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert (await api("POST", "/containers/web/update", {"CpuPeriod": 5}))[0] == 400


@pytest.mark.parametrize(
    ("host", "is_refused"),
    [
        ({}, True),
        ({"Memory": 32 << 20}, False),
        ({"Memory": 31 << 20}, True),
        ({"Memory": 32 << 20, "MemorySwap": -1}, True),
    ],
)
async def test_more_memory_than_the_swap_limit(
    found: World, api: Api, run: Run, host: dict[str, int], is_refused: bool
) -> None:
    """Without a limit of its own the container's swap limit is twice the memory; 0 and -1 are less than any."""
    await run("web", host)
    _, before = await api("GET", "/containers/web/json")
    status, said = await api("POST", "/containers/web/update", {"Memory": 64 << 20})
    if not is_refused:
        assert status == 200
        return
    assert (status, said["message"]) == (
        409,
        f"Cannot update container {before['Id']}: Memory limit should be smaller than already set memoryswap "
        "limit, update the memoryswap at the same time",
    )
    assert (await api("GET", "/containers/web/json"))[1]["HostConfig"] == before["HostConfig"]


async def test_list_shows_ports_and_status(api: Api, run: Run) -> None:
    await run(
        "web",
        {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}},
        ExposedPorts={"80/tcp": {}, "81/tcp": {}},
        Cmd=["sh", "-c", "echo hi"],
    )
    _, (row,) = await api("GET", "/containers/json")
    assert row["Status"] == "Up Less than a second"
    assert row["Command"] == "sh -c 'echo hi'"
    published, exposed = row["Ports"]
    assert (published["IP"], published["PrivatePort"], published["Type"]) == ("127.0.0.1", 80, "tcp")
    assert published["PublicPort"] > 0
    assert exposed == {"PrivatePort": 81, "Type": "tcp"}
    _, body = await api("GET", "/containers/web/json")
    assert body["NetworkSettings"]["Ports"] == {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(published["PublicPort"])}],
        "81/tcp": None,
    }


async def test_a_new_daemon_adopts(found: World, api: Api, run: Run, state_of: Any) -> None:
    living = await run("living", Labels={"kept": "yes"})
    dead = await run("dead")
    again = await run("again", {"RestartPolicy": {"Name": "always"}})
    ctx = found.ctx
    for life in ctx.lives.values():
        if life.watcher is not None:
            life.watcher.cancel()
    ctx.lives.clear()
    fake = found.runtime.containers[living]
    found.runtime.end(dead, 9)
    found.runtime.end(again, 1)
    await watch.adopt(ctx)
    assert found.runtime.containers[living] is fake
    assert (await state_of("dead"))["ExitCode"] == 9
    await until(lambda: again in found.runtime.containers)
    await until(lambda: found.runtime.containers[again].state == "running")
    found.runtime.end(living, 4)
    await until(lambda: living not in found.runtime.containers)
    assert (await state_of("living"))["ExitCode"] == 4


async def test_a_removal_cut_short_is_finished(found: World, api: Api, run: Run) -> None:
    container_id = await run("web")
    found.runtime.end(container_id, 0)
    await until(lambda: container_id not in found.runtime.containers)
    from dari.reconcile.rows import change, with_status

    await change(found.ctx, container_id, lambda row: with_status(row, state="removing"))
    await watch.adopt(found.ctx)
    assert (await api("GET", "/containers/web/json"))[0] == 404
    assert found.ctx.tables.names.get(found.ctx.local, "web") is None


async def test_a_restart_counts_from_the_exit_on(found: World, api: Api, run: Run) -> None:
    container_id = await run("again", {"RestartPolicy": {"Name": "always"}})
    found.runtime.end(container_id, 1)

    for status in ("restarting", "running"):
        await until(lambda status=status: is_now(api, "again", status))
        _, body = await api("GET", "/containers/again/json")
        assert body["RestartCount"] == 1


async def test_an_auto_removal_cut_short_is_finished(found: World, api: Api, run: Run) -> None:
    container_id = await run("once", {"AutoRemove": True})
    life = found.ctx.lives.pop(container_id)
    assert life.watcher is not None
    life.watcher.cancel()
    from dari.reconcile.containers import record_exit
    from dari.runtime.launch import Exit

    found.runtime.end(container_id, 0)
    await record_exit(found.ctx, container_id, Exit(code=0))
    await watch.adopt(found.ctx)
    assert (await api("GET", "/containers/once/json"))[0] == 404
    assert container_id not in found.runtime.containers
