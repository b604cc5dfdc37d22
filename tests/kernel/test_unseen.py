"""What cannot be looked into is found: XDP, traffic control, BPF on tcx, iptables-legacy. With real ones of each."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.kernel.world import endpoint, network, opened, rendered, run, run_in, sandbox, settle_all

from dari.kernel import unseen
from dari.kernel.host import Kernel
from dari.net.desired import Desired
from dari.net.explain import Probe, explain
from dari.net.state import HOST

pytestmark = pytest.mark.kernel_ns

_PROG_LOAD, _LINK_CREATE = 5, 28
_SCHED_CLS, _XDP = 3, 6
# r0 = verdict; exit
_PROGRAM = "=BBhiBBhi"


def bpf(command: int, attribute: bytes) -> int:
    buffer = ctypes.create_string_buffer(attribute, 128)
    found = ctypes.CDLL(None, use_errno=True).syscall(unseen._BPF, command, buffer, 128)
    if found < 0:
        number = ctypes.get_errno()
        pytest.skip(f"this kernel does not take a BPF program here: {os.strerror(number)}")
    return int(found)


@contextmanager
def attached(link: str, kind: int, place: int, verdict: int) -> Iterator[None]:
    """A program that gives every packet that verdict, at BPF_TCX_INGRESS (46) or BPF_XDP (37) of an interface."""
    code = ctypes.create_string_buffer(struct.pack(_PROGRAM, 0xB7, 0, 0, verdict, 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    program = bpf(
        _PROG_LOAD, struct.pack("=IIQQ", kind, 2, ctypes.addressof(code), ctypes.addressof(licence))
    )
    try:
        held = bpf(_LINK_CREATE, struct.pack("=IIII", program, socket.if_nametoindex(link), place, 0))
    finally:
        os.close(program)
    try:
        yield
    finally:
        os.close(held)


def town(kernel: Kernel) -> Callable[[], list[str]]:
    """Two sandboxes on a bridge; the remarks on what is not looked into, of the way from the first to the second."""
    desired = Desired(
        networks=(network(1),),
        sandboxes=(sandbox(1), sandbox(2)),
        endpoints=(endpoint(1, 1), endpoint(1, 2)),
    )
    wanted = rendered(kernel, desired)
    settle_all(kernel, wanted)

    def remarks() -> list[str]:
        trace = explain(
            wanted, Probe("box1", ip_address("10.1.0.12"), "tcp", 80), kernel.facts(()), None, kernel.look()
        )
        assert trace.verdict == "delivered"
        return [each.text for each in trace.hops if each.is_unseen]

    return remarks


def test_nothing_is_said_of_what_everybody_has(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        assert town(kernel)() == []


def test_traffic_control_is_told_by_its_interface(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        remarks = town(kernel)
        run("tc", "qdisc", "add", "dev", "veth1-1", "clsact")
        # Without filters it does nothing.
        assert remarks() == []
        for way in ("ingress", "egress"):
            command = f"tc filter add dev veth1-1 {way} protocol ip u32 match u32 0 0 flowid 1:1"
            done = subprocess.run(command.split(), capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"this kernel has no u32 filters: {done.stderr}")
        run("tc", "qdisc", "add", "dev", "veth1-2", "root", "pfifo", "limit", "5")
        assert remarks() == [
            "cannot look into: tc filters (ingress) on veth1-1",
            "cannot look into: tc filters (egress) on veth1-1",
            "cannot look into: traffic control (pfifo) on veth1-2",
        ]
        # In a sandbox too.
        run_in(tmp_path / "netns/box2", "tc", "qdisc", "add", "dev", "eth0", "root", "pfifo", "limit", "5")
        assert remarks()[-1] == "cannot look into: traffic control (pfifo) on eth0"


@pytest.mark.parametrize(
    ("kind", "place", "verdict", "said"),
    [(_SCHED_CLS, 46, 0, "BPF programs (1, tcx ingress)"), (_XDP, 37, 2, "XDP program")],
)
def test_bpf_programs(tmp_path: Path, kind: int, place: int, verdict: int, said: str) -> None:
    with opened(tmp_path) as kernel:
        remarks = town(kernel)
        with attached("veth1-2", kind, place, verdict):
            (text,) = remarks()
            assert text.startswith(f"cannot look into: {said}") and text.endswith("on veth1-2")
        assert remarks() == []


def test_legacy_tables_are_told_where_they_say_anything(tmp_path: Path) -> None:
    if shutil.which("iptables-legacy") is None:
        pytest.skip("needs iptables-legacy")
    if subprocess.run(["iptables-legacy", "-S"], capture_output=True).returncode:
        pytest.skip("this kernel has no tables for iptables-legacy")

    def told(kernel: Kernel) -> list[str]:
        return [each.what for each in kernel.look().unseen if each.netns == HOST and not each.link]

    with opened(tmp_path) as kernel:
        town(kernel)
        # Looking made the table; it lets everything pass.
        assert told(kernel) == []
        run("iptables-legacy", "-A", "FORWARD", "-p", "tcp", "--dport", "81", "-j", "DROP")
        run("iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "-s", "10.9.0.0/16", "-j", "MASQUERADE")
        run("ip6tables-legacy", "-P", "FORWARD", "DROP")
        assert sorted(told(kernel)) == [
            "ip6tables-legacy table filter (a policy that drops)",
            "iptables-legacy table filter (1 rule)",
            "iptables-legacy table nat (1 rule)",
        ]
        run("iptables-legacy", "-F")
        run("iptables-legacy", "-t", "nat", "-F")
        run("ip6tables-legacy", "-P", "FORWARD", "ACCEPT")
        assert told(kernel) == []
