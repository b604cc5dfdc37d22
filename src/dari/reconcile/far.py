"""Ends on other nodes: whose an address there is, on which node, and what is known of the way between the hosts.

The other node's kernel is not seen from here: what it does with a packet is said to be unknown. Must not know: HTTP,
walks.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dari.kernel.probed import ProbeResult
from dari.model.cluster import Member, Node
from dari.model.network import Endpoint, Network
from dari.net.state import Address
from dari.reconcile import shared_networks
from dari.reconcile.causes import Why
from dari.reconcile.context import Context
from dari.reconcile.far_words import Sighting
from dari.reconcile.splice import has_answered, was_seen


@dataclass(frozen=True, slots=True)
class Far:
    """`node` is None where nothing was heard of it for its time to live; `member` None where it was removed too."""

    network: Network
    endpoint: Endpoint
    node: Node | None
    member: Member | None

    @property
    def name(self) -> str:
        return next(iter(self.endpoint.dns_names), self.endpoint.container_id[:12])

    @property
    def host(self) -> str:
        """The node's name and address."""
        known = self.node or self.member
        return f"{known.name} ({known.address})" if known is not None else self.endpoint.node

    @property
    def underlay(self) -> Address | None:
        """Where its host is reached; None where it does not live."""
        return ipaddress.ip_address(self.node.address) if self.node is not None else None


def of_address(ctx: Context, address: Address) -> Far | None:
    """Whose an address is, where it is not one of this host's."""
    text = str(address)
    networks = [each for each in ctx.tables.networks.all(ctx.shared) if shared_networks.is_shared(each)]
    return next(
        (each for each in _on(ctx, networks) if text in (each.endpoint.ipv4, each.endpoint.ipv6)), None
    )


def of_name(ctx: Context, networks: Iterable[Network], name: str) -> Far | None:
    """Who would be known by a name on these networks, if its node lived."""
    asked = name.lower().rstrip(".")
    for each in _on(ctx, networks):
        if each.node is None and asked in (known.lower() for known in each.endpoint.dns_names):
            return each
    return None


def on(ctx: Context, networks: Iterable[Network]) -> list[Far]:
    """Everybody on other nodes, by name."""
    return sorted(_on(ctx, networks), key=lambda each: (each.name, each.endpoint.id))


def _on(ctx: Context, networks: Iterable[Network]) -> Iterator[Far]:
    for network in networks:
        for endpoint in ctx.tables.endpoints.all(ctx.shared, network.id):
            if endpoint.is_active and not shared_networks.is_mine(ctx, endpoint):
                node = ctx.tables.nodes.get(ctx.shared, endpoint.node)
                yield Far(network, endpoint, node, ctx.tables.members.get(ctx.shared, endpoint.node))


def dead(far: Far) -> Why:
    """Of an end whose node does not live."""
    text = f"{far.name} is on node {far.host}, of which nothing was heard for its time to live"
    return Why(text, "look after that host and its darid; if it is gone for good: dari node rm")


def unencrypted(ctx: Context, far: Far) -> Why | None:
    """Of an end on an encrypted network: why nothing can be encrypted for it; None where it can."""
    if not shared_networks.is_encrypted(far.network):
        return None
    for node in (ctx.node, far.node):
        if node is not None and not node.is_encrypting:
            reason = node.encryption_problem or "it has told no WireGuard key yet"
            text = f"network {far.network.name} is encrypted, and node {node.name} cannot encrypt: {reason}"
            return Why(
                text,
                f"run what is to be on {far.network.name} on nodes that can; nothing is sent in the clear",
            )
    return None


def narrower(own: Node, other: Node) -> int:
    """The largest packet both hosts' interfaces take."""
    return min(own.mtu, other.mtu)


def hole(ctx: Context, far: Far, small: ProbeResult | None, large: ProbeResult | None) -> Why | None:
    """Of a way between the hosts that loses large packets; None where it does not, or nobody can tell."""
    if far.node is None or ctx.node is None or small is None or large is None:
        return None
    if small.outcome != "answered" or large.outcome in ("answered", "failed"):
        return None
    size = narrower(ctx.node, far.node)
    text = (
        f"packets of {size} bytes do not get through between node {ctx.node.name} and node {far.host}, though both"
        f" hosts' interfaces take them ({large.text}): large answers hang"
    )
    return Why(
        text,
        "mend the way between the hosts, or give both interfaces the MTU it takes; ping -M do -s SIZE finds it",
    )


def lost(ctx: Context, far: Far, underlay: ProbeResult | None, seen: Sighting | None = None) -> Why:
    """Of a packet that left for a living node and was not answered. `seen`: what that node saw of it, None where it
    could not be asked."""
    port = shared_networks.data_port(ctx, far.network, far.node)
    if seen is not None and was_seen(seen):
        if has_answered(seen):
            text = f"the packet arrives on node {far.host} and is answered there, but no answer comes back"
        else:
            netns, hook, _ = (
                seen.seen[-1] if seen.seen else (seen.steps[-1].netns, seen.steps[-1].chain, False)
            )
            text = f"the packet came to node {far.host} and was seen last behind {hook} of {netns}: nothing answers"
        return Why(
            text,
            f"let UDP port {port} pass between the hosts, both ways; legacy iptables, tc and XDP are not traced",
        )
    if seen is not None and underlay is not None and underlay.outcome == "answered":
        return Why(
            f"the packet leaves for node {far.host} and never comes there, though that host answers a ping",
            f"let UDP port {port} pass between the hosts",
        )
    if underlay is None:
        return Why(
            f"no answer from {far.name} on node {far.host}; what becomes of the packet there is not seen from here",
            f"ask there: dari explain, dari doctor; let UDP port {port} pass between the hosts",
        )
    if underlay.outcome != "answered":
        own = f" and {ctx.node.address}" if ctx.node is not None else ""
        return Why(
            f"{far.name} is on node {far.host}, and that host does not answer a ping either ({underlay.text})",
            f"look at cables, routes and firewalls between {far.underlay}{own}",
        )
    return Why(
        f"no answer from {far.name}, though node {far.host} answers a ping; what becomes of the packet there "
        "is not seen from here",
        f"let UDP port {port} pass between the hosts; ask there: dari doctor, dari explain",
    )
