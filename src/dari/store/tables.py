"""What the keys are for: one table per noun, its codec and its key scheme.

Decoded rows are cached by revision, so listing 300 containers costs a lookup each, not a decode. Keys are
`<table>/<part>/…`; parts must not hold a slash, except in the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar, cast

import msgspec

from dari.model.cluster import Answer, Ask, Member, Node, Published
from dari.model.container import Container
from dari.model.event import Event
from dari.model.network import Endpoint, Network, Sandbox
from dari.model.plugin import PluginClaim
from dari.model.registration import Registration
from dari.model.volume import Volume
from dari.store.base import ABSENT, Row, Store, Txn
from dari.units import is_global_id

T = TypeVar("T")
P = TypeVar("P")

LINKING = "linking"
"""The one word of `Tables.linking_containers`."""

HERE = "-"
"""The word of `Tables.endpoints_of_node` for endpoints on this host's own networks, which are no node's."""

POLICY = "dari.policy"
"""The one word of `Tables.policed_containers` and `policed_networks`: the label."""


class Table(Generic[T]):
    """Typed rows under one prefix. `str` tables hold references (a name → an id)."""

    def __init__(self, name: str, kind: type[T]) -> None:
        self.prefix = f"{name}/"
        self.kind = kind
        self._encode = msgspec.json.Encoder().encode
        self._decoder = msgspec.json.Decoder(kind)
        self._cache: dict[str, tuple[Row, T]] = {}

    def key(self, *parts: str) -> str:
        return self.prefix + "/".join(parts)

    def get(self, store: Store, *parts: str) -> T | None:
        key = self.key(*parts)
        row = store.get(key)
        return None if row is None else self.decode(key, row)

    def all(self, store: Store, *parts: str) -> list[T]:
        """All rows below the given leading parts, in key order."""
        prefix = self.key(*parts) + "/" if parts else self.prefix
        return [self.decode(key, row) for key, row in store.read(prefix).items()]

    def at(self, store: Store, key: str) -> T | None:
        """The row of a whole key."""
        row = store.get(key)
        return None if row is None else self.decode(key, row)

    def keys(self, store: Store, *parts: str) -> list[tuple[str, ...]]:
        """The key parts of all rows below the given leading parts."""
        prefix = self.key(*parts) + "/" if parts else self.prefix
        return [tuple(key.removeprefix(self.prefix).split("/")) for key in store.read(prefix)]

    def put(self, txn: Txn, value: T, *parts: str) -> None:
        key = self.key(*parts)
        txn.puts[key] = self._encode(value)
        txn.deletes.discard(key)

    def insert(self, txn: Txn, value: T, *parts: str) -> None:
        """Put, and fail the transaction where the key exists."""
        txn.checks[self.key(*parts)] = ABSENT
        self.put(txn, value, *parts)

    def replace(self, txn: Txn, store: Store, value: T, *parts: str) -> None:
        """Put, and fail the transaction where the row changed since the mirror was read, or is gone."""
        row = store.get(self.key(*parts))
        txn.checks[self.key(*parts)] = ABSENT if row is None else row.revision
        self.put(txn, value, *parts)

    def delete(self, txn: Txn, *parts: str) -> None:
        key = self.key(*parts)
        txn.deletes.add(key)
        txn.puts.pop(key, None)

    def decode(self, key: str, row: Row) -> T:
        """What a row of this table says; once for each row."""
        cached = self._cache.get(key)
        if cached is not None and cached[0] is row:
            return cached[1]
        value = self._decoder.decode(row.value)
        self._cache[key] = (row, value)
        if len(self._cache) > 20_000:
            self._cache.clear()
        return value


class Placed(Table[Endpoint]):
    """Endpoints. What this host writes of one on a network of several nodes is kept here a second time, in the same
    transaction: somebody else may take the row away (`node rm`), and the container still asks for its network."""

    def __init__(self, name: str, kept: Table[Endpoint]) -> None:
        super().__init__(name, Endpoint)
        self._kept = kept

    def put(self, txn: Txn, value: Endpoint, *parts: str) -> None:
        super().put(txn, value, *parts)
        if is_global_id(parts[0]):
            self._kept.put(txn, value, *parts)

    def delete(self, txn: Txn, *parts: str) -> None:
        super().delete(txn, *parts)
        if is_global_id(parts[0]):
            self._kept.delete(txn, *parts)


class Place(msgspec.Struct, gc=False):
    """What the indexes need of an endpoint's row: it is read of every endpoint of the cluster, and not kept."""

    sandbox_id: str = ""
    node: str = ""


