"""A node among others: the shared store opened, membership and following begun. Called by main alone."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import platform
from collections.abc import Coroutine, Iterable
from typing import Any

import msgspec

from dari import __version__
from dari.cluster import keys, membership
from dari.cluster.membership import Membership
from dari.cluster.nodes import ROOM
from dari.engine.base import Engine
from dari.model.cluster import Node
from dari.model.config import Config
from dari.model.errors import Internal, InvalidArgument
from dari.reconcile import follow, tunnels
from dari.reconcile.kernel import in_kernel
from dari.reconcile.node_claims import tunnel_address_of
from dari.store import address
from dari.store.base import Store
from dari.store.door import open_store
from dari.store.federation import Federation
from dari.store.tables import is_shared

log = logging.getLogger("dari.daemon")

_FIRST_SECONDS = 5.0


def open_shared(config: Config, local: Store) -> Federation:
    """Raises InvalidArgument (the URL), StoreRefused (certificate files)."""
    try:
        place = address.parse(config.store)
    except ValueError as error:
        raise InvalidArgument(f"--store: {error}") from error
    place = dataclasses.replace(
        place,
        user=config.store_user or place.user,
        password=config.store_password or place.password,
        ca=config.store_ca,
        cert=config.store_cert,
        key=config.store_key,
        copy_path=f"{config.data_root}/shared.db",
    )
    return Federation(local, open_store(place), is_shared)


async def begin(eng: Engine, store: Federation) -> None:
    """Say who this node is, and give the store a moment to tell what there is.

    Raises InvalidArgument (no such address), Internal (the node's key cannot be kept).
    """
    config = eng.ctx.config
    own = await in_kernel(eng.ctx, lambda: eng.ctx.kernel.own_address(config.advertise))
    if own is None:
        where = config.advertise or "the default route's interface"
        raise InvalidArgument(f"--advertise: this host has no address {where}")
    node = Node(
        id=eng.id,
        name=config.node_name or platform.node(),
        address=str(own.address),
        mtu=own.mtu,
        version=__version__,
        started=eng.started,
        labels=config.labels,
    )
    node = await _with_key(eng, node)
    member = eng.rooms[ROOM] = Membership(node, float(config.store_ttl))
    try:
        async with asyncio.timeout(_FIRST_SECONDS):
            await store.remote.whole()
    except TimeoutError:
        member.is_settled = False
        status = store.status()
        known = "as it was when last seen" if status.is_known else "not known"
        log.warning(
            "%s: %s; starting with what is local, the cluster is %s", status.url, status.reason, known
        )
    # The address it had; a new node gets one when it joins.
    claimed = tunnel_address_of(eng.ctx, node.id) if node.wireguard_key else ""
    eng.ctx.node = msgspec.structs.replace(node, tunnel_address=claimed)


async def _with_key(eng: Engine, node: Node) -> Node:
    """The node with its public key, where its kernel can encrypt; the kernel room gets the private one."""
    kernel = eng.ctx.kernel
    problem = ""
    try:
        if not await in_kernel(eng.ctx, kernel.has_wireguard):
            problem = "its kernel has no WireGuard (module wireguard, CONFIG_WIREGUARD)"
    except Internal as error:
        problem = f"its kernel cannot be asked for WireGuard: {error.message}"
    if problem:
        return msgspec.structs.replace(node, encryption_problem=problem)
    pair = keys.load(eng.ctx.config.wireguard_key_file)
    kernel.hold_key(pair.public, pair.private)
    return msgspec.structs.replace(
        node, wireguard_key=pair.public, wireguard_port=eng.ctx.config.wireguard_port
    )


def works(eng: Engine, store: Federation) -> Iterable[Coroutine[Any, Any, None]]:
    """What goes on as long as the daemon does."""
    yield membership.keep(eng.ctx, eng.rooms[ROOM])
    yield follow.follow(eng.ctx, store.watch_remote(""))
    yield tunnels.watch(eng.ctx)
