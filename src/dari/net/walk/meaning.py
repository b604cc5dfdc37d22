"""What a drop in dari's own table means, for people; the rule itself is told anyway.

It goes by the interfaces and the elements that took part, not by the rules' order or text.
Must not know: whose networks they are.
"""

from __future__ import annotations

from dari.net import firewall, publish
from dari.net.state import HOST
from dari.net.verdict import Outcome
from dari.net.walk.world import World


def meaning(world: World, hook: str, outcome: Outcome) -> str:
    """`: br0 and br1 are different networks, …`; empty where there is nothing to add."""
    if outcome.table != firewall.HOST_TABLE.key:
        return ""
    flight = outcome.flight
    came, goes = flight.in_link, flight.out_link
    if hook == "prerouting":
        return ": the host's loopback addresses are closed to everybody else"
    if hook != "forward":
        return ""
    for link in (came, goes):
        if ("nft-element", HOST, publish.FAMILY, publish.TABLE, "internal", f'"{link}"') in outcome.uses:
            return f": the network of {link} is internal, nothing enters or leaves it"
    if came == goes:
        return f": containers of the network of {came} may not speak with each other (icc is off)"
    if came in world.bridges and goes in world.bridges:
        return f": {came} and {goes} are different networks, which reach each other through published ports alone"
    if goes in world.bridges:
        return f": from outside, the network of {goes} is reached through published ports alone"
    return ""
