"""`POST /containers/create`: what is refused, what is filled in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.fakes.engine import Api, World


async def test_a_container_is_made_with_dockers_defaults(api: Api) -> None:
    status, made = await api(
        "POST", "/v1.45/containers/create?name=web", {"Image": "busybox", "Cmd": ["top"]}
    )
    assert status == 201
    assert made == {"Id": made["Id"], "Warnings": []}
    _, body = await api("GET", "/containers/web/json")
    assert (body["Path"], body["Args"], body["Name"]) == ("top", [], "/web")
    assert body["State"]["Status"] == "created"
    assert body["Config"]["Hostname"] == made["Id"][:12]
    assert body["Config"]["Env"] == ["PATH=/bin"]
    host = body["HostConfig"]
    assert host["NetworkMode"] == "bridge"
    assert host["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert host["LogConfig"] == {"Type": "json-file", "Config": {}}
    assert host["ShmSize"] == 64 * 1024 * 1024
    assert host["IpcMode"] == "private"
    assert "/proc/kcore" in host["MaskedPaths"]
    assert body["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == ""
    assert body["State"]["StartedAt"] == "0001-01-01T00:00:00Z"


async def test_a_name_is_made_up(api: Api) -> None:
    _, made = await api("POST", "/containers/create", {"Image": "busybox"})
    _, body = await api("GET", f"/containers/{made['Id'][:12]}/json")
    assert "_" in body["Name"]


async def test_a_name_in_use_is_a_conflict(api: Api) -> None:
    _, first = await api("POST", "/containers/create?name=web", {"Image": "busybox"})
    status, answer = await api("POST", "/containers/create?name=web", {"Image": "busybox"})
    assert status == 409
    assert answer["message"] == (
        f'Conflict. The container name "/web" is already in use by container "{first["Id"]}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("", {"Image": "gone"}, 404, "No such image: gone:latest"),
        ("?name=a", {"Image": "busybox"}, 400, None),
        ("", {}, 400, "config cannot be empty in order to create a container"),
        ("", {"HostConfig": {}}, 400, "config cannot be empty in order to create a container"),
        (
            "",
            {"Image": "busybox", "HostConfig": {"Memory": 1024}},
            400,
            "Minimum memory limit allowed is 6MB",
        ),
        (
            "",
            {"Image": "busybox", "HostConfig": {"NetworkMode": "container:nobody"}},
            400,
            "No such container: nobody",
        ),
        (
            "",
            {"Image": "busybox", "HostConfig": {"RestartPolicy": {"Name": "sometimes"}}},
            400,
            "invalid restart policy: unknown policy 'sometimes'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        ),
        (
            "",
            {"Image": "busybox", "HostConfig": {"Links": ["nobody:x"]}},
            400,
            "could not get container for nobody: No such container: nobody",
        ),
    ],
)
async def test_refusals_change_nothing(
    api: Api, path: str, body: dict[str, Any], status: int, message: str | None
) -> None:
    got, answer = await api("POST", f"/containers/create{path}", body)
    assert got == status, answer
    if message is not None:
        assert answer["message"] == message
    assert await api("GET", "/containers/json?all=1") == (200, [])


async def test_what_the_docker_client_sends_with_nulls(api: Api) -> None:
    body = {
        "Hostname": "", "Cmd": None, "Image": "busybox", "Volumes": {}, "Entrypoint": None, "OnBuild": None,
        "Labels": {}, "AttachStdout": True, "Env": None,
        "HostConfig": {
            "Binds": None, "NetworkMode": "default", "PortBindings": {}, "CapAdd": None, "Dns": [],
            "MemorySwappiness": -1, "OomKillDisable": False, "PidsLimit": 0, "Ulimits": [],
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "ConsoleSize": [0, 0],
        },
        "NetworkingConfig": {"EndpointsConfig": {"default": None}},
    }  # fmt: skip
    status, answer = await api("POST", "/v1.51/containers/create?name=cli", body)
    assert status == 201, answer
    _, shown = await api("GET", "/containers/cli/json")
    assert list(shown["NetworkSettings"]["Networks"]) == ["bridge"]
    assert shown["Path"] == "sh"


async def test_several_networks_with_aliases_at_once(api: Api) -> None:
    for name in ("front", "back"):
        assert (await api("POST", "/networks/create", {"Name": name}))[0] == 201
    body = {
        "Image": "busybox",
        "HostConfig": {"NetworkMode": "front"},
        "NetworkingConfig": {"EndpointsConfig": {"back": {"Aliases": ["db"]}, "front": None}},
    }
    assert (await api("POST", "/containers/create?name=web", body))[0] == 201
    assert (await api("POST", "/containers/web/start"))[0] == 204
    _, shown = await api("GET", "/containers/web/json")
    networks = shown["NetworkSettings"]["Networks"]
    assert list(networks) == ["front", "back"]
    assert networks["back"]["Aliases"] == ["db"]
    assert set(networks["back"]["DNSNames"]) == {"web", "db", shown["Id"][:12]}
    assert networks["front"]["IPAddress"] and networks["back"]["IPAddress"]


async def test_who_names_networks_and_no_mode_is_on_those_alone(api: Api) -> None:
    for name in ("back", "front"):
        assert (await api("POST", "/networks/create", {"Name": name}))[0] == 201
    body: dict[str, Any] = {
        "Image": "busybox",
        "NetworkingConfig": {"EndpointsConfig": {"back": {}, "front": {}}},
    }
    assert (await api("POST", "/containers/create?name=web", body))[0] == 201
    _, shown = await api("GET", "/containers/web/json")
    assert set(shown["NetworkSettings"]["Networks"]) == {"back", "front"}
    assert shown["HostConfig"]["NetworkMode"] == "bridge"
    # The container's own hardware address cannot be both's.
    status, refused = await api(
        "POST", "/containers/create?name=db", body | {"MacAddress": "02:00:00:00:00:07"}
    )
    assert (
        status == 400 and "HostConfig.NetworkMode must match the identity of a network" in refused["message"]
    )
    body["NetworkingConfig"] = {"EndpointsConfig": {"back": {}}}
    assert (await api("POST", "/containers/create?name=db", body | {"MacAddress": "02:00:00:00:00:07"}))[
        0
    ] == 201
    _, shown = await api("GET", "/containers/db/json")
    assert shown["NetworkSettings"]["Networks"]["back"]["MacAddress"] == "02:00:00:00:00:07"


async def test_the_asked_hardware_address_of_the_main_network_is_the_containers_too(api: Api) -> None:
    mac = "02:00:00:00:00:07"
    assert (await api("POST", "/networks/create", {"Name": "back"}))[0] == 201
    for name, mode, asked in (
        ("aa", "bridge", {"bridge": {"MacAddress": mac}}),
        ("bb", "back", {"back": {"MacAddress": mac}}),
    ):
        body = {
            "Image": "busybox",
            "HostConfig": {"NetworkMode": mode},
            "NetworkingConfig": {"EndpointsConfig": asked},
        }
        assert (await api("POST", f"/containers/create?name={name}", body))[0] == 201
        assert (await api("GET", f"/containers/{name}/json"))[1]["Config"]["MacAddress"] == mac
    body = {
        "Image": "busybox",
        "HostConfig": {"NetworkMode": "back"},
        "NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": mac}}},
    }
    assert (await api("POST", "/containers/create?name=cc", body))[0] == 201
    assert "MacAddress" not in (await api("GET", "/containers/cc/json"))[1]["Config"]


async def test_a_network_that_is_not_there_is_looked_for_at_the_start(found: World, api: Api) -> None:
    body = {
        "Image": "busybox",
        "HostConfig": {"NetworkMode": "later"},
        "NetworkingConfig": {"EndpointsConfig": {"later": {"Aliases": ["soon"]}, "other": {}}},
    }
    assert (await api("POST", "/containers/create?name=web", body))[0] == 201
    _, shown = await api("GET", "/containers/web/json")
    assert list(shown["NetworkSettings"]["Networks"]) == ["later", "other"]
    assert shown["NetworkSettings"]["Networks"]["later"]["NetworkID"] == ""
    for missing in ("later", "other"):
        status, answer = await api("POST", "/containers/web/start")
        message = f"failed to set up container networking: network {missing} not found"
        assert (status, answer["message"]) == (404, message)
        assert (await api("POST", "/networks/create", {"Name": missing}))[0] == 201
    # Never mind the second, and take a third that is not there either.
    assert (await api("POST", "/networks/third/connect", {"Container": "web"}))[0] == 200
    assert (await api("POST", "/networks/fourth/connect", {"Container": "web"}))[0] == 200
    assert (await api("POST", "/networks/fourth/disconnect", {"Container": "web"}))[0] == 200
    assert (await api("POST", "/networks/fourth/disconnect", {"Container": "web"}))[0] == 403
    assert (await api("POST", "/networks/create", {"Name": "third"}))[0] == 201
    assert (await api("POST", "/networks/later/connect", {"Container": "web"}))[0] == 200
    assert (await api("POST", "/containers/web/start"))[0] == 204
    _, shown = await api("GET", "/containers/web/json")
    networks = shown["NetworkSettings"]["Networks"]
    assert list(networks) == ["later", "other", "third"]
    assert "soon" in networks["later"]["DNSNames"] and all(each["IPAddress"] for each in networks.values())
    # A running container is told at once.
    assert (await api("POST", "/networks/fifth/connect", {"Container": "web"}))[0] == 404
    status, answer = await api("POST", "/networks/later/connect", {"Container": "web"})
    assert (status, answer["message"]) == (403, "endpoint with name web already exists in network later")


async def test_a_network_that_came_must_give_what_was_asked(api: Api) -> None:
    asked = {"IPAMConfig": {"IPv4Address": "10.9.0.9"}}
    body = {"Image": "busybox", "HostConfig": {"NetworkMode": "late"}}
    body["NetworkingConfig"] = {"EndpointsConfig": {"late": asked}}
    assert (await api("POST", "/containers/create?name=web", body))[0] == 201
    config = {"Config": [{"Subnet": "10.8.0.0/24"}]}
    assert (await api("POST", "/networks/create", {"Name": "late", "IPAM": config}))[0] == 201
    status, answer = await api("POST", "/containers/web/start")
    assert status == 400
    assert answer["message"].endswith("no configured subnet or ip-range contain the IP address 10.9.0.9")


async def test_volumes_of_the_image_become_anonymous_volumes(found: World, api: Api) -> None:
    body = {"Image": "busybox", "Volumes": {"/data": {}}, "HostConfig": {"Binds": ["named:/n", "/tmp:/t:ro"]}}
    assert (await api("POST", "/containers/create?name=web", body))[0] == 201
    _, shown = await api("GET", "/containers/web/json")
    mounts = {each["Destination"]: each for each in shown["Mounts"]}
    assert mounts["/n"]["Name"] == "named"
    assert mounts["/t"]["Type"] == "bind" and mounts["/t"]["RW"] is False
    assert len(mounts["/data"]["Name"]) == 64
    assert (await api("DELETE", "/containers/web?v=1"))[0] == 204
    assert [each.name for each in found.ctx.tables.volumes.all(found.ctx.local)] == ["named"]


async def test_an_image_is_asked_for_by_platform(api: Api) -> None:
    def asked(**platform: str) -> dict[str, str]:
        return {"platform": json.dumps(platform)}

    said = (
        "image with reference busybox was found but its platform (linux/amd64) "
        "does not match the specified platform (linux/arm64)"
    )
    for what in ("json", "history"):
        path = f"/v1.51/images/busybox/{what}"
        status, answer = await api("GET", path, params=asked(os="linux", architecture="arm64"))
        assert (status, answer["message"]) == (404, said)
        status, answer = await api("GET", path, params=asked(os="linux"))
        assert (status, answer["message"]) == (400, "both OS and Architecture must be provided")
        status, answer = await api("GET", path, params=asked(variant="v7"))
        assert status == 400
        assert answer["message"].startswith("optional platform fields provided")
        status, answer = await api("GET", path, params={"platform": "linux/arm64"})
        assert status == 400
        assert answer["message"].startswith("failed to parse platform: ")
    body = {"Image": "busybox"}
    status, answer = await api("POST", "/containers/create?platform=linux/arm64", body)
    assert (status, answer["message"]) == (404, said)
    assert (await api("POST", "/containers/create?platform=linux/x86_64", body))[0] == 201
    assert (await api("POST", "/containers/create?platform=a/b/c/d", body))[0] == 400
