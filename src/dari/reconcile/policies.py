"""Policies: which sandboxes have one, and what it means while these containers are there.

From labels of containers and networks, and the endpoints on the receiver's networks, to `PolicyWant`. Peers that come
and go change elements of the receiver's table, so whoever settles an endpoint settles those with a policy beside it.
Must not know: rules. See net/policy.py.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable
from functools import lru_cache

from dari.model.container import Container
from dari.model.network import Endpoint, Network, Sandbox
from dari.net import policy
from dari.net.desired import PolicyWant
from dari.net.facts import HostFacts
from dari.net.state import Address, Prefix
from dari.reconcile.attached import attachments
from dari.reconcile.context import Context
from dari.units import is_global_id

log = logging.getLogger(__name__)


def of_sandbox(ctx: Context, sandbox: Sandbox, facts: HostFacts | None) -> PolicyWant | None:
    """None where nobody says anything about calls to this sandbox."""
    container = ctx.tables.containers.get(ctx.local, sandbox.container_id)
    own = _parsed(container.config.labels if container else {}, has_targets=False)
    attached = attachments(ctx, sandbox)
    networks: dict[str, policy.Policy] = {}
    for network, _ in attached:
        found = _parsed(network.spec.labels, has_targets=True)
        if found is not None:
            networks[network.name] = found
    if own is None and not networks:
        return None
    names = {name for _, endpoint in attached for name in names_of(endpoint, container)}
    receiver = policy.Receiver(
        frozenset(names),
        {network.name: endpoint.interface for network, endpoint in attached},
        {network.name: _subnets(network) for network, _ in attached},
        {network.name: (*_gateways(network), *_host(ctx, facts)) for network, _ in attached},
    )
    return policy.compiled(own, networks, receiver, list(_peers(ctx, sandbox, attached)))


def beside(ctx: Context, network_ids: Iterable[str], sandbox_ids: Iterable[str]) -> list[str]:
    """The sandboxes with a policy that speaks of these: they share a network, or did, and the policy names one of
    them by a name it has or had. Who changed on a network of several hosts is not told: all with a policy count."""
    containers = ctx.tables.policed_containers.get(ctx.local, policy.LABEL)
    networks = ctx.tables.policed_networks.get(ctx.shared, policy.LABEL)
    if not containers and not networks:
        return []
    touched: set[str] = set()
    names: set[str] = set()
    for each in sandbox_ids:
        touched.update(ctx.settling.attached.get(each, ()))
        own = ctx.tables.endpoints_of_sandbox.get(ctx.shared, each)
        touched.update(one.network_id for one in own)
        names |= ctx.settling.known_as.get(each, frozenset()) | _known_as(ctx, each)
    shared = {each for each in network_ids if is_global_id(each)}
    found: dict[str, None] = {}
    for container in containers:
        own = ctx.tables.endpoints_of_sandbox.get(ctx.shared, container.sandbox_id)
        on = {each.network_id for each in own if each.is_active}
        is_named = not on.isdisjoint(touched) and _speaks_of(
            container.config.labels, names, has_targets=False
        )
        if is_named or not on.isdisjoint(shared):
            found[container.sandbox_id] = None
    for network in networks:
        if network.id in shared or (
            network.id in touched and _speaks_of(network.spec.labels, names, has_targets=True)
        ):
            for one in ctx.tables.endpoints.all(ctx.shared, network.id):
                if one.is_active and ctx.tables.sandboxes.get(ctx.local, one.sandbox_id) is not None:
                    found[one.sandbox_id] = None
    return list(found)


def remember(ctx: Context, sandbox_ids: Iterable[str]) -> None:
    """By which names these are known now: whoever changes or drops one is looked up by the old one too."""
    for each in sandbox_ids:
        names = _known_as(ctx, each)
        if names:
            ctx.settling.known_as[each] = names
        else:
            ctx.settling.known_as.pop(each, None)


def _known_as(ctx: Context, sandbox_id: str) -> frozenset[str]:
    found: set[str] = set()
    for endpoint in ctx.tables.endpoints_of_sandbox.get(ctx.shared, sandbox_id):
        found |= names_of(endpoint, ctx.tables.containers.get(ctx.local, endpoint.container_id))
    return frozenset(found)


def _speaks_of(labels: dict[str, str], names: set[str], *, has_targets: bool) -> bool:
    found = _parsed(labels, has_targets=has_targets)
    return found is not None and any(not names.isdisjoint(rule.sources) for rule in found.rules)


def names_of(endpoint: Endpoint, container: Container | None) -> set[str]:
    """What a container is known by on a network: its name and its aliases there."""
    names = {*endpoint.spec.aliases, *endpoint.dns_names}
    if container is not None:
        names.add(container.name)
    return names


@lru_cache(maxsize=1024)
def _parse(text: str, has_targets: bool) -> policy.Policy:
    return policy.parse(text, has_targets=has_targets)


def _parsed(labels: dict[str, str], *, has_targets: bool) -> policy.Policy | None:
    text = labels.get(policy.LABEL)
    if text is None:
        return None
    try:
        return _parse(text, has_targets)
    except ValueError as error:
        # It was checked when the object was made: an older darid's, or a label another engine took. Closed is safe.
        log.error("a policy cannot be read, nobody may call: %s", error)
        return policy.Policy("deny")


def _peers(ctx: Context, sandbox: Sandbox, attached: list[tuple[Network, Endpoint]]) -> Iterable[policy.Peer]:
    for network, _ in attached:
        for endpoint in ctx.tables.endpoints.all(ctx.shared, network.id):
            if not endpoint.is_active or endpoint.sandbox_id == sandbox.id:
                continue
            container = ctx.tables.containers.get(ctx.local, endpoint.container_id)
            addresses = tuple(ipaddress.ip_address(each) for each in (endpoint.ipv4, endpoint.ipv6) if each)
            yield policy.Peer(network.name, frozenset(names_of(endpoint, container)), addresses)


def _subnets(network: Network) -> tuple[Prefix, ...]:
    return tuple(ipaddress.ip_network(each.subnet) for each in network.subnets)


def _gateways(network: Network) -> tuple[Address, ...]:
    return tuple(ipaddress.ip_address(each.gateway) for each in network.subnets if each.gateway)


def _host(ctx: Context, facts: HostFacts | None) -> Iterable[Address]:
    """The host's own addresses, by which it calls a port it publishes itself; those it has as other networks' gateway
    left out, which come and go."""
    gateways = {each.gateway for network in ctx.tables.networks.all(ctx.shared) for each in network.subnets}
    for each in facts.addresses if facts is not None else ():
        if not (each.is_loopback or each.is_link_local or str(each.ip) in gateways):
            yield each.ip
