"""Which rules of other people's firewalls drop packets of dari's networks.

A table's listing is read chain by chain from each base chain, with a few kinds of packet that stand for all there
are: into a network and out of it, from outside and to outside. Conditions that cannot be told (ports, rates, sets)
may hold or not: such a drop counts only where the rule names something of ours. Must not know: how a listing is got.
Source: nft(8), "statements", "verdict statement".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import ip_network

from dari.net.firewall import MARK
from dari.net.state import Prefix

_HOOK = re.compile(r"type \S+ hook (\S+)(?P<devices>.*) priority [^;]+;(?: policy (?P<policy>\w+);)?")
_QUOTED = re.compile(r'"([^"]+)"')
_CONDITION = re.compile(
    r"(?P<key>iifname|oifname|iif|oif|ip saddr|ip daddr|ip6 saddr|ip6 daddr|ct state)"
    r" (?P<not>!= )?(?P<value>\{[^}]*\}|\S+)"
)
_VERDICT = re.compile(
    r"(?:^|\s)(?P<word>drop|accept|return|reject(?: with .*)?|(?:jump|goto) \S+|xt target \"(?:REJECT|DROP)\""
    r"|vmap \S+.*)$"
)
_HARMLESS = re.compile(r'\b(counter(?: packets \d+ bytes \d+)?|comment "[^"]*"|log\b.*?(?= drop| accept|$))')
_LISTING_END = re.compile(r"\s*# handle (\d+)$")
_MARK_WORDS = (f"{MARK:#010x}", f"{MARK:#x}", str(MARK))
_DEEPEST = 16


@dataclass(frozen=True, slots=True)
class Packet:
    """A kind of packet of one network. "" = an interface that is none of dari's; None = an address of anybody.

    `interfaces`: what may stand for the network's side.
    """

    network: str
    is_entering: bool
    interfaces: frozenset[str]
    prefixes: tuple[Prefix, ...]


@dataclass(frozen=True, slots=True)
class Drop:
    """A rule (or a policy) that drops. `is_naming`: it names something of dari's; `chain`: `ip filter FORWARD`."""

    chain: str
    rule: str
    hook: str
    networks: tuple[str, ...]
    is_naming: bool
    handle: str = ""


@dataclass(slots=True)
class _Chain:
    hook: str = ""
    policy: str = "accept"
    devices: frozenset[str] = frozenset()
    rules: list[tuple[str, str]] = field(default_factory=list)


def drops(
    family: str, table: str, text: str, packets: Iterable[Packet], *, is_sandbox: bool = False
) -> list[Drop]:
    """The rules of this table that may drop one of these packets, each once.

    In a sandbox every packet is ours: all drops of its tables count. A base chain's policy counts there too; on the
    host the doctor asks the kernel for policies (facts.py).
    """
    chains = _parse(text)
    found: dict[tuple[str, str, str], Drop] = {}
    is_knowing = any(word in text for word in _MARK_WORDS) or (
        # firewalld knows us by a zone of our name (facts.py).
        table == "firewalld" and any(name.endswith("_dari") for name in chains)
    )
    for name, base in chains.items():
        if not base.hook:
            continue
        if is_sandbox and base.policy == "drop":
            key = (name, "policy drop", base.hook)
            found[key] = Drop(f"{family} {table} {name}", "policy drop", base.hook, (), False)
        for packet in packets:
            is_on_ours = bool(base.devices & packet.interfaces)
            if base.devices and not is_on_ours:
                continue
            for chain, rule, handle, is_named in _Walk(chains, packet, is_lenient=is_sandbox).run(name):
                is_naming = is_named or is_on_ours
                is_catching_all = family == "arp" or (
                    base.hook in ("forward", "postrouting") and not is_knowing
                )
                if not (is_sandbox or is_naming or is_catching_all):
                    continue
                key = (chain, rule, handle)
                known = found.get(key)
                networks = (*known.networks, packet.network) if known else (packet.network,)
                found[key] = Drop(
                    f"{family} {table} {chain}",
                    rule,
                    base.hook,
                    tuple(dict.fromkeys(networks)),
                    is_naming or (known is not None and known.is_naming),
                    handle,
                )
    return list(found.values())


