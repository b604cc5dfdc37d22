"""How many rules there are, what one more published port costs and how long everything takes to come back, by the
number of sandboxes: the kernel room alone, in namespaces of its own.

`sudo PYTHONPATH=src python -m bench.rules [--counts 10 100 1000]` prints one JSON object. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from ipaddress import ip_address
from typing import Any

from bench.kernel import FACTS, network, sandbox
from dari.kernel import rtnetlink, syscalls
from dari.kernel.host import Kernel
from dari.kernel.netlink import Netlink
from dari.net.desired import Desired, PublishWant
from dari.net.plan import plan
from dari.net.publish import publish_elements
from dari.net.render import render
from dari.net.scope import Scope
from dari.net.state import KernelState
from dari.reconcile.settle import is_host_rule


def settle(kernel: Kernel, wanted: KernelState, scope: Scope) -> float:
    """Milliseconds of one look, plan and work."""
    start = time.perf_counter()
    kernel.apply(plan(wanted.within(scope), kernel.read(scope)))
    return (time.perf_counter() - start) * 1000


def rules() -> tuple[int, int]:
    """Rules and elements of the host's table."""
    said = subprocess.run(
        ["nft", "-j", "list", "table", "inet", "dari"], capture_output=True, text=True, check=True
    ).stdout
    listed: list[dict[str, Any]] = json.loads(said)["nftables"]
    elements = sum(len(each.get(kind, {}).get("elem", ())) for each in listed for kind in ("set", "map"))
    return sum("rule" in each for each in listed), elements


def bench(kernel: Kernel, count: int) -> dict[str, float]:
    pairs = [sandbox(number) for number in range(count)]
    desired = Desired((network(0),), tuple(end for _, end in pairs), tuple(box for box, _ in pairs))
    wanted = render(desired, FACTS)
    everything = Scope.everything(wanted)
    settle(kernel, wanted, everything)
    found = dict(zip(("rules", "elements"), rules(), strict=True))
    costs: dict[str, list[float]] = {"port": [], "range": []}
    for number in range(20):
        for name, size in (("port", 1), ("range", 10_000)):
            first = 30000 + (number if size == 1 else 0)
            want = PublishWant("tcp", ip_address("0.0.0.0"), first, ip_address("10.0.0.9"), first + 1, size)
            state = KernelState.of(publish_elements(want))
            scope = Scope.of(state)
            costs[name].append(settle(kernel, state, scope))
            settle(kernel, KernelState(), scope)
    host = Scope(frozenset(key for key in wanted.objects if is_host_rule(key)))
    flushes, wholes = [], []
    for _ in range(3):
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        flushes.append(settle(kernel, wanted, host))
        wholes.append(settle(kernel, wanted, everything))
    settle(kernel, KernelState(), everything)
    kernel.wait_buried(60)
    return {
        **found,
        "one port more, ms": round(statistics.median(costs["port"]), 3),
        "10,000 ports more, ms": round(statistics.median(costs["range"]), 3),
        "the host's rules after a flush, ms": round(statistics.median(flushes), 1),
        "then a look at everything, ms": round(statistics.median(wholes), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="*", default=[10, 100, 1000])
    counts = parser.parse_args().counts
    syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", syscalls.MS_REC | syscalls.MS_PRIVATE)
    with Netlink() as sock:
        sock.call(rtnetlink.set_link("lo", is_up=True))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        kernel = Kernel(f"{folder}/netns")
        try:
            for count in counts:
                found[count] = bench(kernel, count)
        finally:
            kernel.close()
    json.dump(found, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
