"""The half of a packet's way that lies on this node, for another one that asks: walked here, watched here.

The packet comes through an overlay's tunnel from a container there to one here; the answer goes back the same way.
Everything told names this node: the asker knows its own namespaces only. Must not know: rows, sessions, who waits.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import msgspec

from dari.kernel.probe import Probing
from dari.kernel.probed import ProbeResult, Shot, Step
from dari.model.errors import Conflict, InvalidArgument
from dari.model.explain import Walk
from dari.model.network import Network
from dari.net import tunnel
from dari.net.overlay import vxlan_name
from dari.net.packet import OUTSIDE, Hop, Listeners, Probe, Trace
from dari.net.scope import Scope
from dari.net.state import HOST, Address
from dari.reconcile import causes, conclude, ends, far_words, shared_networks
from dari.reconcile.context import Context
from dari.reconcile.doors import doors, listeners, listening
from dari.reconcile.ends import Aim, End
from dari.reconcile.explained import differences
from dari.reconcile.kernel import in_kernel
from dari.reconcile.picture import Picture, Walker, look
from dari.reconcile.probes import Probes
from dari.reconcile.talk import pack, unpack
from dari.reconcile.telling import named, walk_lines

_MOST_PORTS = 1024
# Of a pair: they travel in a row of the store.
_MOST_DIFFERENCES = 20


@dataclass(frozen=True, slots=True)
class _Pair:
    """A pair with its ends here; `owner` None where nobody here has the address."""

    asked: far_words.Pair
    source: Address
    target: Address
    owner: End | None
    link: str = ""
    aim: Aim | None = None

    @property
    def netns(self) -> str | None:
        return self.owner.netns if self.owner is not None else None


class FarHalf:
    """One talk. `answer` takes its questions in turn; `close` takes away what was made for it."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._probes: Probes | None = None
        self._pairs: list[_Pair] = []
        self._names: dict[str, str] = {}

    async def answer(self, kind: str, body: bytes) -> bytes:
        """Raises ValueError (not understood), DariError, OSError."""
        match kind:
            case far_words.DOORS:
                return pack(await self._doors(unpack(body, far_words.Doors)))
            case far_words.READY:
                return pack(await self._ready(unpack(body, far_words.Ready)))
            case far_words.REPORT:
                return pack(await self._report(unpack(body, far_words.Report)))
            case far_words.KNOWS:
                return pack(await self._knows(unpack(body, far_words.Knows)))
        raise ValueError(f"this version does not know the question {kind!r}")

    async def close(self) -> None:
        probes, self._probes = self._probes, None
        if probes is not None:
            self._listen_no_more(probes)
            await probes.close()

    # The questions

    async def _doors(self, asked: far_words.Doors) -> far_words.DoorsFound:
        addresses = {text: ipaddress.ip_address(text) for text in asked.addresses}
        owners = ends.owners_of(self._ctx, addresses.values())
        heard = await self._heard(end for end, _ in owners.values())
        found = [
            far_words.Door(address=text, protocol=protocol, port=port, why=why)
            for text, address in addresses.items()
            if address in owners
            for protocol, port, why in doors(owners[address][0], heard)
        ]
        return far_words.DoorsFound(doors=found)

    async def _heard(self, owners: Iterable[End]) -> Listeners:
        concerned = {each.netns for each in owners if each.netns}
        probes = await Probes.make(self._ctx, concerned, is_traced=False)
        try:
            return await probes.run(listeners, concerned)
        finally:
            await probes.close()

    async def _ready(self, asked: far_words.Ready) -> far_words.Readied:
        if len(asked.pairs) > far_words.MOST_PAIRS or len(asked.ports) > _MOST_PORTS:
            raise InvalidArgument("that is too much at once")
        await self.close()
        targets = {ipaddress.ip_address(each.target) for each in asked.pairs}
        owners = ends.owners_of(self._ctx, targets)
        self._pairs = [self._pair(each, owners) for each in asked.pairs]
        concerned = {each.netns for each in self._pairs if each.netns}
        picture = await look(self._ctx, concerned)
        probes = await Probes.make(self._ctx, concerned, is_traced=bool(asked.ports), ports=asked.ports)
        self._probes = probes
        for ear in probes.round.ears:
            asyncio.get_running_loop().add_reader(ear, probes.round.overhear)
        heard = await probes.run(listeners, {*concerned, HOST})
        self._names = picture.names
        halves = await asyncio.to_thread(self._halves, asked, picture, heard)
        return far_words.Readied(halves=halves, untraced=probes.round.untraced if asked.ports else "")

    async def _report(self, asked: far_words.Report) -> far_words.Reported:
        probes = self._probes
        if probes is None:
            raise Conflict("it was not asked to look out for them")
        self._listen_no_more(probes)
        packets = []
        for sent in asked.packets:
            if not 0 <= sent.pair < len(self._pairs):
                raise InvalidArgument(f"there is no pair {sent.pair}")
            pair = self._pairs[sent.pair]
            shot = Shot(HOST, pair.target, pair.asked.protocol, pair.asked.port, pair.netns)
            packets.append((shot, sent.port))
        results = await probes.run(Probing.sightings, packets)
        return far_words.Reported(
            sightings=[self._sighting(each) for each in results], untraced=probes.round.untraced
        )

    async def _knows(self, asked: far_words.Knows) -> far_words.Known:
        key = ("wireguard-peer", tunnel.NETNS, tunnel.LINK, asked.key)
        found = await in_kernel(self._ctx, lambda: self._ctx.kernel.read(Scope(frozenset({key}))))
        return far_words.Known(is_known=key in found.objects)

    def _listen_no_more(self, probes: Probes) -> None:
        for ear in probes.round.ears:
            asyncio.get_running_loop().remove_reader(ear)

    # Walking

    @staticmethod
    def _pair(asked: far_words.Pair, owners: Mapping[Address, tuple[End, Network]]) -> _Pair:
        """Raises ValueError."""
        source, target = ipaddress.ip_address(asked.source), ipaddress.ip_address(asked.target)
        owner = owners.get(target)
        if owner is None:
            return _Pair(asked, source, target, None)
        end, network = owner
        aim = Aim(target, asked.port, end.netns, network)
        return _Pair(asked, source, target, end, vxlan_name(network.id), aim)

    def _halves(self, asked: far_words.Ready, picture: Picture, heard: Listeners) -> list[far_words.Half]:
        walker = Walker(picture, heard, None)
        known: dict[bool, tuple[Trace | None, Trace | None]] = {}
        halves = []
        for each in self._pairs:
            network = each.aim.network if each.aim is not None else None
            is_encrypted = network is not None and shared_networks.is_encrypted(network)
            if is_encrypted not in known:
                known[is_encrypted] = self._between_hosts(walker, asked.underlay, network)
            halves.append(self._half(each, picture, walker, heard, known[is_encrypted]))
        return halves

    def _between_hosts(
        self, walker: Walker, asking: str, network: Network | None
    ) -> tuple[Trace | None, Trace | None]:
        """What stops the tunnel's own packets, coming in and going out. `asking`: the other node's address."""
        node = self._ctx.node
        if node is None:
            return None, None
        nodes = self._ctx.tables.nodes.all(self._ctx.shared)
        there = next((each for each in nodes if each.address == asking), None)
        own, other = ipaddress.ip_address(node.address), ipaddress.ip_address(asking)
        here, far = (shared_networks.data_port(self._ctx, network, each) for each in (node, there))
        coming = walker.between_hosts(own, other, here, is_leaving=False)
        return coming, walker.between_hosts(own, other, far, is_leaving=True)

    def _half(
        self,
        pair: _Pair,
        picture: Picture,
        walker: Walker,
        heard: Listeners,
        between: tuple[Trace | None, Trace | None],
    ) -> far_words.Half:
        wanted, found = self._walked(pair, walker)
        coming, going = between
        if coming is not None:
            found = coming
        elif going is not None and found.verdict == "delivered":
            hops = tuple(replace(each, is_answer=True) for each in going.hops)
            found = Trace((*found.hops, *hops), going.verdict, hops[-1])
        text, advice, listed = "", "", []
        if conclude.arrives(wanted) is False and pair.owner is not None:
            source = End("address", pair.asked.source_name)
            why = causes.why(
                self._ctx,
                source,
                pair.owner,
                pair.aim,
                pair.asked.protocol,
                pair.asked.port,
                wanted.decided_by,
            )
            text, advice, listed = self._told(why.text), why.advice, list(why.causes)
        told: list[str] = []
        if wanted.verdict != found.verdict:
            told = [self._told(each) for each in differences(picture, (wanted, found))[:_MOST_DIFFERENCES]]
        return far_words.Half(
            name=pair.owner.name if pair.owner is not None else "",
            wanted=self._walk(wanted),
            found=self._walk(found),
            listening=listening(heard, pair.netns or HOST, pair.asked.protocol, pair.asked.port),
            text=text,
            advice=advice,
            causes=listed,
            differences=told,
        )

    def _walked(self, pair: _Pair, walker: Walker) -> tuple[Trace, Trace]:
        if pair.owner is None or pair.netns is None:
            text = f"no running container here has the address {pair.target}"
            hop = Hop("address", HOST, text, is_ok=False)
            trace = Trace((hop,), "unreachable", hop)
            return trace, trace
        return walker.walk(
            Probe(
                source_netns=OUTSIDE,
                destination=pair.target,
                protocol=pair.asked.protocol,  # type: ignore[arg-type]
                port=pair.asked.port or None,
                source_address=pair.source,
                in_interface=pair.link,
                is_tunnelled=True,
            )
        )

    # Telling

    @property
    def _node(self) -> str:
        return self._ctx.node.name if self._ctx.node is not None else ""

    def _where(self, netns: str) -> str:
        return f"{'host' if netns == HOST else self._names.get(netns, netns)}@{self._node}"

    def _told(self, text: str) -> str:
        return named(text, self._names).replace("the host", f"node {self._node}")

    def _walk(self, trace: Trace) -> Walk:
        lines = walk_lines(trace, self._names)
        hops = [
            msgspec.structs.replace(line, where=self._where(hop.where), text=self._told(hop.text))
            for line, hop in zip(lines.hops, trace.hops, strict=True)
        ]
        return msgspec.structs.replace(lines, hops=hops)

    def _sighting(self, result: ProbeResult) -> far_words.Sighting:
        caught = next((at for at, each in enumerate(result.steps) if each is result.dropped_by), -1)
        return far_words.Sighting(
            steps=[self._step(each) for each in result.steps],
            seen=[(self._where(netns), hook, is_answer) for netns, hook, is_answer in result.seen],
            caught=caught,
            is_delivered=result.is_delivered,
        )

    def _step(self, step: Step) -> Step:
        return replace(step, netns=self._where(step.netns))
