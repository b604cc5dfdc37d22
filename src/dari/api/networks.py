"""`/networks`: translation only. Source: Docker Engine API v1.51, "Network"."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from aiohttp import web

from dari.api import wire
from dari.api.route import Route
from dari.api.versions import version_of
from dari.cluster import nodes
from dari.engine import networks
from dari.engine.base import Engine
from dari.engine.lookup import find_network
from dari.model.errors import InvalidArgument, NotFound
from dari.model.network import Endpoint, EndpointSpec, Network, NetworkSpec, Subnet
from dari.model.wire import DockerNoun
from dari.units import format_time


class IpamConfigBody(DockerNoun, frozen=True, kw_only=True):
    subnet: str = ""
    ip_range: str = msgspec.field(name="IPRange", default="")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = msgspec.field(name="AuxiliaryAddresses", default_factory=dict)


class IpamBody(DockerNoun, frozen=True, kw_only=True):
    driver: str = "default"
    options: dict[str, str] = {}
    config: list[IpamConfigBody] = []


class ConfigFromBody(DockerNoun, frozen=True, kw_only=True):
    network: str = ""


class CreateBody(DockerNoun, frozen=True, kw_only=True):
    name: str = ""
    driver: str = "bridge"
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigFromBody = ConfigFromBody()
    ipam: IpamBody = msgspec.field(name="IPAM", default=IpamBody())
    enable_ipv4: bool | None = msgspec.field(name="EnableIPv4", default=None)
    enable_ipv6: bool | None = msgspec.field(name="EnableIPv6", default=None)
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


class EndpointIpamBody(DockerNoun, frozen=True, kw_only=True):
    ipv4_address: str = msgspec.field(name="IPv4Address", default="")
    ipv6_address: str = msgspec.field(name="IPv6Address", default="")
    link_local_ips: list[str] = msgspec.field(name="LinkLocalIPs", default_factory=list)


class EndpointBody(DockerNoun, frozen=True, kw_only=True):
    """`EndpointSettings`, as far as a client sets them."""

    ipam_config: EndpointIpamBody = msgspec.field(name="IPAMConfig", default=EndpointIpamBody())
    links: list[str] = []
    aliases: list[str] = []
    mac_address: str = ""
    driver_opts: dict[str, str] = {}
    gw_priority: int = 0


class ConnectBody(DockerNoun, frozen=True, kw_only=True):
    container: str = ""
    endpoint_config: EndpointBody = EndpointBody()


class DisconnectBody(DockerNoun, frozen=True, kw_only=True):
    container: str = ""
    force: bool = False


def endpoint_spec(body: EndpointBody) -> EndpointSpec:
    """What a client asks of one attachment (also in `NetworkingConfig` of a container's create)."""
    return EndpointSpec(
        aliases=list(dict.fromkeys(body.aliases)),
        links=body.links,
        ipv4_address=body.ipam_config.ipv4_address,
        ipv6_address=body.ipam_config.ipv6_address,
        link_local_ips=body.ipam_config.link_local_ips,
        mac_address=body.mac_address,
        driver_opts=body.driver_opts,
        gw_priority=body.gw_priority,
    )


async def network_create(request: web.Request, eng: Engine) -> web.StreamResponse:
    body = await wire.read_body(request, CreateBody)
    scope = body.scope or "local"
    if scope not in ("local", "global", "swarm"):
        raise InvalidArgument(f"invalid scope: {scope}")
    spec = NetworkSpec(
        name=body.name,
        driver=body.driver or "bridge",
        scope=scope,  # type: ignore[arg-type]
        is_internal=body.internal,
        is_attachable=body.attachable,
        is_ingress=body.ingress,
        is_config_only=body.config_only,
        config_from=body.config_from.network,
        ipam_driver=body.ipam.driver or "default",
        ipam_options=body.ipam.options,
        subnets=[
            Subnet(subnet=one.subnet, gateway=one.gateway, ip_range=one.ip_range, aux=one.auxiliary_addresses)
            for one in body.ipam.config
        ],
        options=body.options,
        labels=body.labels,
    )
    # Older clients that send the first do not mean it.
    ipv4 = body.enable_ipv4 if version_of(request) >= (1, 48) else None
    network = await networks.create(eng, spec, ipv4=ipv4, ipv6=body.enable_ipv6)
    return wire.json_response({"Id": network.id, "Warning": ""}, status=201)


async def network_list(request: web.Request, eng: Engine) -> web.StreamResponse:
    found = networks.select(eng, wire.filters(request))
    # Before 1.28 the list had the containers of each network.
    has_containers = version_of(request) < (1, 28)
    return wire.json_response([network_json(eng, each, has_containers=has_containers) for each in found])


async def network_inspect(request: web.Request, eng: Engine) -> web.StreamResponse:
    network = find_network(eng, request.match_info["id"])
    scope = request.query.get("scope", "")
    if scope and scope != network.spec.scope:
        raise NotFound(f"network {request.match_info['id']} not found")
    shape = network_json(eng, network, has_containers=True)
    if version_of(request) >= (1, 52):
        shape["Status"] = {"IPAM": ipam_json(eng, network)}
    # `verbose` adds what a swarm knows of services: a network of one engine has none.
    wire.flag(request, "verbose")
    return wire.json_response(shape)


async def network_delete(request: web.Request, eng: Engine) -> web.StreamResponse:
    await networks.remove(eng, request.match_info["id"])
    return wire.no_content()


async def network_connect(request: web.Request, eng: Engine) -> web.StreamResponse:
    body = await wire.read_body(request, ConnectBody)
    await networks.connect(eng, request.match_info["id"], body.container, endpoint_spec(body.endpoint_config))
    return web.Response(status=200)


async def network_disconnect(request: web.Request, eng: Engine) -> web.StreamResponse:
    body = await wire.read_body(request, DisconnectBody)
    await networks.disconnect(eng, request.match_info["id"], body.container, force=body.force)
    return web.Response(status=200)


async def network_prune(request: web.Request, eng: Engine) -> web.StreamResponse:
    removed = await networks.prune(eng, wire.filters(request))
    return wire.json_response({"NetworksDeleted": removed or None})


def network_json(eng: Engine, network: Network, *, has_containers: bool) -> dict[str, Any]:
    """Docker's `Network` object."""
    spec = network.spec
    active = networks.active_endpoints(eng, network) if has_containers else ()
    peers = peers_json(eng, network) if has_containers else {}
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": format_time(network.created),
        "Scope": spec.scope,
        "Driver": spec.driver,
        "EnableIPv4": spec.enable_ipv4,
        "EnableIPv6": spec.enable_ipv6,
        "IPAM": {
            "Driver": spec.ipam_driver,
            "Options": None if network.is_predefined else spec.ipam_options,
            "Config": [_subnet_json(each) for each in networks.shown_subnets(network)],
        },
        "Internal": spec.is_internal,
        "Attachable": spec.is_attachable,
        "Ingress": spec.is_ingress,
        "ConfigFrom": {"Network": spec.config_from},
        "ConfigOnly": spec.is_config_only,
        "Containers": _containers_json(eng, active),
        "Options": spec.options,
        "Labels": spec.labels,
        **peers,
    }


