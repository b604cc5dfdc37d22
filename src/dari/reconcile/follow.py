"""What other nodes change is settled here: their endpoints, their networks, their coming and going.

The shared store's watch names rows that may have changed; the networks they are about are settled, which writes
zones and the overlay's entries. Must not know: which store it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

from dari.model.errors import DariError
from dari.reconcile import members, peers, shared_networks
from dari.reconcile.context import Context
from dari.reconcile.settle import settle

log = logging.getLogger(__name__)

_FIRST_SECONDS = 1.0
_LONGEST_SECONDS = 30.0


async def follow(ctx: Context, changes: AsyncIterator[frozenset[str]]) -> None:
    """Until the watch ends."""
    mtu = shared_networks.overlay_mtu(ctx, 0)
    debt = Debt(ctx)
    async for keys in changes:
        ids = affected(ctx, keys)
        if any(key.startswith(ctx.tables.nodes.prefix) for key in keys):
            before, mtu = mtu, shared_networks.overlay_mtu(ctx, 0)
            if mtu != before:
                ids = list(dict.fromkeys((*ids, *_all_shared(ctx))))
        if ids:
            await debt.settle(ids)


@dataclass
class Debt:
    """What could not be settled is tried again until it is, after 1 s and up to 30 s: nobody else may ever ask."""

    ctx: Context
    owed: dict[str, None] = field(default_factory=dict)
    first: float = _FIRST_SECONDS
    _is_worked_on: bool = False

    async def settle(self, ids: Iterable[str]) -> None:
        """All together; where that fails each alone, so that one that cannot be settled holds up no other."""
        ids = list(ids)
        failed = [] if await self._is_settled(*ids) else ids
        if len(ids) > 1:
            failed = [each for each in failed if not await self._is_settled(each)]
        self.owed.update(dict.fromkeys(failed))
        if self.owed and not self._is_worked_on:
            self._is_worked_on = True
            self.ctx.tasks.add(task := asyncio.create_task(self._pay()))
            task.add_done_callback(self.ctx.tasks.discard)

    async def _pay(self) -> None:
        wait = self.first
        try:
            while self.owed:
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LONGEST_SECONDS)
                for each in list(self.owed):
                    del self.owed[each]
                    if not await self._is_settled(each):
                        self.owed[each] = None
        finally:
            self._is_worked_on = False

    async def _is_settled(self, *ids: str) -> bool:
        try:
            await settle(self.ctx, *ids)
        except DariError as error:
            log.error("following the other nodes: %s", error.message)
        except Exception:
            # A fault of ours in one network must not end the following of all others.
            log.exception("following the other nodes: %s", ", ".join(ids))
        else:
            return True
        return False


def affected(ctx: Context, keys: Iterable[str]) -> list[str]:
    """What to settle: the networks that rows are about; of an endpoint that changed only its network's peers. A node
    that comes or goes is about the networks it has endpoints on. Most of what a large cluster changes is about networks
    nobody here is on: nothing is done about them."""
    ids: dict[str, None] = {}
    others: set[str] = set()
    nodes: list[str] = []
    for key in keys:
        table, _, rest = key.partition("/")
        if table == "endpoints":
            others.add(rest.partition("/")[0])
        elif table == "networks":
            ids[rest] = None
        elif table == "registrations":
            ids[members.ZONE_ID] = None
        elif table == "nodes":
            nodes.append(rest)
    for each in nodes:
        others |= shared_networks.placed_networks(ctx, each)
    concerned = (each for each in sorted(others) if shared_networks.is_concerned(ctx, each))
    return [*ids, *(_part_of_others(ctx, each) for each in concerned)]


def _part_of_others(ctx: Context, network_id: str) -> str:
    network = ctx.tables.networks.get(ctx.shared, network_id)
    return peers.of(network_id) if network is not None and network.spec.driver == "overlay" else network_id


def _all_shared(ctx: Context) -> list[str]:
    shared = [each.id for each in ctx.tables.networks.all(ctx.shared) if shared_networks.is_shared(each)]
    return [each for each in shared if shared_networks.is_concerned(ctx, each)]
