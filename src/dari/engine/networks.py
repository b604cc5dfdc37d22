"""Networks: create, remove, connect, disconnect, prune.

Every operation checks first, changes the store in one transaction and settles; what fails after the transaction
takes it back. Must not know: JSON, the kernel. Source: Docker Engine API v1.51, "Network"; texts are Docker's.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from contextlib import nullcontext
from typing import Literal

import msgspec

from dari.engine import overlay, selection, sublinks
from dari.engine.addresses import check_endpoint
from dari.engine.base import Engine
from dari.engine.lookup import find_container, find_network
from dari.engine.subnets import ask_ipam, decide
from dari.engine.validate import check_policy
from dari.model.container import Container
from dari.model.errors import Conflict, DariError, Forbidden, InvalidArgument, NotFound
from dari.model.event import Event
from dari.model.network import Endpoint, EndpointSpec, Network, NetworkSpec, Sandbox, Subnet
from dari.net import gateway
from dari.net.drivers import driver
from dari.net.facts import HostFacts
from dari.net.ipam import Allocation
from dari.net.sublinks import is_sublink
from dari.reconcile import endpoints, ipam, ipam_plugin, plugin_claims, plugins, ports
from dari.reconcile.journal import emit
from dari.reconcile.networks import bridge_name, gateway_endpoint, network_want, of_sandbox
from dari.reconcile.plugin_options import NULL_POOLS
from dari.reconcile.settle import host_facts, look_at_host, settle, settle_claims
from dari.store.base import Txn, TxnConflict
from dari.units import is_global_id, new_id

log = logging.getLogger(__name__)

PREDEFINED = ("bridge", "host", "none")
_TRIES = 16
_LIVING = frozenset(("running", "paused", "restarting"))
_MTU = "com.docker.network.driver.mtu"
_IPV6_POOL = ipaddress.IPv6Network("fd00::/8")


async def create(eng: Engine, spec: NetworkSpec) -> Network:
    """A new network, its bridge in place, its plugin told.

    Raises InvalidArgument, Forbidden (predefined, overlapping), NotFound (driver), Conflict (the name is taken),
    Internal (a plugin refuses).
    """
    # Two requests must not both find a parent interface free.
    async with eng.ctx.lock("parents") if is_sublink(spec.driver) else nullcontext():
        return await _create(eng, spec)


async def _create(eng: Engine, spec: NetworkSpec) -> Network:
    _check_spec(eng, spec)
    _check_free_name(eng, spec.name)
    spec, skipped = await _ask_driver(eng, spec)
    # Routes appear and go without us: a pool must not be cut over one.
    is_fresh = not spec.subnets or is_sublink(spec.driver)
    facts = await look_at_host(eng.ctx) if is_fresh else await host_facts(eng.ctx)
    network_id = overlay.network_id(spec)
    try:
        with ipam_plugin.asking(eng.ctx, (network_id,)):
            given = await ask_ipam(eng, network_id, spec, facts.routes, skipped)
            network = await _insert(eng, network_id, spec, facts, skipped, given)
    except BaseException:
        # What plugins gave is given back.
        await settle_claims(eng.ctx, network_id)
        raise
    try:
        await settle(eng.ctx, network.id)
    except BaseException:
        await _erase(eng, network)
        raise
    return network


async def _insert(
    eng: Engine,
    network_id: str,
    spec: NetworkSpec,
    facts: HostFacts,
    skipped: frozenset[int],
    given: list[Subnet] | None,
) -> Network:
    """The network in the store. `given` are a plugin's subnets; None: they are cut here."""
    for _ in range(_TRIES):
        turn = await overlay.take_turn(eng, spec)
        _check_free_name(eng, spec.name)
        subnets = given if given is not None else decide(eng, spec, facts.routes, skipped)
        subnets = sublinks.adapt_subnets(spec, subnets)
        txn = Txn()
        network = Network(id=network_id, created=eng.ctx.now(), spec=spec, subnets=subnets)
        network = overlay.numbered(eng, txn, network, turn)
        _check_bridge_name(eng, network)
        want = network_want(eng.ctx, network)
        driver(want.driver).check(want, facts)
        await sublinks.check_host(eng, network, facts)
        eng.ctx.tables.networks.insert(txn, network, network.id)
        eng.ctx.tables.network_names.insert(txn, network.id, spec.name)
        emit(eng.ctx, txn, _event(network, "create"))
        try:
            await eng.ctx.shared.commit(txn)
        except TxnConflict:
            continue
        return network
    raise Conflict(f"network {spec.name} is being changed by other requests, try again")


