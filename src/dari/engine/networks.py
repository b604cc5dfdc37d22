"""Networks: create, remove, connect, disconnect, prune.

Every operation checks first, changes the store in one transaction and settles; what fails after the transaction
takes it back. Must not know: JSON, the kernel. Source: Docker Engine API v1.51, "Network"; texts are Docker's.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext
from typing import Literal

import msgspec

from dari.engine import overlay, sublinks
from dari.engine.base import Engine
from dari.engine.lookup import find_container, find_network
from dari.engine.network_filters import active_endpoints as active_endpoints
from dari.engine.network_filters import select as select
from dari.engine.network_spec import check_unused, complete
from dari.engine.subnets import ask_ipam, decide
from dari.model.container import Container
from dari.model.errors import Conflict, DariError, Forbidden, InvalidArgument, NotFound
from dari.model.event import Event
from dari.model.network import Endpoint, EndpointSpec, Network, NetworkSpec, Sandbox, Subnet
from dari.net.attachment import check_endpoint
from dari.net.drivers import driver
from dari.net.facts import HostFacts
from dari.net.gateway import skipped_gateways
from dari.net.ipam import Allocation, check_subnet
from dari.net.sublinks import is_sublink, parent_names
from dari.reconcile import (
    endpoints,
    ipam,
    ipam_plugin,
    pending,
    plugin_claims,
    plugins,
    ports,
    retaking,
    shared_networks,
)
from dari.reconcile.journal import emit
from dari.reconcile.networks import bridge_name, gateway_endpoint, network_want, of_sandbox
from dari.reconcile.plugin_options import NULL_POOLS
from dari.reconcile.rows import commit
from dari.reconcile.settle import host_facts, look_at_host, settle, settle_claims
from dari.store.base import Txn, TxnConflict
from dari.units import is_global_id, new_id

log = logging.getLogger(__name__)

_TRIES = 16
_CONFIG_ONLY = "cannot create endpoint on configuration-only network"
_LIVING = frozenset(("running", "paused", "restarting"))


async def create(
    eng: Engine, asked: NetworkSpec, *, ipv4: bool | None = None, ipv6: bool | None = None
) -> Network:
    """A new network, its bridge in place, its plugin told. `ipv4`, `ipv6`: asked for or refused; None: options and
    defaults decide.

    Raises InvalidArgument, Forbidden (predefined, overlapping), NotFound (driver), Conflict (the name is taken),
    Internal (a plugin refuses).
    """
    spec = complete(eng, asked, ipv4, ipv6)
    # Two requests must not both find a parent interface free.
    async with eng.ctx.lock("parents") if is_sublink(spec.driver) else nullcontext():
        return await _create(eng, spec)


async def _create(eng: Engine, spec: NetworkSpec) -> Network:
    _check_free_name(eng, spec.name)
    if spec.is_config_only:
        return await _insert_configuration(eng, spec)
    spec, skipped = await _ask_driver(eng, spec)
    # Routes appear and go without us: a pool must not be cut over one.
    parents = parent_names(spec.driver, spec.options)
    is_fresh = not spec.subnets or parents
    facts = await look_at_host(eng.ctx, *parents) if is_fresh else await host_facts(eng.ctx)
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
        try:
            return await _store(eng, txn, network)
        except TxnConflict:
            continue
    raise Conflict(f"network {spec.name} is being changed by other requests, try again")


async def _insert_configuration(eng: Engine, spec: NetworkSpec) -> Network:
    """A configuration network claims nothing: its subnets are checked by themselves only."""
    for each in spec.subnets:
        if each.subnet:
            check_subnet(each, {})
    network = Network(id=new_id(), created=eng.ctx.now(), spec=spec, subnets=spec.subnets)
    try:
        return await _store(eng, Txn(), network)
    except TxnConflict:
        raise Conflict(f"network with name {spec.name} already exists") from None


async def _store(eng: Engine, txn: Txn, network: Network) -> Network:
    """With what `txn` claims for it. Raises TxnConflict."""
    eng.ctx.tables.networks.insert(txn, network, network.id)
    eng.ctx.tables.network_names.insert(txn, network.id, network.name)
    emit(eng.ctx, txn, _event(network, "create"))
    await eng.ctx.shared.commit(txn)
    return network


async def _ask_driver(eng: Engine, spec: NetworkSpec) -> tuple[NetworkSpec, frozenset[int]]:
    """The spec with the scope a plugin's driver has, and for which IP versions the driver wants no gateway. Raises
    NotFound, InvalidArgument, Internal."""
    if not plugin_claims.is_remote(spec):
        if spec.driver != "bridge":
            return spec, frozenset()
        return spec, skipped_gateways(spec.options, is_internal=spec.is_internal)
    told = await plugins.check(eng.ctx, spec)
    scope: Literal["local", "global"] = "global" if told.scope == "global" else "local"
    spec = msgspec.structs.replace(spec, scope=scope)
    return spec, await plugins.skipped_gateways(eng.ctx, spec, told)


def _check_free_name(eng: Engine, name: str) -> None:
    if eng.ctx.tables.network_names.get(eng.ctx.shared, name) is not None:
        raise Conflict(f"network with name {name} already exists")


def _check_bridge_name(eng: Engine, network: Network) -> None:
    if network.spec.driver != "bridge":
        return
    name = bridge_name(eng.ctx, network)
    for other in eng.ctx.tables.networks.all(eng.ctx.shared):
        if other.spec.driver == "bridge" and bridge_name(eng.ctx, other) == name:
            raise Forbidden(
                f"cannot create network {network.id} ({name}): conflicts with network {other.id} ({name}): "
                f"networks have same bridge name: {other.name} has it"
            )


async def remove(eng: Engine, ref: str) -> None:
    """Remove a network without active endpoints. Raises NotFound, Forbidden, InvalidArgument (ambiguous)."""
    network = find_network(eng, ref)
    if network.is_predefined:
        raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
    check_unused(eng, network)
    await overlay.look(eng, network)
    _check_nobody_is_on(eng, network)
    # As Docker, which tells of a configuration network's beginning only.
    await _erase(eng, network, *(() if network.spec.is_config_only else (_event(network, "destroy"),)))


def _elsewhere(eng: Engine, endpoint: Endpoint) -> str:
    """Where it is, unless here."""
    if endpoint.node in ("", eng.ctx.node_id):
        return ""
    member = eng.ctx.tables.members.get(eng.ctx.shared, endpoint.node)
    return f' node:"{member.name if member is not None else endpoint.node}"'


def _check_nobody_is_on(eng: Engine, network: Network) -> None:
    """Raises Forbidden."""
    active = active_endpoints(eng, network)
    if active:
        names = ", ".join(
            sorted(
                f'name:"{container_name(eng, each)}" id:"{each.id[:12]}"{_elsewhere(eng, each)}'
                for each in active
            )
        )
        raise Forbidden(
            f"error while removing network: network {network.name} has active endpoints ({names})"
        )


async def _erase(eng: Engine, network: Network, *events: Event) -> None:
    """Raises Conflict, Forbidden (others are on it by now), Unavailable."""
    async with eng.ctx.lock(network.id):
        try:
            await overlay.close_door(eng, network)
            _check_nobody_is_on(eng, network)
            await _erase_rows(eng, network, *events)
        except BaseException:
            await asyncio.shield(overlay.open_door(eng, network))
            raise
    await settle(eng.ctx, network.id)


def erase(eng: Engine, txn: Txn, network: Network) -> None:
    """Add to `txn` the end of its rows, and of those of its addresses."""
    eng.ctx.tables.networks.delete(txn, network.id)
    eng.ctx.tables.network_names.delete(txn, network.name)
    for parts in eng.ctx.tables.leases.keys(eng.ctx.local, network.id):
        eng.ctx.tables.leases.delete(txn, *parts)
    for parts in eng.ctx.tables.last_addresses.keys(eng.ctx.local, network.id):
        eng.ctx.tables.last_addresses.delete(txn, *parts)
    overlay.free_number(eng, txn, network)


async def _erase_rows(eng: Engine, network: Network, *events: Event) -> None:
    txn = Txn()
    overlay.stand_on_closed(eng, txn, network)
    erase(eng, txn, network)
    for event in events:
        emit(eng.ctx, txn, event)
    try:
        await eng.ctx.shared.commit(txn)
    except TxnConflict:
        raise overlay.is_changed(network) from None


def shown_subnets(network: Network) -> list[Subnet]:
    """The subnets as Docker shows them: the null driver's are everything."""
    if network.spec.ipam_driver != "null" or network.is_predefined:
        return network.subnets
    versions = ((4, network.spec.enable_ipv4), (6, network.spec.enable_ipv6))
    return [Subnet(subnet=NULL_POOLS[version]) for version, is_enabled in versions if is_enabled]


