"""Every kind of kernel object: applied, judged by the kernel's own tools, read back equal, gone again."""

from __future__ import annotations

import os
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from tests.kernel.world import ip_json, link_names, opened, run, run_in, settle, settle_all

from dari.kernel.host import Kernel
from dari.net import firewall
from dari.net.desired import SandboxWant
from dari.net.firewall import HOST_TABLE
from dari.net.plan import plan
from dari.net.scope import Scope
from dari.net.state import (
    HOST,
    Addr,
    Bridge,
    KernelObject,
    KernelState,
    Loopback,
    Netns,
    NftElement,
    NftTable,
    Route,
    Sysctl,
    Veth,
)

pytestmark = pytest.mark.kernel_ns

BRIDGE = Bridge("br0", "dari-net-a", mtu=1400)
BOX = Netns("box")
VETH = Veth("vetha", "dari-ep-a", "eth0", "box", "br0", "02:42:0a:00:00:02", mtu=1400, is_hairpin=True)
BASE = (BRIDGE, BOX, VETH)
SANDBOX_TABLE = """\
table ip dari {
	map ports {
		type inet_service : inet_service
	}

	chain output {
		type nat hook output priority -100; policy accept;
		ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:40001
		tcp dport { 80, 443 } counter
	}
}
"""


def there_and_back(kernel: Kernel, *objects: KernelObject) -> None:
    """Apply, read equal by scope and by mark, find nothing to do, take away, read nothing."""
    wanted = KernelState.of(objects)
    scope = Scope.of(wanted)
    assert settle(kernel, wanted, scope) <= 2
    assert kernel.read(scope) == wanted
    assert kernel.read(Scope.everything(wanted)) == wanted
    settle_all(kernel, KernelState())
    assert not [each for each in kernel.read(scope) if not isinstance(each, Sysctl)]


