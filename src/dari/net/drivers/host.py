"""The host driver: the container lives in the host's own namespace, so the kernel needs nothing."""

from __future__ import annotations

from collections.abc import Iterator

from dari.net.desired import EndpointWant, NetworkWant
from dari.net.facts import HostFacts
from dari.net.state import KernelObject


class HostDriver:
    """Nothing to check, nothing to render: there is no sandbox of its own."""

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
