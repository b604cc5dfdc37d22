"""From a query to an answer, or to the decision to ask elsewhere. Pure.

`compile_zone` and `compile_view` turn files into tables of packed addresses; `answer` looks a question up.
Whole answers are kept per view under the raw bytes of the query (all but its id), so the usual query
costs one dictionary lookup. Must not know sockets, clocks or files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain, cycle
from socket import AF_INET, AF_INET6, inet_pton
from typing import NamedTuple

from dari.dns import wire
from dari.dns.order import orders
from dari.dns.zone import Addresses, Change, Srv, View, Zone

_CNAMES = 8  # followed for one question; more is a ring
_READY_LIMITS = (
    1024,
    32768,
)  # answers kept per view, by its names; askers choose the keys, so there must be a bound
TCP_LIMIT = 65535


class Packed(NamedTuple):
    """What one name leads to, in wire form; `weights` by packed address."""

    ipv4: tuple[bytes, ...]
    ipv6: tuple[bytes, ...]
    srv: tuple[Srv, ...] = ()
    txt: tuple[str, ...] = ()
    cname: bytes = b""
    weights: Mapping[bytes, int] = {}


class ZoneTable(NamedTuple):
    """A zone ready for lookups; keys are lower-case wire names. `wild` and `project_wild` have what stands behind
    `*.` in names and projects."""

    names: dict[bytes, Packed]
    ptr: dict[bytes, bytes]
    subnets: tuple[tuple[bytes, int], ...]
    suffix: bytes | None
    ttl: int
    order: str
    projects: dict[bytes, Packed]
    wild: dict[bytes, Packed]
    project_wild: dict[bytes, Packed]


class Forward(NamedTuple):
    """Ask the upstreams. `fallback` is the rcode for the asker when none of them answers.

    `target`: a name to ask for instead of the question's, to which the records of `chain` lead.
    """

    fallback: int
    question_end: int
    target: bytes = b""
    chain: tuple[bytes, ...] = ()


class Found(NamedTuple):
    """What to answer: `head` stays first, the order of `records` may change, by `order` and their `weights`.

    `extra`: the additional section, what an asker would ask for next.
    """

    rcode: int
    records: list[bytes]
    head: tuple[bytes, ...] = ()
    order: str = "random"
    weights: tuple[int, ...] = ()
    extra: tuple[bytes, ...] = ()


class ViewTable:
    """A view with its zones in order, and the answers given so far."""

    __slots__ = ("domain", "is_forwarding", "limit", "links", "project", "ready", "view", "zones")

    def __init__(self, view: View, zones: Sequence[ZoneTable]) -> None:
        self.view = view
        self.zones = tuple(zones)
        self.links = _compile_links(view)
        self.project = wire.wire_name(view.project) if view.project else None
        self.domain = wire.wire_name(view.domain) if view.domain else None
        self.is_forwarding = bool(view.upstreams) and not view.is_internal_only
        self.ready: dict[bytes, bytes | cycle[bytes]] = {}
        self.limit = _limit(self.zones)


def _limit(zones: Iterable[ZoneTable]) -> int:
    """How many answers a view of these zones keeps."""
    names = sum(len(zone.names) for zone in zones)
    return max(_READY_LIMITS[0], min(2 * names, _READY_LIMITS[1]))


def compile_zone(zone: Zone) -> ZoneTable:
    """A zone's table. Names and addresses that DNS cannot carry are left out."""
    subnets = [subnet for subnet in map(_subnet, zone.subnets) if subnet is not None]
    suffix = wire.wire_name(zone.network_name)
    table = ZoneTable({}, {}, tuple(subnets), suffix, zone.ttl, zone.order, {}, {}, {})
    change_zone(table, Change(zone.names, zone.projects, zone.ptr))
    return table


