"""Wire: macvlan and ipvlan, which share one of the host's interfaces as if they were on the same cable.

Siblings of a mode that allows it meet inside the kernel; everything else goes out on the cable. The host's own
address on that interface is not reached from them, nor they from it: their frames never pass its stack.
Must not know: IP rules, routes. Source: drivers/net/macvlan.c, drivers/net/ipvlan/ipvlan_core.c; ip-link(8).
"""

from __future__ import annotations

from collections.abc import Iterator

from dari.net.nftvalues import Flight
from dari.net.state import HOST, Address, Ipvlan, Macvlan
from dari.net.walk.space import Nic, Space, called
from dari.net.walk.trail import Trail
from dari.net.walk.world import World


class Wire:
    """The host's interfaces with what is on them."""

    def __init__(self, world: World, trail: Trail) -> None:
        self._world = world
        self._trail = trail

    def neighbour(self, parent: str, flight: Flight) -> Macvlan | Ipvlan | None:
        """Who of those on `parent` takes a packet that comes in from outside; None: it is the host's."""
        if self._world.spaces[HOST].is_local(flight.destination):
            return None
        return next(self._answering(self._world.subs[parent], flight.destination, flight.source), None)

    def check_host(self, parent: str, towards: Address, source: Address) -> None:
        """The host's own frames on that interface pass by those that are on it."""
        for each in self._answering(self._world.subs[parent], towards, source):
            text = (
                f"{called(each.netns)} has {towards} on {parent}, but the host and {each.name} there do not hear"
                " each other"
            )
            self._trail.stop("unreachable", "neighbour", HOST, text, each.key)

    def find(
        self, space: Space, sub: Macvlan | Ipvlan, towards: Address, flight: Flight
    ) -> Macvlan | Ipvlan | None:
        """Who answers for `towards`; None: it goes out on the cable. Stops where nobody can."""
        host = self._world.spaces[HOST]
        parent = host.nics.get(sub.parent)
        where = called(space.name)
        if parent is None and not self._world.is_looked_at:
            # Nobody looked at the host's own interfaces: it is taken to be there.
            parent = Nic(sub.parent, "foreign", ("link", HOST, sub.parent))
        if parent is None or not parent.is_up:
            state = "does not exist" if parent is None else "is down"
            key = ("link", HOST, sub.parent)
            text = f"{sub.parent}, the host's interface under {sub.name} of {where}, {state}"
            self._trail.stop("unreachable", "neighbour", HOST, text, key, (sub.key,), is_beyond=True)
        if not parent.has_carrier:
            # Those on it have none either, so they do not even hear each other (netif_stacked_transfer_operstate).
            text = f"{sub.parent}, the host's interface under {sub.name} of {where}, has no carrier"
            key = ("link", HOST, sub.parent)
            self._trail.stop("unreachable", "neighbour", HOST, text, key, (sub.key,), is_beyond=True)
        # An ipvlan of layer 3 asks nobody: it looks for the destination itself.
        is_routed = isinstance(sub, Ipvlan) and sub.mode != "l2"
        address = flight.destination if is_routed else towards
        others = [each for each in self._world.subs[sub.parent] if each is not sub]
        sibling = next(self._answering(others, address, flight.source), None)
        if sibling is not None:
            return self._meet(space, sub, sibling, address)
        owner = host.owner(address)
        if owner is not None and owner.link == sub.parent:
            text = f"{address} is the host's own address on {sub.parent}: it and {sub.name} do not hear each other"
            self._trail.stop("unreachable", "neighbour", HOST, text, sub.key, (owner.key,))
        if parent.kind == "dummy":
            text = f"nobody on {sub.parent} has the address {address}"
            self._trail.stop("unreachable", "neighbour", HOST, text, parent.key, (sub.key,))
        if is_routed:
            # The host routes it, over the parent alone (ipvlan_process_v4_outbound).
            way = host.way(address)
            via = way.via if way is not None and way.link == sub.parent and way.via is not None else address
            text = (
                f"the host sends it on from {sub.parent} towards {via}, as ipvlan's mode {sub.mode} has it; what the"
                " host's rules say to that is not walked"
            )
            self._trail.stop("unknown", "route", HOST, text, sub.key, (parent.key,), towards=via)
        text = f"it leaves over {sub.parent} straight onto the wire, source {flight.source}"
        self._trail.add("deliver", space.name, text, sub.key, (parent.key,), towards=address)
        return None

    def _meet(
        self, space: Space, sub: Macvlan | Ipvlan, sibling: Macvlan | Ipvlan, address: Address
    ) -> Macvlan | Ipvlan:
        who = called(sibling.netns)
        modes = {_way(sub), _way(sibling)}
        if "private" in modes:
            text = f"{who} has {address}, but interfaces of mode private on {sub.parent} never meet"
            self._trail.stop("unreachable", "policy", HOST, text, sibling.key, (sub.key,))
        if "vepa" in modes:
            text = f"{who} has {address}; in mode vepa only the switch behind {sub.parent} can bring it back"
            self._trail.stop("unknown", "neighbour", HOST, text, sibling.key, (sub.key,))
        text = f"{who} answers for {address} on {sub.parent}"
        self._trail.add("neighbour", space.name, text, sibling.key, (sub.key,))
        return sibling

    def _answering(
        self, subs: list[Macvlan | Ipvlan], address: Address, asker: Address
    ) -> Iterator[Macvlan | Ipvlan]:
        for each in subs:
            space = self._world.space(each.netns)
            if space is not None and space.answers(each.name, address, asker):
                yield each


def _way(sub: Macvlan | Ipvlan) -> str:
    """bridge, private, vepa, passthru: how it meets its siblings."""
    return sub.mode if isinstance(sub, Macvlan) else sub.flag
