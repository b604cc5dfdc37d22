"""Host ports held open, so that nobody else on the host can take them.

dari translates packets and listens nowhere: another program could bind a published port and wonder why nobody comes.
So each published port is a bound socket here, which is also how it is found out whether another program has it
already. A socket is bound without listening; where connections of an earlier server still linger (TIME_WAIT) only a
listening one holds. Long ranges are checked and not held: ten thousand sockets would cost more than the range is
worth. Must not know: rules, stores, whose port it is.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import ip_address

from dari.kernel.listeners import Listener, listeners
from dari.net.desired import Protocol
from dari.relay.door import MOST_HELD


@dataclass(frozen=True, slots=True)
class Claim:
    """`first` to `last` on an address of the host."""

    protocol: Protocol
    address: str
    first: int
    last: int

    @property
    def is_held(self) -> bool:
        """Ranges of at most MOST_HELD ports are; of longer ones no port is."""
        return self.protocol != "sctp" and self.last - self.first < MOST_HELD


@dataclass(slots=True)
class Holds:
    """The sockets by claim; `is_stale`: some may be of claims that are given up. Not for several threads."""

    is_stale: bool = False
    held: dict[Claim, list[socket.socket]] = field(default_factory=dict)

    def take(self, claim: Claim) -> tuple[int, int]:
        """(errno, port) of the port somebody else has, or whose address is none of the host's; (0, 0) where all
        are ours now."""
        if claim in self.held or claim.protocol == "sctp":
            return 0, 0
        if not claim.is_held:
            return _look(claim)
        made: list[socket.socket] = []
        for port in range(claim.first, claim.last + 1):
            try:
                made.append(_bound(claim.protocol, claim.address, port))
            except OSError as error:
                for each in made:
                    each.close()
                return error.errno or errno.EINVAL, port
        self.held[claim] = made
        return 0, 0

    def keep(self, claims: Collection[Claim]) -> list[Claim]:
        """Let go of everything else; what that was."""
        gone = [each for each in self.held if each not in claims]
        for claim in gone:
            for each in self.held.pop(claim):
                each.close()
        return gone

    def close(self) -> None:
        self.keep(())


def _bound(protocol: Protocol, address: str, port: int) -> socket.socket:
    """Raises OSError."""
    try:
        return _bind(protocol, address, port, is_listening=False)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or protocol != "tcp":
            raise
    # A listener is in the way of both, and so is a client whom the kernel gave this port, until a minute after its end;
    # what lingers of connections to a listener that was here, of the first only.
    return _bind(protocol, address, port, is_listening=True)


def _bind(protocol: Protocol, address: str, port: int, *, is_listening: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if is_listening:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        if is_listening:
            made.listen(1)
        return made
    except OSError:
        made.close()
        raise


def _look(claim: Claim) -> tuple[int, int]:
    """`take` for a long range: the first port is tried, of the others the kernel is asked who waits there."""
    try:
        _bound(claim.protocol, claim.address, claim.first).close()
        found = [each.port for each in listeners() if _is_in_the_way(claim, each)]
    except OSError as error:
        return error.errno or errno.EINVAL, claim.first
    return (errno.EADDRINUSE, min(found)) if found else (0, 0)


def _is_in_the_way(claim: Claim, listener: Listener) -> bool:
    address = ip_address(claim.address)
    return (
        listener.protocol == claim.protocol
        and claim.first <= listener.port <= claim.last
        and listener.address.version == address.version
        and (listener.address == address or listener.address.is_unspecified or address.is_unspecified)
    )


def strerror(code: int) -> str:
    """As Docker's messages end: lower case."""
    return os.strerror(code).lower()
