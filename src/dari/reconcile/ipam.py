"""The door to address management: who gives a network its subnets and an endpoint its addresses.

The default driver is net/ipam.py over the leases in the store, in the caller's transaction. The null driver gives
nothing. A plugin is asked before that transaction (ipam_plugin.py); its answers are claims, which the transaction
reads. Must not know: network drivers, HTTP. Source: libnetwork, docs/ipam.md.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from dari.model.errors import Internal
from dari.model.network import Endpoint, Network, Subnet
from dari.model.plugin import MAC_ADDRESS
from dari.net import ipam
from dari.net.options import DEFAULT_GATEWAYS
from dari.net.state import Address
from dari.reconcile import plugin_claims, taken
from dari.reconcile.context import Context
from dari.store.base import Txn

SERIAL = "com.docker.network.ipam.serial"
_SHOWN_HOLDERS = 10


@dataclass(frozen=True, slots=True)
class Given:
    """An address, its prefix length and the gateway beside it; empty where there is none."""

    address: str = ""
    length: int = 0
    gateway: str = ""


def subnets_of(network: Network, version: int) -> list[Subnet]:
    return [each for each in network.subnets if ipaddress.ip_network(each.subnet).version == version]


def give(ctx: Context, txn: Txn, network: Network, endpoint: Endpoint) -> tuple[dict[int, Given], str]:
    """The endpoint's addresses by IP version, and the hardware address a plugin's addresses are bound to (or none).

    Leases go into `txn`. Raises Forbidden (in use), InvalidArgument, Internal (none left).
    """
    if plugin_claims.has_remote_ipam(network.spec):
        return _claimed(ctx, network, endpoint)
    found = {4: Given(), 6: Given()}
    for version, want in ((4, endpoint.spec.ipv4_address), (6, endpoint.spec.ipv6_address)):
        subnets = subnets_of(network, version)
        if subnets:
            found[version] = _lease(ctx, txn, network, endpoint, subnets, want)
    return found, ""


def _claimed(ctx: Context, network: Network, endpoint: Endpoint) -> tuple[dict[int, Given], str]:
    found, mac = {4: Given(), 6: Given()}, ""
    for claim in plugin_claims.of(ctx, network.id, "address", endpoint.id):
        if claim.is_held and claim.address:
            address = ipaddress.ip_interface(claim.address)
            gateway = next(
                (one.gateway for one in network.subnets if address.ip in ipaddress.ip_network(one.subnet)), ""
            )
            found[address.version] = Given(str(address.ip), address.network.prefixlen, gateway)
            mac = mac or claim.data.get(MAC_ADDRESS, "")
    return found, mac


def _lease(
    ctx: Context, txn: Txn, network: Network, endpoint: Endpoint, subnets: list[Subnet], want: str
) -> Given:
    """From the first subnet that has one."""
    asked = ipaddress.ip_address(want) if want else None
    if asked is not None:
        subnets = [each for each in subnets if asked in ipaddress.ip_network(each.subnet)] or subnets[:1]
    is_serial = network.spec.ipam_options.get(SERIAL, "").lower() == "true"
    for number, subnet in enumerate(subnets):
        prefix = ipaddress.ip_network(subnet.subnet)
        others = _taken(ctx, txn, network, prefix.version, is_static=bool(want))
        last = ctx.tables.last_addresses.get(ctx.local, network.id, subnet.subnet) if is_serial else None
        try:
            found = ipam.pick_address(
                prefix,
                others,
                gateway=ipaddress.ip_address(subnet.gateway) if subnet.gateway else None,
                ip_range=ipaddress.ip_network(subnet.ip_range) if subnet.ip_range else None,
                aux=[ipaddress.ip_address(each) for each in subnet.aux.values()],
                want=asked,
                start_after=ipaddress.ip_address(last) if last else None,
                network=f"{network.name} ({network.id})",
            )
        except Internal as error:
            # This subnet is full; the network may have another one.
            if number + 1 == len(subnets):
                raise Internal(f"{error.message}{_holders(ctx, network, subnets)}") from None
            continue
        ctx.tables.leases.insert(txn, endpoint.id, network.id, str(found))
        if is_serial and asked is None:
            ctx.tables.last_addresses.put(txn, str(found), network.id, subnet.subnet)
        return Given(
            str(found), prefix.prefixlen, subnet.aux.get(DEFAULT_GATEWAYS[prefix.version], subnet.gateway)
        )
    raise Internal(f"network {network.name} has no subnet for endpoint {endpoint.id}")


def _taken(ctx: Context, txn: Txn, network: Network, version: int, *, is_static: bool) -> ipam.Taken:
    """Addresses that others have. Those asked for by name stay free for the one who asked, whether he runs or not: who
    asks for none gets none of them, and one who asks for his own is not among those who ask for none."""
    prefix_key = ctx.tables.leases.key(network.id) + "/"
    others = {_parsed(key[len(prefix_key) :]) for key in txn.puts if key.startswith(prefix_key)}
    found = taken.of_network(ctx, network.id, version, with_asked=not is_static)
    return ipam.Taken((*found.sets, {int(each) for each in others if each.version == version}))


def leased_addresses(ctx: Context, network: Network) -> set[Address]:
    prefix_key = ctx.tables.leases.key(network.id) + "/"
    return {_parsed(key[len(prefix_key) :]) for key in ctx.local.read(prefix_key)}


@lru_cache(maxsize=65536)
def _parsed(text: str) -> Address:
    return ipaddress.ip_address(text)


def _holders(ctx: Context, network: Network, subnets: Sequence[Subnet]) -> str:
    """Who has the addresses of full subnets, for the message."""
    held: list[str] = []
    for subnet in subnets:
        held += [f"gateway {subnet.gateway}"] if subnet.gateway else []
        held += [f"{name} {address} (reserved)" for name, address in subnet.aux.items()]
    for endpoint in ctx.tables.endpoints.all(ctx.shared, network.id):
        container = ctx.tables.containers.get(ctx.local, endpoint.container_id)
        name = container.name if container else endpoint.container_id[:12]
        pairs = (
            (endpoint.ipv4, endpoint.spec.ipv4_address, 4),
            (endpoint.ipv6, endpoint.spec.ipv6_address, 6),
        )
        version = ipaddress.ip_network(subnets[0].subnet).version
        held += [
            f"{name} {text or asked}" for text, asked, one in pairs if (text or asked) and one == version
        ]
    more = f" and {len(held) - _SHOWN_HOLDERS} more" if len(held) > _SHOWN_HOLDERS else ""
    return f"; held by {', '.join(held[:_SHOWN_HOLDERS])}{more}" if held else ""


def allocations(ctx: Context, network: Network) -> dict[str, ipam.Allocation]:
    """How full each subnet is, by subnet; nothing where a plugin (or nobody) counts."""
    if network.spec.ipam_driver not in ("", "default"):
        return {}
    leased = leased_addresses(ctx, network)
    return {each.subnet: ipam.allocation(ipam.check_subnet(each, {}), leased) for each in network.subnets}


def random_mac() -> str:
    """A locally administered unicast address."""
    return ":".join(f"{octet:02x}" for octet in b"\x02\x42" + secrets.token_bytes(4))
