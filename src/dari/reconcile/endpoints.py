"""Making a sandbox's endpoints active and inactive again: addresses, hardware addresses, interfaces, host ports.

All of it is decided here and written to the store in one transaction with "absent" checks; a lost race is picked
again. The kernel follows by `settle`. Must not know: how a namespace is made, HTTP.
Sources: Docker Engine API v1.51 (texts), RFC 7042 (locally administered hardware addresses).
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable, Iterable, Sequence

import msgspec

from dari.model.container import Container
from dari.model.errors import Conflict, DriverRefused, Forbidden, NotFound
from dari.model.event import Event
from dari.model.network import Endpoint, Network, Sandbox
from dari.net import options as driver_options
from dari.net import sublinks
from dari.net.ipam import mac_of
from dari.net.render import has_no_ipv6
from dari.reconcile import ipam, ipam_plugin, lost_places, plugin_claims, ports, shared_networks, zones
from dari.reconcile.attached import containers_in, of_sandbox
from dari.reconcile.context import Context
from dari.reconcile.journal import emit
from dari.reconcile.kernel import in_kernel
from dari.reconcile.networks import gateway_endpoint
from dari.store.base import ABSENT, Txn, TxnConflict

_TRIES = 16
_IPV6_OFF = "net/ipv6/conf/IFNAME/disable_ipv6"
# Who waits for its next start holds the sandbox it shares: the owner's end must not take that start's network away.
_HOLDING = frozenset(("running", "paused", "restarting"))
_WITHOUT_INTERFACE = ("host", "null", "none")


async def activate(
    ctx: Context, container_id: str, update: Callable[[Container], Container] | None = None
) -> tuple[Sandbox, list[Endpoint]]:
    """Decide everything the sandbox of a container needs to run; commit it, with an `update` of the container's row.

    Raises NotFound (a network is gone), Forbidden (an address is in use), PortInUse, Conflict, Internal (no address
    left).
    """
    container, _ = _rows(ctx, container_id)
    ephemeral = (0, 0)
    if ports.needs_ephemeral(container):
        ephemeral = (await in_kernel(ctx, ctx.kernel.facts)).ephemeral_ports
    await _check_host(ctx, container)
    container, sandbox = _rows(ctx, container_id)
    asked = of_sandbox(ctx, sandbox.id) if sandbox.mode != "container" else []
    with ipam_plugin.asking(ctx, [each.id for each in asked]):
        owner = ctx.tables.containers.get(ctx.local, sandbox.container_id) or container
        await ipam_plugin.request_addresses(ctx, owner, asked)
        return await _activate(ctx, container_id, ephemeral, update)


async def _activate(
    ctx: Context,
    container_id: str,
    ephemeral: tuple[int, int],
    update: Callable[[Container], Container] | None,
) -> tuple[Sandbox, list[Endpoint]]:
    for _ in range(_TRIES):
        own, sandbox = _rows(ctx, container_id)
        # In a shared sandbox everything is as its owner asked.
        container = ctx.tables.containers.get(ctx.local, sandbox.container_id) or own
        txn = Txn()
        if update is not None and (updated := update(own)) != own:
            ctx.tables.containers.replace(txn, ctx.local, updated, container_id)
        asked = of_sandbox(ctx, sandbox.id) if sandbox.mode != "container" else []
        asked += map(inactive, lost_places.of(ctx, sandbox.id))
        made = add_activation(ctx, txn, container, sandbox, asked, ephemeral)
        if txn.is_empty():
            return made
        for endpoint in asked:
            if not endpoint.is_active:
                tell(ctx, txn, "connect", endpoint, endpoint.container_id)
        try:
            await ctx.local.commit(txn)
        except TxnConflict:
            continue
        return made
    raise Conflict(
        f"the addresses of container {container_id[:12]} are being changed by other requests, try again"
    )


async def _check_host(ctx: Context, container: Container) -> None:
    """Shared networks were made elsewhere: are they possible here? Raises Forbidden."""
    found = (
        ctx.tables.networks.get(ctx.shared, each.network_id) for each in of_sandbox(ctx, container.sandbox_id)
    )
    shared = [network for network in found if network is not None and shared_networks.is_shared(network)]
    if shared:
        facts = await in_kernel(ctx, ctx.kernel.facts)
        for network in shared:
            shared_networks.check_host(ctx, network, facts)


def _rows(ctx: Context, container_id: str) -> tuple[Container, Sandbox]:
    container = ctx.tables.containers.get(ctx.local, container_id)
    sandbox = ctx.tables.sandboxes.get(ctx.local, container.sandbox_id) if container else None
    if container is None or sandbox is None:
        raise NotFound(f"No such container: {container_id}")
    return container, sandbox


def add_activation(
    ctx: Context,
    txn: Txn,
    container: Container,
    sandbox: Sandbox,
    endpoints: Sequence[Endpoint],
    ephemeral: tuple[int, int],
) -> tuple[Sandbox, list[Endpoint]]:
    """Add to `txn` what makes `endpoints` of `sandbox` active; those that are already stay as they are.

    Raises what `activate` does, DriverRefused and Unavailable (shared_networks.check_node).
    """
    if sandbox.mode == "container":
        return sandbox, []
    active: list[Endpoint] = []
    reserved = _asked_names(endpoints)
    for endpoint in sorted(endpoints, key=lambda each: (each.index, each.id)):
        network = ctx.tables.networks.get(ctx.shared, endpoint.network_id)
        if network is None or shared_networks.is_closed(ctx, network):
            raise NotFound(f"network {endpoint.network_id} not found")
        if not endpoint.is_active:
            if shared_networks.is_shared(network):
                # Whoever becomes active comes by here.
                shared_networks.check_node(ctx, network)
                _stand_on(ctx, txn, network)
            endpoint = _decide(ctx, txn, container, network, endpoint, reserved)
            reserved.add(endpoint.interface)
            # A store that gave no answer may do it late: not once the container has ended.
            key = ctx.tables.endpoints.key(endpoint.network_id, endpoint.id)
            row = ctx.shared.get(key)
            txn.checks.setdefault(key, row.revision if row is not None else ABSENT)
            ctx.tables.endpoints.put(txn, endpoint, endpoint.network_id, endpoint.id)
        active.append(endpoint)
    wanted = msgspec.structs.replace(sandbox, is_active=True, netns=_netns(ctx, sandbox))
    publisher = gateway_endpoint(ctx, active)
    if publisher is not None and not sandbox.ports:
        network = ctx.tables.networks.get(ctx.shared, publisher.network_id)
        published = ports.claim(ctx, txn, container, sandbox, network, publisher, ephemeral)
        wanted = msgspec.structs.replace(wanted, ports=published)
    if wanted != sandbox:
        ctx.tables.sandboxes.put(txn, wanted, sandbox.id)
    return wanted, active


def _stand_on(ctx: Context, txn: Txn, network: Network) -> None:
    """A shared network may be removed on another node meanwhile: then this transaction fails. Who closed it and died
    loses the right to remove it."""
    row = ctx.shared.get(ctx.tables.networks.key(network.id))
    txn.checks[ctx.tables.networks.key(network.id)] = row.revision if row is not None else ABSENT
    if network.closed_by:
        ctx.tables.networks.put(txn, msgspec.structs.replace(network, closed_by=""), network.id)


def _asked_names(endpoints: Iterable[Endpoint]) -> set[str]:
    """The interfaces' names that are taken: those that are there, and those somebody asked for. Raises Forbidden."""
    found: set[str] = set()
    for endpoint in endpoints:
        name = endpoint.interface or endpoint.spec.driver_opts.get(driver_options.IFNAME, "")
        if name and name in found:
            raise Forbidden(f"two interfaces of one container cannot both be called {name}")
        found.add(name)
    return found


