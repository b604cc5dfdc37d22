"""Real probes, many at a time, with nftables tracing for their packets and nobody else's.

One thread, one selector: sockets are made in the sources' namespaces and work from anywhere; the traces of all
namespaces concerned come in beside them, so that a packet somebody drops is known in milliseconds and not by a
time-out. Everything made for it ends with its sockets, also when the daemon is killed.
Must not know: containers, what was expected. Next: shot.py, trace.py, outside.py.
"""

from __future__ import annotations

import errno
import random
import secrets
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType

from dari.kernel import rtnetlink
from dari.kernel.errors import NetlinkError
from dari.kernel.listeners import Listener, listeners
from dari.kernel.netns import Namespaces
from dari.kernel.outside import Outside, Places
from dari.kernel.probed import ProbeResult, Shot, Step
from dari.kernel.shot import ShotSocket, Told
from dari.kernel.trace import TABLE_PREFIX, Event, Tracer, protocol_number
from dari.kernel.visit import Visit
from dari.net.packet import OUTSIDE
from dari.net.state import HOST, Address

AT_ONCE = 64
"""Probes under way at a time: each is a socket, and at most a few packets."""

MOST_OVERHEARD = 20_000
"""Chains and rules kept of packets another host sent."""

# Ports to ask from, below those the kernel gives to others and above those of most servers. Several times as many as
# are under way, so that a late packet is not taken for one of the next probe's.
_PORTS = range(20000, 32768)
_POOL = 4 * AT_ONCE
# From so many probes on, neighbours they made known are forgotten again: the kernel's table of them is one for all
# namespaces (gc_thresh3, 1,024), and full it would stop everybody's traffic.
_MANY = 128

# After a drop was seen: as long as a refusal (RST, ICMP) that came with it may take.
_GRACE_SECONDS = 0.03
# After an empty datagram came to its target: whoever listens seldom answers one, and that it came is what was asked.
_DATAGRAM_SECONDS = 0.1
# After an end was seen: traces are written before a packet goes on, so they are there; this is for other CPUs.
_SETTLE_SECONDS = 0.002

RuleTexts = Callable[[Visit, str, str, str], dict[int, str]]
"""Rules of a chain by handle, as nft lists them: (where, family, table, chain)."""


@dataclass(slots=True)
class _Flight:
    """A shot under way. `port`: the one it asks from, 0 before it has one."""

    number: int
    shot: Shot
    port: int = 0
    sock: ShotSocket | None = None
    told: Told | None = None
    started: float = 0.0
    ended: float = 0.0
    deadline: float = 0.0
    source_address: Address | None = None
    events: list[Event] = field(default_factory=list)
    is_dropped: bool = False


