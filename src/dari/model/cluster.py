"""Nodes: the hosts that share one store.

A node is alive while its session in the store is; a member is a node that has joined and not left. Must not know:
stores, sessions.
"""

from __future__ import annotations

from dari.model.wire import Noun


class Node(Noun, frozen=True, kw_only=True):
    """A living node. `address` is where the others' overlay packets reach it, `mtu` that of its interface there.

    `started` and `joined` in ns since the epoch, by its own clock.
    """

    id: str
    name: str
    address: str
    mtu: int = 1500
    version: str = ""
    started: int = 0
    joined: int = 0
    labels: list[str] = []


class Member(Noun, frozen=True, kw_only=True):
    """A node that belongs to the cluster, alive or not; `seen` when it last joined."""

    id: str
    name: str
    address: str
    seen: int = 0
