"""Requests in older versions of the API mean what they meant then."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fakes.engine import Api


async def _inspect(api: Api, name: str) -> dict[str, Any]:
    _, body = await api("GET", f"/containers/{name}/json")
    return dict(body)


@pytest.mark.parametrize(
    ("version", "asked", "shown"),
    [
        ("1.39", {}, {"IpcMode": "shareable", "PidsLimit": None}),
        ("1.39", {"IpcMode": "none", "PidsLimit": 5}, {"IpcMode": "none", "PidsLimit": None}),
        ("1.40", {"PidsLimit": 5}, {"IpcMode": "private", "PidsLimit": 5}),
        ("1.41", {"ConsoleSize": [10, 20]}, {"ConsoleSize": [0, 0]}),
        ("1.42", {"ConsoleSize": [10, 20]}, {"ConsoleSize": [10, 20]}),
        ("1.43", {"Annotations": {"a": "b"}}, {"Annotations": {"a": "b"}}),
    ],
)  # fmt: skip
async def test_the_defaults_of_old(
    api: Api, version: str, asked: dict[str, Any], shown: dict[str, Any]
) -> None:
    status, made = await api(
        "POST", f"/v{version}/containers/create?name=box", {"Image": "busybox", "HostConfig": asked}
    )
    assert status == 201, made
    host = (await _inspect(api, "box"))["HostConfig"]
    assert {name: host[name] for name in shown} == shown


async def test_several_networks_at_once_came_with_1_44(api: Api) -> None:
    body = {"Image": "busybox", "NetworkingConfig": {"EndpointsConfig": {"a": {}, "b": None}}}
    status, answer = await api("POST", "/v1.43/containers/create", body)
    assert status == 400
    assert answer["message"] == "Container cannot be created with multiple network endpoints: a, b"
    assert (await api("POST", "/v1.44/containers/create", body))[0] == 201


async def test_a_limit_of_processes_was_not_known_to_updates_before_1_40(api: Api, run: Any) -> None:
    await run("box", {"PidsLimit": 32})
    for version, asked, left in (("1.39", 16, 32), ("1.40", 16, 16), ("1.40", -1, 0)):
        status, _ = await api("POST", f"/v{version}/containers/box/update", {"PidsLimit": asked})
        assert status == 200
        assert (await _inspect(api, "box"))["HostConfig"]["PidsLimit"] == left


async def test_names_that_were_aliases_until_1_45(api: Api) -> None:
    await api("POST", "/networks/create", {"Name": "net"})
    body = {
        "Image": "busybox",
        "Hostname": "host",
        "HostConfig": {"NetworkMode": "net"},
        "NetworkingConfig": {"EndpointsConfig": {"net": {"Aliases": ["a"]}}},
    }
    _, made = await api("POST", "/containers/create?name=box", body)
    for version, names in (("1.44", ["a", made["Id"][:12], "host"]), ("1.45", ["a"])):
        _, shown = await api("GET", f"/v{version}/containers/box/json")
        assert shown["NetworkSettings"]["Networks"]["net"]["Aliases"] == names


async def test_fields_that_came_and_went(api: Api) -> None:
    _, old = await api("GET", "/v1.48/info")
    _, new = await api("GET", "/v1.49/info")
    assert old["RuncCommit"] == {"ID": "", "Expected": ""} and new["RuncCommit"] == {"ID": ""}
    assert "FirewallBackend" in new and "FirewallBackend" not in old
    gone = {"AllowNondistributableArtifactsCIDRs", "AllowNondistributableArtifactsHostnames"}
    assert gone <= set(old["RegistryConfig"]) and not gone & set(new["RegistryConfig"])
    _, oldest = await api("GET", "/v1.24/info")
    assert not any("=" in each for each in oldest["SecurityOptions"])
    assert "BuilderSize" in (await api("GET", "/v1.41/system/df"))[1]
    assert "BuilderSize" not in (await api("GET", "/v1.42/system/df"))[1]


async def test_a_volume_driver_for_all_does_not_count_for_mounts(api: Api) -> None:
    host = {"VolumeDriver": "local", "Mounts": [{"Type": "volume", "Source": "data", "Target": "/d"}]}
    _, made = await api("POST", "/containers/create", {"Image": "busybox", "HostConfig": host})
    assert [each[:41] for each in made["Warnings"]] == ["the container-wide volume-driver configur"]
