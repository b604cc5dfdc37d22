"""What the nftables rules of a namespace say to a packet: their text, evaluated.

It judges by the text and the elements that are there, dari's tables and everybody else's alike, so it cannot drift
from what firewall.py writes. A rule it does not understand makes two worlds, one in which it matches; where both
end the same way nothing is lost, else the outcome is `unknown` and names that rule.
Must not know: routes, bridges, who sends. Source: nft(8); hooks and priorities: wiki.nftables.org, "Netfilter
hooks". Next: explain.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import ip_address
from typing import Literal, Protocol

from dari.net import nfttext
from dari.net.nfttext import Chain, Ends, Fact, Match, Nat, Rule, SetMark, SetPort, Table, Unknown, VerdictMap
from dari.net.nftvalues import Elements, Flight, Value, compare, family_of, masked, value_of
from dari.net.publish import FAMILY, TABLE, Block
from dari.net.scope import Key
from dari.net.state import Address, NftElement, NftTable

CONNTRACK = -200
"""Where connection tracking sees a packet, among the priorities of prerouting and output."""

OFFSET_MAPS = frozenset(("publish_range4", "publish_range6"))
"""Their values' ports are a remainder's (publish.py)."""

_LAST = 1 << 31
_FORKS = 200


class Standpoint(Protocol):
    """What rules ask of the namespace they are in."""

    def address_type(self, address: Address, link: str) -> str:
        """local, unicast, broadcast, multicast, unspec; with `link`, local means on that interface."""

    def link_towards(self, address: Address) -> str:
        """The interface the way to the address leads out of; empty where there is none."""

    def masquerade_address(self, flight: Flight) -> Address | None:
        """The address packets leaving over `flight.out_link` take."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`rule` and `chain` decided (empty: a policy, or nobody). `flight`: with its new addresses and mark."""

    kind: Literal["accept", "drop", "reject", "unknown"]
    flight: Flight
    table: Key | None = None
    chain: str = ""
    rule: str = ""
    how: str = ""
    uses: tuple[Key, ...] = ()
    nat_rule: str = ""
    port_rule: str = ""
    """The rule that wrote another port into the packet, past connection tracking."""


class _Loaded:
    def __init__(
        self, key: Key, table: Table, elements: Mapping[str, Elements], *, is_unflagged: bool
    ) -> None:
        self.key = key
        # The flag nft has no word for; a reader marks a table that lacks it (kernel/offset.py).
        self.is_offset = key[-2:] == (FAMILY, TABLE) and not is_unflagged
        self.table = table
        self.elements = elements


@dataclass(slots=True)
class _State:
    flight: Flight
    uses: list[Key] = field(default_factory=list)
    nat_rule: str = ""
    port_rule: str = ""

    def copy(self) -> _State:
        return _State(self.flight, list(self.uses), self.nat_rule, self.port_rule)


class Ruleset:
    """The tables of one namespace. `broken`: keys of tables whose text cannot be parsed at all."""

    def __init__(self, tables: Iterable[NftTable], elements: Iterable[NftElement]) -> None:
        self.broken: list[Key] = []
        self.foreign_layers: list[Key] = []
        by_set: dict[tuple[str, str], dict[str, list[tuple[str, str, Key | None]]]] = {}
        for each in elements:
            sets = by_set.setdefault((each.family, each.table), {})
            sets.setdefault(each.set, []).append((each.element, each.value, each.key))
        self._hooks: dict[str, list[tuple[_Loaded, Chain]]] = {}
        for table in tables:
            try:
                parsed = _parse(table.text)
            except ValueError:
                self.broken.append(table.key)
                continue
            named = by_set.get((table.family, table.name), {})
            loaded = _Loaded(
                table.key,
                parsed,
                {
                    name: Elements(
                        [*((k, v, None) for k, v in each.elements), *named.get(name, ())],
                    )
                    for name, each in parsed.sets.items()
                },
                is_unflagged=table.text.rstrip().rpartition("\n")[2].startswith("#"),
            )
            if table.family not in ("ip", "ip6", "inet"):
                if any(chain.hook and (chain.rules or chain.is_dropping) for chain in parsed.chains.values()):
                    self.foreign_layers.append(table.key)
                continue
            for chain in parsed.chains.values():
                if chain.hook:
                    self._hooks.setdefault(chain.hook, []).append((loaded, chain))
        for chains in self._hooks.values():
            chains.sort(key=lambda each: each[1].priority)

    @property
    def has_rules(self) -> bool:
        return bool(self._hooks or self.broken)

    def run(
        self,
        hook: str,
        flight: Flight,
        around: Standpoint,
        *,
        first: int = -_LAST,
        last: int = _LAST,
        is_nat_done: bool = False,
    ) -> Outcome:
        """The base chains of a hook with priorities from `first` (inclusive) up to `last` (exclusive).

        `is_nat_done`: the connection has its addresses already, or is none: nat chains are not asked.
        """
        state = _State(flight)
        accepted: Outcome | None = None
        table: Key | None = None
        for loaded, chain in self._hooks.get(hook, ()):
            if not first <= chain.priority < last or not _is_for(loaded.table.family, flight):
                continue
            if chain.kind == "nat" and (is_nat_done or state.nat_rule):
                continue
            outcome = _Evaluation(loaded, chain, around).run(state)
            if outcome.kind != "accept":
                return outcome
            accepted = outcome if outcome.rule else accepted
            if outcome.port_rule and not state.port_rule:
                table = outcome.table
            state = _State(outcome.flight, list(outcome.uses), outcome.nat_rule, outcome.port_rule)
        ended = accepted or Outcome("accept", state.flight, table=table)
        return replace(
            ended,
            flight=state.flight,
            uses=tuple(state.uses),
            nat_rule=state.nat_rule,
            port_rule=state.port_rule,
        )


