"""The few pieces of DNS wire format the responder needs (RFC 1035, 3596, 6891).

Pure functions on bytes; no input raises anything but what the docstrings say. Must not know zones,
views or sockets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

TYPE_A, TYPE_NS, TYPE_CNAME, TYPE_PTR, TYPE_MX, TYPE_TXT, TYPE_AAAA = 1, 2, 5, 12, 15, 16, 28
TYPE_SRV, TYPE_OPT, TYPE_ANY = 33, 41, 255
CLASS_IN, CLASS_ANY = 1, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16

HEADER_SIZE = 12
LONGEST_NAME = 255
UDP_MINIMUM = 512
OUR_UDP_SIZE = 1232  # what we say we take: fits every path without fragments (DNS flag day 2020)
_QR, _AA, _TC, _RD, _RA = 0x80, 0x04, 0x02, 0x01, 0x80


class Opt(NamedTuple):
    """The EDNS pseudo record of a query: the asker's UDP size, version, and the DO bit."""

    size: int
    version: int
    is_dnssec_ok: bool


class Question(NamedTuple):
    """The one question of a query: `name` is the lower-case wire name, `end` the offset behind it."""

    name: bytes
    qtype: int
    qclass: int
    end: int


def wire_name(text: str) -> bytes | None:
    """The lower-case wire form of a name, or None when DNS cannot carry it (a label over 63 bytes, half a surrogate
    pair)."""
    try:
        labels = [label.encode().lower() for label in text.rstrip(".").split(".")]
    except UnicodeEncodeError:
        return None
    if not all(0 < len(label) <= 63 for label in labels):
        return None
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    return wire if len(wire) <= 255 else None


def read_question(query: bytes) -> Question | None:
    """The question behind the header, or None when it is malformed."""
    end = HEADER_SIZE
    size = len(query)
    while True:
        if end >= size:
            return None
        length = query[end]
        if length == 0:
            break
        if length > 63:  # a compression pointer has nothing to point at here
            return None
        end += length + 1
    end += 1
    if end + 4 > size or end - HEADER_SIZE > 255:
        return None
    qtype = query[end] << 8 | query[end + 1]
    qclass = query[end + 2] << 8 | query[end + 3]
    return Question(query[HEADER_SIZE:end].lower(), qtype, qclass, end + 4)


def read_opt(query: bytes, offset: int) -> Opt | None:
    """The OPT record among the records behind `offset`, if there is one. Raises ValueError when malformed."""
    found: Opt | None = None
    records = sum(query[at] << 8 | query[at + 1] for at in (6, 8, 10))
    size = len(query)
    for _ in range(records):
        start = offset
        while True:
            if offset >= size:
                raise ValueError("name runs over the end")
            length = query[offset]
            if length >= 192:
                offset += 2
                break
            offset += length + 1
            if length == 0:
                break
        if offset + 10 > size:
            raise ValueError("record runs over the end")
        rtype = query[offset] << 8 | query[offset + 1]
        end = offset + 10 + (query[offset + 8] << 8 | query[offset + 9])
        if end > size:
            raise ValueError("record data runs over the end")
        if rtype == TYPE_OPT:
            if found is not None or query[start] != 0:
                raise ValueError("second OPT, or one with a name")
            udp_size = query[offset + 2] << 8 | query[offset + 3]
            found = Opt(udp_size, query[offset + 5], bool(query[offset + 6] & 0x80))
        offset = end
    return found


def record(rtype: int, ttl: int, data: bytes, owner: bytes = b"\xc0\x0c") -> bytes:
    """A record whose name is a pointer to the question's, or the wire name `owner`."""
    return owner + rtype.to_bytes(2, "big") + b"\0\1" + ttl.to_bytes(4, "big") + _counted(data)


def text_data(text: str) -> bytes:
    """The data of a TXT record: pieces of at most 255 bytes."""
    data = text.encode(errors="replace")
    pieces = [data[at : at + 255] for at in range(0, len(data), 255)] or [b""]
    return b"".join(bytes((len(piece),)) + piece for piece in pieces)


def srv_data(priority: int, weight: int, port: int, target: bytes) -> bytes:
    """The data of an SRV record (RFC 2782)."""
    return b"".join(number.to_bytes(2, "big") for number in (priority, weight, port)) + target


