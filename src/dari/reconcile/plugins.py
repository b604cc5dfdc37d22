"""Network plugins: make them know what the store wants, around the kernel's part of a settle.

The remote driver renders what a plugin has to know (`PluginFact`), the claims in the store are what it knows; the plan
between them is carried out in three parts: `prepare` (networks, endpoints; who leaves), `join` once the sandbox's
namespace is there, and `finish` once its interface is in place or has gone back. A plugin that does not answer is told
later what it has to forget (plugin_boot.py). Must not know: HTTP, who asked. Source: libnetwork, docs/remote.md.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import msgspec

from dari.model.errors import DariError, Internal
from dari.model.network import Endpoint, Network, NetworkSpec
from dari.model.plugin import (
    NETWORK_DRIVER,
    Answer,
    CreateEndpoint,
    CreateEndpointAnswer,
    CreateNetwork,
    EndpointInfoAnswer,
    EndpointRef,
    GatewayAnswer,
    GatewayCheck,
    InterfaceBody,
    Join,
    JoinAnswer,
    NetworkCapabilities,
    NetworkRef,
    PluginClaim,
    ProgramExternal,
)
from dari.net.facts import HostFacts
from dari.net.plan import Op, plan
from dari.net.render import render
from dari.net.state import KernelState, PluginFact, PluginKind
from dari.reconcile import ipam_plugin, plugin_claims
from dari.reconcile import plugin_answers as answers
from dari.reconcile.context import Context
from dari.reconcile.kernel import in_kernel
from dari.reconcile.networks import desired, of_sandbox
from dari.reconcile.plugin_claims import PluginError, ask, has_remote_ipam, is_remote
from dari.reconcile.plugin_options import endpoint_options, ipam_data, network_options, port_options
from dari.store.base import Txn

log = logging.getLogger(__name__)

_NOT_FOUND = 404


@dataclass(slots=True)
class Concern:
    """The networks and sandboxes of one settle that plugins have to do with."""

    networks: dict[str, None] = field(default_factory=dict)
    sandboxes: dict[str, None] = field(default_factory=dict)


def concerned(ctx: Context, networks: Iterable[str], sandboxes: Iterable[str]) -> Concern | None:
    """None where no plugin has to do with any of them, which is cheap to say."""
    claims = plugin_claims.of(ctx)
    claimed = {each.network_id for each in claims}
    claiming = {each.sandbox_id for each in claims}
    found = Concern({each: None for each in networks if each in claimed or _is_plugins(ctx, each)})
    for each in sandboxes:
        attached = [one.network_id for one in of_sandbox(ctx, each) if one.is_active]
        own = [one for one in attached if _is_plugins(ctx, one)]
        if own or each in claiming:
            found.sandboxes[each] = None
            found.networks.update(dict.fromkeys(own))
    return found if found.networks or found.sandboxes else None


def _is_plugins(ctx: Context, network_id: str) -> bool:
    network = ctx.tables.networks.get(ctx.shared, network_id)
    return network is not None and (is_remote(network.spec) or has_remote_ipam(network.spec))


@asynccontextmanager
async def exclusive(ctx: Context, concern: Concern) -> AsyncIterator[None]:
    """One settle at a time speaks with plugins about a sandbox."""
    async with AsyncExitStack() as stack:
        for each in sorted(concern.sandboxes):
            await stack.enter_async_context(ctx.lock(_room(each)))
        yield
    for each in concern.sandboxes:
        lock = ctx.locks.get(_room(each))
        if lock is not None and not lock.locked() and ctx.tables.sandboxes.get(ctx.local, each) is None:
            del ctx.locks[_room(each)]


def _room(sandbox_id: str) -> str:
    return f"plugins/{sandbox_id}"


# What is asked before a network is made


async def check(ctx: Context, spec: NetworkSpec) -> NetworkCapabilities:
    """The driver's capabilities. Raises NotFound (no such plugin), PluginError (it cannot be used)."""
    return await plugin_claims.in_plugin(ctx, lambda: ctx.plugins.network(spec.driver))


async def skipped_gateways(ctx: Context, spec: NetworkSpec, told: NetworkCapabilities) -> frozenset[int]:
    """The IP versions for which the plugin wants no gateway address. Raises PluginError."""
    if not told.gw_alloc_checker:
        return frozenset()
    request = GatewayCheck(options=network_options(spec))
    answer = await ask(ctx, spec.driver, f"{NETWORK_DRIVER}.GwAllocCheck", request, GatewayAnswer)
    return frozenset(n for n, skips in ((4, answer.skip_ipv4), (6, answer.skip_ipv6)) if skips)


# The three parts of a settle


