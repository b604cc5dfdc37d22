"""Whose is this? From names in the kernel to the names users gave.

Must not know: stores, what is wrong with an object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from dari.net import tunnel
from dari.net.state import (
    HOST,
    Addr,
    Address,
    Fdb,
    KernelObject,
    Neighbour,
    Netns,
    NftElement,
    Prefix,
    Route,
    Sysctl,
    WireGuardPeer,
)

_WORD = re.compile(r'[^\s",{}]+')


@dataclass(frozen=True, slots=True)
class Names:
    """`sandboxes`: container by namespace name. `links`: (container or "", network) by (namespace, interface).
    `altnames`: the same by dari's mark. `addresses`: container by address. `subnets`: network by prefix.
    `peers`: other nodes by their public key."""

    sandboxes: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    altnames: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    addresses: Mapping[Address, str] = field(default_factory=dict)
    subnets: Mapping[Prefix, str] = field(default_factory=dict)
    peers: Mapping[str, str] = field(default_factory=dict)

    def container(self, netns: str) -> str:
        """`container web`; a sandbox of nobody by its own name."""
        if netns == tunnel.NETNS:
            return "encrypted tunnel"
        name = self.sandboxes.get(netns)
        return f"container {name}" if name else f"sandbox {netns[:12]}"

    def place(self, netns: str) -> str:
        return "host" if netns == HOST else self.container(netns)

    def network(self, netns: str, link: str) -> str:
        """The network an interface belongs to; empty where it is none of dari's."""
        return self.links.get((netns, link), ("", ""))[1]

    def owner(self, each: KernelObject) -> str:
        """`network web`, `container db`, `node two` or `host`."""
        altname = getattr(each, "altname", "")
        if altname in self.altnames:
            return _shown(self.altnames[altname])
        peer_netns = getattr(each, "peer_netns", None)
        if peer_netns:
            return self.container(peer_netns)
        if isinstance(each, WireGuardPeer) and each.public_key in self.peers:
            return f"node {self.peers[each.public_key]}"
        netns = each.name if isinstance(each, Netns) else str(getattr(each, "netns", HOST))
        if netns != HOST:
            return self.container(netns)
        if isinstance(each, NftElement):
            return self._of_text(f"{each.element} {each.value}")
        if isinstance(each, Sysctl):
            return self._of_text(each.path.replace("/", " "))
        if isinstance(each, Addr | Route | Fdb | Neighbour):
            return self.of_link(HOST, each.link)
        return self.of_link(HOST, str(getattr(each, "name", "")))

    def of_link(self, netns: str, link: str) -> str:
        found = self.links.get((netns, link))
        return _shown(found) if found is not None else self.place(netns)

    def of_address(self, address: Address) -> str:
        """`container db`, the network it would belong to, or "" where it is none of ours."""
        if address in self.addresses:
            return f"container {self.addresses[address]}"
        for prefix, name in self.subnets.items():
            if prefix.version == address.version and address in prefix:
                return f"network {name}"
        return ""

    def _of_text(self, text: str) -> str:
        """The owner of the first thing a text names; a container before its network."""
        return next(self._named(text), "host")

    def _named(self, text: str) -> Iterator[str]:
        words = _WORD.findall(text)
        networks = []
        for word in words:
            found = self.links.get((HOST, word))
            if found is not None:
                yield _shown(found)
                continue
            for part in dict.fromkeys((word, word.partition("-")[0])):
                try:
                    address = ip_address(part)
                except ValueError:
                    continue
                if address in self.addresses:
                    yield f"container {self.addresses[address]}"
                elif owner := self.of_address(address):
                    networks.append(owner)
            if "/" in word:
                try:
                    prefix = ip_network(word, strict=False)
                except ValueError:
                    continue
                if prefix in self.subnets:
                    networks.append(f"network {self.subnets[prefix]}")
        yield from networks

    def named_in(self, text: str) -> str:
        """The owner of what a text names (an interface, an address, a subnet); "" where it names nothing of ours."""
        return next(self._named(text), "")


def _shown(owner: tuple[str, str]) -> str:
    container, network = owner
    return f"container {container}" if container else f"network {network}"