def _netns(ctx: Context, sandbox: Sandbox) -> str:
    return f"{ctx.config.netns_dir}/{sandbox.id[:12]}" if sandbox.mode in ("own", "none") else ""


def _decide(
    ctx: Context,
    txn: Txn,
    container: Container,
    network: Network,
    endpoint: Endpoint,
    reserved: set[str],
) -> Endpoint:
    """The endpoint with its addresses, DNS names, and an interface name that is not one of `reserved`."""
    names = dns_names(ctx, container, endpoint)
    if network.spec.driver in _WITHOUT_INTERFACE:
        return msgspec.structs.replace(endpoint, is_active=True, dns_names=names)
    asked_mac = (endpoint.spec.mac_address or container.config.mac_address).lower()
    if asked_mac and network.spec.driver == "ipvlan":
        raise DriverRefused(
            f"failed to set up container networking: failed to create endpoint {container.name} on network "
            f"{network.name}: ipvlan interfaces do not support custom mac address assignment"
        )
    given, bound_mac = ipam.give(ctx, txn, network, endpoint)
    if (_has_ipv6_off(endpoint) or has_no_ipv6(container.host.sysctls)) and given[6].address:
        # As Docker: an interface, or a container, that is told not to speak IPv6 gets no address.
        # It was to be taken in this transaction: to delete it might take it from another node that has it by now.
        key = ctx.tables.leases.key(network.id, given[6].address)
        txn.puts.pop(key, None)
        txn.checks.pop(key, None)
        given[6] = ipam.Given()
    # Of a plugin's interface the plugin knows the name, the hardware address and the gateway (plugins.py); an ipvlan
    # interface has its parent's address.
    is_plugin = plugin_claims.is_remote(network.spec)
    is_bare = is_plugin or sublinks.is_sublink(network.spec.driver)
    mac = asked_mac or bound_mac
    if not mac and not is_plugin and network.spec.driver != "ipvlan":
        mac = _mac(given[4].address)
    prefix = network.spec.options.get(driver_options.INTERFACE_PREFIX) or "eth"
    names_left = (f"{prefix}{number}" for number in range(len(reserved) + 1))
    free = next(name for name in names_left if name not in reserved)
    return msgspec.structs.replace(
        endpoint,
        is_active=True,
        ipv4=given[4].address,
        ipv4_prefix=given[4].length,
        gateway="" if is_plugin else given[4].gateway,
        ipv6=given[6].address,
        ipv6_prefix=given[6].length,
        gateway6="" if is_plugin else given[6].gateway,
        mac=mac,
        interface=endpoint.spec.driver_opts.get(driver_options.IFNAME) or free,
        host_interface="" if is_bare else f"veth{secrets.token_hex(4)[:7]}",
        dns_names=names,
        node=ctx.node_id if shared_networks.is_shared(network) else "",
        told=zones.told_of(container) if shared_networks.is_shared(network) else {},
    )


