"""nftables tracing for chosen ports: which chain and rule a packet met, anybody's, and with which verdict.

A table of our own, in each namespace concerned, switches tracing on for packets of the ports in its set, first of
all, and sees last of all what got through. It is owned by its netlink socket (NFT_TABLE_F_OWNER, Linux 5.12): the
kernel removes it with the socket, also when the daemon is killed. Formats: linux/netfilter/nf_tables.h.
Must not know: what is probed, or why. Legacy iptables and netdev chains are not traced by the kernel.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from dari.kernel import nfnetlink
from dari.kernel.errors import NetlinkError
from dari.kernel.netlink import (
    NETLINK_NETFILTER,
    NLM_F_APPEND,
    NLM_F_CREATE,
    Message,
    Netlink,
    attr,
    attr_be32,
    attr_text,
    attributes,
    nested,
    text_of,
)
from dari.kernel.nfnetlink import NEWCHAIN, NEWRULE, NEWSET, NEWSETELEM, NEWTABLE, header
from dari.kernel.visit import Visit
from dari.net.state import Address

TABLE_PREFIX = "dari-trace-"

_GROUP = 9  # NFNLGRP_NFTRACE
_TRACE = (10 << 8) | 17  # NFT_MSG_TRACE
_OWNER = 0x2
_FAMILIES = ("inet", "bridge")
_FAMILY_NAMES = {number: name for name, number in nfnetlink.FAMILIES.items()}
# First of all: before connection tracking, raw, and everybody's rules; and behind all of them.
_FIRST, _LAST = -1000, 1000
_HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
_SET, _SET_ID = "ports", 1
_PORT_TYPE = 13  # libnftables' inet_service: how others list the set

_TCP, _UDP, _ICMP, _ICMP6 = 6, 17, 1, 58
# Where in the transport header the number lies that tells the probe: ports of question and answer, the echo's id.
_PLACES = ((_TCP, 0), (_TCP, 2), (_UDP, 0), (_UDP, 2), (_ICMP, 4), (_ICMP6, 4))
_ECHO_ANSWERS = (0, 129)
# Of a TCP connection, its opening and its refusal: the rest says nothing new, and is most of it.
_SYN, _TRACED_FLAGS, _FLAGS_PLACE = 0x02, 0x06, 13

_META_NFTRACE, _META_L4PROTO = 12, 16
_REGISTER = 1

_KINDS = {1: "policy", 2: "return", 3: "rule"}
_VERDICTS = {
    0: "drop", 1: "accept", 2: "stolen", 3: "queue", 4: "repeat", 5: "stop",
    -1: "continue", -2: "break", -3: "jump", -4: "goto", -5: "return",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Packet:
    """What tells a packet: addresses, protocol, ports. Of an echo the id is in both ports.

    `is_opening`: not in the midst of a TCP connection.
    """

    source: Address
    destination: Address
    protocol: int
    source_port: int
    destination_port: int
    is_echo_answer: bool = False
    is_opening: bool = True


@dataclass(frozen=True, slots=True)
class Event:
    """One chain or rule a traced packet met. `kind`: rule, policy (of a base chain), return.

    `handle` numbers the rule in its table, 0 where none is meant. `verdict` as nft writes it: accept, drop,
    continue, `jump x`.
    """

    netns: str
    packet: Packet
    family: str
    table: str
    chain: str
    kind: str
    handle: int
    verdict: str
    in_index: int = 0
    out_index: int = 0


class Tracer:
    """Tracing in one namespace, of packets of these ports (or echo ids). `close` removes all of it.

    Raises NetlinkError (EOPNOTSUPP before Linux 5.12), OSError.
    """

    def __init__(self, visit: Visit, token: str, ports: Iterable[int]) -> None:
        self.netns = visit.name
        self.table = TABLE_PREFIX + token
        self._visit = visit
        self._packets: dict[int, Packet] = {}
        with visit.entered():
            visit.open(has_netfilter=True)
            self.ear = Netlink(NETLINK_NETFILTER)
        try:
            self.ear.join(_GROUP)
            for family in _FAMILIES:
                self._make(family, sorted(set(ports)))
        except OSError:
            self.ear.close()
            raise

    def close(self) -> None:
        """The sockets, and with them the tables. The visit is the caller's, and closed by him."""
        self.ear.close()

    def _make(self, family: str, ports: list[int]) -> None:
        """One transaction: a change later would wait for the kernel's grace period each time."""
        number = nfnetlink.FAMILIES[family]
        messages = [*_table(number, self.table), _elements(number, self.table, ports)]
        try:
            nfnetlink.make(self._visit.netfilter, messages)
        except NetlinkError:
            # A kernel without bridge filtering has nothing to trace there.
            if family == "inet":
                raise

    def events(self) -> Iterator[Event]:
        """What was traced since the last call; a packet's events in their order. Raises OSError (some were lost)."""
        for message in self.ear.heard():
            if message.type == _TRACE:
                event = self._event(message)
                if event is not None:
                    yield event

    def _event(self, message: Message) -> Event | None:
        found = attributes(message.body, 4)
        number = _be(found.get(6, b""))
        packet = _packet(found)
        if packet is not None:
            self._packets[number] = packet
        else:
            # The kernel describes a packet once a chain.
            packet = self._packets.get(number)
        if packet is None:
            return None
        kind = _KINDS.get(_be(found.get(4, b"")), "")
        verdict = ""
        if kind == "policy":
            verdict = _VERDICTS.get(_be(found.get(16, b"")), "")
        elif 5 in found:
            parts = attributes(found[5])
            code = int.from_bytes(parts.get(1, b"\0\0\0\1"), "big", signed=True)
            verdict = _VERDICTS.get(code if code < 0 else code & 0xFF, str(code))
            if 2 in parts:
                verdict += f" {text_of(parts[2])}"
        return Event(
            netns=self.netns,
            packet=packet,
            family=_FAMILY_NAMES.get(message.body[0], str(message.body[0])),
            table=text_of(found.get(1, b"")),
            chain=text_of(found.get(2, b"")),
            kind=kind,
            handle=_be(found.get(3, b"")),
            verdict=verdict,
            in_index=_be(found.get(10, b"")),
            out_index=_be(found.get(12, b"")),
        )


