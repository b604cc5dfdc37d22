"""Rules nft has no word for: a range of ports translated by offset.

`dnat ... map` with ranges as values gives a packet any port of the range. With NF_NAT_RANGE_PROTO_OFFSET (Linux 4.18)
the kernel adds the packet's own port to the lower bound and takes the remainder (net/publish.py says what for), but
nft cannot say so, and nft 1.0.6 loads the registers of an IPv6 range wrongly. So libnftables gets a table's text
without these lines and the rules are added as messages, last in their chain. nft lists them as the lines they are
wanted as; a table in which they lack the flag is told apart here. Must not know: which table it is.
Formats: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dari.kernel import nfnetlink
from dari.kernel.netlink import NLM_F_APPEND, NLM_F_CREATE, Message, attr, attr_be32, attr_text

_LINE = re.compile(
    r"^\t\t(?:meta nfproto ipv[46] )?dnat (?P<family>ip6?) to meta l4proto \. ip6? daddr \. th dport"
    r" map @(?P<map>\w*range\w*)\n",
    re.MULTILINE,
)
_CHAIN = re.compile(r"^\tchain (\w+) \{$", re.MULTILINE)

_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_ELEMENT, _NAME, _DATA = 1, 1, 2
_NF_PROTOCOL, _L4_PROTOCOL = 15, 16
_NETWORK, _TRANSPORT = 1, 2
_NAT_PROTO_MIN, _NAT_PROTO_MAX, _NAT_FLAGS = 5, 6, 7
_OFFSET = 1 << 5
# NFT_REG32_00: a register of four bytes; the first of them share their place with the verdict.
_REGISTER = 8

UNFLAGGED = "# a range of ports without its offset\n"
"""What is added to the listing of a table whose rules lack the flag, so that it is not the wanted text."""


@dataclass(frozen=True, slots=True)
class _Rule:
    chain: str
    map: str
    is_ipv6: bool


def split(text: str) -> tuple[str, tuple[_Rule, ...]]:
    """A table's text without the rules for `messages`, and those."""
    found = []
    for match in _LINE.finditer(text):
        chain = _CHAIN.findall(text, 0, match.start())[-1]
        found.append(_Rule(chain, match["map"], match["family"] == "ip6"))
    return _LINE.sub("", text), tuple(found)


def messages(family: int, table: str, rules: Sequence[_Rule]) -> list[Message]:
    """The messages that append the rules to their chains."""
    return [_message(family, table, each) for each in rules]


def lacks_offset(found: Sequence[Message]) -> bool:
    """Whether a rule of these messages translates to a range of ports without the flag."""
    return any(
        name == "nat"
        # A single port is told as a range from one register.
        and values.get(_NAT_PROTO_MAX) != values.get(_NAT_PROTO_MIN)
        and not int.from_bytes(values.get(_NAT_FLAGS, b""), "big") & _OFFSET
        for name, values in nfnetlink.expressions(each for each in found if each.type == nfnetlink.NEWRULE)
    )


def _message(family: int, table: str, rule: _Rule) -> Message:
    size, offset, number = (16, 24, 10) if rule.is_ipv6 else (4, 16, 2)
    words = size // 4
    first, port = _REGISTER, _REGISTER + words
    made = [
        _expression("meta", attr_be32(1, first), attr_be32(2, _NF_PROTOCOL)),
        _expression("cmp", attr_be32(1, first), attr_be32(2, 0), attr(3, attr(1, bytes((number,))))),
        _expression("meta", attr_be32(1, first), attr_be32(2, _L4_PROTOCOL)),
        _payload(first + 1, _NETWORK, offset, size),
        _payload(first + 1 + words, _TRANSPORT, 2, 2),
        _expression("lookup", attr_text(1, rule.map), attr_be32(2, first), attr_be32(3, first)),
        # The value is lower address and port, upper address and port.
        _expression(
            "nat",
            attr_be32(1, 1),
            attr_be32(2, number),
            attr_be32(3, first),
            attr_be32(4, port + 1),
            attr_be32(_NAT_PROTO_MIN, port),
            attr_be32(_NAT_PROTO_MAX, port + 1 + words),
            attr_be32(_NAT_FLAGS, _OFFSET),
        ),
    ]
    body = nfnetlink.header(family) + attr_text(_RULE_TABLE, table) + attr_text(_RULE_CHAIN, rule.chain)
    return Message(
        nfnetlink.NEWRULE, NLM_F_CREATE | NLM_F_APPEND, body + attr(_RULE_EXPRESSIONS, b"".join(made))
    )


def _payload(register: int, base: int, offset: int, size: int) -> bytes:
    return _expression(
        "payload", attr_be32(1, register), attr_be32(2, base), attr_be32(3, offset), attr_be32(4, size)
    )


def _expression(name: str, *values: bytes) -> bytes:
    return attr(_ELEMENT, attr_text(_NAME, name) + attr(_DATA, b"".join(values)))
