"""An interface somebody else made, moved into a sandbox and back: the real kernel, killed and meddled with."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest
from tests.kernel.world import ip_json, link_names, opened, run, run_in, settle_all

from dari.net.plan import plan
from dari.net.scope import Scope
from dari.net.state import Addr, KernelState, Loopback, MovedLink, Netns, Route

MARK = "dari-ep-1234-from-plug0"


def wanted(source: str = "plug0", mac: str = "02:00:00:00:00:07") -> KernelState:
    return KernelState.of(
        [
            Netns("box"),
            Loopback("box"),
            MovedLink("box", "eth0", source, f"dari-ep-1234-from-{source}", mac),
            Addr("box", "eth0", ip_interface("10.5.0.2/32")),
            Route("box", ip_network("169.254.1.1/32"), None, "eth0"),
            Route("box", ip_network("0.0.0.0/0"), ip_interface("169.254.1.1/32").ip, "eth0"),
        ]
    )


def make_pair() -> None:
    run("ip", "link", "add", "plug0", "type", "veth", "peer", "name", "host0")


@pytest.mark.kernel_ns
def test_in_and_back_and_its_maker_finds_it(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        make_pair()
        assert kernel.mac_of("plug0") and not kernel.mac_of("nothing")
        assert settle_all(kernel, wanted()) == 2
        assert kernel.read(Scope.everything(wanted())).objects == wanted().objects
        assert kernel.read(Scope.of(wanted())).objects == wanted().objects
        path = kernel.netns_path("box")
        inside = {each["ifname"]: each for each in ip_json("link", path=path)}
        assert inside["eth0"]["address"] == "02:00:00:00:00:07" and "UP" in inside["eth0"]["flags"]
        assert "plug0" not in link_names()
        assert "default via 169.254.1.1 dev eth0" in run_in(path, "ip", "route")
        settle_all(kernel, wanted(mac="02:00:00:00:00:08"))
        settle_all(kernel, KernelState())
        assert {"plug0", "host0"} <= link_names()
        assert not any("altnames" in each for each in ip_json("link") if each["ifname"] == "plug0")


@pytest.mark.kernel_ns
def test_a_detached_endpoint_of_a_living_sandbox(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        make_pair()
        settle_all(kernel, wanted())
        alone = KernelState.of([Netns("box"), Loopback("box")])
        settle_all(kernel, alone)
        assert "plug0" in link_names()
        assert [each["ifname"] for each in ip_json("link", path=kernel.netns_path("box"))] == ["lo"]


@pytest.mark.kernel_ns
def test_killed_between_the_move_and_the_mark(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        make_pair()
        settle_all(kernel, KernelState.of([Netns("box"), Loopback("box")]))
        run("ip", "link", "set", "plug0", "netns", kernel.netns_path("box"), "name", "eth0")
        settle_all(kernel, wanted())
        assert kernel.read(Scope.everything(wanted())).objects == wanted().objects


@pytest.mark.kernel_ns
def test_nothing_to_move_is_said_by_name(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        with pytest.raises(Exception, match="there is no interface plug0 to move"):
            kernel.apply(plan(wanted(), KernelState()))


@pytest.mark.kernel_ns
def test_another_source_takes_its_place(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        make_pair()
        run("ip", "link", "add", "plug1", "type", "veth", "peer", "name", "host1")
        settle_all(kernel, wanted())
        other = wanted("plug1")
        settle_all(kernel, other)
        assert "plug0" in link_names() and "plug1" not in link_names()
        assert kernel.read(Scope.everything(other)).objects == other.objects


def test_a_link_whose_name_is_taken_changes_nothing() -> None:
    """In the plan a difference of source is a removal and a making."""
    old = next(each for each in wanted() if isinstance(each, MovedLink))
    steps = plan(KernelState.of([replace(old, source="b", altname="m")]), KernelState.of([old]))
    assert [op.action for op in steps.ops] == ["delete", "add"]
