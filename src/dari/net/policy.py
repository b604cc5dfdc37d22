"""Policy: who may call whom on which port, as text, and as elements of a table in the receiver's sandbox.

A policy is a text, one statement after another, separated by `;` or line breaks:

    deny                        what nobody speaks of is refused (`allow`, which is Docker's: it passes)
    allow web,worker 5432       these may call port 5432/tcp
    allow outside 80,443        those who come by a published port from outside of the host
    allow any icmp              everybody may ping
    deny 192.0.2.0/24           whatever else is said

On a container it speaks of calls to that container, on a network of calls that come in by that network to any of its
containers (`allow web to db 5432` narrows it to one). A deny anywhere wins, then an allow anywhere, then the
container's default, then the network's, then allow. Answers, the container itself, its resolver and ICMP errors
always pass. Must not know: stores, which containers there are. Next: reconcile/policies.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Literal, TypeAlias

from dari.net.desired import Flow, PolicyWant
from dari.net.publish import FAMILY, TABLE
from dari.net.state import Address, KernelObject, NftElement, NftTable, Prefix

LABEL = "dari.policy"
"""The label of a container or a network."""

Verdict: TypeAlias = Literal["allow", "deny"]

SPECIAL = frozenset(("any", "host", "outside"))
"""`any`: whoever it is. `host`: the host itself, and containers that come by a published port. `outside`: addresses
that are neither the host's nor of a network the receiver is on."""

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")
_PORTS = re.compile(
    r"(?:(?P<low>\d{1,5})(?:-(?P<high>\d{1,5}))?(?:/(?P<protocol>tcp|udp|sctp))?|(?P<icmp>icmp))\Z"
)
_ICMP = ("icmp", "58")
_EVERY: tuple[tuple[str, int, int], ...] = tuple(
    (protocol, 0, 65535) for protocol in ("tcp", "udp", "sctp", *_ICMP)
)


@dataclass(frozen=True, slots=True)
class Rule:
    """`ports`: (protocol, lowest, highest); `targets` empty: every container the policy is about."""

    verdict: Verdict
    sources: tuple[str, ...]
    targets: tuple[str, ...] = ()
    ports: tuple[tuple[str, int, int], ...] = _EVERY


@dataclass(frozen=True, slots=True)
class Policy:
    """`default` None: not said."""

    default: Verdict | None = None
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody who may call: the names it is known by, and its addresses, on one network of the receiver's."""

    network: str
    names: frozenset[str]
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Receiver:
    """A sandbox that is called. By its network's name: the interface, and the subnets with the host's addresses in
    them."""

    names: frozenset[str]
    interfaces: Mapping[str, str]
    subnets: Mapping[str, tuple[Prefix, ...]]
    gateways: Mapping[str, tuple[Address, ...]]


def parse(text: str, *, has_targets: bool = False) -> Policy:
    """`has_targets`: a network's, whose statements may say `to`. Raises ValueError in words for a user."""
    default: Verdict | None = None
    rules: list[Rule] = []
    for statement in re.split(r"[;\n]", text):
        words = statement.split()
        if not words:
            continue
        verdict = words[0]
        if verdict not in ("allow", "deny"):
            raise ValueError(f"{statement.strip()!r}: begin with allow or deny, not {verdict!r}")
        kind: Verdict = "allow" if verdict == "allow" else "deny"
        if len(words) == 1:
            if default is not None:
                raise ValueError(f"{statement.strip()!r}: the default is said twice")
            default = kind
            continue
        rules.append(_rule(kind, words[1:], statement.strip(), has_targets=has_targets))
    return Policy(default, tuple(rules))


def _rule(verdict: Verdict, words: list[str], statement: str, *, has_targets: bool) -> Rule:
    sources = tuple(_source(word, statement) for word in words[0].split(","))
    rest = words[1:]
    targets: tuple[str, ...] = ()
    if rest[:1] == ["to"]:
        if not has_targets:
            raise ValueError(f"{statement!r}: a container's policy is about that container, leave 'to' out")
        if len(rest) < 2:
            raise ValueError(f"{statement!r}: say whom after 'to'")
        targets, rest = tuple(_target(word, statement) for word in rest[1].split(",")), rest[2:]
    if len(rest) > 1:
        raise ValueError(f"{statement!r}: write ports without blanks, as in 80,443,53/udp")
    ports = tuple(one for word in rest[0].split(",") for one in _port(word, statement)) if rest else _EVERY
    return Rule(verdict, sources, targets, ports)


