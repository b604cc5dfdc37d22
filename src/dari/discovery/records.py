"""Who has which name: from endpoints and links to zones and views. Pure.

On a user-defined network a running container is known by its name, short id, hostname and aliases, each
also with `.<network>` behind it; its addresses point back to `<name>.<network>`. A Compose project's containers are
also known by `<alias>.<project>`. The default bridge gives no names. Must not know packets, paths or stores; only the
types of `dari.dns.zone`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dari.dns.book import Piece, join
from dari.dns.book import piece as zone_piece
from dari.dns.zone import Addresses, Srv, View, Zone


@dataclass(frozen=True, slots=True)
class NamedNetwork:
    """What a zone needs of a network; `has_names` is false for the default bridge, host and none."""

    id: str
    name: str
    subnets: tuple[str, ...] = ()
    is_internal: bool = False
    has_names: bool = True
    ttl: int = 0
    order: str = "random"
    own: Mapping[str, Addresses] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Port:
    """A port somebody answers at; `service` is its name (`http`), where it has one."""

    number: int
    protocol: str
    service: str = ""


@dataclass(frozen=True, slots=True)
class NamedEndpoint:
    """One running container on one network. Addresses without prefix length; "" where it has none.

    `hostname` is Config.Hostname; "" when it is not to be a name (a shared UTS or network namespace). `service` is
    Compose's; it is listed under it, and known by it where it is an alias, too.
    """

    network_id: str
    sandbox_id: str
    container_name: str
    short_id: str
    ipv4: str = ""
    ipv6: str = ""
    hostname: str = ""
    aliases: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    project: str = ""
    service: str = ""
    tags: tuple[str, ...] = ()
    weight: int = 1
    own: Mapping[str, Addresses] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """A name only one sandbox knows: the target's name on the networks, or its addresses themselves."""

    alias: str
    target: str = ""
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NamedSandbox:
    """A sandbox that asks: its namespace, its networks in the order in which they answer, its links."""

    id: str
    netns_path: str
    port: int
    networks: tuple[str, ...]
    links: tuple[Link, ...] = ()
    upstreams: tuple[str, ...] = ()
    upstream_scope: str = "host"
    project: str = ""


@dataclass(frozen=True, slots=True)
class Records:
    """Everything the responder should know; keys are network and sandbox ids."""

    zones: Mapping[str, Zone] = field(default_factory=dict)
    views: Mapping[str, View] = field(default_factory=dict)


def records(
    networks: Iterable[NamedNetwork],
    endpoints: Iterable[NamedEndpoint],
    sandboxes: Iterable[NamedSandbox],
    *,
    ttl: int = 0,
) -> Records:
    """All zones and views. Endpoints of networks that are not given, or have no names, are left out."""
    known = {network.id: network for network in networks}
    by_network: dict[str, list[NamedEndpoint]] = {}
    for endpoint in endpoints:
        by_network.setdefault(endpoint.network_id, []).append(endpoint)
    zones = {
        network.id: zone(network, by_network.get(network.id, ()), ttl=ttl)
        for network in known.values()
        if network.has_names
    }
    return Records(zones, {sandbox.id: view(sandbox, known) for sandbox in sandboxes})


def zone(network: NamedNetwork, endpoints: Sequence[NamedEndpoint], *, ttl: int = 0) -> Zone:
    """The zone of one network. A name shared by several endpoints has all their addresses, in order."""
    empty = Zone(
        network_id=network.id,
        network_name=network.name,
        is_internal=network.is_internal,
        subnets=network.subnets,
        names=dict(network.own) if network.has_names else {},
        ttl=network.ttl or ttl,
        order=network.order,
    )
    return join(empty, [piece(each, network) for each in (endpoints if network.has_names else ())])


def piece(endpoint: NamedEndpoint, network: NamedNetwork) -> Piece:
    """What one endpoint adds to the zone of its network; `zone` of all is a `Book` of all pieces."""
    target = f"{endpoint.container_name}.{network.name}"
    found = tuple(each for each in (endpoint.ipv4, endpoint.ipv6) if each)
    weighted = endpoint.weight != 1
    addresses = Addresses(
        (endpoint.ipv4,) if endpoint.ipv4 else (),
        (endpoint.ipv6,) if endpoint.ipv6 else (),
        tuple(
            Srv(port.protocol, port.number, target.lower(), endpoint.weight, port.service)
            for port in endpoint.ports
        ),
        texts(endpoint.tags, {}),
        "",
        tuple((address, endpoint.weight) for address in found) if weighted else (),
    )
    return zone_piece(names(endpoint, network.name), addresses, target, project_names(endpoint), endpoint.own)


def project_names(endpoint: NamedEndpoint) -> list[str]:
    """What an endpoint is called with its Compose project behind it: `db.shop`. In the case they were given."""
    if not endpoint.project:
        return []
    plain = dict.fromkeys((*endpoint.aliases, endpoint.container_name))
    return [f"{name.rstrip('.')}.{endpoint.project}" for name in plain if name != endpoint.short_id]


def texts(tags: Iterable[str], meta: Mapping[str, str]) -> tuple[str, ...]:
    """What a TXT question for a member is answered: `tag=…` for each tag, `key=value` (RFC 1464) for the rest."""
    return (*(f"tag={tag}" for tag in tags), *(f"{key}={value}" for key, value in meta.items()))


def view(sandbox: NamedSandbox, networks: Mapping[str, NamedNetwork]) -> View:
    """The view of one sandbox; nothing is forwarded when all its networks are internal."""
    attached = [networks[key] for key in sandbox.networks if key in networks]
    return View(
        sandbox_id=sandbox.id,
        netns_path=sandbox.netns_path,
        port=sandbox.port,
        networks=tuple(network.id for network in attached if network.has_names),
        links={link.alias.lower(): link.addresses or link.target for link in sandbox.links},
        upstreams=sandbox.upstreams,
        upstream_scope=sandbox.upstream_scope,
        is_internal_only=bool(attached) and all(network.is_internal for network in attached),
        project=sandbox.project.lower(),
    )


def names(endpoint: NamedEndpoint, network_name: str) -> tuple[str, ...]:
    """The lower-case names of an endpoint, each once: plain ones first, then those with the network."""
    plain = (endpoint.container_name, endpoint.short_id, *endpoint.aliases, endpoint.hostname)
    short = dict.fromkeys(name.lower().rstrip(".") for name in plain if name.strip("."))
    suffix = network_name.lower()
    return tuple(dict.fromkeys([*short, *(f"{name}.{suffix}" for name in short)]))
