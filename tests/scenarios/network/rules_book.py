"""The firewall's rules book: docs/reference/firewall.md, made of what a real daemon has put into the kernel.

`page` is pure; test_rules_book.py drives the daemon and compares. A rule, chain or set without words fails, so none
stays unexplained.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from dari.net.firewall import DOCKER_USER_RULE_TEXT

PATH = Path(__file__).parents[3] / "docs" / "reference" / "firewall.md"
NOTE = (
    "<!-- Written by tests/scenarios/network/test_rules_book.py from the rules of a real daemon: "
    "DARI_GOLDEN=1 rewrites it. -->"
)


class Step(NamedTuple):
    """One thing done by a user, in words and as a command, and the elements it added: by set."""

    words: str
    command: str
    added: Mapping[str, frozenset[str]]


SETS = {
    "bridges": "The bridges of dari's networks.",
    "internal": "Those of internal networks.",
    "pairs": "From which bridge into which: each network with itself.",
    "apart": "Bridges whose containers must not talk with each other (`enable_icc=false`).",
    "trusted": "Interface of the host and bridge: `com.docker.network.bridge.trusted_host_interfaces`.",
    "subnets4": "All subnets of dari's networks.",
    "subnets6": "The same for IPv6.",
    "masquerade4": "Subnets whose packets leave with the host's address.",
    "masquerade6": "The same for IPv6.",
    "snat4": "Subnets whose packets leave with an address of their own, and that address.",
    "snat6": "The same for IPv6.",
    "unprotected4": "Subnets in which every port is open (gateway mode nat-unprotected).",
    "unprotected6": "The same for IPv6.",
    "routed4": "Subnets that are not translated (gateway mode routed).",
    "routed6": "The same for IPv6.",
    "direct4": "Subnets whose containers are asked at their own addresses.",
    "direct6": "The same for IPv6.",
    "links4": "Who may ask whom by a link (`--link`) on the default bridge of `darid --icc=false`: the asker, "
    "the other one, protocol and exposed port.",
    "open4": "Container's address, protocol and published ports, for those who ask there.",
    "open6": "The same for IPv6.",
    "publish4": "Protocol, address of the host and port, and the container's address and port.",
    "publish_any4": "The same for ports published at `0.0.0.0`.",
    "publish6": "The same for IPv6.",
    "publish_any6": "The same for ports published at `::`.",
    "publish_range4": "Ranges of ports; the value's two ports are what the kernel counts with, see the rule.",
    "publish_range6": "The same for IPv6.",
}

# Why each rule of the host's table is there, by its text; a rule without words here fails, so none stays unexplained.
CHAINS = {
    "raw": "First of all, before destinations change.",
    "prerouting": "Packets that arrive from outside or from containers.",
    "output": "Packets the host itself sends.",
    "publish": "Published ports. Which is published is an element of a map; a packet that is in no map goes on "
    "unchanged.",
    "postrouting": "Source addresses.",
    "enter": "Packets on their way into one of dari's bridges. All others keep their source.",
    "forward": "Isolation. Only traffic that leaves or enters one of dari's bridges is judged. Ten before `filter`, so "
    "that it comes before the usual forward chains of an administrator.",
    "to_bridge": "Into a network.",
    "linked": "Between containers that are kept apart.",
    "direct": "To a container's own address.",
    "from_bridge": "Out of a network, to anything that is not a dari bridge.",
    "allow": "Accepted, and marked, so that a later chain can let it through.",
}
RULES = {
    'iifname != "lo" ip daddr 127.0.0.0/8 drop': "Nobody outside reaches the host's loopback addresses, though "
    "`route_localnet` is on for the bridges.",
    "fib daddr type local goto publish": "Only packets to an address of this host can be for a published port.",
    "dnat ip to meta l4proto . ip daddr . th dport map @publish4": "Ports published on one IPv4 address.",
    "meta nfproto ipv4 dnat ip to meta l4proto . th dport map @publish_any4": "Ports published on all (`0.0.0.0`).",
    "ip6 daddr ::1 return": "The kernel cannot route `::1` away from the loopback: there the relay answers.",
    "dnat ip6 to meta l4proto . ip6 daddr . th dport map @publish6": "Ports published on one IPv6 address.",
    "meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @publish_any6": "Ports published on `::`.",
    "dnat ip to meta l4proto . ip daddr . th dport map @publish_range4": "Ranges of ports, one element each. The "
    "rule has a flag that nft does not show (NF_NAT_RANGE_PROTO_OFFSET): of the value's two ports, low and high, the "
    "container's port is low + host port mod (high - low + 1).",
    "dnat ip6 to meta l4proto . ip6 daddr . th dport map @publish_range6": "The same for IPv6.",
    "oifname @bridges goto enter": "What goes to a bridge has rules of its own.",
    "snat ip to ip saddr map @snat4": "Networks with an address of their own for what leaves "
    "(`com.docker.network.host_ipv4`).",
    "snat ip6 to ip6 saddr map @snat6": "The same for IPv6 (`host_ipv6`).",
    "ip saddr @masquerade4 masquerade": "Leaving dari's bridges, a container has the host's IPv4 address.",
    "ip6 saddr @masquerade6 masquerade": "The same for IPv6.",
    "ip saddr 127.0.0.0/8 masquerade": "The host asked at 127.0.0.1: the answer could not find back to 127/8.",
    "ct status dnat ip saddr @subnets4 masquerade": "A container asked a published port: its neighbour must answer by "
    "way of the host, or the asker would not know the answer.",
    "ct status dnat ip6 saddr @subnets6 masquerade": "The same for IPv6.",
    "oifname @bridges goto to_bridge": "Into a network of dari's.",
    "iifname @bridges goto from_bridge": "Out of one.",
    "ct state established,related goto allow": "Answers pass.",
    "iifname . oifname @pairs goto allow": "Which bridge may speak to which: a network with itself, unless "
    "`com.docker.network.bridge.enable_icc=false`.",
    "iifname @internal drop": "Nothing leaves an internal network.",
    "oifname @internal drop": "Nothing enters an internal network.",
    "ct status dnat goto allow": "A published port is open to everybody.",
    "iifname . oifname @apart goto linked": "Containers of one network that must not talk do not by way of the host "
    "either, unless there is a link.",
    "ip saddr . ip daddr . meta l4proto . th dport @links4 goto allow": "What links open. Ports of such a bridge are "
    "isolated: the host answers for the others (`proxy_arp_pvlan`) and passes on what this rule lets through.",
    "iifname . oifname @trusted goto direct": "From `com.docker.network.bridge.trusted_host_interfaces`.",
    "ip daddr @direct4 goto direct": "Networks whose containers are asked at their own addresses: gateway modes routed "
    "and nat-unprotected, or `darid --allow-direct-routing`.",
    "ip6 daddr @direct6 goto direct": "The same for IPv6.",
    "drop": "Everything else stays out: no container is reached at its own address from another network or outside.",
    "ip daddr @unprotected4 goto allow": "All ports (gateway mode nat-unprotected).",
    "ip6 daddr @unprotected6 goto allow": "The same for IPv6.",
    "ip daddr @routed4 meta l4proto icmp goto allow": "Errors and pings, as there is no translation (routed).",
    "ip6 daddr @routed6 meta l4proto ipv6-icmp goto allow": "The same for IPv6.",
    "ip daddr . meta l4proto . th dport @open4 goto allow": "Published ports, at the container's address and port.",
    "ip6 daddr . meta l4proto . th dport @open6 goto allow": "The same for IPv6.",
    'oifname "docker0" accept': "Towards dockerd's default bridge: dockerd's rules decide, so the packet gets no mark.",
    'oifname "br-*" accept': "The same for its other bridges.",
    "goto allow": "The rest may leave.",
    "meta mark set meta mark | 0x08000000 accept": "One bit is added; all other bits of the mark are left alone.",
}


def chains(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    name = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("chain "):
            name = line.split()[1]
            found[name] = []
        elif line == "}":
            name = ""
        elif name and line:
            found[name].append(line)
    return found


def sets(listing: str) -> dict[str, frozenset[str]]:
    """The elements of each set and map in a table's listing."""
    found = {}
    for match in re.finditer(r"^\t(?:set|map) (\w+) \{(.*?)^\t\}", listing, re.MULTILINE | re.DOTALL):
        elements = re.search(r"elements = \{(.*?)\}", match[2], re.DOTALL)
        items = elements[1].split(",") if elements else []
        found[match[1]] = frozenset(" ".join(each.split()) for each in items)
    return found


