"""From the store's nouns to `Desired`, the input of render: where text becomes addresses.

Must not know: what a driver makes of it. See settle.py for when.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Sequence

from dari.model.network import Endpoint, Network, Sandbox
from dari.net import gateway as gateways
from dari.net import options as driver_options
from dari.net import sublinks
from dari.net.desired import (
    Desired,
    EndpointWant,
    NetworkWant,
    PublishWant,
    RouteWant,
    SandboxWant,
    SubnetWant,
)
from dari.net.drivers import REMOTE
from dari.net.state import Interface
from dari.reconcile import links, names, policies, shared_networks
from dari.reconcile.attached import of_sandbox as of_sandbox
from dari.reconcile.context import Context
from dari.reconcile.plugin_claims import is_remote

# Prefix lengths Docker gives to addresses of --link-local-ip.
_LINK_LOCAL_LENGTHS = {4: 16, 6: 64}


def gateway_endpoint(ctx: Context, active: Iterable[Endpoint]) -> Endpoint | None:
    """The endpoint that leads to the world: the highest gateway priority, then the network whose name sorts first
    (Docker's rule). None where all networks are internal."""
    best: tuple[tuple[int, str], Endpoint] | None = None
    for endpoint in active:
        network = ctx.tables.networks.get(ctx.shared, endpoint.network_id)
        if network is None or not sublinks.leads_out(
            network.spec.driver,
            network.spec.options,
            is_internal=network.spec.is_internal,
            has_gateway=bool(endpoint.gateway or endpoint.gateway6),
        ):
            continue
        rank = (-endpoint.spec.gw_priority, network.name)
        if best is None or rank < best[0]:
            best = (rank, endpoint)
    return best[1] if best else None


def desired(ctx: Context, network_ids: Iterable[str], sandbox_ids: Iterable[str]) -> Desired:
    """What should exist of these networks and sandboxes. The networks of the sandboxes come along."""
    sandboxes: list[SandboxWant] = []
    endpoints: list[EndpointWant] = []
    wanted_networks = dict.fromkeys(network_ids)
    for sandbox_id in sandbox_ids:
        sandbox = ctx.tables.sandboxes.get(ctx.local, sandbox_id)
        if sandbox is None or not sandbox.is_active or sandbox.mode not in ("own", "none"):
            continue
        active = [each for each in of_sandbox(ctx, sandbox_id) if each.is_active]
        wanted_networks.update(dict.fromkeys(each.network_id for each in active))
        gateway = gateway_endpoint(ctx, active)
        publisher = gateway if gateway is not None and not _is_plugins(ctx, gateway) else None
        sandboxes.append(_sandbox_want(ctx, sandbox, publisher, active))
        defaults = _default_routes(ctx, active, gateway)
        endpoints.extend(
            _endpoint_want(each, versions=defaults.get(each.id, frozenset()))
            for each in active
            if each.interface
        )
    networks = [
        network_want(ctx, network)
        for network in (ctx.tables.networks.get(ctx.shared, each) for each in wanted_networks)
        if network is not None
    ]
    return Desired(tuple(networks), tuple(endpoints), tuple(sandboxes))


def _default_routes(
    ctx: Context, active: Sequence[Endpoint], gateway: Endpoint | None
) -> dict[str, frozenset[int]]:
    """By endpoint, the IP versions it is the default gateway of. What the first one cannot reach (it has no IPv6) is
    another's, as in Docker."""
    if gateway is None:
        return {}
    found = {gateway.id: frozenset((4, 6))}
    for version, own in ((4, gateway.ipv4), (6, gateway.ipv6)):
        others = [each for each in active if (each.gateway if version == 4 else each.gateway6)]
        second = None if own else gateway_endpoint(ctx, others)
        if second is not None:
            found[second.id] = frozenset((version,))
    return found


def _is_plugins(ctx: Context, endpoint: Endpoint) -> bool:
    """Whether a plugin made the endpoint's network: publishing its ports is the plugin's, too."""
    network = ctx.tables.networks.get(ctx.shared, endpoint.network_id)
    return network is not None and is_remote(network.spec)


def bridge_name(ctx: Context, network: Network) -> str:
    """Docker's `br-<id>` where nothing else is asked for; who asks to be the default bridge is called as that one."""
    asked = network.spec.options.get(driver_options.NAME)
    if not asked and network.spec.options.get(driver_options.DEFAULT_BRIDGE, "") in ("true", "1"):
        return ctx.config.bridge_name
    return asked or f"br-{network.id[:12]}"


def network_want(ctx: Context, network: Network, *, has_peers: bool = True) -> NetworkWant:
    """A network, its driver options read; an overlay's peers may be left out. Options are checked when the network is
    created."""
    options = network.spec.options
    # Of a plugin's options only the plugin knows what they mean.
    asked = driver_options.parse({} if is_remote(network.spec) else options)
    return NetworkWant(
        id=network.id,
        name=network.name,
        driver=REMOTE if is_remote(network.spec) else network.spec.driver,
        bridge_name=bridge_name(ctx, network),
        altname=f"dari-net-{network.id[:12]}",
        subnets=tuple(
            SubnetWant(
                prefix,
                ipaddress.ip_interface(f"{each.gateway}/{prefix.prefixlen}") if each.gateway else None,
                ipaddress.ip_network(each.ip_range) if each.ip_range else None,
            )
            for each, prefix in ((each, ipaddress.ip_network(each.subnet)) for each in network.subnets)
        ),
        is_internal=network.spec.is_internal,
        mtu=_mtu(ctx, network, asked.mtu),
        is_masquerading=asked.is_masquerading,
        is_icc=asked.is_icc,
        is_inhibiting_ipv4=asked.is_inhibiting_ipv4,
        is_forwarding=ctx.config.is_forwarding,
        is_default=network.is_predefined and network.spec.driver == "bridge",
        options=options,
        gateway_modes=gateways.gateway_modes(options, is_internal=network.spec.is_internal),
        snat=gateways.source_addresses(options),
        trusted_interfaces=gateways.trusted_interfaces(options),
        is_direct_routing=ctx.config.is_direct_routing,
        accept_mark=ctx.config.accept_mark,
        plugin=network.spec.driver if is_remote(network.spec) else "",
        overlay=shared_networks.overlay_want(ctx, network, has_peers=has_peers),
    )


def _mtu(ctx: Context, network: Network, asked: int) -> int:
    if network.spec.driver == "overlay":
        return shared_networks.overlay_mtu(ctx, asked, is_encrypted=shared_networks.is_encrypted(network))
    return asked or ctx.config.mtu


def _sandbox_want(
    ctx: Context, sandbox: Sandbox, gateway: Endpoint | None, active: Sequence[Endpoint]
) -> SandboxWant:
    netns = os.path.basename(sandbox.netns)
    # Deleting a table waits for an RCU grace period (20 ms). A sandbox that leaves its last network with names
    # keeps the two rules: they lead where nobody listens, and nobody asks there any more.
    is_kept = any(key[:3] == ("nft-table", netns, "ip") for key in ctx.settling.rendered.get(sandbox.id, ()))
    return SandboxWant(
        id=sandbox.id,
        netns=netns,
        sysctls=sandbox.sysctls,
        dns_port=names.DNS_PORT if is_kept or names.is_answered(ctx, sandbox) else None,
        publishes=tuple(_publishes(sandbox, gateway)) if gateway is not None else (),
        policy=policies.of_sandbox(ctx, sandbox, ctx.settling.facts),
        links=tuple(links.opened(ctx, sandbox.container_id, active)),
    )


def _publishes(sandbox: Sandbox, gateway: Endpoint) -> Iterable[PublishWant]:
    for each in sandbox.ports:
        host = ipaddress.ip_address(each.host_ip)
        target = gateway.ipv4 if host.version == 4 else gateway.ipv6 or gateway.ipv4
        if target:
            address = ipaddress.ip_address(target)
            yield PublishWant(each.protocol, host, each.host_port, address, each.container_port, each.count)


def _endpoint_want(endpoint: Endpoint, *, versions: frozenset[int]) -> EndpointWant:
    """`versions`: of these it is the sandbox's default gateway."""
    gateways = [ipaddress.ip_address(each) for each in (endpoint.gateway, endpoint.gateway6) if each]
    pairs: Sequence[tuple[str, int]] = (
        (endpoint.ipv4, endpoint.ipv4_prefix),
        (endpoint.ipv6, endpoint.ipv6_prefix),
    )
    return EndpointWant(
        id=endpoint.id,
        network_id=endpoint.network_id,
        sandbox_id=endpoint.sandbox_id,
        host_interface=endpoint.host_interface,
        interface=endpoint.interface,
        mac=endpoint.mac,
        addresses=tuple(ipaddress.ip_interface(f"{text}/{length}") for text, length in pairs if text)
        + tuple(map(_link_local, endpoint.spec.link_local_ips)),
        gateways=tuple(each for each in gateways if not versions or each.version in versions),
        is_default_gateway=bool(versions),
        routes=tuple(
            RouteWant(ipaddress.ip_network(each.to), ipaddress.ip_address(each.via) if each.via else None)
            for each in endpoint.routes
        ),
        altname=f"dari-ep-{endpoint.id[:12]}",
        sysctls=_sysctls(endpoint),
    )


def _link_local(text: str) -> Interface:
    address = ipaddress.ip_address(text)
    return ipaddress.ip_interface(f"{address}/{_LINK_LOCAL_LENGTHS[address.version]}")


def _sysctls(endpoint: Endpoint) -> dict[str, str]:
    """By slashed path; IFNAME stays for the driver to fill in."""
    return driver_options.endpoint_sysctls(endpoint.spec.driver_opts.get(driver_options.SYSCTLS, ""))
