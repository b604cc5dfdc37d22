"""What the kernel room costs: milliseconds per read and apply of endpoints, elements and bridges.

`sudo python bench/kernel.py [--sandboxes N]` works in namespaces of its own and prints one JSON object (medians and
worst). Nothing is asserted: compare runs of one hour.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from dari.kernel import rtnetlink, syscalls
from dari.kernel.host import Kernel
from dari.kernel.netlink import Netlink
from dari.net.desired import Desired, EndpointWant, NetworkWant, PublishWant, SandboxWant, SubnetWant
from dari.net.facts import HostFacts
from dari.net.firewall import HOST_TABLE
from dari.net.plan import plan
from dari.net.render import render
from dari.net.scope import Scope
from dari.net.state import HOST, KernelState, Loopback, Netns, NftElement, NftTable, Sysctl

T = TypeVar("T")
FACTS = HostFacts()


class Clock:
    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = defaultdict(list)

    def __call__(self, name: str, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = work()
        self.taken[name].append((time.perf_counter() - start) * 1000)
        return result

    def report(self) -> dict[str, dict[str, float]]:
        return {
            name: {"n": len(each), "median": round(statistics.median(each), 3), "worst": round(max(each), 3)}
            for name, each in self.taken.items()
        }


def network(number: int) -> NetworkWant:
    gateway = ip_interface(f"10.{number}.0.1/16")
    subnet = SubnetWant(ip_network(f"10.{number}.0.0/16"), gateway)
    return NetworkWant(
        f"net{number}", f"net{number}", "bridge", f"br{number}", f"dari-net-{number}", (subnet,)
    )


def sandbox(number: int) -> tuple[SandboxWant, EndpointWant]:
    address = ip_interface(f"10.0.{1 + number // 250}.{2 + number % 250}/16")
    published = PublishWant("tcp", ip_address("0.0.0.0"), 10000 + number, address.ip, 80)
    box = SandboxWant(f"box{number}", f"box{number}", dns_port=20000 + number, publishes=(published,))
    end = EndpointWant(
        id=f"end{number}",
        network_id="net0",
        sandbox_id=box.id,
        host_interface=f"veth{number}",
        interface="eth0",
        mac="02:42:" + address.ip.packed.hex(":"),
        addresses=(address,),
        gateways=(ip_address("10.0.0.1"),),
        is_default_gateway=True,
        altname=f"dari-ep-{number}",
    )
    return box, end


def settle(clock: Clock, kernel: Kernel, name: str, wanted: KernelState, scope: Scope) -> None:
    """What a container's start pays: one scoped read, the plan, one apply."""
    found = clock(f"{name}: read", lambda: kernel.read(scope))
    steps = plan(wanted, found)
    clock(f"{name}: apply", lambda: kernel.apply(steps))
    left = plan(wanted, kernel.read(scope))
    assert left.is_empty, left


def bench(kernel: Kernel, count: int) -> dict[str, dict[str, float]]:
    clock, nothing = Clock(), KernelState()
    nets = [network(number) for number in range(11)]
    base = render(Desired((nets[0],)), FACTS)
    settle(clock, kernel, "first network", base, Scope.of(base))
    host_wide = frozenset((HOST_TABLE.key, ("sysctl", HOST, "net/ipv4/ip_forward")))
    for each in nets[1:]:
        part = render(Desired((each,)), FACTS)
        scope = Scope(frozenset(part.objects) - host_wide)
        settle(clock, kernel, "network create", part.within(scope), scope)
        settle(clock, kernel, "network remove", nothing, scope)
    kernel.wait_buried()
    parts: list[KernelState] = []
    for number in range(count):
        box, end = sandbox(number)
        part = render(Desired((nets[0],), (end,), (box,)), FACTS, frozenset((box.id,)))
        settle(clock, kernel, "endpoint create", part, Scope.of(part))
        parts.append(part)
    elements = [
        NftElement(HOST, "inet", "dari", "publish_any4", f"udp . {9000 + number}", "10.0.0.9 . 80")
        for number in range(50)
    ]
    states = [KernelState.of([each]) for each in elements]
    for state in states:
        settle(clock, kernel, "element add", state, Scope.of(state))
    for state in states:
        settle(clock, kernel, "element delete", nothing, Scope.of(state))
    whole = KernelState.of([*base, *(each for part in parts for each in part)])
    everything = Scope.everything(whole)
    for _ in range(3):
        found = clock("everything: read", partial(kernel.read, everything))
        assert clock("everything: plan", partial(plan, whole, found)).is_empty
    clock("facts", kernel.facts)
    for part in parts[: count // 2]:
        kept = KernelState.of(each for each in part if isinstance(each, Netns | Loopback | NftTable))
        settle(clock, kernel, "disconnect", kept, Scope.of(part))
        settle(clock, kernel, "connect", part, Scope.of(part))
    for part in parts:
        settle(clock, kernel, "endpoint remove", nothing, Scope.of(part))
    scope = Scope(frozenset(key for key, each in base.objects.items() if not isinstance(each, Sysctl)))
    settle(clock, kernel, "last network remove", nothing, scope)
    clock("links deleted behind", kernel.wait_buried)
    return clock.report()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sandboxes", type=int, default=30)
    arguments = parser.parse_args()
    syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", syscalls.MS_REC | syscalls.MS_PRIVATE)
    with Netlink() as sock:
        sock.call(rtnetlink.set_link("lo", is_up=True))
    with tempfile.TemporaryDirectory() as folder:
        kernel = Kernel(f"{folder}/netns")
        try:
            figures = bench(kernel, arguments.sandboxes)
        finally:
            kernel.close()
    json.dump({"sandboxes": arguments.sandboxes, "unit": "ms", "figures": figures}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