def change_zone(table: ZoneTable, change: Change) -> None:
    """Make a change in a table that is in use; what views of it have kept (`ready`) is to be forgotten."""
    for into, wild, field in (
        (table.names, table.wild, change.names),
        (table.projects, table.project_wild, change.projects),
    ):
        for text, addresses in field.items():
            name = _wire_name(text)
            if name is None:
                continue
            is_wild = name.startswith(b"\1*") and len(name) > 3
            place, key = (wild, name[2:]) if is_wild else (into, name)
            if addresses is None:
                place.pop(key, None)
            else:
                place[key] = _pack(addresses)
    for address, back in change.ptr.items():
        question = _reverse(address)
        if question is None:
            continue
        target = _wire_name(back) if back is not None else None
        if target is None:
            table.ptr.pop(question, None)
        else:
            table.ptr[question] = target


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
    if over_tcp:
        records = [*found.head, *orders(found.records, found.order, found.weights)[0]]
        return wire.reply(query, question.end, found.rcode, opt, records, limit, found.extra)
    return _keep(table, query, question.end, found, opt, limit)


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


def _look_up(table: ViewTable, question: wire.Question) -> Found | Forward:
    name = _own_part(table, question.name)
    if question.qtype == wire.TYPE_PTR:
        reverse = _look_up_reverse(table, name)
        if reverse is not None:
            return reverse
    # The question's own name is a pointer; a name that CNAMEs led to is written out.
    owner, target = b"\xc0\x0c", name
    head: list[bytes] = []
    for _ in range(_CNAMES):
        is_known = False
        following, ttl = b"", 0
        candidates = _named(table, target)
        if not candidates:
            service = _look_up_service(table, target, question.qtype, owner)
            if service is not None:
                return service._replace(head=tuple(head))
            candidates = _covered(table, target)
        for packed, zone in candidates:
            is_known = True
            found = _records(packed, zone, question.qtype, owner)
            if found is not None:
                extra: tuple[bytes, ...] = ()
                if packed.srv and question.qtype in (wire.TYPE_SRV, wire.TYPE_ANY):
                    extra = _targets(table, [each for each in packed.srv if not each.protocol])
                return found._replace(head=tuple(head), extra=extra)
            if packed.cname and not following and not packed.ipv4 and not packed.ipv6:
                following, ttl = packed.cname, zone.ttl if zone else 0
        if following:
            head.append(wire.record(wire.TYPE_CNAME, ttl, following, owner))
            if question.qtype in (wire.TYPE_CNAME, wire.TYPE_ANY):
                return Found(wire.NOERROR, head)
            owner = target = following
            continue
        if is_known:
            return Found(wire.NOERROR, [], tuple(head))
        unknown = _unknown(table, question.name if target is name else target, question.end)
        if not head:
            return unknown
        if isinstance(unknown, Forward):
            return unknown._replace(target=target, chain=tuple(head))
        return unknown._replace(head=tuple(head))
    return Found(wire.SERVFAIL, [])


def _own_part(table: ViewTable, name: bytes) -> bytes:
    """A name under the view's own domain, without it."""
    if table.domain is not None and name != table.domain and _is_under(name, table.domain):
        return name[: -len(table.domain)] + b"\0"
    return name


def _records(packed: Packed, zone: ZoneTable | None, qtype: int, owner: bytes) -> Found | None:
    """The records of a type; None where the name has none."""
    ttl, order = (zone.ttl, zone.order) if zone is not None else (0, "random")
    is_any = qtype == wire.TYPE_ANY
    records: list[bytes] = []
    weights: list[int] = []
    for rtype, addresses in ((wire.TYPE_A, packed.ipv4), (wire.TYPE_AAAA, packed.ipv6)):
        if is_any or qtype == rtype:
            records += [wire.record(rtype, ttl, data, owner) for data in addresses]
            weights += [packed.weights.get(data, 1) for data in addresses]
    if is_any or qtype == wire.TYPE_TXT:
        records += [wire.record(wire.TYPE_TXT, ttl, wire.text_data(each), owner) for each in packed.txt]
    if is_any or qtype == wire.TYPE_SRV:
        own = [each for each in packed.srv if not each.protocol]
        records += [each for each in (_srv_record(srv, ttl, owner) for srv in own) if each]
    if not records:
        return None
    is_weighted = len(weights) == len(records)
    return Found(wire.NOERROR, records, (), order, tuple(weights) if is_weighted else ())


def _srv_record(srv: Srv, ttl: int, owner: bytes) -> bytes | None:
    target = _wire_name(srv.target)
    if target is None:
        return None
    data = wire.srv_data(srv.priority, srv.weight, srv.port, target)
    return wire.record(wire.TYPE_SRV, ttl, data, owner)


