"""Zone files' texts, from the store's nouns: who is known by which name on a network.

What an endpoint adds is made once and kept until its row or its container's changes, and only what changed is looked
at, so that one container more on a network of thousands costs no more than on an empty one. Must not know: views, files
on disk, the responder. Next: zone_files.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from dari.discovery import own_records, records
from dari.dns.book import Book
from dari.dns.zone import Addresses
from dari.model.container import Container
from dari.model.network import Endpoint, Network
from dari.net import names_options
from dari.reconcile import members, shared_networks
from dari.reconcile.context import Context
from dari.reconcile.ledger import Ledger
from dari.reconcile.service_names import service_name
from dari.units import is_global_id

_UNWELL = "unhealthy"
PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"
_TAGS = "dari.tags"
_PORTS = "ports"
_TOLD = (PROJECT, _SERVICE, _TAGS, names_options.WEIGHT, own_records.LABEL)


def has_names(network: Network) -> bool:
    """Whether containers on it are known by name: user-defined networks only, as in Docker."""
    return not network.is_predefined and not network.spec.is_config_only


def zone_text(ctx: Context, network_id: str) -> str | None:
    """The whole of a zone's file; None where there should be none."""
    found = book(ctx, network_id)
    return found.text() if found is not None else None


def book(ctx: Context, network_id: str) -> Book | None:
    """A zone's names as they should be now. None where the network is gone, has no names, or is one that others share
    and nobody here is on: its names would be made anew with every change and asked for by nobody."""
    kept = ctx.settling.ledgers.get(network_id)
    if network_id == members.ZONE_ID:
        found = members.book(ctx, kept.book if kept is not None else None)
        if found is not None and kept is None:
            ctx.settling.ledgers[network_id] = Ledger(found)
    else:
        found = _of_network(ctx, network_id, kept)
    if found is None:
        ctx.settling.ledgers.pop(network_id, None)
    return found


def _of_network(ctx: Context, network_id: str, kept: Ledger | None) -> Book | None:
    network = ctx.tables.networks.get(ctx.shared, network_id)
    if network is None or not has_names(network) or not _is_asked_here(ctx, network):
        return None
    named = named_network(network)
    head = records.zone(named, ())
    if kept is None or kept.book.head != head:
        kept = ctx.settling.ledgers[network_id] = Ledger(Book(head))
    for endpoint_id in _endpoints_to_look_at(ctx, network_id, kept):
        _look(ctx, named, kept, endpoint_id)
    return kept.book


def _endpoints_to_look_at(ctx: Context, network_id: str, ledger: Ledger) -> Collection[str]:
    """Those whose row or whose container's row changed since the last time; all where that is not known, and where a
    node came or went: whether the endpoints of others count is for their nodes' rows to say."""
    before = ledger.seen
    shared, of_shared = ctx.shared.changes(before[0] if before else 0)
    local, of_local = (shared, of_shared)
    if ctx.local is not ctx.shared:
        local, of_local = ctx.local.changes(before[1] if before else 0)
    ledger.seen = (shared, local)
    if before is None or of_shared is None or of_local is None or _has_nodes(ctx, network_id, of_shared):
        there = {each.id for each in ctx.tables.endpoints.all(ctx.shared, network_id)}
        return there | ledger.rows.keys()
    found: set[str] = set()
    endpoints, containers = ctx.tables.endpoints.key(network_id) + "/", ctx.tables.containers.prefix
    for key in of_shared | of_local:
        if key.startswith(endpoints):
            found.add(key[len(endpoints) :])
        elif key.startswith(containers):
            found |= ledger.by_container.get(key[len(containers) :], set())
    return found


def _has_nodes(ctx: Context, network_id: str, changed: Collection[str]) -> bool:
    prefix = ctx.tables.nodes.prefix
    return is_global_id(network_id) and any(key.startswith(prefix) for key in changed)


def _look(ctx: Context, named: records.NamedNetwork, ledger: Ledger, endpoint_id: str) -> None:
    """Bring one endpoint's part up to date."""
    endpoint = ctx.tables.endpoints.get(ctx.shared, named.id, endpoint_id)
    before = ledger.rows.get(endpoint_id)
    if endpoint is None or not any(shared_networks.living(ctx, (endpoint,))):
        if before is not None:
            ledger.file(endpoint_id, None)
            ledger.book.put(endpoint_id, None)
        return
    container = ctx.tables.containers.get(ctx.local, endpoint.container_id)
    if before is not None and before[0] is endpoint and before[1] is container:
        return
    ledger.file(endpoint_id, (endpoint, container))
    made = records.piece(named_endpoint(endpoint, container), named)
    ledger.book.put(endpoint_id, made, is_well=endpoint.health != _UNWELL)


def _is_asked_here(ctx: Context, network: Network) -> bool:
    # The host's own view has every network in it.
    return (
        not shared_networks.is_shared(network)
        or bool(ctx.config.dns_listen)
        or shared_networks.is_here(ctx, network)
    )


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
        service=told.get(_SERVICE, ""),
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
