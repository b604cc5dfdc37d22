"""Names of members that are not containers: one zone that every sandbox sees behind its networks' own.

Must not know: checks, packets.
"""

from __future__ import annotations

import ipaddress

from dari.discovery import registry
from dari.dns.zone import Addresses, Zone, encode_zone
from dari.reconcile.context import Context

ZONE_ID = "members"
"""Stands where a network's id does in zone and view files; no network has it."""


def has_members(ctx: Context) -> bool:
    return bool(ctx.tables.registrations.keys(ctx.shared))


def zone_text(ctx: Context) -> str | None:
    """None where there are none."""
    by_name: dict[str, list[registry.Instance]] = {}
    for each in ctx.tables.registrations.all(ctx.shared):
        by_name.setdefault(each.name, []).append(registry.of_registration(each))
    if not by_name:
        return None
    names: dict[str, Addresses] = {}
    ptr: dict[str, str] = {}
    for name, instances in by_name.items():
        chosen = registry.in_order(instances, is_healthy_only=True)
        found = [ipaddress.ip_address(instance.address) for instance in chosen]
        names[name] = Addresses(
            tuple(dict.fromkeys(str(address) for address in found if address.version == 4)),
            tuple(dict.fromkeys(str(address) for address in found if address.version == 6)),
        )
        for address in found:
            ptr.setdefault(str(address), name)
    return encode_zone(Zone(network_id=ZONE_ID, network_name=ZONE_ID, names=names, ptr=ptr))