class _Evaluation:
    """One base chain. Frames are (chain, next rule); whoever is jumped to gets a frame of its own."""

    def __init__(self, loaded: _Loaded, chain: Chain, around: Standpoint) -> None:
        self._loaded = loaded
        self._base = chain
        self._around = around
        self._forks = _FORKS

    def run(self, state: _State) -> Outcome:
        return self._run(state, [(self._base, 0)])

    def _run(self, state: _State, stack: list[tuple[Chain, int]]) -> Outcome:
        while stack:
            chain, at = stack.pop()
            if at >= len(chain.rules):
                continue
            stack.append((chain, at + 1))
            outcome = self._rule(chain, chain.rules[at], state, stack)
            if outcome is not None:
                return outcome
        kind: Literal["accept", "drop"] = "drop" if self._base.is_dropping else "accept"
        rule = "policy drop" if self._base.is_dropping else ""
        return self._outcome(kind, state, self._base, rule)

    def _rule(
        self, chain: Chain, rule: Rule, state: _State, stack: list[tuple[Chain, int]], at: int = 0
    ) -> Outcome | None:
        for number, part in enumerate(rule.parts[at:], at):
            match part:
                case Match():
                    is_met = self._is_met(part, state)
                    if is_met is None:
                        return self._fork(chain, rule, state, stack, number + 1)
                    if not is_met:
                        return None
                case Unknown():
                    return self._fork(chain, rule, state, stack, number)
                case SetMark():
                    state.flight = replace(state.flight, mark=_masked_mark(part, state.flight.mark))
                case SetPort():
                    _set_port(part, rule, state)
                case Nat():
                    return self._nat(chain, rule, part, state)
                case Ends():
                    return self._end(chain, rule, part, state, stack)
                case VerdictMap():
                    found = self._look_up(part.mapping, state)
                    if found is None:
                        return self._outcome("unknown", state, chain, rule.text)
                    if not found:
                        return None
                    kind, _, target = found[0].partition(" ")
                    return self._end(chain, rule, Ends(kind, target), state, stack)
        return None

    def _end(
        self, chain: Chain, rule: Rule, ends: Ends, state: _State, stack: list[tuple[Chain, int]]
    ) -> Outcome | None:
        match ends.kind:
            case "accept":
                return self._outcome("accept", state, chain, rule.text)
            case "drop":
                return self._outcome("drop", state, chain, rule.text)
            case "reject":
                return replace(self._outcome("reject", state, chain, rule.text), how=ends.how)
            case "continue":
                return None
            case "return":
                stack.pop()
                return None
            case "jump" | "goto":
                target = self._loaded.table.chains.get(ends.chain)
                if target is None:
                    return self._outcome("unknown", state, chain, rule.text)
                if ends.kind == "goto":
                    stack.pop()
                stack.append((target, 0))
                return None
            case _:
                return self._outcome("unknown", state, chain, rule.text)

    def _fork(
        self, chain: Chain, rule: Rule, state: _State, stack: list[tuple[Chain, int]], at: int
    ) -> Outcome:
        """Both ways of a rule that is not understood, to their ends; `at` is its part that comes next."""
        unknown = self._outcome("unknown", state, chain, rule.text)
        self._forks -= 1
        if self._forks < 0:
            return unknown
        passed = self._run(state.copy(), list(stack))
        part = rule.parts[at] if at < len(rule.parts) else None
        caught: Outcome | None
        if isinstance(part, Unknown):
            if part.ends is None:
                return unknown
            caught = self._end(chain, rule, part.ends, state, stack)
        else:
            caught = self._rule(chain, rule, state, stack, at)
        caught = caught or self._run(state, stack)
        is_same = caught.kind == passed.kind and _addresses(caught.flight) == _addresses(passed.flight)
        if is_same:
            return passed
        return unknown if "unknown" not in (caught.kind, passed.kind) else replace(unknown, rule=rule.text)

    def _nat(self, chain: Chain, rule: Rule, nat: Nat, state: _State) -> Outcome | None:
        flight = state.flight
        if nat.family and nat.family != family_of(flight):
            return None
        to = nat.to
        if nat.mapping is not None:
            found = self._look_up(nat.mapping, state)
            if found is None:
                return self._outcome("unknown", state, chain, rule.text)
            if not found:
                return None
            to = found[0]
        try:
            address, port = _target(to)
        except ValueError:
            return self._outcome("unknown", state, chain, rule.text)
        if nat.kind == "masquerade":
            address = self._around.masquerade_address(flight)
            if address is None:
                return self._outcome("drop", state, chain, rule.text)
        if nat.kind == "redirect":
            address = self._around.masquerade_address(flight) if flight.in_link else _loopback(flight)
            if address is None:
                return self._outcome("drop", state, chain, rule.text)
        if address is not None and address.version != flight.destination.version:
            return None
        if nat.kind in ("masquerade", "snat"):
            state.flight = replace(flight, source=address or flight.source)
        else:
            state.flight = replace(
                flight,
                destination=address or flight.destination,
                port=self._port(nat, port, flight.port) if port else flight.port,
            )
        state.flight = replace(state.flight, ct_status=flight.ct_status | _given(flight, state.flight))
        state.nat_rule = rule.text
        return self._outcome("accept", state, chain, rule.text)

    def _port(self, nat: Nat, ports: str, port: int) -> int:
        """Of a range of ports the packet's own if it is in it, else the first; dari's maps of ranges count on."""
        first, separator, last = ports.partition("-")
        low, high = int(first), int(last if separator else first)
        is_offset = nat.mapping is not None and nat.mapping.name in OFFSET_MAPS and self._loaded.is_offset
        if is_offset and separator:
            return Block(port, port, low, high).container_port(port)
        return port if low <= port <= high else low

    def _look_up(self, mapping: nfttext.Mapping, state: _State) -> tuple[str] | tuple[()] | None:
        """The value; () where it is not in, None where it is not understood."""
        if len(mapping.left) == 1 and mapping.left[0].name.startswith("numgen "):
            # Any of them may be picked; the first stands for all.
            pairs = mapping.pairs
            return (pairs[0][1],) if pairs else None
        values = self._values(mapping.left, state.flight)
        if values is None:
            return None
        if None in values:
            return ()
        elements = (
            self._loaded.elements.get(mapping.name)
            if mapping.name
            else Elements((key, value, None) for key, value in mapping.pairs)
        )
        return self._found(elements, values, state)

    def _found(
        self, elements: Elements | None, values: tuple[Value, ...], state: _State
    ) -> tuple[str] | tuple[()] | None:
        if elements is None:
            return None
        try:
            found = elements.find(values)
        except ValueError:
            return None
        if found is None:
            return ()
        if found[1] is not None:
            state.uses.append(found[1])
        return (found[0],)

    def _is_met(self, match: Match, state: _State) -> bool | None:
        values = self._values(match.left, state.flight)
        if values is None:
            return None
        if None in values:
            return False
        if match.right.name:
            found = self._found(self._loaded.elements.get(match.right.name), values, state)
            if found is None:
                return None
            return bool(found) == (match.operator == "==")
        try:
            return compare(values, match.operator, match.right)
        except ValueError:
            return None

    def _values(self, facts: tuple[Fact, ...], flight: Flight) -> tuple[Value, ...] | None:
        """None where one of them is not understood."""
        try:
            return tuple(self._value_of(each, flight) for each in facts)
        except LookupError:
            return None

    def _value_of(self, fact: Fact, flight: Flight) -> Value:
        if fact.name.startswith("fib "):
            value = self._fib(fact.name, flight)
        else:
            value = value_of(fact.name, flight)
        if not fact.masks or value is None:
            return value
        if not isinstance(value, int):
            raise LookupError(fact.name)
        return masked(value, fact.masks)

    def _fib(self, name: str, flight: Flight) -> Value:
        words = name.split()
        address = flight.destination if words[1] == "daddr" else flight.source
        link = flight.in_link if "iif" in words else flight.out_link if words.count("oif") == 2 else ""
        match words[-1]:
            case "type":
                return self._around.address_type(address, link)
            case "oif" | "oifname":
                if address.version == 6 and address.is_link_local:
                    # Every interface has a way to those.
                    return link or "missing"
                towards = self._around.link_towards(address)
                # With the interface it came by, only that one counts.
                return "missing" if not towards or (link and towards != link) else towards
            case _:
                raise LookupError(name)

    def _outcome(
        self, kind: Literal["accept", "drop", "reject", "unknown"], state: _State, chain: Chain, rule: str
    ) -> Outcome:
        uses = [*state.uses, self._loaded.key] if rule else state.uses
        return Outcome(
            kind,
            state.flight,
            self._loaded.key,
            chain.name,
            rule,
            "",
            tuple(uses),
            state.nat_rule,
            state.port_rule,
        )


