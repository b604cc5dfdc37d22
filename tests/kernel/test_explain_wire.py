"""explain against real packets where interfaces share one of the host's: macvlan in its modes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from itertools import permutations
from pathlib import Path

import pytest
from tests.kernel.topologies import FAR4, PORT, WAN4, Crossfire, attach_outside
from tests.kernel.world import endpoint, network, opened, rendered, run, sandbox, settle_all

from dari.net.desired import Desired, SubnetWant
from dari.net.explain import walk
from dari.net.packet import OUTSIDE, Probe
from dari.net.scope import Scope
from dari.net.state import HOST, KernelState
from dari.net.walk.world import World

pytestmark = pytest.mark.kernel_ns


@pytest.mark.parametrize("mode", ["bridge", "private"])
def test_macvlan(tmp_path: Path, mode: str) -> None:
    outside = attach_outside(tmp_path)
    subnet = SubnetWant(ip_network("192.0.2.0/24"), None)
    lan = replace(
        network(5), driver="macvlan", subnets=(subnet,), options={"parent": "wan", "macvlan_mode": mode}
    )
    ends = tuple(
        replace(endpoint(5, box), addresses=(ip_interface(f"192.0.2.{box + 10}/24"),), gateways=(FAR4,))
        for box in (0, 1)
    )
    try:
        with opened(tmp_path) as kernel:
            wanted = rendered(kernel, Desired((lan,), ends, (sandbox(0), sandbox(1))))
            paths: dict[str, Path | None] = {HOST: None, OUTSIDE: outside}
            paths |= {name: tmp_path / "netns" / name for name in ("box0", "box1")}
            fire = Crossfire(paths)
            try:
                settle_all(kernel, wanted)
                fire.listen(paths)
                at = {
                    HOST: WAN4,
                    OUTSIDE: FAR4,
                    "box0": ends[0].addresses[0].ip,
                    "box1": ends[1].addresses[0].ip,
                }
                probes = [
                    Probe(
                        source, ip_address(at[target]), "tcp", PORT,
                        FAR4 if source == OUTSIDE else None, "wan" if source == OUTSIDE else "",
                    )
                    for source, target in permutations(at, 2)
                ]  # fmt: skip
                found = kernel.read(Scope.everything(wanted))
                world = World(found, kernel.facts(), kernel.look())
                heard = kernel.listeners([HOST, "box0", "box1"])
                traces = [walk(world, each, heard) for each in probes]
                answered = fire.fire(probes, [each.verdict == "delivered" for each in traces])
                told = {
                    (each.source_netns, str(each.destination)): trace.verdict == "delivered"
                    for each, trace in zip(probes, traces, strict=True)
                }
                assert [each.verdict == "delivered" for each in traces] == answered, told
                assert told["box0", "192.0.2.11"] is (mode == "bridge")
                assert told["box0", str(WAN4)] is told[HOST, "192.0.2.10"] is False
                assert told["box0", str(FAR4)] is True
            finally:
                fire.close()
                settle_all(kernel, KernelState())
                assert kernel.wait_buried(60)
    finally:
        run("ip", "link", "delete", "wan")
        run("umount", str(outside))