class _Walk:
    """One packet through one base chain. `is_lenient`: a drop counts too where its conditions may hold."""

    def __init__(self, chains: Mapping[str, _Chain], packet: Packet, *, is_lenient: bool) -> None:
        self._chains = chains
        self._packet = packet
        self._is_lenient = is_lenient

    def run(self, name: str) -> Iterator[tuple[str, str, str, bool]]:
        found: list[tuple[str, str, str, bool]] = []
        self._walk(name, found, is_sure=True, is_naming=False, depth=0)
        yield from found

    def _walk(
        self,
        name: str,
        found: list[tuple[str, str, str, bool]],
        *,
        is_sure: bool,
        is_naming: bool,
        depth: int,
    ) -> bool:
        """True where the packet's way has surely ended."""
        chain = self._chains.get(name)
        if chain is None or depth > _DEEPEST:
            return False
        for rule, handle in chain.rules:
            verdict = _VERDICT.search(_LISTING_END.sub("", _cleaned(rule)))
            if verdict is None:
                continue
            word = verdict["word"]
            holds, names, is_whole = self._conditions(_cleaned(rule)[: verdict.start()])
            if holds is False:
                continue
            is_certain = holds is True and is_whole and is_sure
            is_named = is_naming or names
            if word.startswith(("drop", "reject", "xt target")):
                # Unsure and naming nothing of ours: a rule about something else.
                if is_certain or is_named or self._is_lenient:
                    found.append((name, rule, handle, is_named))
                if is_certain:
                    return True
            elif word == "accept":
                if is_certain:
                    return True
            elif word == "return":
                if is_certain:
                    return False
            elif word.startswith(("jump", "goto")):
                ended = self._walk(
                    word.split()[1], found, is_sure=is_certain, is_naming=is_named, depth=depth + 1
                )
                if ended or (is_certain and word.startswith("goto")):
                    return ended
        return False

    def _conditions(self, text: str) -> tuple[bool | None, bool, bool]:
        """Whether they hold (None: perhaps), whether one names something of ours, whether all were understood."""
        holds: bool | None = True
        is_naming = False
        for each in _CONDITION.finditer(text):
            answer, names = self._condition(each["key"], each["value"])
            if each["not"]:
                answer, names = (None if answer is None else not answer), False
            if answer is False:
                return False, False, True
            if answer is None:
                holds = None
            is_naming = is_naming or names
        is_whole = not _CONDITION.sub("", text).strip()
        return holds, is_naming, is_whole

    def _condition(self, key: str, value: str) -> tuple[bool | None, bool]:
        values = [each.strip() for each in value.strip("{} ").split(",")]
        if key == "ct state":
            return (None, False) if {"new", "established", "related"} & set(values) else (False, False)
        if values[0].startswith("@"):
            return None, False
        packet = self._packet
        if key in ("iif", "iifname", "oif", "oifname"):
            is_ours = key.startswith("i") != packet.is_entering
            return self._interface(values, is_ours)
        is_ours = key.endswith("saddr") != packet.is_entering
        return self._address(values, is_ours, 4 if key.startswith("ip ") else 6)

    def _interface(self, values: list[str], is_ours: bool) -> tuple[bool | None, bool]:
        patterns = [each.strip('"') for each in values]
        hit = any(
            fnmatchcase(own, pattern.replace("[", "[[]"))
            for own in self._packet.interfaces
            for pattern in patterns
        )
        if is_ours:
            return hit, hit
        # Any other interface may be meant; one of ours surely is not.
        return (False, False) if hit and "*" not in "".join(patterns) else (None, False)

    def _address(self, values: list[str], is_ours: bool, version: int) -> tuple[bool | None, bool]:
        own = [each for each in self._packet.prefixes if each.version == version]
        given = [each for text in values for each in _prefixes(text)]
        if not given:
            return None, False
        if is_ours:
            overlapping = [
                one for one in given for each in own if one.version == version and one.overlaps(each)
            ]
            if not overlapping:
                return False, False
            is_all = any(one.supernet_of(each) for one in overlapping for each in own)  # type: ignore[arg-type]
            # A rule about half of the Internet does not name us.
            is_naming = any(one.prefixlen >= 8 * (2 if version == 4 else 4) for one in overlapping)
            return (True if is_all and len(own) == 1 else None), is_naming
        is_inside = all(any(each.overlaps(one) for each in own) for one in given)
        return (None, False) if not is_inside else (None, True)


def _cleaned(rule: str) -> str:
    return " ".join(_HARMLESS.sub(" ", rule).split())


def _prefixes(text: str) -> Iterator[Prefix]:
    """`10.0.0.0/8`, `10.0.0.1`, `10.0.0.1-10.0.0.9` (its first address stands for it); nothing for other texts."""
    try:
        yield ip_network(text.partition("-")[0], strict=False)
    except ValueError:
        return


def _parse(text: str) -> dict[str, _Chain]:
    chains: dict[str, _Chain] = {}
    current: _Chain | None = None
    for line in map(str.strip, text.splitlines()):
        if line.startswith("chain ") and "{" in line:
            current = chains.setdefault(line.split()[1], _Chain())
        elif line == "}":
            current = None
        elif current is not None and line and not line.startswith("#"):
            hook = _HOOK.match(line)
            if hook is not None:
                current.hook, current.policy = hook[1], hook["policy"] or "accept"
                current.devices = frozenset(_QUOTED.findall(hook["devices"]))
                continue
            handle = _LISTING_END.search(line)
            current.rules.append((_LISTING_END.sub("", line), handle[1] if handle else ""))
    return chains
