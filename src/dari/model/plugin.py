"""The words of Docker's plugin protocol, and what is remembered of a talk with a plugin.

Requests and answers of `Plugin.Activate`, `NetworkDriver.*` and `IpamDriver.*` under Docker's field names. An answer's
field may be missing or null, as Go's decoder allows. Must not know: sockets, stores, when a call is made.
Sources: Docker docs, "Docker Plugin API"; libnetwork, docs/remote.md and docs/ipam.md.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from dari.model.wire import DockerNoun, Noun

NETWORK_DRIVER = "NetworkDriver"
IPAM_DRIVER = "IpamDriver"

# Keys of the option maps, Docker's labels.
GENERIC = "com.docker.network.generic"
INTERNAL = "com.docker.network.internal"
ENABLE_IPV4 = "com.docker.network.enable_ipv4"
ENABLE_IPV6 = "com.docker.network.enable_ipv6"
EXPOSED_PORTS = "com.docker.network.endpoint.exposedports"
PORT_MAP = "com.docker.network.portmap"
MAC_ADDRESS = "com.docker.network.endpoint.macaddress"
ENDPOINT_NAME = "com.docker.network.endpoint.name"
GATEWAY = "com.docker.network.gateway"
REQUEST_ADDRESS_TYPE = "RequestAddressType"

Options = dict[str, Any]
ClaimKind = Literal["pool", "address", "network", "endpoint", "join", "external"]


class PluginClaim(Noun, frozen=True, kw_only=True):
    """Something a plugin was asked to do or to give, kept as long as it may have to be taken back.

    `is_held` False: asked, and whether it was done is not known (the answer never came). `is_over`: held, but by an
    endpoint that has ended since; its next start is another one. `name` tells claims of one
    kind and endpoint apart: `4-0` (IP version and number of a pool), `gateway-4-0`, `aux-4-0-NAME`, `4`. `netns` is the
    namespace a join was for. `pool_id` and `address` (CIDR) are an IPAM plugin's; `data` is what it said of them.
    """

    plugin: str
    kind: ClaimKind
    network_id: str
    endpoint_id: str = ""
    sandbox_id: str = ""
    name: str = ""
    netns: str = ""
    is_held: bool = False
    is_over: bool = False
    pool_id: str = ""
    address_space: str = ""
    address: str = ""
    data: dict[str, str] = {}

    @property
    def key(self) -> tuple[str, ...]:
        return (self.network_id, self.kind, self.endpoint_id or "-", self.name or "-")


class Manifest(DockerNoun, frozen=True, kw_only=True):
    """The answer to `/Plugin.Activate`: the subsystems a plugin is for."""

    implements: list[str] | None = None


class Answer(DockerNoun, frozen=True, kw_only=True):
    """What every answer may hold: a network driver's error stands under `Err`, an IPAM driver's under `Error`."""

    err: str | None = None
    error: str | None = None


class NetworkCapabilities(Answer, frozen=True, kw_only=True):
    scope: str | None = None
    connectivity_scope: str | None = None
    gw_alloc_checker: bool | None = msgspec.field(name="GwAllocChecker", default=None)


class IpamCapabilities(Answer, frozen=True, kw_only=True):
    requires_mac: bool | None = msgspec.field(name="RequiresMACAddress", default=None)
    requires_replay: bool | None = msgspec.field(name="RequiresRequestReplay", default=None)


class IpamData(DockerNoun, frozen=True, kw_only=True, omit_defaults=True):
    """A subnet as a network driver is told of it; addresses in CIDR form."""

    address_space: str
    pool: str
    gateway: str = ""
    aux_addresses: dict[str, str] = {}


class GatewayCheck(DockerNoun, frozen=True, kw_only=True):
    options: Options


class GatewayAnswer(Answer, frozen=True, kw_only=True):
    skip_ipv4: bool | None = msgspec.field(name="SkipIPv4", default=None)
    skip_ipv6: bool | None = msgspec.field(name="SkipIPv6", default=None)


class CreateNetwork(DockerNoun, frozen=True, kw_only=True):
    network_id: str
    options: Options
    ipv4_data: list[IpamData]
    ipv6_data: list[IpamData]


class NetworkRef(DockerNoun, frozen=True, kw_only=True):
    network_id: str


class EndpointRef(DockerNoun, frozen=True, kw_only=True):
    network_id: str
    endpoint_id: str


class InterfaceBody(DockerNoun, frozen=True, kw_only=True):
    """Addresses in CIDR form; empty: none, or as it was asked."""

    address: str | None = ""
    address_ipv6: str | None = ""
    mac_address: str | None = ""


class CreateEndpoint(DockerNoun, frozen=True, kw_only=True):
    network_id: str
    endpoint_id: str
    interface: InterfaceBody
    options: Options


class CreateEndpointAnswer(Answer, frozen=True, kw_only=True):
    interface: InterfaceBody | None = None


class EndpointInfoAnswer(Answer, frozen=True, kw_only=True):
    value: Options | None = None


class Join(DockerNoun, frozen=True, kw_only=True):
    network_id: str
    endpoint_id: str
    sandbox_key: str
    options: Options


class InterfaceName(DockerNoun, frozen=True, kw_only=True):
    """`src_name` in the host's namespace; in the sandbox it is called `dst_name`, or `dst_prefix` and a number."""

    src_name: str | None = ""
    dst_name: str | None = ""
    dst_prefix: str | None = ""


