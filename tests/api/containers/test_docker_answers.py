"""Answers that clients of Docker look at: texts of refusals, volumes in events, ended execs."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from tests.fakes.engine import Api, World


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("h=&w=10", 'invalid resize height "": invalid syntax'),
        ("w=10", 'invalid resize height "": invalid syntax'),
        ("h=x&w=10", 'invalid resize height "x": invalid syntax'),
        ("h=10&w=-1", 'invalid resize width "-1": value out of range'),
        ("h=10&w=4294967296", 'invalid resize width "4294967296": value out of range'),
    ],
)
async def test_sizes_that_are_none(api: Api, run: Any, query: str, message: str) -> None:
    await run("box")
    status, answer = await api("POST", f"/containers/box/resize?{query}")
    assert (status, answer["message"]) == (400, message)


async def test_a_stopped_container_has_no_size(api: Api) -> None:
    _, made = await api("POST", "/containers/create?name=box", {"Image": "busybox"})
    status, answer = await api("POST", "/containers/box/resize?h=1&w=1")
    assert (status, answer["message"]) == (409, f"container {made['Id']} is not running")


async def test_the_namespace_of_one_that_does_not_run(api: Api) -> None:
    _, owner = await api("POST", "/containers/create?name=owner", {"Image": "busybox"})
    await api(
        "POST",
        "/containers/create?name=box",
        {"Image": "busybox", "HostConfig": {"PidMode": "container:owner"}},
    )
    status, answer = await api("POST", "/containers/box/start")
    assert status == 500
    assert answer["message"] == f"failed to join PID namespace: container {owner['Id']} is not running"


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        ({"Image": ""}, 400, "no command specified"),
        ({"Image": "busybox", "HostConfig": {"SecurityOpt": ["writable-cgroups=1"]}}, 400,
         'invalid --security-opt 2: "writable-cgroups=1"'),
        ({"Image": "busybox", "HostConfig": {"Mounts": [
            {"Type": "volume", "Target": "/v", "VolumeOptions": {"DriverConfig": {"Name": "none-such"}}}]}}, 404,
         'error looking up volume plugin none-such: plugin "none-such" not found'),
        ({"Image": "busybox", "HostConfig": {"Mounts": [
            {"Type": "bind", "Source": "/tmp", "Target": "/v", "BindOptions": {"ReadOnlyForceRecursive": True}}]}}, 400,
         'invalid mount config for type "bind": mount must be set to read-only to use ReadOnlyForceRecursive'),
    ],
)  # fmt: skip
async def test_refused_creates(api: Api, asked: dict[str, Any], status: int, message: str) -> None:
    found, answer = await api("POST", "/containers/create", asked)
    assert (found, answer["message"]) == (status, message)


async def test_a_working_directory_is_cleaned(api: Api) -> None:
    await api("POST", "/containers/create?name=box", {"Image": "busybox", "WorkingDir": "/tmp//a/../b/"})
    assert (await api("GET", "/containers/box/json"))[1]["Config"]["WorkingDir"] == "/tmp/b"


async def test_commit_looks_at_its_body_first(api: Api) -> None:
    for container in ("", "?container=nobody"):
        url, kind = f"http://dari/commit{container}", {"Content-Type": "application/json"}
        async with api.session.post(url, data=b"{x", headers=kind) as response:
            assert response.status == 400
            answer = await response.json()
        assert (
            answer["message"]
            == "invalid JSON: invalid character 'x' looking for beginning of object key string"
        )


async def test_binds_that_show_the_engines_own_files_follow_its_mounts(api: Api, found: World) -> None:
    root = found.ctx.config.data_root
    body = {"Image": "busybox", "HostConfig": {"Binds": [f"{root}:/data:private"]}}
    status, answer = await api("POST", "/containers/create", body)
    assert status == 400
    assert answer["message"].startswith(
        'invalid mount config: must use either propagation mode "rslave" or "rshared"'
    )
    body["HostConfig"] = {"Binds": [f"{root}:/data:rslave"]}
    assert (await api("POST", "/containers/create", body))[0] == 201


async def test_volumes_of_a_container_are_told_of(api: Api, run: Any) -> None:
    """Without `since`, a list that ends has all there were."""
    await run("box", {"Binds": ["data:/d:ro"]})
    await api("POST", "/containers/box/kill")
    await api("POST", "/containers/box/wait")
    asked = {"until": f"{time.time() + 0.2:.3f}", "filters": '{"type": ["volume"]}'}
    async with api.session.get("http://dari/events", params=asked) as response:
        rows = [json.loads(line) for line in (await response.text()).splitlines()]
    assert [(row["Action"], row["Actor"]["ID"]) for row in rows] == [
        ("create", "data"),
        ("mount", "data"),
        ("unmount", "data"),
    ]
    told = rows[1]["Actor"]["Attributes"]
    assert (told["destination"], told["read/write"], told["driver"]) == ("/d", "false", "local")


async def test_an_exec_goes_with_its_container(api: Api, run: Any) -> None:
    await run("box")
    _, made = await api("POST", "/containers/box/exec", {"Cmd": ["true"]})
    assert (await api("GET", "/containers/box/json"))[1]["ExecIDs"] == [made["Id"]]
    await api("POST", "/containers/box/pause")
    status, answer = await api("POST", "/containers/box/exec", {"Cmd": ["true"]})
    assert (status, answer["message"]) == (
        409,
        "Container box is paused, unpause the container before exec",
    )
    await api("POST", "/containers/box/unpause")
    await api("POST", "/containers/box/kill")
    await api("POST", "/containers/box/wait")
    status, answer = await api("POST", f"/exec/{made['Id']}/start", {"Detach": True})
    assert (status, answer["message"]) == (404, f"No such exec instance: {made['Id']}")
    await api("POST", "/containers/box/start")
    assert (await api("POST", f"/exec/{made['Id']}/start", {"Detach": True}))[0] == 404


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"HostConfig": {"NetworkMode": "host"}, "MacAddress": "92:d0:c6:0a:29:33"},
         "conflicting options: mac-address and the network mode"),
        ({"HostConfig": {"NetworkMode": "container:other"}, "ExposedPorts": {"80/tcp": {}}},
         "conflicting options: port exposing and the container type network mode"),
        ({"HostConfig": {"NetworkMode": "container:me"}}, "cannot join own namespace: container:me"),
        ({"HostConfig": {"Links": ["hosted:x"]}},
         "conflicting options: host type networking can't be used with links. "
         "This would result in undefined behavior"),
        ({"HostConfig": {"OomScoreAdj": 1001}}, "Invalid value 1001, range for oom score adj is [-1000, 1000]."),
    ],
)  # fmt: skip
async def test_options_that_do_not_go_together(api: Api, asked: dict[str, Any], message: str) -> None:
    await api(
        "POST", "/containers/create?name=hosted", {"Image": "busybox", "HostConfig": {"NetworkMode": "host"}}
    )
    status, answer = await api("POST", "/containers/create?name=me", {"Image": "busybox", **asked})
    assert (status, answer["message"]) == (400, message)


async def test_keys_that_nobody_can_type(api: Api, run: Any) -> None:
    await run("box", None, Tty=True)
    status, answer = await api("POST", "/containers/box/attach?stream=1&detachKeys=ctrl-A,a")
    assert (status, answer["message"]) == (400, "Invalid detach keys (ctrl-A,a) provided")
    status, answer = await api("POST", "/containers/box/exec", {"Cmd": ["true"], "DetachKeys": "ctrl-A,a"})
    assert (status, answer["message"]) == (400, "Invalid escape keys (ctrl-A,a) provided")


async def test_a_terminal_that_is_resized_is_told_of(api: Api, run: Any) -> None:
    await run("box", None, Tty=True)
    assert (await api("POST", "/containers/box/resize?h=24&w=80"))[0] == 200
    asked = {"until": f"{time.time() + 0.2:.3f}", "filters": '{"event": ["resize"], "container": ["bo"]}'}
    async with api.session.get("http://dari/events", params=asked) as response:
        (row,) = [json.loads(line) for line in (await response.text()).splitlines()]
    assert (row["Actor"]["Attributes"]["height"], row["Actor"]["Attributes"]["width"]) == ("24", "80")


async def test_disk_usage_of_some_kinds(api: Api) -> None:
    status, body = await api("GET", "/system/df?type=volume")
    assert status == 200
    assert (body["Volumes"], body["Images"], body["Containers"], body["BuildCache"]) == ([], None, None, None)
    status, body = await api("GET", "/system/df?type=volume&type=soap")
    assert (status, body["message"]) == (400, "unknown object type: soap")


async def test_a_log_driver_nobody_has(api: Api) -> None:
    host = {"LogConfig": {"Type": "none-such"}}
    status, answer = await api("POST", "/containers/create", {"Image": "busybox", "HostConfig": host})
    message = 'error looking up logging plugin none-such: plugin "none-such" not found'
    assert (status, answer["message"]) == (400, message)


@pytest.mark.parametrize(
    ("beside", "host", "shown"),
    [
        ("runc", {}, "runc"),
        ("runc", {"Runtime": "io.containerd.runc.v2"}, "io.containerd.runc.v2"),
        ("none-such", {}, "crun"),
        (["runc"], {}, "crun"),
    ],
)
async def test_a_runtime_named_beside_the_host_config(
    api: Api, beside: Any, host: dict[str, str], shown: str
) -> None:
    asked = {"Image": "busybox", "Runtime": beside, "HostConfig": host}
    assert (await api("POST", "/containers/create?name=box", asked))[0] == 201
    assert (await api("GET", "/containers/box/json"))[1]["HostConfig"]["Runtime"] == shown


async def test_a_health_check_of_no_kind_is_told_and_not_made(api: Api, run: Any) -> None:
    asked = {"Image": "busybox", "Healthcheck": {"Test": ["true"]}}
    status, made = await api("POST", "/containers/create", asked)
    (warning,) = made["Warnings"]
    assert status == 201
    assert warning.startswith("Unknown healthcheck type 'true' (expected 'CMD', 'CMD-SHELL' or 'NONE')")
    await run("box", None, Healthcheck={"Test": ["true"]})
    assert "Health" not in (await api("GET", "/containers/box/json"))[1]["State"]


async def test_a_start_takes_no_configuration(api: Api) -> None:
    await api("POST", "/containers/create?name=web", {"Image": "busybox"})
    status, answer = await api("POST", "/containers/web/start", {"Binds": ["/a:/b"]})
    assert (status, answer["message"]) == (
        400,
        "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
    )
    assert (await api("POST", "/containers/web/start", {}))[0] == 204


async def test_a_limit_nobody_could_live_with_is_refused_first(api: Api, run: Any) -> None:
    await run("web")
    status, answer = await api("POST", "/containers/web/update", {"Memory": 1})
    assert (status, answer["message"]) == (400, "Minimum memory limit allowed is 6MB")


async def test_logs_that_wait_for_nobody_are_taken(api: Api) -> None:
    asked = {"Type": "json-file", "Config": {"mode": "non-blocking", "max-buffer-size": "4m"}}
    status, _ = await api(
        "POST", "/containers/create?name=web", {"Image": "busybox", "HostConfig": {"LogConfig": asked}}
    )
    assert status == 201
    assert (await api("GET", "/containers/web/json"))[1]["HostConfig"]["LogConfig"] == asked


@pytest.mark.parametrize("init", [None, False, True])
async def test_no_init_is_an_answer_too(api: Api, init: bool | None) -> None:
    """Ansible's docker_container would make it anew each time where false came back as "not asked for"."""
    body = {"Image": "busybox", "HostConfig": {"Init": init}}
    await api("POST", "/containers/create?name=box", body)
    _, shown = await api("GET", "/containers/box/json")
    assert shown["HostConfig"].get("Init") is init


async def test_ports_that_mean_nothing_are_warned_of(api: Api) -> None:
    body = {
        "Image": "busybox",
        "HostConfig": {"NetworkMode": "host", "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}},
    }
    status, made = await api("POST", "/containers/create?name=box", body)
    assert (status, made["Warnings"]) == (
        201,
        ["Published ports are discarded when using host network mode"],
    )
