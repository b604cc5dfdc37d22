"""Publishing and unpublishing ports of a container that exists, running or not, without making it anew.

What is asked goes into the container's own settings, so that it holds over restarts, and at once into the kernel
where it runs. Must not know: JSON, rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from dari.engine.base import Engine, commit
from dari.engine.lookup import find_container
from dari.engine.validate import check_ports, parse_port, parse_range
from dari.model.container import Container, PortBinding
from dari.model.errors import Conflict, Forbidden, InvalidArgument, NotFound, PortInUse
from dari.model.network import Endpoint, Network, PublishedPort, Sandbox
from dari.net.unpublish import Target, left_of, without
from dari.reconcile import ports
from dari.reconcile.containers import is_alive
from dari.reconcile.context import Context
from dari.reconcile.journal import emit
from dari.reconcile.kernel import in_kernel
from dari.reconcile.networks import gateway_endpoint, of_sandbox
from dari.reconcile.rows import event
from dari.reconcile.settle import settle, settle_quietly
from dari.store.base import Txn, TxnConflict

_TRIES = 16
Bindings = Mapping[str, Sequence[PortBinding]]


def published(eng: Engine, ref: str) -> list[PublishedPort]:
    """What a container publishes now; a range is one entry. Raises NotFound."""
    sandbox = eng.ctx.tables.sandboxes.get(eng.ctx.local, find_container(eng, ref).sandbox_id)
    return sandbox.ports if sandbox is not None else []


async def publish(eng: Engine, ref: str, bindings: Bindings) -> list[PublishedPort]:
    """Publish more ports; those that were added (none where the container does not run: it will have them when it
    starts).

    Raises NotFound, InvalidArgument, PortInUse, Conflict (no network that could, being removed), Internal; then
    nothing is changed.
    """
    check_ports(bindings)
    if not bindings:
        raise InvalidArgument("no port to publish: give at least one")
    ctx = eng.ctx
    container = find_container(eng, ref)
    ephemeral = (await in_kernel(ctx, ctx.kernel.facts)).ephemeral_ports
    async with ctx.lock(container.id):
        for _ in range(_TRIES):
            container, sandbox = _own(eng, container.id)
            asked = _with_protocols(bindings)
            _check_new(container, asked)
            txn = Txn()
            added: list[PublishedPort] = []
            if is_alive(container):
                network, endpoint = _publisher(ctx, container, sandbox)
                added = ports.claim(ctx, txn, container, sandbox, network, endpoint, ephemeral, asked)
                if not added:
                    raise Conflict(_unable(container))
                whole = msgspec.structs.replace(sandbox, ports=ports.in_order([*sandbox.ports, *added]))
                ctx.tables.sandboxes.replace(txn, ctx.local, whole, sandbox.id)
            _put(ctx, txn, container, _joined(container.host.port_bindings, asked))
            try:
                await commit(eng, txn)
            except TxnConflict:
                continue
            try:
                await _in_force(ctx, container, sandbox)
            except BaseException:
                await _take_back(eng, container, sandbox, added)
                raise
            return added
    raise Conflict(f"container {container.name} is being changed by other requests, try again")


async def unpublish(eng: Engine, ref: str, target: Target) -> list[PublishedPort]:
    """Take ports away; those that were published. Raises NotFound, Conflict, Internal."""
    ctx = eng.ctx
    container = find_container(eng, ref)
    async with ctx.lock(container.id):
        for _ in range(_TRIES):
            container, sandbox = _own(eng, container.id)
            txn = Txn()
            kept, gone = left_of(sandbox.ports, target)
            left = without(container.host.port_bindings, target, gone)
            if not gone and left == container.host.port_bindings:
                raise NotFound(f"container {container.name} publishes no port {target}")
            if gone:
                ports.release(ctx, txn, sandbox, gone)
                whole = msgspec.structs.replace(sandbox, ports=ports.in_order(kept))
                ports.reclaim(ctx, txn, sandbox, kept)
                ctx.tables.sandboxes.replace(txn, ctx.local, whole, sandbox.id)
            _put(ctx, txn, container, left)
            try:
                await commit(eng, txn)
            except TxnConflict:
                continue
            await _in_force(ctx, container, sandbox)
            return gone
    raise Conflict(f"container {container.name} is being changed by other requests, try again")


def target(port: str, host_ip: str = "", host_port: int = 0) -> Target:
    """`80-90/tcp`. Raises InvalidArgument."""
    number, protocol = parse_port(port)
    span = parse_range(port.partition("/")[0])
    if span is None or not number:
        raise InvalidArgument(f'invalid port specification: "{port}"')
    return Target(protocol, span[0], span[1], host_ip.strip("[]"), host_port)


def _own(eng: Engine, container_id: str) -> tuple[Container, Sandbox]:
    container = find_container(eng, container_id)
    if container.status.state in ("removing", "dead"):
        raise Conflict(f"container {container.name} is marked for removal: its ports cannot change")
    sandbox = eng.ctx.tables.sandboxes.get(eng.ctx.local, container.sandbox_id)
    if sandbox is None or sandbox.container_id != container.id or sandbox.mode != "own":
        raise Forbidden(
            f"container {container.name} has no network of its own: ports are published by the container whose "
            "network it shares, and not at all with the host's"
        )
    return container, sandbox


def _publisher(ctx: Context, container: Container, sandbox: Sandbox) -> tuple[Network, Endpoint]:
    active = [each for each in of_sandbox(ctx, sandbox.id) if each.is_active]
    endpoint = gateway_endpoint(ctx, active)
    network = ctx.tables.networks.get(ctx.shared, endpoint.network_id) if endpoint is not None else None
    if endpoint is None or network is None:
        raise Conflict(_unable(container))
    return network, endpoint


def _unable(container: Container) -> str:
    return (
        f"container {container.name} cannot publish ports: none of its networks leads to the host with an address of "
        "that family; connect it to a bridge network that is not internal"
    )


def _with_protocols(bindings: Bindings) -> dict[str, list[PortBinding]]:
    found: dict[str, list[PortBinding]] = {}
    for name, wants in bindings.items():
        text, _, protocol = name.partition("/")
        found.setdefault(f"{text}/{protocol.lower() or 'tcp'}", []).extend(wants or [PortBinding()])
    return found


def _check_new(container: Container, asked: Bindings) -> None:
    for name, wants in asked.items():
        for want in wants:
            has_port = want.host_port not in ("", "0")
            if has_port and want in container.host.port_bindings.get(name, ()):
                where = f"{want.host_ip or '0.0.0.0'}:{want.host_port}"
                raise PortInUse(f"container {container.name} publishes {name} at {where} already")


def _joined(old: Bindings, new: Bindings) -> dict[str, list[PortBinding]]:
    return {
        name: [*old.get(name, ()), *new.get(name, ())] for name in (*old, *(n for n in new if n not in old))
    }


def _put(ctx: Context, txn: Txn, container: Container, bindings: dict[str, list[PortBinding]]) -> None:
    host = msgspec.structs.replace(container.host, port_bindings=bindings)
    changed = msgspec.structs.replace(container, host=host)
    ctx.tables.containers.replace(txn, ctx.local, changed, container.id)
    emit(ctx, txn, event(changed, "update"))


async def _in_force(ctx: Context, container: Container, sandbox: Sandbox) -> None:
    if is_alive(container):
        await settle(ctx, sandbox.id)
    elif ctx.holds.is_stale:
        ports.hold(ctx)


async def _take_back(eng: Engine, was: Container, sandbox: Sandbox, added: list[PublishedPort]) -> None:
    """The kernel refused: the store says again what it said."""
    ctx = eng.ctx
    container, now = _own(eng, was.id)
    txn = Txn()
    ports.release(ctx, txn, sandbox, added)
    kept = [each for each in now.ports if each not in added]
    ctx.tables.sandboxes.put(txn, msgspec.structs.replace(now, ports=kept), sandbox.id)
    _put(ctx, txn, container, was.host.port_bindings)
    await commit(eng, txn)
    await settle_quietly(ctx, sandbox.id)
