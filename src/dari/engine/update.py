"""Changing the limits and the restart policy of a container that exists, running or not.

Must not know: JSON, cgroups. Source: Docker Engine API v1.51, `ContainerUpdate`.
"""

from __future__ import annotations

import os

import msgspec

from dari.engine.base import Engine
from dari.engine.lookup import find_container
from dari.engine.validate import HostLimits, check_least_memory, check_resources, check_restart_policy
from dari.model.container import HostConfig
from dari.model.errors import Conflict
from dari.reconcile.containers import is_alive
from dari.reconcile.rows import change, event
from dari.runtime.hostfacts import memory_nodes

_FIELD_TEXT = """
cpu_shares memory nano_cpus cgroup_parent blkio_weight blkio_weight_device blkio_device_read_bps
blkio_device_write_bps blkio_device_read_iops blkio_device_write_iops cpu_period cpu_quota cpu_realtime_period
cpu_realtime_runtime cpuset_cpus cpuset_mems devices device_cgroup_rules memory_reservation memory_swap
memory_swappiness oom_kill_disable pids_limit ulimits
"""
_FIELDS = _FIELD_TEXT.split()


def merged(host: HostConfig, asked: HostConfig, *, has_policy: bool) -> HostConfig:
    """`host` with what `asked` sets; zero, empty and null mean unchanged. Raises Conflict."""
    if asked.nano_cpus and (host.cpu_period or host.cpu_quota):
        raise Conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Period or Quota has already been set"
        )
    for value, name in ((asked.cpu_period, "Period"), (asked.cpu_quota, "Quota")):
        if value and host.nano_cpus:
            raise Conflict(
                f"Conflicting options: CPU {name} cannot be updated as NanoCPUs has already been set"
            )
    # No limit is 0 and an endless one -1: Docker refuses there as well.
    if asked.memory > host.memory_swap and not asked.memory_swap:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    plain = HostConfig()
    changed = {name: value for name in _FIELDS if (value := getattr(asked, name)) != getattr(plain, name)}
    if has_policy and asked.restart_policy.name:
        changed["restart_policy"] = asked.restart_policy
    if asked.pids_limit is not None and asked.pids_limit <= 0:
        changed["pids_limit"] = 0
    return msgspec.structs.replace(host, **changed)


async def update(eng: Engine, ref: str, asked: HostConfig, *, has_policy: bool) -> list[str]:
    """Warnings. A living container's limits change at once; where the kernel refuses, nothing changed.

    Raises NotFound, InvalidArgument, Conflict, Internal.
    """
    container = find_container(eng, ref)
    ctx = eng.ctx
    async with ctx.lock(container.id):
        container = find_container(eng, container.id)
        if container.status.state in ("removing", "dead"):
            raise Conflict(f'Container is marked for removal and cannot be "update".: {container.id}')
        if has_policy:
            check_restart_policy(asked.restart_policy)
            if container.host.auto_remove and asked.restart_policy.name not in ("", "no"):
                raise Conflict(
                    f"Cannot update container {container.id}: Restart policy cannot be updated because "
                    "AutoRemove is enabled for the container"
                )
        check_least_memory(asked)
        try:
            host = merged(container.host, asked, has_policy=has_policy)
        except Conflict as refused:
            raise Conflict(f"Cannot update container {container.id}: {refused.message}") from None
        warnings = check_resources(host, HostLimits(os.cpu_count() or 1, memory_nodes()))
        if is_alive(container):
            warnings += await ctx.runtime.update(container.id, host)
        await change(
            ctx,
            container.id,
            lambda row: msgspec.structs.replace(row, host=host),
            lambda row: event(row, "update"),
        )
    return warnings
