"""The text of nftables tables, as `nft list` prints it, parsed into chains and rules.

What is not understood is kept as `Unknown`, never skipped, so that who evaluates it (verdict.py) can say so.
Must not know: packets, who made a table. Source: nft(8).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

PRIORITIES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
_OPERATORS = frozenset(("!=", "==", "<", ">", "<=", ">=", "!"))
_VERDICTS = frozenset(("accept", "drop", "return", "continue", "jump", "goto", "reject"))
_BARE_FACTS = frozenset(("iifname", "oifname", "iif", "oif", "iiftype", "oiftype", "skuid", "skgid"))
_TWO_WORD_FACTS = frozenset(
    ("meta", "ip", "ip6", "tcp", "udp", "th", "sctp", "dccp", "udplite", "icmp", "icmpv6", "ct", "ether")
)
_HARMLESS = frozenset(("ct mark", "ct label", "ct helper", "meta priority", "ip dscp", "ip6 dscp"))
_PORT_FIELDS = frozenset(
    f"{protocol} {end}" for protocol in ("tcp", "udp", "th") for end in ("sport", "dport")
)
_NAT_FLAGS = frozenset(
    ("random", "fully-random", "persistent", "random,persistent", "fully-random,persistent")
)


@dataclass(frozen=True, slots=True)
class Fact:
    """What is looked at in a packet: `ip daddr`, `iifname`, `meta mark`; then masked by `& 0xff` and the like."""

    name: str
    masks: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Values:
    """What it is compared with: spelled values, or a named set (`name`)."""

    items: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """`left` of several facts is a concatenation."""

    left: tuple[Fact, ...]
    operator: str
    right: Values


@dataclass(frozen=True, slots=True)
class Mapping:
    """`left map ...`: spelled pairs, or a named map."""

    left: tuple[Fact, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Nat:
    """dnat, snat, redirect, masquerade. `to` spelled (`10.0.0.2:80`) or `mapping`; family `` = any."""

    kind: str
    family: str = ""
    to: str = ""
    mapping: Mapping | None = None


@dataclass(frozen=True, slots=True)
class SetMark:
    """`meta mark set meta mark | 0x1`: the mark's old value under these masks, or a number.

    Without both it sets something no rule or route is judged by.
    """

    masks: tuple[tuple[str, str], ...] = ()
    value: str = ""


@dataclass(frozen=True, slots=True)
class SetPort:
    """`udp dport set 61053`: the packet gets another port (`field`: `udp dport`), and no connection hears of it."""

    field: str
    value: int


@dataclass(frozen=True, slots=True)
class Ends:
    """accept, drop, return, continue, reject, or a jump or goto to `chain`. `how`: what a reject answers with."""

    kind: str
    chain: str = ""
    how: str = ""


@dataclass(frozen=True, slots=True)
class VerdictMap:
    """`left vmap ...`: the values are verdicts, as words."""

    mapping: Mapping


@dataclass(frozen=True, slots=True)
class Unknown:
    """Text that is not understood. `ends`: the verdict behind it, where there is one."""

    text: str
    ends: Ends | None = None


Part: TypeAlias = Match | Nat | SetMark | SetPort | Ends | VerdictMap | Unknown


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as listed, and its parts in order; what changes nothing (counters, logs, comments) is left out."""

    text: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """`hook` empty: a chain others jump to."""

    name: str
    rules: tuple[Rule, ...] = ()
    kind: str = ""
    hook: str = ""
    priority: int = 0
    is_dropping: bool = False


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A named set (values empty) or map, with the elements the text itself lists."""

    name: str
    type: str
    elements: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """`unknown`: lines that are no chain, set or map (flow tables, objects)."""

    family: str
    name: str
    chains: dict[str, Chain] = field(default_factory=dict)
    sets: dict[str, NamedSet] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


def parse(text: str) -> Table:
    """One `table family name { ... }`. Raises ValueError where it is none."""
    lines = [line.strip() for line in text.strip().splitlines()]
    head = lines[0].split() if lines else []
    if len(head) < 4 or head[0] != "table" or head[-1] != "{":
        raise ValueError(f"no nftables table: {text[:60]!r}")
    chains: dict[str, Chain] = {}
    sets: dict[str, NamedSet] = {}
    unknown: list[str] = []
    for opening, body in _blocks(lines[1:]):
        kind, _, name = opening.partition(" ")
        if kind == "chain":
            chains[name] = _chain(name, body)
        elif kind in ("set", "map"):
            sets[name] = _set(name, body)
        else:
            unknown.append(opening)
    return Table(head[1], head[2], chains, sets, tuple(unknown))


def _blocks(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    opening, depth = "", 0
    body: list[str] = []
    for line in lines:
        if not line or line.startswith("#"):
            continue
        if depth == 0 and line.endswith("{"):
            opening, body, depth = line[:-1].strip(), [], 1
        elif depth:
            # A long element list goes over several lines.
            depth += _braces(line)
            if depth:
                body.append(line)
            else:
                yield opening, body
        elif line != "}" and not line.startswith(("flags ", "comment ")):
            yield line, []


def _braces(line: str) -> int:
    bare = re.sub(r'"[^"]*"', "", line)
    return bare.count("{") - bare.count("}")


def _joined(lines: list[str]) -> Iterator[str]:
    """Lines with the braces they open closed again."""
    text = ""
    for line in lines:
        text = f"{text} {line}" if text else line
        if _braces(text) <= 0:
            yield text
            text = ""
    if text:
        yield text


def _set(name: str, body: list[str]) -> NamedSet:
    kind = ""
    elements: tuple[tuple[str, str], ...] = ()
    for line in _joined(body):
        if line.startswith(("type ", "typeof ")):
            kind = line.partition(" ")[2]
        elif line.startswith("elements = {"):
            elements = _pairs(_Tokens(line[len("elements = ") :]))
    return NamedSet(name, kind, elements)


def _chain(name: str, body: list[str]) -> Chain:
    kind = hook = ""
    priority, is_dropping = 0, False
    rules = []
    for line in _joined(body):
        if line.startswith("type ") and " hook " in line:
            words = line.replace(";", " ; ").split()
            kind, hook = words[1], words[3]
            at = words.index("priority") + 1
            priority = _priority(words[at : words.index(";", at)])
            is_dropping = "drop" in words
        elif line.startswith(("policy ", "comment ")):
            is_dropping = is_dropping or line.startswith("policy drop")
        else:
            rules.append(rule(line))
    return Chain(name, tuple(rules), kind, hook, priority, is_dropping)


def _priority(words: list[str]) -> int:
    text = "".join(words)
    found = re.fullmatch(r"([a-z]*)([+-]?\d+)?", text)
    if found is None:
        raise ValueError(f"no nftables priority: {text}")
    return PRIORITIES.get(found[1], 0) + int(found[2] or 0)


class _NotUnderstoodError(Exception):
    pass


class _Tokens:
    """Words, braces and commas; a quoted string is one word."""

    def __init__(self, text: str) -> None:
        self.words: list[str] = []
        for word in re.findall(r'"[^"]*",?|\S+', text):
            # `{ 80, 443 }`: the comma is a word of its own; `established,related` stays one.
            if len(word) > 1 and word.endswith(","):
                self.words += [word[:-1], ","]
            else:
                self.words.append(word)
        self.at = 0

    def peek(self, ahead: int = 0) -> str:
        at = self.at + ahead
        return self.words[at] if at < len(self.words) else ""

    def take(self) -> str:
        word = self.peek()
        if not word:
            raise _NotUnderstoodError
        self.at += 1
        return word

    def take_if(self, *words: str) -> str:
        return self.take() if self.peek() in words else ""


def rule(text: str) -> Rule:
    """One line of a chain; what cannot be parsed becomes Unknown."""
    tokens = _Tokens(text)
    parts: list[Part] = []
    while tokens.peek():
        start = tokens.at
        try:
            parts += _part(tokens)
        except (_NotUnderstoodError, ValueError):
            parts.append(_unknown(tokens, start))
            break
    return Rule(text, tuple(parts))


def _unknown(tokens: _Tokens, start: int) -> Unknown:
    """The rest of the rule, and the verdict it ends with."""
    rest = tokens.words[start:]
    ends = None
    for at, word in enumerate(rest):
        if word in _VERDICTS:
            tokens.at = start + at
            try:
                ends = _ends(tokens)
            except _NotUnderstoodError:
                ends = None
    tokens.at = len(tokens.words)
    return Unknown(" ".join(rest), ends)


def _part(tokens: _Tokens) -> list[Part]:
    word = tokens.peek()
    if word in _VERDICTS:
        return [_ends(tokens)]
    if word in ("dnat", "snat", "masquerade", "redirect"):
        return [_nat(tokens)]
    if _skip(tokens):
        return []
    return [_fact_part(tokens)]


def _skip(tokens: _Tokens) -> bool:
    """What changes nothing for one packet."""
    word = tokens.peek()
    if word == "counter":
        tokens.take()
        if tokens.take_if("packets"):
            tokens.at += 3
        elif tokens.take_if("name"):
            tokens.take()
        return True
    if word == "comment":
        tokens.at += 2
        return True
    if word == "log":
        tokens.take()
        while tokens.peek() in ("prefix", "level", "flags", "group", "snaplen", "queue-threshold"):
            tokens.at += 2
        return True
    if word == "limit" and tokens.peek(1) == "rate" and tokens.peek(2) != "over":
        # One packet alone is within any limit.
        tokens.at += 3
        while tokens.peek() in ("burst",):
            tokens.at += 3
        return True
    if word == "meta" and tokens.peek(1) == "nftrace" and tokens.peek(2) == "set":
        tokens.at += 4
        return True
    if word == "tcp" and tokens.peek(1) == "option" and "set" in tokens.words[tokens.at : tokens.at + 5]:
        tokens.at = tokens.words.index("set", tokens.at) + 2
        if tokens.peek() == "mtu":
            tokens.take()
        return True
    return False


def _ends(tokens: _Tokens) -> Ends:
    kind = tokens.take()
    if kind in ("jump", "goto"):
        return Ends(kind, tokens.take())
    if kind == "reject" and tokens.take_if("with"):
        how = [tokens.take()]
        while tokens.peek() not in ("", "comment", "counter"):
            how.append(tokens.take())
        return Ends(kind, how=" ".join(how))
    return Ends(kind)


def _fact(tokens: _Tokens) -> Fact:
    word = tokens.take()
    if word in _BARE_FACTS:
        name = word
    elif word == "fib":
        words = [word]
        while words[-1] not in ("type", "oif", "oifname"):
            words.append(tokens.take())
        # `fib saddr . iif oif`: the last word is the answer, not the interface it is looked up for.
        name = " ".join(words)
    elif word == "numgen":
        kind = tokens.take()
        if tokens.take() != "mod":
            raise _NotUnderstoodError
        name = f"numgen {kind} mod {tokens.take()}"
        if tokens.take_if("offset"):
            name += f" offset {tokens.take()}"
    elif word == "ct" and tokens.peek() in ("original", "reply"):
        side = tokens.take()
        family = tokens.take_if("ip", "ip6")
        name = " ".join(part for part in ("ct", side, family, tokens.take()) if part)
    elif word in _TWO_WORD_FACTS:
        name = f"{word} {tokens.take()}"
    else:
        raise _NotUnderstoodError
    name = {"meta iifname": "iifname", "meta oifname": "oifname"}.get(name, name)
    return Fact(name, _masks(tokens))


def _masks(tokens: _Tokens) -> tuple[tuple[str, str], ...]:
    masks = []
    while operator := tokens.take_if("&", "|", "^", "<<", ">>"):
        masks.append((operator, tokens.take()))
    return tuple(masks)


def _facts(tokens: _Tokens) -> tuple[Fact, ...]:
    found = [_fact(tokens)]
    while tokens.take_if("."):
        found.append(_fact(tokens))
    return tuple(found)


def _fact_part(tokens: _Tokens) -> Part:
    left = _facts(tokens)
    if tokens.take_if("vmap"):
        return VerdictMap(_mapping(tokens, left))
    if tokens.take_if("set"):
        if len(left) == 1 and left[0].name in _PORT_FIELDS and not left[0].masks:
            return SetPort(left[0].name, int(tokens.take(), 0))
        return _set_mark(tokens, left)
    operator = tokens.take_if(*_OPERATORS) or "=="
    if tokens.peek() == "{":
        return Match(left, operator, Values(tuple(key for key, _ in _pairs(tokens))))
    word = tokens.take()
    if word.startswith("@"):
        return Match(left, operator, Values(name=word[1:]))
    if word in _VERDICTS or word in (",", "}", "map"):
        raise _NotUnderstoodError
    words = [word]
    while tokens.take_if("."):
        words += [".", tokens.take()]
    value = " ".join(words)
    flags = left[-1].name in ("ct state", "ct status", "ct direction", "tcp flags", "meta pkttype")
    return Match(left, operator, Values(tuple(value.split(",")) if flags else (value,)))


def _set_mark(tokens: _Tokens, left: tuple[Fact, ...]) -> SetMark:
    if left[0].name in _HARMLESS:
        while tokens.peek() and tokens.peek() not in _VERDICTS:
            tokens.take()
        return SetMark()
    if [each.name for each in left] != ["meta mark"]:
        raise _NotUnderstoodError
    if tokens.peek() == "meta" and tokens.peek(1) == "mark":
        tokens.at += 2
        return SetMark(_masks(tokens))
    value = tokens.take()
    int(value, 0)
    return SetMark(value=value)


def _mapping(tokens: _Tokens, left: tuple[Fact, ...]) -> Mapping:
    if tokens.peek() == "{":
        return Mapping(left, _pairs(tokens))
    word = tokens.take()
    if not word.startswith("@"):
        raise _NotUnderstoodError
    return Mapping(left, name=word[1:])


def _pairs(tokens: _Tokens) -> tuple[tuple[str, str], ...]:
    """`{ a, b . c : d }` as ((a, ), (b . c, d)); what an element carries beside its key is dropped."""
    if tokens.take() != "{":
        raise _NotUnderstoodError
    found: list[tuple[str, str]] = []
    key: list[str] = []
    value: list[str] | None = None
    while True:
        word = tokens.take()
        if word in (",", "}"):
            if key:
                found.append((_bare(key), _bare(value or [])))
            key, value = [], None
            if word == "}":
                return tuple(found)
        elif word == ":":
            value = []
        else:
            (key if value is None else value).append(word)


def _bare(words: list[str]) -> str:
    for at, word in enumerate(words):
        if word in ("counter", "timeout", "expires", "comment"):
            words = words[:at]
            break
    return " ".join(words)


def _nat(tokens: _Tokens) -> Nat:
    kind = tokens.take()
    family = tokens.take_if("ip", "ip6")
    while tokens.take_if("addr", "prefix", "interval"):
        if tokens.take_if("."):
            tokens.take()
    if not tokens.take_if("to"):
        found = Nat(kind, family)
    elif tokens.peek() in _TWO_WORD_FACTS or tokens.peek() in (*_BARE_FACTS, "numgen", "fib"):
        left = _facts(tokens)
        if not tokens.take_if("map"):
            raise _NotUnderstoodError
        found = Nat(kind, family, mapping=_mapping(tokens, left))
    else:
        words = [tokens.take()]
        while tokens.take_if("."):
            words += [".", tokens.take()]
        found = Nat(kind, family, to=" ".join(words))
    tokens.take_if(*_NAT_FLAGS)
    return found