def test_netns(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        there_and_back(kernel, BOX, Loopback("box"))
        assert os.listdir(tmp_path / "netns") == []


def test_bridge(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        settle_all(kernel, KernelState.of([BRIDGE]))
        (found,) = ip_json("link", "show", "br0")
        assert found["mtu"] == 1400
        assert found["altnames"] == ["dari-net-a"]
        assert found["linkinfo"]["info_kind"] == "bridge"
        assert "UP" in found["flags"]
        there_and_back(kernel, BRIDGE)
        assert "br0" not in link_names()


def test_veth(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        settle_all(kernel, KernelState.of(BASE))
        (near,) = ip_json("link", "show", "vetha")
        assert near["master"] == "br0"
        assert near["linkinfo"]["info_slave_data"]["hairpin"] is True
        (far,) = ip_json("link", "show", "eth0", path=tmp_path / "netns" / "box")
        assert far["address"] == "02:42:0a:00:00:02"
        assert far["mtu"] == 1400
        assert "UP" in far["flags"]
        there_and_back(kernel, *BASE)


@pytest.mark.parametrize("is_ipv6", [False, True])
def test_addresses_and_routes(tmp_path: Path, is_ipv6: bool) -> None:
    inside_, outside, host, to = (
        ("fd00::2/64", "fd00::1", "fd00::1/64", "::/0")
        if is_ipv6
        else ("10.0.0.2/24", "10.0.0.1", "10.0.0.1/24", "0.0.0.0/0")
    )
    far = "fd00:1::/64" if is_ipv6 else "192.0.2.0/24"
    with opened(tmp_path) as kernel:
        there_and_back(
            kernel,
            *BASE,
            Addr("box", "eth0", ip_interface(inside_)),
            Addr(HOST, "br0", ip_interface(host)),
            Route("box", ip_network(to), ip_address(outside), "eth0"),
            Route("box", ip_network(far), None, "eth0", metric=7),
            Route(HOST, ip_network(far), ip_address(inside_.partition("/")[0]), "br0"),
        )


def test_a_route_of_another_origin_is_not_ours(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        wanted = KernelState.of([*BASE, Addr("box", "eth0", ip_interface("10.0.0.2/24"))])
        settle_all(kernel, wanted)
        box = tmp_path / "netns" / "box"
        run_in(box, "ip", "route", "add", "192.0.2.0/24", "dev", "eth0")
        run_in(box, "ip", "addr", "add", "192.0.2.1/32", "dev", "eth0")
        run("ip", "link", "add", "brother", "type", "bridge")
        run("nft", "add table inet other")
        assert kernel.read(Scope.everything()) == wanted


def test_sysctls(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        there_and_back(
            kernel,
            *BASE,
            Sysctl("box", "net/ipv4/ip_unprivileged_port_start", "0"),
            Sysctl("box", "net/ipv6/conf/eth0/disable_ipv6", "1"),
            Sysctl(HOST, "net/ipv4/conf/br0/route_localnet", "1"),
            Sysctl("box", "net/ipv4/ping_group_range", "0 7"),
        )
        assert run("cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start").strip() == "1024"


def test_host_table_and_elements(tmp_path: Path) -> None:
    elements = [
        NftElement(HOST, "inet", "dari", "bridges", '"br0"'),
        NftElement(HOST, "inet", "dari", "pairs", '"br0" . "br0"'),
        NftElement(HOST, "inet", "dari", "subnets4", "10.0.0.0/24"),
        NftElement(HOST, "inet", "dari", "subnets4", "10.0.1.0/24"),
        NftElement(HOST, "inet", "dari", "masquerade4", "10.0.3.7"),
        NftElement(HOST, "inet", "dari", "subnets6", "fd00::/64"),
        NftElement(HOST, "inet", "dari", "publish_any4", "tcp . 8080", "10.0.0.2 . 80"),
        NftElement(HOST, "inet", "dari", "publish4", "udp . 127.0.0.1 . 53", "10.0.0.2 . 53"),
        NftElement(HOST, "inet", "dari", "publish_any6", "sctp . 8080", "fd00::2 . 80"),
    ]
    with opened(tmp_path) as kernel:
        settle_all(kernel, KernelState.of([HOST_TABLE, *elements]))
        assert run("nft", "-s", "-t", "list", "table", "inet", "dari") == HOST_TABLE.text
        listing = run("nft", "-s", "list", "table", "inet", "dari").replace("\n", " ")
        for each in elements:
            text = f"{each.element} : {each.value}" if each.value else each.element
            assert text in listing
        there_and_back(kernel, HOST_TABLE, *elements)


def test_an_element_changes_its_value(tmp_path: Path) -> None:
    def state(target: str) -> KernelState:
        element = NftElement(HOST, "inet", "dari", "publish_any4", "tcp . 8080", target)
        return KernelState.of([HOST_TABLE, element])

    with opened(tmp_path) as kernel:
        settle_all(kernel, state("10.0.0.2 . 80"))
        steps = plan(state("10.0.0.3 . 81"), kernel.read(Scope.everything()))
        assert [op.action for op in steps.ops] == ["set"]
        kernel.apply(steps)
        assert kernel.read(Scope.everything()) == state("10.0.0.3 . 81")


def test_sandbox_table_with_elements(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        table = NftTable("box", "ip", "dari", SANDBOX_TABLE)
        settle_all(kernel, KernelState.of([BOX, table]))
        path = tmp_path / "netns" / "box"
        listing = run_in(path, "nft", "-s", "-t", "list", "ruleset")
        assert listing == SANDBOX_TABLE
        there_and_back(kernel, BOX, table, NftElement("box", "ip", "dari", "ports", "80", "8080"))


def test_an_older_daemons_table_for_names_is_replaced(tmp_path: Path) -> None:
    """It translated (nat), which had the kernel track every connection of the sandbox; it is found and changed."""
    before = NftTable("box", "ip", "dari", SANDBOX_TABLE.replace("tcp dport { 80, 443 } counter", "accept"))
    after = firewall.sandbox_table(SandboxWant("box", "box", dns_port=61053))
    assert after is not None
    with opened(tmp_path) as kernel:
        settle_all(kernel, KernelState.of([BOX, before]))
    with opened(tmp_path) as kernel:
        assert kernel.read(Scope.everything()).objects[before.key] == before
        settle_all(kernel, KernelState.of([BOX, after]))
        assert kernel.read(Scope.everything()) == KernelState.of([BOX, after])
        listing = run_in(tmp_path / "netns" / "box", "nft", "-s", "-t", "list", "ruleset")
        assert listing == after.text
    # Another one reads what nft lists, having made none itself.
    with opened(tmp_path) as kernel:
        assert kernel.read(Scope.everything()) == KernelState.of([BOX, after])
        settle_all(kernel, KernelState())


def test_tables_that_differ_in_a_port_are_told_apart(tmp_path: Path) -> None:
    texts = {f"box{port}": SANDBOX_TABLE.replace("40001", str(port)) for port in (1, 1024, 40000, 65535)}
    wanted = KernelState.of(
        each for name, text in texts.items() for each in (Netns(name), NftTable(name, "ip", "dari", text))
    )
    with opened(tmp_path) as kernel:
        settle_all(kernel, wanted)
        for name, text in texts.items():
            path = tmp_path / "netns" / name
            assert run_in(path, "nft", "-s", "-t", "list", "ruleset") == text
    # Another daemon has made no mould yet and reads the same.
    with opened(tmp_path) as kernel:
        assert kernel.read(Scope.everything()) == wanted
        settle_all(kernel, KernelState())


@pytest.mark.parametrize(
    "after",
    [
        Veth("vetha", "dari-ep-a", "eth0", "box", "br1", "02:42:0a:00:00:09", mtu=1300, is_isolated=True),
        Veth("vetha", "dari-ep-a", "eth0", "box", "br0", "02:42:0a:00:00:02", mtu=1400, is_up=False),
        Veth("vetha", "dari-ep-b", "eth1", "box", "br0", "02:42:0a:00:00:02", mtu=1400),
    ],
)
def test_a_veth_changes(tmp_path: Path, after: Veth) -> None:
    others = (BRIDGE, Bridge("br1", "dari-net-b"), BOX)
    with opened(tmp_path) as kernel:
        settle_all(kernel, KernelState.of([*others, VETH]))
        settle_all(kernel, KernelState.of([*others, after]))
        assert kernel.read(Scope.everything()) == KernelState.of([*others, after])


def test_a_bridge_changes(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        for after in (
            BRIDGE,
            Bridge("br0", "dari-net-a", mtu=1300, is_up=False),
            Bridge("br0", "dari-net-b"),
        ):
            settle_all(kernel, KernelState.of([after]))
            assert kernel.read(Scope.everything()) == KernelState.of([after])
