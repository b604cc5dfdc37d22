"""Is what was asked of an endpoint sound? Docker's checks with Docker's texts; pure.

Source: Docker Engine API v1.51, `NetworkConnect`. Must not know: which addresses others have.
"""

from __future__ import annotations

import ipaddress

from dari.model.errors import InvalidArgument
from dari.model.network import EndpointSpec, Network, Subnet
from dari.net.options import IFNAME, SYSCTLS, endpoint_sysctls, is_interface_name

_ON_USER_NETWORKS = "user specified IP address is supported on user defined networks only"
_ALIAS = "network-scoped alias is supported only for containers in user defined networks"
_ON_USER_SUBNETS = (
    "user specified IP address is supported only when connecting to networks with user configured subnets"
)


def check_endpoint(network: Network, spec: EndpointSpec) -> None:
    """May an endpoint like this be on that network? Raises InvalidArgument."""
    if spec.mac_address and not is_mac(spec.mac_address):
        raise InvalidArgument(f"invalid MAC address {spec.mac_address}")
    problems: list[str] = []
    if network.is_predefined:
        if spec.ipv4_address or spec.ipv6_address:
            problems.append(_ON_USER_NETWORKS)
        if spec.aliases:
            problems.append(_ALIAS)
    for text, version in ((spec.ipv4_address, 4), (spec.ipv6_address, 6)):
        if not text:
            continue
        address = _address(text, version)
        if address is None:
            problems.append(f"invalid IPv{version} address: {text}")
        elif not network.is_predefined:
            problems += _out_of_range(network, address)
    for text in spec.link_local_ips:
        if _address(text) is None:
            problems.append(f"invalid link-local IP address: {text}")
    name = spec.driver_opts.get(IFNAME, "")
    if name and (not is_interface_name(name) or name == "lo"):
        problems.append(f"invalid interface name {name!r}: 1 to 15 characters, no blanks, no slashes, not lo")
    try:
        endpoint_sysctls(spec.driver_opts.get(SYSCTLS, ""))
    except InvalidArgument as error:
        problems.append(error.message)
    if problems:
        raise InvalidArgument("invalid endpoint settings:\n" + "\n".join(problems))


def _address(text: str, version: int = 0) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if (version and found.version != version) or found.is_unspecified else found


def _out_of_range(network: Network, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[str]:
    asked = [each for each in network.spec.subnets if each.subnet and _version(each) == address.version]
    if not asked:
        return [_ON_USER_SUBNETS]
    if any(address in ipaddress.ip_network(each.subnet) for each in asked):
        return []
    return [f"no configured subnet or ip-range contain the IP address {address}"]


def _version(subnet: Subnet) -> int:
    return ipaddress.ip_network(subnet.subnet).version


def is_mac(text: str) -> bool:
    """Six pairs of hex digits with colons, not a group address (IEEE 802: the lowest bit of the first octet)."""
    parts = text.split(":")
    if len(parts) != 6 or not all(len(part) == 2 for part in parts):
        return False
    try:
        octets = [int(part, 16) for part in parts]
    except ValueError:
        return False
    return octets[0] & 1 == 0
