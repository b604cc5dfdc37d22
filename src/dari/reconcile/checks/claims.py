"""Rows without an owner, and host ports somebody else listens on as well.

Must not know: how anything is mended.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import msgspec

from dari.model.finding import Finding
from dari.reconcile import ports
from dari.reconcile.checks.found import Found
from dari.reconcile.context import Context
from dari.store.base import ABSENT, Txn
from dari.units import is_global_id

LEASES_AT_ONCE = 60
"""Of shared networks: etcd takes 128 checks in a transaction, and the end of a lease has two."""

_FIX = "dari doctor --fix"
_SOCKET = re.compile(r"socket:\[(\d+)\]")


class _Activity(msgspec.Struct, gc=False):
    """What is needed of an endpoint's row here: those of a whole cluster are looked at, and not kept."""

    is_active: bool = False


_activity = msgspec.json.Decoder(_Activity).decode
_text = msgspec.json.Decoder(str).decode


def look(ctx: Context) -> list[Found]:
    return [*_leases(ctx), *_claims(ctx), *_listeners(ctx)]


def add_frees(ctx: Context, txn: Txn) -> None:
    """Add to `txn` the end of every lease and claim of this host's own without an owner."""
    for parts in orphaned_leases(ctx):
        if not is_global_id(parts[0]):
            add_lease_end(ctx, txn, parts)
    for parts in orphaned_claims(ctx):
        ctx.tables.ports.delete(txn, *parts)


def shared_orphans(ctx: Context) -> list[tuple[str, ...]]:
    """The leases without an owner on networks of several hosts."""
    return [parts for parts in orphaned_leases(ctx) if is_global_id(parts[0])]


def add_shared_frees(ctx: Context, txn: Txn) -> None:
    """Add to `txn` the end of the first of those, as many as a store takes at once."""
    for parts in shared_orphans(ctx)[:LEASES_AT_ONCE]:
        add_lease_end(ctx, txn, parts)


def orphaned_leases(ctx: Context) -> list[tuple[str, ...]]:
    return [parts for parts in ctx.tables.leases.keys(ctx.local) if not is_held(ctx, parts)]


def is_held(ctx: Context, parts: tuple[str, ...]) -> bool:
    """By an endpoint of any node: on shared networks everybody's leases are seen."""
    owner = _owner(ctx, parts)
    endpoint = ctx.shared.get(ctx.tables.endpoints.key(parts[0], owner)) if owner else None
    return endpoint is not None and _activity(endpoint.value).is_active


def _owner(ctx: Context, parts: tuple[str, ...]) -> str:
    row = ctx.shared.get(ctx.tables.leases.key(*parts))
    return _text(row.value) if row is not None else ""


def add_lease_end(ctx: Context, txn: Txn, parts: tuple[str, ...]) -> None:
    """Add to `txn` the end of a lease, unless it is another's by then or its endpoint is there after all: lease and
    endpoint come in one transaction, but this host may hear of them one by one."""
    owner = _owner(ctx, parts)
    if not owner:
        return
    keys = (ctx.tables.leases.key(*parts), ctx.tables.endpoints.key(parts[0], owner))
    for key, row in zip(keys, map(ctx.shared.get, keys), strict=True):
        txn.checks[key] = row.revision if row is not None else ABSENT
    ctx.tables.leases.delete(txn, *parts)


def orphaned_claims(ctx: Context) -> list[tuple[str, ...]]:
    owned = {
        (each.id, *ports.claim_parts(port))
        for each in ctx.tables.sandboxes.all(ctx.local)
        for port in each.ports
    }
    return [
        parts
        for parts in ctx.tables.ports.keys(ctx.local)
        if (ctx.tables.ports.get(ctx.local, *parts), *parts) not in owned
    ]


def _leases(ctx: Context) -> Iterator[Found]:
    for network_id, address in orphaned_leases(ctx):
        network = ctx.tables.networks.get(ctx.shared, network_id)
        finding = Finding(
            "lease.orphaned",
            "warning",
            f"network {network.name if network else network_id[:12]}",
            f"address {address} is taken and no container has it",
            "its owner went without giving it back",
            _FIX,
            True,
        )
        yield Found(finding, "claims")


def _claims(ctx: Context) -> Iterator[Found]:
    for protocol, address, port in orphaned_claims(ctx):
        finding = Finding(
            "port.orphaned",
            "warning",
            "host",
            f"port {address}:{port}/{protocol} is taken and no container publishes it",
            "its owner went without giving it back",
            _FIX,
            True,
        )
        yield Found(finding, "claims")


def _listeners(ctx: Context) -> Iterator[Found]:
    """Published ports that are not held by darid: somebody took one while it was away. A published port is
    translated before a socket of the host could get the packet."""
    owners = {each.id: each for each in ctx.tables.sandboxes.all(ctx.local)}
    for claim, port, sandbox_id in ports.lost(ctx):
        sandbox = owners.get(sandbox_id)
        container = ctx.tables.containers.get(ctx.local, sandbox.container_id) if sandbox else None
        pid, program = _listener(claim.protocol, port)
        who = f"{program} (pid {pid})" if pid else "a process"
        finding = Finding(
            "port.shadowed",
            "warning",
            f"container {container.name}" if container else "host",
            f"{who} of the host has port {port}/{claim.protocol} too, which it publishes",
            "packets go to the container, and that process hears nothing",
            "stop the process, or publish another port",
        )
        yield Found(finding)


def _listener(protocol: str, port: int) -> tuple[str, str]:
    """The pid and name of the process that has this port; empty where it cannot be told."""
    inodes = set()
    for name in (protocol, f"{protocol}6"):
        try:
            with open(f"/proc/net/{name}", encoding="ascii") as file:
                rows = [line.split() for line in file][1:]
        except FileNotFoundError:
            continue
        for row in rows:
            # 0A: listening; a UDP socket without a peer is 07.
            if int(row[1].rpartition(":")[2], 16) == port and row[3] in ("0A", "07"):
                inodes.add(row[9])
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                match = _SOCKET.match(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
                if match and match[1] in inodes:
                    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                        return pid, file.read().strip()
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            # It ended meanwhile.
            continue
    return "", ""