def _source(word: str, statement: str) -> str:
    if word in SPECIAL:
        return word
    if "/" in word:
        try:
            return str(ip_network(word))
        except ValueError as error:
            raise ValueError(f"{statement!r}: {error}") from None
    kind, separator, name = word.rpartition(":")
    if (separator and kind != "network") or not _NAME.match(name):
        raise ValueError(
            f"{statement!r}: {word!r} is no name; give a container's name or alias, network:NAME, a subnet, "
            "host, outside or any"
        )
    return word


def _target(word: str, statement: str) -> str:
    if word in SPECIAL or not _NAME.match(word):
        raise ValueError(f"{statement!r}: {word!r} is no container's name or alias")
    return word


def _port(word: str, statement: str) -> Iterator[tuple[str, int, int]]:
    found = _PORTS.match(word)
    if found is None:
        raise ValueError(f"{statement!r}: {word!r} is no port; write 5432, 53/udp, 8000-8010 or icmp")
    if found["icmp"]:
        yield from ((protocol, 0, 65535) for protocol in _ICMP)
        return
    low, high = int(found["low"]), int(found["high"] or found["low"])
    if not 1 <= low <= high <= 65535:
        raise ValueError(f"{statement!r}: {word!r} is no range of ports between 1 and 65535")
    yield found["protocol"] or "tcp", low, high


# What a sandbox must know


def compiled(
    own: Policy | None, networks: Mapping[str, Policy], receiver: Receiver, peers: Sequence[Peer]
) -> PolicyWant | None:
    """What a receiver's table must hold; None where nobody says anything about it.

    `own`: the container's policy. `networks`: those of its networks that have one, by name.
    """
    if own is None and not networks:
        return None
    flows: dict[Verdict, list[Flow]] = {"allow": [], "deny": []}
    outside: dict[Verdict, list[tuple[str, int, int]]] = {"allow": [], "deny": []}
    for network, policy in ((None, own), *networks.items()):
        for rule in policy.rules if policy is not None else ():
            if rule.targets and receiver.names.isdisjoint(rule.targets):
                continue
            for source in rule.sources:
                if source == "outside":
                    outside[rule.verdict] += rule.ports
                for prefix in _prefixes(source, network, receiver, peers):
                    flows[rule.verdict] += [Flow(prefix, *port) for port in rule.ports]
    closed = [
        interface
        for network, interface in receiver.interfaces.items()
        if _default(own, networks.get(network)) == "deny"
    ]
    return PolicyWant(
        allow=disjoint(flows["allow"]),
        deny=disjoint(flows["deny"]),
        outside_allow=_joined(outside["allow"]),
        outside_deny=_joined(outside["deny"]),
        inner=tuple(dict.fromkeys(each for subnets in receiver.subnets.values() for each in subnets)),
        closed=tuple(closed),
    )


def _default(own: Policy | None, network: Policy | None) -> Verdict:
    said = (each.default for each in (own, network) if each is not None)
    return next((each for each in said if each is not None), "allow")


def _prefixes(
    source: str, network: str | None, receiver: Receiver, peers: Sequence[Peer]
) -> Iterator[Prefix]:
    """The addresses a word stands for. `network`: the one whose policy says it (None: the container's own)."""
    places = [network] if network is not None else list(receiver.subnets)
    if source == "any":
        yield from (ip_network("0.0.0.0/0"), ip_network("::/0"))
    elif source == "host":
        for place in places:
            yield from (ip_network(each) for each in receiver.gateways.get(place, ()))
    elif source.startswith("network:"):
        yield from receiver.subnets.get(source.removeprefix("network:"), ())
    elif "/" in source:
        yield ip_network(source)
    elif source != "outside":
        for peer in peers:
            if peer.network in places and source in peer.names:
                yield from (ip_network(each) for each in peer.addresses)


