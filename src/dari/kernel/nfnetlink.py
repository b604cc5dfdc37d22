"""nfnetlink messages of nf_tables: transactions, and a table as the messages that would make it again.

A dump of a table, its chains, sets and rules less what the kernel numbers and counts by itself is at once its
fingerprint and a batch that makes the same table elsewhere: that is how a sandbox gets its rules without
libnftables. Formats: linux/netfilter/nf_tables.h. Must not know: rule syntax, plans.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dari.kernel.errors import NetlinkError
from dari.kernel.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    Message,
    Netlink,
    attr,
    attr_be32,
    attr_text,
    attributes,
    iter_attributes,
    text_of,
)

FAMILIES = {"inet": 1, "ip": 2, "ip6": 10, "bridge": 7}

_SUBSYSTEM = 10 << 8
NEWTABLE, GETTABLE, DELTABLE = _SUBSYSTEM | 0, _SUBSYSTEM | 1, _SUBSYSTEM | 2
NEWCHAIN, GETCHAIN = _SUBSYSTEM | 3, _SUBSYSTEM | 4
NEWRULE, GETRULE = _SUBSYSTEM | 6, _SUBSYSTEM | 7
NEWSET, GETSET = _SUBSYSTEM | 9, _SUBSYSTEM | 10
NEWSETELEM, GETSETELEM, DELSETELEM = _SUBSYSTEM | 12, _SUBSYSTEM | 13, _SUBSYSTEM | 14
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11

_TABLE_NAME = 1
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY = 1, 3, 4, 5
_HOOK_NUMBER = 1
_RULE_TABLE, _RULE_HANDLE, _RULE_EXPRESSIONS = 1, 3, 4
_SET_TABLE, _SET_NAME, _SET_FLAGS, _SET_KEY_TYPE, _SET_KEY_LENGTH = 1, 2, 3, 4, 5
_SET_DATA_TYPE, _SET_DATA_LENGTH, _SET_ID = 6, 7, 10
_ELEMENTS_TABLE, _ELEMENTS_SET = 1, 2
_SET_ANONYMOUS = 0x1

NF_INET_FORWARD = 2
_NF_DROP = 0

# What the kernel numbers or counts by itself, by message: table flags, use, handle, owner · chain handle, use,
# counters, flags, id · rule handle, position, ids · set handle, type, count, id.
_DROPPED: dict[int, frozenset[int]] = {
    NEWTABLE: frozenset({2, 3, 4, 5, 7}),
    NEWCHAIN: frozenset({2, 6, 8, 9, 10, 11}),
    NEWRULE: frozenset({3, 6, 8, 9, 10, 11}),
    NEWSET: frozenset({10, 14, 16, 19, 20}),
    NEWSETELEM: frozenset({4}),
}
_FLAGS = {
    NEWTABLE: NLM_F_CREATE,
    NEWCHAIN: NLM_F_CREATE,
    NEWRULE: NLM_F_CREATE | NLM_F_APPEND,
    NEWSET: NLM_F_CREATE,
    NEWSETELEM: NLM_F_CREATE,
}


def header(family: int, resource: int = 0) -> bytes:
    """struct nfgenmsg."""
    return struct.pack("=BB", family, 0) + struct.pack("!H", resource)


@dataclass(frozen=True, slots=True)
class SetShape:
    """A named set or map: flags, and the type numbers and lengths of key and data (0: a set)."""

    name: str
    flags: int
    key_type: int
    key_length: int
    data_type: int
    data_length: int = 0

    @property
    def is_anonymous(self) -> bool:
        return bool(self.flags & _SET_ANONYMOUS)


@dataclass(frozen=True, slots=True)
class BaseChain:
    """A chain, and its hook where it has one. `hook` -1: a plain chain."""

    family: int
    table: str
    name: str
    hook: int
    is_dropping: bool


def transact(sock: Netlink, messages: Sequence[Message]) -> list[NetlinkError]:
    """All or nothing; the errors carry the index within `messages` (-1: the transaction itself)."""
    batch = [
        Message(_BATCH_BEGIN, 0, header(0, 10)),
        *messages,
        Message(_BATCH_END, 0, header(0, 10)),
    ]
    errors = sock.transact(batch)
    for error in errors:
        error.index = error.index - 1 if error.index <= len(messages) else -1
    return errors


def make(sock: Netlink, messages: Sequence[Message]) -> None:
    """`transact`, raising the first error."""
    errors = transact(sock, messages)
    if errors:
        raise errors[0]


def tables(sock: Netlink) -> list[tuple[int, str]]:
    """(family, name) of every table."""
    answers = sock.dump(Message(GETTABLE, 0, header(0)))
    return [(each.body[0], text_of(attributes(each.body, 4)[_TABLE_NAME])) for each in answers]


def chains(sock: Netlink, family: int = 0) -> list[BaseChain]:
    found = []
    for each in sock.dump(Message(GETCHAIN, 0, header(family))):
        values = attributes(each.body, 4)
        hook = attributes(values.get(_CHAIN_HOOK, b"")).get(_HOOK_NUMBER)
        policy = values.get(_CHAIN_POLICY)
        found.append(
            BaseChain(
                family=each.body[0],
                table=text_of(values[_CHAIN_TABLE]),
                name=text_of(values[_CHAIN_NAME]),
                hook=int.from_bytes(hook, "big") if hook is not None else -1,
                is_dropping=policy is not None and int.from_bytes(policy, "big") == _NF_DROP,
            )
        )
    return found


def sets(sock: Netlink, family: int, table: str) -> dict[str, SetShape]:
    """The sets of a table by name; none where there is no such table."""
    found = {}
    for each in _dump_of_table(sock, GETSET, family, table, _SET_TABLE):
        values = attributes(each.body, 4)
        shape = SetShape(
            name=text_of(values[_SET_NAME]),
            flags=int.from_bytes(values.get(_SET_FLAGS, b""), "big"),
            key_type=int.from_bytes(values.get(_SET_KEY_TYPE, b""), "big"),
            key_length=int.from_bytes(values.get(_SET_KEY_LENGTH, b""), "big"),
            data_type=int.from_bytes(values.get(_SET_DATA_TYPE, b""), "big"),
            data_length=int.from_bytes(values.get(_SET_DATA_LENGTH, b""), "big"),
        )
        found[shape.name] = shape
    return found


def dump_elements(sock: Netlink, family: int, table: str, name: str) -> list[Message]:
    body = header(family) + attr_text(_ELEMENTS_TABLE, table) + attr_text(_ELEMENTS_SET, name)
    return sock.dump(Message(GETSETELEM, 0, body))


def dump_rules(sock: Netlink, family: int, table: str) -> list[Message]:
    return _dump_of_table(sock, GETRULE, family, table, _RULE_TABLE)


def expressions(rules: Iterable[Message]) -> Iterator[tuple[str, dict[int, bytes]]]:
    """(name, attributes) of each expression of these rules."""
    for rule in rules:
        listed = attributes(rule.body, 4).get(_RULE_EXPRESSIONS, b"")
        for _, payload in iter_attributes(listed):
            values = attributes(payload)
            yield text_of(values.get(1, b"")), attributes(values.get(2, b""))


def match_comments(sock: Netlink, family: int, table: str) -> dict[int, str]:
    """The comments of iptables' rules, by the rule's handle: nft leaves them out of its listing."""
    found = {}
    for rule in dump_rules(sock, family, table):
        for name, values in expressions((rule,)):
            # struct xt_comment_info: one text.
            if name == "match" and text_of(values.get(1, b"")) == "comment":
                handle = int.from_bytes(attributes(rule.body, 4).get(_RULE_HANDLE, b""), "big")
                found[handle] = text_of(values.get(3, b"").partition(b"\0")[0])
    return found


def snapshot(sock: Netlink, family: int, table: str) -> tuple[Message, ...] | None:
    """The messages that make this table again, its named sets empty; None where there is no such table."""
    answers, errors = sock.request([Message(GETTABLE, 0, header(family) + attr_text(_TABLE_NAME, table))])
    if errors or not answers[0]:
        return None
    made = [_again(answers[0][0], NEWTABLE)]
    for each in sock.dump(Message(GETCHAIN, 0, header(family))):
        if each.body[0] == family and text_of(attributes(each.body, 4)[_CHAIN_TABLE]) == table:
            made.append(_again(each, NEWCHAIN))
    filled = []
    for number, each in enumerate(_dump_of_table(sock, GETSET, family, table, _SET_TABLE), 1):
        again = _again(each, NEWSET)
        made.append(Message(again.type, again.flags, again.body + attr_be32(_SET_ID, number)))
        values = attributes(each.body, 4)
        if int.from_bytes(values.get(_SET_FLAGS, b""), "big") & _SET_ANONYMOUS:
            filled.append(text_of(values[_SET_NAME]))
    for name in filled:
        made.extend(_again(each, NEWSETELEM) for each in dump_elements(sock, family, table, name))
    made.extend(_again(each, NEWRULE) for each in dump_rules(sock, family, table))
    return tuple(made)


def fingerprint(messages: Iterable[Message]) -> bytes:
    """Equal for equal tables."""
    return b"".join(each.body for each in messages)


def delete_table(family: int, table: str) -> list[Message]:
    """Deletes the table, there or not (it is made first)."""
    name = attr_text(_TABLE_NAME, table)
    return [
        Message(NEWTABLE, NLM_F_CREATE, header(family) + name),
        Message(DELTABLE, 0, header(family) + name),
    ]


def _again(answer: Message, kind: int) -> Message:
    dropped = _DROPPED[kind]
    body = header(answer.body[0]) + b"".join(
        # The flag that says "nested" is lost in iteration, and nf_tables does not ask for it.
        attr(each, payload)
        for each, payload in iter_attributes(answer.body, 4)
        if each not in dropped
    )
    return Message(kind, _FLAGS[kind], body)


def _dump_of_table(sock: Netlink, kind: int, family: int, table: str, name: int) -> list[Message]:
    try:
        return sock.dump(Message(kind, 0, header(family) + attr_text(name, table)))
    except NetlinkError as error:
        if error.errno == 2:
            return []
        raise


INET, IPV4, IPV6 = FAMILIES["inet"], socket.AF_INET, socket.AF_INET6
