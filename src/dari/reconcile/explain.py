"""explain: why one end reaches another, or does not: what should be, what is, and what a real packet meets.

Both pictures of the kernel are walked by the same code (net.explain), a packet is sent meanwhile from a thread of
its own, and what differs is the finding. Of an end on another node that node tells its half (across.py).
Must not know: HTTP, how names are spelled by a user.
Next: inquiry.py, asked_name.py, other_end.py, explained.py.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from dari.kernel.outside import Places
from dari.kernel.probe import Probing
from dari.model import explain as nouns
from dari.model.errors import Internal
from dari.net.packet import OUTSIDE
from dari.net.state import HOST
from dari.reconcile import across, asked_name, explained, from_outside, other_end, relays, remarks
from dari.reconcile.context import Context
from dari.reconcile.doors import listeners
from dari.reconcile.inquiry import Inquiry, places, shot
from dari.reconcile.picture import look
from dari.reconcile.probes import Probes
from dari.reconcile.settle import look_at_host

# For a packet of which the other node says already that it does not arrive: it is sent to see whether that is so.
_LOST_SECONDS = 0.3


async def explain(ctx: Context, inquiry: Inquiry) -> nouns.Explanation:
    """The whole answer. Raises Internal, Unsupported (no place for `outside` on this host)."""
    if inquiry.source.address is not None or "outside" not in (inquiry.source.kind, inquiry.target.kind):
        return await _answer(ctx, inquiry)
    # There is one outside at a time: two links would have the same addresses.
    async with ctx.lock(OUTSIDE):
        return await _answer(ctx, inquiry)


async def _answer(ctx: Context, inquiry: Inquiry) -> nouns.Explanation:
    if inquiry.source.address is not None:
        await from_outside.come_in(ctx, inquiry, inquiry.source.address)
        if inquiry.trouble is not None:
            return explained.without_aim(inquiry, await look(ctx, ()))
    elif "outside" in (inquiry.source.kind, inquiry.target.kind):
        inquiry.places = places(await look_at_host(ctx))
    remarks.beforehand(ctx, inquiry)
    asked_name.find_aims(ctx, inquiry)
    if inquiry.source.address is not None:
        from_outside.keep_version(inquiry, inquiry.source.address)
    other_end.find(ctx, inquiry)
    async with AsyncExitStack() as stack:
        other = await other_end.ask(ctx, inquiry, stack)
        picture = await look(ctx, _concerned(inquiry))
        try:
            await _gather(ctx, inquiry, other)
        except OSError as error:
            raise Internal(f"the probe could not be made: {error.strerror or error}") from error
    if not inquiry.aims:
        return explained.without_aim(inquiry, picture)
    return explained.with_walks(ctx, inquiry, picture)


def _concerned(inquiry: Inquiry) -> set[str]:
    """The sandboxes' namespaces the packet may pass."""
    found = {each for each in (inquiry.source.netns, inquiry.target.netns) if each}
    found |= {aim.netns for aim in inquiry.aims if aim.netns}
    return found - {HOST, OUTSIDE}


async def _gather(ctx: Context, inquiry: Inquiry, other: across.Other | None) -> None:
    concerned = _concerned(inquiry)
    own_places = inquiry.places if inquiry.is_probed and isinstance(inquiry.places, Places) else None
    ports = other.ports if other is not None else ()
    probes = await Probes.make(ctx, concerned, own_places, is_traced=inquiry.is_probed, ports=ports)
    try:
        if inquiry.name and inquiry.trouble is None:
            await asked_name.ask_name(ctx, inquiry, probes)
        inquiry.listeners = await probes.run(listeners, {*concerned, HOST})
        for each in inquiry.aims[:1]:
            if relays.takes(ctx, inquiry.protocol, each.address, each.port):
                inquiry.listeners = inquiry.listeners.beside(HOST, inquiry.protocol, each.address, each.port)
        if other is not None:
            await other_end.hear(inquiry, other)
        if inquiry.is_probed and inquiry.aims:
            aim = inquiry.aims[0]
            outside = probes.round.outside
            if inquiry.target.kind == "outside" and outside is not None and inquiry.protocol != "icmp":
                outside.serve(inquiry.protocol, aim.address.version, aim.port)
            shots = [shot(inquiry, aim), *other_end.pings(ctx, inquiry)]
            is_lost = inquiry.across is not None and inquiry.across.found.verdict not in (
                "delivered",
                "unknown",
            )
            timeout = min(inquiry.timeout, _LOST_SECONDS) if is_lost else inquiry.timeout
            results = await probes.run(Probing.fire, shots, timeout)
            inquiry.result = results[0]
            inquiry.underlay, inquiry.large = results[1:] if len(results) > 1 else (None, None)
            if other is not None and inquiry.across is not None:
                await other_end.hear_of_packet(inquiry, other)
    finally:
        await probes.close()
