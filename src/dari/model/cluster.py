"""Nodes: the hosts that share one store.

A node is alive while its session in the store is; a member is a node that has joined and not left. What it publishes
vanishes with it. Must not know: stores, sessions.
"""

from __future__ import annotations

from dari.model.wire import Noun


class Node(Noun, frozen=True, kw_only=True):
    """A living node. `address` is where the others' overlay packets reach it, `mtu` that of its interface there.

    `started` and `joined` in ns since the epoch, by its own clock. `wireguard_key` is the public key of the node's
    encrypted tunnel (base64), `wireguard_port` where its packets come to, at `address`; `tunnel_address` is the node's
    in the tunnel. Without a key the node cannot encrypt, and `encryption_problem` says why. `next_wireguard_key` is the
    public key it is about to change to; empty at other times.
    """

    id: str
    name: str
    address: str
    mtu: int = 1500
    version: str = ""
    started: int = 0
    joined: int = 0
    labels: list[str] = []
    wireguard_key: str = ""
    next_wireguard_key: str = ""
    wireguard_port: int = 0
    tunnel_address: str = ""
    encryption_problem: str = ""

    @property
    def is_encrypting(self) -> bool:
        """Whether encrypted networks may be on it."""
        return bool(self.wireguard_key and self.tunnel_address)


class Member(Noun, frozen=True, kw_only=True):
    """A node that belongs to the cluster, alive or not; `seen` when it last joined."""

    id: str
    name: str
    address: str
    seen: int = 0


class Door(Noun, frozen=True, kw_only=True):
    """A port of a node's that leads into a container."""

    address: str
    port: int
    protocol: str = "tcp"


class Ask(Noun, frozen=True, kw_only=True):
    """A question to another node, under the session of the one that asks (`node`); its row lies below the one asked.

    `step` counts the questions of one talk. `body` is compressed JSON, whose form `kind` tells.
    """

    node: str
    step: int
    kind: str
    body: bytes


class Answer(Noun, frozen=True, kw_only=True):
    """The answer to a question's `step`, under the session of the node that was asked. `error`: why there is none."""

    step: int
    body: bytes = b""
    error: str = ""


class Published(Noun, frozen=True, kw_only=True):
    """A container that is reached at ports of its node, whatever networks it is on.

    `id` and `name` are the container's, `node` the id of its node; `names` are what it is looked up by, its service's
    first. `health` as its check says, empty where there is none.
    """

    id: str
    name: str
    node: str
    names: list[str]
    doors: list[Door]
    health: str = ""
    labels: dict[str, str] = {}
