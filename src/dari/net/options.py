"""The bridge driver's options, read once. Pure.

What a network's options say about gateways and published ports is gateway.py's. Options nobody knows are kept and
mean nothing, as in Docker. Must not know: who asked. Source: Docker, "Bridge network driver" (options); the texts
are libnetwork's, which are Go's for what is no number and no boolean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dari.model.errors import InvalidArgument

_BRIDGE = "com.docker.network.bridge."
NAME = f"{_BRIDGE}name"
MASQUERADE = f"{_BRIDGE}enable_ip_masquerade"
ICC = f"{_BRIDGE}enable_icc"
INHIBIT_IPV4 = f"{_BRIDGE}inhibit_ipv4"
DEFAULT_BRIDGE = f"{_BRIDGE}default_bridge"
MTU = "com.docker.network.driver.mtu"
INTERFACE_PREFIX = "com.docker.network.container_iface_prefix"
ENABLE_IPV4 = "com.docker.network.enable_ipv4"
ENABLE_IPV6 = "com.docker.network.enable_ipv6"
# Of an endpoint.
IFNAME = "com.docker.network.endpoint.ifname"
SYSCTLS = "com.docker.network.endpoint.sysctls"

# Docker's names for the real gateway of a network whose bridge is not the gateway.
DEFAULT_GATEWAYS = {4: "DefaultGatewayIPv4", 6: "DefaultGatewayIPv6"}

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))
_NUMBER = re.compile(r"[+-]?[0-9]+\Z")
_INTERFACE = re.compile(r"[^\s/:\"\\*?]{1,15}\Z")


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """`name` empty: Docker's `br-<id>`; `mtu` 0: the daemon's. `is_inhibiting_ipv4`: the bridge has no IPv4 address
    (somebody else on it is the gateway). `is_default`: it asks to be the default bridge."""

    name: str = ""
    mtu: int = 0
    is_masquerading: bool = True
    is_icc: bool = True
    is_inhibiting_ipv4: bool = False
    is_default: bool = False
    interface_prefix: str = "eth"


def parse(options: Mapping[str, str]) -> BridgeOptions:
    """Raises InvalidArgument."""
    mtu = number(MTU, options[MTU]) if options.get(MTU) else 0
    if mtu < 0:
        raise InvalidArgument(f"invalid MTU number: {mtu}")
    prefix = options.get(INTERFACE_PREFIX) or "eth"
    if not is_interface_name(f"{prefix}10"):
        raise InvalidArgument(_parse_error(INTERFACE_PREFIX, prefix, "no beginning of an interface's name"))
    for name in (ENABLE_IPV4, ENABLE_IPV6):
        if name in options:
            boolean(name, options[name])
    return BridgeOptions(
        name=options.get(NAME, ""),
        mtu=mtu,
        is_masquerading=_flag(options, MASQUERADE, True),
        is_icc=_flag(options, ICC, True),
        is_inhibiting_ipv4=_flag(options, INHIBIT_IPV4, False),
        is_default=_flag(options, DEFAULT_BRIDGE, False),
        interface_prefix=prefix,
    )


def boolean(name: str, text: str) -> bool:
    """Raises InvalidArgument."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise InvalidArgument(_parse_error(name, text, f'strconv.ParseBool: parsing "{text}": invalid syntax'))


def number(name: str, text: str) -> int:
    """Raises InvalidArgument."""
    if not _NUMBER.match(text):
        raise InvalidArgument(_parse_error(name, text, f'strconv.Atoi: parsing "{text}": invalid syntax'))
    value = int(text)
    if not -(1 << 63) <= value < 1 << 63:
        raise InvalidArgument(_parse_error(name, text, f'strconv.Atoi: parsing "{text}": value out of range'))
    return value


def is_interface_name(text: str) -> bool:
    """Whether the kernel takes it as the name of an interface (dev_valid_name: 15 bytes, no blanks, no slashes)."""
    return bool(_INTERFACE.match(text)) and text not in (".", "..") and len(text.encode()) <= 15


def endpoint_sysctls(text: str) -> dict[str, str]:
    """`net.ipv4.conf.IFNAME.log_martians=1,…` as slashed paths, IFNAME left in. Raises InvalidArgument.

    The docker command makes `ifname` of IFNAME, so that is taken as well.
    """
    found: dict[str, str] = {}
    for pair in text.split(",") if text else ():
        parts = pair.strip().split(".", 4)
        if (
            len(parts) != 5
            or parts[1] not in ("ipv4", "ipv6", "mpls")
            or parts[3] not in ("IFNAME", "ifname")
        ):
            raise InvalidArgument(
                f"unrecognised network interface sysctl '{pair}'; represent 'net.X.Y.ethN.Z=V' as "
                "'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            )
        key, separator, value = parts[4].partition("=")
        is_word = all(re.fullmatch(r"[a-z0-9_]+", word) for word in (parts[2], key))
        if parts[0] != "net" or not separator or not is_word:
            raise InvalidArgument(f"invalid network interface sysctl '{pair}': 'net.X.Y.IFNAME.Z=V' is meant")
        found["/".join((*parts[:3], "IFNAME", key))] = value
    return found


def _flag(options: Mapping[str, str], name: str, default: bool) -> bool:
    return boolean(name, options[name]) if name in options else default


def _parse_error(name: str, text: str, why: str) -> str:
    return f"failed to parse {name} value: {text} ({why})"
