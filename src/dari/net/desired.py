"""Desired: the input of render, parsed.

The reconciler makes it from the store's nouns; addresses are `ipaddress` objects here, so that nothing below this
door parses text. Must not know: Docker's JSON, stores, containers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Literal

from dari.net.state import Address, Interface, Prefix

Protocol = Literal["tcp", "udp", "sctp"]
GatewayMode = Literal["nat", "nat-unprotected", "routed", "isolated"]


@dataclass(frozen=True, slots=True)
class SubnetWant:
    """A subnet and the gateway's address in it (None: the host has no address there).

    `ip_range`: the part of it containers' addresses come from, if not all of it."""

    prefix: Prefix
    gateway: Interface | None
    ip_range: Prefix | None = None


@dataclass(frozen=True, slots=True)
class PeerWant:
    """An endpoint of a shared network on another host, which is reached at `via` in the underlay."""

    mac: str
    addresses: tuple[Address, ...]
    via: Address


@dataclass(frozen=True, slots=True)
class TunnelPeerWant:
    """Another node: its public key (base64), where its WireGuard packets come to, its address in the tunnel.

    `address` None: of a key it is about to change to, whose handshakes are answered and to which nothing is sent yet.
    """

    public_key: str
    endpoint: Address
    port: int
    address: Address | None


@dataclass(frozen=True, slots=True)
class TunnelWant:
    """The encrypted way to the nodes of a network. `address`: this node's in the tunnel; `port`, `mtu`: of the
    WireGuard interface; the same on all encrypted networks, their peers are not."""

    public_key: str
    address: Address
    port: int
    mtu: int
    peers: tuple[TunnelPeerWant, ...] = ()


@dataclass(frozen=True, slots=True)
class OverlayWant:
    """What makes a network of several hosts one. `local`: this host's address in the underlay.

    Where `is_encrypted` the underlay is the tunnel: `local` and the peers' `via` are addresses in it. `tunnel` None
    then: this node has none, and nothing of the network leaves it.
    """

    vni: int
    local: Address
    port: int
    peers: tuple[PeerWant, ...] = ()
    is_encrypted: bool = False
    tunnel: TunnelWant | None = None


@dataclass(frozen=True, slots=True)
class NetworkWant:
    """A network. `name` is the user's (for messages and causes); `altname` marks the bridge as dari's.

    `is_internal`: nothing enters or leaves but by the host itself. `is_icc`: its containers may speak with each
    other. `is_masquerading`: traffic that leaves dari's bridges gets the host's address, or the one of `snat` (by IP
    version). `gateway_modes` by IP version, nat where nothing is said: with `routed` nothing is translated and
    published ports answer at the container's address, with `nat-unprotected` all ports do, with `isolated` (internal
    networks only) the host itself has no address on the bridge. `trusted_interfaces` of the host reach published
    ports at the container's address, `is_direct_routing`: so do all. `accept_mark`: forwarded packets with this mark
    and mask pass (the daemon's, so the same for all). `is_inhibiting_ipv4`: the bridge carries no IPv4 address,
    somebody else on it is the gateway. `is_forwarding`: the host is made to forward. `options`: Docker's driver
    options as given. `plugin`: whose network it is, where `driver` is `remote`.
    """

    id: str
    name: str
    driver: str = "bridge"
    bridge_name: str = ""
    altname: str = ""
    subnets: tuple[SubnetWant, ...] = ()
    is_internal: bool = False
    mtu: int = 1500
    is_masquerading: bool = True
    is_icc: bool = True
    is_default: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    plugin: str = ""
    overlay: OverlayWant | None = None
    gateway_modes: Mapping[int, GatewayMode] = field(default_factory=dict)
    snat: Mapping[int, Address] = field(default_factory=dict)
    trusted_interfaces: tuple[str, ...] = ()
    is_direct_routing: bool = False
    accept_mark: tuple[int, int] | None = None
    is_inhibiting_ipv4: bool = False
    is_forwarding: bool = True

    def gateway_mode(self, version: int) -> GatewayMode:
        return self.gateway_modes.get(version, "nat")


@dataclass(frozen=True, slots=True)
class RouteWant:
    """A further route of an endpoint; `via` None = on the link."""

    to: Prefix
    via: Address | None


@dataclass(frozen=True, slots=True)
class EndpointWant:
    """One sandbox on one network: `interface` inside (eth0), `host_interface` on the bridge (veth...).

    `gateways`: at most one of each family; used where `is_default_gateway` (the endpoint through which the
    sandbox reaches the world). `sysctls`: slashed paths below
    /proc/sys, IFNAME stands for the interface. `altname` marks the host's end (`dari-ep-<id12>`).
    """

    id: str
    network_id: str
    sandbox_id: str
    host_interface: str
    interface: str
    mac: str
    addresses: tuple[Interface, ...]
    gateways: tuple[Address, ...] = ()
    is_default_gateway: bool = False
    routes: tuple[RouteWant, ...] = ()
    altname: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PublishWant:
    """`host_ip` unspecified (0.0.0.0 or ::) = any address of the host of that family.

    `target` is the container's address. `count` ports, host_port → container_port and so on. The kernel cannot
    translate `::1`, nor one family to the other: nothing is rendered for those (see the relay).
    """

    protocol: Protocol
    host_ip: Address
    host_port: int
    target: Address
    container_port: int
    count: int = 1

    @property
    def is_translatable(self) -> bool:
        return self.host_ip.version == self.target.version and not (
            self.host_ip.version == 6 and self.host_ip.is_loopback
        )


@dataclass(frozen=True, slots=True)
class LinkWant:
    """A port of `target` that `source` may ask though its network keeps its containers apart (--link)."""

    source: IPv4Address
    target: IPv4Address
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class Flow:
    """Packets from `prefix` to ports `low` to `high`. `protocol` as nft lists it (`58`: ICMPv6); protocols without
    ports have all of them."""

    prefix: Prefix
    protocol: str
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class PolicyWant:
    """Who may call a sandbox (policy.py). Flows do not overlap. `inner`: the subnets it is on, beyond which is
    outside; `closed`: interfaces by which only what is allowed comes in."""

    allow: tuple[Flow, ...] = ()
    deny: tuple[Flow, ...] = ()
    outside_allow: tuple[tuple[str, int, int], ...] = ()
    outside_deny: tuple[tuple[str, int, int], ...] = ()
    inner: tuple[Prefix, ...] = ()
    closed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SandboxWant:
    """A sandbox with a namespace of its own (`netns` is its name below the daemon's netns folder).

    `dns_port`: names are answered on 127.0.0.11, this port; None = nobody answers there. `policy` None: everybody
    may call. `links`: what it may ask others.
    """

    id: str
    netns: str
    sysctls: Mapping[str, str] = field(default_factory=dict)
    dns_port: int | None = None
    publishes: tuple[PublishWant, ...] = ()
    policy: PolicyWant | None = None
    links: tuple[LinkWant, ...] = ()


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything that should exist on this host."""

    networks: tuple[NetworkWant, ...] = ()
    endpoints: tuple[EndpointWant, ...] = ()
    sandboxes: tuple[SandboxWant, ...] = ()
