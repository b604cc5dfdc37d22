"""What creating a macvlan or ipvlan network asks for beyond other networks: parent, kernel, gateway, shim.

Must not know: other drivers' networks. The rules themselves are net/sublinks.py.
"""

from __future__ import annotations

import ipaddress
from functools import partial

import msgspec

from dari.engine.base import Engine
from dari.model.errors import InvalidArgument
from dari.model.network import Network, NetworkSpec, Subnet
from dari.net import sublinks
from dari.net.facts import HostFacts
from dari.reconcile.kernel import in_kernel
from dari.reconcile.networks import network_want


def adapt_subnets(spec: NetworkSpec, subnets: list[Subnet]) -> list[Subnet]:
    """Without the gateways that nobody asked for where nothing leads out; the shim's address reserved.

    Raises InvalidArgument where the shim's address is in no subnet, or somebody else's.
    """
    if not sublinks.is_sublink(spec.driver):
        return subnets
    if sublinks.has_no_gateway(spec.driver, spec.options, is_internal=spec.is_internal):
        asked = {each.subnet for each in spec.subnets if each.gateway}
        subnets = [
            each if each.subnet in asked else msgspec.structs.replace(each, gateway="") for each in subnets
        ]
    for shim in sublinks.shim_addresses(spec.options):
        subnets = _reserve(spec, subnets, shim.ip)
    return subnets


def _reserve(
    spec: NetworkSpec, subnets: list[Subnet], address: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> list[Subnet]:
    for number, each in enumerate(subnets):
        if address not in ipaddress.ip_network(each.subnet):
            continue
        if str(address) == each.gateway or str(address) in each.aux.values():
            raise InvalidArgument(
                f"network {spec.name}: the host's address {address} ({sublinks.SHIM}) is the gateway's or reserved"
            )
        aux = {**each.aux, sublinks.SHIM_AUX: str(address)}
        return [*subnets[:number], msgspec.structs.replace(each, aux=aux), *subnets[number + 1 :]]
    raise InvalidArgument(
        f"network {spec.name}: no configured subnet contains the host's address {address} ({sublinks.SHIM})"
    )


async def check_host(eng: Engine, network: Network, facts: HostFacts) -> None:
    """Is the parent free for this network, and does the kernel know what it needs? Raises DriverRefused,
    Unsupported."""
    want = network_want(eng.ctx, network)
    if not sublinks.is_sublink(want.driver):
        return
    others = [network_want(eng.ctx, each) for each in eng.ctx.tables.networks.all(eng.ctx.shared)]
    sublinks.check_shared(want, others)
    for kind in sublinks.link_kinds(want, facts):
        if not await in_kernel(eng.ctx, partial(eng.ctx.kernel.has_link_kind, kind)):
            raise sublinks.missing_kind(want, kind)
