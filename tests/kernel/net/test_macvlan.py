"""macvlan on the real kernel: who is heard by whom, what lingers, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.kernel.lan import FAR, ROUTER, boxes, end, lan, net
from tests.kernel.world import ip_json, link_names, run, sandbox

from dari.kernel.errors import KernelError
from dari.net.desired import Desired
from dari.net.plan import plan
from dari.net.scope import Scope
from dari.net.state import HOST, KernelState, Macvlan

pytestmark = pytest.mark.kernel_ns


def test_neighbours_of_the_parents_network(tmp_path: Path) -> None:
    with lan(tmp_path) as found:
        wanted = found.settle(boxes(net("macvlan"), 0, 1))
        assert plan(wanted, found.kernel.read(Scope.everything(wanted))).is_empty
        (inside_,) = ip_json("link", "show", "eth0", path=tmp_path / "netns" / "box0")
        assert inside_["address"] == "02:42:c0:00:02:40" and inside_["altnames"] == ["dari-ep-0-0"]
        assert inside_["linkinfo"]["info_data"]["mode"] == "bridge"
        server = found.listen(0, "0.0.0.0")
        assert found.reach(1, server, "192.0.2.64") == "192.0.2.65"
        # The LAN sees the container's own address, both ways; what is behind the router is reached.
        assert found.reach(None, server, "192.0.2.64") == ROUTER
        assert found.reach(0, found.listen(None, ROUTER), ROUTER) == "192.0.2.64"
        assert found.reach(0, found.listen(None, FAR), FAR) == "192.0.2.64"
        assert found.reach(1, found.listen(0, "::", 81), "fd00:2::64", 81) == "fd00:2::65"
        # The host itself is not heard: the kernel keeps a parent apart from what hangs on it.
        run("ip", "addr", "add", "192.0.2.9/24", "dev", "lan0")
        found.cannot("", "192.0.2.64")
        found.cannot(0, "192.0.2.9")
        assert "lan0" in link_names()


@pytest.mark.parametrize("mode", ["private", "vepa"])
def test_modes_that_keep_containers_apart(tmp_path: Path, mode: str) -> None:
    with lan(tmp_path) as found:
        found.settle(boxes(net("macvlan", macvlan_mode=mode), 0, 1))
        server = found.listen(0, "0.0.0.0")
        assert found.reach(None, server, "192.0.2.64") == ROUTER
        found.cannot(1, "192.0.2.64")


def test_passthru_has_its_parent_alone(tmp_path: Path) -> None:
    with lan(tmp_path) as found:
        before = ip_json("link", "show", "lan0")[0]["address"]
        wanted = found.settle(boxes(net("macvlan", macvlan_mode="passthru"), 0))
        assert plan(wanted, found.kernel.read(Scope.everything(wanted))).is_empty
        assert found.reach(None, found.listen(0, "0.0.0.0"), "192.0.2.64") == ROUTER
        desired = boxes(net("macvlan", macvlan_mode="passthru"), 0, 1)
        with pytest.raises(KernelError, match="in mode passthru one interface has lan0 alone"):
            found.settle(desired)
        # It leaves at once, with its namespace, and another one may have the parent.
        found.settle(boxes(net("macvlan", macvlan_mode="passthru"), 1))
        assert found.reach(None, found.listen(1, "0.0.0.0"), "192.0.2.65") == ROUTER
        found.settle(Desired())
        assert ip_json("link", "show", "lan0")[0]["address"] == before


def test_the_host_through_its_shim(tmp_path: Path) -> None:
    with lan(tmp_path) as found:
        run("ip", "addr", "add", "192.0.2.9/24", "dev", "lan0")
        shim = {"dari__host_shim": "192.0.2.10/32,fd00:2::10/64"}
        wanted = found.settle(boxes(net("macvlan", **shim), 0))
        assert plan(wanted, found.kernel.read(Scope.everything(wanted))).is_empty
        server = found.listen(0, "0.0.0.0")
        assert found.reach("", server, "192.0.2.64") == "192.0.2.10"
        assert found.reach("", found.listen(0, "::", 81), "fd00:2::64", 81) == "fd00:2::10"
        assert found.reach(0, found.listen("", "0.0.0.0", 82), "192.0.2.10", 82) == "192.0.2.64"
        # The host's own way into the LAN is as it was.
        assert found.reach("", found.listen(None, ROUTER, 83), ROUTER, 83) == "192.0.2.9"
        found.settle(boxes(net("macvlan"), 0))
        assert not [name for name in link_names() if name.startswith("ds-")]
        found.cannot("", "192.0.2.64")


def test_an_address_is_free_as_soon_as_its_sandbox_went(tmp_path: Path) -> None:
    """The kernel drops a namespace behind; its interface must not hold the hardware address until then."""
    with lan(tmp_path) as found:
        for round_ in range(8):
            found.settle(boxes(net("macvlan"), 0))
            desired = Desired(
                (net("macvlan"),),
                (replace(end(0, 1, suffix=str(round_)), mac=end(0, 0).mac, addresses=end(0, 0).addresses),),
                (sandbox(1),),
            )
            found.settle(desired)
            assert found.reach(None, found.listen(1, "0.0.0.0"), "192.0.2.64") == ROUTER


def test_put_right_after_meddling(tmp_path: Path) -> None:
    with lan(tmp_path) as found:
        wanted = found.settle(boxes(net("macvlan"), 0, 1))
        server = found.listen(0, "0.0.0.0")
        for command in ("link set eth0 down", "link set eth0 mtu 1400", "link del eth0"):
            found.at(0, lambda command=command: run("ip", *command.split()))
            assert not plan(wanted, found.kernel.read(Scope.everything(wanted))).is_empty
            found.settle(boxes(net("macvlan"), 0, 1))
            assert found.reach(1, server, "192.0.2.64") == "192.0.2.65"
        # The parent goes with everything on it, and comes again.
        run("ip", "link", "del", "lan0")
        assert not [each for each in found.kernel.read(Scope.everything(wanted)) if isinstance(each, Macvlan)]
        with pytest.raises(
            KernelError, match="the requested parent interface lan0 was not found on the host"
        ):
            found.settle(boxes(net("macvlan"), 0, 1))
        run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "far")
        found.settle(boxes(net("macvlan"), 0, 1))
        run("ip", "link", "set", "far", "up")
        run("ip", "link", "set", "lan0", "up")
        assert found.reach(1, server, "192.0.2.64") == "192.0.2.65"


@pytest.mark.parametrize("name", ["eth0", "dari-c5d890e08"])
def test_what_a_kill_left_half_made_is_made_anew(tmp_path: Path, name: str) -> None:
    """Killed between making the interface and marking it; what a container makes itself is left alone."""
    with lan(tmp_path) as found:
        found.settle(Desired((), (), (sandbox(0),)))
        path = tmp_path / "netns" / "box0"
        run("ip", "link", "add", "link", "lan0", "name", name, "netns", str(path), "type", "macvlan")
        wanted = found.settle(boxes(net("macvlan"), 0))
        assert found.reach(None, found.listen(0, "0.0.0.0"), "192.0.2.64") == ROUTER
        found.at(0, lambda: run("ip", "link", "add", "link", "eth0", "name", "mine", "type", "macvlan"))
        assert plan(wanted, found.kernel.read(Scope.everything(wanted))).is_empty
        found.settle(boxes(net("macvlan"), 0))
        assert "mine" in {each["ifname"] for each in ip_json("link", "show", path=path)}


def test_a_name_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    with lan(tmp_path) as found:
        found.settle(Desired((), (), (sandbox(0),)))
        found.at(0, lambda: run("ip", "link", "add", "eth0", "type", "bridge"))
        with pytest.raises(KernelError, match="EEXIST"):
            found.settle(boxes(net("macvlan"), 0))
        found.at(0, lambda: run("ip", "link", "del", "eth0"))
        found.settle(boxes(net("macvlan"), 0))


def test_a_link_that_cannot_be_marked_is_taken_back(tmp_path: Path) -> None:
    with lan(tmp_path) as found:
        found.settle(Desired((), (), (sandbox(0),)))
        found.at(0, lambda: run("ip", "link", "property", "add", "dev", "lo", "altname", "dari-ep-0-0"))
        with pytest.raises(KernelError, match="EEXIST"):
            found.settle(boxes(net("macvlan"), 0))
        names = {each["ifname"] for each in ip_json("link", "show", path=tmp_path / "netns" / "box0")}
        assert names == {"lo"}


def test_a_parent_that_a_bridge_has_is_busy(tmp_path: Path) -> None:
    with lan(tmp_path) as found:
        run("ip", "link", "add", "mine", "type", "bridge")
        run("ip", "link", "set", "lan0", "master", "mine")
        with pytest.raises(KernelError, match=r"EBUSY.*lan0 is a bridge's or a bond's"):
            found.settle(boxes(net("macvlan"), 0))
        run("ip", "link", "set", "lan0", "nomaster")


def test_kinds_the_kernel_knows_and_does_not(tmp_path: Path) -> None:
    with lan(tmp_path) as found:
        before = link_names()
        assert found.kernel.has_link_kind("macvlan") and found.kernel.has_link_kind("bridge")
        assert not found.kernel.has_link_kind("nonesuch")
        found.kernel.has_link_kind("dummy")
        assert link_names() == before


def test_a_shim_with_a_name_that_is_taken(tmp_path: Path) -> None:
    with lan(tmp_path) as found:
        run("ip", "link", "add", "ds-net0", "type", "bridge")
        network = net("macvlan", dari__host_shim="192.0.2.10/32")
        with pytest.raises(KernelError, match="EEXIST"):
            found.settle(boxes(network, 0))
        assert "altnames" not in ip_json("link", "show", "ds-net0")[0]
        run("ip", "link", "del", "ds-net0")
        wanted = found.settle(boxes(network, 0))
        assert Macvlan(HOST, "ds-net0", "dari-shim-net0", "lan0", "bridge", "02:42:c0:00:02:0a") in list(
            wanted
        )
        assert found.reach("", found.listen(0, "0.0.0.0"), "192.0.2.64") == "192.0.2.10"


def test_nothing_is_left(tmp_path: Path) -> None:
    with lan(tmp_path) as found:
        found.settle(boxes(net("macvlan", dari__host_shim="192.0.2.10/32"), 0, 1))
        found.settle(Desired())
        assert found.kernel.read(Scope.everything()) == KernelState()
        assert link_names() == {"lo", "lan0"}
