"""Discovery: IPv6 asks for its neighbours in packets of its own, which rules may drop like any others.

IPv4's ARP meets no nftables rules of the inet families, so there is nothing to check for it.
Must not know: routes, who was found. Source: RFC 4861; Linux, net/netfilter/nf_conntrack_proto_icmpv6.c (these
packets are not tracked).
"""

from __future__ import annotations

from ipaddress import IPv6Address

from dari.net.nftvalues import Flight
from dari.net.packet import Verdict
from dari.net.state import HOST, Address, Veth, Vxlan
from dari.net.verdict import Outcome
from dari.net.walk.space import Space, called
from dari.net.walk.trail import Trail
from dari.net.walk.world import World

_SOLICITED = int(IPv6Address("ff02::1:ff00:0"))


class Discovery:
    """Between two ends on a bridge."""

    def __init__(self, world: World, trail: Trail) -> None:
        self._world = world
        self._trail = trail

    def check(
        self,
        bridge: str,
        space: Space,
        link: str,
        port: Veth | Vxlan | None,
        towards: Address,
        asker: Address,
        *,
        is_filtered: bool,
    ) -> None:
        """`space` asks over `link` for `towards`, which is behind `port` (None: the host). Stops where a rule drops the
        question or its answer."""
        if towards.version == 4 or isinstance(port, Vxlan):
            return
        other = self._world.space(port.peer_netns) if port is not None else self._world.spaces[HOST]
        if other is None:
            return
        there = port.peer if port is not None else bridge
        group = IPv6Address(_SOLICITED | int(towards) & 0xFFFFFF)
        question = Flight(asker, group, "icmp", 0, 0, ct_state="untracked", icmp_type="nd-neighbor-solicit")
        answer = Flight(towards, asker, "icmp", 0, 0, ct_state="untracked", icmp_type="nd-neighbor-advert")
        is_bridged = is_filtered and port is not None and space.name != HOST
        for flight, (sender, by), (receiver, at) in (
            (question, (space, link), (other, there)),
            (answer, (other, there), (space, link)),
        ):
            self._pass(sender, ("output", "postrouting"), flight, "", by, towards)
            if is_bridged:
                host = self._world.spaces[HOST]
                self._pass(host, ("prerouting",), flight, bridge, "", towards)
                self._pass(host, ("forward",), flight, bridge, bridge, towards)
            self._pass(receiver, ("prerouting", "input"), flight, at, "", towards)

    def _pass(
        self, space: Space, hooks: tuple[str, ...], flight: Flight, came: str, goes: str, towards: Address
    ) -> None:
        if not space.rules.has_rules:
            return
        for hook in hooks:
            packet = Flight(
                flight.source,
                flight.destination,
                flight.protocol,
                0,
                0,
                came,
                goes,
                ct_state=flight.ct_state,
                icmp_type=flight.icmp_type,
            )
            outcome = space.rules.run(hook, packet, space, is_nat_done=True)
            if outcome.kind != "accept":
                self._stop(space, hook, outcome, flight.icmp_type, towards)

    def _stop(self, space: Space, hook: str, outcome: Outcome, kind: str, towards: Address) -> None:
        does = "is not understood" if outcome.kind == "unknown" else "drops"
        table = f"table {outcome.table[2]} {outcome.table[3]}" if outcome.table is not None else "a table"
        text = (
            f"{called(space.name)}, {hook}: `{outcome.rule}` of chain {outcome.chain} in {table} {does}"
            f" IPv6 neighbour discovery for {towards} ({kind}): nothing can be sent there"
        )
        verdict: Verdict = "unknown" if outcome.kind == "unknown" else "unreachable"
        self._trail.stop(verdict, "policy", space.name, text, outcome.table, outcome.uses)
