"""Space: one namespace as a packet meets it: interfaces, addresses, routes, settings, rules.

Routes are judged as Linux judges them: the longest prefix, then the lowest metric; a route stands as long as its
interface is up. Must not know: other namespaces, bridges.
Source: ip-route(8), kernel doc networking/ip-sysctl.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network
from typing import Literal

from dari.net.nftvalues import Flight
from dari.net.scope import Key
from dari.net.state import HOST, Addr, Address, Bridge, Ipvlan, Macvlan, Prefix, Route, Veth
from dari.net.verdict import Ruleset

LOOPBACK4 = IPv4Network("127.0.0.0/8")
UPLINK = "uplink"
"""Stands for the host's own interfaces where nobody looked at them."""

NicKind = Literal["lo", "bridge", "port", "inside", "sub", "dummy", "foreign", "opaque"]


@dataclass(frozen=True, slots=True)
class Nic:
    """An interface. port: a veth's end on the host · inside: its end in a sandbox · sub: a macvlan or ipvlan ·
    foreign: of the host, leading out · opaque: a kind not walked."""

    name: str
    kind: NicKind
    key: Key
    is_up: bool = True
    mtu: int = 1500
    has_carrier: bool = True
    veth: Veth | None = None
    bridge: Bridge | None = None
    sub: Macvlan | Ipvlan | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """A route: `via` None = on the link. `source`: the address a connected route prefers. `uses`: what it is of."""

    to: Prefix
    via: Address | None
    link: str
    metric: int
    source: Address | None
    key: Key
    uses: tuple[Key, ...]


