"""What the daemon's flags make of the default bridge, of new networks and of `host-gateway`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.fakes.engine import add_container, api_of, world

from dari.engine.predefined import ensure_predefined
from dari.model.network import EndpointSpec
from dari.net.state import Addr, NftElement, Route, Sysctl
from dari.reconcile.names import host_gateway

MTU = "com.docker.network.driver.mtu"


async def bridge(folder: Path, **settings: Any) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """The default bridge as inspect shows it, its container's place, and the kernel."""
    async with world(folder, **settings) as found, api_of(found) as api:
        await add_container(found, "c1", {"bridge": EndpointSpec()})
        _, shown = await api("GET", "/networks/bridge")
        _, inside = await api("GET", "/containers/c1/json")
        return shown, inside["NetworkSettings"]["Networks"]["bridge"], found.kernel.state


async def test_ranges_and_gateways(tmp_path: Path) -> None:
    shown, place, kernel = await bridge(
        tmp_path,
        bip="10.1.0.1/24",
        fixed_cidr="10.1.0.128/25",
        default_gateway="10.1.0.9",
        is_bridge_ipv6=True,
        bip6="fd00:1::1/64",
        fixed_cidr6="fd00:1::8000/113",
        default_gateway6="fd00:1::9",
    )
    assert shown["EnableIPv6"] is True
    assert shown["IPAM"]["Config"] == [
        {
            "Subnet": "10.1.0.0/24",
            "IPRange": "10.1.0.128/25",
            "Gateway": "10.1.0.1",
            "AuxiliaryAddresses": {"DefaultGatewayIPv4": "10.1.0.9"},
        },
        {
            "Subnet": "fd00:1::/64",
            "IPRange": "fd00:1::8000/113",
            "Gateway": "fd00:1::1",
            "AuxiliaryAddresses": {"DefaultGatewayIPv6": "fd00:1::9"},
        },
    ]
    assert (place["IPAddress"], place["Gateway"]) == ("10.1.0.128", "10.1.0.9")
    assert place["GlobalIPv6Address"] == "fd00:1::8000"
    routes = {str(each.via) for each in kernel if isinstance(each, Route)}
    assert routes == {"10.1.0.9", "fd00:1::9"}
    assert {"10.1.0.1/24", "fd00:1::1/64"} <= {str(each.address) for each in kernel if isinstance(each, Addr)}


async def test_a_range_alone_is_the_subnet(tmp_path: Path) -> None:
    shown, place, _ = await bridge(tmp_path, fixed_cidr="10.1.0.0/25", is_bridge_ipv6=True)
    first, second = shown["IPAM"]["Config"]
    assert first == {"Subnet": "10.1.0.0/25", "Gateway": "10.1.0.1"}
    assert second["Subnet"].startswith("fd") and place["GlobalIPv6Address"].startswith("fd")


async def test_isolation_masquerading_and_forwarding(tmp_path: Path) -> None:
    shown, _, kernel = await bridge(
        tmp_path, is_bridge_icc=False, is_bridge_masquerading=False, is_forwarding=False
    )
    assert shown["Options"]["com.docker.network.bridge.enable_icc"] == "false"
    assert shown["Options"]["com.docker.network.bridge.enable_ip_masquerade"] == "false"
    sets = {each.set for each in kernel if isinstance(each, NftElement)}
    assert "pairs" not in sets and "masquerade4" not in sets
    assert not [each for each in kernel if isinstance(each, Sysctl) and each.path == "net/ipv4/ip_forward"]


async def test_settings_wait_for_running_containers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with world(tmp_path, bip="10.1.0.1/24") as found, api_of(found) as api:
        await add_container(found, "c1", {"bridge": EndpointSpec()})
        import msgspec

        found.ctx.config = msgspec.structs.replace(found.ctx.config, bip="10.2.0.1/24")
        await ensure_predefined(found.eng)
        assert (await api("GET", "/networks/bridge"))[1]["IPAM"]["Config"][0]["Subnet"] == "10.1.0.0/24"
        assert "the default bridge's settings wait" in caplog.text
        await api("POST", "/networks/bridge/disconnect", {"Container": "c1"})
        await ensure_predefined(found.eng)
        assert (await api("GET", "/networks/bridge"))[1]["IPAM"]["Config"][0]["Subnet"] == "10.2.0.0/24"


async def test_defaults_of_new_networks(tmp_path: Path) -> None:
    defaults = {"bridge": {MTU: "1400", "com.docker.network.enable_ipv6": "true", "own": "x"}}
    async with world(tmp_path, default_network_options=defaults) as found, api_of(found) as api:
        assert (await api("POST", "/networks/create", {"Name": "web"}))[0] == 201
        shown = (await api("GET", "/networks/web"))[1]
        assert shown["Options"] == defaults["bridge"] and shown["EnableIPv6"] is True
        body = {"Name": "db", "Options": {MTU: "1300"}, "EnableIPv6": False}
        assert (await api("POST", "/networks/create", body))[0] == 201
        shown = (await api("GET", "/networks/db"))[1]
        assert shown["Options"] == {MTU: "1300", "own": "x"} and shown["EnableIPv6"] is False
        # A configuration network says everything.
        assert (await api("POST", "/networks/create", {"Name": "conf", "ConfigOnly": True}))[0] == 201
        body = {"Name": "near", "ConfigFrom": {"Network": "conf"}}
        assert (await api("POST", "/networks/create", body))[0] == 201


async def test_what_host_gateway_means(tmp_path: Path) -> None:
    async with world(tmp_path, host_gateway_ips=["192.0.2.1", "2001:db8::1"]) as found:
        assert host_gateway(found.ctx) == ("192.0.2.1", "2001:db8::1")
