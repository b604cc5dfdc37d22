"""What a network plugin's answers mean for an endpoint; pure. What makes no sense is a ValueError with Docker's text.

Must not know: plugins, stores. Source: libnetwork, docs/remote.md.
"""

from __future__ import annotations

import ipaddress

import msgspec

from dari.model.network import Endpoint, StaticRoute
from dari.model.plugin import InterfaceBody


def with_interface(endpoint: Endpoint, asked: InterfaceBody, told: InterfaceBody | None) -> Endpoint:
    """The endpoint with what the plugin decided. Raises ValueError where it decides what was decided."""
    if told is None:
        return endpoint
    given: dict[str, str | int] = {}
    for version, old, new in ((4, asked.address, told.address), (6, asked.address_ipv6, told.address_ipv6)):
        if not new:
            continue
        if old:
            raise ValueError(
                f"driver modified interface address: endpoint interface IP present ({old}). Cannot be modified with "
                f"{new}."
            )
        address = ipaddress.ip_interface(new)
        if address.version != version:
            raise ValueError(f"{new} is no IPv{version} address")
        given |= {f"ipv{version}": str(address.ip), f"ipv{version}_prefix": address.network.prefixlen}
    if told.mac_address:
        if asked.mac_address:
            raise ValueError(
                "driver modified interface MAC address: endpoint interface MAC address present "
                f"({asked.mac_address}). Cannot be modified with {told.mac_address}."
            )
        given["mac"] = _mac(told.mac_address)
    return msgspec.structs.replace(endpoint, **given)


def _mac(text: str) -> str:
    try:
        octets = bytes.fromhex(text.replace("-", ":").replace(":", ""))
    except ValueError:
        octets = b""
    if len(octets) != 6:
        raise ValueError(f"address {text}: invalid MAC address")
    return octets.hex(":")


def gateway(what: str, text: str | None, version: int) -> str:
    if not text:
        return ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != version:
        raise ValueError(f'unable to parse {what} "{text}"')
    return str(address)


def route(destination: str, kind: int, next_hop: str) -> StaticRoute:
    to = ipaddress.ip_network(destination, strict=False)
    if kind == 1:
        return StaticRoute(to=str(to))
    via = ipaddress.ip_address(next_hop)
    if via.version != to.version:
        raise ValueError(f"route {destination} via {next_hop}: not of one IP version")
    return StaticRoute(to=str(to), via=str(via))
