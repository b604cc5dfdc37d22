"""The other side of a question: a query's bytes, and the addresses in an answer. Pure (RFC 1035).

Must not know: sockets, zones.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from dari.dns import wire

RCODES = {0: "no error", 1: "format error", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "not implemented", 5: "REFUSED"}


class Reply(NamedTuple):
    """What an answer says. CNAMEs are followed by the resolver, so their addresses are among these."""

    rcode: int
    addresses: tuple[IPv4Address | IPv6Address, ...]


def query(name: str, qtype: int, number: int) -> bytes | None:
    """A recursive query with id `number`; None where DNS cannot carry the name."""
    wire_name = wire.wire_name(name)
    if wire_name is None:
        return None
    header = number.to_bytes(2, "big") + b"\1\0" + b"\0\1" + bytes(6)
    return header + wire_name + qtype.to_bytes(2, "big") + wire.CLASS_IN.to_bytes(2, "big")


def read(answer: bytes) -> Reply | None:
    """None where these bytes are no answer."""
    if len(answer) < wire.HEADER_SIZE or not answer[2] & 0x80:
        return None
    question = wire.read_question(answer) if answer[4:6] == b"\0\1" else None
    at = question.end if question is not None else wire.HEADER_SIZE
    found: list[IPv4Address | IPv6Address] = []
    for _ in range(answer[6] << 8 | answer[7]):
        at = _behind_name(answer, at)
        if at + 10 > len(answer):
            return None
        rtype = answer[at] << 8 | answer[at + 1]
        length = answer[at + 8] << 8 | answer[at + 9]
        data = answer[at + 10 : at + 10 + length]
        at += 10 + length
        if rtype == wire.TYPE_A and len(data) == 4:
            found.append(IPv4Address(data))
        elif rtype == wire.TYPE_AAAA and len(data) == 16:
            found.append(IPv6Address(data))
    return Reply(answer[3] & 0x0F, tuple(found))


def _behind_name(answer: bytes, at: int) -> int:
    while at < len(answer):
        length = answer[at]
        if length >= 192:
            return at + 2
        at += length + 1
        if length == 0:
            break
    return at