def _look_up_service(table: ViewTable, name: bytes, qtype: int, owner: bytes) -> Found | None:
    """`_80._tcp.web` from the ports of `web`; None where this is no such name, or nobody here is called so."""
    labels = _labels(name, 2)
    if len(labels) != 2 or not all(label.startswith(b"_") and label.isascii() for label in labels):
        return None
    port, protocol = labels[0][1:].decode(), labels[1][1:].decode()
    if protocol not in ("tcp", "udp", "sctp"):
        return None
    is_known = is_there = False
    name = name[len(labels[0]) + len(labels[1]) + 2 :]
    for packed, zone in _named(table, name) or _covered(table, name):
        is_known = True
        found = [
            each
            for each in packed.srv
            if each.protocol == protocol and port in (str(each.port), each.service)
        ]
        is_there = is_there or bool(found)
        if found and qtype in (wire.TYPE_SRV, wire.TYPE_ANY):
            ttl, order = (zone.ttl, zone.order) if zone is not None else (0, "random")
            made = [(_srv_record(each, ttl, owner), each.weight) for each in found]
            records = [(record, weight) for record, weight in made if record is not None]
            weights = tuple(weight for _, weight in records)
            extra = _targets(table, found)
            return Found(wire.NOERROR, [record for record, _ in records], (), order, weights, extra)
    if not is_known:
        return None
    return Found(wire.NOERROR if is_there else wire.NXDOMAIN, [])


def _targets(table: ViewTable, found: Sequence[Srv]) -> tuple[bytes, ...]:
    """The addresses of SRV records' targets, as far as they are known here (RFC 2782)."""
    records: list[bytes] = []
    for text in dict.fromkeys(each.target for each in found):
        target = _wire_name(text)
        for packed, zone in _named(table, target) if target is not None else ():
            ttl = zone.ttl if zone is not None else 0
            for rtype, addresses in ((wire.TYPE_A, packed.ipv4), (wire.TYPE_AAAA, packed.ipv6)):
                records += [wire.record(rtype, ttl, data, target or b"") for data in addresses]
            if packed.ipv4 or packed.ipv6:
                break
    return tuple(records)


def _labels(name: bytes, count: int) -> list[bytes]:
    """The first labels of a wire name, at most `count`."""
    found: list[bytes] = []
    at = 0
    while len(found) < count and name[at]:
        found.append(name[at + 1 : at + 1 + name[at]])
        at += name[at] + 1
    return found


def _named(table: ViewTable, name: bytes) -> list[tuple[Packed, ZoneTable | None]]:
    """All that a name may stand for, the first with an answer counts: a link, what the own project calls so on any of
    the networks, what a network knows."""
    found: list[tuple[Packed, ZoneTable | None]] = []
    link = table.links.get(name)
    if isinstance(link, bytes):
        name = link
    elif link is not None:
        found.append((link, None))
    if table.project is not None:
        own = name[:-1] + table.project
        found += [(zone.projects[own], zone) for zone in table.zones if own in zone.projects]
    for zone in table.zones:
        packed = zone.projects.get(name) or zone.names.get(name)
        if packed is not None:
            found.append((packed, zone))
    return found


def _covered(table: ViewTable, name: bytes) -> list[tuple[Packed, ZoneTable | None]]:
    """What wildcards of the networks say of a name that is not there."""
    zones = [zone for zone in table.zones if zone.wild or zone.project_wild]
    return [(packed, zone) for zone in zones for packed in _covering(zone, name)]


def _covering(zone: ZoneTable, name: bytes) -> list[Packed]:
    """What the longest wildcard over a name leads to (RFC 4592: a name that exists is no wildcard's)."""
    at = name[0] + 1 if name[0] else 0
    while at and name[at]:
        packed = zone.project_wild.get(name[at:]) or zone.wild.get(name[at:])
        if packed is not None:
            return [packed]
        at += name[at] + 1
    return []


