"""HostFacts: what the host's own network looks like, as far as drivers and address pools care.

Filled by the kernel room, never changed by dari. Must not know: how a fact is found out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dari.net.state import Interface, Prefix


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Facts of the host's namespace at one moment.

    `routes`: every IPv4 and IPv6 destination of the main table, connected ones included, default routes and
    link-local left out, dari's own bridges included (a caller who asks for a pool leaves those out himself).
    `has_docker_user_chain`: nft table `ip filter` has a chain DOCKER-USER; `..6`: `ip6 filter`.
    `is_forward_dropped`: some other IPv4 base chain at the forward hook has policy drop.
    `forward_droppers`: firewalls that will not let through what dari accepts, as `family table chain`.
    `ephemeral_ports`: /proc/sys/net/ipv4/ip_local_port_range, inclusive.
    `links`: interfaces of the host that dari did not make, with their MTUs; only those that were asked about.
    """

    routes: tuple[Prefix, ...] = ()
    addresses: tuple[Interface, ...] = ()
    has_ipv6: bool = True
    has_docker_user_chain: bool = False
    has_docker_user_chain6: bool = False
    is_forward_dropped: bool = False
    forward_droppers: tuple[str, ...] = ()
    ephemeral_ports: tuple[int, int] = (32768, 60999)
    kernel_release: str = ""
    links: Mapping[str, int] = field(default_factory=dict)
