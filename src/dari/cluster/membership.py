"""Being a node: a row under a session as long as we live, joined again whenever the session was lost.

A name and an address belong to one node at a time: the second one that claims them is told and tries again, since
the first may be the same host's daemon of a moment ago. Must not know: HTTP, what the rows of others are used for.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from dari.cluster import rotation
from dari.cluster.announce import announce
from dari.cluster.answering import answer
from dari.model.cluster import Member, Node
from dari.model.errors import DariError
from dari.net import tunnel
from dari.reconcile import retaking, strays
from dari.reconcile.boot import settle_all
from dari.reconcile.context import Context
from dari.reconcile.node_claims import quarrel, tunnel_address_of, twin_of
from dari.store.base import ABSENT, Session, StoreUnavailable, Txn, TxnConflict

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0


@dataclass(slots=True)
class Membership:
    """How this node stands. `is_joined` while its row is in the store; `problem` says why it is not. Who changes its
    row holds `changing`. `is_settled`: what is here was made of all the store has, and has been told since of every
    change."""

    node: Node
    ttl: float = 10.0
    is_joined: bool = False
    problem: str = "not joined yet"
    is_settled: bool = True
    joined: asyncio.Event = field(default_factory=asyncio.Event)
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def leave(self) -> None:
        """End the session, for good; returns when it is done."""
        self.leaving.set()
        await self.left.wait()


async def keep(ctx: Context, membership: Membership) -> None:
    """Join, and join again, until cancelled; then leave."""
    while True:
        session: Session | None = None
        try:
            session = await ctx.shared.session(membership.ttl)
            async with membership.changing:
                await _join(ctx, membership, session)
            # Before what is here is made of what the store has: they need not be off their networks in between.
            await retaking.take_back(ctx)
            await _agree(ctx, membership)
            await _ended_or_left(ctx, session, membership)
            if membership.leaving.is_set():
                await session.close()
                _is_out(membership, "it has left")
                membership.left.set()
                return
            log.warning("the session of node %s has ended: joining again", membership.node.name)
            _is_out(membership, "its session has ended")
        except StoreUnavailable as error:
            _is_out(membership, str(error))
        except TxnConflict as error:
            _is_out(membership, quarrel(ctx, membership.node) or f"{error.key} is claimed by another request")
        except asyncio.CancelledError:
            if session is not None:
                # What runs goes on: the daemon that comes next should find its name still there.
                await (session.abandon() if _has_endpoints(ctx) else session.close())
            raise
        if session is not None:
            await session.close()
        await asyncio.sleep(_AGAIN_SECONDS)


async def _agree(ctx: Context, membership: Membership) -> None:
    """Whoever was away may find that others took away what he had (`node rm`), and a daemon that began with a copy of
    the store that the copy lacked something."""
    if membership.is_settled:
        return
    try:
        await settle_all(ctx)
    except DariError as error:
        log.error("settling what changed while this node was away: %s", error.message)
        return
    membership.is_settled = True


async def _ended_or_left(ctx: Context, session: Session, membership: Membership) -> None:
    """Returns when one of the two is so; tells meanwhile what this node publishes, and answers the others."""
    waiting: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(each) for each in (session.ended(), membership.leaving.wait())
    ]
    errands = {rotation.ROTATE: partial(rotation.run_errand, ctx, membership)}
    working = [
        asyncio.ensure_future(each)
        for each in (
            announce(ctx, session),
            answer(ctx, session, errands),
            strays.tend(ctx, session),
            retaking.tend(ctx, session),
        )
    ]
    for each in working:
        each.add_done_callback(_log_failure)
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ctx.session_id = ""
        for task in (*waiting, *working):
            task.cancel()
        await asyncio.wait((*waiting, *working))


def _log_failure(work: asyncio.Future[None]) -> None:
    if not work.cancelled() and work.exception() is not None:
        log.error("what this node tells others is told no more", exc_info=work.exception())


async def _join(ctx: Context, membership: Membership, session: Session) -> None:
    tables = ctx.tables
    node = membership.node
    if node.wireguard_key:
        node = msgspec.structs.replace(node, tunnel_address=await _claim_tunnel_address(ctx, node.id))
    node = msgspec.structs.replace(node, joined=ctx.now())
    claims = Txn(session_id=session.id)
    if twin_of(ctx, node) is not None:
        raise TxnConflict(tables.nodes.key(node.id))
    tables.nodes.put(claims, node, node.id)
    for table, name in ((tables.node_names, node.name), (tables.node_addresses, node.address)):
        holder = table.get(ctx.shared, name)
        if holder is None:
            table.insert(claims, node.id, name)
        elif holder == node.id:
            table.replace(claims, ctx.shared, node.id, name)
        else:
            claims.checks[table.key(name)] = ABSENT
            table.put(claims, node.id, name)
    await ctx.shared.commit(claims)
    member = Txn()
    tables.members.put(
        member, Member(id=node.id, name=node.name, address=node.address, seen=node.joined), node.id
    )
    await ctx.shared.commit(member)
    # The address in the tunnel may be new.
    ctx.node = node
    membership.node, membership.is_joined, membership.problem = node, True, ""
    ctx.session_id = session.id
    membership.joined.set()
    log.info("node %s (%s) has joined at %s", node.name, node.id, node.address)


async def _claim_tunnel_address(ctx: Context, node_id: str) -> str:
    """The node's address in the encrypted tunnel, which it keeps until it leaves the cluster: not under its session.

    Raises StoreUnavailable, TxnConflict (another node was faster), Forbidden (there is none left).
    """
    tables = ctx.tables
    address = tunnel_address_of(ctx, node_id)
    if not address:
        taken = {parts[0] for parts in tables.tunnel_addresses.keys(ctx.shared)}
        address = tunnel.pick_address(node_id, taken)
        txn = Txn()
        tables.tunnel_addresses.insert(txn, node_id, address)
        await ctx.shared.commit(txn)
    return address


def _has_endpoints(ctx: Context) -> bool:
    """Or published ports: whatever of this node others know."""
    return bool(ctx.tables.published.keys(ctx.shared, ctx.node_id)) or any(
        each.is_active for each in ctx.tables.endpoints_of_node.get(ctx.shared, ctx.node_id)
    )


def _is_out(membership: Membership, problem: str) -> None:
    if membership.is_joined or membership.problem != problem:
        log.warning("node %s is not joined: %s", membership.node.name, problem)
    membership.is_joined, membership.problem, membership.is_settled = False, problem, False
    membership.joined.clear()