def _look_up_reverse(table: ViewTable, name: bytes) -> Found | None:
    for zone in table.zones:
        target = zone.ptr.get(name)
        if target is not None:
            full = target[:-1] + (table.domain or b"\0")
            short = full if len(full) <= wire.LONGEST_NAME else target
            return Found(wire.NOERROR, [wire.record(wire.TYPE_PTR, zone.ttl, short)])
    address = wire.reverse_address(name)
    if address is None:
        return None
    for zone in table.zones:
        if any(_contains(subnet, address) for subnet in zone.subnets):
            return Found(wire.NXDOMAIN, [])
    return None


def _unknown(table: ViewTable, name: bytes, end: int) -> Found | Forward:
    is_single_label = len(name) > 1 and name[0] + 2 == len(name)
    suffixes = (table.project, table.domain, *(zone.suffix for zone in table.zones))
    above = [each for each in suffixes if each is not None and _is_under(name, each)]
    if table.domain is not None:
        # The host has other servers for what is not ours; a resolver goes on to the next one.
        return Found(wire.NXDOMAIN if above else wire.REFUSED, [])
    if not table.is_forwarding or (is_single_label and not table.view.forward_single_label):
        return Found(wire.NXDOMAIN, [])
    if any(not _may_be_public(each) for each in above):
        return Found(wire.NXDOMAIN, [])
    # What looks like the name of a container is most likely one that stopped: when upstreams are dead
    # as well, "there is none" is the truth and SERVFAIL would make clients hold on to the old address.
    is_ours = is_single_label or bool(above)
    return Forward(wire.NXDOMAIN if is_ours else wire.SERVFAIL, end)


def _may_be_public(suffix: bytes) -> bool:
    """Whether names outside can end so: top-level domains are letters alone, or begin with `xn--` (RFC 3696). A network
    called `shop_default` is nobody's domain, one called `app` is."""
    last, at = b"", 0
    while suffix[at]:
        last = suffix[at + 1 : at + 1 + suffix[at]]
        at += suffix[at] + 1
    return (last.isascii() and last.isalpha()) or last.startswith(b"xn--")


def _is_under(name: bytes, suffix: bytes | None) -> bool:
    if suffix is None or not name.endswith(suffix):
        return False
    at, boundary = 0, len(name) - len(suffix)
    while at < boundary:
        at += name[at] + 1
    return at == boundary


def _keep(table: ViewTable, query: bytes, end: int, found: Found, opt: wire.Opt | None, limit: int) -> bytes:
    answers = [
        wire.reply(query, end, found.rcode, opt, [*found.head, *records], limit, found.extra)[2:]
        for records in orders(found.records, found.order, found.weights)
    ]
    # Options (cookies) differ in every query, so such answers would only fill the table.
    if len(query) <= end + (11 if opt is not None else 0):
        if len(table.ready) >= table.limit:
            table.limit = _limit(table.zones)  # zones grow
            if len(table.ready) >= table.limit:
                table.ready.clear()
        if len(answers) == 1:
            table.ready[query[2:]] = answers[0]
        else:
            table.ready[query[2:]] = cycle(answers[1:] + answers[:1])
    return query[:2] + answers[0]


def _compile_links(view: View) -> dict[bytes, Packed | bytes]:
    links: dict[bytes, Packed | bytes] = {}
    for text, target in view.links.items():
        name = wire.wire_name(text)
        resolved = wire.wire_name(target) if isinstance(target, str) else _pack(Addresses(target))
        if name is not None and resolved is not None:
            links[name] = resolved
    return links


# Most of what a zone file has is said in several places of it, or comes back after a moment. What is cached comes from
# zone files, never from askers.
_wire_name = lru_cache(maxsize=32768)(wire.wire_name)


@lru_cache(maxsize=16384)
def _reverse(address: str) -> bytes | None:
    packed = _packed(address)
    return None if packed is None else wire.reverse_name(packed)


@lru_cache(maxsize=16384)
def _pack(addresses: Addresses) -> Packed:
    packed = [data for data in map(_packed, chain(addresses.ipv4, addresses.ipv6)) if data is not None]
    weights = {data: weight for text, weight in addresses.weights if (data := _packed(text)) is not None}
    return Packed(
        tuple(data for data in packed if len(data) == 4),
        tuple(data for data in packed if len(data) == 16),
        addresses.srv,
        addresses.txt,
        (_wire_name(addresses.cname) or b"") if addresses.cname else b"",
        weights,
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
