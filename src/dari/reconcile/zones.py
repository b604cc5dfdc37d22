"""Zone files' texts, from the store's nouns: who is known by which name on a network.

What an endpoint adds is made once and kept until its row or its container's changes, so that one container more on a
network of hundreds costs little more than on an empty one. Must not know: views, files, the responder.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from dari.discovery import own_records, records
from dari.dns import zone
from dari.dns.zone import Addresses
from dari.model.container import Container
from dari.model.network import Endpoint, Network
from dari.net import names_options
from dari.reconcile import members, shared_networks
from dari.reconcile.context import Context
from dari.reconcile.service_names import service_name

_UNWELL = "unhealthy"
PROJECT = "com.docker.compose.project"
_TAGS = "dari.tags"
_PORTS = "ports"
_TOLD = (PROJECT, _TAGS, names_options.WEIGHT, own_records.LABEL)


def has_names(network: Network) -> bool:
    """Whether containers on it are known by name: user-defined networks only, as in Docker."""
    return not network.is_predefined and not network.spec.is_config_only


def zone_text(ctx: Context, network_id: str) -> str | None:
    """None where the network is gone, has no names, or is one that others share and nobody here is on: its names
    would be made anew with every change and asked for by nobody."""
    if network_id == members.ZONE_ID:
        return members.zone_text(ctx)
    network = ctx.tables.networks.get(ctx.shared, network_id)
    if network is None or not has_names(network) or not _is_asked_here(ctx, network):
        ctx.settling.pieces.pop(network_id, None)
        return None
    named = named_network(network)
    known = ctx.settling.pieces.get(network_id, {})
    found: dict[str, tuple[Endpoint, Container | None, zone.Piece]] = {}
    for endpoint in shared_networks.living(ctx, ctx.tables.endpoints.all(ctx.shared, network_id)):
        container = ctx.tables.containers.get(ctx.local, endpoint.container_id)
        before = known.get(endpoint.id)
        if before is not None and before[0] is endpoint and before[1] is container:
            found[endpoint.id] = before
        else:
            made = records.piece(named_endpoint(endpoint, container), named)
            found[endpoint.id] = (endpoint, container, made)
    ctx.settling.pieces[network_id] = found
    return zone.encode_pieces(records.zone(named, ()), _by_health(found.values()))


def _is_asked_here(ctx: Context, network: Network) -> bool:
    # The host's own view has every network in it.
    return (
        not shared_networks.is_shared(network)
        or bool(ctx.config.dns_listen)
        or shared_networks.is_here(ctx, network)
    )


def _by_health(found: Collection[tuple[Endpoint, Container | None, zone.Piece]]) -> Iterable[zone.Piece]:
    """The pieces; a container that is unwell keeps only the names that nobody else answers to."""
    if not any(endpoint.health == _UNWELL for endpoint, _, _ in found):
        return [each for _, _, each in found]
    good = [each for endpoint, _, each in found if endpoint.health != _UNWELL]
    well = {name for each in good for name in each.names}
    projects = {name for each in good for name in each.projects}
    return [
        each._replace(
            names=tuple(name for name in each.names if name not in well),
            projects=tuple(name for name in each.projects if name not in projects),
        )
        if endpoint.health == _UNWELL
        else each
        for endpoint, _, each in found
    ]


def named_network(network: Network) -> records.NamedNetwork:
    return records.NamedNetwork(
        id=network.id,
        name=network.name,
        subnets=tuple(each.subnet for each in network.subnets),
        is_internal=network.spec.is_internal,
        has_names=has_names(network),
        ttl=names_options.ttl(network.spec.options),
        order=names_options.order(network.spec.options),
        own=_own(network.spec.labels),
    )


def named_endpoint(endpoint: Endpoint, container: Container | None) -> records.NamedEndpoint:
    """`container` is None where it is another node's: then its endpoint tells its names."""
    is_told = container is None and bool(endpoint.dns_names)
    told = told_of(container) if container is not None else endpoint.told
    plain_name = container.name if container is not None else endpoint.container_id[:12]
    return records.NamedEndpoint(
        network_id=endpoint.network_id,
        sandbox_id=endpoint.sandbox_id,
        container_name=endpoint.dns_names[0] if is_told else plain_name,
        short_id=endpoint.container_id[:12],
        ipv4=endpoint.ipv4,
        ipv6=endpoint.ipv6,
        hostname=container.config.hostname if container is not None else "",
        aliases=tuple(endpoint.dns_names[1:] if is_told else endpoint.spec.aliases),
        ports=tuple(_ports(told.get(_PORTS, ""))),
        project=told.get(PROJECT, ""),
        tags=tuple(each for each in told.get(_TAGS, "").split(",") if each),
        weight=names_options.weight(told.get(names_options.WEIGHT, "")),
        own=_own(told),
    )


def told_of(container: Container) -> dict[str, str]:
    """What names need to know of a container: some of its labels, and its exposed ports."""
    labels = container.config.labels
    found = {name: labels[name] for name in _TOLD if labels.get(name)}
    if container.config.exposed_ports:
        found[_PORTS] = " ".join(sorted(container.config.exposed_ports))
    return found


def _ports(text: str) -> Iterable[records.Port]:
    for each in text.split():
        number, _, protocol = each.partition("/")
        if number.isdigit():
            protocol = protocol or "tcp"
            yield records.Port(int(number), protocol, service_name(int(number), protocol))


def _own(labels: Mapping[str, str]) -> Mapping[str, Addresses]:
    try:
        return own_records.parse(labels.get(own_records.LABEL, ""))
    except ValueError:
        # Creating checks it; this one is from before there was a meaning to it.
        return {}
