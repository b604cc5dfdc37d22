"""macvlan and ipvlan networks over the fakes: Docker's options, texts and statuses; refusals change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.engine import Api, World, add_container, api_of, world

from dari.model.errors import Internal
from dari.model.network import EndpointSpec
from dari.net.facts import HostFacts
from dari.net.state import HOST, Addr, Dummy, Ipvlan, Macvlan, Route, Vlan
from dari.reconcile import settle

LINKS = {"lo": 65536, "eth0": 1500, "eth1": 9000, "eth1.5": 9000}


@pytest.fixture
async def found(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, HostFacts(links=LINKS)) as made:
        yield made


@pytest.fixture
async def api(found: World) -> AsyncIterator[Api]:
    async with api_of(found) as made:
        yield made


async def make(api: Api, name: str, driver: str = "macvlan", **body: Any) -> str:
    status, answer = await create(api, name, driver, **body)
    assert status == 201, answer
    return str(answer["Id"])


async def create(api: Api, name: str, driver: str = "macvlan", **body: Any) -> tuple[int, Any]:
    body = {"Name": name, "Driver": driver, **body}
    return await api("POST", "/v1.51/networks/create", body)


def opt(**options: str) -> dict[str, Any]:
    return {"Options": options}


def of_kind(found: World, *kinds: type) -> list[Any]:
    return [each for each in found.kernel.state if isinstance(each, kinds)]


async def test_a_network_on_a_parent_and_its_container(found: World, api: Api) -> None:
    before = found.kernel.state
    config = {"Subnet": "192.168.1.0/24", "Gateway": "192.168.1.1", "IPRange": "192.168.1.64/26"}
    await make(api, "lan", **opt(parent="eth0"), IPAM={"Config": [config]})
    assert found.kernel.state == before
    _, shape = await api("GET", "/networks/lan")
    assert (shape["Driver"], shape["Options"], shape["IPAM"]["Config"]) == (
        "macvlan",
        {"parent": "eth0"},
        [config],
    )
    # Ports are accepted and not published, as in Docker.
    bindings = {"80/tcp": []}
    await add_container(found, "web", {"lan": EndpointSpec()}, port_bindings=bindings)
    (link,) = of_kind(found, Macvlan)
    assert (link.name, link.parent, link.mode, link.mtu) == ("eth0", "eth0", "bridge", 1500)
    assert link.mac == "02:42:c0:a8:01:40"
    assert [str(each.via) for each in of_kind(found, Route)] == ["192.168.1.1"]
    _, shape = await api("GET", "/networks/lan")
    (only,) = shape["Containers"].values()
    assert (only["IPv4Address"], only["MacAddress"]) == ("192.168.1.64/24", link.mac)
    assert not [
        each for each in found.kernel.state if each.key[0] == "nft-element" and "publish" in each.key[4]
    ]
    # Taken off while it runs, and put back.
    assert (await api("POST", "/networks/lan/disconnect", {"Container": "web"}))[0] == 200
    assert of_kind(found, Macvlan) == []
    again = {"Container": "web", "EndpointConfig": {"MacAddress": "02:00:00:00:00:07"}}
    assert (await api("POST", "/networks/lan/connect", again))[0] == 200
    assert [each.mac for each in of_kind(found, Macvlan)] == ["02:00:00:00:00:07"]


async def test_without_a_parent_a_dummy_and_no_gateway(found: World, api: Api) -> None:
    for driver, prefix in (("macvlan", "dm-"), ("ipvlan", "di-")):
        network_id = await make(api, driver, driver)
        (dummy,) = of_kind(found, Dummy)
        assert dummy.name == prefix + network_id[:12]
        _, shape = await api("GET", f"/networks/{driver}")
        assert set(shape["IPAM"]["Config"][0]) == {"Subnet"} and shape["Internal"] is False
        await add_container(found, f"on-{driver}", {driver: EndpointSpec()})
        assert of_kind(found, Route) == []
        assert (await api("POST", f"/networks/{driver}/disconnect", {"Container": f"on-{driver}"}))[0] == 200
        assert (await api("DELETE", f"/networks/{driver}"))[0] == 204
        assert of_kind(found, Dummy) == []


async def test_networks_share_a_sub_interface_until_the_last_goes(found: World, api: Api) -> None:
    for name in ("one", "two"):
        await make(api, name, **opt(parent="eth0.10"))
    assert [(each.name, each.parent, each.vlan_id) for each in of_kind(found, Vlan)] == [
        ("eth0.10", "eth0", 10)
    ]
    await add_container(found, "web", {"two": EndpointSpec()})
    assert (await api("DELETE", "/networks/one"))[0] == 204
    assert len(of_kind(found, Vlan)) == 1 and len(of_kind(found, Macvlan)) == 1
    assert (await api("POST", "/networks/two/disconnect", {"Container": "web"}))[0] == 200
    assert (await api("DELETE", "/networks/two"))[0] == 204
    assert of_kind(found, Vlan) == []
    # The administrator's own is used and left.
    await make(api, "own", **opt(parent="eth1.5"))
    assert of_kind(found, Vlan) == []


async def test_ipvlan_modes(found: World, api: Api) -> None:
    options = opt(parent="eth0", ipvlan_mode="l3", ipvlan_flag="private")
    await make(api, "routed", "ipvlan", **options, IPAM={"Config": [{"Subnet": "10.9.0.0/24"}]})
    _, shape = await api("GET", "/networks/routed")
    assert shape["IPAM"]["Config"] == [{"Subnet": "10.9.0.0/24"}]
    await add_container(found, "web", {"routed": EndpointSpec()})
    (link,) = of_kind(found, Ipvlan)
    assert (link.parent, link.mode, link.flag) == ("eth0", "l3", "private")
    (route,) = of_kind(found, Route)
    assert (str(route.to), route.via, route.link) == ("0.0.0.0/0", None, "eth0")
    _, shape = await api("GET", "/containers/web/json")
    assert shape["NetworkSettings"]["Networks"]["routed"]["MacAddress"] == ""
    body = {"Container": "web2", "EndpointConfig": {"MacAddress": "02:00:00:00:00:07"}}
    await add_container(found, "web2", {})
    status, answer = await api("POST", "/networks/routed/connect", body)
    assert status == 500
    assert "ipvlan interfaces do not support custom mac address assignment" in answer["message"]
    assert len(of_kind(found, Ipvlan)) == 1


async def test_the_way_out_is_the_gateways_endpoint(found: World, api: Api) -> None:
    """Beside a bridge network with ports, the network that leads out by rank takes the default route."""
    await make(api, "a-lan", **opt(parent="eth0"))
    await make(api, "b-web", "bridge")
    await add_container(found, "web", {"a-lan": EndpointSpec(), "b-web": EndpointSpec(gw_priority=1)})
    (route,) = of_kind(found, Route)
    assert route.link == "eth1"


async def test_the_hosts_own_interface(found: World, api: Api) -> None:
    config = {"Subnet": "192.168.1.0/24", "Gateway": "192.168.1.1", "IPRange": "192.168.1.64/26"}
    options = {"parent": "eth0", "dari.host_shim": "192.168.1.66/32"}
    network_id = await make(api, "lan", Options=options, IPAM={"Config": [config]})
    (shim,) = of_kind(found, Macvlan)
    assert (shim.netns, shim.name, shim.parent) == (HOST, f"ds-{network_id[:12]}", "eth0")
    assert [str(each.address) for each in of_kind(found, Addr) if each.link == shim.name] == [
        "192.168.1.66/32"
    ]
    assert [(str(each.to), each.link) for each in of_kind(found, Route)] == [("192.168.1.64/26", shim.name)]
    _, shape = await api("GET", "/networks/lan")
    assert shape["IPAM"]["Config"][0]["AuxiliaryAddresses"] == {"dari.host_shim": "192.168.1.66"}
    # Its address is nobody else's.
    for number in range(3):
        await add_container(found, f"c{number}", {"lan": EndpointSpec()})
    given = {str(each.address.ip) for each in of_kind(found, Addr) if each.netns != HOST}
    assert given == {"192.168.1.64", "192.168.1.65", "192.168.1.67"}


BAD: list[tuple[str, dict[str, str], int, str]] = [
    (
        "macvlan",
        {"parent": "eth0", "macvlan_mode": "foo"},
        500,
        "requested macvlan mode 'foo' is not valid, 'bridge' mode is the macvlan driver default",
    ),
    ("macvlan", {"parent": "lo"}, 500, "loopback interface is not a valid macvlan parent link"),
    (
        "macvlan",
        {"parent": "nope"},
        500,
        "invalid subinterface vlan name nope, example formatting is eth0.10",
    ),
    ("macvlan", {"parent": "nope.10"}, 500, "-o parent interface was not found on the host: nope"),
    (
        "macvlan",
        {"parent": "eth0.x"},
        500,
        "unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)",
    ),
    ("macvlan", {"parent": "eth0.4095"}, 500, "vlan id must be between 1-4094, received: 4095"),
    (
        "ipvlan",
        {"parent": "eth0.1.2"},
        500,
        "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received eth0.1.2",
    ),
    (
        "ipvlan",
        {"parent": "eth0", "ipvlan_mode": "l9"},
        500,
        "requested ipvlan mode 'l9' is not valid, 'l2' mode is the ipvlan driver default",
    ),
    (
        "ipvlan",
        {"parent": "eth0", "ipvlan_flag": "x"},
        500,
        "requested ipvlan flag 'x' is not valid, 'bridge' is the ipvlan driver default",
    ),
    ("ipvlan", {"parent": "lo"}, 500, "loopback interface is not a valid ipvlan parent link"),
    (
        "macvlan",
        {"parent": "eth0", "com.docker.network.driver.mtu": "1501"},
        400,
        "invalid MTU 1501 of network nope: give a number from 68 to 1500, its parent's",
    ),
    (
        "macvlan",
        {"parent": "eth0", "dari.hostshim": "10.1.0.9/32"},
        400,
        "network nope: unknown option dari.hostshim; did you mean dari.host_shim?",
    ),
    (
        "macvlan",
        {"parent": "eth0", "dari.host_shim": "here"},
        400,
        "invalid value 'here' of option dari.host_shim: give the host's address on the network, ADDRESS/LENGTH",
    ),
    (
        "macvlan",
        {"parent": "eth0", "dari.host_shim": "10.2.0.9/32"},
        400,
        "network nope: no configured subnet contains the host's address 10.2.0.9 (dari.host_shim)",
    ),
    (
        "macvlan",
        {"parent": "eth0", "dari.host_shim": "10.1.0.1/32"},
        400,
        "network nope: the host's address 10.1.0.1 (dari.host_shim) is the gateway's or reserved",
    ),
    (
        "macvlan",
        {"parent": "eth0", "macvlan_mode": "private", "dari.host_shim": "10.1.0.9/32"},
        400,
        "network nope: the host's interface (dari.host_shim) and the containers see each other in macvlan_mode bridge "
        "only, not in private",
    ),
    (
        "ipvlan",
        {"parent": "eth0", "ipvlan_flag": "vepa", "dari.host_shim": "10.1.0.9/32"},
        400,
        "network nope: the host's interface (dari.host_shim) and the containers see each other with ipvlan_flag bridge "
        "only, not with vepa",
    ),
]


@pytest.mark.parametrize(("driver", "options", "status", "text"), BAD, ids=lambda each: str(each)[:40])
async def test_bad_options_change_nothing(
    found: World, api: Api, driver: str, options: dict[str, str], status: int, text: str
) -> None:
    before = found.kernel.state
    answer = await create(api, "nope", driver, Options=options, IPAM={"Config": [{"Subnet": "10.1.0.0/24"}]})
    assert answer == (status, {"message": text})
    assert found.kernel.state == before
    assert (await api("GET", "/networks/nope"))[0] == 404


async def test_a_shim_does_not_take_the_hosts_own_route(tmp_path: Path) -> None:
    import ipaddress

    lan = ipaddress.ip_network("10.1.0.0/24")
    async with world(tmp_path, HostFacts(links=LINKS, routes=(lan,))) as found, api_of(found) as api:
        options = {"parent": "eth0", "dari.host_shim": "10.1.0.9/32"}
        status, answer = await create(
            api, "nope", Options=options, IPAM={"Config": [{"Subnet": "10.1.0.0/24"}]}
        )
        assert status == 400 and "give --ip-range" in answer["message"]
        ranged = {"Subnet": "10.1.0.0/24", "IPRange": "10.1.0.128/25"}
        assert (await create(api, "good", Options=options, IPAM={"Config": [ranged]}))[0] == 201


async def test_who_may_share_a_parent(found: World, api: Api) -> None:
    first = await make(api, "m1", **opt(parent="eth0"))
    refused = [
        await create(api, "m3", **opt(parent="eth0", macvlan_mode="passthru")),
        await create(api, "i1", "ipvlan", **opt(parent="eth0")),
    ]
    await make(api, "m2", **opt(parent="eth0", macvlan_mode="private"))
    assert refused == [
        (
            500,
            {
                "message": f"cannot use mode passthru, macvlan network {first} is already using parent interface eth0"
            },
        ),
        (500, {"message": f"network dm-{first[:12]} is already using parent interface eth0"}),
    ]
    alone = await make(api, "p1", **opt(parent="eth1", macvlan_mode="passthru"))
    text = f"macvlan network {alone} is already using parent interface eth1 in mode passthru"
    assert await create(api, "m4", **opt(parent="eth1")) == (500, {"message": text})
    only = await make(api, "i2", "ipvlan", **opt(parent="eth1.5"))
    text = f"network di-{only[:12]} is already using parent interface eth1.5"
    assert await create(api, "i3", "ipvlan", **opt(parent="eth1.5")) == (500, {"message": text})


async def test_two_at_once_do_not_both_get_a_parent(api: Api) -> None:
    answers = await asyncio.gather(*(create(api, f"i{n}", "ipvlan", **opt(parent="eth0")) for n in range(8)))
    assert sorted(status for status, _ in answers) == [201, *[500] * 7]


async def test_a_parent_that_goes_and_comes_back(found: World, api: Api) -> None:
    await make(api, "lan", **opt(parent="eth0"))
    await make(api, "tagged", **opt(parent="eth1.7"))
    await add_container(found, "web", {"lan": EndpointSpec(), "tagged": EndpointSpec()})
    whole = found.kernel.state
    assert not await settle.mend_shared(found.ctx)
    # The card is pulled out: the kernel takes along what hung on it.
    found.kernel.host_facts = HostFacts(links={"lo": 65536})
    for key in [each.key for each in whole if isinstance(each, Vlan | Macvlan)]:
        found.kernel.remove(key)
    # A daemon that starts meanwhile knows that single containers lack something, and nobody else.
    with pytest.raises(Internal, match="ENODEV") as caught:
        await settle.settle_everything(found.ctx)
    assert settle.is_of_sandboxes(caught.value)
    assert of_kind(found, Macvlan, Vlan) == []
    assert not await settle.mend_shared(found.ctx)
    status, answer = await api("POST", "/networks/create", {"Name": "other", "Driver": "bridge"})
    assert status == 201, answer
    assert (await api("DELETE", "/networks/other"))[0] == 204
    # Back again: it is noticed, once.
    found.kernel.host_facts = HostFacts(links=LINKS)
    assert await settle.mend_shared(found.ctx)
    assert found.kernel.state == whole
    assert not await settle.mend_shared(found.ctx)


async def test_what_a_failed_connect_made_is_taken_back(found: World, api: Api) -> None:
    """Whatever step of it the kernel refuses, for good."""
    await make(api, "lan", **opt(parent="eth0"))
    await add_container(found, "web", {})
    found.kernel.host_facts = HostFacts(links={"lo": 65536})
    assert (await api("POST", "/networks/lan/connect", {"Container": "web"}))[0] == 500
    _, shape = await api("GET", "/containers/web/json")
    assert shape["NetworkSettings"]["Networks"] == {}
    assert of_kind(found, Macvlan, Route) == []
    found.kernel.host_facts = HostFacts(links=LINKS)
    assert (await api("POST", "/networks/lan/connect", {"Container": "web"}))[0] == 200


@pytest.mark.parametrize(
    ("missing", "driver", "options"),
    [
        ("ipvlan", "ipvlan", {"parent": "eth0"}),
        ("vlan", "macvlan", {"parent": "eth0.9"}),
        ("dummy", "macvlan", {}),
    ],
)
async def test_a_kernel_without_it_says_so(
    found: World, api: Api, missing: str, driver: str, options: dict[str, str]
) -> None:
    found.kernel.missing_kinds = {missing}
    before = found.kernel.state
    status, answer = await create(api, "lan", driver, Options=options)
    assert status == 501
    assert answer["message"].startswith(
        f"network lan needs {missing} interfaces, which this host's kernel does not have: operation not supported"
    )
    assert found.kernel.state == before
    assert (await api("GET", "/networks/lan"))[0] == 404
