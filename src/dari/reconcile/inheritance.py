"""A sandbox that outlives its owner: it stays for the containers that share it, and the next container of the
owner's name takes it over.

A sandbox belongs to nobody's process. While somebody lives in it, the end of its owner changes nothing in it; when
the owner is removed it is left behind under the owner's name. A container of that name inherits it at its start: what
it wants of networks, addresses and ports is compared with what is there, and only the difference is changed, so that
those who stayed keep their connections. Why: docs/decisions/0009.
Must not know: namespaces, processes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable

import msgspec

from dari.model.container import Container
from dari.model.errors import Conflict
from dari.model.network import Endpoint, Sandbox
from dari.net.options import IFNAME
from dari.reconcile import endpoints, ports, zones
from dari.reconcile.attached import containers_in, of_sandbox
from dari.reconcile.context import Context
from dari.reconcile.names import Files, files_of, left_files
from dari.reconcile.rows import find
from dari.store.base import Txn, TxnConflict

_TRIES = 16


def remove(ctx: Context, txn: Txn, container: Container) -> None:
    """Add to `txn` what the removal of a container means for its sandbox: it ends, or is left behind for others.

    The last of those others takes a left sandbox with it.
    """
    sandbox = ctx.tables.sandboxes.get(ctx.local, container.sandbox_id)
    if sandbox is None:
        return
    others = [each for each in containers_in(ctx, sandbox.id) if each.id != container.id]
    is_owner = sandbox.container_id == container.id
    if others and is_owner:
        if not sandbox.is_active:
            # Nobody runs in it: who inherits it brings endpoints of its own.
            endpoints.drop(ctx, txn, of_sandbox(ctx, sandbox.id))
        else:
            _forget_names(ctx, txn, sandbox)
        left = msgspec.structs.replace(sandbox, owner_name=container.name)
        ctx.tables.sandboxes.put(txn, left, sandbox.id)
    elif is_owner or (sandbox.owner_name and not others):
        end(ctx, txn, sandbox)


def _forget_names(ctx: Context, txn: Txn, sandbox: Sandbox) -> None:
    """Nobody answers to the names of a container that is gone; its addresses stay."""
    for endpoint in of_sandbox(ctx, sandbox.id):
        spec = msgspec.structs.replace(endpoint.spec, aliases=[])
        nameless = msgspec.structs.replace(endpoint, dns_names=[], spec=spec)
        ctx.tables.endpoints.put(txn, nameless, endpoint.network_id, endpoint.id)


def end(ctx: Context, txn: Txn, sandbox: Sandbox) -> None:
    """Add to `txn` the end of a sandbox, its endpoints, leases and ports."""
    endpoints.drop(ctx, txn, of_sandbox(ctx, sandbox.id))
    ports.release(ctx, txn, sandbox)
    ctx.tables.sandboxes.delete(txn, sandbox.id)


def keep_files(ctx: Context, container: Container) -> None:
    """Before the files of a container are removed: those that are bound into others are moved aside.

    Moved, not copied: what a running container has bound is the file, whatever its name.
    """
    sandbox = ctx.tables.sandboxes.get(ctx.local, container.sandbox_id)
    if sandbox is None or sandbox.container_id != container.id:
        return
    if any(each.id != container.id for each in containers_in(ctx, sandbox.id)):
        _move(files_of(ctx, container.id), left_files(ctx, sandbox.id))


def forget_files(ctx: Context, sandbox_id: str) -> None:
    """Remove what a left sandbox that is gone had; nothing there is fine."""
    if ctx.tables.sandboxes.get(ctx.local, sandbox_id) is None:
        shutil.rmtree(os.path.dirname(left_files(ctx, sandbox_id).hosts), ignore_errors=True)


def tidy(ctx: Context, txn: Txn) -> None:
    """Add to `txn` the end of left sandboxes nobody lives in, and remove files of sandboxes that are gone: a daemon
    was killed in the midst of a removal."""
    for sandbox in ctx.tables.sandboxes.all(ctx.local):
        if sandbox.owner_name and not containers_in(ctx, sandbox.id):
            end(ctx, txn, sandbox)
    folder = ctx.config.left_dir
    for sandbox_id in os.listdir(folder) if os.path.isdir(folder) else ():
        forget_files(ctx, sandbox_id)


async def take_over(ctx: Context, container_id: str) -> None:
    """Give a container about to start the sandboxes that were left behind under its name.

    Raises NotFound, Conflict where other requests keep changing the rows.
    """
    for _ in range(_TRIES):
        heir = find(ctx, container_id)
        own = ctx.tables.sandboxes.get(ctx.local, heir.sandbox_id)
        if own is None or own.container_id != heir.id or own.mode != "own":
            return
        lefts = [each for each in ctx.tables.sandboxes_left.get(ctx.local, heir.name) if each.id != own.id]
        if not lefts:
            break
        txn = Txn()
        _inherit(ctx, txn, heir, own, lefts)
        try:
            await ctx.local.commit(txn)
        except TxnConflict:
            continue
        break
    else:
        raise Conflict(f"container {heir.name} is being changed by other requests, try again")
    heir = find(ctx, container_id)
    _move(left_files(ctx, heir.sandbox_id), files_of(ctx, heir.id))
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(left_files(ctx, heir.sandbox_id).hosts))


def _inherit(ctx: Context, txn: Txn, heir: Container, own: Sandbox, lefts: list[Sandbox]) -> None:
    """One sandbox in which somebody runs becomes the heir's; those who only refer to one follow it there."""
    living = next((each for each in lefts if each.is_active), None) if not own.is_active else None
    kept = living or own
    moving: dict[str, Container] = {}
    for left in lefts:
        if left is not kept and not left.is_active:
            moving |= {each.id: each for each in containers_in(ctx, left.id)}
            end(ctx, txn, left)
    staying = {each.id: each for each in containers_in(ctx, kept.id)} if living else {}
    if living is not None:
        moving |= {each.id: each for each in containers_in(ctx, own.id)}
        _merge(ctx, txn, heir, own, living)
        ctx.tables.sandboxes.delete(txn, own.id)
    for each in (moving | staying).values():
        mode = each.host.network_mode if each.id == heir.id else f"container:{heir.id}"
        host = msgspec.structs.replace(each.host, network_mode=mode)
        row = msgspec.structs.replace(each, sandbox_id=kept.id, host=host)
        ctx.tables.containers.replace(txn, ctx.local, row, each.id)


