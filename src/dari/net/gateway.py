"""How a bridge network meets the world, from its driver options. Pure.

Modes, the source address of what leaves, and who may ask containers at their own addresses.
Must not know: rules. Sources: Docker's "Bridge network driver" (options) and "Port publishing and mapping".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import cast, get_args

from dari.model.errors import InvalidArgument
from dari.net.desired import GatewayMode
from dari.net.options import parse
from dari.net.state import Address

_BRIDGE = "com.docker.network.bridge."
TRUSTED = f"{_BRIDGE}trusted_host_interfaces"
BINDING4, BINDING6 = f"{_BRIDGE}host_binding_ipv4", f"{_BRIDGE}host_binding_ipv6"
# Docker 29's other name of the first.
BINDING = f"{_BRIDGE}host_binding_ip"
_MODES = get_args(GatewayMode)


def mode_option(version: int) -> str:
    """`com.docker.network.bridge.gateway_mode_ipv4`."""
    return f"{_BRIDGE}gateway_mode_ipv{version}"


def snat_option(version: int) -> str:
    """`com.docker.network.host_ipv4`."""
    return f"com.docker.network.host_ipv{version}"


def gateway_modes(options: Mapping[str, str], *, is_internal: bool) -> dict[int, GatewayMode]:
    """Modes by IP version, as far as they are given. Raises InvalidArgument."""
    found: dict[int, GatewayMode] = {}
    for version in (4, 6):
        option = mode_option(version)
        text = options.get(option, "")
        if not text:
            continue
        if text not in _MODES:
            raise InvalidArgument(
                f"failed to parse {option} value: {text} (unknown gateway mode {text}; give one of {', '.join(_MODES)})"
            )
        if text == "isolated" and not is_internal:
            raise InvalidArgument("gateway mode 'isolated' can only be used for an internal network")
        found[version] = cast(GatewayMode, text)
    return found


def skipped_gateways(options: Mapping[str, str], *, is_internal: bool) -> frozenset[int]:
    """The IP versions in which the host is not on a bridge network, so that no address is kept for a gateway: isolated
    ones, and IPv4 where it is inhibited and nothing leads out. Raises InvalidArgument."""
    modes = gateway_modes(options, is_internal=is_internal)
    found = {version for version, mode in modes.items() if mode == "isolated"}
    if is_internal and parse(options).is_inhibiting_ipv4:
        found.add(4)
    return frozenset(found)


def source_addresses(options: Mapping[str, str]) -> dict[int, Address]:
    """The address of the host's that what leaves the network gets, by IP version. Raises InvalidArgument."""
    found: dict[int, Address] = {}
    for version in (4, 6):
        option = snat_option(version)
        if text := options.get(option, ""):
            found[version] = _address(option, text, version)
    return found


def trusted_interfaces(options: Mapping[str, str]) -> tuple[str, ...]:
    """`eth0:wg0`. Raises InvalidArgument."""
    names = tuple(each for each in options.get(TRUSTED, "").split(":") if each)
    for name in names:
        if len(name.encode()) > 15 or any(letter.isspace() or letter in '/"\\' for letter in name):
            raise InvalidArgument(f"invalid value for option {TRUSTED}: {name!r} is no interface's name")
    return names


def default_bindings(options: Mapping[str, str], default: str) -> tuple[str, ...]:
    """The host addresses of a published port for which none is asked; `default` is the daemon's.

    0.0.0.0 stands for every address of the host, `::` too. Raises InvalidArgument.
    """
    if options.get(BINDING) and options.get(BINDING4):
        raise InvalidArgument(f"options {BINDING} and {BINDING4} are synonyms: give one")
    first = options.get(BINDING4) or options.get(BINDING) or ""
    second = options.get(BINDING6, "")
    if second:
        second = str(_address(BINDING6, second, 6))
    if first:
        first = str(_address(BINDING4, first))
    found = [each for each in (first or ("" if second else default), second) if each]
    if "0.0.0.0" in found and not second:
        found.append("::")
    return tuple(found)


def check(options: Mapping[str, str], *, is_internal: bool) -> None:
    """Raises InvalidArgument for the first option that makes no sense."""
    gateway_modes(options, is_internal=is_internal)
    source_addresses(options)
    trusted_interfaces(options)
    default_bindings(options, "0.0.0.0")


def _address(option: str, text: str, version: int = 0) -> Address:
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        raise InvalidArgument(f"failed to parse {option} value: {text} (nil ip)") from None
    if version and address.version != version:
        raise InvalidArgument(f"invalid value for option {option}: {text!r} is no IPv{version} address")
    return address