class Probing:
    """A round of probes in these namespaces. A context manager; one call at a time, and not the kernel room's
    thread's business: it waits. Its threads are in the daemon's own namespace.

    `places`: where outside lies, None where nobody asks from or to there. Namespaces that are gone are left out;
    a shot from one is `failed`. `ports`: where packets to be traced come from; another host's where it is its packets
    that are looked for (`overhear`, `sightings`). Raises NetlinkError, OSError.
    """

    def __init__(
        self,
        namespaces: Namespaces,
        names: Iterable[str],
        texts: RuleTexts,
        places: Places | None = None,
        *,
        is_traced: bool = True,
        ports: Sequence[int] = (),
    ) -> None:
        self._texts = texts
        self._stack = ExitStack()
        self._visits: dict[str, Visit] = {}
        self._tracers: dict[str, Tracer] = {}
        self._link_names: dict[tuple[str, int], str] = {}
        self._known_rules: dict[tuple[str, str, str, str], dict[int, str]] = {}
        self._pool = list(ports or some_ports())
        self._overheard: list[Event] = []
        self._next = 0
        self._neighbours: dict[str, frozenset[rtnetlink.Neighbour]] = {}
        self._has_lost = False
        self.untraced = "" if is_traced else "tracing was not asked for"
        self.outside: Outside | None = None
        try:
            for name in dict.fromkeys((HOST, *names)):
                self._enter(namespaces, name)
            if places is not None:
                self.outside = Outside(namespaces, places)
                self._stack.callback(self.outside.close)
                self._visits[OUTSIDE] = self.outside.visit
            if is_traced:
                self._trace()
        except OSError:
            self._stack.close()
            raise

    def __enter__(self) -> Probing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take everything away that was made for it."""
        self._stack.close()

    def _enter(self, namespaces: Namespaces, name: str) -> None:
        descriptor = None if name == HOST else namespaces.open(name)
        if descriptor is None and name != HOST:
            return
        visit = Visit(namespaces, name, descriptor)
        self._stack.callback(visit.close)
        self._visits[name] = visit

    def _trace(self) -> None:
        token = secrets.token_hex(4)
        for name, visit in self._visits.items():
            if name == OUTSIDE:
                continue
            try:
                tracer = Tracer(visit, token, self._pool)
            except NetlinkError as error:
                self.untraced = f"the kernel cannot trace (Linux 5.12 and later can): {error.strerror}"
                continue
            self._stack.callback(tracer.close)
            self._tracers[name] = tracer

    @property
    def ears(self) -> list[int]:
        """Descriptors that are readable when `overhear` has something to take in."""
        return [each.ear.fileno() for each in self._tracers.values()]

    def overhear(self) -> None:
        """Take in what was traced so far of packets others sent, without waiting."""
        for tracer in self._tracers.values():
            try:
                for event in tracer.events():
                    if len(self._overheard) < MOST_OVERHEARD:
                        self._overheard.append(event)
                    else:
                        self.untraced = f"the trace is not whole: more than {MOST_OVERHEARD} rules were met"
            except OSError as error:
                self.untraced = f"the trace is not whole: {error.strerror}"

    def sightings(self, packets: Sequence[tuple[Shot, int]]) -> list[ProbeResult]:
        """What was seen here of packets another host sent: each one's question, as it goes on from this host, and the
        port it came from. Their outcomes are the sender's to know: here they are `silent`."""
        self.overhear()
        flights = [_Flight(number, shot, port) for number, (shot, port) in enumerate(packets)]
        asked = {(_proto(each.shot), each.port, str(each.shot.destination)): each for each in flights}
        for event in self._overheard:
            packet = event.packet
            flight = asked.get((packet.protocol, packet.source_port, str(packet.destination))) or asked.get(
                (packet.protocol, packet.destination_port, str(packet.source))
            )
            if flight is not None:
                flight.events.append(event)
        return [
            self._with_trace(
                ProbeResult(each.shot, "silent", "", source_port=each.port, untraced=self.untraced), each
            )
            for each in flights
        ]

    def listeners(self, name: str) -> tuple[Listener, ...] | None:
        """Who listens in that namespace; None where it is gone. Raises OSError."""
        visit = self._visits.get(name)
        if visit is None:
            return None
        with visit.entered():
            return listeners()

    def fire(self, shots: Sequence[Shot], timeout: float) -> list[ProbeResult]:
        """Send them all, at most AT_ONCE at a time; `timeout` in seconds is for each. In the order given.

        Raises OSError where the machine is out of something (descriptors, memory).
        """
        results: list[ProbeResult] = []
        is_many = len(shots) > _MANY
        if is_many:
            self._neighbours = {name: self._known_neighbours(name) for name in self._visits}
        at_once = AT_ONCE
        while len(results) < len(shots):
            volley = shots[len(results) : len(results) + at_once]
            told = self._volley(volley, timeout)
            if is_many:
                self._forget_neighbours(volley)
            if self._has_lost and len(volley) > 1 and not self.untraced:
                # What lost traces is asked again, fewer at once.
                at_once = len(volley) // 2
                continue
            if self._has_lost:
                self.untraced = "the trace is not whole: the kernel had more to tell than the socket holds"
                at_once = AT_ONCE
                told = [replace(each, untraced=self.untraced) for each in told]
            results += told
        return results

    def _known_neighbours(self, name: str) -> frozenset[rtnetlink.Neighbour]:
        dump = self._visits[name].route.dump(rtnetlink.dump_neighbours())
        return frozenset(each for each in map(rtnetlink.read_neighbour, dump) if each is not None)

    def _forget_neighbours(self, shots: Sequence[Shot]) -> None:
        concerned = {name for each in shots for name in (each.source, HOST, each.target) if name is not None}
        for name in concerned & self._neighbours.keys():
            new = self._known_neighbours(name) - self._neighbours[name]
            # One that is gone by itself is an error nobody needs to hear of.
            self._visits[name].route.request(
                [rtnetlink.delete_neighbour(each.index, each.address) for each in new]
            )

    # One volley

    def _volley(self, shots: Sequence[Shot], timeout: float) -> list[ProbeResult]:
        flights = [_Flight(number, shot) for number, shot in enumerate(shots)]
        self._has_lost = False
        try:
            with selectors.DefaultSelector() as selector:
                self._load(flights)
                self._fly(flights, selector, timeout)
            return [self._result(each) for each in flights]
        finally:
            for each in flights:
                if each.sock is not None:
                    each.sock.close()

    def _load(self, flights: Sequence[_Flight]) -> None:
        """Make the sockets, each with a port no other one of the volley has: traces tell packets by it."""
        for each in flights:
            visit = self._visits.get(each.shot.source)
            if visit is None:
                each.told = Told("failed", "the namespace to ask from is gone")
                continue
            with visit.entered():
                each.sock = self._socket(each.shot)
            each.port = each.sock.port

    def _socket(self, shot: Shot) -> ShotSocket:
        """Raises OSError where not one of the ports is free."""
        for _ in range(_POOL):
            port = self._pool[self._next % len(self._pool)]
            self._next += 1
            try:
                return ShotSocket(shot.protocol, shot.destination, shot.port, shot.payload, port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise OSError(errno.EADDRINUSE, "no free port to ask from")

    def _fly(self, flights: Sequence[_Flight], selector: selectors.BaseSelector, timeout: float) -> None:
        by_port = {(_proto(each.shot), each.port): each for each in flights if each.sock is not None}
        for tracer in self._tracers.values():
            selector.register(tracer.ear, selectors.EVENT_READ, tracer)
        for served in self.outside.sockets if self.outside is not None else ():
            selector.register(served, selectors.EVENT_READ, served)
        waiting: dict[int, _Flight] = {}
        for each in flights:
            if each.sock is None:
                continue
            each.started = time.monotonic()
            each.deadline = each.started + timeout
            told = each.sock.fire()
            each.source_address = each.sock.source
            if told is not None:
                self._end(each, told)
                continue
            events = selectors.EVENT_WRITE if each.sock.is_writing else selectors.EVENT_READ
            selector.register(each.sock.socket, events, each)
            waiting[each.number] = each
            # Traces of those on their way are taken in before more are sent: the sockets hold some thousands.
            for key, _ in selector.select(0):
                self._ready(key.data, waiting, by_port, selector)
        while waiting:
            pause = min(each.deadline for each in waiting.values()) - time.monotonic()
            for key, _ in selector.select(max(0.0, pause)):
                self._ready(key.data, waiting, by_port, selector)
            # Behind what is ready: on a busy machine an answer may have waited for us, not we for it.
            now = time.monotonic()
            for each in [one for one in waiting.values() if one.deadline <= now]:
                assert each.sock is not None
                self._end(each, each.sock.look() if not each.sock.is_writing else None)
                del waiting[each.number]
                selector.unregister(each.sock.socket)
        self._settle(by_port)

    def _ready(
        self,
        data: object,
        waiting: dict[int, _Flight],
        by_port: dict[tuple[int, int], _Flight],
        selector: selectors.BaseSelector,
    ) -> None:
        if isinstance(data, Tracer):
            self._hear(data, by_port)
        elif isinstance(data, socket.socket):
            assert self.outside is not None
            self.outside.answer(data)
        elif isinstance(data, _Flight) and data.number in waiting and data.sock is not None:
            told = data.sock.look()
            if told is not None:
                self._end(data, told)
                del waiting[data.number]
                selector.unregister(data.sock.socket)

    def _settle(self, by_port: dict[tuple[int, int], _Flight]) -> None:
        """Take in what was traced and not yet read."""
        if self._tracers:
            time.sleep(_SETTLE_SECONDS)
        for tracer in self._tracers.values():
            self._hear(tracer, by_port)

    def _hear(self, tracer: Tracer, by_port: dict[tuple[int, int], _Flight]) -> None:
        while True:
            try:
                for event in tracer.events():
                    self._sort(event, by_port)
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # More was traced than the socket holds; the kernel tells nothing more until all of it is read.
                self._has_lost = True

    @staticmethod
    def _sort(event: Event, by_port: dict[tuple[int, int], _Flight]) -> None:
        packet = event.packet
        flight = by_port.get((packet.protocol, packet.source_port)) or by_port.get(
            (packet.protocol, packet.destination_port)
        )
        if flight is None:
            return
        flight.events.append(event)
        if _has_come(event, flight):
            flight.deadline = min(flight.deadline, time.monotonic() + _DATAGRAM_SECONDS)
        if event.verdict == "drop" and not flight.is_dropped:
            flight.is_dropped = True
            flight.deadline = min(flight.deadline, time.monotonic() + _GRACE_SECONDS)

    @staticmethod
    def _end(flight: _Flight, told: Told | None) -> None:
        flight.ended = time.monotonic()
        flight.told = told or Told("silent", "no answer")

    # Results

    def _result(self, flight: _Flight) -> ProbeResult:
        told = flight.told or Told("silent", "no answer")
        shot = flight.shot
        result = ProbeResult(
            shot=shot,
            outcome=told.outcome,
            text=told.text,
            seconds=max(0.0, flight.ended - flight.started),
            source_address=flight.source_address,
            source_port=flight.port,
            icmp=told.icmp,
            icmp_from=told.icmp_from,
            answer=told.answer,
            untraced=self.untraced,
        )
        if told.outcome in ("silent", "unreachable"):
            result = replace(result, unanswering=self._unanswering(shot))
        return self._with_trace(result, flight)

    def _with_trace(self, result: ProbeResult, flight: _Flight) -> ProbeResult:
        steps: list[Step] = []
        seen: dict[tuple[str, str, bool], None] = {}
        dropped: Step | None = None
        for event in self._in_order(flight):
            is_answer = _is_answer(event, flight)
            if event.table.startswith(TABLE_PREFIX):
                if event.kind == "policy" and "-" not in event.chain:
                    hook = event.chain if event.family == "inet" else f"{event.family} {event.chain}"
                    seen[event.netns, hook, is_answer] = None
                continue
            if event.kind == "rule" and not event.handle:
                # The end of a chain that decided nothing.
                continue
            step = self._step(event, is_answer)
            steps.append(step)
            if event.verdict == "drop" and dropped is None:
                dropped = step
        outcome, text = result.outcome, result.text
        if dropped is not None and outcome in ("refused", "unreachable"):
            # A firewall can answer in somebody's name (`reject with tcp reset`).
            outcome, text = "rejected", f"turned away by a firewall ({text})"
        shot = result.shot
        is_answered = outcome in ("open", "answered", "refused")
        # A relay of the host's own asks the target in its turn, from another port.
        has_come = (shot.target, "input", False) in seen or (HOST, "input", False) in seen
        is_traced = shot.target in self._tracers and not self.untraced and not self._has_lost
        is_elsewhere = is_answered and is_traced and not has_come
        is_delivered = (is_answered and not is_elsewhere) or (shot.target, "input", False) in seen
        return replace(
            result,
            outcome=outcome,
            text=text,
            steps=tuple(steps),
            seen=tuple(seen),
            dropped_by=dropped,
            is_delivered=is_delivered,
            is_elsewhere=is_elsewhere,
        )

    def _in_order(self, flight: _Flight) -> list[Event]:
        """The question along its way, then the answer on its way back: each namespace's own order is kept."""
        way = list(dict.fromkeys((flight.shot.source, HOST, flight.shot.target or HOST)))
        rank = {name: index for index, name in enumerate(way)}

        def place(event: Event) -> tuple[bool, int]:
            is_answer = _is_answer(event, flight)
            at = rank.get(event.netns, 1)
            return is_answer, -at if is_answer else at

        return sorted(_first_packets(flight), key=place)

    def _step(self, event: Event, is_answer: bool) -> Step:
        rule = ""
        if event.handle:
            key = (event.netns, event.family, event.table, event.chain)
            if key not in self._known_rules:
                self._known_rules[key] = self._texts(self._visits[event.netns], *key[1:])
            rule = self._known_rules[key].get(event.handle, "")
        return Step(
            netns=event.netns,
            is_answer=is_answer,
            family=event.family,
            table=event.table,
            chain=event.chain,
            kind=event.kind,
            handle=event.handle,
            rule=rule,
            verdict=event.verdict,
            in_interface=self._link_name(event.netns, event.in_index),
            out_interface=self._link_name(event.netns, event.out_index),
        )

    def _link_name(self, netns: str, index: int) -> str:
        if not index:
            return ""
        name = self._link_names.get((netns, index))
        if name is None:
            answers, _ = self._visits[netns].route.request([rtnetlink.get_link(index=index)])
            name = rtnetlink.read_link(answers[0][0]).name if answers[0] else ""
            self._link_names[netns, index] = name
        return name

    def _unanswering(self, shot: Shot) -> tuple[tuple[str, Address], ...]:
        found: dict[tuple[str, Address], None] = {}
        for name in dict.fromkeys((shot.source, HOST)):
            for each in self._known_neighbours(name):
                if not each.is_answering and each.address.version == shot.destination.version:
                    found[name, each.address] = None
        return tuple(found)


def some_ports() -> tuple[int, ...]:
    """Ports for a round to ask from, others each time."""
    return tuple(random.sample(_PORTS, _POOL))


def _proto(shot: Shot) -> int:
    return protocol_number(shot.protocol, shot.destination.version)


def _is_answer(event: Event, flight: _Flight) -> bool:
    if flight.shot.protocol == "icmp":
        return event.packet.is_echo_answer
    return bool(flight.port) and event.packet.source_port != flight.port


def _has_come(event: Event, flight: _Flight) -> bool:
    """Whether an empty datagram is through with everybody's rules at its target."""
    is_through = event.kind == "policy" and event.chain == "input" and event.table.startswith(TABLE_PREFIX)
    is_empty = flight.shot.protocol == "udp" and not flight.shot.payload
    return is_empty and is_through and event.netns == flight.shot.target and not _is_answer(event, flight)


def _first_packets(flight: _Flight) -> list[Event]:
    """Without repetitions (a question sent again meets the same chains) and without what follows the first answer."""
    found: dict[tuple[object, ...], Event] = {}
    for event in flight.events:
        if not event.packet.is_opening:
            continue
        key = (event.netns, event.family, event.table, event.chain, event.kind, event.handle, event.verdict,
               _is_answer(event, flight), event.in_index, event.out_index)  # fmt: skip
        found.setdefault(key, event)
    return list(found.values())