async def prepare(ctx: Context, concern: Concern, facts: HostFacts) -> None:
    """Who leaves is told first; then networks and endpoints that are new. Raises NotFound, PluginError."""
    todo = _plan(ctx, concern, facts)
    replaced = {op.object.key for op in todo if op.action != "delete"}
    for op in todo:
        each = _fact(op)
        if op.action == "delete" and (each.kind in ("external", "join") or each.key in replaced):
            await _undo(ctx, each)
    for op in todo:
        each = _fact(op)
        if op.action == "delete":
            continue
        if each.kind == "network":
            async with ctx.lock(f"plugins/{each.network_id}"):
                await _create_network(ctx, each)
        elif each.kind == "endpoint":
            await _create_endpoint(ctx, each)


async def join(ctx: Context, concern: Concern, facts: HostFacts) -> tuple[PluginFact, ...]:
    """Let the endpoints join whose sandboxes exist now; those that did. Raises NotFound, PluginError."""
    plan_ = _plan(ctx, concern, facts)
    todo = tuple(_fact(op) for op in plan_ if op.action != "delete" and _fact(op).kind == "join")
    for each in todo:
        await _join(ctx, each)
    return todo


async def finish(ctx: Context, concern: Concern, facts: HostFacts, joined: Iterable[PluginFact] = ()) -> None:
    """Open the way to the world; what nobody wants any more is undone, addresses and pools are given back.

    Raises NotFound, PluginError where the way cannot be opened; what cannot be undone is logged, and tried later.
    """
    todo = _plan(ctx, concern, facts)
    is_settled = True
    for op in todo:
        if op.action == "delete":
            is_settled = await _undo(ctx, _fact(op)) and is_settled
    for claim in unwanted_ipam(ctx, concern):
        is_settled = await ipam_plugin.release(ctx, claim) and is_settled
    if not is_settled:
        ctx.settling.has_left_overs.set()
    for op in todo:
        if op.action != "delete" and _fact(op).kind == "external":
            await _program_external(ctx, _fact(op))
    for each in joined:
        await _look_at(ctx, each)


def _fact(op: Op) -> PluginFact:
    return cast(PluginFact, op.object)


def _plan(ctx: Context, concern: Concern, facts: HostFacts) -> tuple[Op, ...]:
    ids = frozenset((*concern.networks, *concern.sandboxes))
    wanted = render(desired(ctx, concern.networks, concern.sandboxes), facts, ids).told()
    return plan(wanted, found(ctx, concern)).ops


def found(ctx: Context, concern: Concern | None = None) -> KernelState:
    """What plugins know, of a concern or altogether."""
    facts = [
        _fact_of(claim)
        for claim in plugin_claims.of(ctx)
        if claim.kind not in ("pool", "address") and (concern is None or _is_within(claim, concern))
    ]
    return KernelState({each.key: each for each in facts})


def _is_within(claim: PluginClaim, concern: Concern) -> bool:
    return claim.sandbox_id in concern.sandboxes if claim.sandbox_id else claim.network_id in concern.networks


def _fact_of(claim: PluginClaim) -> PluginFact:
    return PluginFact(
        claim.plugin,
        cast(PluginKind, claim.kind),
        claim.network_id,
        claim.endpoint_id,
        claim.netns,
        claim.is_held and not claim.is_over,
    )


def unwanted_ipam(ctx: Context, concern: Concern | None = None) -> list[PluginClaim]:
    """What nobody needs any more of a concern, or altogether: addresses first, then the pools they came from."""
    active = {
        each.id
        for network_id in {claim.network_id for claim in plugin_claims.of(ctx)}
        for each in ctx.tables.endpoints.all(ctx.shared, network_id)
        if each.is_active
    }
    unwanted: list[PluginClaim] = []
    for claim in plugin_claims.of(ctx):
        if claim.kind not in ("pool", "address"):
            continue
        if claim.network_id in ctx.settling.asking or claim.endpoint_id in ctx.settling.asking:
            continue
        is_gone = ctx.tables.networks.get(ctx.shared, claim.network_id) is None
        if claim.endpoint_id:
            if claim.endpoint_id not in active and (concern is None or claim.sandbox_id in concern.sandboxes):
                unwanted.append(claim)
        elif is_gone and (concern is None or claim.network_id in concern.networks):
            unwanted.append(claim)
    return sorted(unwanted, key=lambda each: each.kind)


# Doing and undoing


def _network(ctx: Context, fact: PluginFact) -> Network:
    network = ctx.tables.networks.get(ctx.shared, fact.network_id)
    if network is None:
        raise Internal(f"network {fact.network_id} went while its plugin {fact.plugin} was told of it")
    return network


def _endpoint(ctx: Context, fact: PluginFact) -> Endpoint:
    endpoint = ctx.tables.endpoints.get(ctx.shared, fact.network_id, fact.endpoint_id)
    if endpoint is None:
        raise Internal(f"endpoint {fact.endpoint_id} went while its plugin {fact.plugin} was told of it")
    return endpoint


