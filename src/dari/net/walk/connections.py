"""Connection tracking for one conversation: which addresses it was given, in each namespace it passes.

Must not know: rules, routes. Source: Linux, net/netfilter/nf_conntrack_core.c and nf_nat_core.c.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dari.net.nftvalues import Flight
from dari.net.state import Address


@dataclass(slots=True)
class Connection:
    """A conversation as one namespace knows it: as it came, and as it went on (`to_...`, `from_...`)."""

    source: Address
    source_port: int
    destination: Address
    port: int
    from_address: Address
    from_port: int
    to_address: Address
    to_port: int
    is_answered: bool = False

    def status(self) -> frozenset[str]:
        """`ct status`, as far as rules ask for it."""
        found = set()
        if (self.to_address, self.to_port) != (self.destination, self.port):
            found.add("dnat")
        if (self.from_address, self.from_port) != (self.source, self.source_port):
            found.add("snat")
        if self.is_answered:
            found.add("seen-reply")
        return frozenset(found)


class Connections:
    """Those of every namespace."""

    def __init__(self) -> None:
        self._known: dict[str, list[Connection]] = {}

    def meet(self, space: str, flight: Flight, *, is_answer: bool) -> tuple[Flight, Connection | None]:
        """The packet with its state, and, if it is an answer, its destination as the asker's.

        `is_answer` False starts a connection that is not known; an unknown TCP answer is invalid.
        """
        for each in self._known.get(space, ()):
            if _forward(each) == _tuple(flight):
                state = "established" if each.is_answered else "new"
                return _marked(flight, each, state, is_reply=False), each
            if _backward(each) == _tuple(flight):
                each.is_answered = True
                flight = replace(flight, destination=each.source, port=each.source_port)
                return _marked(flight, each, "established", is_reply=True), each
        if is_answer and flight.protocol in ("tcp", "icmp"):
            return replace(flight, ct_state="invalid", ct_status=frozenset(), is_reply=True), None
        made = Connection(
            flight.source,
            flight.source_port,
            flight.destination,
            flight.port,
            flight.source,
            flight.source_port,
            flight.destination,
            flight.port,
        )
        self._known.setdefault(space, []).append(made)
        return _marked(flight, made, "new", is_reply=is_answer), made


def learn(connection: Connection | None, flight: Flight) -> Flight:
    """Rules may have given the packet other addresses: the connection keeps them."""
    if connection is None or flight.ct_state != "new":
        return flight
    connection.to_address, connection.to_port = flight.destination, flight.port
    connection.from_address, connection.from_port = flight.source, flight.source_port
    return replace(flight, ct_status=connection.status())


def give_back(connection: Connection | None, flight: Flight) -> Flight:
    """An answer leaves with the address that was asked for."""
    if connection is None or not flight.is_reply or flight.ct_state != "established":
        return flight
    return replace(flight, source=connection.destination, source_port=connection.port)


def _marked(flight: Flight, connection: Connection, state: str, *, is_reply: bool) -> Flight:
    original = (connection.source, connection.source_port, connection.destination, connection.port)
    return replace(
        flight, ct_state=state, ct_status=connection.status(), original=original, is_reply=is_reply
    )


def _tuple(flight: Flight) -> tuple[Address, int, Address, int]:
    return flight.source, flight.source_port, flight.destination, flight.port


def _forward(each: Connection) -> tuple[Address, int, Address, int]:
    return each.source, each.source_port, each.destination, each.port


def _backward(each: Connection) -> tuple[Address, int, Address, int]:
    return each.to_address, each.to_port, each.from_address, each.from_port
