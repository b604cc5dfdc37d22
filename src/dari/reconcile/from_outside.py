"""A question from an address outside: by which of the host's interfaces it comes in, and what the host is called there.

No packet is sent: only its owner could, and one made here would not come over that interface. Both pictures tell.
Must not know: what becomes of the packet.
"""

from __future__ import annotations

from dari.net.packet import Hop
from dari.net.state import HOST, Address
from dari.reconcile.causes import Why
from dari.reconcile.context import Context
from dari.reconcile.ends import Uplink
from dari.reconcile.inquiry import Inquiry
from dari.reconcile.picture import Walker, look


async def come_in(ctx: Context, inquiry: Inquiry, address: Address) -> None:
    """Find the interface; a remark says that the packet is walked only. Raises Internal."""
    inquiry.is_probed = False
    way = Walker(await look(ctx, ()), None, None).way_in(address)
    if way is None:
        text = f"this host has no way to {address}: whatever comes from there is never answered"
        inquiry.trouble = "beyond"
        inquiry.reason = Why(text, f"give the host a route there: ip route get {address} should name one")
        inquiry.hops.append(Hop("route", HOST, text, is_ok=False, is_beyond=True))
        return
    link, own = way
    inquiry.places = Uplink(link, own, address)
    text = f"it comes in over {link}, where the way back leads; only {address} could send it: it is walked, not sent"
    inquiry.hops.append(Hop("address", HOST, text))
