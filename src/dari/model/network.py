"""Networks, endpoints and sandboxes.

A network is a set of subnets under a driver; an endpoint is one sandbox on one network; a sandbox is a network
namespace with its files. Addresses are canonical text here and are parsed at the door of `net`.
Must not know: containers' insides, stores, the kernel.
"""

from __future__ import annotations

from typing import Literal

from dari.model.wire import Noun


class Subnet(Noun, frozen=True, kw_only=True):
    """A subnet in CIDR form, its gateway (no prefix length), the range addresses are given from, and
    reserved addresses by name (`aux`)."""

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    aux: dict[str, str] = {}


class NetworkSpec(Noun, frozen=True, kw_only=True):
    """What was asked. `subnets` may be empty (a pool decides) and lack gateways."""

    name: str
    driver: str = "bridge"
    scope: Literal["local", "global", "swarm"] = "local"
    is_internal: bool = False
    is_attachable: bool = False
    is_ingress: bool = False
    is_config_only: bool = False
    config_from: str = ""
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    ipam_driver: str = "default"
    ipam_options: dict[str, str] = {}
    subnets: list[Subnet] = []
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


class Network(Noun, frozen=True, kw_only=True):
    """A network with its subnets decided. `is_predefined`: bridge, host, none.

    `closed_by`: the daemon that is about to remove a network of several hosts, so that nobody new gets on it
    (shared_networks.is_closed); those that are on it stay as they are until its row is gone.
    """

    id: str
    created: int
    spec: NetworkSpec
    subnets: list[Subnet] = []
    closed_by: str = ""
    is_predefined: bool = False

    @property
    def name(self) -> str:
        return self.spec.name


class EndpointSpec(Noun, frozen=True, kw_only=True):
    """What was asked of one attachment. Empty address = any. `links` are Docker's `container:alias`."""

    aliases: list[str] = []
    links: list[str] = []
    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: list[str] = []
    mac_address: str = ""
    driver_opts: dict[str, str] = {}
    gw_priority: int = 0


class StaticRoute(Noun, frozen=True, kw_only=True):
    """A further route of an endpoint; an empty `via` is on the link."""

    to: str
    via: str = ""


class Endpoint(Noun, frozen=True, kw_only=True):
    """One sandbox on one network. Addresses are empty until it is active (its container starts)."""

    id: str
    network_id: str
    sandbox_id: str
    container_id: str
    spec: EndpointSpec = EndpointSpec()
    # Position among the sandbox's endpoints, decides eth0, eth1, …
    index: int = 0
    is_active: bool = False
    ipv4: str = ""
    ipv4_prefix: int = 0
    gateway: str = ""
    ipv6: str = ""
    ipv6_prefix: int = 0
    gateway6: str = ""
    mac: str = ""
    interface: str = ""
    # The veth's end in the host's namespace. Fresh at each activation: the old link of that name may still be
    # on its way out when the container starts again.
    host_interface: str = ""
    dns_names: list[str] = []
    # The id of the node it is on; set on networks several hosts share.
    node: str = ""
    # As its container's health check says; empty where there is none.
    health: str = ""
    # What other nodes need to know of its container for names (reconcile/zones.py); on shared networks only.
    told: dict[str, str] = {}
    # What a network plugin told when the endpoint joined.
    routes: list[StaticRoute] = []


class PublishedPort(Noun, frozen=True, kw_only=True):
    """A decided binding: `host_ip` is `0.0.0.0`, `::` or an address.

    `count` ports: `host_port` is `container_port`, the next the next. `host_port` 0: there is none, the container is
    asked at its own address (gateway mode routed).
    """

    protocol: Literal["tcp", "udp", "sctp"]
    host_ip: str
    host_port: int
    container_port: int
    count: int = 1

    def pairs(self) -> list[tuple[int, int]]:
        """Each host port with its container port."""
        step = 1 if self.host_port else 0
        return [
            (self.host_port + number * step, self.container_port + number) for number in range(self.count)
        ]


class PendingEndpoint(Noun, frozen=True, kw_only=True):
    """An attachment asked for by the name of a network that is not there: it is looked for at the start."""

    network: str
    spec: EndpointSpec = EndpointSpec()
    index: int = 0


class Sandbox(Noun, frozen=True, kw_only=True):
    """A network namespace and its files. `mode`: own (ours), host, none, container (another's, `owner_id`).

    `netns` is a path below the exec root; it outlives restarts of the container and of the daemon. `container_id` is
    the owner; `owner_name` the name of an owner that was removed while others live here (then `container_id` is
    nobody's): the next container of that name takes the sandbox over.
    """

    id: str
    container_id: str
    mode: Literal["own", "host", "none", "container"] = "own"
    owner_id: str = ""
    owner_name: str = ""
    netns: str = ""
    is_active: bool = False
    ports: list[PublishedPort] = []
    sysctls: dict[str, str] = {}
    pending: list[PendingEndpoint] = []
