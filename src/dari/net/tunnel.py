"""The encrypted way between nodes: names and numbers of the WireGuard interface under encrypted networks. Pure.

One interface on each node, in a network namespace in which nothing else is; its packets leave from the host's. The
VXLAN interfaces of encrypted networks send from that namespace too, so that there is no other way for them than through
it.
Must not know: keys, who is a peer. See docs/decisions/0014.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Interface, ip_network

from dari.model.errors import Forbidden
from dari.net.scope import Key
from dari.net.state import Address

NETNS = "wireguard"
"""The namespace's name in dari's folder; sandboxes are named by ids."""

LINK = "wg0"
MARK = "dari-wg"

DEFAULT_PORT = 51829
"""Near WireGuard's customary 51820, which an administrator's own tunnel has as a rule."""

PREFIX = ip_network("100.64.0.0/10")
"""Where nodes' addresses in the tunnel are from. Only that namespace has them: they clash with nothing on the host."""

OVERHEAD = {4: 60, 6: 80}
"""Of a packet on the underlay, by its IP version: IP, UDP, and WireGuard's 32 bytes (header and tag)."""


def link_mtu(underlays: Iterable[int], address: Address) -> int:
    """What fits into the smallest underlay's packets; `address` is this node's there."""
    return int(min(underlays, default=1500)) - OVERHEAD[address.version]


def interface(address: Address) -> IPv4Interface:
    """A node's address in the tunnel, with the network all of them are in."""
    return IPv4Interface(f"{address}/{PREFIX.prefixlen}")


def pick_address(node_id: str, taken: Collection[str]) -> str:
    """An address that nobody has claimed, for one node always the same where it can be. Raises Forbidden."""
    count = PREFIX.num_addresses - 2
    start = int.from_bytes(blake2b(node_id.encode(), digest_size=8).digest(), "big") % count
    if len(taken) < count:
        for step in range(count):
            address = str(IPv4Address(int(PREFIX.network_address) + 1 + (start + step) % count))
            if address not in taken:
                return address
    raise Forbidden(
        "every address of the encrypted tunnel is another node's: remove nodes that are gone (dari node rm)"
    )


def is_tunnel(key: Key) -> bool:
    """Whether a key is of the tunnel: all encrypted networks share it."""
    return len(key) > 1 and key[1] == NETNS
