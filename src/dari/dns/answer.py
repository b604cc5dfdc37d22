"""From a query to an answer, or to the decision to ask elsewhere. Pure.

`compile_zone` and `compile_view` turn files into tables of packed addresses; `answer` looks a question up.
Whole answers are kept per view under the raw bytes of the query (all but its id), so the usual query
costs one dictionary lookup. Must not know sockets, clocks or files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import cycle
from socket import AF_INET, AF_INET6, inet_pton
from typing import NamedTuple

from dari.dns import wire
from dari.dns.zone import View, Zone

_ROTATIONS = 16
_READY_LIMIT = 1024  # answers kept per view; askers choose the keys, so there must be a bound
TCP_LIMIT = 65535


class Packed(NamedTuple):
    """The addresses of one name, in wire form."""

    ipv4: tuple[bytes, ...]
    ipv6: tuple[bytes, ...]


class ZoneTable(NamedTuple):
    """A zone ready for lookups; keys are lower-case wire names."""

    names: dict[bytes, Packed]
    ptr: dict[bytes, bytes]
    subnets: tuple[tuple[bytes, int], ...]
    suffix: bytes | None
    ttl: int


class Forward(NamedTuple):
    """Ask the upstreams. `fallback` is the rcode for the asker when none of them answers."""

    fallback: int
    question_end: int


class ViewTable:
    """A view with its zones in order, and the answers given so far."""

    __slots__ = ("is_forwarding", "links", "ready", "view", "zones")

    def __init__(self, view: View, zones: Sequence[ZoneTable]) -> None:
        self.view = view
        self.zones = tuple(zones)
        self.links = _compile_links(view)
        self.is_forwarding = bool(view.upstreams) and not view.is_internal_only
        self.ready: dict[bytes, bytes | cycle[bytes]] = {}


def compile_zone(zone: Zone) -> ZoneTable:
    """A zone's table. Names and addresses that DNS cannot carry are left out."""
    names = {}
    for text, addresses in zone.names.items():
        name = _wire_name(text)
        if name is not None:
            names[name] = _pack(addresses.ipv4 + addresses.ipv6)
    ptr = {}
    for address, text in zone.ptr.items():
        question, target = _reverse(address), _wire_name(text)
        if question is not None and target is not None:
            ptr[question] = target
    subnets = [subnet for subnet in map(_subnet, zone.subnets) if subnet is not None]
    return ZoneTable(names, ptr, tuple(subnets), wire.wire_name(zone.network_name), zone.ttl)


def compile_view(view: View, zones: Mapping[str, ZoneTable]) -> ViewTable:
    """A view's table over those of its zones that are known."""
    return ViewTable(view, [zones[network] for network in view.networks if network in zones])


def answer(table: ViewTable, query: bytes, *, over_tcp: bool = False) -> bytes | Forward | None:
    """The answer to a query, `Forward` when upstreams must be asked, None when it deserves silence.

    Any bytes are fine. Silence: shorter than a header, or itself an answer (so two responders never loop).
    """
    if not over_tcp:
        ready = table.ready.get(query[2:])
        if ready is not None:
            return query[:2] + (ready if isinstance(ready, bytes) else next(ready))
    if len(query) < wire.HEADER_SIZE or query[2] & 0x80:
        return None
    if query[2] & 0x78:
        return wire.reply(query, 0, wire.NOTIMP, None, [], wire.UDP_MINIMUM)
    question = wire.read_question(query) if query[4:6] == b"\0\1" else None
    if question is None:
        return wire.reply(query, 0, wire.FORMERR, None, [], wire.UDP_MINIMUM)
    try:
        opt = wire.read_opt(query, question.end)
    except ValueError:
        return wire.reply(query, question.end, wire.FORMERR, None, [], wire.UDP_MINIMUM)
    limit = TCP_LIMIT if over_tcp else max(wire.UDP_MINIMUM, opt.size if opt else 0)
    if opt is not None and opt.version != 0:
        return wire.reply(query, question.end, wire.BADVERS, opt, [], limit)
    if question.qclass not in (wire.CLASS_IN, wire.CLASS_ANY):
        return wire.reply(query, question.end, wire.REFUSED, opt, [], limit)
    found = _look_up(table, question)
    if isinstance(found, Forward):
        return found
    rcode, records = found
    if over_tcp:
        return wire.reply(query, question.end, rcode, opt, records, limit)
    return _keep(table, query, question.end, rcode, opt, records, limit)


def failure(query: bytes, rcode: int) -> bytes:
    """The answer that says the upstreams failed; `query` is one that `answer` said to forward."""
    question, opt = _read(query)
    return wire.reply(query, question.end if question else 0, rcode, opt, [], wire.UDP_MINIMUM)


def udp_limit(query: bytes) -> int:
    """The largest answer over UDP, in bytes, that the sender of this query takes."""
    _, opt = _read(query)
    return max(wire.UDP_MINIMUM, opt.size if opt else 0)


def is_address(text: str) -> bool:
    """Whether this is an IPv4 or IPv6 address and nothing else."""
    return _packed(text) is not None


def _read(query: bytes) -> tuple[wire.Question | None, wire.Opt | None]:
    question = wire.read_question(query)
    try:
        return question, wire.read_opt(query, question.end) if question is not None else None
    except ValueError:
        return question, None


