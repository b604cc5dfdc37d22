"""`/dari/v1/containers/{id}/ports` over the fakes: shapes, bad input that changes nothing, crashes of the kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.engine import Api, World, add_container, api_of, world

from dari.model.container import PortBinding
from dari.model.network import EndpointSpec
from dari.net.state import NftElement
from dari.reconcile import ports
from dari.reconcile.holds import Claim


@pytest.fixture
async def found(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@pytest.fixture
async def api(found: World) -> AsyncIterator[Api]:
    async with api_of(found) as made:
        yield made


def elements(found: World) -> dict[str, str]:
    return {
        f"{each.set} {each.element}": each.value
        for each in found.kernel.state
        if isinstance(each, NftElement) and each.set.startswith("publish")
    }


def claims(found: World) -> list[str]:
    return ["/".join(parts) for parts in found.ctx.tables.ports.keys(found.ctx.local)]


async def add(api: Api, bindings: Any, name: str = "c1") -> tuple[int, Any]:
    return await api("POST", f"/dari/v1/containers/{name}/ports", {"PortBindings": bindings})


async def test_publish_list_unpublish(found: World, api: Api) -> None:
    before = {"80/tcp": [PortBinding(host_port="8080")]}
    await add_container(found, "c1", {"bridge": EndpointSpec()}, port_bindings=before)
    status, answer = await add(
        api, {"81/tcp": [{"HostPort": "8081"}], "9000-9999/udp": [{"HostPort": "19000-19999"}]}
    )
    assert (status, answer["Ports"]) == (
        201,
        {
            "81/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8081"}],
            "9000-9999/udp": [{"HostIp": "0.0.0.0", "HostPort": "19000-19999"}],
        },
    )
    assert elements(found) == {
        "publish_any4 tcp . 8080": "172.17.0.2 . 80",
        "publish_any4 tcp . 8081": "172.17.0.2 . 81",
        "publish_range4 udp . 0.0.0.0/0 . 19000-19999": "172.17.0.2 . 1-10001",
    }
    assert claims(found) == ["tcp/0.0.0.0/8080", "tcp/0.0.0.0/8081", "udp/0.0.0.0/19000-19999"]
    shape = (await api("GET", "/containers/c1/json"))[1]
    assert shape["NetworkSettings"]["Ports"]["81/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": "8081"}]
    assert shape["NetworkSettings"]["Ports"]["9999/udp"] == [{"HostIp": "0.0.0.0", "HostPort": "19999"}]
    assert shape["HostConfig"]["PortBindings"]["9000-9999/udp"] == [{"HostIp": "", "HostPort": "19000-19999"}]
    listed = (await api("GET", "/containers/json"))[1][0]["Ports"]
    assert len(listed) == 1002
    assert {"IP": "0.0.0.0", "PrivatePort": 9500, "PublicPort": 19500, "Type": "udp"} in listed
    told = (await api("GET", "/dari/v1/containers/c1/ports"))[1]["Ports"]
    assert sorted(told) == ["80/tcp", "81/tcp", "9000-9999/udp"]

    remove = "/dari/v1/containers/c1/ports"
    assert (await api("DELETE", remove, params={"port": "9500/udp"}))[0] == 200
    assert claims(found)[2:] == ["udp/0.0.0.0/19000-19499", "udp/0.0.0.0/19501-19999"]
    assert (await api("DELETE", remove, params={"port": "9000-9999/udp"}))[0] == 200
    assert (await api("DELETE", remove, params={"port": "81/tcp", "hostport": "8081"}))[0] == 200
    assert elements(found) == {"publish_any4 tcp . 8080": "172.17.0.2 . 80"}
    assert claims(found) == ["tcp/0.0.0.0/8080"]
    shape = (await api("GET", "/containers/c1/json"))[1]
    assert shape["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}
    assert set(found.ctx.holds.held) == {Claim("tcp", "0.0.0.0", 8080, 8080)}


@pytest.mark.parametrize(
    ("bindings", "status", "message"),
    [
        ({}, 400, "no port to publish"),
        ({"x/tcp": []}, 400, 'invalid port specification: "x"'),
        ({"80/icmp": []}, 400, "invalid proto: icmp"),
        ({"80/tcp": [{"HostPort": "99999"}]}, 400, 'invalid port specification: "99999"'),
        ({"80/tcp": [{"HostIp": "nowhere", "HostPort": "1"}]}, 400, "invalid IP address"),
        ({"80-82/tcp": [{"HostPort": "90-91"}]}, 400, "invalid ranges specified"),
        ({"81/tcp": [{"HostPort": "8080"}]}, 500, "Bind for 0.0.0.0:8080 failed: port is already allocated"),
        ({"80/tcp": [{"HostPort": "8080"}]}, 500, "publishes 80/tcp at 0.0.0.0:8080 already"),
        ({"1-100/tcp": [{"HostPort": "8001-8100"}]}, 500, "Bind for 0.0.0.0:8080 failed"),
        (
            {"81/tcp": [{"HostPort": "8099"}]},
            500,
            "for 0.0.0.0:8099:172.17.0.2:81/tcp: address already in use",
        ),
        (
            {"1-100/tcp": [{"HostPort": "8085-8184"}]},
            500,
            "for 0.0.0.0:8099:172.17.0.2:15/tcp: address already",
        ),
        ({"81/sctp": [{"HostIp": "::1", "HostPort": "8081"}]}, 400, "cannot publish SCTP at [::1]"),
    ],
)
async def test_bad_input_changes_nothing(
    found: World, api: Api, bindings: Any, status: int, message: str
) -> None:
    found.ctx.holds.foreign.add(("tcp", 8099))  # type: ignore[attr-defined]
    before = {"80/tcp": [PortBinding(host_port="8080")]}
    await add_container(found, "c1", {"bridge": EndpointSpec()}, port_bindings=before)
    state, rows, held = found.kernel.state, claims(found), set(found.ctx.holds.held)
    answer = await add(api, bindings)
    assert (answer[0], message in answer[1]["message"]) == (status, True), answer
    shape = (await api("GET", "/containers/c1/json"))[1]
    assert shape["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}
    assert (found.kernel.state, claims(found), set(found.ctx.holds.held)) == (state, rows, held)


async def test_a_long_range_the_kernel_cannot_relay_is_refused(
    found: World, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "_has_lookup", lambda: False)
    await add_container(found, "c1", {"bridge": EndpointSpec()})
    status, answer = await add(api, {"1-100/tcp": [{"HostIp": "::", "HostPort": "8201-8300"}]})
    assert status == 400 and "a range of more than 64 ports at [::]" in answer["message"]
    assert "sk_lookup, Linux 5.9" in answer["message"]


async def test_who_has_no_ports(found: World, api: Api) -> None:
    await add_container(found, "c1", {"bridge": EndpointSpec()})
    await api("POST", "/networks/create", {"Name": "inner", "Internal": True})
    await add_container(found, "c2", {"inner": EndpointSpec()})
    assert (await add(api, {"80/tcp": []}, "nobody"))[0] == 404
    assert (await add(api, {"80/tcp": []}, "c2"))[0] == 409
    status, answer = await api("DELETE", "/dari/v1/containers/c1/ports", params={"port": "80/tcp"})
    assert (status, answer["message"]) == (404, "container c1 publishes no port 80/tcp")
    status, answer = await api("DELETE", "/dari/v1/containers/c1/ports", params={"port": ""})
    assert status == 400


async def test_a_stopped_container_has_them_when_it_starts(found: World, api: Api) -> None:
    await add_container(found, "c1", {"bridge": EndpointSpec()}, is_running=False)
    assert await add(api, {"80/tcp": [{"HostPort": "8080"}]}) == (201, {"Ports": {}})
    assert claims(found) == []
    shape = (await api("GET", "/containers/c1/json"))[1]
    assert shape["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}
    assert (await api("DELETE", "/dari/v1/containers/c1/ports", params={"port": "80"}))[0] == 200
    shape = (await api("GET", "/containers/c1/json"))[1]
    assert shape["HostConfig"]["PortBindings"] == {}


async def test_an_open_port_is_any_free_one(found: World, api: Api) -> None:
    await add_container(found, "c1", {"bridge": EndpointSpec()})
    status, answer = await add(api, {"80/tcp": None, "81/tcp": [{"HostPort": "8000-8010"}]})
    assert status == 201
    assert answer["Ports"]["80/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": "32768"}]
    assert answer["Ports"]["81/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": "8000"}]
    query = {"port": "80/tcp", "hostport": "32768"}
    assert (await api("DELETE", "/dari/v1/containers/c1/ports", params=query))[0] == 200
    shape = (await api("GET", "/containers/c1/json"))[1]
    assert list(shape["HostConfig"]["PortBindings"]) == ["81/tcp"]


async def test_what_the_kernel_refuses_is_taken_back(found: World, api: Api) -> None:
    await add_container(found, "c1", {"bridge": EndpointSpec()})
    state = found.kernel.state
    apply = found.kernel.apply

    def refuse(plan: Any, **options: Any) -> None:
        found.kernel.fail_at = 0
        apply(plan, **options)

    found.kernel.apply = refuse  # type: ignore[method-assign]
    status, answer = await add(api, {"80/tcp": [{"HostPort": "8080"}]})
    assert status == 500 and "the kernel refused" in answer["message"]
    found.kernel.apply = apply  # type: ignore[method-assign]
    assert claims(found) == [] and not found.ctx.holds.held
    assert found.kernel.state == state
    assert (await add(api, {"80/tcp": [{"HostPort": "8080"}]}))[0] == 201


async def test_routed_networks_need_no_port_of_the_host(found: World, api: Api) -> None:
    body = {
        "Name": "routed",
        "Options": {"com.docker.network.bridge.gateway_mode_ipv4": "routed"},
        "IPAM": {"Config": [{"Subnet": "10.9.0.0/24"}]},
    }
    assert (await api("POST", "/networks/create", body))[0] == 201
    bindings = {"80/tcp": [PortBinding(host_port="8080")]}
    for name in ("c1", "c2"):
        await add_container(found, name, {"routed": EndpointSpec()}, port_bindings=bindings)
    assert claims(found) == [] and elements(found) == {}
    opened = [
        each.element for each in found.kernel.state if isinstance(each, NftElement) and each.set == "open4"
    ]
    assert opened == ["10.9.0.2 . tcp . 80", "10.9.0.3 . tcp . 80"]
    shape = (await api("GET", "/containers/c1/json"))[1]
    assert shape["NetworkSettings"]["Ports"] == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": ""}]}


async def test_ipv4_is_told_first_where_only_ipv6_is_routed(found: World, api: Api) -> None:
    options = {"com.docker.network.bridge.gateway_mode_ipv6": "routed"}
    body = {"Name": "half", "EnableIPv6": True, "Options": options}
    assert (await api("POST", "/networks/create", body))[0] == 201
    await add_container(
        found, "c1", {"half": EndpointSpec()}, port_bindings={"80/tcp": [PortBinding(host_port="8080")]}
    )
    shown = (await api("GET", "/containers/c1/json"))[1]["NetworkSettings"]["Ports"]
    assert shown == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": ""}]}


@pytest.mark.parametrize(
    ("options", "internal", "message"),
    [
        (
            {"com.docker.network.bridge.gateway_mode_ipv4": "nut"},
            False,
            "value: nut (unknown gateway mode nut; give one of nat",
        ),
        (
            {"com.docker.network.bridge.gateway_mode_ipv4": "isolated"},
            False,
            "gateway mode 'isolated' can only be",
        ),
        ({"com.docker.network.host_ipv4": "fd00::1"}, False, "'fd00::1' is no IPv4 address"),
        ({"com.docker.network.host_ipv6": "x"}, False, "value: x (nil ip)"),
        (
            {"com.docker.network.bridge.trusted_host_interfaces": "eth0:a b"},
            False,
            "'a b' is no interface's name",
        ),
        ({"com.docker.network.bridge.host_binding_ipv4": "x"}, False, "value: x (nil ip)"),
    ],
)
async def test_bad_gateway_options(
    found: World, api: Api, options: dict[str, str], internal: bool, message: str
) -> None:
    before = found.kernel.state
    status, answer = await api(
        "POST", "/networks/create", {"Name": "n", "Options": options, "Internal": internal}
    )
    assert (status, message in answer["message"]) == (400, True), answer
    assert found.kernel.state == before


async def test_the_address_of_a_networks_ports(found: World, api: Api) -> None:
    body = {
        "Name": "here",
        "Options": {"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"},
        "IPAM": {"Config": [{"Subnet": "10.9.0.0/24"}]},
    }
    assert (await api("POST", "/networks/create", body))[0] == 201
    bindings = {"80/tcp": [PortBinding(host_port="8080")]}
    await add_container(found, "c1", {"here": EndpointSpec()}, port_bindings=bindings)
    assert claims(found) == ["tcp/127.0.0.1/8080"]
