"""explain: what happens to a packet and to its answer, by a KernelState, wanted or found.

The question is walked from the sender's socket to the receiver's, hook by hook as Linux passes it on, then the
answer back; the first thing that stops it decides. What the walk cannot see (an interface of a kind it does not
know, a rule it does not understand, the world outside) ends it as unknown, never as a guess.
Must not know: stores, containers, sockets, clocks. Next: walk/route.py, walk/trail.py, verdict.py; the story for
people is docs/explanation/life-of-a-packet.md.
"""

from __future__ import annotations

from dari.net.facts import HostFacts
from dari.net.foreign import Foreign
from dari.net.nftvalues import Flight
from dari.net.packet import OUTSIDE as OUTSIDE
from dari.net.packet import Hop as Hop
from dari.net.packet import Listeners as Listeners
from dari.net.packet import Probe as Probe
from dari.net.packet import Trace as Trace
from dari.net.packet import Verdict as Verdict
from dari.net.state import HOST, Address, KernelState
from dari.net.walk.journey import Arrival, Journey
from dari.net.walk.space import called
from dari.net.walk.trail import StoppedError, Trail
from dari.net.walk.world import World

SOURCE_PORT = 40000
_SMALL = 64


def explain(
    state: KernelState,
    probe: Probe,
    facts: HostFacts,
    listeners: Listeners | None = None,
    foreign: Foreign | None = None,
) -> Trace:
    """The hops of the probe and of its answer.

    `foreign`: what was seen beside dari's objects; without it one interface with a way to everywhere stands for
    the host's own. `listeners` None: nobody looked, an arrived packet counts as delivered.
    """
    return walk(World(state, facts, foreign), probe, listeners)


def walk(world: World, probe: Probe, listeners: Listeners | None = None) -> Trace:
    """`explain` over a world made before: for many probes of one state."""
    trail = Trail()
    try:
        _converse(world, probe, listeners, trail)
    except StoppedError as stop:
        return Trace(tuple(trail.hops), stop.verdict, stop.hop)
    return Trace(tuple(trail.hops), "delivered")


def _converse(world: World, probe: Probe, listeners: Listeners | None, trail: Trail) -> None:
    destination = probe.destination
    if destination is None:
        trail.stop("unreachable", "name", probe.source_netns, "the name has no address")
    journey = Journey(world, trail, probe.size)
    asked = _question(probe, destination)
    if probe.is_tunnelled:
        arrived = journey.enter_tunnel(probe.in_interface, asked)
    elif probe.source_netns == OUTSIDE:
        arrived = journey.enter(probe.in_interface, asked)
    else:
        arrived = journey.send(probe.source_netns, asked)
    if arrived.space != OUTSIDE:
        _knock(world, listeners, trail, arrived.space, arrived.flight)
    trail.turn()
    question = arrived.flight
    answer = Flight(
        question.destination,
        question.source,
        question.protocol,
        question.port,
        question.source_port,
        is_reply=True,
    )
    if arrived.space == OUTSIDE:
        if arrived.way_back[0] != HOST and not arrived.tunnel:
            _check_homing(world, trail, arrived)
        if not world.spaces[arrived.way_back[0]].is_local(answer.destination):
            trail.stop(
                "unknown",
                "route",
                arrived.way_back[0],
                f"the answer comes back only if the network outside knows the way to {answer.destination}",
            )
        back = journey.enter_by(arrived.way_back, answer)
    else:
        back = journey.send(arrived.space, answer)
    if probe.is_tunnelled and back.space == OUTSIDE:
        _check_tunnel(probe, trail, back)
        return
    _welcome(probe, destination, trail, back.space, back.flight)


