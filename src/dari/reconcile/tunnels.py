"""Where others' containers are, kept right: entries of tunnels that somebody adds, changes or takes away.

The kernel tells of each change as it happens; where one is not as the last settle left it, its network is settled
again, which reads all entries of its tunnel and drops what nobody wants. Must not know: HTTP, the store's kind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

from dari.kernel.overlay import LooseEntry
from dari.model.errors import DariError
from dari.net.overlay import vxlan_name
from dari.net.scope import Key
from dari.net.state import Fdb, Neighbour
from dari.reconcile.context import Context
from dari.reconcile.kernel import in_kernel
from dari.reconcile.settle import settle

log = logging.getLogger(__name__)

_CALM_SECONDS = 0.05
_AGAIN_SECONDS = 1.0


async def watch(ctx: Context) -> None:
    """Until cancelled."""
    heard: list[LooseEntry] = []
    lost = False
    alarm = asyncio.Event()

    def hear() -> None:
        nonlocal lost
        told = ctx.kernel.tunnel_alarm.hear()
        if told is None:
            lost = True
        heard.extend(told or ())
        if heard or lost:
            alarm.set()

    loop = asyncio.get_running_loop()
    descriptor = ctx.kernel.tunnel_alarm.fileno()
    ctx.kernel.tunnel_alarm.begin()
    loop.add_reader(descriptor, hear)
    try:
        while True:
            await alarm.wait()
            # What one settle does is many messages.
            await asyncio.sleep(_CALM_SECONDS)
            alarm.clear()
            told, heard[:] = list(heard), []
            was_lost, lost = lost, False
            try:
                await _look_after(ctx, told, is_whole=not was_lost)
            except DariError as error:
                log.error("looking after tunnels: %s", error.message)
                await asyncio.sleep(_AGAIN_SECONDS)
    finally:
        loop.remove_reader(descriptor)


async def _look_after(ctx: Context, told: list[LooseEntry], *, is_whole: bool) -> None:
    expected = ctx.settling.entries
    if not is_whole:
        await settle(ctx, *expected)
        return
    indexes = {each.index for each in told}
    names = await in_kernel(ctx, lambda: ctx.kernel.link_names(indexes))
    ids = astray(expected, told, names)
    if ids:
        log.warning("somebody changed where others are on network %s: mending it", ", ".join(sorted(ids)))
        await settle(ctx, *ids)


def astray(
    expected: Mapping[str, Mapping[Key, Fdb | Neighbour]],
    told: Iterable[LooseEntry],
    names: Mapping[int, str],
) -> set[str]:
    """The networks on whose tunnels something was told that is not as it should be. `names`: of interfaces by index."""
    networks = {vxlan_name(each): each for each in expected}
    found = set()
    for each in told:
        network = networks.get(names.get(each.index, ""))
        if network is None or network in found:
            continue
        entry = each.of(names[each.index])
        should = expected[network].get(entry.key)
        if should is not None if each.is_gone else should != entry:
            found.add(network)
    return found
