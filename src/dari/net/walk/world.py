"""World: a KernelState, the host's facts and what is foreign, as spaces and bridges.

Made once, walked often. Kinds of interfaces it does not know are kept as opaque: a walk that comes to one says so.
Must not know: packets. Next: space.py, ../explain.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from dari.net.facts import HostFacts
from dari.net.foreign import Foreign, Unseen
from dari.net.scope import Key
from dari.net.state import (
    HOST,
    Addr,
    Address,
    Bridge,
    Dummy,
    Fdb,
    Ipvlan,
    KernelObject,
    KernelState,
    Loopback,
    Macvlan,
    MovedLink,
    Neighbour,
    Netns,
    NftElement,
    NftRule,
    NftTable,
    Route,
    Sysctl,
    Veth,
    Vlan,
    Vxlan,
    WireGuard,
    WireGuardPeer,
    provides,
)
from dari.net.verdict import Ruleset
from dari.net.walk.space import DEFAULTS, UPLINK, Nic, Space


class World:
    """`spaces` by namespace name; `ports`: the veths on each bridge; `subs`: the macvlans and ipvlans on each
    of the host's interfaces; `tunnels`: the VXLAN interfaces on each bridge, `entries` what they know; `unseen`: what
    cannot be looked into, by namespace and interface; `ciphers`: the WireGuard interface of a namespace, `cipher_peers`
    to whom it leads."""

    def __init__(self, state: KernelState, facts: HostFacts, foreign: Foreign | None = None) -> None:
        self.state = state
        self.is_looked_at = foreign is not None
        self.bridges: dict[str, Bridge] = {}
        self.ports: dict[str, list[Veth]] = defaultdict(list)
        self.subs: dict[str, list[Macvlan | Ipvlan]] = defaultdict(list)
        self.tunnels: dict[str, list[Vxlan]] = defaultdict(list)
        self.entries: dict[Key, Fdb | Neighbour] = {}
        self.unseen: dict[tuple[str, str], list[Unseen]] = defaultdict(list)
        self.ciphers: dict[str, WireGuard] = {}
        self.cipher_peers: dict[str, list[WireGuardPeer]] = defaultdict(list)
        self._nics: dict[str, dict[str, Nic]] = defaultdict(dict)
        self._addresses: dict[str, list[Addr]] = defaultdict(list)
        self._routes: dict[str, list[Route]] = defaultdict(list)
        self._sysctls: dict[str, dict[str, str]] = defaultdict(dict)
        self._tables: dict[str, list[NftTable]] = defaultdict(list)
        self._elements: dict[str, list[NftElement]] = defaultdict(list)
        self._down = foreign.down if foreign is not None else frozenset()
        names = {HOST}
        self._nics[HOST]["lo"] = Nic("lo", "lo", ("link", HOST, "lo"))
        for each in state:
            if isinstance(each, Netns):
                names.add(each.name)
            else:
                self._take(each)
        if foreign is not None:
            self._take_foreign(foreign)
        else:
            self._take_facts(facts)
        self._adopt_bridges()
        self._plug_sub_interfaces()
        # Addresses behind interfaces that plugins made.
        plugged = {(each.netns, each.name) for each in state if isinstance(each, MovedLink)}
        self.plugged: dict[Address, Key] = {
            each.address.ip: ("link", each.netns, each.link)
            for each in state
            if isinstance(each, Addr) and (each.netns, each.link) in plugged
        }
        ruled = foreign.ruled if foreign is not None else frozenset()
        self.spaces = {name: self._space(name, is_ruled=name in ruled) for name in names}

    def space(self, name: str) -> Space | None:
        """None where there is no such namespace."""
        return self.spaces.get(name)

    def _space(self, name: str, *, is_ruled: bool) -> Space:
        return Space(
            name,
            self._nics[name],
            self._addresses[name],
            self._routes[name],
            self._sysctls[name],
            Ruleset(self._tables[name], self._elements[name]),
            is_ruled=is_ruled,
        )

    def _take(self, each: KernelObject) -> None:
        match each:
            case Bridge():
                self.bridges[each.name] = each
                self._nics[HOST][each.name] = Nic(
                    each.name, "bridge", each.key, each.is_up, each.mtu, bridge=each
                )
            case Veth():
                self._nics[HOST][each.name] = Nic(
                    each.name, "port", each.key, each.is_up, each.mtu, veth=each
                )
                if each.master:
                    self.ports[each.master].append(each)
                if each.peer_netns and each.peer:
                    # Without its other end an interface keeps its routes; switched off itself it does not.
                    is_up = each.is_up or (each.peer_netns, each.peer) not in self._down
                    self._nics[each.peer_netns][each.peer] = Nic(
                        each.peer, "inside", each.key, is_up, each.mtu, veth=each
                    )
            case Macvlan() | Ipvlan():
                self.subs[each.parent].append(each)
                self._nics[each.netns][each.name] = Nic(
                    each.name, "sub", each.key, each.is_up, each.mtu, sub=each
                )
            case MovedLink():
                self._nics[each.netns][each.name] = Nic(each.name, "opaque", each.key)
            case Vxlan():
                self._nics[HOST][each.name] = Nic(each.name, "opaque", each.key, each.is_up, each.mtu)
                self.tunnels[each.master].append(each)
            case Fdb() | Neighbour():
                self.entries[each.key] = each
            case WireGuard():
                self._nics[each.netns][each.name] = Nic(each.name, "opaque", each.key, each.is_up, each.mtu)
                self.ciphers[each.netns] = each
            case WireGuardPeer():
                self.cipher_peers[each.netns].append(each)
            case Vlan():
                self._nics[HOST][each.name] = Nic(each.name, "foreign", each.key, each.is_up, each.mtu)
            case Dummy():
                self._nics[HOST][each.name] = Nic(each.name, "dummy", each.key, each.is_up, each.mtu)
            case Loopback():
                self._nics[each.netns]["lo"] = Nic("lo", "lo", each.key)
            case Addr():
                self._addresses[each.netns].append(each)
            case Route():
                self._routes[each.netns].append(each)
            case Sysctl():
                self._sysctls[each.netns][each.path] = each.value
            case NftTable():
                self._tables[each.netns].append(each)
            case NftElement():
                self._elements[each.netns].append(each)
            case NftRule() | Netns():
                # A rule in a foreign chain is found in that table's text; a namespace was counted.
                pass
            case _:
                self._take_opaque(each)

    def _take_opaque(self, each: KernelObject) -> None:
        """A kind this walk was not told of: what it provides is there, and not seen through."""
        for key in provides(each):
            if key[0] == "link" and len(key) == 3:
                self._nics[key[1]].setdefault(key[2], Nic(key[2], "opaque", key))

    def _take_foreign(self, foreign: Foreign) -> None:
        for link in foreign.links:
            key: Key = ("link", link.netns, link.name)
            nic = Nic(link.name, "foreign", key, link.is_up, link.mtu, link.has_carrier)
            self._nics[link.netns].setdefault(link.name, nic)
        for each in foreign.unseen:
            self.unseen[each.netns, each.link].append(each)
        for address in foreign.addresses:
            # One address on several interfaces is no mistake: point-to-point links often share theirs.
            known = self._addresses[address.netns]
            if not any((one.link, one.address.ip) == (address.link, address.address.ip) for one in known):
                known.append(address)
        for route in foreign.routes:
            if not any(other.key == route.key for other in self._routes[route.netns]):
                self._routes[route.netns].append(route)
        for sysctl in foreign.sysctls:
            self._sysctls[sysctl.netns].setdefault(sysctl.path, sysctl.value)
        for table in foreign.tables:
            if not any(other.key == table.key for other in self._tables[table.netns]):
                self._tables[table.netns].append(table)

    def _adopt_bridges(self) -> None:
        """A bridge somebody else made and dari's veths are on."""
        for name in self.ports:
            nic = self._nics[HOST].get(name)
            if name not in self.bridges and nic is not None and nic.kind == "foreign":
                bridge = self.bridges[name] = Bridge(name, "", nic.mtu, nic.is_up)
                self._nics[HOST][name] = replace(nic, kind="bridge", bridge=bridge)

    def _plug_sub_interfaces(self) -> None:
        """A VLAN has the carrier of what it is on."""
        nics = self._nics[HOST]
        for each in self.state:
            parent = nics.get(each.parent) if isinstance(each, Vlan) else None
            if parent is not None and not (parent.is_up and parent.has_carrier):
                assert isinstance(each, Vlan)
                nics[each.name] = replace(nics[each.name], has_carrier=False)

    def _add_addresses(self, addresses: Iterable[Addr]) -> None:
        for each in addresses:
            known = self._addresses[each.netns]
            if not any(other.address.ip == each.address.ip for other in known):
                known.append(each)

    def _take_facts(self, facts: HostFacts) -> None:
        """Nobody looked at the host's own interfaces: one stands for them, with a way to everywhere."""
        self._nics[HOST][UPLINK] = Nic(UPLINK, "foreign", ("link", HOST, UPLINK))
        ours = [each.address.network for each in self._addresses[HOST]]
        self._add_addresses(
            Addr(HOST, UPLINK, each)
            for each in facts.addresses
            if not each.ip.is_loopback and not each.ip.is_link_local and each.network not in ours
        )
        for prefix in DEFAULTS.values():
            self._routes[HOST].append(Route(HOST, prefix, None, UPLINK, metric=1 << 30))
