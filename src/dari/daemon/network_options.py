"""The flags of the default bridge and of networks in general, and what they must look like.

Names and meanings are dockerd's. Must not know: networks that are there. Source: dockerd's reference.
"""

from __future__ import annotations

import argparse
import ipaddress
from typing import Any

from dari.model.errors import InvalidArgument

# Key of the settings file → the option's name.
KEYS = {
    "bip6": "bip6",
    "fixed-cidr": "fixed_cidr",
    "fixed-cidr-v6": "fixed_cidr6",
    "default-gateway": "default_gateway",
    "default-gateway-v6": "default_gateway6",
    "ipv6": "is_bridge_ipv6",
    "icc": "is_bridge_icc",
    "ip-masq": "is_bridge_masquerading",
    "ip-forward": "is_forwarding",
    "neighbours": "neighbours",
    "default-network-opts": "default_network_options",
    "host-gateway-ip": "host_gateway_ip",
    "host-gateway-ips": "host_gateway_ips",
}
_MOST_NEIGHBOURS = 1 << 20
LISTS = frozenset(("host_gateway_ips",))


def boolean(text: str) -> bool:
    """`--icc=false`, as Go's flags have it. Raises ArgumentTypeError."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise argparse.ArgumentTypeError(f"invalid boolean value {text!r}")


def add_flags(flags: argparse.ArgumentParser) -> None:
    add = flags.add_argument_group("networks").add_argument
    add("--bip6", metavar="CIDR", help="IPv6 address of the default bridge")
    add("--fixed-cidr", metavar="CIDR", help="range the default bridge's IPv4 addresses are given from")
    add(
        "--fixed-cidr-v6",
        dest="fixed_cidr6",
        metavar="CIDR",
        help="range its IPv6 addresses are given from; without --bip6 its subnet",
    )
    add(
        "--default-gateway",
        metavar="IP",
        help="IPv4 gateway of the default bridge's containers, if not the bridge",
    )
    add(
        "--default-gateway-v6",
        dest="default_gateway6",
        metavar="IP",
        help="their IPv6 gateway, if not the bridge",
    )
    for flag, name, what in (
        ("--ipv6", "is_bridge_ipv6", "whether the default bridge has IPv6 (default false)"),
        ("--icc", "is_bridge_icc", "whether its containers may speak with each other (default true)"),
        (
            "--ip-masq",
            "is_bridge_masquerading",
            "whether what leaves it gets the host's address (default true)",
        ),
        ("--ip-forward", "is_forwarding", "whether darid makes the host forward packets (default true)"),
    ):
        add(flag, dest=name, nargs="?", const=True, type=boolean, metavar="BOOL", help=what)
    add(
        "--neighbours",
        type=int,
        metavar="N",
        help="entries the host's tables of neighbours (ARP) have room for at least (default: as the host has it)",
    )
    add(
        "--default-network-opt",
        dest="network_option_pairs",
        action="append",
        metavar="DRIVER=OPTION=VALUE",
        help="option of every new network of a driver that does not say otherwise",
    )
    add(
        "--host-gateway-ip",
        dest="host_gateway_ips",
        action="append",
        metavar="IP",
        help="what `host-gateway` in --add-host means (default: the default bridge's address)",
    )


def fields(values: dict[str, Any]) -> dict[str, Any]:
    """Fields of `Config`. Raises InvalidArgument."""
    found: dict[str, Any] = {}
    for name in ("bip6", "fixed_cidr", "fixed_cidr6", "default_gateway", "default_gateway6"):
        if values.get(name):
            found[name] = str(values[name])
    for name in ("is_bridge_ipv6", "is_bridge_icc", "is_bridge_masquerading", "is_forwarding"):
        if name in values:
            if not isinstance(values[name], bool):
                raise InvalidArgument(f"{_key(name)}: expected true or false, got {values[name]!r}")
            found[name] = values[name]
    if "neighbours" in values:
        count = values["neighbours"]
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= _MOST_NEIGHBOURS:
            raise InvalidArgument(
                f"neighbours: expected a number from 0 to {_MOST_NEIGHBOURS}, got {count!r}"
            )
        found["neighbours"] = count
    asked = values.get("host_gateway_ips", [])
    gateways = [*([asked] if isinstance(asked, str) else asked)]
    if values.get("host_gateway_ip"):
        gateways.append(str(values["host_gateway_ip"]))
    found["host_gateway_ips"] = list(dict.fromkeys(gateways))
    found["default_network_options"] = _network_options(values)
    _check(found, str(values.get("bip") or ""))
    return found


def _key(name: str) -> str:
    return next(key for key, one in KEYS.items() if one == name)


def _network_options(values: dict[str, Any]) -> dict[str, dict[str, str]]:
    raw = values.get("default_network_options") or {}
    if not isinstance(raw, dict) or not all(isinstance(each, dict) for each in raw.values()):
        raise InvalidArgument(
            "default-network-opts: expected an object of drivers, each an object of options"
        )
    found = {str(driver): {str(key): str(text) for key, text in each.items()} for driver, each in raw.items()}
    for pair in values.get("network_option_pairs", []):
        driver, _, option = pair.partition("=")
        name, separator, text = option.partition("=")
        if not driver or not name or not separator:
            raise InvalidArgument(f"invalid default network option {pair!r}: expected DRIVER=OPTION=VALUE")
        found.setdefault(driver, {})[name] = text
    return found


def _check(found: dict[str, Any], bip: str) -> None:
    """Each of its family, and the parts of a bridge within it."""
    for version, address, fixed, gateway in (
        (4, bip, found.get("fixed_cidr", ""), found.get("default_gateway", "")),
        (6, found.get("bip6", ""), found.get("fixed_cidr6", ""), found.get("default_gateway6", "")),
    ):
        names = ("bip", "fixed-cidr", "default-gateway") if version == 4 else (
            "bip6", "fixed-cidr-v6", "default-gateway-v6")  # fmt: skip
        whole = _parsed(names[0], version, address, lambda text: ipaddress.ip_interface(text).network)
        part = _parsed(names[1], version, fixed, lambda text: ipaddress.ip_network(text, strict=False))
        router = _parsed(names[2], version, gateway, ipaddress.ip_address)
        subnet = whole or part
        if whole and part and not (whole.prefixlen <= part.prefixlen and part.network_address in whole):
            raise InvalidArgument(f"invalid {names[1]}: {fixed} is no part of the bridge's {whole}")
        if subnet and router and router not in subnet:
            raise InvalidArgument("default gateway ip must be part of the network")
        if (
            version == 6
            and part
            and ipaddress.ip_network("fe80::/64").overlaps(part)
            and str(part) != "fe80::/64"
        ):
            raise InvalidArgument(
                f"invalid {names[1]}: '{fixed}' clashes with the Link-Local prefix 'fe80::/64'"
            )
    for text in found["host_gateway_ips"]:
        try:
            ipaddress.ip_address(text)
        except ValueError:
            raise InvalidArgument(f"invalid host-gateway-ip: {text!r} is no address") from None
    versions = [ipaddress.ip_address(each).version for each in found["host_gateway_ips"]]
    if len(versions) != len(set(versions)):
        raise InvalidArgument("invalid host-gateway-ip: only one IPv4 and one IPv6 address may be given")


def _parsed(name: str, version: int, text: str, parse: Any) -> Any:
    if not text:
        return None
    try:
        found = parse(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid {name}: {error}") from None
    if found.version != version:
        raise InvalidArgument(f"invalid {name}: {text} is not of IPv{version}")
    return found