def not_understood(table: Table) -> list[str]:
    """The rules and lines of a table that an evaluation could not follow, for tests and remarks."""
    found = list(table.unknown)
    probe = Flight(ip_address("192.0.2.1"), ip_address("192.0.2.2"), "tcp", 40000, 80)
    for chain in table.chains.values():
        for rule in chain.rules:
            if not all(_is_known(part, probe) for part in rule.parts):
                found.append(rule.text)
    return found


def _is_known(part: nfttext.Part, probe: Flight) -> bool:
    match part:
        case Unknown():
            return False
        case Match(left=left):
            facts = left
        case VerdictMap(mapping=mapping):
            facts = mapping.left
        case Nat(mapping=nfttext.Mapping(left=left)):
            facts = tuple(each for each in left if not each.name.startswith("numgen "))
        case _:
            return True
    for each in facts:
        if each.name.startswith("fib "):
            continue
        try:
            value_of(each.name, probe)
        except LookupError:
            return False
    return True


@lru_cache(maxsize=256)
def _parse(text: str) -> Table:
    return nfttext.parse(text)


def _is_for(family: str, flight: Flight) -> bool:
    return family in ("inet", family_of(flight))


def _given(before: Flight, after: Flight) -> set[str]:
    """What `ct status` says from then on, in the same hook too."""
    found = set()
    if (before.destination, before.port) != (after.destination, after.port):
        found.add("dnat")
    if before.source != after.source:
        found.add("snat")
    return found


