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


def keep_version(inquiry: Inquiry, address: Address) -> None:
    """It asks by its own IP version alone."""
    others = inquiry.aims
    inquiry.aims = [each for each in others if each.address.version == address.version]
    if others and not inquiry.aims:
        name, at = inquiry.target.name, others[0].address
        text = f"{address} asks by IPv{address.version}, and {name} is at {at}, by IPv{at.version} only"
        inquiry.trouble = "meant"
        inquiry.reason = Why(text, f"ask by IPv{at.version}, or publish it for IPv{address.version} too")
        inquiry.hops.append(Hop("address", HOST, text, is_ok=False))