def disjoint(flows: Iterable[Flow]) -> tuple[Flow, ...]:
    """The same packets by flows none of which meets another: a set of the kernel's refuses overlapping elements."""
    by_kind: dict[tuple[str, int], list[Flow]] = {}
    for each in flows:
        by_kind.setdefault((each.protocol, each.prefix.version), []).append(each)
    found: list[Flow] = []
    for (protocol, _), own in sorted(by_kind.items()):
        cuts = sorted({edge for each in own for edge in (each.low, each.high + 1)})
        open_: dict[Prefix, int] = {}
        for low in cuts:
            # Between two cuts nothing begins or ends.
            prefixes = set(_outermost(each.prefix for each in own if each.low <= low <= each.high))
            for prefix in [each for each in open_ if each not in prefixes]:
                found.append(Flow(prefix, protocol, open_.pop(prefix), low - 1))
            for prefix in prefixes:
                open_.setdefault(prefix, low)
    return tuple(sorted(found, key=lambda each: (each.protocol, each.prefix.version, each.prefix, each.low)))


def _outermost(prefixes: Iterable[Prefix]) -> Iterator[Prefix]:
    """Without those that lie in another one. Neighbours stay apart: a peer that goes takes one element along."""
    last: Prefix | None = None
    for each in sorted(set(prefixes)):
        if last is None or not each.subnet_of(last):  # type: ignore[arg-type]
            last = each
            yield each


def _joined(ports: Iterable[tuple[str, int, int]]) -> tuple[tuple[str, int, int], ...]:
    """Ranges that do not meet."""
    found: list[tuple[str, int, int]] = []
    for protocol, low, high in sorted(ports):
        if found and found[-1][0] == protocol and low <= found[-1][2] + 1:
            found[-1] = (protocol, found[-1][1], max(high, found[-1][2]))
        else:
            found.append((protocol, low, high))
    return tuple(found)


# In the kernel's words

TABLE_TEXT = """\
table inet dari {
	set allow4 {
		type ipv4_addr . inet_proto . inet_service
		flags interval
	}

	set allow6 {
		type ipv6_addr . inet_proto . inet_service
		flags interval
	}

	set deny4 {
		type ipv4_addr . inet_proto . inet_service
		flags interval
	}

	set deny6 {
		type ipv6_addr . inet_proto . inet_service
		flags interval
	}

	set inner4 {
		type ipv4_addr
		flags interval
	}

	set inner6 {
		type ipv6_addr
		flags interval
	}

	set outside_allow {
		type inet_proto . inet_service
		flags interval
	}

	set outside_deny {
		type inet_proto . inet_service
		flags interval
	}

	set closed {
		type ifname
	}

	chain input {
		type filter hook input priority filter; policy accept;
		iifname "lo" accept
		ct state established,related accept
		icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept
		ip saddr . meta l4proto . th dport @deny4 goto refuse
		ip6 saddr . meta l4proto . th dport @deny6 goto refuse
		ip saddr != @inner4 meta l4proto . th dport @outside_deny goto refuse
		ip6 saddr != @inner6 meta l4proto . th dport @outside_deny goto refuse
		ip saddr . meta l4proto . th dport @allow4 accept
		ip6 saddr . meta l4proto . th dport @allow6 accept
		ip saddr != @inner4 meta l4proto . th dport @outside_allow accept
		ip6 saddr != @inner6 meta l4proto . th dport @outside_allow accept
		iifname @closed goto refuse
	}

	chain refuse {
		reject with icmpx admin-prohibited
	}
}
"""
"""The table of a sandbox with a policy. It never changes: peers that come and go are elements."""


def objects(netns: str, policy: PolicyWant) -> Iterator[KernelObject]:
    """The table and its elements in the receiver's namespace."""
    yield NftTable(netns, FAMILY, TABLE, TABLE_TEXT)
    for verdict, flows in (("allow", policy.allow), ("deny", policy.deny)):
        for flow in flows:
            text = f"{_shown(flow.prefix)} . {flow.protocol} . {_range(flow.low, flow.high)}"
            yield _element(netns, f"{verdict}{flow.prefix.version}", text)
    for verdict, ports in (("allow", policy.outside_allow), ("deny", policy.outside_deny)):
        for protocol, low, high in ports:
            yield _element(netns, f"outside_{verdict}", f"{protocol} . {_range(low, high)}")
    for prefix in policy.inner:
        yield _element(netns, f"inner{prefix.version}", _shown(prefix))
    for interface in policy.closed:
        yield _element(netns, "closed", f'"{interface}"')


def _element(netns: str, set_name: str, text: str) -> NftElement:
    return NftElement(netns, FAMILY, TABLE, set_name, text)


def _shown(prefix: Prefix) -> str:
    """As nft lists it: a single address has no length."""
    return str(prefix.network_address) if prefix.prefixlen == prefix.max_prefixlen else str(prefix)


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low}-{high}"
