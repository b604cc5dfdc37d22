"""The host's own view: a listener on one of its loopback addresses, where asked for (`--dns-listen`).

It answers containers' names on all networks, also with a domain of ours behind (`db.shop_default.dari.internal`), and
asks nobody else. A port that is taken keeps nobody from anything but this. Must not know: who asks.
"""

from __future__ import annotations

import asyncio
import logging
import os

from dari.dns import nudge, zone
from dari.reconcile import members
from dari.reconcile.context import Context
from dari.reconcile.zones import has_names

log = logging.getLogger(__name__)

ID = "host"
"""Stands where a sandbox's id does; no sandbox has it."""

DOMAIN = "dari.internal"
"""`internal` is reserved for private use (ICANN, 2024)."""


def view(ctx: Context) -> zone.View | None:
    """None where the host does not want to be answered."""
    address, _, port = ctx.config.dns_listen.partition(":")
    if not address:
        return None
    networks = [each for each in ctx.tables.networks.all(ctx.shared) if has_names(each)]
    return zone.View(
        sandbox_id=ID,
        netns_path="/proc/self/ns/net",
        port=int(port or 53),
        networks=(*(each.id for each in sorted(networks, key=lambda one: one.name)), members.ZONE_ID),
        is_internal_only=True,
        address=address,
        domain=DOMAIN,
    )


async def settle(ctx: Context) -> None:
    """Bring the view up to date; what fails is logged, and tried again by the responder."""
    found, name = view(ctx), zone.view_path(ID)
    text = zone.encode_view(found) if found is not None else None
    if ctx.settling.files.get(name) == text:
        return
    path = f"{ctx.config.dns_dir}/{name}"
    if text is None:
        ctx.settling.files.pop(name, None)
        if os.path.exists(path):
            os.unlink(path)
    else:
        ctx.settling.files[name] = text
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(f"{path}.new", path)
    if not await asyncio.to_thread(nudge.nudge, ctx.config.dns_dir, [name]):
        status = await asyncio.to_thread(nudge.ping, ctx.config.dns_dir)
        why = status.failed.get(ID, "") if status is not None else "dari-dns does not answer"
        log.error("the host is not answered at %s yet: %s", ctx.config.dns_listen, why)
