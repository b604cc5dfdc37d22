"""Is what was asked of an endpoint's addresses sound? Docker's checks with Docker's texts; pure.

Source: Docker Engine API v1.51, `NetworkConnect`. Must not know: which addresses others have.
"""

from __future__ import annotations

import ipaddress

from dari.model.errors import InvalidArgument
from dari.model.network import EndpointSpec, Subnet


def check_endpoint(spec: EndpointSpec, subnets: list[Subnet], *, has_user_subnet: bool) -> None:
    """Are the addresses asked of an endpoint sound on a network of these subnets? Raises InvalidArgument."""
    problems: list[str] = []
    for text, version in ((spec.ipv4_address, 4), (spec.ipv6_address, 6)):
        if not text:
            continue
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            address = None
        if address is None or address.version != version:
            problems.append(f"invalid IPv{version} address: {text}")
            continue
        if not has_user_subnet:
            raise InvalidArgument(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
            )
        if not any(
            address in ipaddress.ip_network(each.ip_range or each.subnet) for each in subnets
        ) and not any(address in ipaddress.ip_network(each.subnet) for each in subnets):
            problems.append(f"no configured subnet or ip-range contain the IP address {address}")
    for text in spec.link_local_ips:
        try:
            ipaddress.ip_address(text)
        except ValueError:
            problems.append(f"invalid link-local IP address: {text}")
    if spec.mac_address and not is_mac(spec.mac_address):
        problems.append(f"invalid MAC address: {spec.mac_address}")
    if problems:
        raise InvalidArgument("invalid endpoint settings:\n" + "\n".join(problems))


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