def allocations(eng: Engine, network: Network) -> dict[str, Allocation]:
    """How full each subnet is; nothing where a plugin gives the addresses."""
    return ipam.allocations(eng.ctx, network)


def container_name(eng: Engine, endpoint: Endpoint) -> str:
    """Of its container; of one that was removed while others live in its sandbox, the name it had."""
    container = eng.ctx.tables.containers.get(eng.ctx.local, endpoint.container_id)
    if container is not None:
        return container.name
    if endpoint.node and endpoint.node != eng.ctx.node_id:
        return next(iter(endpoint.dns_names), endpoint.container_id[:12])
    sandbox = eng.ctx.tables.sandboxes.get(eng.ctx.local, endpoint.sandbox_id)
    return (sandbox.owner_name if sandbox is not None else "") or endpoint.container_id[:12]


async def connect(eng: Engine, network_ref: str, container_ref: str, spec: EndpointSpec) -> Endpoint | None:
    """Put a container, running or not, on a further network; None where nothing changed, or where a network that is
    not there was noted for the next start.

    Raises NotFound, InvalidArgument, Forbidden (already on it), PortInUse.
    """
    container = find_container(eng, container_ref)
    ctx = eng.ctx
    async with ctx.lock(container.id):
        container = find_container(eng, container.id)
        try:
            network = find_network(eng, network_ref)
        except NotFound:
            if container.status.state in _LIVING:
                raise
            await pending.add(ctx, _own_sandbox(eng, container), network_ref, spec)
            return None
        if container.status.state not in _LIVING and _is_attached(eng, network, container):
            # As Docker: what a stopped container was told already is no error.
            return None
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


