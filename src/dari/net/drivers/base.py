"""What a network driver is: it checks a network and says what the kernel should look like for it.

A driver never acts. It must not know: other drivers, stores, how its objects come into the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from dari.net.desired import EndpointWant, NetworkWant
from dari.net.facts import HostFacts
from dari.net.state import KernelObject


class Driver(Protocol):
    """One per kind of network; without state."""

    def check(self, network: NetworkWant, facts: HostFacts) -> None:
        """Raises a kind of dari.model.errors where this host cannot have such a network."""

    def render_network(self, network: NetworkWant, facts: HostFacts) -> Iterator[KernelObject]:
        """The objects the network has without any endpoint."""

    def render_endpoint(
        self, network: NetworkWant, endpoint: EndpointWant, netns: str, facts: HostFacts
    ) -> Iterator[KernelObject]:
        """The objects one endpoint adds; `netns` is its sandbox's namespace."""
