"""The other end's node is asked for its half: what its own kernel does with a packet, and what it saw of one sent.

Must not know: how rows carry it (talk.py), what the answer means (conclude.py). The other side is far_half.py.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from types import TracebackType

from dari.model.cluster import Node
from dari.model.network import Network
from dari.net.packet import Trace
from dari.reconcile import far_words
from dari.reconcile.context import Context
from dari.reconcile.far_words import Pair
from dari.reconcile.picture import Walker
from dari.reconcile.shared_networks import data_port
from dari.reconcile.splice import Across, joined, misled
from dari.reconcile.talk import NoAnswerError, Talk

SECONDS = 2.0
"""How long a node is waited for at least. It answers in some hundredths of a second when it does at all."""

_SECONDS_A_PAIR = 0.01


def patience(timeout: float) -> float:
    """How long a node is waited for, in seconds, by who waits so long for a packet: a user who has more time gives it
    to the other nodes too."""
    return max(SECONDS, timeout)


class Other:
    """One node, asked about some pairs by somebody who waits `timeout` seconds for a packet. An async context manager:
    its end takes the questions back."""

    def __init__(self, ctx: Context, node: Node, timeout: float) -> None:
        self.node = node
        self._seconds = patience(timeout)
        self.ports: tuple[int, ...] = ()
        self._ctx = ctx
        self._talk = Talk(ctx, node)
        self._count = 0
        self._asking: asyncio.Task[far_words.Readied] | None = None

    async def __aenter__(self) -> Other:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._asking is not None and not self._asking.done():
            self._asking.cancel()
            await asyncio.wait([self._asking])
        await self._talk.close()

    async def doors(self, addresses: Sequence[str]) -> list[far_words.Door]:
        """Of the containers with these addresses there. Raises NoAnswerError."""
        question = far_words.Doors(addresses=list(addresses))
        return (await self._talk.ask(far_words.DOORS, question, far_words.DoorsFound, self._seconds)).doors

    def ready(self, pairs: Sequence[Pair], ports: Sequence[int]) -> None:
        """Begin to ask for these pairs' halves; `ports`: where their packets will come from, if any are sent."""
        self.ports, self._count = tuple(ports), len(pairs)
        own = self._ctx.node.address if self._ctx.node is not None else ""
        question = far_words.Ready(underlay=own, pairs=list(pairs), ports=list(ports))
        seconds = self._seconds + len(pairs) * _SECONDS_A_PAIR
        self._asking = asyncio.create_task(
            self._talk.ask(far_words.READY, question, far_words.Readied, seconds),
            name=f"ask {self.node.name}",
        )

    async def halves(self) -> list[Across]:
        """In the order of the pairs; from now on that node looks out for the packets. Raises NoAnswerError."""
        assert self._asking is not None
        told = await self._asking
        try:
            if len(told.halves) != self._count:
                raise ValueError("not every pair is in its answer")
            return [Across.of(self.node.name, each) for each in told.halves]
        except ValueError as error:
            raise NoAnswerError(
                f"node {self.node.name} answered what is not understood here: {error}"
            ) from error

    async def sightings(self, packets: Sequence[tuple[int, int]]) -> far_words.Reported:
        """What was seen there of packets, each by its pair's index and the port it came from. Raises NoAnswerError."""
        question = far_words.Report(packets=[far_words.Sent(pair=pair, port=port) for pair, port in packets])
        seconds = self._seconds + len(packets) * _SECONDS_A_PAIR
        told = await self._talk.ask(far_words.REPORT, question, far_words.Reported, seconds)
        if len(told.sightings) != len(packets):
            raise NoAnswerError(f"node {self.node.name} did not tell of every packet")
        return told


class Between:
    """What this host's kernel does to the tunnel's own packets, to each node and from it; walked once."""

    def __init__(self, ctx: Context, walker: Walker) -> None:
        self._ctx = ctx
        self._walker = walker
        self._known: dict[tuple[str, int, int], tuple[Trace | None, Trace | None]] = {}

    def whole(
        self, wanted: Trace, found: Trace, network: Network, node: Node | None, across: Across | None
    ) -> tuple[Trace, Trace]:
        """Both walks over both hosts, as far as the other one told its half; the tunnel is `network`'s."""
        found = misled(wanted, found)
        if node is None or self._ctx.node is None:
            return wanted, found
        far_wanted = across.wanted if across is not None else Trace((), "delivered")
        far_found = across.found if across is not None else Trace((), "delivered")
        return joined(wanted, far_wanted), joined(found, far_found, *self._stops(network, node))

    def _stops(self, network: Network, node: Node) -> tuple[Trace | None, Trace | None]:
        """Leaving, and coming."""
        assert self._ctx.node is not None
        there, here = (data_port(self._ctx, network, each) for each in (node, self._ctx.node))
        key = (node.address, there, here)
        if key not in self._known:
            own, other = ipaddress.ip_address(self._ctx.node.address), ipaddress.ip_address(node.address)
            leaving = self._walker.between_hosts(own, other, there, is_leaving=True)
            coming = self._walker.between_hosts(own, other, here, is_leaving=False)
            self._known[key] = leaving, coming
        return self._known[key]