def _has_ipv6_off(endpoint: Endpoint) -> bool:
    asked = driver_options.endpoint_sysctls(endpoint.spec.driver_opts.get(driver_options.SYSCTLS, ""))
    return asked.get(_IPV6_OFF, "0") != "0"


def _mac(ipv4: str) -> str:
    """A locally administered address; without an IPv4 address to follow, a random one."""
    if ipv4:
        return mac_of(ipaddress.IPv4Address(ipv4))
    return ipam.random_mac()


def dns_names(ctx: Context, container: Container, endpoint: Endpoint) -> list[str]:
    """As Docker lists them; none on the predefined networks."""
    network = ctx.tables.networks.get(ctx.shared, endpoint.network_id)
    if network is None or network.is_predefined:
        return []
    plain = [container.name, *endpoint.spec.aliases, container.short_id, container.config.hostname]
    return list(dict.fromkeys(each for each in plain if each))


def deactivate(ctx: Context, txn: Txn, container_id: str) -> None:
    """Add to `txn` what frees the addresses and ports of the sandbox a container ran in, unless another container
    still runs in it (`network_mode: container:x`, where x may be started again) or is about to."""
    container = ctx.tables.containers.get(ctx.local, container_id)
    sandbox = ctx.tables.sandboxes.get(ctx.local, container.sandbox_id) if container else None
    if sandbox is None or _is_used_by_others(ctx, sandbox, container_id):
        return
    for endpoint in of_sandbox(ctx, sandbox.id):
        if endpoint.is_active:
            add_release(ctx, txn, endpoint)
            ctx.tables.endpoints.put(txn, inactive(endpoint), endpoint.network_id, endpoint.id)
            tell(ctx, txn, "disconnect", endpoint, endpoint.container_id)
    if sandbox.owner_name:
        # Its owner was removed: who inherits it brings endpoints of its own.
        drop(ctx, txn, of_sandbox(ctx, sandbox.id))
    ports.release(ctx, txn, sandbox)
    ctx.tables.sandboxes.put(txn, msgspec.structs.replace(sandbox, is_active=False, ports=[]), sandbox.id)


def drop(ctx: Context, txn: Txn, dropped: Iterable[Endpoint]) -> None:
    """Add to `txn` the end of endpoints and their leases."""
    for endpoint in dropped:
        add_release(ctx, txn, endpoint)
        ctx.tables.endpoints.delete(txn, endpoint.network_id, endpoint.id)


def tell(ctx: Context, txn: Txn, action: str, endpoint: Endpoint, container_id: str) -> None:
    """Docker's event of a container that enters or leaves a network because it starts or ends."""
    network = ctx.tables.networks.get(ctx.shared, endpoint.network_id)
    if network is not None:
        attributes = {"container": container_id, "name": network.name, "type": network.spec.driver}
        emit(ctx, txn, Event(type="network", action=action, actor_id=network.id, attributes=attributes))


def _is_used_by_others(ctx: Context, sandbox: Sandbox, container_id: str) -> bool:
    return any(
        each.id != container_id and (each.status.state in _HOLDING or ctx.life(each.id).is_starting)
        for each in containers_in(ctx, sandbox.id)
    )


def inactive(endpoint: Endpoint) -> Endpoint:
    """The endpoint as it is while its container does not run: what was asked, and its place."""
    return Endpoint(
        id=endpoint.id,
        network_id=endpoint.network_id,
        sandbox_id=endpoint.sandbox_id,
        container_id=endpoint.container_id,
        spec=endpoint.spec,
        index=endpoint.index,
        node=endpoint.node,
    )


def add_release(ctx: Context, txn: Txn, endpoint: Endpoint) -> None:
    """Add to `txn` the end of an endpoint's leases, and of what a plugin gave it."""
    plugin_claims.end(ctx, txn, endpoint)
    for address in (endpoint.ipv4, endpoint.ipv6):
        owner = ctx.tables.leases.get(ctx.local, endpoint.network_id, address) if address else None
        # On shared networks this host may have heard of an endpoint and not yet of its leases.
        if owner == endpoint.id or (address and owner is None and endpoint.node):
            ctx.tables.leases.delete(txn, endpoint.network_id, address)
