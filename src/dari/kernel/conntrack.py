"""Connections the kernel remembers that no longer match what is published.

The kernel translates a connection by its first packet and then by what it remembers: a UDP client that keeps sending
from one port would keep the translation of a published port that has changed or gone, and whoever gets an address
next would get the packets (and the trust, `ct state established`) of its last owner. So after rules or addresses
change, the entries they contradict are forgotten; the next packet asks the rules again. TCP asks them by itself with
every new connection: only addresses that leave concern it.
Must not know: plans. Formats: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

from dari.kernel import rtnetlink, sysctl
from dari.kernel.errors import GONE, NetlinkError
from dari.kernel.netlink import (
    NETLINK_NETFILTER,
    NLA_NESTED,
    Message,
    Netlink,
    attr,
    attr_u8,
    attr_u32,
    attributes,
    nested,
)
from dari.kernel.nfnetlink import header
from dari.net.firewall import SUBNET_SETS
from dari.net.publish import Published, published
from dari.net.state import HOST, Address, KernelObject, KernelState, NftElement, Prefix
from dari.net.survey import Stale

_log = logging.getLogger("dari.kernel")

_SUBSYSTEM = 1 << 8
_GET, _DELETE = _SUBSYSTEM | 1, _SUBSYSTEM | 2

_ORIGINAL, _REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_PROTOCOL, _SOURCE_PORT, _TARGET_PORT = 1, 2, 3
_FILTER_ORIGINAL, _FILTER_REPLY = 1, 2
_BY_SOURCE, _BY_PROTOCOL = 1 << 0, 1 << 3

_FAMILIES: dict[int, int] = {4: socket.AF_INET, 6: socket.AF_INET6}
# A pass of the kernel over its table costs by the table's size, not by what it tells: with more addresses than
# this, or with no more entries than this, one pass that tells everything is cheaper than two for each address.
_MOST_PASSES = 4
_FEW_ENTRIES = 1000


@dataclass(frozen=True, slots=True)
class Publish:
    """Published UDP ports that appeared or changed, or went (`is_gone`). Entries that say the same as ports that are
    there are kept; of those that went, only what went with them goes."""

    says: Published
    is_gone: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """What a connection's first packet had as its destination, and who answers it."""

    source: Address
    target: tuple[Address, int]
    answers: tuple[Address, int]
    message: Message


def is_contradicted(entry: Entry, publish: Publish, is_local: Callable[[Address], bool]) -> bool:
    """Whether a UDP entry says something else than the published port does. Pure."""
    address, port = entry.target
    says = publish.says
    if not says.first <= port <= says.last or address.version != says.host_ip.version:
        return False
    if says.host_ip.is_unspecified:
        if not (address.is_loopback or is_local(address)):
            return False
    elif address != says.host_ip:
        return False
    return (entry.answers == says.goes_to(port)) is publish.is_gone