def _container_name(ctx: Context, endpoint: Endpoint) -> str:
    container = ctx.tables.containers.get(ctx.local, endpoint.container_id)
    return container.name if container is not None else endpoint.container_id[:12]


async def _create_network(ctx: Context, fact: PluginFact) -> None:
    claim = PluginClaim(plugin=fact.plugin, kind="network", network_id=fact.network_id)
    known = plugin_claims.get(ctx, claim)
    if known is not None and known.is_held:
        return
    network = _network(ctx, fact)
    pools = [each for each in plugin_claims.of(ctx, network.id, "pool") if each.is_held]
    spaces = {each.address: each.address_space for each in pools}
    request = CreateNetwork(
        network_id=network.id,
        options=network_options(network.spec),
        ipv4_data=ipam_data(network, 4, spaces),
        ipv6_data=ipam_data(network, 6, spaces),
    )
    await _do(ctx, claim, "CreateNetwork", request)


async def _do(ctx: Context, claim: PluginClaim, method: str, request: msgspec.Struct) -> None:
    """Intend, call, hold. A plugin that says no holds nothing; one that does not answer may."""
    await plugin_claims.intend(ctx, claim)
    try:
        await ask(ctx, claim.plugin, f"{NETWORK_DRIVER}.{method}", request, Answer)
    except DariError as error:
        await _forget_refused(ctx, claim, error)
        raise
    await plugin_claims.hold(ctx, claim)


async def _forget_refused(ctx: Context, claim: PluginClaim, error: DariError) -> None:
    if isinstance(error, PluginError) and error.is_answered:
        await plugin_claims.forget(ctx, [claim])


async def _create_endpoint(ctx: Context, fact: PluginFact) -> None:
    network, endpoint = _network(ctx, fact), _endpoint(ctx, fact)
    claim = _endpoint_claim(fact, endpoint)
    container = ctx.tables.containers.get(ctx.local, endpoint.container_id)
    asked = InterfaceBody(
        address=f"{endpoint.ipv4}/{endpoint.ipv4_prefix}" if endpoint.ipv4 else "",
        address_ipv6=f"{endpoint.ipv6}/{endpoint.ipv6_prefix}" if endpoint.ipv6 else "",
        mac_address=endpoint.mac,
    )
    request = CreateEndpoint(
        network_id=network.id,
        endpoint_id=endpoint.id,
        interface=asked,
        options=endpoint_options(container, endpoint),
    )
    refusal = f"failed to create endpoint {_container_name(ctx, endpoint)} on network {network.name}"
    await plugin_claims.intend(ctx, claim)
    try:
        method = f"{NETWORK_DRIVER}.CreateEndpoint"
        answer = await ask(ctx, fact.plugin, method, request, CreateEndpointAnswer)
    except DariError as error:
        await _forget_refused(ctx, claim, error)
        raise _prefixed(error, refusal) from error
    try:
        told = answers.with_interface(endpoint, asked, answer.interface)
    except ValueError as error:
        await _undo(ctx, fact)
        raise Internal(f"{refusal}: {error}; rolled back") from error
    await plugin_claims.hold(ctx, claim, lambda txn: _put(ctx, txn, told))


def _prefixed(error: DariError, text: str) -> DariError:
    message = f"{text}: {error.message}"
    if isinstance(error, PluginError):
        return PluginError(message, is_answered=error.is_answered)
    return Internal(message)


def _endpoint_claim(fact: PluginFact, endpoint: Endpoint) -> PluginClaim:
    return PluginClaim(
        plugin=fact.plugin,
        kind=fact.kind,
        network_id=fact.network_id,
        endpoint_id=fact.endpoint_id,
        sandbox_id=endpoint.sandbox_id,
        netns=fact.netns,
    )


def _put(ctx: Context, txn: Txn, endpoint: Endpoint) -> None:
    ctx.tables.endpoints.put(txn, endpoint, endpoint.network_id, endpoint.id)


async def _join(ctx: Context, fact: PluginFact) -> None:
    endpoint = _endpoint(ctx, fact)
    claim = _endpoint_claim(fact, endpoint)
    container = ctx.tables.containers.get(ctx.local, endpoint.container_id)
    sandbox = ctx.tables.sandboxes.get(ctx.local, endpoint.sandbox_id)
    request = Join(
        network_id=fact.network_id,
        endpoint_id=fact.endpoint_id,
        sandbox_key=sandbox.netns if sandbox is not None else "",
        options=port_options(container) if container is not None else {},
    )
    await plugin_claims.intend(ctx, claim)
    try:
        answer = await ask(ctx, fact.plugin, f"{NETWORK_DRIVER}.Join", request, JoinAnswer)
    except DariError as error:
        await _forget_refused(ctx, claim, error)
        raise
    try:
        told = await _joined(ctx, endpoint, answer)
    except ValueError as error:
        await _undo(ctx, fact)
        raise Internal(f"plugin {fact.plugin}: {error}; rolled back") from error
    await plugin_claims.hold(ctx, claim, lambda txn: _put(ctx, txn, told))


