"""Segment: who answers on a bridge, and what keeps a frame from getting to him.

Must not know: IP rules, routes. Source: net/bridge/br_forward.c (should_deliver), br_private.h (br_skb_isolated).
"""

from __future__ import annotations

from typing import NoReturn

from dari.net.firewall import proxy_switch
from dari.net.packet import Stage
from dari.net.scope import Key
from dari.net.state import HOST, Address, Bridge, Fdb, Neighbour, Veth, Vxlan, WireGuard
from dari.net.text import endpoint_text
from dari.net.tunnel import LINK, interface
from dari.net.walk.space import Space, called
from dari.net.walk.trail import Trail
from dari.net.walk.world import World

_SWITCHES = {4: "net/bridge/bridge-nf-call-iptables", 6: "net/bridge/bridge-nf-call-ip6tables"}


class Segment:
    """The bridges of the host."""

    def __init__(self, world: World, trail: Trail, size: int) -> None:
        self._world = world
        self._trail = trail
        self._size = size

    def is_filtered(self, version: int) -> bool:
        """br_netfilter: the host's IP rules see frames inside a bridge."""
        return self._world.spaces[HOST].setting(_SWITCHES[version]) > 0

    def find(
        self,
        bridge: Bridge,
        port: Veth | None,
        space: Space,
        link: str,
        towards: Address,
        asker: Address,
        *,
        is_tunnelled: bool = False,
    ) -> Veth | Vxlan | None:
        """The port whose sandbox answers for `towards`, or the tunnel to the host that has it; None: the host itself
        (never for its own frames, `port` None). `space` and `link` ask, with the address `asker`. What came through a
        tunnel (`is_tunnelled`) does not leave through one again: its port does not turn frames round."""
        host = self._world.spaces[HOST]
        if not bridge.is_up:
            self._stop("neighbour", f"bridge {bridge.name} is down", bridge.key)
        found: list[Veth | None] = []
        apart: list[Veth] = []
        down: list[Veth] = []
        if port is not None and host.answers(bridge.name, towards, asker):
            found.append(None)
        for each in self._world.ports[bridge.name]:
            if each is port or not self._is_there(each, towards, asker):
                continue
            if not each.is_up:
                down.append(each)
            elif port is not None and port.is_isolated and each.is_isolated:
                apart.append(each)
            else:
                found.append(each)
        if not found and apart and towards.version == 4 and self._is_proxy(bridge):
            found.append(None)
        if not found and not apart and not down and not is_tunnelled:
            tunnel = self._far(bridge, port, space, towards)
            if tunnel is not None:
                return tunnel
        if not found:
            self._nobody(bridge, port, space, towards, apart, down)
        if len(found) > 1:
            names = " and ".join(called(each.peer_netns if each is not None else HOST) for each in found)
            self._trail.stop(
                "unknown",
                "neighbour",
                HOST,
                f"{towards} is claimed twice on bridge {bridge.name}: by {names}",
                bridge.key,
                tuple(each.key for each in found if each is not None),
            )
        answerer = found[0]
        self._check_macs(bridge, answerer)
        self._tell(bridge, port, space, link, towards, answerer)
        return answerer

    def _far(self, bridge: Bridge, port: Veth | None, space: Space, towards: Address) -> Vxlan | None:
        """The tunnel that knows the address as another host's."""
        for tunnel in self._world.tunnels[bridge.name]:
            neighbour = self._world.entries.get(("neighbour", HOST, tunnel.name, str(towards)))
            if not isinstance(neighbour, Neighbour):
                continue
            uses = (neighbour.key, tunnel.key, bridge.key, *((port.key,) if port is not None else ()))
            if not tunnel.is_up:
                self._stop("neighbour", f"the tunnel {tunnel.name} to other hosts is down", tunnel.key, uses)
            key: Key = ("fdb", HOST, tunnel.name, neighbour.mac)
            entry = self._world.entries.get(key)
            if not isinstance(entry, Fdb):
                text = f"{tunnel.name} knows {towards} as {neighbour.mac}, but not on which host that is"
                self._stop("neighbour", text, key, uses)
            text = f"{towards} is on host {entry.via}: it leaves through the tunnel {tunnel.name} (VNI {tunnel.vni})"
            self._trail.add("neighbour", space.name, text, entry.key, uses)
            if tunnel.underlay != HOST:
                self._encrypt(tunnel, entry)
            return tunnel
        return None

    def find_cipher(self, tunnel: Vxlan, *uses: Key) -> WireGuard:
        """The WireGuard interface a tunnel's packets pass, both ways. Stops where it is not fit to."""
        netns = tunnel.underlay
        uses = (tunnel.key, *uses)
        cipher = self._world.ciphers.get(netns)
        if cipher is None or not cipher.is_up:
            state = "there is no WireGuard interface" if cipher is None else f"{cipher.name} is down"
            key = cipher.key if cipher is not None else ("link", netns, LINK)
            text = f"packets of {tunnel.name} are to be encrypted and {state} in namespace {netns}: they are dropped"
            self._stop("neighbour", text, key, uses)
        space = self._world.space(netns)
        if space is None or space.owner(tunnel.local) is None:
            key = ("addr", netns, cipher.name, str(interface(tunnel.local)))
            text = f"{cipher.name} has lost its address {tunnel.local} in the encrypted tunnel: packets are dropped"
            self._stop("neighbour", text, key, (*uses, cipher.key))
        return cipher

    def _encrypt(self, tunnel: Vxlan, entry: Fdb) -> None:
        """The peer at the other end of what the tunnel sends."""
        netns, uses = tunnel.underlay, (tunnel.key, entry.key)
        cipher = self.find_cipher(tunnel, entry.key)
        for peer in self._world.cipher_peers[netns]:
            if not any(entry.via in each for each in peer.allowed):
                continue
            if peer.endpoint is None:
                text = f"{cipher.name} does not know where its peer for {entry.via} is: packets are dropped"
                self._stop("neighbour", text, peer.key, (*uses, cipher.key))
            text = f"{cipher.name} encrypts it (WireGuard) for {endpoint_text(peer)}, whose key is {peer.public_key}"
            self._trail.add("encrypt", HOST, text, peer.key, (*uses, cipher.key))
            return
        text = f"{cipher.name} has no peer for {entry.via}: without its key nothing is sent there, encrypted or not"
        self._stop("neighbour", text, ("wireguard-peer", netns, cipher.name, str(entry.via)), uses)

    def _is_proxy(self, bridge: Bridge) -> bool:
        """Whether the host answers there for whoever lies on the bridge (arp_fwd_pvlan_proxy in net/ipv4/arp.c)."""
        host = self._world.spaces[HOST]
        return host.setting(proxy_switch(bridge.name)) > 0 and host.is_forwarding(4, bridge.name)

    def check_turn(self, port: Veth, to: Veth) -> None:
        """A frame turned round inside the bridge obeys the ports' flags."""
        if to is port and not port.is_hairpin:
            text = f"{port.name} may not get back its own frames (hairpin is off)"
            self._trail.stop("dropped", "neighbour", HOST, text, port.key)
        if port.is_isolated and to.is_isolated:
            pair = (
                f"{port.name} is isolated from itself"
                if to is port
                else (f"{port.name} and {to.name} are isolated from each other")
            )
            text = f"{pair} (icc is off), and br_netfilter keeps the packet inside the bridge"
            self._trail.stop("dropped", "policy", HOST, text, to.key, (port.key,))

    def _is_there(self, port: Veth, towards: Address, asker: Address) -> bool:
        space = self._world.space(port.peer_netns) if port.peer_netns else None
        if space is None:
            return False
        if port.is_up:
            return space.answers(port.peer, towards, asker)
        return space.is_local(towards)

    def _has(self, port: Veth, address: Address) -> bool:
        space = self._world.space(port.peer_netns) if port.peer_netns else None
        owner = space.owner(address) if space is not None else None
        return owner is not None and owner.link == port.peer

    def _nobody(
        self,
        bridge: Bridge,
        port: Veth | None,
        space: Space,
        towards: Address,
        apart: list[Veth],
        down: list[Veth],
    ) -> NoReturn:
        uses: tuple[Key, ...] = (*((port.key,) if port is not None else ()), bridge.key)
        if apart:
            text = (
                f"{called(apart[0].peer_netns)} has {towards}, but its port and the sender's are isolated from"
                f" each other on bridge {bridge.name} (icc is off)"
            )
            self._stop("policy", text, apart[0].key, uses)
        if down:
            text = f"{called(down[0].peer_netns)} has {towards}, but its interface {down[0].peer} is down"
            self._stop("neighbour", text, down[0].key, uses)
        owner = next(
            (
                each
                for each in self._world.spaces.values()
                if each.name != space.name and towards in each.asleep
            ),
            None,
        )
        if owner is not None:
            text = f"{called(owner.name)} should have {towards}, but it is switched off there"
            self._stop("address", text, owner.asleep[towards], uses)
        strays = [
            each
            for ports in self._world.ports.values()
            for each in ports
            if each.master != bridge.name and self._has(each, towards)
        ]
        off = [
            each
            for each in self._world.state
            if isinstance(each, Veth) and not each.master and self._has(each, towards)
        ]
        for each in off:
            text = f"{called(each.peer_netns)} has {towards}, but its {each.name} is on no bridge"
            self._stop("neighbour", text, each.key, uses)
        for each in strays:
            text = f"{called(each.peer_netns)} has {towards}, but on bridge {each.master}, not {bridge.name}"
            self._stop("neighbour", text, each.key, uses)
        text = f"nobody on bridge {bridge.name} has the address {towards}"
        self._stop("neighbour", text, ("addr", "", bridge.name, str(towards)), uses)

    def _check_macs(self, bridge: Bridge, answerer: Veth | None) -> None:
        if answerer is None or not answerer.mac:
            return
        for each in self._world.ports[bridge.name]:
            if each is not answerer and each.is_up and each.mac == answerer.mac:
                text = (
                    f"{called(answerer.peer_netns)} and {called(each.peer_netns)} have the same MAC address"
                    f" {each.mac} on bridge {bridge.name}: frames go to the one or the other"
                )
                self._trail.stop("unknown", "neighbour", HOST, text, answerer.key, (each.key,))

    def _tell(
        self,
        bridge: Bridge,
        port: Veth | None,
        space: Space,
        link: str,
        towards: Address,
        answerer: Veth | None,
    ) -> None:
        ends: tuple[Key, ...] = tuple(each.key for each in (port, answerer) if each is not None)
        key = answerer.key if answerer is not None else bridge.key
        who = called(answerer.peer_netns) if answerer is not None else "the host"
        self._trail.add(
            "neighbour",
            space.name,
            f"{who} answers for {towards} on bridge {bridge.name}",
            key,
            (*ends, bridge.key),
        )
        if port is None or answerer is None:
            return
        narrow = min(answerer.mtu, port.mtu)
        if answerer.mtu < port.mtu:
            text = (
                f"packets of more than {narrow} bytes from {called(space.name)} ({link}, MTU {port.mtu}) are lost"
                f" before {who} ({answerer.peer}, MTU {answerer.mtu})"
            )
            if self._size > narrow:
                self._trail.stop("dropped", "deliver", HOST, text, answerer.key, (port.key,))
            self._trail.remark("deliver", HOST, text, answerer.key)

    def _stop(self, stage: Stage, text: str, key: Key, uses: tuple[Key, ...] = ()) -> NoReturn:
        self._trail.stop("unreachable", stage, HOST, text, key, uses)