async def _ask_driver(eng: Engine, spec: NetworkSpec) -> tuple[NetworkSpec, frozenset[int]]:
    """The spec with the scope a plugin's driver has, and for which IP versions it wants no gateway. Raises NotFound,
    Internal."""
    if not plugin_claims.is_remote(spec):
        return spec, frozenset()
    told = await plugins.check(eng.ctx, spec)
    scope: Literal["local", "global"] = "global" if told.scope == "global" else "local"
    spec = msgspec.structs.replace(spec, scope=scope)
    return spec, await plugins.skipped_gateways(eng.ctx, spec, told)


def _check_spec(eng: Engine, spec: NetworkSpec) -> None:
    if not spec.name.strip():
        raise InvalidArgument("invalid network name: name is empty")
    if "/" in spec.name:
        raise InvalidArgument(f"invalid network name: {spec.name} must not hold a slash")
    check_policy(spec.labels, has_targets=True)
    if spec.name in PREDEFINED or spec.name == "default":
        raise Forbidden(f"operation is not permitted on predefined {spec.name} network")
    overlay.check_spec(eng, spec)
    if spec.scope not in ("", "local") and not overlay.is_overlay(spec):
        raise InvalidArgument(
            f"network {spec.name}: scope {spec.scope} needs a cluster, this engine runs alone"
        )
    if spec.driver in ("host", "null", "none"):
        raise Forbidden(f'only one instance of "{spec.driver}" network is allowed')
    if spec.is_config_only or spec.config_from:
        raise InvalidArgument(f"network {spec.name}: configuration-only networks are not supported")
    if not spec.enable_ipv4:
        raise InvalidArgument(f"network {spec.name}: IPv4 cannot be disabled")
    gateway.check(spec.options, is_internal=spec.is_internal)
    mtu = spec.options.get(_MTU, "")
    if mtu and not mtu.isdigit():
        raise InvalidArgument(f"invalid value for option {_MTU}: {mtu!r} is not a number")


def _check_free_name(eng: Engine, name: str) -> None:
    if eng.ctx.tables.network_names.get(eng.ctx.shared, name) is not None:
        raise Conflict(f"network with name {name} already exists")


def _check_bridge_name(eng: Engine, network: Network) -> None:
    name = bridge_name(network)
    for other in eng.ctx.tables.networks.all(eng.ctx.shared):
        if other.spec.driver == "bridge" and bridge_name(other) == name:
            raise Forbidden(
                f"networks have same bridge name: bridge {name} of network {other.name} is wanted by {network.name}"
            )


async def remove(eng: Engine, ref: str) -> None:
    """Remove a network without active endpoints. Raises NotFound, Forbidden, InvalidArgument (ambiguous)."""
    network = find_network(eng, ref)
    if network.is_predefined:
        raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
    try:
        await overlay.close_door(eng, network)
    except TxnConflict:
        raise Conflict(f"network {network.name} is being changed by other requests, try again") from None
    active = active_endpoints(eng, network)
    if active:
        await overlay.open_door(eng, network)
        names = ", ".join(f'name:"{container_name(eng, each)}" id:"{each.id[:12]}"' for each in active)
        raise Forbidden(
            f"error while removing network: network {network.name} has active endpoints ({names})"
        )
    await _erase(eng, network, _event(network, "destroy"))


async def _erase(eng: Engine, network: Network, *events: Event) -> None:
    txn = Txn()
    eng.ctx.tables.networks.delete(txn, network.id)
    eng.ctx.tables.network_names.delete(txn, network.name)
    for parts in eng.ctx.tables.leases.keys(eng.ctx.local, network.id):
        eng.ctx.tables.leases.delete(txn, *parts)
    for parts in eng.ctx.tables.last_addresses.keys(eng.ctx.local, network.id):
        eng.ctx.tables.last_addresses.delete(txn, *parts)
    overlay.free_number(eng, txn, network)
    for event in events:
        emit(eng.ctx, txn, event)
    await eng.ctx.shared.commit(txn)
    await settle(eng.ctx, network.id)