def ipam_json(eng: Engine, network: Network) -> dict[str, Any]:
    """`Status.IPAM` of API 1.52: how full the network's subnets are."""
    return {
        "Subnets": {
            subnet: {"IPsInUse": each.in_use, "DynamicIPsAvailable": each.available}
            for subnet, each in networks.allocations(eng, network).items()
        }
    }


async def network_ipam(request: web.Request, eng: Engine) -> web.StreamResponse:
    """The same for clients that speak an older version."""
    return wire.json_response(ipam_json(eng, find_network(eng, request.match_info["id"])))


def peers_json(eng: Engine, network: Network) -> dict[str, Any]:
    """The other nodes with containers on a network that several share, as Docker tells an overlay's."""
    found = nodes.nodes_on(eng, network)
    if not found:
        return {}
    return {"Peers": [{"Name": each.name, "IP": each.address} for each in found]}


def _subnet_json(subnet: Subnet) -> dict[str, Any]:
    shape: dict[str, Any] = {"Subnet": subnet.subnet}
    if subnet.ip_range:
        shape["IPRange"] = subnet.ip_range
    if subnet.gateway:
        shape["Gateway"] = subnet.gateway
    if subnet.aux:
        shape["AuxiliaryAddresses"] = subnet.aux
    return shape


def _containers_json(eng: Engine, active: Iterable[Endpoint]) -> dict[str, Any]:
    return {
        each.container_id: {
            "Name": networks.container_name(eng, each),
            "EndpointID": each.id,
            "MacAddress": each.mac,
            "IPv4Address": f"{each.ipv4}/{each.ipv4_prefix}" if each.ipv4 else "",
            "IPv6Address": f"{each.ipv6}/{each.ipv6_prefix}" if each.ipv6 else "",
        }
        for each in active
    }


ROUTES = [
    Route("GET", "/networks", network_list),
    Route("POST", "/networks/create", network_create),
    Route("POST", "/networks/prune", network_prune, since=(1, 25)),
    Route("GET", "/networks/{id}", network_inspect),
    Route("GET", "/dari/v1/networks/{id}/ipam", network_ipam),
    Route("DELETE", "/networks/{id}", network_delete),
    Route("POST", "/networks/{id}/connect", network_connect),
    Route("POST", "/networks/{id}/disconnect", network_disconnect),
]
