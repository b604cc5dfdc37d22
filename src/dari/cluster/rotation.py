"""A node's WireGuard key is changed while its containers talk: made, told, taken, used; then the old one is gone.

1. The new key lies in a file beside the old one, and its public half in the node's row as the next one. 2. The others
make a peer of it, to which they send nothing yet, and say so when asked. 3. The file is renamed, the interface gets the
key: what the others send under the old sessions is still read, and what is sent from here begins new ones, which they
answer since they know the key. 4. The row tells it as the node's key, and the others move what they send to it.
Killed before 3, a node starts with the old key; after it, with the new one. Must not know: HTTP, which store it is.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from dari.cluster import keys
from dari.model.cluster import Node
from dari.model.errors import DariError, Unavailable, Unsupported
from dari.reconcile import far_words, shared_networks
from dari.reconcile.context import Context
from dari.reconcile.settle import settle
from dari.reconcile.talk import NoAnswerError, Talk, pack, unpack
from dari.store.base import Txn, TxnConflict

if TYPE_CHECKING:
    from dari.cluster.membership import Membership

log = logging.getLogger(__name__)

ROTATE = "rotate-key"

_TAKEN_SECONDS = 10.0
_ASK_SECONDS = 5.0
_AGAIN_SECONDS = 0.2
_ERRAND_SECONDS = 60.0


class Rotate(msgspec.Struct, frozen=True, kw_only=True):
    """The question to another node: change your key."""


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """The public keys before and after. `unsure`: nodes that did not say in time that they had taken the new one; they
    follow as soon as they hear of it."""

    before: str
    after: str
    unsure: list[str] = []


async def rotate(ctx: Context, membership: Membership) -> Rotated:
    """Change this node's key.

    Raises Unsupported (it cannot encrypt), Unavailable (it is not joined, the store is away), Internal (the file, the
    kernel).
    """
    node = membership.node
    if not node.wireguard_key:
        raise Unsupported(f"node {node.name} has no key: {node.encryption_problem}")
    async with membership.changing:
        session_id = ctx.session_id
        if not membership.is_joined or not session_id:
            raise Unavailable(
                f"node {node.name} is not joined, and the others would not hear of its new key: {membership.problem}"
            )
        before, path = membership.node, ctx.config.wireguard_key_file
        pair = await asyncio.to_thread(keys.prepare, path)
        told = msgspec.structs.replace(before, next_wireguard_key=pair.public)
        after = msgspec.structs.replace(before, wireguard_key=pair.public)
        try:
            await _tell(ctx, told, session_id)
            unsure = await _untaken(ctx, pair.public)
            await asyncio.to_thread(keys.promote, path)
        except BaseException:
            keys.discard(path)
            await _tell_again(ctx, before, session_id)
            raise
        ctx.kernel.hold_key(pair.public, pair.private)
        ctx.node = membership.node = after
        try:
            await settle(ctx, *shared_networks.encrypted_networks(ctx))
        finally:
            # The file decides: the others are to use this key, whenever the kernel has it.
            await _tell_again(ctx, after, session_id)
            ctx.kernel.drop_key(before.wireguard_key)
    log.info("node %s has changed its key from %s to %s", node.name, before.wireguard_key, pair.public)
    return Rotated(before=before.wireguard_key, after=pair.public, unsure=unsure)


async def rotate_there(ctx: Context, node: Node) -> Rotated:
    """Have another node change its key. Raises Unavailable (it does not answer, or cannot)."""
    talk = Talk(ctx, node)
    try:
        return await talk.ask(ROTATE, Rotate(), Rotated, _ERRAND_SECONDS)
    except NoAnswerError as error:
        raise Unavailable(str(error).removeprefix(f"node {node.name} could not tell: ")) from error
    finally:
        await talk.close()


async def run_errand(ctx: Context, membership: Membership, body: bytes) -> bytes:
    """Another node's question. Raises ValueError, and as `rotate`."""
    unpack(body, Rotate)
    return pack(await rotate(ctx, membership))


async def _tell(ctx: Context, node: Node, session_id: str) -> None:
    """Put this node's row. Raises Unavailable (the store, or the session is over)."""
    txn = Txn(session_id=session_id)
    ctx.tables.nodes.replace(txn, ctx.shared, node, node.id)
    try:
        await ctx.shared.commit(txn)
    except TxnConflict as error:
        raise Unavailable(
            f"node {node.name}: somebody else changed its row in the store; try again"
        ) from error


async def _tell_again(ctx: Context, node: Node, session_id: str) -> None:
    """Until it is told, or the session is over: the next one tells it."""
    while ctx.session_id == session_id:
        try:
            await _tell(ctx, node, session_id)
            return
        except Unavailable as error:
            log.warning("the key of node %s is told again: %s", node.name, error)
            await asyncio.sleep(_AGAIN_SECONDS)


async def _untaken(ctx: Context, key: str) -> list[str]:
    """The names of those that do not answer handshakes of that key yet, once they had time to."""
    nodes = shared_networks.tunnel_nodes(ctx)
    taken = await asyncio.gather(*(_has_taken(ctx, each, key) for each in nodes))
    return [each.name for each, is_taken in zip(nodes, taken, strict=True) if not is_taken]


async def _has_taken(ctx: Context, node: Node, key: str) -> bool:
    talk = Talk(ctx, node)
    try:
        async with asyncio.timeout(_TAKEN_SECONDS):
            while True:
                found = await talk.ask(
                    far_words.KNOWS, far_words.Knows(key=key), far_words.Known, _ASK_SECONDS
                )
                if found.is_known:
                    return True
                await asyncio.sleep(_AGAIN_SECONDS)
    except (NoAnswerError, DariError, TimeoutError) as error:
        log.warning("node %s has not said that it took the new key %s: %s", node.name, key, error)
        return False
    finally:
        await talk.close()
