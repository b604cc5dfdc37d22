"""The option maps plugins are given, under Docker's labels. Pure: nouns in, plain maps out.

Source: libnetwork, netlabel and docs/remote.md. Must not know: when a plugin is asked, or how.
"""

from __future__ import annotations

import base64
import ipaddress

import msgspec

from dari.model.container import Container, PortBinding
from dari.model.network import Endpoint, Network, NetworkSpec, Subnet
from dari.model.plugin import (
    ENABLE_IPV4,
    ENABLE_IPV6,
    EXPOSED_PORTS,
    GENERIC,
    INTERNAL,
    MAC_ADDRESS,
    PORT_MAP,
    IpamData,
    Options,
    PortMapping,
    TransportPort,
)
from dari.net.ports import parse_range

_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_SPACES = {"": "LocalDefault", "default": "LocalDefault", "null": "null"}
NULL_POOLS = {4: "0.0.0.0/0", 6: "::/0"}


def network_options(spec: NetworkSpec) -> Options:
    """`Options` of CreateNetwork and of GwAllocCheck."""
    found: Options = {
        ENABLE_IPV4: spec.enable_ipv4,
        ENABLE_IPV6: spec.enable_ipv6,
        GENERIC: dict(spec.options),
    }
    if spec.is_internal:
        found[INTERNAL] = True
    return found


def ipam_data(network: Network, version: int, spaces: dict[str, str]) -> list[IpamData]:
    """`IPv4Data` or `IPv6Data`. `spaces`: the address space of each subnet that a plugin gave, by subnet."""
    space = _SPACES.get(network.spec.ipam_driver, "")
    is_enabled = network.spec.enable_ipv4 if version == 4 else network.spec.enable_ipv6
    if network.spec.ipam_driver == "null":
        return [IpamData(address_space=space, pool=NULL_POOLS[version])] if is_enabled else []
    return [
        _subnet_data(each, spaces.get(each.subnet, space))
        for each in network.subnets
        if ipaddress.ip_network(each.subnet).version == version
    ]


def _subnet_data(subnet: Subnet, space: str) -> IpamData:
    length = ipaddress.ip_network(subnet.subnet).prefixlen
    return IpamData(
        address_space=space,
        pool=subnet.subnet,
        gateway=f"{subnet.gateway}/{length}" if subnet.gateway else "",
        aux_addresses={name: f"{address}/{length}" for name, address in subnet.aux.items()},
    )


def port_options(container: Container) -> Options:
    """What a plugin is told of a container's ports, exposed and to be published."""
    exposed: list[TransportPort] = []
    mapped: list[PortMapping] = []
    names = dict.fromkeys((*container.config.exposed_ports, *container.host.port_bindings))
    for name in names:
        text, _, protocol = name.partition("/")
        number = _PROTOCOLS.get(protocol or "tcp", 6)
        first, last = parse_range(text, name)
        exposed += [TransportPort(proto=number, port=port) for port in range(first, last + 1)]
        bindings = container.host.port_bindings.get(name)
        if bindings is None and container.host.publish_all_ports:
            bindings = [PortBinding()]
        for binding in bindings or []:
            low, high = (0, 0) if binding.host_port in ("", "0") else parse_range(binding.host_port, name)
            mapped += [
                PortMapping(
                    proto=number, port=port, host_ip=binding.host_ip, host_port=low, host_port_end=high
                )
                for port in range(first, last + 1)
            ]
    return {EXPOSED_PORTS: msgspec.to_builtins(exposed), PORT_MAP: msgspec.to_builtins(mapped)}


def endpoint_options(container: Container | None, endpoint: Endpoint) -> Options:
    """`Options` of CreateEndpoint: the ports, the endpoint's own driver options, a hardware address that was asked."""
    found: Options = port_options(container) if container is not None else {}
    if endpoint.spec.mac_address:
        # Go spells a net.HardwareAddr as base64.
        raw = bytes.fromhex(endpoint.spec.mac_address.replace(":", ""))
        found[MAC_ADDRESS] = base64.b64encode(raw).decode()
    return found | dict(endpoint.spec.driver_opts)