class Index(Generic[T, P]):
    """The rows of a table by a word in them, kept up with the store: looking up costs what was found.

    Nothing of it is stored. A row whose word is empty is left out. `kind` is what rows are read as here: the table's
    own, or less of it. Small, since there is one entry for every row of the cluster: a word with one row has its key,
    only one with several a set.
    """

    def __init__(self, table: Table[T], kind: type[P], word_of: Callable[[P], str]) -> None:
        self._table = table
        # What is read whole is read once for all who look at it, and kept where everybody else finds it.
        self._is_whole = kind is table.kind
        self._decode = msgspec.json.Decoder(kind).decode
        self._word_of = word_of
        self._store: Store | None = None
        self._seen = 0
        self._words: dict[str, str] = {}
        self._keys: dict[str, str | set[str]] = {}
        # Of words somebody asked for: how often their rows have changed.
        self._stamps: dict[str, int] = {}

    def get(self, store: Store, word: str) -> list[T]:
        """In key order."""
        rows = (self._table.at(store, key) for key in sorted(self.keys(store, word)))
        return [row for row in rows if row is not None]

    def keys(self, store: Store, word: str) -> Iterable[str]:
        """The keys of the word's rows, which nobody decodes for that."""
        self._catch_up(store)
        found = self._keys.get(word, ())
        return (found,) if isinstance(found, str) else found

    def words(self, store: Store) -> Iterable[str]:
        """Those that have rows."""
        self._catch_up(store)
        return self._keys.keys()

    def stamp(self, store: Store, word: str) -> int:
        """Another number than before whenever one of the word's rows has changed."""
        self._catch_up(store)
        return self._stamps.setdefault(word, 0)

    def _catch_up(self, store: Store) -> None:
        if store is not self._store:
            self._store, self._seen = store, 0
        # The first time everything is looked at: rows were there before anybody counted.
        first = self._seen == 0
        self._seen, changed = store.changes(self._seen)
        if first or changed is None:
            self._words.clear()
            self._keys.clear()
            self._stamps = {word: stamp + 1 for word, stamp in self._stamps.items()}
            for key, row in store.read(self._table.prefix).items():
                self._file(key, self._word_of(self._read(key, row)))
            return
        for key in changed:
            if key.startswith(self._table.prefix):
                found = store.get(key)
                self._file(key, "" if found is None else self._word_of(self._read(key, found)))

    def _read(self, key: str, row: Row) -> P:
        return cast(P, self._table.decode(key, row)) if self._is_whole else self._decode(row.value)

    def _file(self, key: str, word: str) -> None:
        known = self._words.pop(key, "")
        if self._stamps:
            for each in {known, word} & self._stamps.keys():
                self._stamps[each] += 1
        if known and known != word:
            others = self._keys[known]
            if isinstance(others, set):
                others.discard(key)
            if not others or others == key:
                del self._keys[known]
        if not word:
            return
        there = self._keys.get(word)
        if there is None:
            self._keys[word] = key
        elif isinstance(there, set):
            there.add(key)
        elif there != key:
            self._keys[word] = {there, key}
        self._words[key] = word


def _policy(labels: dict[str, str]) -> str:
    """Whether a row has a policy (net/policy.py): its label's name, or nothing."""
    return POLICY if POLICY in labels else ""


class Tables:
    """All tables of a daemon. Leases and names hold the id of their owner."""

    def __init__(self) -> None:
        self.containers = Table("containers", Container)  # <id>
        self.names = Table("names", str)  # <container name> → container id
        self.networks = Table("networks", Network)  # <id>
        self.network_names = Table("network-names", str)  # <name> → network id
        # <network id>/<endpoint id>, on this host alone
        self.kept_endpoints = Table("kept-endpoints", Endpoint)
        self.endpoints = Placed("endpoints", self.kept_endpoints)  # <network id>/<endpoint id>
        self.sandboxes = Table("sandboxes", Sandbox)  # <id>
        self.leases = Table("leases", str)  # <network id>/<address> → endpoint id
        self.ports = Table("ports", str)  # <proto>/<host ip>/<port> → sandbox id
        # <network id>/<kind>/<endpoint id>/<name>: what plugins were asked for
        self.plugin_claims = Table("plugin-claims", PluginClaim)
        self.last_addresses = Table("last-addresses", str)  # <network id>/<subnet> → the address given last
        self.volumes = Table("volumes", Volume)  # <name>
        self.nodes = Table("nodes", Node)  # <node id>, while it is alive
        self.node_names = Table("node-names", str)  # <node name> → node id, while it is alive
        self.node_addresses = Table("node-addresses", str)  # <data-path address> → node id, while it is alive
        self.tunnel_addresses = Table("tunnel-addresses", str)  # <address> → node id, until it leaves
        self.members = Table("members", Member)  # <node id>, until it leaves
        self.published = Table("published", Published)  # <node id>/<container id>, while the node is alive
        self.asks = Table("asks", Ask)  # <node asked>/<talk id>, while the one that asks is alive and listens
        self.answers = Table("answers", Answer)  # <node asked>/<talk id>, until the question is taken back
        self.allocations = Table("allocations", str)  # networks → how many shared ones were ever made
        self.vnis = Table("vnis", str)  # <VNI> → network id
        self.registrations = Table("registrations", Registration)  # <service>/<id>
        self.events = Table("events", Event)  # <time ns, 20 digits>-<n>
        self.endpoints_of_sandbox = Index(self.endpoints, Place, lambda row: row.sandbox_id)
        self.kept_of_sandbox = Index(self.kept_endpoints, Place, lambda row: row.sandbox_id)
        self.endpoints_of_node = Index(self.endpoints, Place, lambda row: row.node or HERE)
        self.nodes_of_mtu = Index(self.nodes, Node, lambda row: str(row.mtu))
        self.containers_of_sandbox = Index(self.containers, Container, lambda row: row.sandbox_id)
        self.sandboxes_left = Index(self.sandboxes, Sandbox, lambda row: row.owner_name)
        self.policed_containers = Index(self.containers, Container, lambda row: _policy(row.config.labels))
        self.policed_networks = Index(self.networks, Network, lambda row: _policy(row.spec.labels))
        self.linking_containers = Index(
            self.containers, Container, lambda row: LINKING if row.host.links else ""
        )


_SHARED = frozenset(
    (
        *("nodes", "node-names", "node-addresses", "tunnel-addresses", "members"),
        *("published", "asks", "answers"),
        *("vnis", "allocations", "registrations"),
    )
)
_OF_NETWORKS = frozenset(("networks", "endpoints", "leases"))


def is_shared(key: str, value: bytes | None) -> bool:
    """Whether a row is for all nodes: what is about nodes, and about networks with a global id."""
    table, _, rest = key.partition("/")
    if table in _SHARED:
        return True
    if table in _OF_NETWORKS:
        return is_global_id(rest.partition("/")[0])
    return table == "network-names" and value is not None and is_global_id(value.decode().strip('"'))
