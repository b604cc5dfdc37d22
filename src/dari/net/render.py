"""render: what the kernel should look like for what is desired.

Pure and total: the same input gives the same objects, nothing is remembered. A scoped render gives the objects of
some networks and sandboxes; the union of all scoped renders is the full render.
Must not know: what is found, who changed what. Next: drivers/, firewall.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from dari.net import firewall
from dari.net.desired import Desired, EndpointWant, NetworkWant, SandboxWant
from dari.net.drivers import driver
from dari.net.facts import HostFacts
from dari.net.state import KernelObject, KernelState, Loopback, Netns, Sysctl


def render(desired: Desired, facts: HostFacts, only: frozenset[str] | None = None) -> KernelState:
    """The objects of everything, or of the networks and sandboxes whose ids are in `only`.

    A network's part is its bridge, addresses, elements and the host's table; a sandbox's part is its namespace,
    all its endpoints and published ports. A sandbox's part stands on its networks' parts: pass their ids too to
    have those looked at again. Endpoints of unknown networks or sandboxes are left out (their other half is
    already unwanted). Raises NotFound for an unknown driver, ValueError where two objects claim one key.
    """
    networks = {network.id: network for network in desired.networks}
    sandboxes = {sandbox.id: sandbox for sandbox in desired.sandboxes}
    return KernelState.of(_objects(desired, networks, sandboxes, facts, only))


def _objects(
    desired: Desired,
    networks: dict[str, NetworkWant],
    sandboxes: dict[str, SandboxWant],
    facts: HostFacts,
    only: frozenset[str] | None,
) -> Iterator[KernelObject]:
    for network in desired.networks:
        if only is None or network.id in only:
            yield from driver(network.driver).render_network(network, facts)
    for sandbox in desired.sandboxes:
        if only is None or sandbox.id in only:
            yield from _sandbox(sandbox)
    for endpoint in desired.endpoints:
        if only is None or endpoint.sandbox_id in only:
            yield from _endpoint(endpoint, networks, sandboxes, facts)


def _endpoint(
    endpoint: EndpointWant,
    networks: dict[str, NetworkWant],
    sandboxes: dict[str, SandboxWant],
    facts: HostFacts,
) -> Iterator[KernelObject]:
    network, sandbox = networks.get(endpoint.network_id), sandboxes.get(endpoint.sandbox_id)
    if network is None or sandbox is None:
        return
    # What was asked of the sandbox by name wins over what a driver would set.
    asked = {sysctl_path(path) for path in sandbox.sysctls}
    for each in driver(network.driver).render_endpoint(network, endpoint, sandbox.netns, facts):
        if not (isinstance(each, Sysctl) and each.path in asked):
            yield each


def _sandbox(sandbox: SandboxWant) -> Iterator[KernelObject]:
    yield Netns(sandbox.netns)
    yield Loopback(sandbox.netns)
    for path, value in sandbox.sysctls.items():
        if (slashed := sysctl_path(path)).startswith("net/"):
            yield Sysctl(sandbox.netns, slashed, value)
    if (table := firewall.sandbox_table(sandbox)) is not None:
        yield table
    for publish in sandbox.publishes:
        if not (publish.host_ip.version == 6 and publish.host_ip.is_loopback):
            yield firewall.publish_element(publish)


def sysctl_path(name: str) -> str:
    """`net.ipv4.ip_forward` as the path below /proc/sys; with slashes it is one already (sysctl(8))."""
    dot, slash = name.find("."), name.find("/")
    if slash != -1 and (dot == -1 or slash < dot):
        return name
    return name.translate({ord("."): "/", ord("/"): "."})
