"""The two ends of a question, and the address a packet between them goes to.

From the store's nouns to namespaces and addresses. Must not know: what becomes of the packet, names.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from dari.kernel.outside import Places
from dari.model import explain as nouns
from dari.model.container import Container
from dari.model.network import Endpoint, Network, Sandbox
from dari.net import sublinks
from dari.net.packet import OUTSIDE
from dari.net.state import HOST, Address
from dari.reconcile.attached import attachments
from dari.reconcile.context import Context
from dari.reconcile.networks import gateway_endpoint

Kind: TypeAlias = Literal["container", "host", "outside", "address", "name"]

_PROJECT, _SERVICE = "com.docker.compose.project", "com.docker.compose.service"
_LIVING = ("running", "paused")
# Drivers whose networks reach the world by this host.
_BY_THE_HOST = ("bridge", "overlay")


@dataclass(frozen=True, slots=True)
class End:
    """`netns`: where it lives ("" the host's, `outside`), None where that is nowhere on this host. `far`: its place
    on another node. `address`: of one outside that is somebody in particular."""

    kind: Kind
    name: str
    netns: str | None = None
    container: Container | None = None
    sandbox: Sandbox | None = None
    far: tuple[Network, Endpoint] | None = None
    address: Address | None = None

    @property
    def is_own(self) -> bool:
        """Whether it has a namespace of its own."""
        return self.kind == "container" and self.netns not in (None, HOST)


@dataclass(frozen=True, slots=True)
class Aim:
    """Where the packet goes: an address and port (that of the host's where a published port is asked), and the
    namespace it should arrive in (None: not on this host). `network`: the one the address is on."""

    address: Address
    port: int
    netns: str | None
    network: Network | None = None
    published: Publication | None = None


@dataclass(frozen=True, slots=True)
class Publication:
    """One port of a container at one of the host's."""

    protocol: str
    host_ip: str
    host_port: int
    container_port: int


@dataclass(frozen=True, slots=True)
class Uplink:
    """The host's interface that leads to an address outside, by which what comes from there is expected."""

    link: str
    host_end: Address
    far_end: Address

    def far(self, version: int) -> Address | None:
        """The address outside."""
        return self.far_end if self.far_end.version == version else None

    def near(self, version: int) -> Address | None:
        """The host's own address as it is seen from there."""
        return self.host_end if self.host_end.version == version else None


Beyond: TypeAlias = Places | Uplink
"""Where outside lies: a link made for the question, or an interface that is there."""

HOST_END = End("host", "host", HOST)
OUTSIDE_END = End("outside", OUTSIDE, OUTSIDE)


def is_running(container: Container) -> bool:
    return container.status.state in _LIVING


def end_of(ctx: Context, container: Container) -> End:
    """A container as an end; without a namespace where it does not run."""
    sandbox = ctx.tables.sandboxes.get(ctx.local, container.sandbox_id)
    netns: str | None = None
    if sandbox is not None and is_running(container):
        netns = HOST if sandbox.mode == "host" else os.path.basename(sandbox.netns)
    return End("container", container.name, netns, container, sandbox)


def places_of(ctx: Context, end: End) -> list[tuple[Network, Endpoint]]:
    """Its active endpoints with their networks, in the order of its interfaces."""
    if end.far is not None:
        return [end.far]
    return attachments(ctx, end.sandbox) if end.sandbox is not None else []


def addresses_on(endpoint: Endpoint) -> list[Address]:
    return [ipaddress.ip_address(each) for each in (endpoint.ipv4, endpoint.ipv6) if each]


def addresses_of(ctx: Context, end: End) -> list[Address]:
    """Of a container, IPv4 first, in the order of its interfaces."""
    found = [address for _, endpoint in places_of(ctx, end) for address in addresses_on(endpoint)]
    return sorted(found, key=lambda each: each.version)


def versions_of(ctx: Context, end: End) -> tuple[int, ...]:
    """The IP versions an end can ask by, the one it would take first in front."""
    if end.address is not None:
        return (end.address.version,)
    if not end.is_own:
        return (4, 6)
    return tuple(dict.fromkeys(each.version for each in addresses_of(ctx, end))) or (4,)


def owner_of(ctx: Context, address: Address) -> tuple[End, Network] | None:
    """The container that has an address, and the network it has it on."""
    return owners_of(ctx, (address,)).get(address)


def owners_of(ctx: Context, addresses: Iterable[Address]) -> dict[Address, tuple[End, Network]]:
    """The same of many, with one look at every endpoint; those that no container here has are left out."""
    asked = {str(each): each for each in addresses}
    found: dict[Address, tuple[End, Network]] = {}
    for network in ctx.tables.networks.all(ctx.shared):
        if len(found) == len(asked):
            break
        for endpoint in ctx.tables.endpoints.all(ctx.shared, network.id):
            for text in (endpoint.ipv4, endpoint.ipv6) if endpoint.is_active else ():
                address = asked.get(text)
                if address is None or address in found:
                    continue
                container = ctx.tables.containers.get(ctx.local, endpoint.container_id)
                if container is not None:
                    found[address] = end_of(ctx, container), network
    return found


def network_around(ctx: Context, address: Address) -> Network | None:
    """The network whose subnet holds an address."""
    for network in ctx.tables.networks.all(ctx.shared):
        for subnet in network.subnets:
            prefix = ipaddress.ip_network(subnet.subnet)
            if prefix.version == address.version and address in prefix:
                return network
    return None


def published(ctx: Context, protocol: str, port: int, address: Address) -> tuple[End, Publication] | None:
    """The container whose port is published at a host's address and port."""
    for sandbox in ctx.tables.sandboxes.all(ctx.local):
        for each in _publications(sandbox):
            at = ipaddress.ip_address(each.host_ip)
            if (each.protocol, each.host_port) != (protocol, port) or at.version != address.version:
                continue
            if at == address or at.is_unspecified:
                container = ctx.tables.containers.get(ctx.local, sandbox.container_id)
                if container is not None:
                    return end_of(ctx, container), each
    return None


def publications(end: End, protocol: str = "", port: int = 0) -> list[Publication]:
    """Where a container's port is published; all of its ports where none is named."""
    found = list(_publications(end.sandbox)) if end.sandbox is not None else []
    return [
        each for each in found if not protocol or (each.protocol, each.container_port) == (protocol, port)
    ]


def asked_publications(end: End, protocol: str, port: int) -> list[Publication]:
    """Of the container's own port, else of the host's: what somebody outside would type."""
    known = publications(end)
    own = [each for each in known if (each.protocol, each.container_port) == (protocol, port)]
    return own or [each for each in known if (each.protocol, each.host_port) == (protocol, port)]


def near_misses(ctx: Context, protocol: str, port: int) -> list[tuple[str, Publication]]:
    """Ports of the host's that were perhaps meant, with whose they are: the same one at another address or over another
    protocol, or where a container's port of that number is published."""
    found = []
    for sandbox in ctx.tables.sandboxes.all(ctx.local):
        container = ctx.tables.containers.get(ctx.local, sandbox.container_id)
        for each in _publications(sandbox) if container is not None else ():
            assert container is not None
            if each.host_port == port or (each.protocol, each.container_port) == (protocol, port):
                found.append((container.name, each))
    return sorted(found, key=lambda one: (one[1].host_port != port, one[1].protocol != protocol, one[0]))


def _publications(sandbox: Sandbox) -> Iterator[Publication]:
    for each in sandbox.ports if sandbox.is_active else ():
        # Without a port of the host's it is asked at its own address.
        for host_port, container_port in each.pairs() if each.host_port else ():
            yield Publication(each.protocol, each.host_ip, host_port, container_port)


def host_address(ctx: Context, source: End, places: Beyond | None, version: int) -> Address | None:
    """The host as an end sees it: its gateway, the near end of the link to outside, or itself."""
    if source.kind == "outside":
        return places.near(version) if places is not None else None
    if not source.is_own:
        return ipaddress.ip_address("127.0.0.1" if version == 4 else "::1")
    gateways = list(_gateways(ctx, source))
    return next((each for each in gateways if each.version == version), None)


def leaves_by(ctx: Context, source: End) -> Network | None:
    """The network whose own router leads a container to the world; None where it is this host."""
    places = places_of(ctx, source) if source.is_own else []
    first = gateway_endpoint(ctx, [endpoint for _, endpoint in places])
    network = next((network for network, endpoint in places if endpoint is first), None)
    return network if network is not None and network.spec.driver not in _BY_THE_HOST else None


def _gateways(ctx: Context, source: End) -> Iterator[Address]:
    attached = places_of(ctx, source)
    first = gateway_endpoint(ctx, [endpoint for _, endpoint in attached])
    # On internal networks the host has an address too, though no way leads on from it.
    for network, endpoint in sorted(attached, key=lambda pair: pair[1] is not first):
        # The host's own interface on a macvlan or ipvlan, where it has one.
        yield from (each.ip for each in sublinks.shim_addresses(network.spec.options))
        if network.spec.driver not in _BY_THE_HOST:
            continue
        for text in (endpoint.gateway, endpoint.gateway6):
            if text:
                yield ipaddress.ip_address(text)
        for subnet in network.subnets:
            if subnet.gateway:
                yield ipaddress.ip_address(subnet.gateway)


def aims(
    ctx: Context, source: End, target: End, protocol: str, port: int, places: Beyond | None
) -> list[Aim]:
    """Where a packet from one end to another can go, the first choice in front; none where there is no way to
    say (a target without addresses)."""
    versions = versions_of(ctx, source)
    if target.kind == "outside":
        if leaves_by(ctx, source) is not None:
            return []
        far = [places.far(each) for each in versions] if places is not None else []
        return [Aim(each, port, OUTSIDE) for each in far if each is not None]
    if target.kind == "host" or (target.kind == "container" and target.netns == HOST):
        found = [host_address(ctx, source, places, each) for each in versions]
        return [at(ctx, each, protocol, port) for each in found if each is not None]
    if source.kind == "outside":
        by_host = list(_by_the_host(target, protocol, port, places))
        if by_host:
            return by_host
    return _in_order(
        [
            Aim(address, port, target.netns, network)
            for network, endpoint in places_of(ctx, target)
            for address in addresses_on(endpoint)
        ],
        versions,
        {network.id for network, _ in places_of(ctx, source)},
    )


def _in_order(found: list[Aim], versions: tuple[int, ...], common: set[str]) -> list[Aim]:
    """Networks both are on first, then the IP version asked by first."""

    def rank(aim: Aim) -> tuple[bool, int]:
        version = aim.address.version
        place = versions.index(version) if version in versions else len(versions)
        return aim.network is None or aim.network.id not in common, place

    return sorted(found, key=rank)


def _by_the_host(target: End, protocol: str, port: int, places: Beyond | None) -> Iterator[Aim]:
    for each in asked_publications(target, protocol, port):
        address = ipaddress.ip_address(each.host_ip)
        if address.is_loopback:
            # Not for anybody outside.
            continue
        near = places.near(address.version) if places is not None else None
        if address.is_unspecified and near is None:
            continue
        if address.is_unspecified and near is not None:
            address = near
        yield Aim(address, each.host_port, target.netns, published=each)


def at(ctx: Context, address: Address, protocol: str, port: int, source: End | None = None) -> Aim:
    """An address `source` named: whose it is, or where it leads by a published port."""
    if address.is_loopback and source is not None and source.is_own:
        return Aim(address, port, source.netns)
    owner = owner_of(ctx, address)
    if owner is not None:
        return Aim(address, port, owner[0].netns, owner[1])
    behind = (
        published(ctx, protocol, port, address) if protocol != "icmp" and is_hosts(ctx, address) else None
    )
    if behind is not None:
        return Aim(address, port, behind[0].netns, published=behind[1])
    network = network_around(ctx, address)
    netns = HOST if is_hosts(ctx, address) else None
    return Aim(address, port, netns, network)


def is_hosts(ctx: Context, address: Address) -> bool:
    """Whether it is this host's own, loopback's and its bridges' included."""
    facts = ctx.settling.facts
    own = {each.ip for each in facts.addresses} if facts is not None else set()
    # Of a bridge: the gateway of others is a router out there.
    bridges = [each for each in ctx.tables.networks.all(ctx.shared) if each.spec.driver == "bridge"]
    gateways = {subnet.gateway for network in bridges for subnet in network.subnets}
    return address.is_loopback or address in own or str(address) in gateways


def line(end: End, protocol: str = "", address: str = "") -> nouns.End:
    """An end as it is told."""
    labels = end.container.config.labels if end.container is not None else {}
    return nouns.End(
        kind=end.kind,
        name=end.name,
        id=end.container.id if end.container is not None else "",
        address=address,
        protocol=protocol,
        project=labels.get(_PROJECT, ""),
        service=labels.get(_SERVICE, ""),
    )