def _addresses(flight: Flight) -> tuple[Address, Address, int, int]:
    return flight.source, flight.destination, flight.source_port, flight.port


def _loopback(flight: Flight) -> Address:
    return ip_address("127.0.0.1" if flight.destination.version == 4 else "::1")


def _set_port(part: SetPort, rule: Rule, state: _State) -> None:
    protocol, _, end = part.field.partition(" ")
    flight = state.flight
    if flight.protocol not in ("tcp", "udp") or protocol not in ("th", flight.protocol):
        return
    changed = replace(flight, port=part.value) if end == "dport" else replace(flight, source_port=part.value)
    if changed != flight:
        state.flight, state.port_rule = changed, rule.text


def _masked_mark(each: SetMark, mark: int) -> int:
    if each.value:
        return int(each.value, 0)
    return masked(mark, each.masks)


def _target(text: str) -> tuple[Address | None, str]:
    """`10.0.0.2:80`, `[fd00::2]:80`, `10.0.0.2 . 80`, `:80`, `10.0.0.2`; a range of addresses is its first."""
    if not text:
        return None, ""
    if " . " in text:
        address, _, port = text.partition(" . ")
    elif text.startswith("["):
        address, _, port = text[1:].partition("]")
        port = port.lstrip(":")
    elif text.count(":") > 1:
        address, port = text, ""
    else:
        address, _, port = text.partition(":")
    address = address.partition("-")[0]
    return (ip_address(address) if address else None), port