def _merge(ctx: Context, txn: Txn, heir: Container, own: Sandbox, left: Sandbox) -> None:
    """The left sandbox with the heir's endpoints: those that fit stay as they are, on the kernel's side too."""
    asked = {each.network_id: each for each in of_sandbox(ctx, own.id)}
    for present in of_sandbox(ctx, left.id):
        wanted = asked.get(present.network_id)
        if wanted is None or not fits(present, wanted, heir):
            endpoints.drop(ctx, txn, [present])
            continue
        del asked[present.network_id]
        ctx.tables.endpoints.delete(txn, wanted.network_id, wanted.id)
        inherited = msgspec.structs.replace(
            present,
            container_id=heir.id,
            spec=wanted.spec,
            index=wanted.index,
            dns_names=endpoints.dns_names(ctx, heir, wanted),
            told=zones.told_of(heir) if present.node else {},
        )
        ctx.tables.endpoints.put(txn, inherited, present.network_id, present.id)
        endpoints.tell(ctx, txn, "connect", inherited, heir.id)
    for wanted in asked.values():
        moved = msgspec.structs.replace(wanted, sandbox_id=left.id)
        ctx.tables.endpoints.put(txn, moved, wanted.network_id, wanted.id)
    ports.release(ctx, txn, left)
    sandbox = msgspec.structs.replace(
        left, container_id=heir.id, owner_name="", ports=[], sysctls=own.sysctls, pending=own.pending
    )
    ctx.tables.sandboxes.put(txn, sandbox, left.id)


def fits(present: Endpoint, wanted: Endpoint, heir: Container) -> bool:
    """Whether an endpoint that is there is what was asked for, so that it need not be made anew."""
    spec, mac = wanted.spec, wanted.spec.mac_address or heir.config.mac_address
    return (
        spec.ipv4_address in ("", present.ipv4)
        and spec.ipv6_address in ("", present.ipv6)
        and mac.lower() in ("", present.mac)
        and spec.driver_opts.get(IFNAME, "") in ("", present.interface)
        and spec.link_local_ips == present.spec.link_local_ips
    )


def _move(source: Files, target: Files) -> None:
    pairs: Iterable[tuple[str, str]] = zip(
        (source.hosts, source.hostname, source.resolv),
        (target.hosts, target.hostname, target.resolv),
        strict=True,
    )
    for old, new in pairs:
        if os.path.exists(old):
            os.makedirs(os.path.dirname(new), mode=0o710, exist_ok=True)
            os.replace(old, new)