def _be(payload: bytes) -> int:
    return int.from_bytes(payload, "big")


def _packet(found: dict[int, bytes]) -> Packet | None:
    """From the headers in a trace message; None where it carries none (or is of no protocol we send)."""
    network, transport = found.get(8, b""), found.get(9, b"")
    if not network or len(transport) < 8:
        return None
    source: Address
    destination: Address
    if network[0] >> 4 == 4 and len(network) >= 20:
        protocol = network[9]
        source, destination = IPv4Address(network[12:16]), IPv4Address(network[16:20])
    elif network[0] >> 4 == 6 and len(network) >= 40:
        # The next header; extension headers are not sent by us.
        protocol = network[6]
        source, destination = IPv6Address(network[8:24]), IPv6Address(network[24:40])
    else:
        return None
    if protocol in (_ICMP, _ICMP6):
        (number,) = struct.unpack_from("!H", transport, 4)
        return Packet(source, destination, protocol, number, number, transport[0] in _ECHO_ANSWERS)
    first, second = struct.unpack_from("!HH", transport)
    is_opening = protocol != _TCP or len(transport) < 14 or bool(transport[13] & _SYN)
    return Packet(source, destination, protocol, first, second, is_opening=is_opening)


# The table


def _table(family: int, table: str) -> Iterator[Message]:
    name = attr_text(1, table)
    yield Message(NEWTABLE, NLM_F_CREATE, header(family) + name + attr_be32(2, _OWNER))
    body = header(family) + name + attr_text(2, _SET) + attr_be32(3, 0) + attr_be32(4, _PORT_TYPE)
    yield Message(NEWSET, NLM_F_CREATE, body + attr_be32(5, 2) + attr_be32(10, _SET_ID))
    for hook in ("prerouting", "output"):
        yield _chain(family, table, f"{hook}-first", hook, _FIRST)
        for protocol, offset in _PLACES:
            yield _rule(family, table, f"{hook}-first", protocol, offset)
    for hook in _HOOKS:
        yield _chain(family, table, hook, hook, _LAST)


def _chain(family: int, table: str, name: str, hook: str, priority: int) -> Message:
    place = nested(4, attr_be32(1, _HOOKS[hook]), attr(2, struct.pack("!i", priority)))
    body = header(family) + attr_text(1, table) + attr_text(3, name) + place
    return Message(NEWCHAIN, NLM_F_CREATE, body + attr_be32(5, 1) + attr_text(7, "filter"))


def _rule(family: int, table: str, chain: str, protocol: int, offset: int) -> Message:
    register = attr_be32(1, _REGISTER)
    expressions = nested(
        4,
        _expression("meta", register + attr_be32(2, _META_L4PROTO)),
        _expression("cmp", register + attr_be32(2, 0) + nested(3, attr(1, bytes((protocol,))))),
        # From the transport header: base 2, offset, two bytes.
        _expression("payload", register + attr_be32(2, 2) + attr_be32(3, offset) + attr_be32(4, 2)),
        _expression("lookup", attr_text(1, _SET) + attr_be32(2, _REGISTER) + attr_be32(4, _SET_ID)),
        *(_has_flags() if protocol == _TCP else ()),
        _expression("immediate", register + nested(2, attr(1, b"\1"))),
        _expression("meta", attr_be32(3, _REGISTER) + attr_be32(2, _META_NFTRACE)),
    )
    body = header(family) + attr_text(1, table) + attr_text(2, chain) + expressions
    return Message(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, body)


def _has_flags() -> Iterator[bytes]:
    """tcp flags & (syn | rst) != 0"""
    register, nothing = attr_be32(1, _REGISTER), attr(1, b"\0")
    yield _expression("payload", register + attr_be32(2, 2) + attr_be32(3, _FLAGS_PLACE) + attr_be32(4, 1))
    mask = nested(4, attr(1, bytes((_TRACED_FLAGS,)))) + nested(5, nothing)
    yield _expression("bitwise", register + attr_be32(2, _REGISTER) + attr_be32(3, 1) + mask)
    yield _expression("cmp", register + attr_be32(2, 1) + nested(3, nothing))


def _expression(name: str, attributes_: bytes) -> bytes:
    return nested(1, attr_text(1, name), nested(2, attributes_))


def _elements(family: int, table: str, ports: list[int]) -> Message:
    listed = [nested(1, nested(1, attr(1, struct.pack("!H", port)))) for port in ports]
    body = header(family) + attr_text(1, table) + attr_text(2, _SET) + nested(3, *listed)
    return Message(NEWSETELEM, NLM_F_CREATE, body)


def protocol_number(name: str, version: int) -> int:
    """The IP protocol number of tcp, udp or icmp (which is another one over IPv6)."""
    if name == "icmp":
        return socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    return {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}[name]
