"""Elements of nftables sets and maps: their text as nft lists it, and the kernel's bytes.

One element is one small message whatever the size of its set, where libnftables first reads the whole table.
Types: nft(8), "data types"; numbers as nft stores them with a set. Must not know: which set means what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_network, summarize_address_range
from typing import NamedTuple

from dari.kernel.netlink import (
    NLM_F_CREATE,
    Message,
    attr,
    attr_text,
    attributes,
    iter_attributes,
)
from dari.kernel.netlink import attr_be32 as _be32
from dari.kernel.nfnetlink import DELSETELEM, GETSETELEM, NEWSETELEM, SetShape, header

_INTERVAL, _TIMEOUT, _CONCAT = 0x4, 0x10, 0x80
_TABLE, _SET, _ELEMENTS = 1, 2, 3
_KEY, _DATA, _FLAGS = 1, 2, 3
_VALUE = 1
_INTERVAL_END = 1
_NESTED = 0x8000

_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "dccp": 33, "esp": 50, "ah": 51, "sctp": 132, "udplite": 136}
_PROTOCOL_NAMES = {number: name for name, number in _PROTOCOLS.items()}


class _Type(NamedTuple):
    length: int
    encode: Callable[[str], bytes]
    decode: Callable[[bytes], str]


def _protocol(text: str) -> bytes:
    return bytes((_PROTOCOLS[text] if text in _PROTOCOLS else int(text),))


def _interface(text: str) -> bytes:
    name = text.strip('"').encode()
    if len(name) > 15:
        raise ValueError(f"interface name too long: {text}")
    return name.ljust(16, b"\0")


# The type numbers nft keeps in NFTA_SET_KEY_TYPE; a concatenation holds six bits for each part.
_TYPES: dict[int, _Type] = {
    7: _Type(4, lambda text: IPv4Address(text).packed, lambda data: str(IPv4Address(data))),
    8: _Type(16, lambda text: IPv6Address(text).packed, lambda data: str(IPv6Address(data))),
    9: _Type(6, lambda text: bytes.fromhex(text.replace(":", "")), lambda data: data.hex(":")),
    12: _Type(1, _protocol, lambda data: _PROTOCOL_NAMES.get(data[0], str(data[0]))),
    13: _Type(2, lambda text: int(text).to_bytes(2, "big"), lambda data: str(int.from_bytes(data, "big"))),
    41: _Type(16, _interface, lambda data: '"' + data.rstrip(b"\0").decode("utf-8", "replace") + '"'),
}


def _parts(kind: int) -> list[_Type]:
    numbers = []
    while kind:
        numbers.append(kind & 0x3F)
        kind >>= 6
    try:
        return [_TYPES[number] for number in reversed(numbers)]
    except KeyError as error:
        raise ValueError(f"sets of nftables type {error} are not supported") from None


def encode(kind: int, text: str) -> bytes:
    """The bytes of `tcp . 8080`. Raises ValueError where the text does not fit the type."""
    parts = _parts(kind)
    words = text.split(" . ")
    if len(words) != len(parts):
        raise ValueError(f"{text!r} has {len(words)} parts, the set {len(parts)}")
    if len(parts) == 1:
        return parts[0].encode(text)
    made = [part.encode(word) for part, word in zip(parts, words, strict=True)]
    return b"".join(each + b"\0" * (-len(each) % 4) for each in made)


def decode(kind: int, data: bytes) -> str:
    words, offset = [], 0
    for part in _parts(kind):
        words.append(part.decode(data[offset : offset + part.length]))
        offset += (part.length + 3) & ~3
    return " . ".join(words)


def add(family: int, table: str, shape: SetShape, element: str, value: str) -> Message:
    """An error where it is in with another value; nothing happens where it is in with the same."""
    body = _head(family, table, shape.name) + _list(shape, element, value)
    return Message(NEWSETELEM, NLM_F_CREATE, body)


def delete(family: int, table: str, shape: SetShape, element: str) -> Message:
    return Message(DELSETELEM, 0, _head(family, table, shape.name) + _list(shape, element, ""))


def get(family: int, table: str, shape: SetShape, element: str) -> Message:
    """For sets without intervals: ENOENT where it is not in."""
    return Message(GETSETELEM, 0, _head(family, table, shape.name) + _list(shape, element, ""))


def is_interval(shape: SetShape) -> bool:
    return bool(shape.flags & _INTERVAL)


def read(shape: SetShape, answers: list[Message]) -> Iterator[tuple[str, str]]:
    """(element, value) of each element in a get's or a dump's answers."""
    if is_interval(shape):
        yield from _intervals(shape, answers)
        return
    for key, value, _ in _raw(answers):
        yield decode(shape.key_type, key), decode(shape.data_type, value) if shape.data_type else ""


def _head(family: int, table: str, name: str) -> bytes:
    return header(family) + attr_text(_TABLE, table) + attr_text(_SET, name)


def _list(shape: SetShape, element: str, value: str) -> bytes:
    if is_interval(shape):
        return attr(_ELEMENTS | _NESTED, b"".join(_interval(shape, element)))
    data = encode(shape.data_type, value) if value else b""
    return attr(_ELEMENTS | _NESTED, _element(encode(shape.key_type, element), data))


def _element(key: bytes, data: bytes = b"", flags: int = 0) -> bytes:
    body = attr(_KEY | _NESTED, attr(_VALUE, key))
    if data:
        body += attr(_DATA | _NESTED, attr(_VALUE, data))
    if flags:
        body += _be32(_FLAGS, flags)
    return attr(1 | _NESTED, body)


def _interval(shape: SetShape, element: str) -> Iterator[bytes]:
    """A prefix is its first address, and the one behind its last as the end."""
    if shape.key_type not in (7, 8):
        raise ValueError(f"intervals of nftables type {shape.key_type} are not supported")
    network = ip_network(element)
    yield _element(network.network_address.packed)
    last = int(network.broadcast_address)
    if last + 1 < 1 << network.max_prefixlen:
        yield _element((last + 1).to_bytes(network.max_prefixlen // 8, "big"), flags=_INTERVAL_END)


def _intervals(shape: SetShape, answers: list[Message]) -> Iterator[tuple[str, str]]:
    size = 4 if shape.key_type == 7 else 16
    make = IPv4Address if size == 4 else IPv6Address
    entries = sorted(
        # At one address an end comes before a start.
        (int.from_bytes(key, "big"), not flags & _INTERVAL_END)
        for key, _, flags in _raw(answers)
    )
    start: int | None = None
    for at, is_start in [*entries, (1 << (8 * size), False)]:
        if is_start:
            start = at
        elif start is not None:
            first, last = make(start), make(at - 1)
            for prefix in summarize_address_range(first, last):
                alone = prefix.prefixlen == prefix.max_prefixlen
                yield str(prefix.network_address) if alone else str(prefix), ""
            start = None


def _raw(answers: list[Message]) -> Iterator[tuple[bytes, bytes, int]]:
    for answer in answers:
        for kind, payload in iter_attributes(answer.body, 4):
            if kind != _ELEMENTS:
                continue
            for _, each in iter_attributes(payload):
                values = attributes(each)
                key = attributes(values.get(_KEY, b"")).get(_VALUE, b"")
                data = attributes(values.get(_DATA, b"")).get(_VALUE, b"")
                yield key, data, int.from_bytes(values.get(_FLAGS, b""), "big")
