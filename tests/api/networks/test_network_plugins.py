"""Network and IPAM plugins over a fake kernel and a plugin on a real socket: what is called when, and what is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.engine import Api, World, add_container, api_of, world
from tests.fakes.plugin import FakePlugin, FakePools
from tests.patience import PATIENCE

from dari.engine import networks
from dari.kernel.plugin import Plugins
from dari.model.container import PortBinding
from dari.model.errors import DariError
from dari.model.network import EndpointSpec, NetworkSpec
from dari.net.state import Addr, MovedLink, NftElement, Route
from dari.reconcile import endpoints, plugin_boot, plugin_claims
from dari.reconcile.settle import settle
from dari.store.base import Txn


@pytest.fixture
async def found(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        made.ctx.plugins = Plugins((str(tmp_path / "plugins"),), timeout=10 * PATIENCE)
        yield made
        made.ctx.plugins.close()


@pytest.fixture
async def api(found: World) -> AsyncIterator[Api]:
    async with api_of(found) as made:
        yield made


@pytest.fixture
def acme(tmp_path: Path) -> Iterator[FakePlugin]:
    with FakePlugin(tmp_path / "plugins", "acme") as made:
        made.answers["NetworkDriver.Join"] = lambda body: {
            "InterfaceName": {"SrcName": f"acme{body['EndpointID'][:4]}", "DstPrefix": "eth"},
            "Gateway": "10.5.0.1",
            "StaticRoutes": [{"Destination": "10.5.0.1/32", "RouteType": 1}],
        }
        yield made


def body(name: str = "far", **more: Any) -> dict[str, Any]:
    return {"Name": name, "Driver": "acme", "IPAM": {"Config": [{"Subnet": "10.5.0.0/24"}]}, **more}


def held(found: World) -> list[str]:
    return sorted(f"{each.kind}{'' if each.is_held else '?'}" for each in plugin_claims.of(found.ctx))


async def create(api: Api, **more: Any) -> str:
    status, answer = await api("POST", "/networks/create", body(**more))
    assert status == 201, answer
    return str(answer["Id"])


async def release(found: World, container_id: str) -> None:
    """What the end of a container does to its networks."""
    txn = Txn()
    endpoints.deactivate(found.ctx, txn, container_id)
    await found.ctx.local.commit(txn)
    await settle(found.ctx, container_id)


async def test_create_and_remove(found: World, api: Api, acme: FakePlugin) -> None:
    before = found.kernel.state
    network_id = await create(
        api,
        Options={"color": "red"},
        Internal=True,
        IPAM={"Config": [{"Subnet": "10.5.0.0/24", "AuxiliaryAddresses": {"a": "10.5.0.9"}}]},
    )
    assert acme.methods() == ["CreateNetwork"]
    assert acme.last("CreateNetwork") == {
        "NetworkID": network_id,
        "Options": {
            "com.docker.network.enable_ipv4": True,
            "com.docker.network.enable_ipv6": False,
            "com.docker.network.internal": True,
            "com.docker.network.generic": {"color": "red"},
        },
        "IPv4Data": [
            {
                "AddressSpace": "LocalDefault",
                "Pool": "10.5.0.0/24",
                "Gateway": "10.5.0.1/24",
                "AuxAddresses": {"a": "10.5.0.9/24"},
            }
        ],
        "IPv6Data": [],
    }
    _, shape = await api("GET", "/networks/far")
    assert (shape["Driver"], shape["Scope"]) == ("acme", "local")
    assert held(found) == ["network"]
    assert "acme" in (await api("GET", "/info"))[1]["Plugins"]["Network"]
    assert await api("DELETE", "/networks/far") == (204, "")
    assert acme.last("DeleteNetwork") == {"NetworkID": network_id}
    assert held(found) == [] and found.kernel.state == before


async def test_a_container_comes_and_goes(found: World, api: Api, acme: FakePlugin) -> None:
    network_id = await create(api)
    container = await add_container(found, "web", {"far": EndpointSpec(driver_opts={"speed": "9"})})
    endpoint = endpoints.of_sandbox(found.ctx, container.sandbox_id)[0]
    assert acme.methods() == [
        "CreateNetwork",
        "CreateEndpoint",
        "Join",
        "ProgramExternalConnectivity",
        "EndpointOperInfo",
    ]
    ports = {"com.docker.network.endpoint.exposedports": [], "com.docker.network.portmap": []}
    assert acme.last("CreateEndpoint") == {
        "NetworkID": network_id,
        "EndpointID": endpoint.id,
        "Interface": {"Address": "10.5.0.2/24", "AddressIPv6": "", "MacAddress": ""},
        "Options": {**ports, "speed": "9"},
    }
    netns = f"{found.ctx.config.netns_dir}/{container.sandbox_id[:12]}"
    assert acme.last("Join")["SandboxKey"] == netns and acme.last("Join")["Options"] == ports
    source = f"acme{endpoint.id[:4]}"
    moved = next(each for each in found.kernel.state if isinstance(each, MovedLink))
    assert (moved.name, moved.source, moved.mac) == ("eth0", source, found.kernel.mac)
    inside = [each for each in found.kernel.state if isinstance(each, Addr) and each.netns == moved.netns]
    assert [str(each.address) for each in inside] == ["10.5.0.2/24"]
    routes = [each for each in found.kernel.state if isinstance(each, Route) and each.netns == moved.netns]
    assert sorted((str(each.to), str(each.via)) for each in routes) == [
        ("0.0.0.0/0", "10.5.0.1"),
        ("10.5.0.1/32", "None"),
    ]
    assert held(found) == ["endpoint", "external", "join", "network"]
    shape = (await api("GET", "/networks/far"))[1]["Containers"][container.id]
    assert (shape["IPv4Address"], shape["MacAddress"]) == ("10.5.0.2/24", found.kernel.mac)
    await release(found, container.id)
    assert acme.methods()[5:] == ["RevokeExternalConnectivity", "Leave", "DeleteEndpoint"]
    assert held(found) == ["network"]
    assert not any(isinstance(each, MovedLink) for each in found.kernel.state)


async def test_settling_again_calls_nobody(found: World, api: Api, acme: FakePlugin) -> None:
    network_id = await create(api)
    container = await add_container(found, "web", {"far": EndpointSpec()})
    said = len(acme.calls)
    await settle(found.ctx, container.id, network_id)
    assert await plugin_boot.catch_up(found.ctx)
    assert len(acme.calls) == said
    assert (await plugin_boot.examine(found.ctx)).is_empty


async def test_connect_and_disconnect_of_a_running_container(
    found: World, api: Api, acme: FakePlugin
) -> None:
    await create(api)
    await api("POST", "/networks/create", {"Name": "near"})
    container = await add_container(found, "web", {"near": EndpointSpec()})
    answer = await api("POST", "/networks/far/connect", {"Container": "web"})
    assert answer[0] == 200
    moved = next(each for each in found.kernel.state if isinstance(each, MovedLink))
    assert moved.name == "eth1"
    assert acme.methods()[1:] == ["CreateEndpoint", "Join", "ProgramExternalConnectivity", "EndpointOperInfo"]
    assert (await api("POST", "/networks/far/disconnect", {"Container": "web"}))[0] == 200
    assert acme.methods()[5:] == ["RevokeExternalConnectivity", "Leave", "DeleteEndpoint"]
    assert held(found) == ["network"] and container.id


async def test_the_way_to_the_world_moves_with_the_gateway(found: World, api: Api, acme: FakePlugin) -> None:
    await create(api)
    container = await add_container(found, "web", {"far": EndpointSpec()})
    await api("POST", "/networks/create", {"Name": "aaa"})
    await api("POST", "/networks/aaa/connect", {"Container": "web"})
    assert acme.methods()[-1] == "RevokeExternalConnectivity"
    await api("POST", "/networks/aaa/disconnect", {"Container": "web"})
    assert acme.methods()[-1] == "ProgramExternalConnectivity"
    assert container.id


async def test_ports_follow_the_gateway(found: World, api: Api, acme: FakePlugin) -> None:
    await create(api)
    await api("POST", "/networks/create", {"Name": "near", "IPAM": {"Config": [{"Subnet": "10.6.0.0/24"}]}})
    bindings = {"80/tcp": [PortBinding(host_port="18080")]}
    container = await add_container(
        found, "web", {"near": EndpointSpec(), "far": EndpointSpec()}, port_bindings=bindings
    )

    def published() -> list[str]:
        return [
            each.value
            for each in found.kernel.state
            if isinstance(each, NftElement) and "18080" in each.element
        ]

    # The plugin's network sorts first, so it leads to the world, and is told of the port.
    assert published() == []
    mapped = acme.last("ProgramExternalConnectivity")["Options"]["com.docker.network.portmap"]
    assert [(each["Port"], each["HostPort"]) for each in mapped] == [(80, 18080)]
    await api("POST", "/networks/far/disconnect", {"Container": "web"})
    assert published() == ["10.6.0.2 . 80"]
    await api("POST", "/networks/far/connect", {"Container": "web"})
    assert published() == []
    assert found.ctx.tables.sandboxes.get(found.ctx.local, container.sandbox_id).ports == []


async def test_a_name_and_a_prefix_of_the_plugin(found: World, api: Api, acme: FakePlugin) -> None:
    await create(api)
    acme.answers["NetworkDriver.Join"] = {"InterfaceName": {"SrcName": "x", "DstPrefix": "wan"}}
    await add_container(found, "web", {"far": EndpointSpec()})
    acme.answers["NetworkDriver.Join"] = {
        "InterfaceName": {"SrcName": "y", "DstName": "tun7", "DstPrefix": "e"}
    }
    await add_container(found, "db", {"far": EndpointSpec()})
    acme.answers["NetworkDriver.Join"] = {}
    await add_container(found, "bare", {"far": EndpointSpec()})
    assert sorted(each.name for each in found.kernel.state if isinstance(each, MovedLink)) == ["tun7", "wan0"]


async def test_null_addresses_are_the_plugins(found: World, api: Api, acme: FakePlugin) -> None:
    await create(api, IPAM={"Driver": "null"})
    assert acme.last("CreateNetwork")["IPv4Data"] == [{"AddressSpace": "null", "Pool": "0.0.0.0/0"}]
    assert (await api("GET", "/networks/far"))[1]["IPAM"]["Config"] == [{"Subnet": "0.0.0.0/0"}]
    acme.answers["NetworkDriver.CreateEndpoint"] = {
        "Interface": {"Address": "192.0.2.7/28", "AddressIPv6": "", "MacAddress": "0A:00:00:00:00:07"}
    }
    await add_container(found, "web", {"far": EndpointSpec()})
    moved = next(each for each in found.kernel.state if isinstance(each, MovedLink))
    assert moved.mac == "0a:00:00:00:00:07"
    assert any(isinstance(each, Addr) and str(each.address) == "192.0.2.7/28" for each in found.kernel.state)
    # A pool that holds everything stands in nobody's way.
    assert (await api("POST", "/networks/create", {"Name": "near"}))[0] == 201


async def test_gateways_a_plugin_does_not_want(found: World, api: Api, acme: FakePlugin) -> None:
    acme.answers["NetworkDriver.GetCapabilities"] = {"Scope": "global", "GwAllocChecker": True}
    acme.answers["NetworkDriver.GwAllocCheck"] = {"SkipIPv4": True, "SkipIPv6": False}
    await create(api)
    assert acme.methods() == ["GwAllocCheck", "CreateNetwork"]
    assert acme.last("GwAllocCheck") == {"Options": acme.last("CreateNetwork")["Options"]}
    assert "Gateway" not in acme.last("CreateNetwork")["IPv4Data"][0]
    shape = (await api("GET", "/networks/far"))[1]
    assert shape["IPAM"]["Config"] == [{"Subnet": "10.5.0.0/24"}] and shape["Scope"] == "global"
    status, _ = await api("POST", "/networks/create", {"Name": "two", "Driver": "acme"})
    assert status == 201
    assert "Gateway" not in acme.last("CreateNetwork")["IPv4Data"][0]


# IPAM plugins


async def test_pools_and_addresses_of_a_plugin(found: World, api: Api, acme: FakePlugin) -> None:
    pools = FakePools(acme)
    acme.answers["IpamDriver.GetCapabilities"] = {"RequiresMACAddress": True}
    ipam = {"Driver": "acme", "Options": {"zone": "a"}}
    status, _ = await api("POST", "/networks/create", {"Name": "near", "IPAM": ipam})
    assert status == 201
    assert acme.methods() == ["GetDefaultAddressSpaces", "RequestPool", "RequestAddress"]
    assert acme.last("RequestPool") == {
        "AddressSpace": "here",
        "Pool": "",
        "SubPool": "",
        "Options": {"zone": "a"},
        "V6": False,
    }
    assert acme.last("RequestAddress")["Options"] == {"RequestAddressType": "com.docker.network.gateway"}
    config = (await api("GET", "/networks/near"))[1]["IPAM"]
    assert config["Config"] == [{"Subnet": "10.77.0.0/24", "Gateway": "10.77.0.1"}]
    assert config["Driver"] == "acme" and config["Options"] == {"zone": "a"}
    container = await add_container(found, "web", {"near": EndpointSpec()})
    asked = acme.last("RequestAddress")["Options"]
    assert asked["com.docker.network.endpoint.name"] == "web"
    endpoint = endpoints.of_sandbox(found.ctx, container.sandbox_id)[0]
    assert asked["com.docker.network.endpoint.macaddress"] == endpoint.mac
    assert (endpoint.ipv4, endpoint.gateway) == ("10.77.0.2", "10.77.0.1")
    await release(found, container.id)
    assert pools.held == {"pool-10.77.0.0/24", "10.77.0.1"}
    assert (await api("DELETE", "/networks/near"))[0] == 204
    assert pools.held == set() and held(found) == []


async def test_pools_over_routes_of_the_host_are_passed_over(
    found: World, api: Api, acme: FakePlugin
) -> None:
    pools = FakePools(acme)
    routes = (ip_network("10.77.0.0/23"),)
    found.kernel.host_facts = replace(found.kernel.host_facts, routes=routes)
    await api("POST", "/networks/create", {"Name": "near", "IPAM": {"Driver": "acme"}})
    assert (await api("GET", "/networks/near"))[1]["IPAM"]["Config"][0]["Subnet"] == "10.77.2.0/24"
    assert pools.held == {"pool-10.77.2.0/24", "10.77.2.1"}


async def test_what_was_asked_is_asked(found: World, api: Api, acme: FakePlugin) -> None:
    pools = FakePools(acme)
    config = {
        "Subnet": "10.78.0.0/24",
        "IPRange": "10.78.0.64/26",
        "Gateway": "10.78.0.7",
        "AuxiliaryAddresses": {"dns": "10.78.0.8"},
    }
    answer = await api(
        "POST", "/networks/create", {"Name": "near", "IPAM": {"Driver": "acme", "Config": [config]}}
    )
    assert answer[0] == 201, answer
    assert pools.held == {"pool-10.78.0.0/24", "10.78.0.7", "10.78.0.8"}
    assert (await api("GET", "/networks/near"))[1]["IPAM"]["Config"] == [config]
    await add_container(found, "web", {"near": EndpointSpec(ipv4_address="10.78.0.70")})
    assert acme.last("RequestAddress")["Address"] == "10.78.0.70"
    await api("POST", "/networks/near/disconnect", {"Container": "web"})
    assert "10.78.0.70" not in pools.held
    await api("DELETE", "/networks/near")
    assert pools.held == set()


async def test_a_gateway_the_pool_came_with_is_not_asked_for(
    found: World, api: Api, acme: FakePlugin
) -> None:
    FakePools(acme)
    acme.answers["IpamDriver.RequestPool"] = {
        "PoolID": "p",
        "Pool": "10.79.0.0/24",
        "Data": {"com.docker.network.gateway": "10.79.0.254/24"},
    }
    await api("POST", "/networks/create", {"Name": "near", "IPAM": {"Driver": "acme"}})
    assert (await api("GET", "/networks/near"))[1]["IPAM"]["Config"][0]["Gateway"] == "10.79.0.254"
    assert "RequestAddress" not in acme.methods()


async def test_replay_at_a_start(found: World, api: Api, acme: FakePlugin) -> None:
    pools = FakePools(acme)
    acme.answers["IpamDriver.GetCapabilities"] = {"RequiresRequestReplay": True}
    await api("POST", "/networks/create", {"Name": "near", "IPAM": {"Driver": "acme"}})
    await add_container(found, "web", {"near": EndpointSpec()})
    before = set(pools.held)
    pools.held.clear()
    network = found.ctx.tables.network_names.get(found.ctx.shared, "near") or ""
    await plugin_boot._replay(found.ctx, network)
    assert pools.held == before
    acme.answers["IpamDriver.GetCapabilities"] = {"RequiresRequestReplay": False}
    acme.stop()
    acme.start()
    said = len(acme.methods())
    await plugin_boot._replay(found.ctx, network)
    assert len(acme.methods()) == said


# Bad plugins

NOBODY = 'plugin "nope" not found'
CREATE = "NetworkDriver.CreateNetwork"


@pytest.mark.parametrize(
    ("request_body", "status", "message"),
    [
        ({"Name": "x", "Driver": "nope"}, 404, NOBODY),
        ({"Name": "x", "IPAM": {"Driver": "nope"}}, 404, NOBODY),
        ({"Name": "x", "Driver": "../acme"}, 404, 'plugin "../acme" not found'),
        ({"Name": "x", "Driver": "remote"}, 404, 'plugin "remote" not found'),
        ({"Name": "x", "IPAM": {"Driver": "null"}}, 400, "ipv4 pool is empty"),
        (
            {
                "Name": "x",
                "Driver": "acme",
                "IPAM": {"Driver": "null", "Config": [{"Subnet": "10.1.0.0/24"}]},
            },
            400,
            "null ipam driver does not handle specific address pool requests",
        ),
    ],
)
async def test_bad_input(
    found: World, api: Api, acme: FakePlugin, request_body: dict[str, Any], status: int, message: str
) -> None:
    got, answer = await api("POST", "/networks/create", request_body)
    assert (got, message in answer["message"]) == (status, True), answer
    assert held(found) == [] and (await api("GET", "/networks/x"))[0] == 404


@pytest.mark.parametrize(
    ("method", "answer", "text"),
    [
        (CREATE, {"Err": "no room"}, "remote: no room"),
        (CREATE, (500, '{"Err": "broken"}'), "NetworkDriver.CreateNetwork: broken"),
        (CREATE, b"nonsense", "the answer makes no sense"),
        (CREATE, "hang", "no answer within 1 seconds"),
        (CREATE, "die", "NetworkDriver.CreateNetwork"),
        ("NetworkDriver.GetCapabilities", {"Scope": "swarm"}, "expecting 'local' or 'global', got swarm"),
        ("Plugin.Activate", {"Implements": ["VolumeDriver"]}, "does not implement the requested driver"),
        ("Plugin.Activate", b"\x00", "the answer makes no sense"),
        ("IpamDriver.RequestPool", {"Error": "no pool"}, "remote: no pool"),
        ("IpamDriver.RequestPool", {"PoolID": "p", "Pool": "ten"}, "'ten' is no IPv4 pool"),
        ("IpamDriver.RequestPool", "hang", "no answer within"),
        ("IpamDriver.RequestPool", "die", "IpamDriver.RequestPool"),
        ("IpamDriver.RequestAddress", {"Error": "full"}, "failed to allocate gateway (): remote: full"),
        ("IpamDriver.RequestAddress", {}, "no address returned"),
        ("IpamDriver.RequestAddress", {"Address": "x"}, "'x' is no address in CIDR form"),
        ("IpamDriver.GetDefaultAddressSpaces", (501, "what?"), "IpamDriver.GetDefaultAddressSpaces: what?"),
    ],
)
async def test_a_network_that_cannot_be_made(
    found: World, api: Api, acme: FakePlugin, method: str, answer: Any, text: str
) -> None:
    pools = FakePools(acme)
    before = found.kernel.state
    if answer in ("hang", "die"):
        found.ctx.plugins.timeout = 1.0
        getattr(acme, answer).add(method)
    else:
        acme.answers[method] = answer
    status, shape = await api("POST", "/networks/create", body(IPAM={"Driver": "acme"}))
    assert status == 500 and text in shape["message"], shape
    assert (await api("GET", "/networks/far"))[0] == 404
    if answer == "die":
        # Nobody could be told; when it is back, it is.
        acme.die.clear()
        acme.start()
    elif answer == "hang":
        acme.hang.clear()
    assert await plugin_boot.catch_up(found.ctx)
    assert held(found) == [] and found.kernel.state == before
    if answer != "die":
        assert pools.held == set()


@pytest.mark.parametrize(
    ("method", "answer", "text"),
    [
        ("CreateEndpoint", {"Err": "no"}, "failed to create endpoint web on network far: remote: no"),
        (
            "CreateEndpoint",
            {"Interface": {"Address": "10.5.0.77/24"}},
            "driver modified interface address: endpoint interface IP present (10.5.0.2/24)",
        ),
        ("CreateEndpoint", {"Interface": {"MacAddress": "zz"}}, "address zz: invalid MAC address"),
        ("CreateEndpoint", {"Interface": {"AddressIPv6": "10.0.0.1/24"}}, "10.0.0.1/24 is no IPv6 address"),
        ("CreateEndpoint", "hang", "failed to create endpoint web on network far"),
        ("Join", {"Err": "no"}, "remote: no"),
        (
            "Join",
            {"InterfaceName": {"SrcName": "absent"}},
            "there is no interface absent in the host's namespace",
        ),
        ("Join", {"Gateway": "x"}, 'unable to parse Gateway "x"'),
        ("Join", {"Gateway": "fe80::1"}, 'unable to parse Gateway "fe80::1"'),
        ("Join", {"StaticRoutes": [{"Destination": "ten", "RouteType": 1}]}, "'ten' does not appear"),
        ("Join", {"StaticRoutes": [{"Destination": "10.0.0.0/8", "RouteType": 0}]}, "'' does not appear"),
        ("Join", "hang", "NetworkDriver.Join: no answer within"),
        ("ProgramExternalConnectivity", {"Err": "no"}, "driver failed programming external connectivity on"),
    ],
)
async def test_an_endpoint_that_cannot_be_made(
    found: World, api: Api, acme: FakePlugin, method: str, answer: Any, text: str
) -> None:
    await create(api)
    await api("POST", "/networks/create", {"Name": "near"})
    await add_container(found, "web", {"near": EndpointSpec()})
    before = found.kernel.state
    name = f"NetworkDriver.{method}"
    if answer == "hang":
        found.ctx.plugins.timeout = 1.0
        acme.hang.add(name)
    else:
        acme.answers[name] = answer
    found.kernel.absent.add("absent")
    status, shape = await api("POST", "/networks/far/connect", {"Container": "web"})
    assert status == 500 and text in shape["message"], shape
    acme.hang.clear()
    assert await plugin_boot.catch_up(found.ctx)
    assert held(found) == ["network"] and found.kernel.state == before
    assert (await api("GET", "/networks/far"))[1]["Containers"] == {}
    acme.answers.pop(name, None)
    acme.answers["NetworkDriver.Join"] = {}
    assert (await api("POST", "/networks/far/connect", {"Container": "web"}))[0] == 200


async def test_calls_a_plugin_need_not_know(found: World, api: Api, acme: FakePlugin) -> None:
    for name in ("ProgramExternalConnectivity", "RevokeExternalConnectivity", "EndpointOperInfo"):
        acme.answers[f"NetworkDriver.{name}"] = (404, "404 page not found")
    await create(api)
    container = await add_container(found, "web", {"far": EndpointSpec()})
    await release(found, container.id)
    assert held(found) == ["network"]


async def test_what_goes_is_not_held_up_by_a_plugin_that_says_no(
    found: World, api: Api, acme: FakePlugin
) -> None:
    await create(api)
    container = await add_container(found, "web", {"far": EndpointSpec()})
    for name in ("RevokeExternalConnectivity", "Leave", "DeleteEndpoint", "DeleteNetwork"):
        acme.answers[f"NetworkDriver.{name}"] = {"Err": "I will not"}
    await release(found, container.id)
    assert held(found) == ["network"]
    assert (await api("DELETE", "/networks/far"))[0] == 204
    assert held(found) == []


async def test_a_plugin_that_is_away_is_told_later(found: World, api: Api, acme: FakePlugin) -> None:
    network_id = await create(api)
    container = await add_container(found, "web", {"far": EndpointSpec()})
    acme.stop()
    await release(found, container.id)
    assert (await api("DELETE", "/networks/far"))[0] == 204
    assert (await api("GET", "/networks"))[1] and held(found) == [
        "endpoint?",
        "external?",
        "join?",
        "network?",
    ]
    assert not await plugin_boot.catch_up(found.ctx)
    said = len(acme.calls)
    acme.start()
    assert await plugin_boot.catch_up(found.ctx)
    assert held(found) == [] and acme.last("DeleteNetwork") == {"NetworkID": network_id}
    told = [name for name, _ in acme.calls[said:] if name.startswith("NetworkDriver.")]
    assert told == [
        "NetworkDriver.RevokeExternalConnectivity",
        "NetworkDriver.Leave",
        "NetworkDriver.DeleteEndpoint",
        "NetworkDriver.DeleteNetwork",
    ]


async def test_a_doubtful_endpoint_is_made_anew(found: World, api: Api, acme: FakePlugin) -> None:
    await create(api)
    container = await add_container(found, "web", {"far": EndpointSpec()})
    acme.stop()
    await release(found, container.id)
    acme.start()
    said = len(acme.methods())
    await endpoints.activate(found.ctx, container.id)
    await settle(found.ctx, container.id)
    told = acme.methods()[said:]
    assert (
        told.index("Leave") < told.index("DeleteEndpoint") < told.index("CreateEndpoint") < told.index("Join")
    )
    assert held(found) == ["endpoint", "external", "join", "network"]


async def test_an_endpoint_that_starts_again_before_its_end_was_told(
    found: World, api: Api, acme: FakePlugin
) -> None:
    """As after a reboot: the end is in the store, nobody has settled it, and a restart policy starts it again."""
    FakePools(acme)
    await create(api, IPAM={"Driver": "acme"})
    container = await add_container(found, "web", {"far": EndpointSpec()})
    txn = Txn()
    endpoints.deactivate(found.ctx, txn, container.id)
    await found.ctx.local.commit(txn)
    said = len(acme.methods())
    await endpoints.activate(found.ctx, container.id)
    await settle(found.ctx, container.id)
    assert acme.methods()[said:] == [
        "ReleaseAddress",
        "RequestAddress",
        "RevokeExternalConnectivity",
        "Leave",
        "DeleteEndpoint",
        "CreateEndpoint",
        "Join",
        "ProgramExternalConnectivity",
        "EndpointOperInfo",
    ]
    assert any(isinstance(each, MovedLink) for each in found.kernel.state)
    assert await plugin_boot.catch_up(found.ctx)


async def test_a_request_given_up_does_not_overtake_its_call(
    found: World, api: Api, acme: FakePlugin
) -> None:
    acme.hang.add(CREATE)
    spec = NetworkSpec(name="far", driver="acme")
    asked = asyncio.create_task(networks.create(found.eng, spec))
    await asyncio.to_thread(acme.wait_for, CREATE)
    asked.cancel()
    await asyncio.sleep(0.05)
    assert "NetworkDriver.DeleteNetwork" not in [name for name, _ in acme.calls]
    acme.stop()
    acme.hang.clear()
    acme.start()
    with pytest.raises(asyncio.CancelledError):
        await asked
    methods = [name for name in acme.methods() if name != "CreateNetwork"]
    assert methods == ["DeleteNetwork"] and held(found) == []


async def test_a_slow_plugin_holds_up_nobody_else(found: World, api: Api, acme: FakePlugin) -> None:
    acme.hang.add(CREATE)
    slow = asyncio.create_task(api("POST", "/networks/create", body()))
    await asyncio.to_thread(acme.wait_for, CREATE)
    assert (await api("POST", "/networks/create", {"Name": "near"}))[0] == 201
    await add_container(found, "web", {"near": EndpointSpec()})
    assert not slow.done()
    # It hangs up, comes back and is asked again.
    acme.stop()
    acme.hang.clear()
    acme.start()
    assert (await slow)[0] == 201


async def test_the_plugins_that_are_there(found: World, api: Api, acme: FakePlugin) -> None:
    status, shape = await api("GET", "/dari/v1/plugins")
    assert shape["Plugins"] == [{"Name": "acme", "Addr": f"unix://{acme.path}", "Implements": []}]
    await create(api)
    status, shape = await api("GET", "/dari/v1/plugins")
    assert status == 200 and shape["Plugins"][0]["Implements"] == ["IpamDriver", "NetworkDriver"]
    assert (await api("GET", "/plugins"))[1] == []


# How full, and by whom


async def test_allocation_status(found: World, api: Api) -> None:
    config = {"Subnet": "10.6.0.0/24", "IPRange": "10.6.0.128/25", "AuxiliaryAddresses": {"a": "10.6.0.9"}}
    await api("POST", "/networks/create", {"Name": "near", "IPAM": {"Config": [config]}})
    await add_container(found, "web", {"near": EndpointSpec()})
    await add_container(found, "db", {"near": EndpointSpec(ipv4_address="10.6.0.20")})
    # Network and broadcast address, gateway (of the range), reserved, two containers.
    counted = {"IPsInUse": 6, "DynamicIPsAvailable": 125}
    assert await api("GET", "/dari/v1/networks/near/ipam") == (200, {"Subnets": {"10.6.0.0/24": counted}})
    assert "Status" not in (await api("GET", "/networks/near"))[1]


async def test_a_full_subnet_says_who_has_what(found: World, api: Api) -> None:
    await api("POST", "/networks/create", {"Name": "near", "IPAM": {"Config": [{"Subnet": "10.6.0.0/30"}]}})
    await add_container(found, "web", {"near": EndpointSpec()})
    with pytest.raises(DariError) as caught:
        await add_container(found, "db", {"near": EndpointSpec()})
    assert "no available IPv4 addresses on this network's address pools: near (" in caught.value.message
    assert caught.value.message.endswith("; held by gateway 10.6.0.1, web 10.6.0.2")


async def test_serial_addresses_on_wish(found: World, api: Api) -> None:
    ipam = {"Options": {"com.docker.network.ipam.serial": "true"}, "Config": [{"Subnet": "10.6.0.0/29"}]}
    await api("POST", "/networks/create", {"Name": "near", "IPAM": ipam})
    got = []
    for number in range(6):
        container = await add_container(found, f"c{number}", {"near": EndpointSpec()})
        got.append(endpoints.of_sandbox(found.ctx, container.sandbox_id)[0].ipv4)
        await release(found, container.id)
    assert got == [f"10.6.0.{n}" for n in (2, 3, 4, 5, 6, 2)]