class StaticRouteBody(DockerNoun, frozen=True, kw_only=True):
    """`route_type` 0: via `next_hop`; 1: on the link."""

    destination: str | None = ""
    route_type: int | None = 0
    next_hop: str | None = ""


class JoinAnswer(Answer, frozen=True, kw_only=True):
    interface_name: InterfaceName | None = None
    gateway: str | None = ""
    gateway_ipv6: str | None = ""
    static_routes: list[StaticRouteBody] | None = None
    disable_gateway_service: bool | None = False


class ProgramExternal(DockerNoun, frozen=True, kw_only=True):
    network_id: str
    endpoint_id: str
    options: Options


class AddressSpaces(Answer, frozen=True, kw_only=True):
    local: str | None = msgspec.field(name="LocalDefaultAddressSpace", default="")
    globally: str | None = msgspec.field(name="GlobalDefaultAddressSpace", default="")


class RequestPool(DockerNoun, frozen=True, kw_only=True):
    address_space: str
    pool: str
    sub_pool: str
    options: dict[str, str]
    is_v6: bool = msgspec.field(name="V6", default=False)


class PoolAnswer(Answer, frozen=True, kw_only=True):
    pool_id: str | None = ""
    pool: str | None = ""
    data: dict[str, str] | None = None


class ReleasePool(DockerNoun, frozen=True, kw_only=True):
    pool_id: str


class RequestAddress(DockerNoun, frozen=True, kw_only=True):
    pool_id: str
    address: str
    options: dict[str, str]


class AddressAnswer(Answer, frozen=True, kw_only=True):
    """`address` in CIDR form."""

    address: str | None = ""
    data: dict[str, str] | None = None


class ReleaseAddress(DockerNoun, frozen=True, kw_only=True):
    pool_id: str
    address: str


class TransportPort(DockerNoun, frozen=True, kw_only=True):
    """An exposed port; `proto` is the IP protocol's number."""

    proto: int
    port: int


class PortMapping(DockerNoun, frozen=True, kw_only=True):
    """A port to publish, as Docker tells drivers of it."""

    proto: int
    ip: str = ""
    port: int = 0
    host_ip: str = msgspec.field(name="HostIP", default="")
    host_port: int = 0
    host_port_end: int = 0


class TlsFiles(DockerNoun, frozen=True, kw_only=True):
    """`TLSConfig` of a plugin's `.json` file."""

    is_unverified: bool = msgspec.field(name="InsecureSkipVerify", default=False)
    ca_file: str = msgspec.field(name="CAFile", default="")
    cert_file: str = ""
    key_file: str = ""


class PluginSpec(DockerNoun, frozen=True, kw_only=True):
    """A plugin's `.json` file."""

    addr: str = ""
    tls: TlsFiles | None = msgspec.field(name="TLSConfig", default=None)
