"""What creating and removing a network that several hosts share needs besides: an id, a number, a barrier.

Must not know: JSON, the store's kind.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass

import msgspec

from dari.engine.base import Engine
from dari.model.errors import Conflict, Forbidden, Unsupported
from dari.model.network import Network, NetworkSpec
from dari.net import overlay
from dari.reconcile import shared_networks
from dari.store.base import ABSENT, StoreUnavailable, Txn, TxnConflict
from dari.store.federation import Federation
from dari.units import new_global_id, new_id

log = logging.getLogger(__name__)

GLOBAL = "global"
_AGAIN_SECONDS = 1.0
_NETWORKS = "networks"


def is_overlay(spec: NetworkSpec) -> bool:
    return spec.driver == "overlay"


def network_id(spec: NetworkSpec) -> str:
    return new_global_id() if is_overlay(spec) else new_id()


def check_spec(eng: Engine, spec: NetworkSpec) -> None:
    """Raises Unsupported (no shared store), InvalidArgument (the VXLAN id), DriverRefused (encryption), Unavailable."""
    if not is_overlay(spec):
        return
    if not isinstance(eng.ctx.shared, Federation):
        raise Unsupported(
            "This node shares no store with others, which overlay networks need: start darid with --store etcd://… "
            "or zk://…"
        )
    overlay.asked_vni(spec.options)
    if overlay.is_encrypted(spec.options):
        shared_networks.check_own_encryption(eng.ctx, f"cannot create secure network {spec.name}")


@dataclass(frozen=True, slots=True)
class Turn:
    """A look at all shared networks that holds as long as nobody creates another one: two nodes must not cut the
    same subnet at once."""

    made: int
    revision: int


async def take_turn(eng: Engine, spec: NetworkSpec) -> Turn | None:
    """Before subnets are decided. The count is read first, so that whoever creates after it is noticed at the commit,
    and whoever did before it is in the rows. Raises Unavailable. None for networks of this host alone."""
    shared = eng.ctx.shared
    if not is_overlay(spec) or not isinstance(shared, Federation):
        return None
    table = eng.ctx.tables.allocations
    row = shared.get(table.key(_NETWORKS))
    turn = Turn(int(table.get(shared, _NETWORKS) or "0"), row.revision if row is not None else ABSENT)
    await shared.remote.refresh(eng.ctx.tables.networks.prefix)
    return turn


def numbered(eng: Engine, txn: Txn, network: Network, turn: Turn | None) -> Network:
    """The network with its VXLAN id, claimed in `txn`. Raises Forbidden where it is another's, or none is left."""
    if turn is None:
        return network
    tables, store = eng.ctx.tables, eng.ctx.shared
    txn.checks[tables.allocations.key(_NETWORKS)] = turn.revision
    tables.allocations.put(txn, str(turn.made + 1), _NETWORKS)
    taken = {int(parts[0]) for parts in tables.vnis.keys(store)}
    vni = overlay.asked_vni(network.spec.options)
    if vni is None:
        start = overlay.FIRST_VNI + secrets.randbelow(overlay.LAST_VNI - overlay.FIRST_VNI)
        vni = overlay.pick_vni(start, taken)
    elif vni in taken:
        holder = tables.networks.get(store, tables.vnis.get(store, str(vni)) or "")
        raise Forbidden(f"VXLAN id {vni} belongs to network {holder.name if holder else 'of another node'}")
    tables.vnis.insert(txn, network.id, str(vni))
    options = {**network.spec.options, overlay.VNI_OPTION: str(vni)}
    spec = msgspec.structs.replace(network.spec, options=options, scope=GLOBAL)
    return msgspec.structs.replace(network, spec=spec)


def free_number(eng: Engine, txn: Txn, network: Network) -> None:
    vni = overlay.asked_vni(network.spec.options) if is_overlay(network.spec) else None
    if vni is not None and eng.ctx.tables.vnis.get(eng.ctx.shared, str(vni)) == network.id:
        eng.ctx.tables.vnis.delete(txn, str(vni))


async def look(eng: Engine, network: Network) -> None:
    """Have all endpoints there are of a shared network in the mirror. Raises Unavailable."""
    shared = eng.ctx.shared
    if is_overlay(network.spec) and isinstance(shared, Federation):
        await shared.remote.refresh(eng.ctx.tables.endpoints.key(network.id) + "/")


async def close_door(eng: Engine, network: Network) -> None:
    """Before a shared network is removed: nobody new gets on it, and the mirror has everybody who is.

    Raises Conflict (somebody else changes it), Unavailable.
    """
    ctx, shared = eng.ctx, eng.ctx.shared
    if not is_overlay(network.spec) or not isinstance(shared, Federation):
        return
    if shared_networks.is_closed(ctx, network) and not _is_ours(eng, network):
        raise is_changed(network)
    txn = Txn()
    closed = msgspec.structs.replace(network, closed_by=shared_networks.closer(ctx))
    ctx.tables.networks.replace(txn, shared, closed, network.id)
    try:
        await shared.commit(txn)
    except TxnConflict:
        raise is_changed(network) from None
    await look(eng, network)


def stand_on_closed(eng: Engine, txn: Txn, network: Network) -> None:
    """Let the removal in `txn` fail where the network is no longer closed by this daemon: it lost its session
    meanwhile, and somebody got on. Raises Conflict."""
    if not is_overlay(network.spec) or not isinstance(eng.ctx.shared, Federation):
        return
    row = eng.ctx.shared.get(eng.ctx.tables.networks.key(network.id))
    if row is None or not _is_ours(eng, network):
        raise is_changed(network)
    txn.checks[eng.ctx.tables.networks.key(network.id)] = row.revision


async def open_door(eng: Engine, network: Network) -> None:
    """After a removal that did not come about; as often as it takes, in the background where the store is away."""
    if is_overlay(network.spec) and not await _is_opened(eng, network):
        eng.ctx.tasks.add(task := asyncio.create_task(_open(eng, network)))
        task.add_done_callback(eng.ctx.tasks.discard)


async def _open(eng: Engine, network: Network) -> None:
    is_opened = False
    while not is_opened:
        await asyncio.sleep(_AGAIN_SECONDS)
        is_opened = await _is_opened(eng, network)


async def _is_opened(eng: Engine, network: Network) -> bool:
    """One try, whether nothing is left to do."""
    ctx, shared = eng.ctx, eng.ctx.shared
    if not isinstance(shared, Federation):
        return True
    try:
        # Whether it was closed is not known here where the store went away over it.
        await shared.remote.refresh(ctx.tables.networks.key(network.id))
        if not _is_ours(eng, network):
            return True
        txn = Txn()
        opened = msgspec.structs.replace(network, closed_by="")
        ctx.tables.networks.replace(txn, shared, opened, network.id)
        await shared.commit(txn)
    except TxnConflict:
        return False
    except StoreUnavailable as error:
        log.warning("network %s takes no new containers until the store is back: %s", network.name, error)
        return False
    return True


def _is_ours(eng: Engine, network: Network) -> bool:
    now = eng.ctx.tables.networks.get(eng.ctx.shared, network.id)
    return now is not None and now.closed_by == shared_networks.closer(eng.ctx)


def is_changed(network: Network) -> Conflict:
    """What whoever lost a race for it is told."""
    return Conflict(f"network {network.name} is being changed by other requests, try again")
