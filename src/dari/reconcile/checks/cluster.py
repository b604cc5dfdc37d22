"""The cluster, from where this node stands: the store, its own place in it, the other nodes, their clocks.

Nothing of it is this node's to mend. The entries made of the store's rows are compared in kernel.py. Must not know:
sessions, the store's kind.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from dari.model.cluster import Node
from dari.model.finding import Finding
from dari.reconcile import lost_places
from dari.reconcile.checks.found import Found
from dari.reconcile.context import Context
from dari.reconcile.node_claims import quarrel
from dari.reconcile.shared_networks import is_encrypted

# Less than that is the time a message takes on a busy machine.
_CLOCK_NS = 5_000_000_000


def look(ctx: Context) -> list[Found]:
    return [] if ctx.node is None else [Found(each) for each in _findings(ctx)]


def _findings(ctx: Context) -> Iterator[Finding]:
    own, status = ctx.node, ctx.shared.status()
    assert own is not None
    nodes = {each.id: each for each in ctx.tables.nodes.all(ctx.shared)}
    if not status.is_connected:
        yield Finding(
            "cluster.store-away",
            "error",
            "store",
            f"{status.url} does not answer: networks and members that nodes share cannot be changed",
            status.reason,
            "see that it runs and is reached; what runs goes on meanwhile",
        )
    elif own.id not in nodes or quarrel(ctx, own):
        yield Finding(
            "cluster.not-joined",
            "error",
            "node",
            f"this node, {own.name}, has not joined: the others know nothing of its containers, and no more of them "
            "can be put on networks that nodes share",
            quarrel(ctx, own) or "darid's log tells why",
            "it tries again every second, and goes on by itself once it has joined",
        )
    yield from _encryption(ctx, own, nodes)
    placed: dict[str, set[str]] = {}
    for endpoint in ctx.tables.endpoints.all(ctx.shared):
        if endpoint.is_active and endpoint.node:
            placed.setdefault(endpoint.node, set()).add(endpoint.container_id)
    # Without the store nobody is heard of.
    for member in ctx.tables.members.all(ctx.shared) if status.is_connected else ():
        if member.id in nodes or member.id == own.id:
            continue
        count = len(placed.get(member.id, ()))
        many = f"{count} containers" if count > 1 else "container"
        of = f"; names and entries of its {many} on shared networks are gone" if count else ""
        yield Finding(
            "cluster.node-down",
            "warning",
            f"node {member.name}",
            f"nothing was heard of it ({member.address}) for its time to live{of}",
            "its host, its darid or its way to the store is down",
            "start it again; if it is gone for good: dari node rm " + member.name,
        )
    yield from _off_networks(ctx)
    now = ctx.now()
    for node in nodes.values():
        if node.id != own.id and node.joined > now + _CLOCK_NS:
            ahead = (node.joined - now) // 1_000_000_000
            yield Finding(
                "cluster.clock",
                "warning",
                f"node {node.name}",
                f"it joined {ahead} s in the future: its clock is ahead of this node's, or this one's is behind",
                "nothing of dari's depends on it; times in logs and events of the two do not compare",
                "run chrony or systemd-timesyncd on both",
            )


def _off_networks(ctx: Context) -> Iterator[Finding]:
    """Before it has joined, what is missing may only not have been heard of."""
    for network, endpoint in lost_places.off_network(ctx) if ctx.session_id else ():
        container = ctx.tables.containers.get(ctx.local, endpoint.container_id)
        name = container.name if container is not None else endpoint.container_id[:12]
        why = lost_places.taken(ctx, endpoint)
        address = endpoint.ipv4 or endpoint.ipv6
        by_hand = f"its next start gives it another address, or dari network connect {network.name} {name}"
        yield Finding(
            "cluster.off-network",
            "error",
            f"container {name}",
            f"it runs without network {network.name}, where it was {address}"
            + (f": {why} by now" if why else ""),
            "this node was removed (dari node rm) while it was cut off, which frees what its containers had",
            f"{by_hand}; it goes back by itself once {address} is free"
            if why
            else "it goes back within seconds",
        )


def _encryption(ctx: Context, own: Node, nodes: dict[str, Node]) -> Iterator[Finding]:
    """Keys as the store tells them. Who is a peer in this kernel is compared in kernel.py."""
    for network in ctx.tables.networks.all(ctx.shared):
        if not is_encrypted(network):
            continue
        placed = {each.node for each in ctx.tables.endpoints.all(ctx.shared, network.id) if each.is_active}
        for node in (each for each in nodes.values() if each.id in placed and not each.is_encrypting):
            yield Finding(
                "encryption.impossible",
                "error",
                f"node {node.name}",
                f"it has containers on encrypted network {network.name} and cannot encrypt: they reach nobody on other "
                "nodes, and nobody there reaches them",
                node.encryption_problem or "it has told no WireGuard key",
                "give it a kernel with WireGuard and start its darid again, or run them on another node",
            )
    told = nodes.get(own.id)
    if told is not None and told.wireguard_key != own.wireguard_key:
        yield Finding(
            "encryption.key",
            "error",
            f"node {own.name}",
            f"the others are told {told.wireguard_key or 'no key'} as its WireGuard key, and it has "
            f"{own.wireguard_key or 'none'}: nothing they encrypt for it can be read",
            "somebody else wrote its row in the store",
            "find out who may write the store; then start this node's darid again, which tells its own key",
        )
    if own.wireguard_key:
        yield from _key_file(ctx, own)


def _key_file(ctx: Context, own: Node) -> Iterator[Finding]:
    path = ctx.config.wireguard_key_file
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError as error:
        yield Finding(
            "encryption.key",
            "warning",
            f"node {own.name}",
            f"the file of its WireGuard key, {path}: {error.strerror}",
            "it works with the key it has read, and has a new one after its next start",
            "nothing, the others follow; or put the file back",
        )
        return
    if mode & 0o077:
        yield Finding(
            "encryption.key",
            "error",
            f"node {own.name}",
            f"the file of its WireGuard key, {path}, can be read by others (mode {mode:04o})",
            "somebody other than dari changed it",
            f"chmod 600 {path}; a key that was read: remove the file and start darid again",
        )
