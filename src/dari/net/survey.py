"""A survey: what surrounds dari's objects in the kernel and decides about their packets too.

Nothing of this is dari's to want (so it is no part of KernelState): neighbours, forwarding entries, routes and
policy rules of others, firewalls of others, what answers on the wire. Read by the kernel room, judged by
surroundings.py, never stored. A `Repair` is an operation on such a thing.
Must not know: how it is read, whose fault it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from dari.net.foreign import Unseen
from dari.net.state import Address, Interface, Prefix


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry of a neighbour table with a hardware address. `is_permanent`: the kernel never asks again."""

    netns: str
    link: str
    address: Address
    mac: str
    is_permanent: bool


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """Behind which port of a bridge a hardware address is. `is_local`: frames to it are for the host itself;
    `is_static`: somebody said so, it was not learnt."""

    bridge: str
    port: str
    mac: str
    is_static: bool
    is_local: bool


@dataclass(frozen=True, slots=True)
class Handshake:
    """How it is with a peer of the encrypted tunnel. `sent`: bytes ever; `has_answered`: there was a session once."""

    public_key: str
    sent: int
    has_answered: bool


@dataclass(frozen=True, slots=True)
class PortState:
    """A port of a bridge. `state`: 3 forwards (linux/if_bridge.h, BR_STATE_FORWARDING)."""

    name: str
    bridge: str
    state: int
    is_learning: bool
    is_flooding: bool


@dataclass(frozen=True, slots=True)
class FoundRoute:
    """Any route. `kind`: unicast, local, blackhole, unreachable, prohibit, throw, other. `protocol`: rtnetlink(7)."""

    netns: str
    table: int
    to: Prefix
    via: Address | None
    link: str
    metric: int
    protocol: int
    kind: str


@dataclass(frozen=True, slots=True)
class FoundAddress:
    netns: str
    link: str
    address: Interface
    protocol: int


@dataclass(frozen=True, slots=True)
class FoundLink:
    """An interface of the host: `altnames` tell whose it is."""

    name: str
    kind: str
    mtu: int
    mac: str
    is_up: bool
    altnames: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A rule of ip-rule(8) that the kernel did not make. `action`: table, blackhole, unreachable, prohibit, other."""

    netns: str
    version: int
    priority: int
    action: str
    table: int


@dataclass(frozen=True, slots=True)
class ForeignTable:
    """An nftables table of others, as nft lists it with handles (in sandboxes without)."""

    netns: str
    family: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Stale:
    """A connection the kernel still translates to an address nobody has, or to where nothing is published."""

    protocol: str
    source: Address
    asked: tuple[Address, int]
    answers: tuple[Address, int]


@dataclass(frozen=True, slots=True)
class NeighbourTable:
    """One of the machine's, by version of IP: `entries` of every namespace, permanent ones too, for which there is no
    limit; `most` of the others (gc_thresh3); how often one found no room since the machine started."""

    version: int
    entries: int
    most: int
    overflows: int


@dataclass(frozen=True, slots=True)
class Survey:
    """`sysctls` by (namespace, path). `answered`: by (bridge, address), the hardware addresses that answer ARP;
    addresses that were not asked for are not in it."""

    neighbours: tuple[Neighbour, ...] = ()
    fdb: tuple[FdbEntry, ...] = ()
    ports: tuple[PortState, ...] = ()
    routes: tuple[FoundRoute, ...] = ()
    addresses: tuple[FoundAddress, ...] = ()
    links: tuple[FoundLink, ...] = ()
    rules: tuple[PolicyRule, ...] = ()
    unseen: tuple[Unseen, ...] = ()
    tables: tuple[ForeignTable, ...] = ()
    stale: tuple[Stale, ...] = ()
    neighbour_tables: tuple[NeighbourTable, ...] = ()
    handshakes: tuple[Handshake, ...] = ()
    sysctls: Mapping[tuple[str, str], str] = field(default_factory=dict)
    answered: Mapping[tuple[str, Address], frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DropNeighbour:
    netns: str
    link: str
    address: Address

    def __str__(self) -> str:
        return f"- neigh {self.address} dev {self.link}"


@dataclass(frozen=True, slots=True)
class DropFdb:
    """`is_local`: see FdbEntry."""

    port: str
    mac: str

    def __str__(self) -> str:
        return f"- fdb {self.mac} dev {self.port}"


@dataclass(frozen=True, slots=True)
class PutRoute:
    """A route the kernel itself makes with an address: to its subnet (table main), or to itself (table local)."""

    netns: str
    link: str
    address: Interface
    is_local: bool

    def __str__(self) -> str:
        to = f"local {self.address.ip}" if self.is_local else str(self.address.network)
        return f"+ route {to} dev {self.link} src {self.address.ip}"


@dataclass(frozen=True, slots=True)
class PutPort:
    """A bridge's port forwards, learns and floods again."""

    name: str

    def __str__(self) -> str:
        return f"~ port {self.name} forwarding learning flood"


@dataclass(frozen=True, slots=True)
class PutSysctl:
    netns: str
    path: str
    value: str

    def __str__(self) -> str:
        return f"~ sysctl {self.path}={self.value}"


@dataclass(frozen=True, slots=True)
class ForgetConnection:
    stale: Stale

    def __str__(self) -> str:
        each = self.stale
        return (
            f"- conntrack {each.protocol} {each.source} -> {each.asked[0]} port {each.asked[1]},"
            f" answered by {each.answers[0]} port {each.answers[1]}"
        )


Repair: TypeAlias = DropNeighbour | DropFdb | PutRoute | PutPort | PutSysctl | ForgetConnection
