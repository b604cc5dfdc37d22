"""What explain is asked and what it answers: a probe, the hops it takes, the verdict.

Pure nouns, shared by the walk (explain.py) and the shells around it. Must not know: how a packet is walked, who
asked, sockets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from dari.net.scope import Key
from dari.net.state import Address

OUTSIDE = "outside"
"""The `source_netns` of a packet that comes to the host over one of its own interfaces."""

ProbeProtocol: TypeAlias = Literal["tcp", "udp", "icmp"]

Stage: TypeAlias = Literal[
    "name", "address", "route", "neighbour", "policy", "nat", "forward", "encrypt", "deliver", "listen"
]

Verdict: TypeAlias = Literal["delivered", "dropped", "unreachable", "refused", "unknown"]
"""delivered: the question arrives and its answer comes back · dropped: somebody takes it away in silence ·
unreachable: no way there, and the sender is told so · refused: it arrives (or meets a reject) and is turned away ·
unknown: something on the way is not understood, or lies outside of this host."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A question: would this first packet of a conversation, and its answer, arrive?

    `source_netns`: "" the host's own namespace, a sandbox's, or OUTSIDE. `destination` None: the name asked for has
    no address. `port` None with icmp (an echo request). `source_address`: for OUTSIDE the sender's, an address not
    of this host; else the address the sender binds to, None = the kernel's choice. `in_interface`: for OUTSIDE the
    host's interface the packet comes in by; `is_tunnelled`: that is a VXLAN interface, and the sender is on its network
    on another host. `size`: bytes of the IP packet (interfaces with a smaller MTU are told
    by a remark, and drop it where they cannot split it).
    """

    source_netns: str
    destination: Address | None
    protocol: ProbeProtocol
    port: int | None = None
    source_address: Address | None = None
    in_interface: str = ""
    size: int = 64
    is_tunnelled: bool = False


@dataclass(frozen=True, slots=True)
class Hop:
    """One decision on the way. `where`: the namespace it fell in ("" the host's).

    `is_ok` False: it stops the packet (then it is the trace's `decided_by`), or it is a remark: something there is
    not as it should be, which this packet survives. `key`: the object that decided; it may be one that is missing.
    `uses`: every object the decision leant on. `cause`: who wanted that object, where known. `towards`: the packet
    leaves this host, and that neighbour has to take it. `is_beyond`: what stops it is none of dari's making, like an
    interface of the host's own that is down.
    """

    stage: Stage
    where: str
    text: str
    is_ok: bool = True
    key: Key | None = None
    cause: str = ""
    uses: tuple[Key, ...] = ()
    is_answer: bool = False
    towards: Address | None = None
    is_beyond: bool = False

    @property
    def is_unseen(self) -> bool:
        """A remark on what cannot be looked into."""
        return self.key is not None and self.key[0] == "unseen"


@dataclass(frozen=True, slots=True)
class Trace:
    """The hops of the question, then those of the answer (`is_answer`).

    `decided_by`: the hop that stopped it; None where it is delivered.
    """

    hops: tuple[Hop, ...]
    verdict: Verdict
    decided_by: Hop | None = None


@dataclass(frozen=True, slots=True)
class Listeners:
    """Listening (tcp) and bound (udp) sockets: namespace → (protocol, address, port); 0.0.0.0 and :: are any.

    A `::` that also takes IPv4 is listed as both. A namespace that is not listed was not looked at.
    """

    sockets: Mapping[str, frozenset[tuple[str, Address, int]]] = field(default_factory=dict)

    @staticmethod
    def of(sockets: Iterable[tuple[str, str, Address, int]], looked_at: Iterable[str] = ()) -> Listeners:
        """From (namespace, protocol, address, port); `looked_at`: namespaces known even if nobody listens there."""
        found: dict[str, set[tuple[str, Address, int]]] = {name: set() for name in looked_at}
        for netns, protocol, address, port in sockets:
            found.setdefault(netns, set()).add((protocol, address, port))
        return Listeners({name: frozenset(each) for name, each in found.items()})

    def beside(self, netns: str, protocol: str, address: Address, port: int) -> Listeners:
        """The same with one more."""
        known = self.sockets.get(netns, frozenset())
        return Listeners({**self.sockets, netns: known | {(protocol, address, port)}})

    def find(self, netns: str, protocol: str, address: Address, port: int) -> bool | None:
        """Whether somebody takes it; None where that namespace was not looked at."""
        known = self.sockets.get(netns)
        if known is None:
            return None
        return any(
            kind == protocol
            and number == port
            and at.version == address.version
            and (at == address or at.is_unspecified)
            for kind, at, number in known
        )