def _look_up(table: ViewTable, question: wire.Question) -> tuple[int, list[bytes]] | Forward:
    name = question.name
    if question.qtype == wire.TYPE_PTR:
        reverse = _look_up_reverse(table, name)
        if reverse is not None:
            return reverse
    is_known = False
    for addresses, ttl in _candidates(table, name):
        is_known = True
        records: list[bytes] = []
        if question.qtype in (wire.TYPE_A, wire.TYPE_ANY):
            records += [wire.record(wire.TYPE_A, ttl, data) for data in addresses.ipv4]
        if question.qtype in (wire.TYPE_AAAA, wire.TYPE_ANY):
            records += [wire.record(wire.TYPE_AAAA, ttl, data) for data in addresses.ipv6]
        if records:
            return wire.NOERROR, records
    if is_known:
        return wire.NOERROR, []
    return _unknown(table, name, question.end)


def _candidates(table: ViewTable, name: bytes) -> list[tuple[Packed, int]]:
    found: list[tuple[Packed, int]] = []
    link = table.links.get(name)
    if isinstance(link, bytes):
        name = link
    elif link is not None:
        found.append((link, 0))
    for zone in table.zones:
        addresses = zone.names.get(name)
        if addresses is not None:
            found.append((addresses, zone.ttl))
    return found


def _look_up_reverse(table: ViewTable, name: bytes) -> tuple[int, list[bytes]] | None:
    for zone in table.zones:
        target = zone.ptr.get(name)
        if target is not None:
            return wire.NOERROR, [wire.record(wire.TYPE_PTR, zone.ttl, target)]
    address = wire.reverse_address(name)
    if address is None:
        return None
    for zone in table.zones:
        if any(_contains(subnet, address) for subnet in zone.subnets):
            return wire.NXDOMAIN, []
    return None


def _unknown(table: ViewTable, name: bytes, end: int) -> tuple[int, list[bytes]] | Forward:
    is_single_label = len(name) > 1 and name[0] + 2 == len(name)
    if not table.is_forwarding or (is_single_label and not table.view.forward_single_label):
        return wire.NXDOMAIN, []
    # What looks like the name of a container is most likely one that stopped: when upstreams are dead
    # as well, "there is none" is the truth and SERVFAIL would make clients hold on to the old address.
    is_ours = is_single_label or any(_is_under(name, zone.suffix) for zone in table.zones)
    return Forward(wire.NXDOMAIN if is_ours else wire.SERVFAIL, end)


def _is_under(name: bytes, suffix: bytes | None) -> bool:
    if suffix is None or not name.endswith(suffix):
        return False
    at, boundary = 0, len(name) - len(suffix)
    while at < boundary:
        at += name[at] + 1
    return at == boundary


def _keep(
    table: ViewTable,
    query: bytes,
    end: int,
    rcode: int,
    opt: wire.Opt | None,
    records: list[bytes],
    limit: int,
) -> bytes:
    count = len(records)
    steps = range(0, count, -(-count // _ROTATIONS)) if count > 1 else range(1)
    answers = [
        wire.reply(query, end, rcode, opt, records[step:] + records[:step], limit)[2:] for step in steps
    ]
    # Options (cookies) differ in every query, so such answers would only fill the table.
    if len(query) <= end + (11 if opt is not None else 0):
        if len(table.ready) >= _READY_LIMIT:
            table.ready.clear()
        if len(answers) == 1:
            table.ready[query[2:]] = answers[0]
        else:
            # Each table begins elsewhere: many askers that ask once must not all get the same first address.
            start = os.urandom(1)[0] % len(answers)
            answers = answers[start:] + answers[:start]
            table.ready[query[2:]] = cycle(answers[1:] + answers[:1])
    return query[:2] + answers[0]


def _compile_links(view: View) -> dict[bytes, Packed | bytes]:
    links: dict[bytes, Packed | bytes] = {}
    for text, target in view.links.items():
        name = wire.wire_name(text)
        resolved = wire.wire_name(target) if isinstance(target, str) else _pack(target)
        if name is not None and resolved is not None:
            links[name] = resolved
    return links


# A zone is compiled whole whenever one of its names changes; the others were compiled before. What is cached comes
# from zone files, never from askers.
_wire_name = lru_cache(maxsize=32768)(wire.wire_name)


@lru_cache(maxsize=16384)
def _reverse(address: str) -> bytes | None:
    packed = _packed(address)
    return None if packed is None else wire.reverse_name(packed)


@lru_cache(maxsize=16384)
def _pack(addresses: tuple[str, ...]) -> Packed:
    packed = [data for data in map(_packed, addresses) if data is not None]
    return Packed(
        tuple(data for data in packed if len(data) == 4), tuple(data for data in packed if len(data) == 16)
    )


def _packed(text: str) -> bytes | None:
    try:
        return inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except (OSError, ValueError):
        return None


def _subnet(text: str) -> tuple[bytes, int] | None:
    address, _, length = text.partition("/")
    packed = _packed(address)
    if packed is None or not length.isascii() or not length.isdigit() or int(length) > len(packed) * 8:
        return None
    return packed, int(length)


def _contains(subnet: tuple[bytes, int], address: bytes) -> bool:
    network, length = subnet
    if len(network) != len(address):
        return False
    shift = len(address) * 8 - length
    return int.from_bytes(network, "big") >> shift == int.from_bytes(address, "big") >> shift
