"""What can be asked of a network at its creation, over the fakes: options, families, configuration networks, scopes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.engine import Api, World, add_container, api_of, world

from dari.model.network import EndpointSpec
from dari.net import options
from dari.net.state import HOST, Addr, Bridge, NftElement, Route, Sysctl, Veth


@pytest.fixture
async def found(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@pytest.fixture
async def api(found: World) -> AsyncIterator[Api]:
    async with api_of(found) as made:
        yield made


async def make(api: Api, name: str, version: str = "v1.51", **body: Any) -> str:
    status, answer = await api("POST", f"/{version}/networks/create", {"Name": name, **body})
    assert status == 201, answer
    return str(answer["Id"])


def config(*subnets: str) -> dict[str, Any]:
    return {"Config": [{"Subnet": each} for each in subnets]}


def elements(found: World, set_name: str) -> set[str]:
    return {
        each.element for each in found.kernel.state if isinstance(each, NftElement) and each.set == set_name
    }


async def test_every_option_of_the_bridge(found: World, api: Api) -> None:
    asked = {
        options.NAME: "own0",
        options.MTU: "1400",
        options.MASQUERADE: "false",
        options.ICC: "0",
        options.INHIBIT_IPV4: "true",
        options.INTERFACE_PREFIX: "wan",
        "unknown": "kept",
    }
    await make(api, "own", Options=asked, IPAM=config("10.7.0.0/24"))
    container = await add_container(found, "c1", {"own": EndpointSpec()})
    assert any(
        isinstance(each, Bridge) and (each.name, each.mtu) == ("own0", 1400) for each in found.kernel.state
    )
    # Somebody else is the gateway: containers are told of it, the bridge has no address.
    assert not [each for each in found.kernel.state if isinstance(each, Addr) and each.link == "own0"]
    assert '"own0" . "own0"' not in elements(found, "pairs")
    assert "10.7.0.0/24" not in elements(found, "masquerade4")
    veth = next(each for each in found.kernel.state if isinstance(each, Veth))
    assert (veth.peer, veth.mtu, veth.is_isolated) == ("wan0", 1400, True)
    _, shown = await api("GET", "/networks/own")
    assert shown["Options"] == asked
    assert shown["Containers"][container.id]["IPv4Address"] == "10.7.0.2/24"


BAD: list[tuple[dict[str, Any], int, str]] = [
    ({"IPAM": config("10.7.0.0/24", "10.8.0.0/24")}, 403, "bridge driver doesn't support multiple subnets"),
    (
        {"EnableIPv6": True, "IPAM": config("fd00:7::/64", "fd00:8::/64")},
        403,
        "bridge driver doesn't support multiple subnets",
    ),
    ({"EnableIPv4": False}, 400, "IPv4 or IPv6 must be enabled"),
    (
        {"Options": {options.ENABLE_IPV4: "perhaps"}},
        400,
        f'driver-opt "{options.ENABLE_IPV4}" is not a valid bool',
    ),
    (
        {"Options": {options.ENABLE_IPV6: "perhaps"}},
        400,
        f'driver-opt "{options.ENABLE_IPV6}" is not a valid bool',
    ),
    ({"Scope": "swarm"}, 403, "cannot create a swarm scoped network when swarm is not active"),
    ({"Scope": "moon"}, 400, "invalid scope: moon"),
    ({"Ingress": True}, 403, "Ingress network can only be global scope network"),
    (
        {"ConfigOnly": True, "Internal": True},
        403,
        "configuration network can only contain network specific fields. Network operator fields like "
        "[ ingress | internal | attachable | scope ] are not supported.",
    ),
    (
        {"ConfigOnly": True, "ConfigFrom": {"Network": "conf"}},
        403,
        "a configuration network cannot depend on another configuration network",
    ),
    ({"ConfigFrom": {"Network": "nope"}}, 404, 'configuration network "nope" does not exist'),
    ({"ConfigFrom": {"Network": "bridge"}}, 404, 'configuration network "bridge" does not exist'),
    (
        {"ConfigFrom": {"Network": "conf"}, "IPAM": config("10.9.0.0/24")},
        403,
        "user-specified configurations are not supported if the network depends on a configuration network",
    ),
    (
        {"ConfigFrom": {"Network": "conf"}, "Labels": {"a": "b"}},
        403,
        "user-specified configurations are not supported if the network depends on a configuration network",
    ),
    (
        {"ConfigFrom": {"Network": "conf"}, "Options": {"a": "b"}},
        403,
        "network driver options are not supported if the network depends on a configuration network",
    ),
    ({"ConfigOnly": True, "IPAM": config("10.9.0.1/24")}, 400, "it should be 10.9.0.0/24"),
]


@pytest.mark.parametrize(("body", "status", "message"), BAD)
async def test_bad_asks_change_nothing(
    found: World, api: Api, body: dict[str, Any], status: int, message: str
) -> None:
    await make(api, "conf", ConfigOnly=True, IPAM=config("10.6.0.0/24"))
    kernel, rows = found.kernel.state, dict(found.ctx.local.read(""))
    got, answer = await api("POST", "/networks/create", {"Name": "x", **body})
    assert (got, message in answer["message"]) == (status, True), answer
    assert found.kernel.state == kernel
    assert dict(found.ctx.local.read("")) == rows


async def test_networks_with_one_bridge_name(found: World, api: Api) -> None:
    first = await make(api, "one", Options={options.NAME: "own0"})
    for asked in ({options.NAME: "own0"}, {options.NAME: "dari0"}, {options.DEFAULT_BRIDGE: "true"}):
        status, answer = await api("POST", "/networks/create", {"Name": "two", "Options": asked})
        assert status == 403 and "networks have same bridge name" in answer["message"]
    assert (
        f"conflicts with network {first} (own0)"
        in (await api("POST", "/networks/create", {"Name": "two", "Options": {options.NAME: "own0"}}))[1][
            "message"
        ]
    )


async def test_ipv6_alone(found: World, api: Api) -> None:
    await make(api, "six", EnableIPv4=False, EnableIPv6=True)
    container = await add_container(found, "c1", {"six": EndpointSpec()})
    _, shown = await api("GET", "/networks/six")
    assert (shown["EnableIPv4"], shown["EnableIPv6"]) == (False, True)
    assert [each["Subnet"][:2] for each in shown["IPAM"]["Config"]] == ["fd"]
    place = shown["Containers"][container.id]
    assert place["IPv4Address"] == "" and place["IPv6Address"].startswith("fd")
    # Older clients cannot mean it.
    await make(api, "old", version="v1.47", EnableIPv4=False)
    assert (await api("GET", "/networks/old"))[1]["EnableIPv4"] is True


async def test_options_may_say_which_families(api: Api) -> None:
    await make(api, "six", Options={options.ENABLE_IPV6: "1", options.ENABLE_IPV4: "false"})
    _, shown = await api("GET", "/networks/six")
    assert (shown["EnableIPv4"], shown["EnableIPv6"]) == (False, True)
    # What is asked for by name wins, and the option that would be wrong is not shown.
    await make(api, "four", EnableIPv6=False, Options={options.ENABLE_IPV6: "1"})
    _, shown = await api("GET", "/networks/four")
    assert (shown["EnableIPv6"], shown["Options"]) == (False, {})


async def test_a_subnet_of_a_family_that_is_off_is_left_out(api: Api) -> None:
    await make(api, "web", IPAM=config("10.7.0.0/24", "fd00:7::/64"))
    _, shown = await api("GET", "/networks/web")
    assert [each["Subnet"] for each in shown["IPAM"]["Config"]] == ["10.7.0.0/24"]


async def test_a_point_to_point_subnet(found: World, api: Api) -> None:
    await make(api, "p2p", IPAM=config("10.7.0.0/31"))
    await add_container(found, "c1", {"p2p": EndpointSpec()})
    _, shown = await api("GET", "/networks/p2p")
    assert shown["IPAM"]["Config"][0]["Gateway"] == "10.7.0.0"
    assert [each["IPv4Address"] for each in shown["Containers"].values()] == ["10.7.0.1/31"]


async def test_another_gateway_than_the_bridge(found: World, api: Api) -> None:
    aux = {"DefaultGatewayIPv4": "10.7.0.254"}
    await make(api, "web", IPAM={"Config": [{"Subnet": "10.7.0.0/24", "AuxiliaryAddresses": aux}]})
    container = await add_container(found, "c1", {"web": EndpointSpec()})
    _, shown = await api("GET", f"/containers/{container.id}/json")
    assert shown["NetworkSettings"]["Networks"]["web"]["Gateway"] == "10.7.0.254"
    addresses = [
        str(each.address) for each in found.kernel.state if isinstance(each, Addr) and each.netns == HOST
    ]
    assert "10.7.0.1/24" in addresses and "10.7.0.254/24" not in addresses


async def test_configuration_networks(found: World, api: Api) -> None:
    before = found.kernel.state
    asked = {options.MTU: "1300"}
    await make(api, "conf", ConfigOnly=True, IPAM=config("10.6.0.0/24"), Options=asked, Labels={"a": "b"})
    assert found.kernel.state == before
    _, shown = await api("GET", "/networks/conf")
    assert (shown["Driver"], shown["Scope"], shown["ConfigOnly"]) == ("null", "local", True)
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.6.0.0/24"}]
    # Its subnet is not taken by it.
    await make(api, "near", ConfigFrom={"Network": "conf"}, Internal=True)
    _, shown = await api("GET", "/networks/near")
    assert (shown["Driver"], shown["ConfigFrom"], shown["Internal"]) == ("bridge", {"Network": "conf"}, True)
    assert (shown["Options"], shown["Labels"]) == (asked, {"a": "b"})
    assert shown["IPAM"]["Config"][0]["Subnet"] == "10.6.0.0/24"
    status, answer = await api("POST", "/networks/create", {"Name": "far", "ConfigFrom": {"Network": "conf"}})
    assert status == 403 and "Pool overlaps" in answer["message"]
    refused = await api("DELETE", "/networks/conf")
    message = 'error while removing network: configuration network "conf" is in use'
    assert refused == (403, {"message": message})
    await add_container(found, "c1", {"near": EndpointSpec()})
    status, answer = await api("POST", "/networks/conf/connect", {"Container": "c1"})
    assert (status, answer["message"]) == (403, "cannot create endpoint on configuration-only network")
    status, answer = await api("POST", "/networks/prune")
    assert answer == {"NetworksDeleted": None}
    assert (await api("POST", "/networks/near/disconnect", {"Container": "c1"}))[0] == 200
    assert (await api("DELETE", "/networks/near"))[0] == 204
    assert (await api("DELETE", "/networks/conf"))[0] == 204


async def test_attachable_says_so(api: Api) -> None:
    await make(api, "web", Attachable=True)
    assert (await api("GET", "/networks/web"))[1]["Attachable"] is True


async def test_verbose_adds_nothing_without_a_swarm(api: Api) -> None:
    await make(api, "web")
    plain = (await api("GET", "/networks/web"))[1]
    assert (await api("GET", "/networks/web?verbose=true"))[1] == plain


async def test_link_local_addresses_sysctls_and_names_reach_the_interface(found: World, api: Api) -> None:
    await make(api, "web", EnableIPv6=True)
    await make(api, "db")
    sysctls = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2"
    spec = EndpointSpec(
        link_local_ips=["169.254.7.7", "fe80::7"],
        driver_opts={options.IFNAME: "eth1", options.SYSCTLS: sysctls},
        mac_address="02:42:0A:00:00:99",
    )
    await add_container(found, "c1", {"web": spec, "db": EndpointSpec()})
    inside = {
        str(each.address) for each in found.kernel.state if isinstance(each, Addr) and each.link == "eth1"
    }
    assert {"169.254.7.7/16", "fe80::7/64"} <= inside and len(inside) == 4
    veths = {each.peer: each.mac for each in found.kernel.state if isinstance(each, Veth)}
    # The name somebody asked for is not given to another.
    assert set(veths) == {"eth0", "eth1"} and veths["eth1"] == "02:42:0a:00:00:99"
    values = {each.path: each.value for each in found.kernel.state if isinstance(each, Sysctl) and each.netns}
    assert values["net/ipv4/conf/eth1/log_martians"] == "1" and values["net/ipv6/conf/eth1/accept_ra"] == "2"


async def test_who_is_the_default_gateway(found: World, api: Api) -> None:
    await make(api, "a", IPAM=config("10.1.0.0/24"))
    await make(api, "b", EnableIPv6=True, IPAM=config("10.2.0.0/24", "fd00:2::/64"))
    await make(api, "c", EnableIPv6=True, IPAM=config("10.3.0.0/24", "fd00:3::/64"))

    def defaults() -> set[tuple[str, str]]:
        routes = [each for each in found.kernel.state if isinstance(each, Route) and each.to.prefixlen == 0]
        return {(str(each.via), each.link) for each in routes}

    await add_container(found, "c1", {name: EndpointSpec() for name in ("a", "b", "c")})
    # By name; what the first cannot (IPv6) the next one does.
    assert defaults() == {("10.1.0.1", "eth0"), ("fd00:2::1", "eth1")}
    await api("POST", "/networks/c/disconnect", {"Container": "c1"})
    body = {"Container": "c1", "EndpointConfig": {"GwPriority": 1}}
    assert (await api("POST", "/networks/c/connect", body))[0] == 200
    assert defaults() == {("10.3.0.1", "eth2"), ("fd00:3::1", "eth2")}
    await api("POST", "/networks/c/disconnect", {"Container": "c1"})
    body = {"Container": "c1", "EndpointConfig": {"GwPriority": -1}}
    assert (await api("POST", "/networks/c/connect", body))[0] == 200
    assert defaults() == {("10.1.0.1", "eth0"), ("fd00:2::1", "eth1")}


async def test_an_interface_told_not_to_speak_ipv6_gets_no_address(found: World, api: Api) -> None:
    await make(api, "web", EnableIPv6=True)
    spec = EndpointSpec(driver_opts={options.SYSCTLS: "net.ipv6.conf.IFNAME.disable_ipv6=1"})
    container = await add_container(found, "c1", {"web": spec})
    _, shown = await api("GET", "/networks/web")
    assert shown["Containers"][container.id]["IPv6Address"] == ""
    assert not [parts for parts in found.ctx.tables.leases.keys(found.ctx.local) if ":" in parts[1]]


async def test_a_container_told_not_to_speak_ipv6_gets_no_address_on_any_network(
    found: World, api: Api
) -> None:
    await make(api, "web", EnableIPv6=True)
    await make(api, "db", EnableIPv6=True)
    off = {"net.ipv6.conf.all.disable_ipv6": "1"}
    container = await add_container(found, "c1", {"web": EndpointSpec()}, sysctls=off)
    assert (await api("POST", "/networks/db/connect", {"Container": "c1"}))[0] == 200
    for name in ("web", "db"):
        place = (await api("GET", f"/networks/{name}"))[1]["Containers"][container.id]
        assert place["IPv4Address"] and place["IPv6Address"] == ""
    assert not [parts for parts in found.ctx.tables.leases.keys(found.ctx.local) if ":" in parts[1]]
    await add_container(found, "c2", {"web": EndpointSpec()}, sysctls={"net.ipv6.conf.all.disable_ipv6": "0"})
    assert [parts for parts in found.ctx.tables.leases.keys(found.ctx.local) if ":" in parts[1]]


async def test_the_host_is_not_on_an_isolated_network(found: World, api: Api) -> None:
    modes = {f"com.docker.network.bridge.gateway_mode_ipv{version}": "isolated" for version in (4, 6)}
    await make(api, "pair", Internal=True, Options=modes, IPAM=config("10.9.0.0/31"))
    await make(api, "both", Internal=True, EnableIPv6=True, Options=modes)
    asked = {"Config": [{"Subnet": "10.8.0.0/24", "Gateway": "10.8.0.1"}]}
    await make(api, "kept", Internal=True, Options=modes, IPAM=asked)
    bridges = {each.name for each in found.kernel.state if isinstance(each, Bridge)}
    # The default bridge's gateway is the only address of the host's on any of them.
    assert {
        each.link for each in found.kernel.state if isinstance(each, Addr) and each.netns == HOST
    } < bridges
    for name, gateways in (("pair", [None]), ("both", [None, None]), ("kept", ["10.8.0.1"])):
        shown = (await api("GET", f"/networks/{name}"))[1]
        assert [each.get("Gateway") for each in shown["IPAM"]["Config"]] == gateways
        link = f"br-{shown['Id'][:12]}"
        assert link in bridges
        assert not [each for each in found.kernel.state if isinstance(each, Addr) and each.link == link]
    # Both addresses of a point-to-point subnet are for containers.
    for name in ("c1", "c2"):
        await add_container(found, name, {"pair": EndpointSpec()})
    places = (await api("GET", "/networks/pair"))[1]["Containers"].values()
    assert {each["IPv4Address"] for each in places} == {"10.9.0.0/31", "10.9.0.1/31"}


async def test_no_address_is_kept_for_a_gateway_that_nobody_needs(api: Api) -> None:
    inhibited = {"com.docker.network.bridge.inhibit_ipv4": "true"}
    for name, is_internal in (("inside", True), ("outside", False)):
        await make(api, name, Internal=is_internal, Options=inhibited, IPAM=config("10.9.0.0/24"))
        shown = (await api("GET", f"/networks/{name}"))[1]["IPAM"]["Config"][0]
        assert ("Gateway" in shown) is not is_internal
        await api("DELETE", f"/networks/{name}")


async def test_an_mtu_too_small_for_ipv6_leaves_the_kernel_nothing_to_switch(found: World, api: Api) -> None:
    small = {"com.docker.network.driver.mtu": "1000"}
    network_id = await make(api, "small", Options=small)
    await add_container(found, "c1", {"small": EndpointSpec()})
    paths = {each.path for each in found.kernel.state if isinstance(each, Sysctl)}
    assert f"net/ipv4/conf/br-{network_id[:12]}/route_localnet" in paths
    assert not {
        each for each in paths if each.startswith("net/ipv6/conf/") and ("br-" in each or "eth0" in each)
    }
