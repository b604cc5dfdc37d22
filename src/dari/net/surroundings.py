"""Judges a survey: what surrounds dari's objects and keeps packets from where they should go.

Pure: wanted state and survey in, findings with their repairs out. What is on dari's own interfaces and contradicts
what dari knows (an address's owner, a port's state) is ours to mend; what others put beside them is named only.
Must not know: how a survey is made, how repairs are carried out. Next: wire.py, routes.py, drops.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from dari.model.finding import Finding, Severity
from dari.net import drops, routes, wire
from dari.net.judged import FIX, Judged, Truth
from dari.net.names import Names
from dari.net.state import HOST, Bridge, KernelState, Sysctl, WireGuardPeer
from dari.net.survey import ForgetConnection, PutSysctl, Survey
from dari.net.text import endpoint_text

# A WireGuard message that asks for a session.
_INITIATION_BYTES = 148
# What a container may ask of the host itself is the administrator's to say.
_SEVERITIES: dict[str, Severity] = {"input": "warning", "output": "warning"}
_UNSEEN_ADVICE = "tc qdisc show dev {0}; tc filter show dev {0} ingress; bpftool net show dev {0}"


def sysctl_paths(wanted: KernelState) -> list[str]:
    """Those of the host whose value decides about dari's bridges without being wanted by a network."""
    bridges = [each.name for each in wanted if isinstance(each, Bridge)]
    paths = [
        "net/bridge/bridge-nf-call-iptables",
        "net/ipv4/conf/all/rp_filter",
        "net/ipv4/conf/all/arp_ignore",
        "net/netfilter/nf_conntrack_count",
        "net/netfilter/nf_conntrack_max",
    ]
    for bridge in bridges:
        paths += [f"net/ipv4/conf/{bridge}/{name}" for name in ("forwarding", "arp_ignore")]
        paths.append(f"net/ipv6/conf/{bridge}/forwarding")
    return paths


def judge(
    wanted: KernelState, survey: Survey, names: Names, known: frozenset[tuple[str, str]]
) -> list[Judged]:
    """`known`: (namespace, interface) that the plan changes already; what follows from that is not told again."""
    truth = Truth.of(wanted)
    return [
        *wire.neighbours(survey, truth, names),
        *wire.fdb(survey, truth, names),
        *wire.ports(survey, truth, names, known),
        *wire.addresses(survey, truth, names),
        *wire.answers(survey, truth, names, known),
        *routes.kernel_routes(wanted, survey, names, known),
        *routes.foreign_routes(survey, truth, names),
        *routes.rules(survey, names),
        *_unseen(survey, truth, names),
        *_handshakes(wanted, survey, names),
        *_sysctls(wanted, survey, names),
        *_stale(survey, names),
        *_firewalls(survey, truth, names),
    ]


def _unseen(survey: Survey, truth: Truth, names: Names) -> Iterator[Judged]:
    for each in survey.unseen:
        is_ours = (each.netns, each.link) in truth.segments or (
            each.netns == HOST and each.link in truth.ports
        )
        if is_ours:
            yield Judged(
                Finding(
                    "link.shaped",
                    "warning",
                    names.of_link(each.netns, each.link),
                    f"{each.what} on {each.link} may hold or drop packets, and cannot be looked into",
                    "somebody other than dari put it there",
                    _UNSEEN_ADVICE.format(each.link),
                )
            )


def _handshakes(wanted: KernelState, survey: Survey, names: Names) -> Iterator[Judged]:
    """Peers that are sent to and have never answered. The first question is repeated after five seconds."""
    peers = {each.public_key: each for each in wanted if isinstance(each, WireGuardPeer)}
    for each in survey.handshakes:
        peer = peers.get(each.public_key)
        if peer is None or each.has_answered or each.sent < 2 * _INITIATION_BYTES:
            continue
        yield Judged(
            Finding(
                "encryption.silent",
                "warning",
                names.owner(peer),
                f"it has never answered what the encrypted tunnel sends to {endpoint_text(peer)}",
                "something between the hosts takes UDP packets to that port, or the node has another key by now",
                "let that UDP port pass, there and back; dari explain names a firewall of either host",
            )
        )


