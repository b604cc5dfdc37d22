"""render: what the kernel should look like for what is desired.

Pure and total: the same input gives the same objects, nothing is remembered. A scoped render gives the objects of
some networks and sandboxes; the union of all scoped renders is the full render.
Must not know: what is found, who changed what. Next: drivers/, firewall.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from dari.net import firewall, policy
from dari.net.desired import Desired, EndpointWant, NetworkWant, SandboxWant
from dari.net.drivers import REMOTE, driver
from dari.net.facts import HostFacts
from dari.net.state import Addr, Address, KernelObject, KernelState, Loopback, Netns, Sysctl
from dari.net.sublinks import is_sublink

_ALL_IPV6_OFF = "net/ipv6/conf/all/disable_ipv6"


def render(desired: Desired, facts: HostFacts, only: frozenset[str] | None = None) -> KernelState:
    """The objects of everything, or of the networks and sandboxes whose ids are in `only`.

    A network's part is its bridge, addresses, elements and the host's table; a sandbox's part is its namespace,
    all its endpoints and published ports. A sandbox's part stands on its networks' parts: pass their ids too to
    have those looked at again. Endpoints of unknown networks or sandboxes are left out (their other half is
    already unwanted). Raises NotFound for an unknown driver, ValueError where two objects claim one key.
    """
    return KernelState.of(_objects(desired, facts, only))


def _objects(desired: Desired, facts: HostFacts, only: frozenset[str] | None) -> Iterator[KernelObject]:
    networks = {network.id: network for network in desired.networks}
    for network in desired.networks:
        if only is None or network.id in only:
            yield from driver(network.driver).render_network(network, facts)
    endpoints: dict[str, list[EndpointWant]] = {}
    for endpoint in desired.endpoints:
        if endpoint.network_id in networks:
            endpoints.setdefault(endpoint.sandbox_id, []).append(endpoint)
    for sandbox in desired.sandboxes:
        if only is None or sandbox.id in only:
            yield from _sandbox(sandbox, endpoints.get(sandbox.id, ()), networks, facts)


def _sandbox(
    sandbox: SandboxWant,
    endpoints: Iterable[EndpointWant],
    networks: dict[str, NetworkWant],
    facts: HostFacts,
) -> Iterator[KernelObject]:
    yield Netns(sandbox.netns)
    yield Loopback(sandbox.netns)
    asked = {sysctl_path(path): value for path, value in sandbox.sysctls.items()}
    for path, value in asked.items():
        if path.startswith("net/"):
            yield Sysctl(sandbox.netns, path, value)
    if (table := firewall.sandbox_table(sandbox)) is not None:
        yield table
    if sandbox.policy is not None:
        yield from policy.objects(sandbox.netns, sandbox.policy)
    homes: dict[Address, NetworkWant] = {}
    for endpoint in endpoints:
        network = networks[endpoint.network_id]
        for each in driver(network.driver).render_endpoint(network, endpoint, sandbox.netns, facts):
            # A port is published by translation, which a network on a parent interface has none of; a plugin's ports
            # are the plugin's.
            if isinstance(each, Addr) and network.driver != REMOTE and not is_sublink(network.driver):
                homes[each.address.ip] = network
            # What was asked of the sandbox by name wins over what a driver would set.
            if not (isinstance(each, Sysctl) and each.path in asked):
                yield each
    # A port is published as long as its target is there: it goes with the endpoint.
    yield from firewall.sandbox_elements(sandbox.publishes, homes)
    yield from firewall.link_elements(each for each in sandbox.links if each.source in homes)


def has_no_ipv6(sysctls: Mapping[str, str]) -> bool:
    """Whether a container's sysctls switch IPv6 off for all its interfaces."""
    return any(sysctl_path(name) == _ALL_IPV6_OFF and value.strip() != "0" for name, value in sysctls.items())


def sysctl_path(name: str) -> str:
    """`net.ipv4.ip_forward` as the path below /proc/sys; with slashes it is one already (sysctl(8))."""
    dot, slash = name.find("."), name.find("/")
    if slash != -1 and (dot == -1 or slash < dot):
        return name
    return name.translate({ord("."): "/", ord("/"): "."})