def _is_attached(eng: Engine, network: Network, container: Container) -> bool:
    """Whether it is on the network, or will be at its start."""
    sandbox = eng.ctx.tables.sandboxes.get(eng.ctx.local, container.sandbox_id)
    if sandbox is not None and any(each.network in (network.name, network.id) for each in sandbox.pending):
        return True
    return any(each.network_id == network.id for each in of_sandbox(eng.ctx, container.sandbox_id))


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
    network = eng.ctx.tables.networks.get(eng.ctx.shared, endpoint.network_id)
    if network is not None and shared_networks.is_shared(network):
        # Routes appear and go without us.
        facts = await look_at_host(eng.ctx)
        shared_networks.check_host(eng.ctx, network, facts)
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
    """May an endpoint like this be on that network? Raises InvalidArgument, Forbidden with Docker's texts."""
    if network.spec.is_config_only:
        raise Forbidden(_CONFIG_ONLY)
    check_endpoint(network, spec)


def _new_endpoint(
    eng: Engine, network: Network, container: Container, sandbox: Sandbox, spec: EndpointSpec
) -> Endpoint:
    if network.spec.is_config_only:
        raise Forbidden(_CONFIG_ONLY)
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
    try:
        container = find_container(eng, container_ref)
    except NotFound:
        if not force:
            raise
        await _disconnect_left_over(eng, find_network(eng, network_ref), container_ref)
        return
    try:
        network = find_network(eng, network_ref)
    except NotFound:
        if container.status.state in _LIVING and not force:
            raise
        await pending.remove(eng.ctx, container.id, network_ref)
        return
    if network.spec.driver == "host" and container.host.network_mode == "host":
        raise InvalidArgument(
            "cannot disconnect container from host network - container was created in host network mode"
        )
    async with eng.ctx.lock(container.id):
        container = find_container(eng, container.id)
        sandbox = eng.ctx.tables.sandboxes.get(eng.ctx.local, container.sandbox_id)
        present = of_sandbox(eng.ctx, container.sandbox_id)
        endpoint = next((each for each in present if each.network_id == network.id), None)
        if endpoint is None and await retaking.forget(eng.ctx, container.sandbox_id, network.id):
            return
        if endpoint is None or sandbox is None:
            the = "" if container.status.state in _LIVING else "the "
            raise Forbidden(f"container {container.id} is not connected to {the}network {network.name}")
        await _detach(eng, sandbox, endpoint, _event(network, "disconnect", container))


async def _disconnect_left_over(eng: Engine, network: Network, name: str) -> None:
    """An endpoint whose container is gone, by its name or id."""
    for endpoint in eng.ctx.tables.endpoints.all(eng.ctx.shared, network.id):
        is_meant = endpoint.container_id.startswith(name) or name in endpoint.dns_names
        if is_meant or container_name(eng, endpoint) == name:
            sandbox = eng.ctx.tables.sandboxes.get(eng.ctx.local, endpoint.sandbox_id)
            await _detach(eng, sandbox, endpoint)
            return
    raise NotFound(f"No such container: {name}")


async def _detach(eng: Engine, sandbox: Sandbox | None, endpoint: Endpoint, *events: Event) -> None:
    """Remove one endpoint; the host ports go with the last that could carry them."""
    ctx = eng.ctx

    def detached(txn: Txn) -> None:
        now = ctx.tables.endpoints.get(ctx.shared, endpoint.network_id, endpoint.id)
        endpoints.drop(ctx, txn, [now] if now is not None else [])
        if sandbox is not None and sandbox.ports:
            left = [each for each in of_sandbox(ctx, sandbox.id) if each.is_active and each.id != endpoint.id]
            if gateway_endpoint(ctx, left) is None:
                ports.release(ctx, txn, sandbox)
                ctx.tables.sandboxes.put(txn, msgspec.structs.replace(sandbox, ports=[]), sandbox.id)
        for event in events:
            emit(ctx, txn, event)

    await commit(ctx, f"the endpoint on network {endpoint.network_id[:12]}", detached)
    if endpoint.is_active:
        await settle(ctx, endpoint.sandbox_id, endpoint.network_id)


async def prune(eng: Engine, filters: dict[str, list[str]]) -> list[str]:
    """Remove the user's networks nobody is on; their names."""
    removed: list[str] = []
    for network in select(eng, filters, for_prune=True):
        if network.is_predefined or network.spec.is_config_only or active_endpoints(eng, network):
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


def _event(network: Network, action: str, container: Container | None = None) -> Event:
    attributes = {"name": network.name, "type": network.spec.driver}
    if container is not None:
        attributes = {"container": container.id, **attributes}
    return Event(type="network", action=action, actor_id=network.id, attributes=attributes)