def without_elements(listing: str) -> str:
    return re.sub(r"^\t\telements = \{.*?\}\n", "", listing, flags=re.MULTILINE | re.DOTALL)


def table(heads: list[str], rows: Iterable[list[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join(
        [*lines, *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)]
    )


def chain_pages(text: str) -> list[str]:
    out = []
    used: set[str] = set()
    for name, rules in chains(text).items():
        assert name in CHAINS, f"no words about chain {name}: add them to CHAINS"
        rows = []
        for rule in rules:
            if rule.startswith("type "):
                rows.append([f"`{rule}`", "Where the kernel calls it; what no rule decides passes."])
                continue
            assert rule in RULES, f"no words about the rule {rule!r} of chain {name}: add them to RULES"
            used.add(rule)
            rows.append([f"`{rule}`", RULES[rule]])
        out += [f"### {name}", CHAINS[name], table(["rule", "why"], rows)]
    assert used == RULES.keys(), f"rules that are no more: {RULES.keys() - used}: take them out of RULES"
    return out


def set_page(text: str) -> str:
    names = sets(text)
    assert names.keys() == SETS.keys(), f"words and sets differ: {names.keys() ^ SETS.keys()}"
    return table(["set or map", "what is in it"], [[f"`{name}`", SETS[name]] for name in names])


def step_pages(steps: Iterable[Step]) -> list[str]:
    out = []
    for each in steps:
        added = "\n".join(
            f"{name:<15}{{ {', '.join(sorted(items))} }}" for name, items in sorted(each.added.items())
        )
        out += [f"### {each.words}", f"```console\n# {each.command}\n{added or '(nothing)'}\n```"]
    return out


def page(listing: str, sandbox_listing: str, policy_listing: str, steps: Iterable[Step]) -> str:
    """The whole page; `listing` is `nft -s list table inet dari`, `policy_listing` the same within a sandbox."""
    text = without_elements(listing)
    out = [
        NOTE,
        "# The firewall, rule by rule",
        "On the host dari has one nftables table, `inet dari`, that never changes after it is made. A network, a "
        "container or a published port is an element of one of its sets and maps. dari touches no table of another "
        "name, except for one rule in `DOCKER-USER` where dockerd runs too. Look at it with "
        "`nft list table inet dari`. Everything on this page but the explanations was read back from the kernel "
        "under a running darid.",
        "## The host's table",
        f"```\n{text.rstrip()}\n```",
        "## Sets and maps",
        set_page(text),
        "## Chains",
        *chain_pages(text),
        "## What each kind of network and port adds",
        "In this order, on one machine. Only what came with the step is shown.",
        *step_pages(steps),
        "## A sandbox's table",
        "Each container's network namespace has a small table of its own. It writes the port `dari-dns` answers on "
        "into questions at 127.0.0.11:53, and port 53 into the answers. Nothing is translated, so the kernel does not "
        "track the container's connections. Answers change before tracking would see them, questions after it and "
        "after all rules of the container's own, so that rules in there that do track (Docker in Docker, a VPN) see a "
        "conversation with port 53. The long rule does the same in the kernel's word that nobody listens; its last "
        "part keeps the checksum right.",
        f"```\n{sandbox_listing.rstrip()}\n```",
        "## The table of a sandbox with a policy",
        "Where a container or one of its networks has a [policy](../how-to/say-who-may-call-whom.md), its sandbox has "
        "a second table. It never changes; who may call is elements: `allow` and `deny` by address, protocol and "
        "port, `outside_…` for those beyond the subnets in `inner`, and in `closed` the interfaces by which only what "
        "is allowed comes in. Refusing comes before allowing. The container itself, answers, and neighbour discovery "
        'pass first. Here of a container with the label `dari.policy="deny; allow web 5432"`:',
        f"```\n{policy_listing.rstrip()}\n```",
        "## Rules of your own",
        "Put them into a table of your own: dari neither reads nor changes it. To restrict what dari lets through, "
        "hook in at `forward` (any priority; a `drop` anywhere is final, an `accept` of dari's is not). Published "
        "ports have the container's address and port there already, as destinations change before; match the port "
        "that was asked for with `ct original proto-dst`:",
        "```\ntable inet mine {\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n"
        "\t\tct status dnat meta l4proto tcp ct original proto-dst 8080 ip saddr != 192.0.2.0/24 drop\n\t}\n}\n```",
        "Keep it in a file of `/etc/nftables.d` or of your firewall's, loaded at start: order does not matter, it may "
        "come before or after dari's. To let through what a forward chain of yours with policy drop would stop, accept "
        "dari's mark in it (at priority `filter` or later, as dari marks at -10): "
        "`meta mark & 0x08000000 == 0x08000000 accept`. Where dockerd has made its chain `DOCKER-USER`, dari puts "
        "this rule in it by itself:",
        f"```\n{DOCKER_USER_RULE_TEXT}\n```",
        "Rules you put into `inet dari` itself are taken out within tenths of a second, as darid hears of every change "
        "there. Firewalls that would drop what dari accepts, and what to do: "
        "[beside other firewalls](../how-to/firewalls.md).",
    ]
    return "\n\n".join(out) + "\n"
