"""The none driver: a sandbox with nothing but its loopback interface."""

from __future__ import annotations

from collections.abc import Iterator

from dari.net.desired import EndpointWant, NetworkWant
from dari.net.facts import HostFacts
from dari.net.state import KernelObject


class NoneDriver:
    """Nothing to check, nothing to render: the sandbox itself is all there is."""

    def check(self, network: NetworkWant, facts: HostFacts) -> None:
        """Every host can."""

    def render_network(self, network: NetworkWant, facts: HostFacts) -> Iterator[KernelObject]:
        """No objects."""
        return iter(())

    def render_endpoint(
        self, network: NetworkWant, endpoint: EndpointWant, netns: str, facts: HostFacts
    ) -> Iterator[KernelObject]:
        """No objects."""
        return iter(())