class Connections:
    """Forgets entries, now or soon. Made from a thread in the daemon's own namespace; for several threads.

    Looking at the kernel's table takes it some 9 ms however few the entries, so what is gone is forgotten behind the
    callers' backs (burial.py's thread), yet always before an address has a new owner.
    """

    def __init__(self) -> None:
        # Held while the kernel's table is looked at; the other one for what is to be done only.
        self._lock = threading.Lock()
        self._books = threading.Lock()
        self._route = Netlink()
        self._netfilter = Netlink(NETLINK_NETFILTER)
        self._publishes: list[Publish] = []
        # Addresses without an owner by the namespace that had them last, and those a pass is about.
        self._gone: dict[Address, str] = {}
        self._passing: frozenset[Address] = frozenset()
        self._worker = ThreadPoolExecutor(1, "dari-connections")

    def close(self) -> None:
        self._worker.shutdown()
        self._netfilter.close()
        self._route.close()

    def forget_later(self, publishes: Iterable[Publish], gone: Mapping[Address, str]) -> None:
        """With the next `catch_up`. `gone`: addresses by the namespace that had them."""
        with self._books:
            self._publishes += publishes
            self._gone.update(gone)

    def catch_up(self) -> None:
        with self._lock:
            with self._books:
                publishes, gone = self._publishes, frozenset(self._gone)
                self._publishes, self._gone, self._passing = [], {}, gone
            try:
                self._forget(publishes, gone)
            finally:
                self._passing = frozenset()

    def make_way(self, coming: Mapping[Address, str]) -> Callable[[], None]:
        """These addresses get an owner (a namespace): what is known of an earlier one goes first.

        Begins at once and goes on beside the caller, who calls what is returned before the addresses are given. Who
        gets back what he had himself needs no way made: its connections are his own.
        """
        with self._books:
            for address, owner in coming.items():
                if self._gone.get(address) == owner:
                    del self._gone[address]
            # A pass that is under way must not meet the new owner's connections.
            if not any(each in self._gone or each in self._passing for each in coming):
                return _nothing
        return self._worker.submit(self._make_way, frozenset(coming)).result

    def _make_way(self, coming: frozenset[Address]) -> None:
        with self._lock:
            with self._books:
                gone = coming & self._gone.keys()
                for each in gone:
                    del self._gone[each]
            self._forget((), gone)

    def forget(self, publishes: Iterable[Publish]) -> None:
        """The entries that contradict these published ports."""
        with self._lock:
            self._forget(list(publishes), ())

    def check(self, publishes: Iterable[Publish], subnets: Iterable[Prefix]) -> None:
        """All of them, when a daemon starts: an earlier one may have been killed between a rule and its entries.

        `publishes` are all there are; a UDP entry translated into one of `subnets` by any other goes too.
        """
        with self._lock:
            self._forget(list(publishes), (), list(subnets))

    def stale(
        self, publishes: Iterable[Publish], subnets: Iterable[Prefix], held: Collection[Address]
    ) -> list[Stale]:
        """Entries that lead astray: translated into one of `subnets`, to an address that is not `held`, or (UDP) to
        where `publishes`, which are all there are, publish nothing. Raises NetlinkError."""
        with self._lock:
            return [_stale(each) for each in self._find_stale(list(publishes), list(subnets), held)]

    def forget_orphans(
        self, publishes: Iterable[Publish], subnets: Iterable[Prefix], held: Collection[Address]
    ) -> None:
        """Those of `stale`. A kernel without this interface is told of in the log: nothing else depends on it."""
        try:
            self.forget_stale(self.stale(publishes, subnets, held))
        except NetlinkError as error:
            _log.warning("connections to addresses that are gone could not be forgotten: %s", error)

    def forget_stale(self, wanted: Collection[Stale]) -> None:
        """Those of `stale` that are there still. Raises NetlinkError."""
        if not wanted:
            return
        with self._lock:
            asked = set(wanted)
            entries = [
                each
                for version in {each.source.version for each in wanted}
                for each in _dump(self._netfilter, _FAMILIES[version], b"")
                if _stale(each) in asked
            ]
            _, errors = self._netfilter.request([_deletion(each.message) for each in entries])
            for error in errors:
                if error.errno not in GONE:
                    raise error

    def _find_stale(
        self, publishes: list[Publish], subnets: list[Prefix], held: Collection[Address]
    ) -> Iterator[Entry]:
        if not int(sysctl.read("net/netfilter/nf_conntrack_count") or "0"):
            return
        for version in sorted({each.version for each in subnets}):
            own = [each for each in subnets if each.version == version]
            for entry in _dump(self._netfilter, _FAMILIES[version], b""):
                answering = entry.answers[0]
                is_ours = any(answering in subnet for subnet in own)
                if is_ours and entry.target != entry.answers and answering not in held:
                    yield entry
        for entry in _of_publishes(self._netfilter, self._route, publishes, subnets):
            if entry.answers[0] in held:
                yield entry

    def _forget(
        self, publishes: Sequence[Publish], gone: Collection[Address], subnets: Sequence[Prefix] = ()
    ) -> None:
        """A kernel without this interface is told of in the log: nothing else depends on it."""
        if not (publishes or gone or subnets):
            return
        count = int(sysctl.read("net/netfilter/nf_conntrack_count") or "0")
        if not count:
            return
        try:
            stale = [*_of_addresses(self._netfilter, gone, is_filtered=count > _FEW_ENTRIES)]
            if publishes or subnets:
                stale += _of_publishes(self._netfilter, self._route, publishes, subnets)
            if stale:
                _, errors = self._netfilter.request([_deletion(each.message) for each in stale])
                for error in errors:
                    if error.errno not in GONE:
                        raise error
        except NetlinkError as error:
            _log.warning("connections that lost their published port or address live on: %s", error.strerror)


def _nothing() -> None:
    pass


def is_orphaned(entry: Entry, publishes: Iterable[Publish], subnets: Iterable[Prefix]) -> bool:
    """Whether a UDP entry is translated into one of our subnets, and none of `publishes` says so. Pure."""
    if entry.target == entry.answers or not any(entry.answers[0] in subnet for subnet in subnets):
        return False
    port = entry.target[1]
    return not any(
        each.says.first <= port <= each.says.last and each.says.goes_to(port) == entry.answers
        for each in publishes
    )


def _of_publishes(
    netfilter: Netlink, route: Netlink, publishes: Sequence[Publish], subnets: Sequence[Prefix]
) -> Iterator[Entry]:
    local = _Local(route)
    by_port: dict[int, list[Publish]] = {}
    ranges: list[Publish] = []
    for each in publishes:
        if each.says.first == each.says.last:
            by_port.setdefault(each.says.first, []).append(each)
        else:
            ranges.append(each)
    versions = {each.says.host_ip.version for each in publishes} | {each.version for each in subnets}
    for version in sorted(versions):
        for entry in _dump(netfilter, _FAMILIES[version], _with_protocol(socket.IPPROTO_UDP)):
            own = [*by_port.get(entry.target[1], ()), *ranges]
            if any(is_contradicted(entry, each, local.has) for each in own) or is_orphaned(
                entry, own, subnets
            ):
                yield entry


