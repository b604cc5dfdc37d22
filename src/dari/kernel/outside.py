"""A place outside of this host, for one probe: a namespace nobody else lives in, behind a link of its own.

Nameless, so that nothing of it is left when the daemon is killed: the kernel ends the namespace with its last
socket, and the link with the namespace. Must not know: what is asked from there.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import time
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network

from dari.kernel import rtnetlink
from dari.kernel.netlink import Netlink
from dari.kernel.netns import Namespaces
from dari.kernel.visit import Visit
from dari.net.packet import OUTSIDE
from dari.net.state import Address, Interface, Prefix

LINK_PREFIX = "dariprobe"
INSIDE_LINK = "wan0"

# For tests between devices (RFC 2544, RFC 5180): nobody's network.
_POOLS: tuple[Prefix, ...] = (IPv4Network("198.18.0.0/15"), IPv6Network("2001:2::/48"))
_LENGTHS = {4: 30, 6: 126}
_CARRIER_SECONDS, _CARRIER_PAUSE = 5.0, 0.002


class Places:
    """The addresses outside would have: (of the host's end, of the far end) by IP version."""

    def __init__(self, taken: Iterable[Prefix], has_ipv6: bool) -> None:
        """Raises LookupError where every place is on the way to somebody (`taken` are the host's routes)."""
        routes = tuple(taken)
        self.pairs: dict[int, tuple[Address, Address]] = {}
        for pool in _POOLS:
            if pool.version == 6 and not has_ipv6:
                continue
            first, second = _free(pool, routes)
            self.pairs[pool.version] = (first, second)

    def far(self, version: int) -> Address | None:
        """The address outside."""
        pair = self.pairs.get(version)
        return pair[1] if pair else None

    def near_ends(self) -> tuple[Interface, ...]:
        """The host's addresses on that link, with their prefixes."""
        return tuple(ip_interface(f"{pair[0]}/{_LENGTHS[version]}") for version, pair in self.pairs.items())

    def near(self, version: int) -> Address | None:
        """The host's own address on that link."""
        pair = self.pairs.get(version)
        return pair[0] if pair else None


def _free(pool: Prefix, routes: tuple[Prefix, ...]) -> tuple[Address, Address]:
    blockers = [each for each in routes if each.version == pool.version and each.prefixlen > 0]
    length = _LENGTHS[pool.version]
    size = 1 << (pool.max_prefixlen - length)
    base = int(pool.network_address)
    # From the end, where a user of the range is least likely.
    last = min(pool.num_addresses // size, 1 << 14)
    for number in range(last - 1, 0, -1):
        found = ip_network((base + number * size, length))
        if not any(found.overlaps(each) for each in blockers):
            return found[1], found[2]
    raise LookupError(f"no place outside: the host has routes for all of {pool}")


class Outside:
    """Make it in a thread that is in the host's namespace. Raises NetlinkError, OSError."""

    def __init__(self, namespaces: Namespaces, places: Places) -> None:
        self.places = places
        self.link = f"{LINK_PREFIX}{secrets.token_hex(3)}"
        with namespaces.apart():
            descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self.visit = Visit(namespaces, OUTSIDE, descriptor)
            self.visit.open(has_netfilter=True)
            _quiet()
        self._sockets: list[socket.socket] = []
        self._host: Netlink | None = None
        try:
            self._host = Netlink()
            self._attach(self._host, descriptor)
        except OSError:
            self.close()
            raise

    def _attach(self, host: Netlink, descriptor: int) -> None:
        mac = f"02:{secrets.token_bytes(5).hex(':')}"
        host.call(rtnetlink.add_veth(self.link, 0, 1500, True, INSIDE_LINK, mac, descriptor))
        near = rtnetlink.read_link(host.call(rtnetlink.get_link(self.link))[0][0]).index
        route = self.visit.route
        route.call(rtnetlink.set_link("lo", is_up=True), rtnetlink.set_link(INSIDE_LINK, is_up=True))
        far = rtnetlink.read_link(route.call(rtnetlink.get_link(INSIDE_LINK))[0][0]).index
        for version, (host_end, far_end) in self.places.pairs.items():
            length = _LENGTHS[version]
            host.call(rtnetlink.add_address(near, ip_interface(f"{host_end}/{length}")))
            route.call(rtnetlink.add_address(far, ip_interface(f"{far_end}/{length}")))
            default: Prefix = IPv4Network("0.0.0.0/0") if version == 4 else IPv6Network("::/0")
            route.call(rtnetlink.add_route(default, host_end, far, 0))
        self._wait_for_carrier(host)

    def _wait_for_carrier(self, host: Netlink) -> None:
        """Until then packets vanish. Raises TimeoutError."""
        deadline = time.monotonic() + _CARRIER_SECONDS
        ends = ((host, self.link), (self.visit.route, INSIDE_LINK))
        while not all(
            rtnetlink.read_link(sock.call(rtnetlink.get_link(name))[0][0]).is_carrying for sock, name in ends
        ):
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, f"link {self.link} does not carry packets")
            time.sleep(_CARRIER_PAUSE)

    def serve(self, protocol: str, version: int, port: int) -> None:
        """Let somebody listen outside; who asks by UDP is answered by `answer`. Raises OSError."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with self.visit.entered():
            made = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._sockets.append(made)
        if version == 6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(("" if version == 4 else "::", port))
        if protocol == "tcp":
            made.listen(64)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        return tuple(self._sockets)

    def answer(self, asked: socket.socket) -> None:
        """Somebody asked one of the sockets: take him, or send back what he sent."""
        try:
            if asked.type == socket.SOCK_STREAM:
                asked.accept()[0].close()
            else:
                data, sender = asked.recvfrom(65536)
                asked.sendto(data or b"outside", sender)
        except OSError:
            # He is gone again; his own end tells him what he needs to know.
            return

    def close(self) -> None:
        """The link goes now, the namespace with its last socket."""
        for each in self._sockets:
            each.close()
        if self._host is not None:
            # Behind: the kernel would find out by itself, only later.
            self._host.request([rtnetlink.delete_link(self.link)])
            self._host.close()
        self.visit.close()


def _quiet() -> None:
    """No IPv6 address the kernel makes by itself, and none that waits for a duplicate to answer."""
    for path, value in (("accept_dad", "0"), ("accept_ra", "0"), ("addr_gen_mode", "1")):
        try:
            with open(f"/proc/sys/net/ipv6/conf/default/{path}", "w", encoding="ascii") as file:
                file.write(value)
        except FileNotFoundError:
            # A kernel without IPv6.
            return