class Space:
    """One namespace."""

    def __init__(
        self,
        name: str,
        nics: Mapping[str, Nic],
        addresses: list[Addr],
        routes: list[Route],
        sysctls: Mapping[str, str],
        rules: Ruleset,
        *,
        is_ruled: bool = False,
    ) -> None:
        self.name = name
        self.nics = nics
        self.sysctls = sysctls
        self.rules = rules
        self.is_ruled = is_ruled
        self.asleep: dict[Address, Key] = {}
        self.addresses: dict[str, list[Addr]] = {}
        self._local: dict[Address, Addr] = {}
        for each in addresses:
            if not self._has_family(each):
                self.asleep[each.address.ip] = ("sysctl", name, f"net/ipv6/conf/{each.link}/disable_ipv6")
            elif each.link in nics:
                self.addresses.setdefault(each.link, []).append(each)
                self._local.setdefault(each.address.ip, each)
            else:
                self.asleep[each.address.ip] = ("link", name, each.link)
        self._ways = [*self._connected(), *self._given(routes)]
        self._ways.sort(key=lambda each: (-each.to.prefixlen, each.metric))

    def _has_family(self, each: Addr) -> bool:
        if each.address.version == 4:
            return True
        return "1" not in (
            self.sysctls.get(f"net/ipv6/conf/{each.link}/disable_ipv6", "0"),
            self.sysctls.get("net/ipv6/conf/all/disable_ipv6", "0"),
        )

    def _connected(self) -> list[Way]:
        found = []
        for link, addresses in self.addresses.items():
            nic = self.nics[link]
            if not nic.is_up or nic.kind == "lo":
                continue
            for each in addresses:
                network = each.address.network
                if network.prefixlen < network.max_prefixlen:
                    metric = 0 if network.version == 4 else 256
                    way = Way(network, None, link, metric, each.address.ip, each.key, (each.key, nic.key))
                    found.append(way)
        return found

    def _given(self, routes: list[Route]) -> list[Way]:
        found = []
        for each in routes:
            nic = self.nics.get(each.link)
            if nic is None or not nic.is_up:
                continue
            own = [one for one in self.addresses.get(each.link, ()) if one.address.version == each.to.version]
            # IPv4 takes an interface's routes away with its last address.
            if own or each.link == UPLINK or each.to.version == 6:
                metric = each.metric or (0 if each.to.version == 4 else 1024)
                uses = (each.key, nic.key, *(one.key for one in own[:1]))
                found.append(Way(each.to, each.via, each.link, metric, None, each.key, uses))
        return found

    # Addresses

    def is_local(self, address: Address) -> bool:
        if address.version == 4:
            return address in self._local or address in LOOPBACK4
        return address in self._local or address.is_loopback

    def owner(self, address: Address) -> Addr | None:
        """The address object that makes it local."""
        return self._local.get(address)

    def has_family(self, version: int) -> bool:
        return any(
            each.address.version == version for addresses in self.addresses.values() for each in addresses
        )

    def address_type(self, address: Address, link: str) -> str:
        """As the kernel's tables say (Standpoint)."""
        if address.is_unspecified:
            return "unspec"
        if address.is_multicast:
            return "multicast"
        if self.is_local(address):
            owner = self._local.get(address)
            if not link or link == (owner.link if owner is not None else "lo"):
                return "local"
            return "unicast"
        is_broadcast = any(
            each.address.version == 4
            and each.address.network.prefixlen < 31
            and address == each.address.network.broadcast_address
            for addresses in self.addresses.values()
            for each in addresses
        )
        return "broadcast" if is_broadcast else "unicast"

    def link_towards(self, address: Address) -> str:
        if self.is_local(address):
            return "lo"
        way = self.way(address)
        return way.link if way is not None else ""

    def masquerade_address(self, flight: Flight) -> Address | None:
        way = self.way(flight.destination)
        towards = way.via if way is not None and way.via is not None else flight.destination
        return self.address_on(flight.out_link or flight.in_link, towards)

    def address_on(self, link: str, towards: Address) -> Address | None:
        """The interface's address packets towards a neighbour carry: of its subnet, else the first."""
        own = [
            each.address
            for each in self.addresses.get(link, ())
            if each.address.version == towards.version and not each.address.ip.is_link_local
        ]
        for each in own:
            if towards in each.network:
                return each.ip
        if towards.version == 6 and own:
            # RFC 6724, rule 8: the longest prefix in common.
            return max(own, key=lambda each: 128 - (int(each.ip) ^ int(towards)).bit_length()).ip
        return own[0].ip if own else None

    def source_for(self, destination: Address, way: Way | None) -> Address | None:
        """The address the kernel sends from; `way` None: to itself."""
        if way is None:
            owner = self._local.get(destination)
            if owner is not None:
                return owner.address.ip
            return LOOPBACK4[1] if destination.version == 4 else destination
        if way.source is not None and destination.version == 4:
            return way.source
        found = self.address_on(way.link, way.via or destination)
        if found is None:
            others = (self.address_on(link, destination) for link in self.addresses)
            found = next((each for each in others if each is not None), None)
        return found

    # Routes and settings

    def way(self, destination: Address) -> Way | None:
        """The route taken, local addresses aside."""
        for each in self._ways:
            if each.to.version == destination.version and destination in each.to:
                return each
        return None

    def setting(self, path: str) -> int:
        """A number below /proc/sys; 0 where it is not known."""
        try:
            return int(self.sysctls.get(path, "0"))
        except ValueError:
            return 0

    def is_forwarding(self, version: int, link: str) -> bool:
        if version == 6:
            return self.setting("net/ipv6/conf/all/forwarding") > 0
        own = self.sysctls.get(f"net/ipv4/conf/{link}/forwarding")
        return int(own) > 0 if own is not None else self.setting("net/ipv4/ip_forward") > 0

    def forwarding_key(self, version: int) -> Key:
        path = "net/ipv4/ip_forward" if version == 4 else "net/ipv6/conf/all/forwarding"
        return ("sysctl", self.name, path)

    def is_localnet(self, link: str) -> bool:
        """Whether 127.0.0.0/8 may travel over the interface."""
        return self._of_link(link, "route_localnet") > 0

    def _of_link(self, link: str, name: str) -> int:
        return max(self.setting(f"net/ipv4/conf/all/{name}"), self.setting(f"net/ipv4/conf/{link}/{name}"))

    def complaint(self, link: str, source: Address, destination: Address) -> str:
        """Why a packet coming in over the interface is thrown away by its addresses alone; empty: it is not.

        Source: net/ipv4/fib_frontend.c (fib_validate_source), net/ipv4/route.c (ip_route_input_slow).
        """
        if source.version == 6:
            return "a loopback address never comes from outside" if source.is_loopback else ""
        if (source in LOOPBACK4 or destination in LOOPBACK4) and not self.is_localnet(link):
            return f"127.0.0.0/8 may not come in over {link} (route_localnet is 0)"
        if self.is_local(source) and not self._of_link(link, "accept_local"):
            return f"its source {source} is an address of its own"
        mode = self._of_link(link, "rp_filter")
        if mode:
            back = self.way(source)
            if back is None:
                return f"rp_filter is {mode} and no route leads back to {source}"
            if mode == 1 and back.link != link:
                return f"rp_filter is 1 and the way back to {source} is {back.link}, not {link}"
        return ""

    def answers(self, link: str, address: Address, asker: Address) -> bool:
        """Whether it tells a neighbour on that interface that the address is its own (ARP, IPv6 discovery)."""
        nic = self.nics.get(link)
        if nic is None or not nic.is_up:
            return False
        if address.version == 6:
            return any(each.address.ip == address for each in self.addresses.get(link, ()))
        # arp_ignore 0: an address of any interface will do.
        is_own = self.is_local(address) and (address not in LOOPBACK4 or self.is_localnet(link))
        return is_own and not self.complaint(link, asker, address)


DEFAULTS: dict[int, Prefix] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


def default_key(space: str, version: int) -> Key:
    """The key of a default route (which may be missing)."""
    return ("route", space, str(DEFAULTS[version]), "0")


def called(name: str) -> str:
    """A namespace in a sentence."""
    return "the host" if name == HOST else name
