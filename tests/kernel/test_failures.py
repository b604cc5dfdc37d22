"""What the kernel refuses is named, the rest is done, and nothing half-made or half-deleted stays."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from ipaddress import ip_interface
from pathlib import Path

import pytest
from tests.kernel.world import ip_json, link_names, opened, run, run_in, settle_all

from dari.kernel.errors import KernelError
from dari.net.firewall import HOST_TABLE
from dari.net.plan import Op, Plan, plan
from dari.net.scope import Scope
from dari.net.state import HOST, Addr, Bridge, KernelState, Netns, NftElement, NftTable, Route, Sysctl, Veth

pytestmark = pytest.mark.kernel_ns

BRIDGE = Bridge("br0", "dari-net-a")
BOX = Netns("box")
VETH = Veth("vetha", "dari-ep-a", "eth0", "box", "br0", "02:42:0a:00:00:02")
ADDRESS = Addr("box", "eth0", ip_interface("10.0.0.2/24"))


def adding(*objects: Bridge | Netns | Veth | Addr | Route | Sysctl | NftElement | NftTable) -> Plan:
    return Plan(tuple(Op("add", each, "endpoint of db on web") for each in objects))


def test_a_foreign_link_of_that_name_is_left_alone(tmp_path: Path) -> None:
    run("ip", "link", "add", "br0", "type", "bridge")
    with opened(tmp_path) as kernel:
        assert kernel.read(Scope.of([BRIDGE])) == KernelState()
        with pytest.raises(KernelError) as caught:
            kernel.apply(adding(BRIDGE))
        assert caught.value.errno == errno.EEXIST
        assert str(caught.value) == (
            "add bridge br0 mtu 1500 altname dari-net-a: EEXIST: File exists (endpoint of db on web)"
        )
    assert "altnames" not in ip_json("link", "show", "br0")[0]


def test_a_link_that_cannot_be_marked_is_taken_back(tmp_path: Path) -> None:
    run("ip", "link", "add", "other", "type", "bridge")
    run("ip", "link", "property", "add", "dev", "other", "altname", "dari-net-a")
    with opened(tmp_path) as kernel:
        with pytest.raises(KernelError, match="EEXIST"):
            kernel.apply(adding(BRIDGE))
        assert "br0" not in link_names()
        assert kernel.wait_buried()
    assert link_names() == {"lo", "other"}


def test_one_failure_does_not_stop_the_others(tmp_path: Path) -> None:
    good, bad = Sysctl("box", "net/ipv4/ip_unprivileged_port_start", "7"), Sysctl("box", "net/no/such", "1")
    with opened(tmp_path) as kernel:
        with pytest.raises(KernelError, match=r"^add sysctl net/no/such=1 in box: ENOENT"):
            kernel.apply(adding(BRIDGE, BOX, VETH, bad, good, ADDRESS))
        wanted = KernelState.of([BRIDGE, BOX, VETH, good, ADDRESS])
        assert kernel.read(Scope.of(wanted)) == wanted
        settle_all(kernel, KernelState())


def test_every_further_failure_is_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        with pytest.raises(KernelError) as caught:
            kernel.apply(adding(VETH, ADDRESS, Sysctl(HOST, "../../etc/x", "1")))
        failures = [caught.value, *caught.value.others]
        assert [each.op.object for each in failures if each.op] == [
            VETH,
            Sysctl(HOST, "../../etc/x", "1"),
            ADDRESS,
        ] or {type(each.op.object) for each in failures if each.op} == {Veth, Sysctl, Addr}
        assert link_names() == {"lo"}


def test_deleting_what_is_missing_is_done(tmp_path: Path) -> None:
    element = NftElement(HOST, "inet", "dari", "bridges", '"br0"')
    other = NftElement(HOST, "inet", "dari", "bridges", '"br1"')
    objects = (element, HOST_TABLE, ADDRESS, VETH, BRIDGE, BOX)
    with opened(tmp_path) as kernel:
        kernel.apply(Plan(tuple(Op("delete", each, "gone") for each in objects)))
        settle_all(kernel, KernelState.of([HOST_TABLE, other]))
        # The missing one does not keep the other.
        kernel.apply(Plan((Op("delete", element, "gone"), Op("delete", other, "gone"))))
        assert kernel.read(Scope.everything()) == KernelState.of([HOST_TABLE])


def test_a_bad_element_and_a_bad_table_are_named(tmp_path: Path) -> None:
    bad = NftElement(HOST, "inet", "dari", "publish_any4", "tcp . eighty", "10.0.0.2 . 80")
    none = NftElement(HOST, "inet", "dari", "nosuch", "tcp", "")
    good = NftElement(HOST, "inet", "dari", "publish_any4", "tcp . 80", "10.0.0.2 . 80")
    with opened(tmp_path) as kernel:
        kernel.apply(adding(BOX))
        with pytest.raises(KernelError) as caught:
            kernel.apply(
                adding(
                    HOST_TABLE, NftTable("box", "ip", "dari", "table ip dari { nonsense }"), bad, none, good
                )
            )
        failures = [caught.value, *caught.value.others]
        assert {each.op.object.key[0] for each in failures if each.op} == {"nft-table", "nft-element"}
        assert len(failures) == 3
        assert good.key in kernel.read(Scope.everything()).objects
        settle_all(kernel, KernelState())


def test_names_are_free_at_once(tmp_path: Path) -> None:
    wanted = KernelState.of([BRIDGE, BOX, VETH, ADDRESS, Addr(HOST, "br0", ip_interface("10.0.0.1/24"))])
    with opened(tmp_path) as kernel:
        for _ in range(4):
            settle_all(kernel, wanted)
            assert kernel.read(Scope.of(wanted)) == wanted
            settle_all(kernel, KernelState.of([BRIDGE, BOX]))
            assert "eth0" not in run_in(tmp_path / "netns" / "box", "ip", "-br", "link")
            settle_all(kernel, wanted)
            settle_all(kernel, KernelState())
            # Nothing of what waits to be deleted still has the addresses.
            assert "10.0.0." not in run("ip", "route")
        assert kernel.wait_buried()
    assert link_names() == {"lo"}


def test_a_sandbox_held_open_by_a_process_loses_its_network(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        settle_all(kernel, KernelState.of([BRIDGE, BOX, VETH]))
        holder = os.open(tmp_path / "netns" / "box", os.O_RDONLY)
        try:
            settle_all(kernel, KernelState())
            assert kernel.wait_buried()
            assert link_names() == {"lo"}
            assert "eth0" not in run_in(f"/proc/{os.getpid()}/fd/{holder}", "ip", "-br", "link")
        finally:
            os.close(holder)


def test_a_namespace_taken_away_by_others_is_made_again(tmp_path: Path) -> None:
    wanted = KernelState.of([BRIDGE, BOX, VETH, ADDRESS])
    with opened(tmp_path) as kernel:
        settle_all(kernel, wanted)
        run("umount", str(tmp_path / "netns" / "box"))
        settle_all(kernel, wanted)
        assert kernel.read(Scope.of(wanted)) == wanted
        settle_all(kernel, KernelState())


KILLED = """
import os, signal, sys
from ipaddress import ip_interface
from dari.kernel.host import Kernel
from dari.net.plan import Op, Plan, plan
from dari.net.scope import Scope
from dari.net.state import *
kernel = Kernel(sys.argv[1])
made = KernelState.of([Bridge("br0", "dari-net-a"), Bridge("br1", "dari-net-b"), Netns("box")])
kernel.apply(plan(made, kernel.read(Scope.everything())))
kernel.apply(Plan((Op("delete", Bridge("br0", "dari-net-a"), "test"),)))
open(sys.argv[1] + "/half-made", "x").close()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_daemon_leaves_is_found_and_finished(tmp_path: Path) -> None:
    # In another mount namespace the binding would be lost with the process, so this one's is used.
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "netns")],
        env={**os.environ, "PYTHONPATH": "src"},
        check=False,
    )
    assert done.returncode == -9
    marks = [mark for each in ip_json("link", "show") for mark in each.get("altnames", ())]
    assert sorted(mark[:10] for mark in marks) == ["dari-gone-", "dari-net-b"]
    with opened(tmp_path) as kernel:
        assert kernel.wait_buried()
        assert link_names() == {"lo", "br1"}
        assert kernel.read(Scope.everything()) == KernelState.of([Bridge("br1", "dari-net-b"), Netns("box")])
        assert os.listdir(tmp_path / "netns") == ["box"]
        assert not plan(KernelState(), kernel.read(Scope.everything())).is_empty
        settle_all(kernel, KernelState())