def _sysctls(wanted: KernelState, survey: Survey, names: Names) -> Iterator[Judged]:
    values = {path: value for (netns, path), value in survey.sysctls.items() if netns == HOST}
    forwarding = {
        4: ("sysctl", HOST, "net/ipv4/ip_forward"),
        6: ("sysctl", HOST, "net/ipv6/conf/all/forwarding"),
    }
    for each in wanted:
        if not isinstance(each, Bridge):
            continue
        checks = [(f"net/ipv4/conf/{each.name}/arp_ignore", "0")]
        for version, key in forwarding.items():
            # The general switch sets all of them, so where that one is off it is told of alone.
            general = wanted.objects.get(key)
            if isinstance(general, Sysctl):
                checks.append((f"net/ipv{version}/conf/{each.name}/forwarding", "1"))
        for path, want in checks:
            value = values.get(path, want)
            if value == want or (path.endswith("arp_ignore") and value in ("1", "2", "3")):
                continue
            repair = PutSysctl(HOST, path, want)
            yield Judged(
                Finding(
                    "sysctl.changed",
                    "error",
                    names.of_link(HOST, each.name),
                    f"{path} is {value}, wanted is {want}",
                    "somebody other than dari changed it",
                    FIX,
                    True,
                    (str(repair),),
                ),
                repair,
            )


def _stale(survey: Survey, names: Names) -> Iterator[Judged]:
    for each in survey.stale:
        repair = ForgetConnection(each)
        owner = names.of_address(each.answers[0]) or "host"
        yield Judged(
            Finding(
                "conntrack.stale",
                "warning",
                owner,
                f"a {each.protocol} connection of {each.source} to {each.asked[0]} port {each.asked[1]} is still "
                f"led to {each.answers[0]} port {each.answers[1]}, where nothing is published any more",
                "the kernel keeps what it once decided while packets come",
                FIX,
                True,
                (str(repair),),
            ),
            repair,
        )


def _firewalls(survey: Survey, truth: Truth, names: Names) -> Iterator[Judged]:
    packets = []
    for bridge, subnets in truth.subnets.items():
        ports = [each.name for each in truth.ports.values() if each.master == bridge]
        for is_entering in (False, True):
            packets.append(
                drops.Packet(
                    names.network(HOST, bridge),
                    is_entering,
                    frozenset((bridge, *ports)),
                    tuple(dict.fromkeys(subnets)),
                )
            )
    for table in survey.tables:
        if table.netns == HOST:
            found = drops.drops(table.family, table.name, table.text, packets)
        else:
            own = drops.Packet("", False, frozenset(), ())
            found = drops.drops(table.family, table.name, table.text, [own], is_sandbox=True)
        for drop in found:
            networks = [f"network {each}" for each in drop.networks if each]
            if table.netns != HOST:
                place, whose = names.container(table.netns), "its packets"
            else:
                place = names.named_in(drop.rule) or (networks[0] if len(networks) == 1 else "host")
                whose = "packets of " + ", ".join(networks) if place == "host" else "its packets"
            severity: Severity = "note" if table.netns != HOST else _SEVERITIES.get(drop.hook, "error")
            handle = f" handle {drop.handle}" if drop.handle else ""
            yield Judged(
                Finding(
                    "rules.foreign-drop",
                    severity,
                    place,
                    f"a rule in {drop.chain} (hook {drop.hook}) drops {whose}: {drop.rule}",
                    "a firewall other than dari's",
                    f"nft delete rule {drop.chain}{handle}"
                    if handle
                    else f"nft list table {table.family} {table.name}",
                )
            )
