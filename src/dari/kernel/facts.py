"""Facts of the host's own network: routes, addresses, what a dockerd beside us has set.

Read on demand, never changed. Must not know: what a driver concludes.
"""

from __future__ import annotations

import os
import socket

from dari.kernel import nfnetlink, rtnetlink, sysctl
from dari.kernel.visit import Visit
from dari.net.facts import HostFacts
from dari.net.state import Interface, Prefix

_DOCKER_USER = "DOCKER-USER"
_DEFAULT_PORTS = (32768, 60999)


def facts(host: Visit) -> HostFacts:
    """Raises NetlinkError."""
    chains = nfnetlink.chains(host.netfilter)
    users = {each.family for each in chains if each.table == "filter" and each.name == _DOCKER_USER}
    return HostFacts(
        routes=_routes(host),
        addresses=_addresses(host),
        has_ipv6=os.path.isdir("/proc/sys/net/ipv6"),
        has_docker_user_chain=nfnetlink.IPV4 in users,
        has_docker_user_chain6=nfnetlink.FAMILIES["ip6"] in users,
        is_forward_dropped=any(
            each.hook == nfnetlink.NF_INET_FORWARD
            and each.is_dropping
            and each.family in (nfnetlink.IPV4, nfnetlink.INET)
            and each.table != "dari"
            for each in chains
        ),
        ephemeral_ports=_ephemeral_ports(),
        kernel_release=os.uname().release,
    )


def _routes(host: Visit) -> tuple[Prefix, ...]:
    found: set[Prefix] = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        for answer in host.route.dump(rtnetlink.dump_routes(family)):
            each = rtnetlink.read_route(answer)
            if each is None or each.table != rtnetlink.MAIN_TABLE or each.to.prefixlen == 0:
                continue
            if not each.to.is_link_local:
                found.add(each.to)
    return tuple(sorted(found, key=lambda each: (each.version, int(each.network_address), each.prefixlen)))


def _addresses(host: Visit) -> tuple[Interface, ...]:
    dump = host.route.dump(rtnetlink.dump_addresses())
    return tuple(rtnetlink.read_address(answer).address for answer in dump)


def _ephemeral_ports() -> tuple[int, int]:
    words = (sysctl.read("net/ipv4/ip_local_port_range") or "").split()
    return (int(words[0]), int(words[1])) if len(words) == 2 else _DEFAULT_PORTS