def shown_subnets(network: Network) -> list[Subnet]:
    """The subnets as Docker shows them: the null driver's are everything."""
    if network.spec.ipam_driver != "null" or network.is_predefined:
        return network.subnets
    versions = ((4, network.spec.enable_ipv4), (6, network.spec.enable_ipv6))
    return [Subnet(subnet=NULL_POOLS[version]) for version, is_enabled in versions if is_enabled]


def allocations(eng: Engine, network: Network) -> dict[str, Allocation]:
    """How full each subnet is; nothing where a plugin gives the addresses."""
    return ipam.allocations(eng.ctx, network)


def active_endpoints(eng: Engine, network: Network) -> list[Endpoint]:
    """The endpoints of running containers."""
    return [each for each in eng.ctx.tables.endpoints.all(eng.ctx.shared, network.id) if each.is_active]


def container_name(eng: Engine, endpoint: Endpoint) -> str:
    """Of its container; of one that was removed while others live in its sandbox, the name it had."""
    container = eng.ctx.tables.containers.get(eng.ctx.local, endpoint.container_id)
    if container is not None:
        return container.name
    if endpoint.node and endpoint.node != eng.ctx.node_id:
        return next(iter(endpoint.dns_names), endpoint.container_id[:12])
    sandbox = eng.ctx.tables.sandboxes.get(eng.ctx.local, endpoint.sandbox_id)
    return (sandbox.owner_name if sandbox is not None else "") or endpoint.container_id[:12]


async def connect(eng: Engine, network_ref: str, container_ref: str, spec: EndpointSpec) -> Endpoint:
    """Put a container, running or not, on a further network.

    Raises NotFound, InvalidArgument, Forbidden (already on it), PortInUse.
    """
    network = find_network(eng, network_ref)
    container = find_container(eng, container_ref)
    ctx = eng.ctx
    async with ctx.lock(container.id):
        try:
            sandbox, endpoint, is_live = await _attach(eng, network, container, spec)
        except BaseException:
            # Addresses that plugins gave are given back.
            await settle_claims(ctx, container.sandbox_id)
            raise
        if is_live:
            try:
                await settle(ctx, sandbox.id)
            except BaseException:
                await _detach(eng, sandbox, endpoint)
                raise
    return endpoint


async def _attach(
    eng: Engine, network: Network, container: Container, spec: EndpointSpec
) -> tuple[Sandbox, Endpoint, bool]:
    """The endpoint in the store, active where the container lives (the third result)."""
    ctx = eng.ctx
    endpoint_id = new_id()
    with ipam_plugin.asking(ctx, (endpoint_id,)):
        for _ in range(_TRIES):
            container, sandbox = find_container(eng, container.id), _own_sandbox(eng, container)
            endpoint = _new_endpoint(eng, network, container, sandbox, spec)
            endpoint = msgspec.structs.replace(endpoint, id=endpoint_id)
            txn = Txn()
            emit(ctx, txn, _event(network, "connect", container))
            is_live = sandbox.is_active and container.status.state in _LIVING
            if is_live:
                await ipam_plugin.request_addresses(ctx, container, (endpoint,))
                endpoint = await _activate_more(eng, txn, container, sandbox, endpoint)
            else:
                ctx.tables.endpoints.insert(txn, endpoint, network.id, endpoint.id)
            txn.checks[ctx.tables.networks.key(network.id)] = _revision(eng, network.id)
            try:
                await ctx.local.commit(txn)
            except TxnConflict:
                network = find_network(eng, network.id)
                continue
            return sandbox, endpoint, is_live
    raise Conflict(f"network {network.name} is being changed by other requests, try again")


def _revision(eng: Engine, network_id: str) -> int:
    row = eng.ctx.shared.get(eng.ctx.tables.networks.key(network_id))
    if row is None:
        raise NotFound(f"network {network_id} not found")
    return row.revision


