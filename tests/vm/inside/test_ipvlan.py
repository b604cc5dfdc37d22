"""ipvlan, 802.1q and dummies with real packets: who is heard by whom, what lingers, what is refused."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest
from tests.kernel.lan import FAR, ROUTER, boxes, end, lan, net
from tests.kernel.world import ip_json, link_names, run, sandbox

from dari.kernel.errors import KernelError
from dari.net.desired import Desired, EndpointWant, NetworkWant, SubnetWant
from dari.net.plan import plan
from dari.net.scope import Scope
from dari.net.state import KernelState

pytestmark = pytest.mark.kernel_ns


def ends(network: NetworkWant, *numbers: int) -> Desired:
    desired = boxes(network, *numbers)
    return replace(desired, endpoints=tuple(replace(each, mac="") for each in desired.endpoints))


def test_l2_is_a_neighbour_with_the_parents_hardware_address(tmp_path: Path) -> None:
    with lan(tmp_path) as found:
        wanted = found.settle(ends(net("ipvlan"), 0, 1))
        assert plan(wanted, found.kernel.read(Scope.everything(wanted))).is_empty
        (link,) = ip_json("link", "show", "eth0", path=tmp_path / "netns" / "box0")
        assert link["address"] == ip_json("link", "show", "lan0")[0]["address"]
        assert link["linkinfo"]["info_kind"] == "ipvlan" and link["linkinfo"]["info_data"]["mode"] == "l2"
        server = found.listen(0, "0.0.0.0")
        assert found.reach(1, server, "192.0.2.64") == "192.0.2.65"
        assert found.reach(None, server, "192.0.2.64") == ROUTER
        assert found.reach(0, found.listen(None, FAR), FAR) == "192.0.2.64"
        assert found.reach(1, found.listen(0, "::", 81), "fd00:2::64", 81) == "fd00:2::65"
        # The host is not heard, as with macvlan.
        run("ip", "addr", "add", "192.0.2.9/24", "dev", "lan0")
        found.cannot("", "192.0.2.64")


@pytest.mark.parametrize("mode", ["l3", "l3s"])
def test_l3_is_routed_without_a_gateway(tmp_path: Path, mode: str) -> None:
    """Two subnets on one parent: the host's kernel routes between them; the LAN's router needs a route to them."""
    network = NetworkWant(
        id="net0",
        name="routed",
        driver="ipvlan",
        altname="dari-net-0",
        subnets=(SubnetWant(ip_network("10.1.0.0/24"), None), SubnetWant(ip_network("10.2.0.0/24"), None)),
        options={"parent": "lan0", "ipvlan_mode": mode},
    )

    def at(box: int) -> EndpointWant:
        address = ip_interface(f"10.{box + 1}.0.2/24")
        return replace(end(0, box), mac="", addresses=(address,), gateways=())

    with lan(tmp_path) as found:
        run("ip", "addr", "add", "192.0.2.9/24", "dev", "lan0")
        wanted = found.settle(Desired((network,), (at(0), at(1)), (sandbox(0), sandbox(1))))
        assert plan(wanted, found.kernel.read(Scope.everything(wanted))).is_empty
        (route,) = [
            each
            for each in ip_json("route", "show", path=tmp_path / "netns" / "box0")
            if each["dst"] == "default"
        ]
        assert route["dev"] == "eth0" and "gateway" not in route
        server = found.listen(0, "0.0.0.0")
        assert found.reach(1, server, "10.1.0.2") == "10.2.0.2"
        found.cannot(None, "10.1.0.2")
        found.outside("ip", "route", "add", "10.1.0.0/24", "via", "192.0.2.9", "dev", "port")
        assert found.reach(None, server, "10.1.0.2") == ROUTER


@pytest.mark.parametrize("flag", ["private", "vepa"])
def test_flags_keep_containers_apart(tmp_path: Path, flag: str) -> None:
    with lan(tmp_path) as found:
        wanted = found.settle(ends(net("ipvlan", ipvlan_flag=flag), 0, 1))
        assert plan(wanted, found.kernel.read(Scope.everything(wanted))).is_empty
        server = found.listen(0, "0.0.0.0")
        assert found.reach(None, server, "192.0.2.64") == ROUTER
        found.cannot(1, "192.0.2.64")


def test_the_host_through_its_shim(tmp_path: Path) -> None:
    with lan(tmp_path) as found:
        run("ip", "addr", "add", "192.0.2.9/24", "dev", "lan0")
        wanted = found.settle(ends(net("ipvlan", dari__host_shim="192.0.2.10/32"), 0))
        assert plan(wanted, found.kernel.read(Scope.everything(wanted))).is_empty
        assert found.reach("", found.listen(0, "0.0.0.0"), "192.0.2.64") == "192.0.2.10"
        assert found.reach("", found.listen(None, ROUTER, 83), ROUTER, 83) == "192.0.2.9"


def test_an_address_is_free_as_soon_as_its_sandbox_went(tmp_path: Path) -> None:
    with lan(tmp_path) as found:
        for round_ in range(4):
            found.settle(ends(net("ipvlan"), 0))
            other = replace(end(0, 1, has_mac=False, suffix=str(round_)), addresses=end(0, 0).addresses)
            found.settle(Desired((net("ipvlan"),), (other,), (sandbox(1),)))
            assert found.reach(None, found.listen(1, "0.0.0.0"), "192.0.2.64") == ROUTER


def test_a_parent_that_macvlan_has_is_busy(tmp_path: Path) -> None:
    with lan(tmp_path) as found:
        found.settle(boxes(net("macvlan"), 0))
        desired = Desired(
            (net("macvlan"), net("ipvlan", 1)),
            (end(0, 0), replace(end(1, 1), mac="")),
            (sandbox(0), sandbox(1)),
        )
        with pytest.raises(KernelError, match=r"EBUSY.*lan0 is a bridge's or a bond's, or carries macvlan"):
            found.settle(desired)


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
def test_a_sub_interface_is_made_and_tags_frames(tmp_path: Path, driver: str) -> None:
    network = net(driver)
    network = replace(network, options={**network.options, "parent": "lan0.10"})
    with lan(tmp_path) as found:
        found.outside("ip", "link", "add", "port.10", "link", "port", "type", "vlan", "id", "10")
        found.outside("ip", "link", "set", "port.10", "up")
        found.address("port.10", "192.0.2.7/32")
        found.outside("ip", "route", "add", "192.0.2.64/26", "dev", "port.10", "src", "192.0.2.7")
        wanted = found.settle(ends(network, 0) if driver == "ipvlan" else boxes(network, 0))
        assert plan(wanted, found.kernel.read(Scope.everything(wanted))).is_empty
        (made,) = ip_json("link", "show", "lan0.10")
        assert made["linkinfo"]["info_data"]["id"] == 10 and made["altnames"] == ["dari-vlan-lan0.10"]
        server = found.listen(0, "0.0.0.0")
        assert found.reach(None, server, "192.0.2.64") == "192.0.2.7"
        # An address the administrator gives it is his.
        run("ip", "addr", "add", "203.0.113.1/24", "dev", "lan0.10")
        assert plan(wanted, found.kernel.read(Scope.everything(wanted))).is_empty
        # It goes with the last network on it, and the same id comes again at once.
        for port in (81, 82, 83):
            found.settle(Desired((), (), (sandbox(0),)))
            assert "lan0.10" not in link_names()
            found.settle(ends(network, 0) if driver == "ipvlan" else boxes(network, 0))
            assert found.reach(None, found.listen(0, "0.0.0.0", port), "192.0.2.64", port) == "192.0.2.7"


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
def test_without_a_parent_containers_see_each_other_alone(tmp_path: Path, driver: str) -> None:
    network = replace(net(driver), options={})
    with lan(tmp_path) as found:
        wanted = found.settle(ends(network, 0, 1) if driver == "ipvlan" else boxes(network, 0, 1))
        assert plan(wanted, found.kernel.read(Scope.everything(wanted))).is_empty
        server = found.listen(0, "0.0.0.0")
        assert found.reach(1, server, "192.0.2.64") == "192.0.2.65"
        found.cannot(None, "192.0.2.64")
        found.cannot(0, FAR)


def test_nothing_is_left(tmp_path: Path) -> None:
    with lan(tmp_path) as found:
        network = net("ipvlan", dari__host_shim="192.0.2.10/32")
        found.settle(ends(network, 0, 1))
        found.settle(Desired())
        assert found.kernel.read(Scope.everything()) == KernelState()
        assert link_names() == {"lo", "lan0"}


def test_every_kind_is_known(tmp_path: Path) -> None:
    with lan(tmp_path) as found:
        assert all(found.kernel.has_link_kind(kind) for kind in ("macvlan", "ipvlan", "vlan", "dummy"))
        assert not found.kernel.has_link_kind("nonesuch")
        assert link_names() == {"lo", "lan0"}
