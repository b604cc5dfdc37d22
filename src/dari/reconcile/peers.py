"""A peer of an overlay came, went or changed: its own entries are looked at, not the whole network.

An overlay of a thousand containers has two thousand entries in each host's kernel, and any of the containers may
start or end at any moment. What was put in force last is remembered, and only what differs from it is planned; where
anything but the peers differs, the network is settled whole. Must not know: the kernel, why a peer changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from dari.model.network import Network
from dari.net.desired import NetworkWant
from dari.net.facts import HostFacts
from dari.net.overlay import peer_objects, vxlan_name
from dari.net.scope import Key
from dari.net.state import KernelObject, KernelState
from dari.reconcile import shared_networks
from dari.reconcile.context import Context, OverlayInForce, Peer
from dari.reconcile.networks import network_want

_MARK = "peers/"


class Change(NamedTuple):
    """What is wanted of the peers that differ, the keys of what is theirs or was, and what is in force then."""

    wanted: KernelState
    keys: frozenset[Key]
    then: OverlayInForce


def of(network_id: str) -> str:
    """The id for `settle` that stands for a network's peers."""
    return _MARK + network_id


def network_of(object_id: str) -> str:
    """The network whose peers an id stands for; empty where it stands for something else."""
    return object_id.removeprefix(_MARK) if object_id.startswith(_MARK) else ""


def in_force(ctx: Context, want: NetworkWant, facts: HostFacts, network: Network) -> OverlayInForce:
    """`want` as something to compare the next change with."""
    if want.overlay is not None and want.overlay.peers:
        want = replace(want, overlay=replace(want.overlay, peers=()))
    return OverlayInForce(want, facts, shared_networks.peers(ctx, network))


def change(ctx: Context, network_id: str, facts: HostFacts) -> Change | None:
    """What differs from what is in force; None where that is not known, or more than peers differs."""
    before = ctx.settling.overlays.get(network_id)
    network = ctx.tables.networks.get(ctx.shared, network_id)
    if before is None or network is None:
        return None
    then = in_force(ctx, network_want(ctx, network, has_peers=False), facts, network)
    overlay = then.want.overlay
    if then.want != before.want or facts is not before.facts or overlay is None:
        return None
    if overlay.is_encrypted and overlay.tunnel is None:
        # Nobody is sent anything.
        return None
    link = vxlan_name(network_id)
    old = {each.key: each for each in _differing(link, before.peers, then.peers, facts)}
    new = {each.key: each for each in _differing(link, then.peers, before.peers, facts)}
    lost = old.keys() - new.keys()
    if lost:
        # An address or a hardware address that somebody else has by now stays.
        lost -= {each.key for peer in then.peers.values() for each in peer_objects(link, peer.want, facts)}
    wanted = {key: each for key, each in new.items() if old.get(key) != each}
    return Change(KernelState(wanted), frozenset(lost | wanted.keys()), then)


def _differing(
    link: str, peers: Mapping[str, Peer], others: Mapping[str, Peer], facts: HostFacts
) -> Iterator[KernelObject]:
    for endpoint_id, peer in peers.items():
        if others.get(endpoint_id) is not peer:
            yield from peer_objects(link, peer.want, facts)
