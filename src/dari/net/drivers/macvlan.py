"""The macvlan driver: each container has an interface with a hardware address of its own on a parent interface.

No bridge, no translation, no published ports: containers are neighbours of the parent's network. The kernel keeps
the parent itself apart from them; `dari.host_shim` gives the host an interface of its own there.
Must not know: other drivers. Source: Docker "Macvlan network driver".
"""

from __future__ import annotations

from collections.abc import Iterator

from dari.model.errors import DriverRefused, InvalidArgument
from dari.net import sublinks
from dari.net.desired import EndpointWant, NetworkWant
from dari.net.facts import HostFacts
from dari.net.ipam import mac_of
from dari.net.state import HOST, KernelObject, Macvlan

MODES = ("bridge", "private", "vepa", "passthru")


class MacvlanDriver:
    """Docker's macvlan driver, as kernel objects."""

    def check(self, network: NetworkWant, facts: HostFacts) -> None:
        """Raises DriverRefused with Docker's texts, InvalidArgument, Unsupported."""
        mode = network.options.get(sublinks.MACVLAN_MODE, "")
        if mode and mode not in MODES:
            raise DriverRefused(
                f"requested macvlan mode '{mode}' is not valid, 'bridge' mode is the macvlan driver default"
            )
        sublinks.check(network, facts)
        if sublinks.shim_addresses(network.options) and _mode(network) != "bridge":
            raise InvalidArgument(
                f"network {network.name}: the host's interface ({sublinks.SHIM}) and the containers see each other in "
                f"macvlan_mode bridge only, not in {mode}"
            )

    def render_network(self, network: NetworkWant, facts: HostFacts) -> Iterator[KernelObject]:
        """The parent where it is ours to make, and the host's shim."""
        yield from sublinks.parent_objects(network, facts)
        addresses = sublinks.shim_addresses(network.options)
        if addresses:
            yield Macvlan(
                netns=HOST,
                name=sublinks.shim_name(network),
                altname=f"dari-shim-{network.id[:12]}",
                parent=sublinks.parent_of(network),
                mode="bridge",
                mac=mac_of(addresses[0].ip),
                mtu=sublinks.mtu_of(network, facts),
            )
            yield from sublinks.shim_objects(network, facts)

    def render_endpoint(
        self, network: NetworkWant, endpoint: EndpointWant, netns: str, facts: HostFacts
    ) -> Iterator[KernelObject]:
        """The interface, its addresses and routes; the default route leads to the gateway of the parent's network."""
        yield Macvlan(
            netns=netns,
            name=endpoint.interface,
            altname=endpoint.altname,
            parent=sublinks.parent_of(network),
            mode=_mode(network),
            mac=endpoint.mac,
            mtu=sublinks.mtu_of(network, facts),
        )
        yield from sublinks.inside(network, endpoint, netns, facts)


def _mode(network: NetworkWant) -> str:
    return network.options.get(sublinks.MACVLAN_MODE) or "bridge"
