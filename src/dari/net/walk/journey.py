"""Journey: one packet from a socket (or the host's interface) to where it ends, and every stop between.

The order in each namespace is Linux's: sending: route, output, postrouting; coming in: prerouting, the routing
decision, then input, or forward and postrouting. Frames inside a bridge are bridge.py's.
Must not know: questions and answers belong together (explain.py does). Source: net/ipv4/ip_output.c, ip_input.c.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from ipaddress import ip_address

from dari.net import firewall
from dari.net.nftvalues import Flight
from dari.net.packet import OUTSIDE
from dari.net.scope import Key
from dari.net.state import HOST, Address, NftTable, Veth, Vxlan
from dari.net.verdict import CONNTRACK, Outcome
from dari.net.walk.bridge import Segment
from dari.net.walk.connections import Connection, Connections, give_back, learn
from dari.net.walk.discovery import Discovery
from dari.net.walk.meaning import meaning
from dari.net.walk.space import LOOPBACK4, Space, Way, called, default_key
from dari.net.walk.trail import Trail
from dari.net.walk.wire import Wire
from dari.net.walk.world import World

_ACCEPT_MARK = re.compile(r"meta mark & (0x[0-9a-f]+) == (0x[0-9a-f]+) goto allow")
LINK_LOCAL = ip_address("fe80::1")
"""Stands for the link-local address of an interface, whatever it is."""

_LONGEST = 24
"""Namespaces passed; more is a circle (a packet's TTL ends it)."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Where the packet ended: a namespace, or OUTSIDE. `way_back`: the namespace and interface it left by, over
    which an answer comes in. `tunnel`: the VXLAN interface it left by."""

    space: str
    flight: Flight
    way_back: tuple[str, str] = (HOST, "")
    tunnel: str = ""


class Journey:
    """The connections it has made stay for the answer."""

    def __init__(self, world: World, trail: Trail, size: int) -> None:
        self._world = world
        self._trail = trail
        self._size = size
        self._connections = Connections()
        self._segment = Segment(world, trail, size)
        self._wire = Wire(world, trail)
        self._discovery = Discovery(world, trail)
        self._steps = 0

    # The beginnings

    def send(self, name: str, flight: Flight) -> Arrival:
        """From a socket in the namespace; an unspecified source is chosen as the kernel does."""
        space = self._enter_space(name)
        way = self._way_out(space, flight.destination)
        flight = self._with_source(space, flight, way)
        self._check_loopback_leaving(space, flight, way)
        flight = replace(flight, in_link="", out_link=way.link if way is not None else "lo")
        flight = self._hook(space, "output", flight, None, last=CONNTRACK)
        target = flight.destination
        flight, connection = self._connections.meet(space.name, flight, is_answer=self._trail.is_answer)
        flight = self._hook(space, "output", flight, connection, first=CONNTRACK)
        if flight.destination != target:
            way = self._way_out(space, flight.destination)
            self._check_loopback_leaving(space, flight, way)
            flight = replace(flight, out_link=way.link if way is not None else "lo")
        if way is None:
            return self._to_itself(space, flight, connection)
        return self._transmit(space, way, flight, connection)

    def enter(self, link: str, flight: Flight) -> Arrival:
        """Into the host over one of its own interfaces."""
        host = self._world.spaces[HOST]
        nic = host.nics.get(link) or next(
            (each for each in host.nics.values() if each.kind == "foreign"), None
        )
        if nic is None or not nic.is_up:
            key: Key = ("link", HOST, link)
            state = "is down" if nic is not None else "does not exist"
            text = f"the host's interface {link} {state}"
            self._trail.stop("unreachable", "neighbour", HOST, text, key, is_beyond=True)
        sub = self._wire.neighbour(nic.name, flight)
        if sub is not None:
            return self.enter_by((sub.netns, sub.name), flight)
        return self._receive(host, nic.name, flight)

    def enter_tunnel(self, link: str, flight: Flight) -> Arrival:
        """Into the bridge a VXLAN interface is on, from a host elsewhere."""
        host = self._enter_space(HOST)
        tunnel = next(
            (each for tunnels in self._world.tunnels.values() for each in tunnels if each.name == link), None
        )
        if tunnel is None or not tunnel.is_up:
            state = "is down" if tunnel is not None else "does not exist"
            text = f"the tunnel {link} from other hosts {state}"
            self._trail.stop("unreachable", "neighbour", HOST, text, ("link", HOST, link))
        bridge = self._world.bridges.get(tunnel.master)
        if bridge is None:
            text = f"the tunnel {link} from other hosts is on no bridge"
            if tunnel.master:
                text = f"bridge {tunnel.master} of the tunnel {link} does not exist"
            self._trail.stop("unreachable", "neighbour", HOST, text, tunnel.key)
        if tunnel.underlay != HOST:
            self._segment.find_cipher(tunnel)
        text = f"it comes through the tunnel {link} (VNI {tunnel.vni}) to bridge {bridge.name}"
        self._trail.add("neighbour", HOST, text, tunnel.key, (bridge.key,))
        towards, asker = flight.destination, flight.source
        port = self._segment.find(bridge, None, host, bridge.name, towards, asker, is_tunnelled=True)
        assert isinstance(port, Veth)
        if not self._segment.is_filtered(towards.version):
            return self._over_port(port, flight, (HOST, bridge.name))
        flight, connection = self._prerouting(host, bridge.name, flight)
        if flight.destination != towards:
            text = "what becomes of a packet whose address is changed inside a bridge, from a tunnel, is not walked"
            self._trail.stop("unknown", "nat", HOST, text, bridge.key)
        flight = self._hook(host, "forward", replace(flight, out_link=bridge.name), connection)
        flight = give_back(
            connection, self._hook(host, "postrouting", replace(flight, in_link=""), connection)
        )
        return self._over_port(port, flight, (HOST, bridge.name))

    def enter_by(self, place: tuple[str, str], flight: Flight) -> Arrival:
        """Into a namespace over an interface of its own that is on a wire."""
        return self._receive(self._enter_space(place[0]), place[1], flight)

    # Sending

    def _enter_space(self, name: str) -> Space:
        space = self._world.space(name)
        if space is None:
            self._trail.stop("unreachable", "address", name, f"namespace {name} is gone", ("netns", name))
        self._steps += 1
        if self._steps > _LONGEST:
            self._trail.stop("dropped", "route", name, "the packet goes in circles until its TTL ends")
        for key in space.rules.broken:
            self._trail.stop("unknown", "policy", name, f"table {key[2]} {key[3]} cannot be read", key)
        if space.is_ruled:
            self._trail.remark(
                "route", name, f"{called(name)} has routing rules of somebody else (ip rule)", None
            )
        if name == HOST:
            self._check_table(space)
        return space

    def _tell_unseen(self, netns: str, link: str, version: int) -> None:
        """The packet passes something that may do with it as it likes."""
        for each in self._world.unseen.get((netns, link), ()):
            if each.version not in (0, version):
                continue
            place = link or f"{called(netns)}'s network"
            self._trail.remark("policy", netns, f"cannot look into: {each.what} on {place}", each.key)

    def _check_table(self, host: Space) -> None:
        if not self._world.bridges:
            return
        key = firewall.HOST_TABLE.key
        table = self._world.state.objects.get(key)
        if table is None:
            text = "table inet dari is missing: nothing keeps networks apart, and no port is published"
            self._trail.remark("policy", HOST, text, key)
        elif isinstance(table, NftTable) and table.text != _expected(table.text):
            text = "table inet dari is not as dari wrote it; it is judged as it is"
            self._trail.remark("policy", HOST, text, key)

    def _way_out(self, space: Space, destination: Address) -> Way | None:
        """None: to itself."""
        if space.is_local(destination):
            owner = space.owner(destination)
            uses = (owner.key,) if owner is not None else ()
            key = owner.key if owner is not None else ("link", space.name, "lo")
            self._trail.add("route", space.name, f"{destination} is {called(space.name)} itself", key, uses)
            return None
        return self._way(space, destination)

    def _way(self, space: Space, destination: Address) -> Way:
        who = called(space.name)
        if (asleep := space.asleep.get(destination)) is not None:
            text = f"{destination} belongs to {who}, but {_why_asleep(asleep)}"
            self._trail.stop("unreachable", "address", space.name, text, asleep)
        way = space.way(destination)
        if way is None:
            if not space.has_family(destination.version):
                text = f"{who} has no IPv{destination.version} address"
                if len(space.nics) <= 1:
                    text = f"{who} has no interface but lo"
                own = (key for each, key in space.asleep.items() if each.version == destination.version)
                key = next(own, ("addr", space.name, "", str(destination)))
                self._trail.stop("unreachable", "address", space.name, text, key)
            text = f"{who} has no route to {destination}"
            key = default_key(space.name, destination.version)
            self._trail.stop("unreachable", "route", space.name, text, key)
        via = f"goes to {way.via}" if way.via is not None else "is on the link"
        text = f"{called(space.name)}: {destination} {via}, interface {way.link} (route {way.to})"
        self._trail.add("route", space.name, text, way.key, way.uses)
        return way

    def _with_source(self, space: Space, flight: Flight, way: Way | None) -> Flight:
        if not flight.source.is_unspecified:
            if space.is_local(flight.source):
                return flight
            text = f"{flight.source} is no address of {called(space.name)}"
            key = ("addr", space.name, "", str(flight.source))
            self._trail.stop("unreachable", "address", space.name, text, key)
        source = space.source_for(flight.destination, way)
        if source is None and way is not None and flight.destination.version == 6:
            text = f"{called(space.name)} has only its link-local address on {way.link} to send from"
            key = ("addr", space.name, way.link, "")
            self._trail.stop("unknown", "address", space.name, text, key)
        if source is None:
            text = f"{called(space.name)} has no address to send from over {way.link if way else 'lo'}"
            key = ("addr", space.name, way.link if way else "lo", "")
            self._trail.stop("unreachable", "address", space.name, text, key)
        owner = space.owner(source)
        self._trail.add(
            "address",
            space.name,
            f"{called(space.name)} sends from {source}",
            owner.key if owner is not None else None,
        )
        return replace(flight, source=source)

    def _check_loopback_leaving(self, space: Space, flight: Flight, way: Way | None) -> None:
        is_loopback = flight.source.version == 4 and flight.source in LOOPBACK4
        if way is not None and is_loopback and not space.is_localnet(way.link):
            key: Key = ("sysctl", space.name, f"net/ipv4/conf/{way.link}/route_localnet")
            text = f"a packet from {flight.source} may not leave over {way.link}: route_localnet is 0"
            self._trail.stop("dropped", "route", space.name, text, key)

    def _to_itself(self, space: Space, flight: Flight, connection: Connection | None) -> Arrival:
        flight = give_back(connection, self._hook(space, "postrouting", flight, connection))
        lo = space.nics.get("lo")
        if lo is None or not lo.is_up:
            key: Key = ("link", space.name, "lo")
            text = f"loopback of {called(space.name)} is down: it cannot speak to itself"
            self._trail.stop("dropped", "neighbour", space.name, text, key)
        flight = replace(flight, in_link="lo", out_link="")
        flight = self._hook(space, "prerouting", flight, None)
        return self._input(space, flight, None)

    def _transmit(self, space: Space, way: Way, flight: Flight, connection: Connection | None) -> Arrival:
        nic = space.nics[way.link]
        self._tell_unseen(space.name, way.link, flight.destination.version)
        if space.name == HOST and nic.kind == "foreign" and flight.destination in self._world.plugged:
            text = f"{flight.destination} lies behind what a network plugin made: what it lets through is not known"
            self._trail.stop("unknown", "neighbour", HOST, text, self._world.plugged[flight.destination])
        flight = give_back(connection, self._hook(space, "postrouting", flight, connection))
        towards = way.via or flight.destination
        flight = replace(flight, out_link="")
        if nic.veth is not None and nic.kind == "inside":
            return self._over_veth(space, nic.veth, towards, flight)
        if nic.bridge is not None:
            asker = self._asker(space, way.link, flight, towards)
            port = self._segment.find(nic.bridge, None, space, way.link, towards, asker)
            assert port is not None
            self._discover(nic.name, space, nic.name, port, towards, asker)
            return self._over_port(port, flight, (space.name, nic.name))
        if nic.sub is not None:
            sub = self._wire.find(space, nic.sub, towards, flight)
            if sub is None:
                return Arrival(OUTSIDE, flight, (space.name, nic.name))
            return self.enter_by((sub.netns, sub.name), flight)
        if nic.kind == "dummy":
            text = f"interface {nic.name} of {called(space.name)} leads nowhere (dummy)"
            self._trail.stop("dropped", "neighbour", space.name, text, nic.key)
        if nic.kind != "foreign" or space.name != HOST:
            text = f"what lies behind interface {nic.name} of {called(space.name)} is not known"
            self._trail.stop("unknown", "neighbour", space.name, text, nic.key)
        self._wire.check_host(nic.name, towards, flight.source)
        if not nic.has_carrier:
            text = f"the host's interface {nic.name} has no carrier"
            self._trail.stop("unreachable", "neighbour", HOST, text, nic.key, is_beyond=True)
        text = f"it leaves the host over {nic.name} with source {flight.source}"
        self._trail.add("deliver", HOST, text, nic.key, towards=towards)
        return Arrival(OUTSIDE, flight, (HOST, nic.name))

    # Over a bridge

    def _over_veth(self, space: Space, veth: Veth, towards: Address, flight: Flight) -> Arrival:
        host = self._world.spaces[HOST]
        self._tell_unseen(HOST, veth.name, flight.destination.version)
        if not veth.is_up:
            text = f"interface {veth.peer} ({veth.name} on the host) is down"
            self._trail.stop("unreachable", "neighbour", space.name, text, veth.key)
        if not veth.master:
            text = f"{veth.name}, the host's end of {veth.peer}, is on no bridge"
            if not host.answers(veth.name, towards, flight.source):
                self._trail.stop("unreachable", "neighbour", space.name, text, veth.key)
            self._trail.remark("neighbour", space.name, text, veth.key)
            return self._receive(self._enter_space(HOST), veth.name, flight)
        bridge = self._world.bridges.get(veth.master)
        if bridge is None:
            text = f"bridge {veth.master} does not exist"
            self._trail.stop("unreachable", "neighbour", HOST, text, ("link", HOST, veth.master))
        asker = self._asker(space, veth.peer, flight, towards)
        port = self._segment.find(bridge, veth, space, veth.peer, towards, asker)
        self._discover(bridge.name, space, veth.peer, port, towards, asker)
        if not self._segment.is_filtered(flight.destination.version):
            if port is None:
                return self._receive(self._enter_space(HOST), bridge.name, flight)
            return self._over_port(port, flight, (space.name, veth.peer))
        return self._filtered(bridge.name, veth, port, flight)

    def _filtered(self, bridge: str, veth: Veth, port: Veth | Vxlan | None, flight: Flight) -> Arrival:
        """br_netfilter: frames inside the bridge meet the host's rules as if they were routed."""
        host = self._enter_space(HOST)
        asked = flight.destination
        flight, connection = self._prerouting(host, bridge, flight)
        if flight.destination != asked:
            # Turned round inside the bridge where the new address is on it too (br_netfilter_hooks.c).
            way = None if host.is_local(flight.destination) else host.way(flight.destination)
            if way is None or way.link != bridge:
                return self._decide(host, bridge, flight, connection)
            self._check_addresses(host, bridge, flight)
            if flight.destination.version == 4 and not host.is_forwarding(4, bridge):
                text = (
                    "whether a packet is turned round inside a bridge while ip_forward is 0 differs by kernel"
                )
                self._trail.stop("unknown", "forward", HOST, text, host.forwarding_key(4))
            towards = way.via or flight.destination
            own = host.address_on(bridge, towards) or flight.source
            port = self._segment.find(self._world.bridges[bridge], None, host, bridge, towards, own)
            assert port is not None
            self._discover(bridge, host, bridge, port, towards, own)
            if isinstance(port, Veth):
                self._segment.check_turn(veth, port)
        elif port is None:
            return self._decide(host, bridge, flight, connection)
        flight = replace(flight, in_link=bridge, out_link=bridge)
        flight = self._hook(host, "forward", flight, connection)
        flight = replace(flight, in_link="")
        flight = give_back(connection, self._hook(host, "postrouting", flight, connection))
        return self._over_port(port, flight, (veth.peer_netns, veth.peer))

    def _over_port(self, port: Veth | Vxlan, flight: Flight, sender: tuple[str, str]) -> Arrival:
        """To the sandbox behind a port; through a tunnel it leaves, and its answer comes in where it was sent."""
        self._tell_unseen(HOST, port.name, flight.destination.version)
        if isinstance(port, Vxlan):
            return Arrival(OUTSIDE, replace(flight, out_link=""), sender, port.name)
        return self._receive(self._enter_space(port.peer_netns), port.peer, replace(flight, out_link=""))

    def _discover(
        self,
        bridge: str,
        space: Space,
        link: str,
        port: Veth | Vxlan | None,
        towards: Address,
        asker: Address,
    ) -> None:
        is_filtered = self._segment.is_filtered(towards.version)
        self._discovery.check(bridge, space, link, port, towards, asker, is_filtered=is_filtered)

    def _asker(self, space: Space, link: str, flight: Flight, towards: Address) -> Address:
        """The address a neighbour is asked with: the packet's own if it is local (arp_announce 0), in IPv6 if it is one
        of that interface, which else asks with its link-local one (ndisc_solicit)."""
        if towards.version == 6:
            owner = space.owner(flight.source)
            return flight.source if owner is not None and owner.link == link else LINK_LOCAL
        if space.is_local(flight.source) and not flight.source.is_loopback:
            return flight.source
        return space.address_on(link, towards) or flight.source

    # Coming in

    def _receive(self, space: Space, link: str, flight: Flight) -> Arrival:
        self._tell_unseen(space.name, link, flight.destination.version)
        flight, connection = self._prerouting(space, link, flight)
        return self._decide(space, link, flight, connection)

    def _prerouting(self, space: Space, link: str, flight: Flight) -> tuple[Flight, Connection | None]:
        # Marks and states are one namespace's.
        flight = replace(flight, in_link=link, out_link="", mark=0, ct_state="", ct_status=frozenset())
        flight = self._hook(space, "prerouting", flight, None, last=CONNTRACK)
        flight, connection = self._connections.meet(space.name, flight, is_answer=self._trail.is_answer)
        return self._hook(space, "prerouting", flight, connection, first=CONNTRACK), connection

    def _decide(self, space: Space, link: str, flight: Flight, connection: Connection | None) -> Arrival:
        who = called(space.name)
        self._check_addresses(space, link, flight)
        if space.is_local(flight.destination):
            return self._input(space, flight, connection)
        if not space.is_forwarding(flight.destination.version, link):
            key = space.forwarding_key(flight.destination.version)
            text = f"{who} does not forward IPv{flight.destination.version} ({key[2]} is 0)"
            self._trail.stop("dropped", "forward", space.name, text, key)
        way = self._way(space, flight.destination)
        flight = replace(flight, out_link=way.link)
        flight = self._hook(space, "forward", flight, connection)
        forwarding = space.forwarding_key(flight.destination.version)
        text = f"{who} forwards it from {link} to {way.link}"
        self._trail.add("forward", space.name, text, None, (forwarding,))
        return self._transmit(space, way, replace(flight, in_link=""), connection)

    def _check_addresses(self, space: Space, link: str, flight: Flight) -> None:
        complaint = space.complaint(link, flight.source, flight.destination)
        if complaint:
            key: Key = ("sysctl", space.name, f"net/ipv4/conf/{link}/rp_filter")
            if "route_localnet" in complaint:
                key = ("sysctl", space.name, f"net/ipv4/conf/{link}/route_localnet")
            text = f"{called(space.name)} throws the packet away: {complaint}"
            self._trail.stop("dropped", "route", space.name, text, key)

    def _input(self, space: Space, flight: Flight, connection: Connection | None) -> Arrival:
        flight = give_back(connection, self._hook(space, "input", flight, connection))
        owner = space.owner(flight.destination)
        text = f"it arrives in {called(space.name)} at {flight.destination}, interface {flight.in_link}"
        self._trail.add("deliver", space.name, text, owner.key if owner is not None else None)
        return Arrival(space.name, flight)

    # Rules

    def _hook(
        self,
        space: Space,
        hook: str,
        flight: Flight,
        connection: Connection | None,
        *,
        first: int = -(1 << 31),
        last: int = 1 << 31,
    ) -> Flight:
        """The rules at a hook; the packet as they leave it."""
        self._tell_unseen(space.name, "", flight.destination.version)
        if not space.rules.has_rules:
            return flight
        is_nat_done = connection is None or flight.ct_state != "new"
        outcome = space.rules.run(hook, flight, space, first=first, last=last, is_nat_done=is_nat_done)
        if outcome.kind != "accept":
            self._turned_away(space, hook, outcome)
        if outcome.nat_rule or outcome.port_rule:
            self._tell_change(space, hook, flight, outcome)
        elif outcome.rule and hook in ("forward", "input", "output"):
            text = f"{called(space.name)}: {_rule(outcome)} lets it pass ({hook})"
            self._trail.add("policy", space.name, text, outcome.table, outcome.uses)
        elif outcome.uses:
            text = f"{called(space.name)}: no rule objects ({hook})"
            self._trail.add("policy", space.name, text, outcome.table, outcome.uses)
        # A port that was merely written into the packet is no part of what connection tracking knows.
        return learn(connection, outcome.flight) if outcome.nat_rule else outcome.flight

    def _tell_change(self, space: Space, hook: str, before: Flight, outcome: Outcome) -> None:
        after = outcome.flight
        changes = []
        if (before.destination, before.port) != (after.destination, after.port):
            changes.append(
                f"{_place(before.destination, before.port)} becomes {_place(after.destination, after.port)}"
            )
        if before.source != after.source:
            changes.append(f"source {before.source} becomes {after.source}")
        elif outcome.port_rule and before.source_port != after.source_port:
            old, new = _place(before.source, before.source_port), _place(after.source, after.source_port)
            changes.append(f"source {old} becomes {new}")
        if changes:
            rule = outcome.nat_rule or outcome.port_rule
            text = f"{called(space.name)}: {' and '.join(changes)} (`{rule}`, {hook})"
            element = next((key for key in reversed(outcome.uses) if key[0] == "nft-element"), outcome.table)
            self._trail.add("nat", space.name, text, element, outcome.uses)

    def _turned_away(self, space: Space, hook: str, outcome: Outcome) -> None:
        who = called(space.name)
        where = f"{who}, {hook}: {_rule(outcome)}"
        if outcome.kind == "unknown":
            text = f"{where} is not understood"
            self._trail.stop("unknown", "policy", space.name, text, outcome.table, outcome.uses)
        if outcome.kind == "drop":
            text = f"{where} drops it{meaning(self._world, hook, outcome)}"
            self._trail.stop("dropped", "policy", space.name, text, outcome.table, outcome.uses)
        is_refusal = not outcome.how or "reset" in outcome.how or "port-unreachable" in outcome.how
        self._trail.stop(
            "refused" if is_refusal else "unreachable",
            "policy",
            space.name,
            f"{where} rejects it",
            outcome.table,
            outcome.uses,
        )


def _expected(text: str) -> str:
    """The host's table as dari writes it, with the mark this one lets pass."""
    found = _ACCEPT_MARK.search(text)
    mark = (int(found[2], 16), int(found[1], 16)) if found is not None else None
    return firewall.host_table(mark).text


def _rule(outcome: Outcome) -> str:
    table = f"table {outcome.table[2]} {outcome.table[3]}" if outcome.table is not None else "a table"
    return f"`{outcome.rule}` of chain {outcome.chain} in {table}"


def _place(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _why_asleep(key: Key) -> str:
    return f"{key[2]} is 1" if key[0] == "sysctl" else f"interface {key[2]} does not exist"
