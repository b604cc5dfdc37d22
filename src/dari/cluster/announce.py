"""Containers with published ports are members cluster-wide, at their node's own address: rows under its session.

Level-triggered: whatever happened, the rows of this node are made what they should be, and a new session begins with
all of them. So a node that dies takes them along. Must not know: who looks them up.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TypeVar

from dari.model.cluster import Door, Published
from dari.model.container import Container
from dari.model.network import Sandbox
from dari.reconcile.context import Context
from dari.store.base import Session, StoreUnavailable, Txn

T = TypeVar("T")
log = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0
# etcd takes 128 operations in a transaction.
_ROWS_AT_ONCE = 100
_PROJECT, _SERVICE = "com.docker.compose.project", "com.docker.compose.service"


async def announce(ctx: Context, session: Session) -> None:
    """Until cancelled, or the session has ended."""
    wake = asyncio.Event()
    wake.set()
    tables = ctx.tables
    sources = [ctx.local.watch(each.prefix) for each in (tables.sandboxes, tables.containers)]
    watching = [asyncio.create_task(_wake(wake, source)) for source in sources]
    # What was put under an earlier session goes with that one, whatever the rows say.
    put: dict[str, Published] = {}
    try:
        while session.is_alive():
            await wake.wait()
            wake.clear()
            try:
                await _renew(ctx, session, put)
            except StoreUnavailable as error:
                log.debug("what this node publishes is not told yet: %s", error)
                wake.set()
                await asyncio.sleep(_AGAIN_SECONDS)
    finally:
        for task in watching:
            task.cancel()


def _parts(items: Iterable[T]) -> Iterator[list[T]]:
    left = list(items)
    while left:
        yield left[:_ROWS_AT_ONCE]
        del left[:_ROWS_AT_ONCE]


async def _wake(wake: asyncio.Event, source: AsyncIterator[frozenset[str]]) -> None:
    async for _ in source:
        wake.set()


async def _renew(ctx: Context, session: Session, put: dict[str, Published]) -> None:
    """One step to what should be; `put` is what stands under this session. Raises StoreUnavailable."""
    table = ctx.tables.published
    wanted = {each.id: each for each in published(ctx)}
    gone = {parts[1] for parts in table.keys(ctx.shared, ctx.node_id)} | put.keys()
    gone -= wanted.keys()
    changed = [each for each in wanted.values() if put.get(each.id) != each]
    for some in _parts(sorted(gone)):
        txn = Txn()
        for container_id in some:
            table.delete(txn, ctx.node_id, container_id)
        await ctx.shared.commit(txn)
        for container_id in some:
            put.pop(container_id, None)
    for rows in _parts(changed):
        txn = Txn(session_id=session.id)
        for each in rows:
            table.put(txn, each, ctx.node_id, each.id)
        await ctx.shared.commit(txn)
        put.update((each.id, each) for each in rows)


def published(ctx: Context) -> Iterator[Published]:
    """What this node has to tell: running containers with ports that others can reach."""
    node = ctx.node
    if node is None:
        return
    for sandbox in ctx.tables.sandboxes.all(ctx.local):
        if not sandbox.is_active or not sandbox.ports:
            continue
        container = ctx.tables.containers.get(ctx.local, sandbox.container_id)
        if container is None or container.status.state != "running":
            continue
        doors = list(doors_of(sandbox, node.address))
        if doors:
            health = container.status.health
            yield Published(
                id=container.id,
                name=container.name,
                node=node.id,
                names=names_of(container),
                doors=doors,
                health=health.status if health is not None and health.status != "none" else "",
                labels=container.config.labels,
            )


def doors_of(sandbox: Sandbox, node_address: str) -> Iterator[Door]:
    """The published ports that another host can reach: at the node's address where they are published at every one of
    its kind, else where they are, loopback left out."""
    own = ipaddress.ip_address(node_address)
    for each in sandbox.ports:
        at = ipaddress.ip_address(each.host_ip)
        if at.is_unspecified:
            if at.version != own.version:
                continue
            at = own
        if at.is_loopback or at.is_link_local or not each.host_port:
            continue
        for host_port, _ in each.pairs():
            yield Door(address=str(at), port=host_port, protocol=each.protocol)


def names_of(container: Container) -> list[str]:
    """Its service and its name, alone and with the project; names are compared in lower case."""
    labels = container.config.labels
    service, project = labels.get(_SERVICE, ""), labels.get(_PROJECT, "")
    plain = [each.lower() for each in (service, container.name) if each]
    whole = [f"{service}.{project}".lower()] if service and project else []
    return list(dict.fromkeys([*plain, *whole]))
