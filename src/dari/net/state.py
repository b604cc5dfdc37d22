"""KernelState: what the kernel looks like, or should look like, as a set of keyed objects.

Five uses of one type: drivers render it, `kernel.read()` returns it, the fake kernel of the tests holds it,
`explain` walks it, `doctor` compares two of it. Found objects carry no notes, so what an object needs follows
from its kind and attributes (`needs`). A veth pair is one object with two ends.
Must not know: clocks, sockets, stores, Docker's names. Next: render.py, plan.py, text.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Literal, TypeAlias

from dari.net.scope import Key as Key
from dari.net.scope import Scope as Scope

Address: TypeAlias = IPv4Address | IPv6Address
Interface: TypeAlias = IPv4Interface | IPv6Interface
Prefix: TypeAlias = IPv4Network | IPv6Network

HOST = ""
"""The name of the host's own namespace in every `netns` field."""


@dataclass(frozen=True, slots=True)
class Netns:
    """A named network namespace, bound at `<netns dir>/<name>`."""

    name: str

    @property
    def key(self) -> Key:
        return ("netns", self.name)


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge in the host's namespace. `altname` is dari's mark of ownership (`dari-net-<id12>`)."""

    name: str
    altname: str
    mtu: int = 1500
    is_up: bool = True

    @property
    def key(self) -> Key:
        return ("link", HOST, self.name)


@dataclass(frozen=True, slots=True)
class Veth:
    """A veth pair: `name` in the host's namespace on bridge `master`, `peer` inside `peer_netns`.

    `altname` is on the host's end. `mac` is the peer's (sandbox's) address, lower case; `is_hairpin` lets the
    bridge send a frame back out of the port it came from; `is_isolated` (IFLA_BRPORT_ISOLATED) forbids frames to
    other isolated ports of the bridge, not to the host.
    """

    name: str
    altname: str
    peer: str
    peer_netns: str
    master: str
    mac: str
    mtu: int = 1500
    is_up: bool = True
    is_hairpin: bool = False
    is_isolated: bool = False

    @property
    def key(self) -> Key:
        return ("link", HOST, self.name)


@dataclass(frozen=True, slots=True)
class Dummy:
    """An interface that leads nowhere, in the host's namespace: the parent of a network without one."""

    name: str
    altname: str
    mtu: int = 1500
    is_up: bool = True

    @property
    def key(self) -> Key:
        return ("link", HOST, self.name)


@dataclass(frozen=True, slots=True)
class Vlan:
    """An 802.1q sub-interface of `parent`, both in the host's namespace."""

    name: str
    altname: str
    parent: str
    vlan_id: int
    mtu: int = 1500
    is_up: bool = True

    @property
    def key(self) -> Key:
        return ("link", HOST, self.name)


@dataclass(frozen=True, slots=True)
class Macvlan:
    """An interface with a hardware address of its own on the host's interface `parent`.

    It lives in `netns`, where `altname` marks it. `mode`: bridge, private, vepa or passthru.
    """

    netns: str
    name: str
    altname: str
    parent: str
    mode: str
    mac: str
    mtu: int = 1500
    is_up: bool = True

    @property
    def key(self) -> Key:
        return ("link", self.netns, self.name)


@dataclass(frozen=True, slots=True)
class Ipvlan:
    """An interface with the hardware address of the host's interface `parent`, told apart by its IP addresses.

    `mode`: l2, l3 or l3s, the same for all on one parent; `flag`: bridge, private or vepa.
    """

    netns: str
    name: str
    altname: str
    parent: str
    mode: str
    flag: str
    mtu: int = 1500
    is_up: bool = True

    @property
    def key(self) -> Key:
        return ("link", self.netns, self.name)


@dataclass(frozen=True, slots=True)
class Vxlan:
    """A VXLAN interface in the host's namespace, a port of bridge `master`.

    It learns nothing and floods nothing: it answers for the neighbours it has entries of (`Neighbour`) and sends to
    where `Fdb` entries say. `local` is this host's address in the underlay, `port` the UDP port of all; `underlay` the
    namespace its packets leave from and come to, the host's or the encrypted tunnel's.
    """

    name: str
    altname: str
    vni: int
    local: Address
    port: int
    master: str
    mtu: int = 1450
    is_up: bool = True
    underlay: str = HOST

    @property
    def key(self) -> Key:
        return ("link", HOST, self.name)


@dataclass(frozen=True, slots=True)
class WireGuard:
    """A WireGuard interface in `netns` whose own UDP packets leave from the host's namespace.

    `public_key` as base64; the private one that belongs to it is in no state (kernel/wireguard.py has it). `fwmark` is
    that of its own packets, 0: none.
    """

    netns: str
    name: str
    altname: str
    public_key: str
    port: int
    mtu: int = 1440
    is_up: bool = True
    fwmark: int = 0

    @property
    def key(self) -> Key:
        return ("link", self.netns, self.name)


@dataclass(frozen=True, slots=True)
class WireGuardPeer:
    """Who has `public_key` is reached at `endpoint`, `port`, and may send from `allowed`, and be sent to there, alone.

    `endpoint` None: the interface does not know where. `is_preshared`: the two are to have a further secret in common.
    """

    netns: str
    link: str
    public_key: str
    endpoint: Address | None
    port: int
    allowed: tuple[Prefix, ...]
    is_preshared: bool = False

    @property
    def key(self) -> Key:
        return ("wireguard-peer", self.netns, self.link, self.public_key)


@dataclass(frozen=True, slots=True)
class Fdb:
    """Frames to `mac` leave the VXLAN interface `link` for the host `via`."""

    link: str
    mac: str
    via: Address

    @property
    def key(self) -> Key:
        return ("fdb", HOST, self.link, self.mac)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent neighbour entry of the VXLAN interface `link`: what it answers to who asks for `address`."""

    link: str
    address: Address
    mac: str

    @property
    def key(self) -> Key:
        return ("neighbour", HOST, self.link, str(self.address))


@dataclass(frozen=True, slots=True)
class Loopback:
    """The loopback interface of a sandbox, up."""

    netns: str

    @property
    def key(self) -> Key:
        return ("link", self.netns, "lo")


@dataclass(frozen=True, slots=True)
class Addr:
    """An address on an interface of a namespace."""

    netns: str
    link: str
    address: Interface

    @property
    def key(self) -> Key:
        return ("addr", self.netns, self.link, str(self.address))


@dataclass(frozen=True, slots=True)
class Route:
    """A route dari made (own protocol number). `to` 0.0.0.0/0 is the default route."""

    netns: str
    to: Prefix
    via: Address | None
    link: str
    metric: int = 0

    @property
    def key(self) -> Key:
        return ("route", self.netns, str(self.to), str(self.metric))


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A value below /proc/sys, slashed path (`net/ipv4/ip_forward`), in a namespace.

    It carries no mark of ownership and cannot be absent: a reader finds it only where its key is asked for
    (scope.py), and nobody wanting it any more leaves it as it is.
    """

    netns: str
    path: str
    value: str

    @property
    def key(self) -> Key:
        return ("sysctl", self.netns, self.path)


@dataclass(frozen=True, slots=True)
class NftTable:
    """A constant table of rules in a namespace: chains, sets and maps without their elements.

    `text` is exactly what `nft -s list table` prints with the elements left out, so that wanted and found compare
    as text. Families: ip, ip6, inet, bridge. Setting the text replaces the table: its elements are gone and the
    plan adds them again behind it.
    """

    netns: str
    family: str
    name: str
    text: str

    @property
    def key(self) -> Key:
        return ("nft-table", self.netns, self.family, self.name)


@dataclass(frozen=True, slots=True)
class NftElement:
    """One element of a set (`value` empty) or map, spelled as nft lists it: `tcp . 8080` → `172.18.0.2 . 80`."""

    netns: str
    family: str
    table: str
    set: str
    element: str
    value: str = ""

    @property
    def key(self) -> Key:
        return ("nft-element", self.netns, self.family, self.table, self.set, self.element)


@dataclass(frozen=True, slots=True)
class NftRule:
    """A rule of dari's in somebody else's chain (DOCKER-USER), inserted at its head.

    Found again by its comment, `dari`; `text` is what `nft -s list chain` prints for it, the comment included.
    It is the only thing dari ever puts into a foreign table.
    """

    netns: str
    family: str
    table: str
    chain: str
    text: str

    @property
    def key(self) -> Key:
        return ("nft-rule", self.netns, self.family, self.table, self.chain)


@dataclass(frozen=True, slots=True)
class MovedLink:
    """An interface a plugin made in the host's namespace as `source`, moved into a sandbox and called `name` there.

    `altname` inside marks it and keeps the old name (`dari-ep-<id12>-from-<source>`). Not wanted any more, it goes
    back under that name, before its sandbox does: only who made it deletes it. `mac` empty: its own, whatever it is.
    """

    netns: str
    name: str
    source: str
    altname: str
    mac: str = ""

    @property
    def key(self) -> Key:
        return ("link", self.netns, self.name)


PluginKind: TypeAlias = Literal["network", "endpoint", "join", "external"]


@dataclass(frozen=True, slots=True)
class PluginFact:
    """What a network plugin was told, and has confirmed (`is_held`): that a network or an endpoint exists, that the
    endpoint has joined the sandbox of namespace `netns`, that it leads to the world.

    No kernel can be asked for these: the store remembers them (reconcile/plugins.py).
    """

    plugin: str
    kind: PluginKind
    network_id: str
    endpoint_id: str = ""
    netns: str = ""
    is_held: bool = True

    @property
    def key(self) -> Key:
        return ("plugin", self.network_id, self.kind, self.endpoint_id)


KernelObject: TypeAlias = (
    Netns
    | Bridge
    | Veth
    | Dummy
    | Vlan
    | Macvlan
    | Ipvlan
    | Vxlan
    | WireGuard
    | WireGuardPeer
    | Fdb
    | Neighbour
    | Loopback
    | Addr
    | Route
    | Sysctl
    | NftTable
    | NftElement
    | NftRule
    | MovedLink
    | PluginFact
)


@dataclass(frozen=True, slots=True)
class KernelState:
    """A set of kernel objects by key. Two objects of one key are one object that differs (a conflict)."""

    objects: Mapping[Key, KernelObject] = field(default_factory=dict)

    @staticmethod
    def of(objects: Iterable[KernelObject]) -> KernelState:
        """Raises ValueError where two different objects share a key."""
        table: dict[Key, KernelObject] = {}
        for each in objects:
            other = table.setdefault(each.key, each)
            if other != each:
                raise ValueError(f"two objects for {each.key}: {other} and {each}")
        return KernelState(table)

    def __iter__(self) -> Iterator[KernelObject]:
        return iter(self.objects.values())

    def __len__(self) -> int:
        return len(self.objects)

    def __or__(self, other: KernelState) -> KernelState:
        return KernelState.of([*self, *other])

    def within(self, scope: Scope) -> KernelState:
        """The objects whose keys are in the scope."""
        if scope.keys is None:
            return self
        if len(scope.keys) < len(self.objects):
            return KernelState({key: self.objects[key] for key in scope.keys if key in self.objects})
        return KernelState({key: each for key, each in self.objects.items() if key in scope.keys})

    def told(self) -> KernelState:
        """What plugins are told of: no kernel can be asked for it."""
        return KernelState({key: each for key, each in self.objects.items() if key[0] == "plugin"})

    def untold(self) -> KernelState:
        """Everything else: what the kernel holds."""
        return KernelState({key: each for key, each in self.objects.items() if key[0] != "plugin"})


def provides(each: KernelObject) -> tuple[Key, ...]:
    """The keys others may need that exist once `each` does: its own, and the far end of a veth pair."""
    if isinstance(each, Veth):
        return (each.key, ("link", each.peer_netns, each.peer))
    return (each.key,)


def holders(each: KernelObject) -> tuple[Key, ...]:
    """The keys of the objects `each` lives in: when one of them goes, the kernel removes `each` by itself."""
    if isinstance(each, Veth):
        return (("netns", each.peer_netns),)
    if isinstance(each, Vxlan | PluginFact | WireGuard):
        # A bridge that goes lets its ports go; a plugin forgets nothing by itself. What a namespace takes with it goes
        # behind our back, and until then its UDP port is in use.
        return ()
    return needs(each)


def needs(each: KernelObject) -> tuple[Key, ...]:
    """The keys of the objects that must exist before `each` can."""
    match each:
        case Veth():
            return (("netns", each.peer_netns), ("link", HOST, each.master))
        case Vxlan():
            return (("link", HOST, each.master), *_netns(each.underlay))
        case WireGuard():
            return _netns(each.netns)
        case WireGuardPeer():
            return (("link", each.netns, each.link), *_netns(each.netns))
        case Fdb() | Neighbour():
            return (("link", HOST, each.link),)
        case Vlan():
            return (("link", HOST, each.parent),)
        case Macvlan() | Ipvlan():
            return (("link", HOST, each.parent), *_netns(each.netns))
        case Loopback() | MovedLink():
            return (("netns", each.netns),)
        case PluginFact():
            return _needs_of_fact(each)
        case Addr():
            return (("link", each.netns, each.link), *_netns(each.netns))
        case Route():
            return (("link", each.netns, each.link), *_netns(each.netns))
        case Sysctl():
            return (*_link_of_sysctl(each), *_netns(each.netns))
        case NftTable() | NftRule():
            return _netns(each.netns)
        case NftElement():
            return (("nft-table", each.netns, each.family, each.table), *_netns(each.netns))
        case _:
            return ()


def _needs_of_fact(each: PluginFact) -> tuple[Key, ...]:
    before: dict[PluginKind, PluginKind] = {"endpoint": "network", "join": "endpoint", "external": "join"}
    if each.kind not in before:
        return ()
    kind = before[each.kind]
    return (("plugin", each.network_id, kind, "" if kind == "network" else each.endpoint_id),)


def _link_of_sysctl(each: Sysctl) -> tuple[Key, ...]:
    """The interface a `net/ipv4/conf/<interface>/...` value belongs to, if it is one of a single interface."""
    parts = each.path.split("/")
    if len(parts) == 5 and parts[2] in ("conf", "neigh") and parts[3] not in ("all", "default", "lo"):
        return (("link", each.netns, parts[3]),)
    return ()


def _netns(name: str) -> tuple[Key, ...]:
    return (("netns", name),) if name != HOST else ()
