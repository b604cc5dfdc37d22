"""The subnets of a new network: what was asked, checked, and what is cut from the pools or asked of a plugin.

Must not know: who makes the network. Source: Docker Engine API v1.51, "Network"; texts are Docker's.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from functools import lru_cache

import msgspec

from dari.engine.base import Engine
from dari.engine.overlay import is_overlay
from dari.model.errors import Forbidden, InvalidArgument
from dari.model.network import NetworkSpec, Subnet
from dari.net import ipam
from dari.net.state import Prefix
from dari.reconcile import ipam_plugin, plugin_claims

_IPV6_POOL = ipaddress.IPv6Network("fd00::/8")


async def ask_ipam(
    eng: Engine, network_id: str, spec: NetworkSpec, routes: tuple[Prefix, ...], skipped: frozenset[int]
) -> list[Subnet] | None:
    """The subnets the null driver (none) or a plugin gives; None with the default driver."""
    if spec.ipam_driver == "null":
        for each in spec.subnets:
            if each.subnet or each.ip_range:
                what = "pool" if each.subnet else "subpool"
                raise InvalidArgument(f"null ipam driver does not handle specific address {what} requests")
        if spec.driver == "bridge":
            raise InvalidArgument(f"network {spec.name}: ipv4 pool is empty: a bridge needs a subnet")
        return []
    if plugin_claims.has_remote_ipam(spec):
        return await ipam_plugin.request_pools(eng.ctx, network_id, spec, routes, skipped)
    return None


def decide(
    eng: Engine, spec: NetworkSpec, routes: tuple[Prefix, ...], skipped: frozenset[int] = frozenset()
) -> list[Subnet]:
    """The subnets asked for, with gateways (but for the IP versions of `skipped`); a family without any is cut from
    the pools."""
    taken = taken_subnets(eng)
    found: list[Subnet] = []
    for asked in spec.subnets:
        if not asked.subnet:
            continue
        checked = ipam.check_subnet(asked, taken)
        if not (spec.enable_ipv6 if checked.prefix.version == 6 else spec.enable_ipv4):
            continue
        taken[checked.prefix] = spec.name
        gateway = checked.gateway
        if gateway is None and checked.prefix.version not in skipped:
            gateway = ipam.pick_gateway(checked.prefix, checked.ip_range, checked.aux.values())
        found.append(
            Subnet(
                subnet=str(checked.prefix),
                gateway=str(gateway) if gateway is not None else "",
                ip_range=str(checked.ip_range) if checked.ip_range else "",
                aux={name: str(address) for name, address in checked.aux.items()},
            )
        )
    counts = Counter(ipaddress.ip_network(each.subnet).version for each in found)
    if spec.driver == "bridge" and max(counts.values(), default=0) > 1:
        raise Forbidden("bridge driver doesn't support multiple subnets")
    versions = set(counts)
    if 4 not in versions and spec.enable_ipv4:
        found.insert(0, _without_gateway(_cut(eng, spec, taken, routes), skipped))
    if 6 not in versions and spec.enable_ipv6:
        prefix = unique_local(eng, taken)
        cut = Subnet(subnet=str(prefix), gateway=str(ipam.pick_gateway(prefix)))
        found.append(_without_gateway(cut, skipped))
    return found


def _without_gateway(subnet: Subnet, skipped: frozenset[int]) -> Subnet:
    is_skipped = ipaddress.ip_network(subnet.subnet).version in skipped
    return msgspec.structs.replace(subnet, gateway="") if is_skipped else subnet


def taken_subnets(eng: Engine) -> dict[Prefix, str]:
    """The subnets of all networks, and whose they are. An IPAM plugin's are of an address space of their own."""
    return {
        _prefix(subnet.subnet): network.name
        for network in eng.ctx.tables.networks.all(eng.ctx.shared)
        for subnet in network.subnets
        if not plugin_claims.has_remote_ipam(network.spec) and not network.spec.is_config_only
    }


# A prefix is parsed once, however many networks are made beside it.
_prefix = lru_cache(maxsize=4096)(ipaddress.ip_network)


def _cut(eng: Engine, spec: NetworkSpec, taken: dict[Prefix, str], routes: tuple[Prefix, ...]) -> Subnet:
    if any(each.gateway or each.ip_range or each.aux for each in spec.subnets if not each.subnet):
        raise InvalidArgument("invalid network config:\ninvalid subnet : invalid CIDR block notation")
    pools = eng.ctx.config.overlay_pools if is_overlay(spec) else eng.ctx.config.pools
    prefix = ipam.pick_subnet(pools, taken, routes)
    return Subnet(subnet=str(prefix), gateway=str(ipam.pick_gateway(prefix)))


def unique_local(eng: Engine, taken: dict[Prefix, str]) -> Prefix:
    """A /64 of the daemon's own /48 (RFC 4193), which follows from its id."""
    site = int(eng.id.replace("-", "")[:10] or "1", 16) if eng.id else 1
    base = int(_IPV6_POOL.network_address) | (site << 80)
    for number in range(1 << 16):
        prefix = ipaddress.IPv6Network((base | (number << 64), 64))
        if prefix not in taken:
            return prefix
    raise Forbidden("all IPv6 subnets of this daemon's unique local prefix are in use")
