"""Elements of nftables sets and maps: their text as nft lists it, and the kernel's bytes.

One element is one small message whatever the size of its set, where libnftables first reads the whole table.
Types: nft(8), "data types"; numbers as nft stores them with a set. Must not know: which set means what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network, summarize_address_range
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
_KEY, _DATA, _FLAGS, _KEY_END = 1, 2, 3, 10
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


# Types whose elements may be ranges in a set with intervals: addresses and ports.
_RANGED = frozenset((7, 8, 13))


def _numbers(kind: int) -> list[int]:
    numbers = []
    while kind:
        numbers.append(kind & 0x3F)
        kind >>= 6
    return numbers[::-1]


def _parts(kind: int) -> list[_Type]:
    try:
        return [_TYPES[number] for number in _numbers(kind)]
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


def encode_range(kind: int, text: str) -> tuple[bytes, bytes]:
    """The lowest and the highest key of `tcp . 0.0.0.0/0 . 8000-9000`. Raises ValueError as `encode`."""
    lows, highs = [], []
    words, numbers = text.split(" . "), _numbers(kind)
    if len(words) != len(numbers):
        raise ValueError(f"{text!r} has {len(words)} parts, the set {len(numbers)}")
    for number, word in zip(numbers, words, strict=True):
        low, high = _bounds(word) if number in _RANGED else (word, word)
        lows.append(low)
        highs.append(high)
    return encode(kind, " . ".join(lows)), encode(kind, " . ".join(highs))


def _bounds(word: str) -> tuple[str, str]:
    if "/" in word:
        network = ip_network(word)
        return str(network.network_address), str(network.broadcast_address)
    low, _, high = word.partition("-")
    return low, high or low


def decode_range(kind: int, low: bytes, high: bytes) -> str:
    """The same text again: a prefix where a range of addresses is one, a single value where both ends are one."""
    words = []
    pairs = zip(decode(kind, low).split(" . "), decode(kind, high).split(" . "), strict=True)
    for number, (first, last) in zip(_numbers(kind), pairs, strict=True):
        if first == last:
            words.append(first)
            continue
        word = f"{first}-{last}"
        if number in (7, 8):
            prefixes = _prefixes(first, last)
            word = prefixes[0] if len(prefixes) == 1 else word
        words.append(word)
    return " . ".join(words)


def _prefixes(first: str, last: str) -> list[str]:
    low, high = ip_address(first), ip_address(last)
    if isinstance(low, IPv4Address) and isinstance(high, IPv4Address):
        return [str(each) for each in summarize_address_range(low, high)]
    assert isinstance(low, IPv6Address) and isinstance(high, IPv6Address)
    return [str(each) for each in summarize_address_range(low, high)]


def _length(kind: int) -> int:
    """Bytes of a value of this type; the parts of a concatenation fill whole registers."""
    parts = _parts(kind)
    return parts[0].length if len(parts) == 1 else sum((part.length + 3) & ~3 for part in parts)


def _has_ranges_as_data(shape: SetShape) -> bool:
    """`type ... : interval ...`: the data is its lower and its upper bound."""
    return bool(shape.data_type) and shape.data_length == 2 * _length(shape.data_type)


def _encode_data(shape: SetShape, value: str) -> bytes:
    if not value:
        return b""
    if _has_ranges_as_data(shape):
        return b"".join(encode_range(shape.data_type, value))
    return encode(shape.data_type, value)


def _decode_data(shape: SetShape, data: bytes) -> str:
    if not shape.data_type or not data:
        return ""
    if _has_ranges_as_data(shape):
        half = len(data) // 2
        return decode_range(shape.data_type, data[:half], data[half:])
    return decode(shape.data_type, data)


def add(family: int, table: str, shape: SetShape, element: str, value: str) -> Message:
    """An error where it is in with another value; nothing happens where it is in with the same."""
    body = _head(family, table, shape.name) + _list(shape, element, value)
    return Message(NEWSETELEM, NLM_F_CREATE, body)


def delete(family: int, table: str, shape: SetShape, element: str) -> Message:
    return Message(DELSETELEM, 0, _head(family, table, shape.name) + _list(shape, element, ""))


def get(family: int, table: str, shape: SetShape, element: str) -> Message:
    """For sets whose elements are asked for one by one: ENOENT where it is not in."""
    return Message(GETSETELEM, 0, _head(family, table, shape.name) + _list(shape, element, ""))


def get_prefix(family: int, table: str, shape: SetShape, element: str) -> Message:
    """For sets of prefixes: which interval holds the prefix's first address, its last, and the one behind.

    To be read by `has_prefix`. A dump would cost more with every other element; asking for the ends of an interval
    is not exact where one interval begins where another ends.
    """
    network = ip_network(element)
    size, last = network.max_prefixlen // 8, int(network.broadcast_address)
    asked = [int(network.network_address), last]
    if last + 1 < 1 << network.max_prefixlen:
        asked.append(last + 1)
    items = b"".join(_element(each.to_bytes(size, "big")) for each in asked)
    return Message(GETSETELEM, 0, _head(family, table, shape.name) + attr(_ELEMENTS | _NESTED, items))


def has_prefix(element: str, answers: list[Message]) -> bool:
    """Whether the answers to `get_prefix` say that exactly this prefix is in."""
    first = ip_network(element).network_address.packed
    starts = [key for key, *_ in _raw(answers)]
    return starts[:2] == [first, first] and first not in starts[2:]


def is_prefixes(shape: SetShape) -> bool:
    """Whether it is a set of prefixes, of either family."""
    return is_interval(shape) and shape.key_type in (7, 8) and not shape.data_type


def is_interval(shape: SetShape) -> bool:
    """Whether an element is two entries, a start and an end, so that only a dump tells what is in."""
    return bool(shape.flags & _INTERVAL) and not _is_concatenated(shape)


def _is_concatenated(shape: SetShape) -> bool:
    return shape.key_type > 0x3F


def read(shape: SetShape, answers: list[Message]) -> Iterator[tuple[str, str]]:
    """(element, value) of each element in a get's or a dump's answers."""
    if is_interval(shape):
        yield from _intervals(shape, answers)
        return
    for each in _raw(answers):
        if shape.flags & _INTERVAL:
            element = decode_range(shape.key_type, each.key, each.key_end or each.key)
        else:
            element = decode(shape.key_type, each.key)
        yield element, _decode_data(shape, each.data)


def _head(family: int, table: str, name: str) -> bytes:
    return header(family) + attr_text(_TABLE, table) + attr_text(_SET, name)


def _list(shape: SetShape, element: str, value: str) -> bytes:
    data = _encode_data(shape, value)
    if is_interval(shape):
        return attr(_ELEMENTS | _NESTED, b"".join(_interval(shape, element, data)))
    if shape.flags & _INTERVAL:
        low, high = encode_range(shape.key_type, element)
        return attr(_ELEMENTS | _NESTED, _element(low, data, key_end=high))
    return attr(_ELEMENTS | _NESTED, _element(encode(shape.key_type, element), data))


def _element(key: bytes, data: bytes = b"", flags: int = 0, key_end: bytes = b"") -> bytes:
    body = attr(_KEY | _NESTED, attr(_VALUE, key))
    if key_end:
        body += attr(_KEY_END | _NESTED, attr(_VALUE, key_end))
    if data:
        body += attr(_DATA | _NESTED, attr(_VALUE, data))
    if flags:
        body += _be32(_FLAGS, flags)
    return attr(1 | _NESTED, body)


def _interval(shape: SetShape, element: str, data: bytes) -> Iterator[bytes]:
    """A prefix is its first address, and the one behind its last as the end."""
    if shape.key_type not in (7, 8):
        raise ValueError(f"intervals of nftables type {shape.key_type} are not supported")
    network = ip_network(element)
    yield _element(network.network_address.packed, data)
    last = int(network.broadcast_address)
    if last + 1 < 1 << network.max_prefixlen:
        yield _element((last + 1).to_bytes(network.max_prefixlen // 8, "big"), flags=_INTERVAL_END)


def _intervals(shape: SetShape, answers: list[Message]) -> Iterator[tuple[str, str]]:
    size = 4 if shape.key_type == 7 else 16
    make = IPv4Address if size == 4 else IPv6Address
    entries = sorted(
        # At one address an end comes before a start.
        (int.from_bytes(each.key, "big"), not each.flags & _INTERVAL_END, each.data)
        for each in _raw(answers)
    )
    start: int | None = None
    value = ""
    for at, is_start, data in [*entries, (1 << (8 * size), False, b"")]:
        if start is not None:
            for prefix in _prefixes(str(make(start)), str(make(at - 1))):
                address, _, length = prefix.partition("/")
                yield address if int(length) == 8 * size else prefix, value
        start, value = (at, _decode_data(shape, data)) if is_start else (None, "")


class _Raw(NamedTuple):
    key: bytes
    key_end: bytes
    data: bytes
    flags: int


def _raw(answers: list[Message]) -> Iterator[_Raw]:
    for answer in answers:
        for kind, payload in iter_attributes(answer.body, 4):
            if kind != _ELEMENTS:
                continue
            for _, each in iter_attributes(payload):
                values = attributes(each)
                key, key_end, data = (
                    attributes(values.get(name, b"")).get(_VALUE, b"") for name in (_KEY, _KEY_END, _DATA)
                )
                yield _Raw(key, key_end, data, int.from_bytes(values.get(_FLAGS, b""), "big"))
