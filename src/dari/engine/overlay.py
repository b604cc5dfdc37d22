"""What creating and removing a network that several hosts share needs besides: an id, a number, a barrier.

Must not know: JSON, the store's kind.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import msgspec

from dari.engine.base import Engine
from dari.model.errors import Forbidden, Unsupported
from dari.model.network import Network, NetworkSpec
from dari.net import overlay
from dari.reconcile import shared_networks
from dari.store.base import ABSENT, Txn
from dari.store.federation import Federation
from dari.units import new_global_id, new_id

GLOBAL = "global"
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


async def close_door(eng: Engine, network: Network) -> None:
    """Before a shared network is looked at for endpoints: nobody gets a new one, and the mirror knows all there are.

    Raises TxnConflict (somebody changes it), Unavailable.
    """
    shared = eng.ctx.shared
    if not is_overlay(network.spec) or not isinstance(shared, Federation):
        return
    txn = Txn()
    closed = msgspec.structs.replace(network, desired_state="removed")
    eng.ctx.tables.networks.replace(txn, shared, closed, network.id)
    await shared.commit(txn)
    await shared.remote.refresh(eng.ctx.tables.endpoints.key(network.id) + "/")


async def open_door(eng: Engine, network: Network) -> None:
    if is_overlay(network.spec):
        txn = Txn()
        eng.ctx.tables.networks.put(txn, network, network.id)
        await eng.ctx.shared.commit(txn)