def spliced(answer: bytes, query: bytes, question_end: int, chain: list[bytes]) -> bytes:
    """The answer to `query` from the answer to another question that `chain`, CNAME records, leads to.

    Records of types whose names can be compressed and are not known here are left out, and so is everything but
    the answer section.
    """
    records = list(chain)
    question = read_question(answer) if answer[4:6] == b"\0\1" else None
    at = question.end if question is not None else HEADER_SIZE
    for _ in range(answer[6] << 8 | answer[7]):
        owner, at = _name_at(answer, at)
        if owner is None or at + 10 > len(answer):
            break
        rtype = answer[at] << 8 | answer[at + 1]
        start, end = at + 10, at + 10 + (answer[at + 8] << 8 | answer[at + 9])
        if end > len(answer):
            break
        data: bytes | None = answer[start:end]
        fixed = {TYPE_CNAME: 0, TYPE_PTR: 0, TYPE_NS: 0, TYPE_MX: 2, TYPE_SRV: 6}.get(rtype)
        if fixed is not None:
            name, _ = _name_at(answer, start + fixed)
            data = answer[start : start + fixed] + name if name is not None else None
        elif rtype not in (TYPE_A, TYPE_AAAA, TYPE_TXT):
            data = None
        if data is not None:
            records.append(owner + answer[at : at + 8] + _counted(data))
        at = end
    made = reply(query, question_end, answer[3] & 15, None, records, 65535)
    return made[:2] + bytes((made[2] | answer[2] & _TC,)) + made[3:]


def _name_at(message: bytes, at: int) -> tuple[bytes | None, int]:
    """The name at an offset with its pointers followed, and the offset behind it; None where it is malformed."""
    found, end, steps = b"", -1, 0
    while at < len(message):
        length = message[at]
        if length >= 192:
            if at + 1 >= len(message) or steps > 127:
                break
            end = at + 2 if end < 0 else end
            at, steps = (length & 63) << 8 | message[at + 1], steps + 1
            continue
        if length > 63 or len(found) + length + 1 > 255:
            break
        found += message[at : at + length + 1]
        at += length + 1
        if length == 0:
            return found, at if end < 0 else end
    return None, len(message)


def reply(
    query: bytes,
    question_end: int,
    rcode: int,
    opt: Opt | None,
    records: list[bytes],
    limit: int,
    extra: Sequence[bytes] = (),
) -> bytes:
    """A whole answer of at most `limit` bytes; records that do not fit are left out and TC is set.

    `extra`: records of the additional section; without them an answer is whole all the same (RFC 2181, 9), so those
    that do not fit are left out and nothing is said. `question_end` 0 leaves the question out (it could not be read).
    """
    question = query[HEADER_SIZE:question_end] if question_end else b""
    tail = b""
    if opt is not None:
        flags = 0x8000 if opt.is_dnssec_ok else 0
        tail = b"\0\0\x29" + OUR_UDP_SIZE.to_bytes(2, "big") + bytes((rcode >> 4, 0))
        tail += flags.to_bytes(2, "big") + b"\0\0"
    room = limit - HEADER_SIZE - len(question) - len(tail)
    body, count, cut = [], 0, 0
    for item in records:
        room -= len(item)
        if room < 0:
            cut = _TC
            break
        body.append(item)
        count += 1
    more = 0
    for item in extra if not cut else ():
        room -= len(item)
        if room < 0:
            break
        body.append(item)
        more += 1
    opcode_and_rd = query[2] & 0x79
    header = bytes((query[0], query[1], _QR | opcode_and_rd | _AA | cut, _RA | rcode & 15))
    counts = b"\0\1" if question_end else b"\0\0"
    counts += count.to_bytes(2, "big") + b"\0\0" + (more + bool(tail)).to_bytes(2, "big")
    return header + counts + question + b"".join(body) + tail


def truncated(answer: bytes) -> bytes:
    """The answer's header and question alone, TC set: what a client gets that must come back over TCP."""
    question = read_question(answer)
    end = question.end if question is not None else HEADER_SIZE
    counts = b"\0\1" if question is not None else b"\0\0"
    return answer[:2] + bytes((answer[2] | _TC, answer[3])) + counts + bytes(6) + answer[HEADER_SIZE:end]


def reverse_address(name: bytes) -> bytes | None:
    """The packed address a lower-case wire name under in-addr.arpa or ip6.arpa stands for, if it is one."""
    labels = []
    at = 0
    while name[at]:
        labels.append(name[at + 1 : at + 1 + name[at]])
        at += name[at] + 1
    if labels[-2:] == [b"in-addr", b"arpa"] and len(labels) == 6:
        parts = labels[3::-1]
        if all(part.isdigit() and len(part) <= 3 and int(part) < 256 for part in parts):
            return bytes(int(part) for part in parts)
    if labels[-2:] == [b"ip6", b"arpa"] and len(labels) == 34:
        digits = b"".join(labels[31::-1])
        if len(digits) == 32 and all(digit in b"0123456789abcdef" for digit in digits):
            return bytes.fromhex(digits.decode())
    return None


def reverse_name(packed: bytes) -> bytes:
    """The lower-case wire name of a packed address's PTR record."""
    if len(packed) == 4:
        text = ".".join(str(byte) for byte in reversed(packed)) + ".in-addr.arpa"
    else:
        text = ".".join(reversed(packed.hex())) + ".ip6.arpa"
    wire = wire_name(text)
    assert wire is not None
    return wire


def _counted(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data
