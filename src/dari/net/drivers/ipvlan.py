"""The ipvlan driver: containers share the parent's hardware address and are told apart by their IP addresses.

Mode l2 makes them neighbours of the parent's network; in l3 and l3s the host's kernel routes between them and the
parent, and the default route needs no gateway. No published ports.
Must not know: other drivers. Source: Docker "IPvlan network driver".
"""

from __future__ import annotations

from collections.abc import Iterator

from dari.model.errors import DriverRefused, InvalidArgument
from dari.net import sublinks
from dari.net.desired import EndpointWant, NetworkWant
from dari.net.facts import HostFacts
from dari.net.state import HOST, Ipvlan, KernelObject

MODES = ("l2", "l3", "l3s")
FLAGS = ("bridge", "private", "vepa")
FLAG = "ipvlan_flag"


class IpvlanDriver:
    """Docker's ipvlan driver, as kernel objects."""

    def check(self, network: NetworkWant, facts: HostFacts) -> None:
        """Raises DriverRefused with Docker's texts, InvalidArgument, Unsupported."""
        mode = network.options.get(sublinks.IPVLAN_MODE, "")
        if mode and mode not in MODES:
            raise DriverRefused(
                f"requested ipvlan mode '{mode}' is not valid, 'l2' mode is the ipvlan driver default"
            )
        flag = network.options.get(FLAG, "")
        if flag and flag not in FLAGS:
            raise DriverRefused(
                f"requested ipvlan flag '{flag}' is not valid, 'bridge' is the ipvlan driver default"
            )
        sublinks.check(network, facts)
        if sublinks.shim_addresses(network.options) and _flag(network) != "bridge":
            raise InvalidArgument(
                f"network {network.name}: the host's interface ({sublinks.SHIM}) and the containers see each other "
                f"with ipvlan_flag bridge only, not with {flag}"
            )

    def render_network(self, network: NetworkWant, facts: HostFacts) -> Iterator[KernelObject]:
        """The parent where it is ours to make, and the host's shim."""
        yield from sublinks.parent_objects(network, facts)
        if sublinks.shim_addresses(network.options):
            shim = sublinks.shim_name(network)
            yield _link(network, HOST, shim, f"dari-shim-{network.id[:12]}", facts)
            yield from sublinks.shim_objects(network, facts)

    def render_endpoint(
        self, network: NetworkWant, endpoint: EndpointWant, netns: str, facts: HostFacts
    ) -> Iterator[KernelObject]:
        """The interface, its addresses and routes; in l3 modes the default route is the interface itself."""
        yield _link(network, netns, endpoint.interface, endpoint.altname, facts)
        yield from sublinks.inside(network, endpoint, netns, facts)


def _link(network: NetworkWant, netns: str, name: str, altname: str, facts: HostFacts) -> Ipvlan:
    return Ipvlan(
        netns=netns,
        name=name,
        altname=altname,
        parent=sublinks.parent_of(network),
        mode=network.options.get(sublinks.IPVLAN_MODE) or "l2",
        flag=_flag(network),
        mtu=sublinks.mtu_of(network, facts),
    )


def _flag(network: NetworkWant) -> str:
    return network.options.get(FLAG) or "bridge"
