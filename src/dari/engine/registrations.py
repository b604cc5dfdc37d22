"""Register, deregister, heartbeat, look up and watch: who is a member of which service.

Containers are members by themselves. Must not know: JSON, DNS, the store's kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import msgspec

from dari.discovery import records, registry
from dari.discovery.registry import Instance as Instance
from dari.engine.base import Engine
from dari.model.container import Container
from dari.model.errors import Conflict, NotFound
from dari.model.network import Endpoint, Network
from dari.model.registration import Registration
from dari.reconcile import members, shared_networks
from dari.reconcile.member_checks import Checker, refresh
from dari.reconcile.settle import settle
from dari.reconcile.zones import named_endpoint
from dari.store.base import Txn, TxnConflict
from dari.units import new_id

ROOM = "checker"
"""Where an engine's checks are found among its rooms."""


async def register(eng: Engine, registration: Registration) -> Registration:
    """A new member, or a known one (by its id) changed. Raises InvalidArgument, Unavailable (the store)."""
    checked = registry.check_registration(registration)
    known = [each for each in registrations(eng) if each.id == checked.id] if checked.id else []
    if known and _is_same(known[0], checked):
        return known[0]
    waits = any(check.kind != "ttl" for check in checked.checks)
    made = msgspec.structs.replace(
        checked,
        id=checked.id or new_id()[:16],
        owner=eng.ctx.node_id,
        created=eng.ctx.now(),
        verdict="unknown" if waits else "passing",
        changed=eng.ctx.now(),
    )
    txn = Txn()
    registry.register(eng.ctx.tables, eng.ctx.shared, txn, made)
    try:
        await eng.ctx.shared.commit(txn)
    except TxnConflict:
        raise Conflict(f"registration {made.id} is being changed by other requests, try again") from None
    await settle(eng.ctx, members.ZONE_ID)
    return made


def _is_same(one: Registration, other: Registration) -> bool:
    """Whether the same was asked for."""
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("name", "address", "port", "protocol", "weight", "tags", "meta", "checks")
    )


async def deregister(eng: Engine, ref: str) -> None:
    """By id, or by a name with one registration. Raises NotFound, InvalidArgument, Unavailable."""
    try:
        found = registry.find(eng.ctx.tables, eng.ctx.shared, ref)
    except NotFound:
        # It may have been registered at another node a moment ago.
        await refresh(eng.ctx)
        found = registry.find(eng.ctx.tables, eng.ctx.shared, ref)
    txn = Txn()
    eng.ctx.tables.registrations.delete(txn, found.name, found.id)
    await eng.ctx.shared.commit(txn)
    await settle(eng.ctx, members.ZONE_ID)


async def heartbeat(eng: Engine, registration_id: str) -> None:
    """A member with a time to live says that it lives, to any node. Raises NotFound: register again; Unavailable:
    another node counts its heartbeats, and the store cannot be told."""
    checker: Checker = eng.rooms[ROOM]
    await checker.beat(registration_id)


def registrations(eng: Engine) -> list[Registration]:
    return eng.ctx.tables.registrations.all(eng.ctx.shared)


def lookup(eng: Engine, name: str, *, is_healthy_only: bool = False, tag: str = "") -> list[Instance]:
    """The members of a service: passing ones first. A container is found by every name it has on a network, those with
    the network or its Compose project behind them included, and where it publishes ports at its node's address too,
    from every node."""
    asked = name.lower().rstrip(".")
    found = list(_known_as(eng, asked))
    if tag:
        found = [each for each in found if tag in each.tags]
    return registry.in_order(found, is_healthy_only=is_healthy_only)


def services(eng: Engine) -> dict[str, list[Instance]]:
    """All members by the name they are listed under: a container's Compose service, else its own name. Aliases are
    further names, by which `lookup` finds it."""
    found: dict[str, list[Instance]] = {}
    for each in _registered(eng):
        found.setdefault(each.service, []).append(each)
    for network, endpoint, container in _placed(eng):
        named = named_endpoint(endpoint, container)
        service = (named.service or named.container_name).lower()
        found.setdefault(service, []).append(_instance(service, network, endpoint, named, container))
    for row in eng.ctx.tables.published.all(eng.ctx.shared):
        found.setdefault(row.names[0], []).extend(registry.of_published(row, row.names[0]))
    return {name: registry.in_order(found[name]) for name in sorted(found)}


async def watch(eng: Engine, name: str, *, is_healthy_only: bool = False) -> AsyncIterator[list[Instance]]:
    """What `lookup` says, now and whenever it says something else."""
    last: list[Instance] | None = None
    sources = [
        eng.ctx.shared.watch(eng.ctx.tables.registrations.prefix),
        eng.ctx.shared.watch(eng.ctx.tables.published.prefix),
        eng.ctx.local.watch("endpoints/"),
        *shared_networks.watches(eng.ctx),
    ]
    wake = asyncio.Event()

    async def wait(source: AsyncIterator[frozenset[str]]) -> None:
        async for _ in source:
            wake.set()

    tasks = [asyncio.create_task(wait(source)) for source in sources]
    try:
        while True:
            await wake.wait()
            wake.clear()
            now = lookup(eng, name, is_healthy_only=is_healthy_only)
            if now != last:
                yield now
                last = now
    finally:
        for task in tasks:
            task.cancel()


def _known_as(eng: Engine, asked: str) -> Iterator[Instance]:
    yield from (each for each in _registered(eng) if each.service == asked)
    for network, endpoint, container in _placed(eng):
        named = named_endpoint(endpoint, container)
        projects = (each.lower() for each in records.project_names(named))
        if asked in records.names(named, network.name) or asked in projects:
            yield _instance(asked, network, endpoint, named, container)
    for row in eng.ctx.tables.published.all(eng.ctx.shared):
        if asked in row.names:
            yield from registry.of_published(row, asked)


def _registered(eng: Engine) -> Iterator[Instance]:
    for each in eng.ctx.tables.registrations.all(eng.ctx.shared):
        yield registry.of_registration(each)


def _placed(eng: Engine) -> Iterator[tuple[Network, Endpoint, Container | None]]:
    """Every endpoint that can be reached; the container is None where it is another node's."""
    for network in eng.ctx.tables.networks.all(eng.ctx.shared):
        endpoints = eng.ctx.tables.endpoints.all(eng.ctx.shared, network.id)
        for endpoint in shared_networks.living(eng.ctx, endpoints):
            if endpoint.ipv4 or endpoint.ipv6:
                container = eng.ctx.tables.containers.get(eng.ctx.local, endpoint.container_id)
                yield network, endpoint, container


def _instance(
    service: str,
    network: Network,
    endpoint: Endpoint,
    named: records.NamedEndpoint,
    container: Container | None,
) -> Instance:
    """Of another node's container is known what its endpoint tells."""
    labels = container.config.labels if container is not None else {}
    return Instance(
        service=service,
        id=endpoint.container_id,
        address=endpoint.ipv4 or endpoint.ipv6,
        ports=tuple((each.number, each.protocol) for each in named.ports),
        verdict=registry.of_health(endpoint.health),
        weight=named.weight,
        source="container",
        network=network.name,
        node=endpoint.node,
        tags=named.tags,
        meta={"container": named.container_name, **labels},
    )
