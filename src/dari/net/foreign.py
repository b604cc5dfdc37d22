"""Foreign: what of the kernel is not dari's and still decides about packets.

`kernel/look.py` fills it. The walk takes it beside a KernelState, the wanted and the found one alike: a host's own
interfaces are there either way. Must not know: how it is read.
"""

from __future__ import annotations

from dataclasses import dataclass

from dari.net.scope import Key
from dari.net.state import Addr, NftTable, Route, Sysctl


@dataclass(frozen=True, slots=True)
class ForeignLink:
    """An interface dari did not make. `kind` is the kernel's (veth, bridge, macvlan; empty: hardware). `has_carrier`:
    a cable is plugged in, the far end is up (IFF_LOWER_UP; true of one that is down as a whole)."""

    netns: str
    name: str
    kind: str = ""
    is_up: bool = True
    mtu: int = 1500
    has_carrier: bool = True


@dataclass(frozen=True, slots=True)
class Unseen:
    """Something that decides about packets and cannot be looked into: on an interface, or (`link` empty) in the whole
    namespace. `what` as in "XDP program 7". `version` of IP, 0 = both."""

    netns: str
    link: str
    what: str
    version: int = 0

    @property
    def key(self) -> Key:
        """As hops name it."""
        return ("unseen", self.netns, self.link, self.what)


@dataclass(frozen=True, slots=True)
class Foreign:
    """`addresses` and `routes`: on foreign interfaces, and others' on dari's; unicast, of the main table.

    `tables`: whole, with the elements of their sets. `sysctls`: those the walk asks for (`WATCHED`).
    `ruled`: namespaces whose routing rules (ip rule) are more than the kernel's three: routes there cannot be told.
    `down`: interfaces in sandboxes, dari's too, that are switched off at that very end (a veth has two).
    `unseen`: on dari's interfaces too.
    """

    links: tuple[ForeignLink, ...] = ()
    addresses: tuple[Addr, ...] = ()
    routes: tuple[Route, ...] = ()
    tables: tuple[NftTable, ...] = ()
    sysctls: tuple[Sysctl, ...] = ()
    ruled: frozenset[str] = frozenset()
    down: frozenset[tuple[str, str]] = frozenset()
    unseen: tuple[Unseen, ...] = ()


WATCHED = (
    "net/ipv4/ip_forward",
    "net/ipv4/icmp_echo_ignore_all",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/all/disable_ipv6",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
)
WATCHED_OF_LINK = (
    "net/ipv4/conf/{link}/forwarding",
    "net/ipv4/conf/{link}/rp_filter",
    "net/ipv4/conf/{link}/route_localnet",
    "net/ipv4/conf/{link}/accept_local",
)
