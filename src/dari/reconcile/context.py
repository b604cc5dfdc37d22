"""What the reconciler works with: both hands, the settings and the clock.

One value, made by the daemon's main, passed to every function of this room and (inside `Engine`) of the engine. It
has no verbs. Must not know: HTTP, or who asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from dari.kernel.host import Kernel
from dari.kernel.plugin import Plugins
from dari.model.cluster import Node
from dari.model.config import Config
from dari.model.event import Event
from dari.model.network import Endpoint
from dari.net.desired import NetworkWant, PeerWant
from dari.net.facts import HostFacts
from dari.net.scope import Key
from dari.net.state import Fdb, Neighbour
from dari.reconcile.holds import Holds
from dari.reconcile.ledger import Ledger, Written
from dari.reconcile.life import Life
from dari.reconcile.taken import Addresses
from dari.runtime.containers import Runtime
from dari.runtime.images import Images
from dari.store.base import Store
from dari.store.tables import Tables


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel")


class Peer(NamedTuple):
    """An endpoint of another node, the node it is on, and what an overlay needs to know of the two."""

    endpoint: Endpoint
    node: Node
    want: PeerWant


class OverlayInForce(NamedTuple):
    """An overlay as it was last put into the kernel: what was wanted (its peers left out), the host it was rendered
    for, and the peers by endpoint."""

    want: NetworkWant
    facts: HostFacts
    peers: dict[str, Peer]


@dataclass(slots=True)
class Settling:
    """What settle remembers between batches; all of it can be lost without harm (boot makes it anew).

    `pending` are the ids of the next batch, `waiting` those who wait for it. By id of a network or sandbox:
    `rendered`, the keys it was last rendered to, `attached`, the networks it was last seen on, and `known_as`, the
    names it had on them. `standing` are keys of the host as a whole (the table of rules, forwarding) that are in force.
    `entries`, by network, are those of its tunnel as they should be (tunnels.py).
    `files` are the texts of the view files as last written. By network: `ledgers`, its names and what they were made of
    (zones.py), and `zone_files`, how far the file of its zone is (zone_files.py).
    """

    pending: dict[str, None] = field(default_factory=dict)
    waiting: asyncio.Future[None] | None = None
    is_busy: bool = False
    rendered: dict[str, frozenset[Key]] = field(default_factory=dict)
    attached: dict[str, frozenset[str]] = field(default_factory=dict)
    known_as: dict[str, frozenset[str]] = field(default_factory=dict)
    standing: frozenset[Key] = frozenset()
    entries: dict[str, dict[Key, Fdb | Neighbour]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    zone_files: dict[str, Written] = field(default_factory=dict)
    # By network, the addresses that are somebody's (taken.py).
    taken: dict[str, Addresses] = field(default_factory=dict)
    # This node's networks, and the stamp of its endpoints they were found at (shared_networks.py).
    placed: tuple[int, frozenset[str]] | None = None
    # By network, what the next change of a peer is compared with (peers.py).
    overlays: dict[str, OverlayInForce] = field(default_factory=dict)
    facts: HostFacts | None = None
    # The interfaces networks have for parents that were there when the host was last looked after.
    parents: frozenset[str] = frozenset()
    # Networks and endpoints for which pools and addresses are being asked of a plugin: their claims are nobody's to
    # take back.
    asking: set[str] = field(default_factory=set)
    # Plugins that did not answer, and when (ns): what goes does not wait for them at length again. Somebody has to try
    # later (plugin_boot.py).
    silent: dict[str, int] = field(default_factory=dict)
    has_left_overs: asyncio.Event = field(default_factory=asyncio.Event)
    # The kernel room is synchronous and owned by one thread (setns, netlink, libnftables).
    thread: ThreadPoolExecutor = field(default_factory=_one_thread)


@dataclass(slots=True)
class Relays:
    """What the relay was told, by name of the port: whose it is and where its connections go (HELD: nowhere, it is
    only held). `pid` 0: none runs."""

    told: dict[str, tuple[str, tuple[str, int]]] = field(default_factory=dict)
    pid: int = 0
    # Who hands over sockets to be held, if anybody does.
    handing: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Context:
    """`local` holds this host's objects, `shared` those of global scope (one and the same on a single host).

    `node` is this one among others, None where there is no cluster; `session_id` of the session its rows hang on, empty
    while it has none. `locks[object id]` serialises operations on one
    object; `listeners` get every event after its commit.
    """

    config: Config
    local: Store
    shared: Store
    tables: Tables
    kernel: Kernel
    runtime: Runtime
    images: Images
    node: Node | None = None
    session_id: str = ""
    now: Callable[[], int] = time.time_ns
    # The key of the last event (journal.py), 0 before the first.
    journal: int = 0
    locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    listeners: set[Callable[[Event], None]] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    settling: Settling = field(default_factory=Settling)
    holds: Holds = field(default_factory=Holds)
    # Network and IPAM plugins; without folders there are none.
    plugins: Plugins = field(default_factory=Plugins)
    relays: Relays = field(default_factory=Relays)
    # Containers by id: who watches and waits while this daemon runs.
    lives: dict[str, Life] = field(default_factory=dict)

    @property
    def node_id(self) -> str:
        """Empty where there is no cluster."""
        return self.node.id if self.node is not None else ""

    def lock(self, object_id: str) -> asyncio.Lock:
        return self.locks.setdefault(object_id, asyncio.Lock())

    def life(self, container_id: str) -> Life:
        return self.lives.setdefault(container_id, Life())