async def _activate_more(
    eng: Engine, txn: Txn, container: Container, sandbox: Sandbox, endpoint: Endpoint
) -> Endpoint:
    """Add to `txn` what makes one more endpoint of a running sandbox active."""
    facts = await host_facts(eng.ctx)
    everything = [*of_sandbox(eng.ctx, sandbox.id), endpoint]
    _, active = endpoints.add_activation(eng.ctx, txn, container, sandbox, everything, facts.ephemeral_ports)
    return next(each for each in active if each.id == endpoint.id)


def new_endpoint(
    eng: Engine, network: Network, container_id: str, sandbox_id: str, spec: EndpointSpec, index: int
) -> Endpoint:
    """An endpoint with its asked addresses checked; nothing is written. Raises InvalidArgument."""
    check_spec(network, spec)
    return Endpoint(
        id=new_id(),
        network_id=network.id,
        sandbox_id=sandbox_id,
        container_id=container_id,
        spec=spec,
        index=index,
        node=eng.ctx.node_id if is_global_id(network.id) else "",
    )


def check_spec(network: Network, spec: EndpointSpec) -> None:
    """May an endpoint like this be on that network? Raises InvalidArgument with Docker's texts."""
    if network.is_predefined:
        if spec.ipv4_address or spec.ipv6_address:
            raise InvalidArgument("user specified IP address is supported on user defined networks only")
        if spec.aliases:
            raise InvalidArgument(
                "network-scoped alias is supported only for containers in user defined networks"
            )
    check_endpoint(spec, network.subnets, has_user_subnet=any(each.subnet for each in network.spec.subnets))


def _new_endpoint(
    eng: Engine, network: Network, container: Container, sandbox: Sandbox, spec: EndpointSpec
) -> Endpoint:
    if network.spec.driver == "host":
        raise InvalidArgument(
            "cannot connect container to host network - container must be created in host network mode"
        )
    present = of_sandbox(eng.ctx, sandbox.id)
    if any(each.network_id == network.id for each in present):
        raise Forbidden(f"endpoint with name {container.name} already exists in network {network.name}")
    if network.spec.driver in ("null", "none") or any(_is_none(eng, each.network_id) for each in present):
        raise InvalidArgument(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )
    index = max((each.index for each in present), default=-1) + 1
    return new_endpoint(eng, network, container.id, sandbox.id, spec, index)


def _is_none(eng: Engine, network_id: str) -> bool:
    network = eng.ctx.tables.networks.get(eng.ctx.shared, network_id)
    return network is not None and network.spec.driver in ("null", "none")


def _own_sandbox(eng: Engine, container: Container) -> Sandbox:
    """The sandbox of a container that has one of its own. Raises InvalidArgument where it shares another's."""
    sandbox = eng.ctx.tables.sandboxes.get(eng.ctx.local, container.sandbox_id)
    if sandbox is None or sandbox.container_id != container.id or sandbox.mode in ("host", "container"):
        raise InvalidArgument(
            "container sharing network namespace with another container or host cannot be connected to any other "
            "network"
        )
    return sandbox


async def disconnect(eng: Engine, network_ref: str, container_ref: str, *, force: bool = False) -> None:
    """Take a container, running or not, off a network.

    Raises NotFound, Forbidden (not on it), InvalidArgument (the host network).
    """
    network = find_network(eng, network_ref)
    try:
        container = find_container(eng, container_ref)
    except NotFound:
        if not force:
            raise
        await _disconnect_left_over(eng, network, container_ref)
        return
    if network.spec.driver == "host":
        raise InvalidArgument(
            "container cannot be disconnected from host network or connected to host network"
        )
    async with eng.ctx.lock(container.id):
        container = find_container(eng, container.id)
        sandbox = eng.ctx.tables.sandboxes.get(eng.ctx.local, container.sandbox_id)
        present = of_sandbox(eng.ctx, container.sandbox_id)
        endpoint = next((each for each in present if each.network_id == network.id), None)
        if endpoint is None or sandbox is None:
            raise Forbidden(f"container {container.id} is not connected to network {network.name}")
        await _detach(eng, sandbox, endpoint, _event(network, "disconnect", container))


