"""`/networks` over the fakes: shapes, bad input, and that bad input changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.engine import Api, World, add_container, api_of, world

from dari.dns import zone
from dari.model.network import EndpointSpec
from dari.net.options import IFNAME, SYSCTLS
from dari.net.state import Bridge, NftElement, Veth


@pytest.fixture
async def found(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@pytest.fixture
async def api(found: World) -> AsyncIterator[Api]:
    async with api_of(found) as made:
        yield made


async def make(api: Api, name: str, **body: Any) -> str:
    status, answer = await api("POST", "/v1.51/networks/create", {"Name": name, **body})
    assert status == 201, answer
    return str(answer["Id"])


def ipam(**config: Any) -> dict[str, Any]:
    return {"IPAM": {"Config": [config]}}


async def test_create_inspect_remove(found: World, api: Api) -> None:
    before = found.kernel.state
    network_id = await make(
        api, "web", Labels={"a": "b"}, **ipam(Subnet="10.1.0.0/24", IPRange="10.1.0.128/25")
    )
    status, shape = await api("GET", "/networks/web")
    assert status == 200
    assert shape["Id"] == network_id and shape["Labels"] == {"a": "b"} and shape["Containers"] == {}
    config = {"Subnet": "10.1.0.0/24", "IPRange": "10.1.0.128/25", "Gateway": "10.1.0.128"}
    assert shape["IPAM"] == {"Driver": "default", "Options": {}, "Config": [config]}
    assert any(
        isinstance(each, Bridge) and each.name == f"br-{network_id[:12]}" for each in found.kernel.state
    )
    assert await api("GET", f"/networks/{network_id[:10]}") == (200, shape)
    assert await api("DELETE", "/networks/web") == (204, "")
    assert found.kernel.state == before
    assert (await api("GET", "/networks/web"))[0] == 404


BAD = [
    ({"Name": "web"}, 409, "network with name web already exists"),
    ({"Name": "bridge"}, 403, "operation is not permitted on predefined bridge network"),
    ({"Name": "  "}, 400, "invalid name: name is empty"),
    ({"Name": "x", "Driver": "nope"}, 404, 'plugin "nope" not found'),
    ({"Name": "x", "Driver": "host"}, 403, 'only one instance of "host" network is allowed'),
    (
        {"Name": "x", **ipam(Subnet="10.0.0.0/33")},
        400,
        "invalid network config:\ninvalid subnet 10.0.0.0/33: invalid CIDR block notation",
    ),
    (
        {"Name": "x", **ipam(Subnet="10.0.0.1/24")},
        400,
        "invalid network config:\ninvalid subnet 10.0.0.1/24: it should be 10.0.0.0/24",
    ),
    (
        {"Name": "x", **ipam(Subnet="10.0.0.0/24", Gateway="10.9.0.1")},
        400,
        "invalid network config:\ninvalid gateway 10.9.0.1: parent subnet 10.0.0.0/24 doesn't contain this address",
    ),
    (
        {"Name": "x", **ipam(Subnet="10.50.0.0/25")},
        403,
        "invalid pool request: Pool overlaps with other one on this address space: 10.50.0.0/25 overlaps 10.50.0.0/24 "
        "of network web",
    ),
    (
        {"Name": "x", "Options": {"com.docker.network.driver.mtu": "many"}},
        400,
        'failed to parse com.docker.network.driver.mtu value: many (strconv.Atoi: parsing "many": invalid syntax)',
    ),
    ({"Name": 5}, 400, "invalid JSON: Expected `str`, got `int` - at `$.Name`"),
]


@pytest.mark.parametrize(("body", "status", "message"), BAD)
async def test_bad_create_changes_nothing(
    found: World, api: Api, body: dict[str, Any], status: int, message: str
) -> None:
    await make(api, "web", **ipam(Subnet="10.50.0.0/24"))
    kernel, rows = found.kernel.state, dict(found.ctx.local.read(""))
    assert await api("POST", "/networks/create", body) == (status, {"message": message})
    assert found.kernel.state == kernel
    assert dict(found.ctx.local.read("")) == rows


async def test_a_failed_settle_takes_the_network_back(found: World, api: Api) -> None:
    before, rows = found.kernel.state, set(found.ctx.local.read("network"))

    def refuse(plan: object) -> None:
        from dari.kernel.errors import KernelError

        raise KernelError(None, 28, "no space")

    apply, found.kernel.apply = found.kernel.apply, refuse  # type: ignore[method-assign]
    status, answer = await api("POST", "/networks/create", {"Name": "web"})
    found.kernel.apply = apply  # type: ignore[method-assign]
    assert status == 500 and "ENOSPC" in answer["message"]
    assert found.kernel.state == before
    assert set(found.ctx.local.read("network")) == rows
    await make(api, "web")


async def test_remove_refuses(found: World, api: Api) -> None:
    await make(api, "web")
    await add_container(found, "c1", {"web": EndpointSpec()})
    for name in ("bridge", "host", "none"):
        message = f"{name} is a pre-defined network and cannot be removed"
        assert await api("DELETE", f"/networks/{name}") == (403, {"message": message})
    status, answer = await api("DELETE", "/networks/web")
    assert status == 403
    assert answer["message"].startswith(
        'error while removing network: network web has active endpoints (name:"c1"'
    )
    assert await api("DELETE", "/networks/nope") == (404, {"message": "network nope not found"})


async def test_connect_and_disconnect_a_running_container(found: World, api: Api) -> None:
    await make(api, "web")
    network_id = await make(api, "db", **ipam(Subnet="10.2.0.0/24"))
    container = await add_container(found, "c1", {"web": EndpointSpec()})
    before = found.kernel.state
    body = {
        "Container": "c1",
        "EndpointConfig": {"Aliases": ["a"], "IPAMConfig": {"IPv4Address": "10.2.0.77"}},
    }
    assert await api("POST", "/networks/db/connect", body) == (200, "")
    _, shape = await api("GET", "/networks/db")
    place = shape["Containers"][container.id]
    assert place["Name"] == "c1" and place["IPv4Address"] == "10.2.0.77/24"
    assert place["MacAddress"] == "02:42:0a:02:00:4d"
    veths = [each for each in found.kernel.state if isinstance(each, Veth)]
    assert {each.peer for each in veths} == {"eth0", "eth1"}
    names = zone.decode_zone(Path(found.ctx.config.dns_dir, zone.zone_path(network_id)).read_text()).names
    assert {"c1", "a", "c1.db", container.id[:12]} <= set(names)
    hosts = Path(found.ctx.config.containers_dir, container.id, "hosts").read_text()
    assert f"10.2.0.77\t{container.id[:12]}\n" in hosts
    status, answer = await api("POST", "/networks/db/connect", {"Container": "c1"})
    assert (status, answer["message"]) == (403, "endpoint with name c1 already exists in network db")
    assert await api("POST", "/networks/db/disconnect", {"Container": container.id[:12]}) == (200, "")
    assert found.kernel.state == before
    assert found.ctx.tables.leases.keys(found.ctx.local, network_id) == []
    status, answer = await api("POST", "/networks/db/disconnect", {"Container": "c1"})
    assert (status, answer["message"]) == (403, f"container {container.id} is not connected to network db")


CONNECT = [
    ("nope", {"Container": "c1"}, 404, "network nope not found"),
    ("db", {"Container": "c9"}, 404, "No such container: c9"),
    (
        "host",
        {"Container": "c1"},
        400,
        "cannot connect container to host network - container must be created in host network mode",
    ),
    (
        "db",
        {"Container": "c1", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.2.9.1"}}},
        400,
        "invalid endpoint settings:\nno configured subnet or ip-range contain the IP address 10.2.9.1",
    ),
    (
        "db",
        {"Container": "c1", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.2.0.2"}}},
        403,
        "Address already in use",
    ),
    (
        "auto",
        {"Container": "c1", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "172.30.0.9"}}},
        400,
        "invalid endpoint settings:\nuser specified IP address is supported only when connecting to networks with user "
        "configured subnets",
    ),
    (
        "bridge",
        {"Container": "c1", "EndpointConfig": {"Aliases": ["a"]}},
        400,
        "invalid endpoint settings:\nnetwork-scoped alias is supported only for containers in user defined networks",
    ),
    (
        "db",
        {"Container": "c1", "EndpointConfig": {"MacAddress": "01:00:00:00:00:00"}},
        400,
        "invalid MAC address 01:00:00:00:00:00",
    ),
    (
        "db",
        {"Container": "c1", "EndpointConfig": {"DriverOpts": {SYSCTLS: "net.ipv4.ip_forward=1"}}},
        400,
        "invalid endpoint settings:\nunrecognised network interface sysctl 'net.ipv4.ip_forward=1'; represent "
        "'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'",
    ),
    (
        "db",
        {"Container": "c1", "EndpointConfig": {"IPAMConfig": {"LinkLocalIPs": ["169.254.1.x"]}}},
        400,
        "invalid endpoint settings:\ninvalid link-local IP address: 169.254.1.x",
    ),
    (
        "db",
        {"Container": "c1", "EndpointConfig": {"DriverOpts": {IFNAME: "much-too-long-a-name"}}},
        400,
        "invalid endpoint settings:\ninvalid interface name 'much-too-long-a-name': 1 to 15 characters, no blanks, no "
        "slashes, not lo",
    ),
    (
        "db",
        {"Container": "c1", "EndpointConfig": {"DriverOpts": {IFNAME: "eth0"}}},
        403,
        "two interfaces of one container cannot both be called eth0",
    ),
]


@pytest.mark.parametrize(("network", "body", "status", "message"), CONNECT)
async def test_bad_connect_changes_nothing(
    found: World, api: Api, network: str, body: dict[str, Any], status: int, message: str
) -> None:
    await make(api, "db", **ipam(Subnet="10.2.0.0/24"))
    await make(api, "auto")
    await make(api, "web")
    await add_container(found, "c0", {"db": EndpointSpec()})
    await add_container(found, "c1", {"web": EndpointSpec()})
    kernel, rows = found.kernel.state, dict(found.ctx.local.read(""))
    assert await api("POST", f"/networks/{network}/connect", body) == (status, {"message": message})
    assert found.kernel.state == kernel
    assert dict(found.ctx.local.read("")) == rows


async def test_a_stopped_container_keeps_what_was_asked(found: World, api: Api) -> None:
    await make(api, "db", **ipam(Subnet="10.2.0.0/24"))
    await add_container(found, "c1", {}, is_running=False)
    body = {"Container": "c1", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.2.0.2"}}}
    assert await api("POST", "/networks/db/connect", body) == (200, "")
    _, shape = await api("GET", "/networks/db")
    assert shape["Containers"] == {}
    # The address asked for by name stays free for its container, running or not.
    other = await add_container(found, "c2", {"db": EndpointSpec()})
    _, shape = await api("GET", "/networks/db")
    assert shape["Containers"][other.id]["IPv4Address"] == "10.2.0.3/24"


async def test_published_ports_are_claimed_once(found: World) -> None:
    from dari.model.container import PortBinding
    from dari.model.errors import PortInUse

    bindings = {"80/tcp": [PortBinding(host_port="18081")], "53/udp": [PortBinding(host_port="18082-18090")]}
    await add_container(found, "c1", {"bridge": EndpointSpec()}, port_bindings=bindings)
    published = {
        (each.set, each.element): each.value for each in found.kernel.state if isinstance(each, NftElement)
    }
    assert published[("publish_any4", "tcp . 18081")] == "172.17.0.2 . 80"
    assert published[("publish_any4", "udp . 18082")] == "172.17.0.2 . 53"
    with pytest.raises(PortInUse, match=r"Bind for 0\.0\.0\.0:18081 failed: port is already allocated"):
        await add_container(
            found, "c2", {"bridge": EndpointSpec()}, port_bindings={"81/tcp": bindings["80/tcp"]}
        )
    on_address = {"81/tcp": [PortBinding(host_ip="127.0.0.1", host_port="18081")]}
    with pytest.raises(PortInUse, match=r"Bind for 127\.0\.0\.1:18081 failed: port is already allocated"):
        await add_container(found, "c3", {"bridge": EndpointSpec()}, port_bindings=on_address)


async def test_a_port_somebody_else_listens_on_is_refused(found: World) -> None:
    from dari.model.container import PortBinding
    from dari.model.errors import PortInUse

    found.ctx.holds.foreign.add(("tcp", 18083))  # type: ignore[attr-defined]
    bindings = {"80/tcp": [PortBinding(host_port="18083")]}
    with pytest.raises(
        PortInUse,
        match=r"failed to bind host port for 0\.0\.0\.0:18083:172\.17\.0\.2:80/tcp: address already in use",
    ):
        await add_container(found, "c1", {"bridge": EndpointSpec()}, port_bindings=bindings)
    assert found.ctx.tables.ports.keys(found.ctx.local) == []
    assert not found.ctx.holds.held


async def test_list_filters(found: World, api: Api) -> None:
    await make(api, "web", Labels={"a": "b"})
    await make(api, "db")
    await add_container(found, "c1", {"db": EndpointSpec()})

    async def listed(**filters: Any) -> list[str]:
        import json

        status, shape = await api("GET", "/networks", params={"filters": json.dumps(filters)})
        assert status == 200, shape
        return [each["Name"] for each in shape]

    assert await listed() == ["bridge", "db", "host", "none", "web"]
    assert await listed(name=["we"]) == ["web"]
    assert await listed(name={"^db$": True}) == ["db"]
    assert await listed(label=["a=b"]) == ["web"]
    assert await listed(type=["custom"]) == ["db", "web"]
    assert await listed(driver=["host", "null"]) == ["host", "none"]
    assert await listed(dangling=["true"]) == ["web"]
    status, answer = await api("GET", "/networks", params={"filters": '{"colour":["red"]}'})
    assert (status, answer) == (400, {"message": "invalid filter 'colour'"})
    assert await api("POST", "/networks/prune") == (200, {"NetworksDeleted": ["web"]})


async def test_events_tell_of_networks(found: World, api: Api) -> None:
    await make(api, "web")
    await add_container(found, "c1", {})
    await api("POST", "/networks/web/connect", {"Container": "c1"})
    await api("POST", "/networks/web/disconnect", {"Container": "c1"})
    await api("DELETE", "/networks/web")
    async with api.session.get(
        "http://dari/events", params={"since": "1", "until": "99999999999"}
    ) as response:
        import json

        told = [json.loads(await response.content.readline()) for _ in range(4)]
    assert [each["Action"] for each in told] == ["create", "connect", "disconnect", "destroy"]
    assert all(each["Type"] == "network" and each["Actor"]["Attributes"]["name"] == "web" for each in told)
    assert "status" not in told[0]