class _Local:
    """The host's addresses, looked up when first asked for."""

    def __init__(self, route: Netlink) -> None:
        self._route = route
        self._found: set[Address] | None = None

    def has(self, address: Address) -> bool:
        if self._found is None:
            answers = self._route.dump(rtnetlink.dump_addresses())
            self._found = {rtnetlink.read_address(answer).address.ip for answer in answers}
        return address in self._found


def _of_addresses(netfilter: Netlink, gone: Collection[Address], *, is_filtered: bool) -> Iterator[Entry]:
    """Entries that one of these addresses began or answers."""
    if is_filtered and 0 < len(gone) <= _MOST_PASSES:
        for address in gone:
            family = _FAMILIES[address.version]
            for side in (_ORIGINAL, _REPLY):
                for entry in _dump(netfilter, family, _with_source(side, address)):
                    # A kernel before 5.8 does not know the filter and tells everything.
                    if address in (entry.source, entry.answers[0]):
                        yield entry
        return
    for version in sorted({each.version for each in gone}):
        for entry in _dump(netfilter, _FAMILIES[version], b""):
            if entry.source in gone or entry.answers[0] in gone:
                yield entry


def _with_protocol(number: int) -> bytes:
    wanted = nested(_ORIGINAL, nested(_TUPLE_PROTOCOL, attr_u8(_PROTOCOL, number)))
    return wanted + nested(_FILTER, attr_u32(_FILTER_ORIGINAL, _BY_PROTOCOL), attr_u32(_FILTER_REPLY, 0))


def _with_source(side: int, address: Address) -> bytes:
    kind = 1 if address.version == 4 else 3
    wanted = nested(side, nested(_TUPLE_IP, attr(kind, address.packed)))
    flags = (_BY_SOURCE, 0) if side == _ORIGINAL else (0, _BY_SOURCE)
    return wanted + nested(_FILTER, attr_u32(_FILTER_ORIGINAL, flags[0]), attr_u32(_FILTER_REPLY, flags[1]))


def _dump(netfilter: Netlink, family: int, wanted: bytes) -> Iterator[Entry]:
    for answer in netfilter.dump(Message(_GET, 0, header(family) + wanted)):
        entry = _read(answer)
        if entry is not None:
            yield entry


def _read(answer: Message) -> Entry | None:
    values = attributes(answer.body, 4)
    original, reply = _side(values.get(_ORIGINAL, b"")), _side(values.get(_REPLY, b""))
    if original is None or reply is None:
        return None
    return Entry(original[0], original[1], (reply[0], reply[2]), answer)


def _side(payload: bytes) -> tuple[Address, tuple[Address, int], int] | None:
    """Source, destination with its port, and the source's port; ports are 0 where the protocol has none."""
    parts = attributes(payload)
    addresses, protocol = attributes(parts.get(_TUPLE_IP, b"")), attributes(parts.get(_TUPLE_PROTOCOL, b""))
    if 1 in addresses and 2 in addresses:
        source: Address = IPv4Address(addresses[1])
        target: Address = IPv4Address(addresses[2])
    elif 3 in addresses and 4 in addresses:
        source, target = IPv6Address(addresses[3]), IPv6Address(addresses[4])
    else:
        return None
    return source, (target, _port(protocol, _TARGET_PORT)), _port(protocol, _SOURCE_PORT)


def _protocol(entry: Entry) -> int:
    original = attributes(attributes(entry.message.body, 4).get(_ORIGINAL, b""))
    return attributes(original.get(_TUPLE_PROTOCOL, b"")).get(_PROTOCOL, b"\0")[0]


def _stale(entry: Entry) -> Stale:
    number = _protocol(entry)
    name = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", 132: "sctp"}.get(number, str(number))
    return Stale(name, entry.source, entry.target, entry.answers)


def _port(protocol: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(protocol.get(kind, b""), "big")


def _deletion(entry: Message) -> Message:
    """By its tuple and its number: an entry made anew meanwhile is another one."""
    values = attributes(entry.body, 4)
    body = entry.body[:4] + attr(_ORIGINAL | NLA_NESTED, values[_ORIGINAL])
    for kind in (_ID, _ZONE):
        if kind in values:
            body += attr(kind, values[kind])
    return Message(_DELETE, 0, body)


def publish_of(each: KernelObject, *, is_gone: bool = False) -> Publish | None:
    """The UDP ports a publish map's element is about; None for everything else, TCP included."""
    if not isinstance(each, NftElement) or not each.element.startswith("udp . "):
        return None
    says = published(each)
    return Publish(says, is_gone) if says is not None else None


def subnets_of(state: KernelState) -> list[Prefix]:
    """The subnets the firewall knows as dari's."""
    return [
        ip_network(each.element)
        for each in state
        if isinstance(each, NftElement) and each.netns == HOST and each.set in SUBNET_SETS
    ]
