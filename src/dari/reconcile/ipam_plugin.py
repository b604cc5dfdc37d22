"""Asking IPAM plugins for pools and addresses, and giving them back.

Asked before the transaction that needs the answer; what is asked is a claim in the store first (plugin_claims.py), so
that a daemon killed in between can give it back. Must not know: network drivers, HTTP. Source: libnetwork,
docs/ipam.md.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from dari.model.container import Container
from dari.model.errors import DariError, Internal, InvalidArgument
from dari.model.network import Endpoint, Network, NetworkSpec, Subnet
from dari.model.plugin import (
    ENDPOINT_NAME,
    GATEWAY,
    IPAM_DRIVER,
    MAC_ADDRESS,
    REQUEST_ADDRESS_TYPE,
    AddressAnswer,
    AddressSpaces,
    PluginClaim,
    PoolAnswer,
    ReleaseAddress,
    ReleasePool,
    RequestAddress,
    RequestPool,
)
from dari.net.state import Prefix
from dari.reconcile import plugin_claims
from dari.reconcile.context import Context
from dari.reconcile.ipam import random_mac

log = logging.getLogger(__name__)

_SHOWN = 10
_OVERLAPS = 64


@contextmanager
def asking(ctx: Context, ids: Iterable[str]) -> Iterator[None]:
    """While it lasts nobody takes back what these endpoints or networks claim: they are about to be there."""
    own = set(ids)
    ctx.settling.asking |= own
    try:
        yield
    finally:
        ctx.settling.asking -= own


async def request_pools(
    ctx: Context,
    network_id: str,
    spec: NetworkSpec,
    routes: Sequence[Prefix],
    skipped_gateways: frozenset[int] = frozenset(),
) -> list[Subnet]:
    """Ask the plugin for the network's subnets, gateways and reserved addresses.

    What a failure leaves is taken back when the network's id is settled. Raises NotFound, PluginError, InvalidArgument.
    """
    plugin = spec.ipam_driver
    spaces = await plugin_claims.ask(
        ctx, plugin, f"{IPAM_DRIVER}.GetDefaultAddressSpaces", None, AddressSpaces
    )
    is_global = spec.scope == "global"
    space = (spaces.globally if is_global else spaces.local) or ""
    found: list[Subnet] = []
    for version, is_enabled in ((4, spec.enable_ipv4), (6, spec.enable_ipv6)):
        if not is_enabled:
            continue
        asked = [each for each in spec.subnets if _version(each) == version] or [Subnet(subnet="")]
        for number, each in enumerate(asked):
            base = PluginClaim(
                plugin=plugin,
                kind="pool",
                network_id=network_id,
                name=f"{version}-{number}",
                address_space=space,
                address=each.subnet,
            )
            avoided = () if is_global or each.subnet else routes
            pool = await _request_pool(ctx, base, each.ip_range, spec.ipam_options, version, avoided)
            found.append(await _reserve(ctx, pool, each, has_gateway=version not in skipped_gateways))
    return found


def _version(subnet: Subnet) -> int:
    text = subnet.subnet or subnet.ip_range or subnet.gateway
    try:
        return ipaddress.ip_network(text, strict=False).version if text else 4
    except ValueError:
        raise InvalidArgument(
            f"invalid network config:\ninvalid subnet {text}: invalid CIDR block notation"
        ) from None


async def _request_pool(
    ctx: Context,
    base: PluginClaim,
    ip_range: str,
    options: dict[str, str],
    version: int,
    avoided: Sequence[Prefix],
) -> PluginClaim:
    """A pool that overlaps no route of the host. Overlapping ones are kept until there is another, so that the plugin
    does not give the same again."""
    rejected: list[PluginClaim] = []
    try:
        for number in range(_OVERLAPS):
            name = f"{base.name}-overlap{number}" if number else base.name
            claim = msgspec.structs.replace(base, name=name)
            await plugin_claims.intend(ctx, claim)
            answer = await plugin_claims.ask(
                ctx,
                base.plugin,
                f"{IPAM_DRIVER}.RequestPool",
                RequestPool(
                    address_space=base.address_space,
                    pool=base.address,
                    sub_pool=ip_range,
                    options=options,
                    is_v6=version == 6,
                ),
                PoolAnswer,
            )
            held = await plugin_claims.hold(
                ctx,
                msgspec.structs.replace(
                    claim, pool_id=answer.pool_id or "", address=answer.pool or "", data=answer.data or {}
                ),
            )
            prefix = _prefix(base.plugin, answer.pool or "", version)
            if not any(prefix.version == each.version and prefix.overlaps(each) for each in avoided):
                return held
            rejected.append(held)
    finally:
        for each in rejected:
            await release(ctx, each)
    raise Internal(
        f"ipam plugin {base.plugin}: the pools it gives overlap routes of the host: "
        + ", ".join(each.address for each in rejected[:_SHOWN])
    )


def _prefix(plugin: str, text: str, version: int) -> Prefix:
    try:
        found = ipaddress.ip_network(text)
    except ValueError:
        found = None
    if found is None or found.version != version:
        raise Internal(f"ipam plugin {plugin}: {text!r} is no IPv{version} pool")
    return found


async def _reserve(ctx: Context, pool: PluginClaim, asked: Subnet, *, has_gateway: bool) -> Subnet:
    """The pool's gateway and the user's auxiliary addresses."""
    prefix = ipaddress.ip_network(pool.address)
    gateway = asked.gateway.partition("/")[0]
    if not gateway and GATEWAY in pool.data:
        try:
            gateway = str(ipaddress.ip_interface(pool.data[GATEWAY]).ip)
        except ValueError as error:
            raise InvalidArgument(
                f"failed to parse gateway address ({pool.data[GATEWAY]}) returned by ipam driver: {error}"
            ) from error
    elif gateway or has_gateway:
        try:
            got = await _request_address(
                ctx, pool, f"gateway-{pool.name}", gateway, {REQUEST_ADDRESS_TYPE: GATEWAY}
            )
        except DariError as error:
            raise Internal(f"failed to allocate gateway ({gateway}): {error.message}") from error
        gateway = str(ipaddress.ip_interface(got.address).ip)
    for name, text in asked.aux.items():
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise InvalidArgument(f"non parsable secondary ip address ({name}:{text})") from None
        if address not in prefix:
            raise InvalidArgument(
                f"auxiliary address: ({name}:{text}) must belong to the master pool: {prefix}"
            )
        try:
            await _request_address(ctx, pool, f"aux-{pool.name}-{name}", text, {})
        except DariError as error:
            raise Internal(
                f"failed to allocate secondary ip address ({name}:{text}): {error.message}"
            ) from error
    return Subnet(subnet=str(prefix), gateway=gateway, ip_range=asked.ip_range, aux=asked.aux)


async def _request_address(
    ctx: Context,
    pool: PluginClaim,
    name: str,
    want: str,
    options: dict[str, str],
    endpoint: Endpoint | None = None,
    data: dict[str, str] | None = None,
) -> PluginClaim:
    """The claim with its address in CIDR form. Raises NotFound, PluginError, Internal (the answer is no address)."""
    claim = PluginClaim(
        plugin=pool.plugin,
        kind="address",
        network_id=pool.network_id,
        endpoint_id=endpoint.id if endpoint else "",
        sandbox_id=endpoint.sandbox_id if endpoint else "",
        name=name,
        pool_id=pool.pool_id,
        address=want,
        data=data or {},
    )
    await plugin_claims.intend(ctx, claim)
    answer = await plugin_claims.ask(
        ctx,
        pool.plugin,
        f"{IPAM_DRIVER}.RequestAddress",
        RequestAddress(pool_id=pool.pool_id, address=want, options=options),
        AddressAnswer,
    )
    if not answer.address:
        await plugin_claims.forget(ctx, [claim])
        raise Internal(f"ipam plugin {pool.plugin}: no address returned")
    held = await plugin_claims.hold(ctx, msgspec.structs.replace(claim, address=answer.address))
    try:
        address = ipaddress.ip_interface(answer.address)
    except ValueError:
        raise Internal(f"ipam plugin {pool.plugin}: {answer.address!r} is no address in CIDR form") from None
    if address.version != ipaddress.ip_network(pool.address).version:
        raise Internal(f"ipam plugin {pool.plugin}: {answer.address} does not belong to pool {pool.address}")
    return held


async def request_addresses(ctx: Context, container: Container, endpoints: Iterable[Endpoint]) -> None:
    """Ask IPAM plugins for the addresses of endpoints that are about to become active; others are left alone.

    Raises NotFound, PluginError, InvalidArgument. The caller is in `asking`, and settles the sandbox after a failure.
    """
    for endpoint in endpoints:
        network = ctx.tables.networks.get(ctx.shared, endpoint.network_id)
        if network is None or endpoint.is_active or not plugin_claims.has_remote_ipam(network.spec):
            continue
        for left in plugin_claims.of(ctx, network.id, "address", endpoint.id):
            if not await release(ctx, left):
                raise Internal(
                    f"ipam plugin {left.plugin} has not taken back {left.address}, which {container.name} had on "
                    f"network {network.name} before: it does not answer"
                )
        plugin = network.spec.ipam_driver
        capabilities = await plugin_claims.in_plugin(ctx, lambda plugin=plugin: ctx.plugins.ipam(plugin))  # type: ignore[misc]
        options, data = {ENDPOINT_NAME: container.name}, {}
        if capabilities.requires_mac:
            mac = endpoint.spec.mac_address.lower() or container.config.mac_address.lower() or random_mac()
            options[MAC_ADDRESS] = data[MAC_ADDRESS] = mac
        pools = [each for each in plugin_claims.of(ctx, network.id, "pool") if each.is_held]
        for version, want in ((4, endpoint.spec.ipv4_address), (6, endpoint.spec.ipv6_address)):
            own = [each for each in pools if ipaddress.ip_network(each.address).version == version]
            if want:
                own = [
                    each for each in own if ipaddress.ip_address(want) in ipaddress.ip_network(each.address)
                ]
                if not own:
                    raise InvalidArgument(
                        f"invalid address {want}: It does not belong to any of this network's subnets"
                    )
            if own:
                await _request_address(ctx, own[0], str(version), want, options, endpoint, data)


async def release(ctx: Context, claim: PluginClaim) -> bool:
    """Give a pool or an address back; whether that is settled."""
    request: msgspec.Struct
    if claim.kind == "pool":
        if not claim.pool_id:
            return await _give_up(ctx, claim)
        return await plugin_claims.take_back(
            ctx, claim, f"{IPAM_DRIVER}.ReleasePool", ReleasePool(pool_id=claim.pool_id)
        )
    if not claim.address:
        return await _give_up(ctx, claim)
    request = ReleaseAddress(pool_id=claim.pool_id, address=claim.address.partition("/")[0])
    return await plugin_claims.take_back(ctx, claim, f"{IPAM_DRIVER}.ReleaseAddress", request)


async def _give_up(ctx: Context, claim: PluginClaim) -> bool:
    """Asked for without a wish, and never answered: the protocol has no word for it."""
    log.warning(
        "ipam plugin %s was asked for a %s for network %s and did not answer: if it gave one, it cannot be given back",
        claim.plugin,
        claim.kind,
        claim.network_id[:12],
    )
    await plugin_claims.forget(ctx, [claim])
    return True


async def replay(ctx: Context, network: Network) -> None:
    """Tell an IPAM plugin that remembers nothing what this network holds, as Docker does when it starts."""
    plugin = network.spec.ipam_driver
    if not (await plugin_claims.in_plugin(ctx, lambda: ctx.plugins.ipam(plugin))).requires_replay:
        return
    pools = [each for each in plugin_claims.of(ctx, network.id, "pool") if each.is_held]
    ids: dict[str, str] = {}
    for number, pool in enumerate(pools):
        prefix = ipaddress.ip_network(pool.address)
        own = next((each for each in network.subnets if each.subnet == str(prefix)), None)
        answer = await plugin_claims.ask(
            ctx,
            plugin,
            f"{IPAM_DRIVER}.RequestPool",
            RequestPool(
                address_space=pool.address_space,
                pool=pool.address,
                sub_pool=own.ip_range if own else "",
                options=network.spec.ipam_options,
                is_v6=prefix.version == 6,
            ),
            PoolAnswer,
        )
        ids[pool.pool_id] = answer.pool_id or pool.pool_id
        await plugin_claims.hold(ctx, msgspec.structs.replace(pool, pool_id=ids[pool.pool_id]))
        log.debug(
            "ipam plugin %s was told again of pool %s (%d of %d)",
            plugin,
            pool.address,
            number + 1,
            len(pools),
        )
    for claim in plugin_claims.of(ctx, network.id, "address"):
        if not claim.is_held:
            continue
        pool_id = ids.get(claim.pool_id, claim.pool_id)
        options = {REQUEST_ADDRESS_TYPE: GATEWAY} if claim.name.startswith("gateway-") else {}
        if MAC_ADDRESS in claim.data:
            options[MAC_ADDRESS] = claim.data[MAC_ADDRESS]
        address = claim.address.partition("/")[0]
        await plugin_claims.ask(
            ctx,
            plugin,
            f"{IPAM_DRIVER}.RequestAddress",
            RequestAddress(pool_id=pool_id, address=address, options=options),
            AddressAnswer,
        )
        await plugin_claims.hold(ctx, msgspec.structs.replace(claim, pool_id=pool_id))
