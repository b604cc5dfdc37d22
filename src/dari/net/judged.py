"""What judges of a survey share: the findings they make, and what dari knows of the wire.

Must not know: what is wrong. Next: wire.py, routes.py, surroundings.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from dari.model.finding import Finding
from dari.net.firewall import proxy_switch
from dari.net.state import HOST, Addr, Address, Bridge, KernelState, Prefix, Veth
from dari.net.survey import Repair

FIX = "dari doctor --fix"


@dataclass(frozen=True, slots=True)
class Judged:
    """A finding, and what would mend it (None: not ours, or the plan mends it)."""

    finding: Finding
    repair: Repair | None = None


@dataclass(frozen=True, slots=True)
class Truth:
    """What dari knows of the wire: by (bridge, address) the hardware address and whose it is. On `proxied` bridges the
    host answers containers for each other."""

    macs: dict[tuple[str, Address], str]
    gateways: dict[tuple[str, Address], str]
    ports: dict[str, Veth]
    bridges: dict[str, Bridge]
    segments: dict[tuple[str, str], str]
    subnets: dict[str, list[Prefix]]
    proxied: frozenset[str] = frozenset()

    @staticmethod
    def of(wanted: KernelState) -> Truth:
        bridges = {each.name: each for each in wanted if isinstance(each, Bridge)}
        ports = {each.name: each for each in wanted if isinstance(each, Veth)}
        segments = {(each.peer_netns, each.peer): each.master for each in ports.values()}
        macs_of = {(each.peer_netns, each.peer): each.mac for each in ports.values()}
        macs: dict[tuple[str, Address], str] = {}
        gateways: dict[tuple[str, Address], str] = {}
        subnets: dict[str, list[Prefix]] = {}
        for each in wanted:
            if not isinstance(each, Addr):
                continue
            if each.netns == HOST and each.link in bridges:
                gateways[each.link, each.address.ip] = each.link
                subnets.setdefault(each.link, []).append(each.address.network)
            elif (place := (each.netns, each.link)) in segments:
                macs[segments[place], each.address.ip] = macs_of[place]
                subnets.setdefault(segments[place], []).append(each.address.network)
        segments |= {(HOST, name): name for name in bridges}
        proxied = frozenset(
            each for each in bridges if ("sysctl", HOST, proxy_switch(each)) in wanted.objects
        )
        return Truth(macs, gateways, ports, bridges, segments, subnets, proxied)

    def probes(self) -> dict[str, dict[IPv4Address, bool]]:
        """By bridge, the addresses to ask for on the wire, and whether somebody should answer (the host does not
        answer itself)."""
        found: dict[str, dict[IPv4Address, bool]] = {}
        for is_other, keys in ((False, self.gateways), (True, self.macs)):
            for bridge, address in keys:
                if isinstance(address, IPv4Address):
                    found.setdefault(bridge, {})[address] = is_other
        return found

    def held(self) -> set[Address]:
        return {address for _, address in (*self.macs, *self.gateways)}
