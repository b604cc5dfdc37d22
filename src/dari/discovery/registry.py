"""Register and look up: who is a member of which service, whatever runs it.

Containers are members by themselves, on each network they are on; everything else is a registration. Looking up reads
the mirror, so it works while the store is away. Must not know: packets, paths, how a check is done.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from dari.model.cluster import Published
from dari.model.errors import InvalidArgument, NotFound
from dari.model.registration import Check, Registration, Verdict
from dari.store.base import Store, Txn
from dari.store.tables import Tables

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")
# It is part of a path, of a key and of a command line.
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}\Z")
_BROADCAST = ipaddress.ip_address("255.255.255.255")
_TAG = re.compile(r"[^\s,]{1,128}\Z")
_SHORTEST = 100_000_000
_VERDICTS: dict[str, Verdict] = {"healthy": "passing", "unhealthy": "critical", "starting": "unknown"}


@dataclass(frozen=True, slots=True)
class Instance:
    """One member. `ports` as (number, protocol). `network` is where its address is good for ("" = everywhere).

    `source`: container or registration; `id` of the container or registration; `node` the id of the node it is on.
    """

    service: str
    id: str
    address: str
    ports: tuple[tuple[int, str], ...] = ()
    verdict: Verdict = "passing"
    source: str = "registration"
    network: str = ""
    node: str = ""
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    output: str = ""
    weight: int = 1


def check_registration(registration: Registration) -> Registration:
    """The registration in its canonical form. Raises InvalidArgument naming the part that is wrong."""
    name = registration.name.lower().rstrip(".")
    if not name or len(name) > 253 or not all(_LABEL.match(part) for part in name.split(".")):
        raise InvalidArgument(
            f"invalid service name {registration.name!r}: letters, digits, dashes and underscores, in parts of 63 at "
            "most with dots between"
        )
    try:
        address = ipaddress.ip_address(registration.address.strip("[]"))
    except ValueError:
        raise InvalidArgument(
            f"invalid address {registration.address!r} of {name}: give an IP address, or ADDRESS:PORT"
        ) from None
    if registration.id and not _ID.match(registration.id):
        raise InvalidArgument(
            f"invalid id {registration.id!r} of {name}: 1 to 128 letters, digits, dashes, underscores, dots and colons"
        )
    if address.is_unspecified or address.is_multicast or address == _BROADCAST:
        raise InvalidArgument(f"invalid address {address} of {name}: nobody can be reached there")
    if address.version == 6 and address.is_link_local:
        raise InvalidArgument(
            f"invalid address {address} of {name}: it means another machine on every link, give one all know"
        )
    if not 0 <= registration.port <= 65535:
        raise InvalidArgument(f"invalid port {registration.port} of {name}: give a number from 1 to 65535")
    if not 0 <= registration.weight <= 65535:
        raise InvalidArgument(
            f"invalid weight {registration.weight} of {name}: give a number from 0 to 65535"
        )
    for tag in registration.tags:
        if not _TAG.match(tag):
            raise InvalidArgument(
                f"invalid tag {tag!r} of {name}: 1 to 128 characters without blanks and commas"
            )
    for check in registration.checks:
        _check_check(name, registration.port, check)
    if sum(check.kind == "ttl" for check in registration.checks) > 1:
        raise InvalidArgument(f"{name} has two ttl checks: one heartbeat is enough")
    tags = list(dict.fromkeys(registration.tags))
    return msgspec.structs.replace(registration, name=name, address=str(address), tags=tags)


def _check_check(name: str, port: int, check: Check) -> None:
    if check.interval < _SHORTEST or check.timeout < _SHORTEST:
        raise InvalidArgument(
            f"invalid {check.kind} check of {name}: interval and timeout are 100ms at least"
        )
    if check.retries < 1:
        raise InvalidArgument(f"invalid {check.kind} check of {name}: retries must be 1 at least")
    if check.kind in ("tcp", "http") and not check.target and not port:
        raise InvalidArgument(f"invalid {check.kind} check of {name}: it has no port, so say what to ask")
    if check.kind == "tcp" and check.target and not re.match(r".+:\d{1,5}\Z", check.target):
        raise InvalidArgument(f"invalid tcp check of {name}: {check.target!r} is no HOST:PORT")
    if check.kind == "http" and check.target and not re.match(r"https?://[^/\s]+", check.target):
        raise InvalidArgument(f"invalid http check of {name}: {check.target!r} is no http or https URL")
    if check.kind == "command" and not check.target.strip():
        raise InvalidArgument(f"invalid command check of {name}: the command is empty")


def register(tables: Tables, store: Store, txn: Txn, registration: Registration) -> None:
    """Add to `txn`: a registration of the same id is replaced, wherever its name was before."""
    for known in tables.registrations.all(store):
        if known.id == registration.id and known.name != registration.name:
            tables.registrations.delete(txn, known.name, known.id)
    tables.registrations.put(txn, registration, registration.name, registration.id)


def find(tables: Tables, store: Store, ref: str) -> Registration:
    """By id, or by a name with one registration. Raises NotFound, InvalidArgument (several)."""
    found = [each for each in tables.registrations.all(store) if each.id == ref]
    if not found:
        found = tables.registrations.all(store, ref.lower()) if ref else []
    if not found:
        raise NotFound(f"no such registration: {ref}")
    if len(found) > 1:
        ids = ", ".join(each.id for each in found)
        raise InvalidArgument(f"{ref} has {len(found)} registrations, name one by its id: {ids}")
    return found[0]


def of_registration(registration: Registration) -> Instance:
    return Instance(
        service=registration.name,
        id=registration.id,
        address=registration.address,
        ports=((registration.port, registration.protocol),) if registration.port else (),
        verdict=registration.verdict,
        node=registration.owner,
        tags=tuple(registration.tags),
        meta=registration.meta,
        output=registration.output,
        weight=registration.weight,
    )


def of_published(published: Published, service: str) -> Iterator[Instance]:
    """A container at its node's ports, under one of its names: one instance for each address."""
    for address in dict.fromkeys(door.address for door in published.doors):
        yield Instance(
            service=service,
            id=published.id,
            address=address,
            ports=tuple((each.port, each.protocol) for each in published.doors if each.address == address),
            verdict=of_health(published.health),
            source="container",
            node=published.node,
            tags=tags_of(published.labels),
            meta={"container": published.name, **published.labels},
        )


def of_health(health: str) -> Verdict:
    """Of a container's health check; passing where it has none."""
    return _VERDICTS.get(health, "passing")


def tags_of(labels: Mapping[str, str]) -> tuple[str, ...]:
    """A container's tags are in a label."""
    return tuple(each for each in labels.get("dari.tags", "").split(",") if each)


def in_order(instances: Iterable[Instance], *, is_healthy_only: bool = False) -> list[Instance]:
    """Passing ones first, then those nobody knows of, then critical ones; with `is_healthy_only` critical ones are
    left out while there are others."""
    ranks = {"passing": 0, "unknown": 1, "critical": 2}
    found = sorted(instances, key=lambda each: (ranks[each.verdict], each.service, each.address, each.id))
    if is_healthy_only:
        good = [each for each in found if each.verdict != "critical"]
        return good or found
    return found
