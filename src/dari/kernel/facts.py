"""Facts of the host's own network: routes, addresses, what a dockerd beside us has set.

Read on demand, never changed. Must not know: what a driver concludes.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence

from dari.kernel import nfnetlink, rtnetlink, sysctl
from dari.kernel.marks import mark_of
from dari.kernel.netlink import attributes, text_of
from dari.kernel.nfnetlink import BaseChain
from dari.kernel.visit import Visit
from dari.net.facts import HostFacts
from dari.net.firewall import MARK
from dari.net.publish import TABLE
from dari.net.state import Interface, Prefix

_DOCKER_USER = "DOCKER-USER"
_FIREWALLD = "firewalld"
# Attributes of nf_tables' expressions.
_BITWISE_MASK, _DATA_VALUE, _MATCH_NAME, _MATCH_INFO = 4, 1, 1, 3
_FAMILY_NAMES = {number: name for name, number in nfnetlink.FAMILIES.items()}
_DEFAULT_PORTS = (32768, 60999)


def facts(host: Visit, names: Iterable[str] = ()) -> HostFacts:
    """`names`: the interfaces somebody cares about. Raises NetlinkError."""
    chains = nfnetlink.chains(host.netfilter)
    users = {each.family for each in chains if each.table == "filter" and each.name == _DOCKER_USER}
    return HostFacts(
        routes=_routes(host),
        addresses=_addresses(host),
        has_ipv6=os.path.isdir("/proc/sys/net/ipv6"),
        has_docker_user_chain=nfnetlink.IPV4 in users,
        has_docker_user_chain6=nfnetlink.FAMILIES["ip6"] in users,
        is_forward_dropped=any(each.is_dropping for each in _forwarding(chains)),
        forward_droppers=tuple(_droppers(host, chains)),
        ephemeral_ports=_ephemeral_ports(),
        kernel_release=os.uname().release,
        links=_links(host, names),
    )


def _forwarding(chains: Iterable[BaseChain]) -> list[BaseChain]:
    """Others' chains at IPv4's forward hook."""
    return [
        each
        for each in chains
        if each.hook == nfnetlink.NF_INET_FORWARD
        and each.family in (nfnetlink.IPV4, nfnetlink.INET)
        and each.table != TABLE
    ]


def _droppers(host: Visit, chains: Sequence[BaseChain]) -> Iterator[str]:
    """Chains that drop what they do not know, in tables that neither have DOCKER-USER nor know our mark.

    firewalld rejects by its last rule; there a zone named dari says that it knows.
    """
    for each in _forwarding(chains):
        names = {one.name for one in chains if (one.family, one.table) == (each.family, each.table)}
        if each.table == _FIREWALLD:
            is_passing = any(name.endswith("_dari") for name in names)
        else:
            is_passing = (
                not each.is_dropping or _DOCKER_USER in names or _knows_mark(host, each.family, each.table)
            )
        if not is_passing:
            yield f"{_FAMILY_NAMES[each.family]} {each.table} {each.name}"


def _knows_mark(host: Visit, family: int, table: str) -> bool:
    """Whether a rule of the table looks at our bit of a packet's mark: as nft writes it, or iptables."""
    mark = struct.pack("=I", MARK)
    for name, values in nfnetlink.expressions(nfnetlink.dump_rules(host.netfilter, family, table)):
        if name == "bitwise" and attributes(values.get(_BITWISE_MASK, b"")).get(_DATA_VALUE) == mark:
            return True
        # struct xt_mark_mtinfo1: mark, mask.
        is_mark = name == "match" and text_of(values.get(_MATCH_NAME, b"")) == "mark"
        if is_mark and values.get(_MATCH_INFO, b"")[4:8] == mark:
            return True
    return False


def _routes(host: Visit) -> tuple[Prefix, ...]:
    found: set[Prefix] = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        for answer in host.route.dump(rtnetlink.dump_routes(family)):
            each = rtnetlink.read_route(answer) if rtnetlink.is_of_main_table(answer) else None
            if each is None or each.to.prefixlen == 0:
                continue
            if not each.to.is_link_local:
                found.add(each.to)
    return tuple(sorted(found, key=lambda each: (each.version, int(each.network_address), each.prefixlen)))


def _links(host: Visit, names: Iterable[str]) -> dict[str, int]:
    """Those that exist and have no mark of dari's. The host may have thousands, so each is asked for by name."""
    asked = sorted(name for name in set(names) if name)
    answers, _ = host.route.request([rtnetlink.get_link(name) for name in asked])
    links = [rtnetlink.read_link(answer[0]) for answer in answers if answer]
    return {link.name: link.mtu for link in links if link.name in asked and not mark_of(link)}


def _addresses(host: Visit) -> tuple[Interface, ...]:
    dump = host.route.dump(rtnetlink.dump_addresses())
    return tuple(rtnetlink.read_address(answer).address for answer in dump)


def _ephemeral_ports() -> tuple[int, int]:
    words = (sysctl.read("net/ipv4/ip_local_port_range") or "").split()
    return (int(words[0]), int(words[1])) if len(words) == 2 else _DEFAULT_PORTS
