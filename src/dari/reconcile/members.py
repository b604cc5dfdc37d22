"""Names of members that are not containers: one zone that every sandbox sees behind its networks' own.

Must not know: checks, packets.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from dari.discovery import registry
from dari.discovery.records import texts
from dari.dns.book import Book, Piece, piece
from dari.dns.zone import Addresses, Srv, Zone
from dari.reconcile.context import Context
from dari.reconcile.service_names import service_name

ZONE_ID = "members"
"""Stands where a network's id does in zone and view files; no network has it."""


def book(ctx: Context, kept: Book | None) -> Book | None:
    """The names, `kept` brought up to date where it is given; None where there are none."""
    by_name: dict[str, list[registry.Instance]] = {}
    for each in ctx.tables.registrations.all(ctx.shared):
        by_name.setdefault(each.name, []).append(registry.of_registration(each))
    if not by_name:
        return None
    pieces: list[Piece] = []
    for name, instances in by_name.items():
        for instance in registry.in_order(instances, is_healthy_only=True):
            pieces += _pieces(name, instance)
    found = kept or Book(Zone(network_id=ZONE_ID, network_name=ZONE_ID, order="weighted"))
    numbered = {f"{number:08}": made for number, made in enumerate(pieces)}
    for key in found.pieces:
        if key not in numbered:
            found.put(key, None)
    for key, made in numbered.items():
        found.put(key, made)
    return found


def _pieces(name: str, instance: registry.Instance) -> Iterator[Piece]:
    """What a member adds to the service's name, and its own: its address with dashes (`10-0-0-5.db`), to which the
    service's SRV records lead."""
    address = ipaddress.ip_address(instance.address)
    label = str(address).replace(".", "-").replace(":", "-").strip("-")
    target = f"{label}.{name}"
    plain = Addresses((str(address),)) if address.version == 4 else Addresses((), (str(address),))
    full = plain._replace(
        srv=tuple(
            Srv(protocol, port, target, instance.weight, service_name(port, protocol))
            for port, protocol in instance.ports
        ),
        txt=texts(instance.tags, instance.meta),
        weights=((str(address), instance.weight),) if instance.weight != 1 else (),
    )
    yield piece([name], full, name)
    yield piece([target], plain, name)