async def _disconnect_left_over(eng: Engine, network: Network, name: str) -> None:
    """An endpoint whose container is gone, by its name or id."""
    for endpoint in eng.ctx.tables.endpoints.all(eng.ctx.shared, network.id):
        if endpoint.container_id.startswith(name) or name in endpoint.dns_names:
            sandbox = eng.ctx.tables.sandboxes.get(eng.ctx.local, endpoint.sandbox_id)
            await _detach(eng, sandbox, endpoint)
            return
    raise NotFound(f"No such container: {name}")


async def _detach(eng: Engine, sandbox: Sandbox | None, endpoint: Endpoint, *events: Event) -> None:
    """Remove one endpoint; the host ports go with the last that could carry them."""
    ctx = eng.ctx
    txn = Txn()
    endpoints.add_release(ctx, txn, endpoint)
    ctx.tables.endpoints.delete(txn, endpoint.network_id, endpoint.id)
    if sandbox is not None and sandbox.ports:
        left = [each for each in of_sandbox(ctx, sandbox.id) if each.is_active and each.id != endpoint.id]
        if gateway_endpoint(ctx, left) is None:
            ports.release(ctx, txn, sandbox)
            ctx.tables.sandboxes.put(txn, msgspec.structs.replace(sandbox, ports=[]), sandbox.id)
    for event in events:
        emit(ctx, txn, event)
    await ctx.local.commit(txn)
    if endpoint.is_active:
        await settle(ctx, endpoint.sandbox_id, endpoint.network_id)


async def prune(eng: Engine, filters: dict[str, list[str]]) -> list[str]:
    """Remove the user's networks nobody is on; their names."""
    removed: list[str] = []
    for network in select(eng, filters, for_prune=True):
        if network.is_predefined or active_endpoints(eng, network):
            continue
        try:
            await _erase(eng, network, _event(network, "destroy"))
        except DariError as error:
            log.warning("network %s was not pruned: %s", network.name, error.message)
            continue
        removed.append(network.name)
    txn = Txn()
    emit(eng.ctx, txn, Event(type="network", action="prune", actor_id="", attributes={"reclaimed": "0"}))
    await eng.ctx.local.commit(txn)
    return removed


_LIST_FILTERS = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))
_PRUNE_FILTERS = frozenset(("until", "label", "label!"))


def select(eng: Engine, filters: dict[str, list[str]], *, for_prune: bool = False) -> list[Network]:
    """The networks that pass Docker's filters, by name. Raises InvalidArgument for filters it does not know."""
    for name in filters:
        if name not in (_PRUNE_FILTERS if for_prune else _LIST_FILTERS):
            raise InvalidArgument(f"invalid filter '{name}'")
    networks = eng.ctx.tables.networks.all(eng.ctx.shared)
    return sorted((each for each in networks if _passes(eng, each, filters)), key=lambda each: each.name)


def _passes(eng: Engine, network: Network, filters: dict[str, list[str]]) -> bool:
    spec = network.spec
    for name, values in filters.items():
        match name:
            case "driver":
                is_passing = spec.driver in values
            case "scope":
                is_passing = spec.scope in values
            case "id":
                is_passing = any(_matches(value, network.id) for value in values)
            case "name":
                is_passing = any(_matches(value, network.name) for value in values)
            case "type":
                is_passing = any(_is_type(network, value) for value in values)
            case "dangling":
                is_passing = _is_dangling(eng, network) == selection.truth(name, values)
            case "until":
                is_passing = network.created <= selection.moment(values, eng.ctx.now())
            case "label":
                is_passing = all(selection.has_label(spec.labels, value) for value in values)
            case _:
                is_passing = not any(selection.has_label(spec.labels, value) for value in values)
        if not is_passing:
            return False
    return True


def _matches(pattern: str, text: str) -> bool:
    if pattern in text:
        return True
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False


def _is_type(network: Network, value: str) -> bool:
    if value not in ("custom", "builtin"):
        raise InvalidArgument(f"invalid filter 'type={value}'")
    return network.is_predefined == (value == "builtin")


def _is_dangling(eng: Engine, network: Network) -> bool:
    return not network.is_predefined and not active_endpoints(eng, network)


def _event(network: Network, action: str, container: Container | None = None) -> Event:
    attributes = {"name": network.name, "type": network.spec.driver}
    if container is not None:
        attributes = {"container": container.id, **attributes}
    return Event(type="network", action=action, actor_id=network.id, attributes=attributes)