async def _look_at(ctx: Context, fact: PluginFact) -> None:
    """Docker asks how an endpoint does once it works; a plugin that knows nothing of it is none the worse."""
    try:
        ref = EndpointRef(network_id=fact.network_id, endpoint_id=fact.endpoint_id)
        await ask(ctx, fact.plugin, f"{NETWORK_DRIVER}.EndpointOperInfo", ref, EndpointInfoAnswer)
    except DariError as error:
        log.info(
            "plugin %s tells nothing of endpoint %s: %s", fact.plugin, fact.endpoint_id[:12], error.message
        )


async def _joined(ctx: Context, endpoint: Endpoint, answer: JoinAnswer) -> Endpoint:
    """The endpoint with its interface, gateways and routes. Raises ValueError where the answer is no good."""
    name = answer.interface_name
    source = (name.src_name if name is not None else "") or ""
    mac, interface = endpoint.mac, endpoint.interface
    if source:
        own = await in_kernel(ctx, lambda: ctx.kernel.mac_of(source))
        if not own:
            raise ValueError(f"Join: there is no interface {source} in the host's namespace")
        mac = mac or own
        assert name is not None
        interface = name.dst_name or _free_name(ctx, endpoint, name.dst_prefix or "")
    routes = [
        answers.route(one.destination or "", one.route_type or 0, one.next_hop or "")
        for one in answer.static_routes or []
    ]
    return msgspec.structs.replace(
        endpoint,
        host_interface=source,
        interface=interface,
        mac=mac,
        gateway=answers.gateway("Gateway", answer.gateway, 4),
        gateway6=answers.gateway("GatewayIPv6", answer.gateway_ipv6, 6) if endpoint.ipv6 else "",
        routes=routes,
    )


def _free_name(ctx: Context, endpoint: Endpoint, prefix: str) -> str:
    """The name decided when the endpoint became active, where the plugin's prefix agrees; else its first free one."""
    if not prefix or endpoint.interface.rstrip("0123456789") == prefix:
        return endpoint.interface
    taken = {each.interface for each in of_sandbox(ctx, endpoint.sandbox_id) if each.id != endpoint.id}
    return next(f"{prefix}{n}" for n in range(len(taken) + 1) if f"{prefix}{n}" not in taken)


async def _program_external(ctx: Context, fact: PluginFact) -> None:
    endpoint = _endpoint(ctx, fact)
    container = ctx.tables.containers.get(ctx.local, endpoint.container_id)
    claim = _endpoint_claim(fact, endpoint)
    options = port_options(container) if container is not None else {}
    request = ProgramExternal(network_id=fact.network_id, endpoint_id=fact.endpoint_id, options=options)
    await plugin_claims.intend(ctx, claim)
    try:
        await ask(ctx, fact.plugin, f"{NETWORK_DRIVER}.ProgramExternalConnectivity", request, Answer)
    except DariError as error:
        if _is_unknown_call(error):
            await plugin_claims.hold(ctx, claim)
            return
        await _forget_refused(ctx, claim, error)
        name = _container_name(ctx, endpoint)
        raise _prefixed(
            error, f"driver failed programming external connectivity on endpoint {name} ({endpoint.id})"
        ) from error
    await plugin_claims.hold(ctx, claim)


def _is_unknown_call(error: DariError) -> bool:
    """It is not mandatory to know the calls about external connectivity."""
    cause = error.__cause__
    return getattr(cause, "status", 0) == _NOT_FOUND


_UNDOING: dict[PluginKind, str] = {
    "network": "DeleteNetwork",
    "endpoint": "DeleteEndpoint",
    "join": "Leave",
    "external": "RevokeExternalConnectivity",
}


async def _undo(ctx: Context, fact: PluginFact) -> bool:
    """Whether it is settled. Errors are logged, as Docker does: what goes must not be held up by its plugin."""
    claim = PluginClaim(
        plugin=fact.plugin, kind=fact.kind, network_id=fact.network_id, endpoint_id=fact.endpoint_id
    )
    known = plugin_claims.get(ctx, claim)
    if known is None:
        return True
    request: msgspec.Struct = NetworkRef(network_id=fact.network_id)
    if fact.endpoint_id:
        request = EndpointRef(network_id=fact.network_id, endpoint_id=fact.endpoint_id)
    return await plugin_claims.take_back(ctx, known, f"{NETWORK_DRIVER}.{_UNDOING[fact.kind]}", request)