def between_hosts(world: World, own: Address, other: Address, port: int, *, is_leaving: bool) -> Trace | None:
    """The way of a tunnel's own packets (UDP to `port`) out of this host or into it, where something stops it there.

    None where nothing does, or it cannot be told. `own` and `other`: where the two hosts reach each other.
    """
    trail = Trail()
    journey = Journey(world, trail, _SMALL)
    ends = (own, other) if is_leaving else (other, own)
    flight = Flight(*ends, "udp", SOURCE_PORT, port)
    try:
        if is_leaving:
            journey.send(HOST, flight)
        else:
            host = world.spaces[HOST]
            owner, way = host.owner(own), host.way(other)
            journey.enter(owner.link if owner is not None else way.link if way is not None else "", flight)
    except StoppedError as stop:
        if stop.verdict != "unknown":
            return Trace(tuple(trail.hops), stop.verdict, stop.hop)
    return None


def _check_tunnel(probe: Probe, trail: Trail, back: Arrival) -> None:
    """The answer must leave by the tunnel the question came by."""
    if back.tunnel != probe.in_interface:
        where = f"the tunnel {back.tunnel}" if back.tunnel else f"interface {back.way_back[1]}"
        text = f"the answer leaves by {where}, not by the tunnel {probe.in_interface} the question came by"
        trail.stop("dropped", "deliver", back.way_back[0], text)


def _question(probe: Probe, destination: Address) -> Flight:
    """An echo request has no ports: its number stands for both, so that turning it round finds it again."""
    port = SOURCE_PORT if probe.protocol == "icmp" else (probe.port or 0)
    # Unspecified: the kernel chooses (Journey.send).
    source = probe.source_address or type(destination)(0)
    return Flight(source, destination, probe.protocol, SOURCE_PORT, port)


def _check_homing(world: World, trail: Trail, arrived: Arrival) -> None:
    """What left over a container's own wire for an address of this host: nobody here sees what becomes of it."""
    destination = arrived.flight.destination
    owner = next((each for each in world.spaces.values() if each.owner(destination) is not None), None)
    if owner is not None:
        where = arrived.way_back[0]
        text = (
            f"{destination} is {called(owner.name)}'s, on this host, but it is sent out over {arrived.way_back[1]}:"
            " whether a router out there brings it back is not known"
        )
        trail.stop("unknown", "route", where, text)


def _knock(world: World, listeners: Listeners | None, trail: Trail, name: str, flight: Flight) -> None:
    """The packet is where it wanted to be: does anybody take it?"""
    who = called(name)
    if flight.protocol == "icmp":
        space = world.spaces[name]
        if flight.destination.version == 4 and space.setting("net/ipv4/icmp_echo_ignore_all"):
            key = ("sysctl", name, "net/ipv4/icmp_echo_ignore_all")
            trail.stop("dropped", "listen", name, f"{who} does not answer pings ({key[2]} is 1)", key)
        trail.add("listen", name, f"{who} answers the ping")
        return
    found = (
        listeners.find(name, flight.protocol, flight.destination, flight.port)
        if listeners is not None
        else None
    )
    place = f"{shown(flight.destination, flight.port)}/{flight.protocol}"
    if found is None:
        trail.add("listen", name, f"whether anybody listens on {place} in {who} was not looked at")
    elif found:
        trail.add("listen", name, f"a socket of {who} listens on {place}")
    else:
        trail.stop("refused", "listen", name, f"it arrives, but nobody in {who} listens on {place}")


def _welcome(probe: Probe, destination: Address, trail: Trail, name: str, flight: Flight) -> None:
    """The answer must come to who asked, from the address he asked."""
    asker = probe.source_netns
    if name != asker:
        trail.stop(
            "dropped",
            "deliver",
            name,
            f"the answer ends up in {called(name)} instead of {called(asker)}",
        )
    port = SOURCE_PORT if probe.protocol == "icmp" else (probe.port or 0)
    if (flight.source, flight.source_port) != (destination, port):
        trail.stop(
            "dropped",
            "deliver",
            asker,
            f"the answer comes from {shown(flight.source, flight.source_port)}, but"
            f" {shown(destination, port)} was asked: {called(asker)} throws it away",
        )
    trail.add("deliver", asker, f"the answer reaches {called(asker)}")


def shown(address: Address, port: int) -> str:
    """An address with a port."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
