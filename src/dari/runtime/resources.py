"""Limits of a container: cgroup resources, device rules, ulimits, as the OCI specification spells them.

Pure. What exists on this host (device numbers, the daemon's own limits) comes in as facts. Must not know: files,
cgroup versions. Source: OCI runtime specification, config-linux.md "Control groups"; Docker API HostConfig.
"""

from __future__ import annotations

import re
from typing import Any

from dari.model.container import HostConfig
from dari.model.errors import InvalidArgument
from dari.model.wire import Noun

_PERIOD = 100_000
_DEVICE_RULE = re.compile(r"([acb]) (\*|\d+):(\*|\d+) ([rwm]{1,3})\Z")

# mknod of anything, then use of: null full zero random urandom console tty ptmx pts.
_DEFAULT_DEVICES = [
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", 1, 3, "rwm"),
    ("c", 1, 5, "rwm"),
    ("c", 1, 7, "rwm"),
    ("c", 1, 8, "rwm"),
    ("c", 1, 9, "rwm"),
    ("c", 5, 0, "rwm"),
    ("c", 5, 1, "rwm"),
    ("c", 5, 2, "rwm"),
    ("c", 136, None, "rwm"),
]


class Device(Noun, frozen=True, kw_only=True):
    """A device node to be made at `path`; `kind` is `c` or `b`, `mode` the permission bits."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    permissions: str = "rwm"


def cgroup_resources(
    host: HostConfig, devices: list[Device], numbers: dict[str, tuple[int, int]]
) -> dict[str, Any]:
    """`linux.resources`. `numbers`: (major, minor) of the block devices the blkio limits name by path."""
    result: dict[str, Any] = {"devices": device_rules(host, devices)}
    for name, part in (("memory", memory(host)), ("cpu", cpu(host)), ("blockIO", blkio(host, numbers))):
        if part:
            result[name] = part
    if host.pids_limit is not None:
        # Without bound again, after an update.
        result["pids"] = {"limit": host.pids_limit or -1}
    return result


def memory(host: HostConfig) -> dict[str, Any]:
    """Bytes; swap is memory + swap, -1 without bound. A limit without a word about swap allows as much again."""
    result: dict[str, Any] = {}
    if host.memory > 0:
        result["limit"] = host.memory
        result["swap"] = host.memory_swap or host.memory * 2
    elif host.memory_swap:
        result["swap"] = host.memory_swap
    if host.memory_reservation > 0:
        result["reservation"] = host.memory_reservation
    if host.memory_swappiness is not None and host.memory_swappiness >= 0:
        result["swappiness"] = host.memory_swappiness
    if host.oom_kill_disable:
        result["disableOOMKiller"] = True
    return result


def cpu(host: HostConfig) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if host.cpu_shares:
        result["shares"] = host.cpu_shares
    if host.nano_cpus > 0:
        result["period"] = _PERIOD
        result["quota"] = host.nano_cpus * _PERIOD // 1_000_000_000
    else:
        if host.cpu_period:
            result["period"] = host.cpu_period
        if host.cpu_quota:
            result["quota"] = host.cpu_quota
    if host.cpu_realtime_period:
        result["realtimePeriod"] = host.cpu_realtime_period
    if host.cpu_realtime_runtime:
        result["realtimeRuntime"] = host.cpu_realtime_runtime
    if host.cpuset_cpus:
        result["cpus"] = host.cpuset_cpus
    if host.cpuset_mems:
        result["mems"] = host.cpuset_mems
    return result


def blkio(host: HostConfig, numbers: dict[str, tuple[int, int]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if host.blkio_weight:
        result["weight"] = host.blkio_weight
    if host.blkio_weight_device:
        result["weightDevice"] = [
            {"major": numbers[d.path][0], "minor": numbers[d.path][1], "weight": d.weight}
            for d in host.blkio_weight_device
        ]
    for name, throttles in (
        ("throttleReadBpsDevice", host.blkio_device_read_bps),
        ("throttleWriteBpsDevice", host.blkio_device_write_bps),
        ("throttleReadIOPSDevice", host.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", host.blkio_device_write_iops),
    ):
        if throttles:
            result[name] = [
                {"major": numbers[d.path][0], "minor": numbers[d.path][1], "rate": d.rate} for d in throttles
            ]
    return result


def blkio_paths(host: HostConfig) -> list[str]:
    """The block devices that limits name."""
    throttles = (
        host.blkio_device_read_bps
        + host.blkio_device_write_bps
        + host.blkio_device_read_iops
        + host.blkio_device_write_iops
    )
    return sorted({d.path for d in host.blkio_weight_device} | {d.path for d in throttles})


def device_rules(host: HostConfig, devices: list[Device]) -> list[dict[str, Any]]:
    """In order: the first denies all. Raises InvalidArgument for a rule that is none."""
    if host.privileged:
        return [{"allow": True, "access": "rwm"}]
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    for kind, major, minor, access in _DEFAULT_DEVICES:
        rule: dict[str, Any] = {"allow": True, "type": kind, "access": access}
        if major is not None:
            rule["major"] = major
        if minor is not None:
            rule["minor"] = minor
        rules.append(rule)
    rules.extend(
        {"allow": True, "type": d.kind, "major": d.major, "minor": d.minor, "access": d.permissions}
        for d in devices
    )
    for text in host.device_cgroup_rules:
        match = _DEVICE_RULE.match(text)
        if match is None:
            raise InvalidArgument(f"invalid device cgroup rule format: '{text}'")
        rule = {"allow": True, "type": match[1], "access": match[4]}
        if match[2] != "*":
            rule["major"] = int(match[2])
        if match[3] != "*":
            rule["minor"] = int(match[3])
        rules.append(rule)
    return rules


def rlimits(
    host: HostConfig, defaults: dict[str, str], own_hard: dict[str, int], may_raise: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """`process.rlimits` and warnings. -1 is "unlimited".

    `defaults` are the daemon's (`nofile=1024:4096`), `own_hard` the daemon's hard limits by name (-1 unlimited);
    without CAP_SYS_RESOURCE the kernel refuses to raise them (setrlimit(2)), so what exceeds them is cut.
    """
    wanted: dict[str, tuple[int, int]] = {}
    for name, text in defaults.items():
        low, _, high = text.partition(":")
        wanted[name] = (int(low), int(high or low))
    for limit in host.ulimits:
        wanted[limit.name] = (limit.soft, limit.hard)
    entries, warnings = [], []
    for name, (soft, hard) in wanted.items():
        bound = own_hard.get(name)
        if bound is None:
            raise InvalidArgument(f"invalid ulimit type: {name}")
        if hard != -1 and (soft == -1 or soft > hard):
            shown = "-1" if soft == -1 else str(soft)
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {shown} > {hard}"
            )
        if not may_raise and bound != -1 and (hard == -1 or hard > bound):
            warnings.append(
                f"ulimit {name}: hard limit {hard} lowered to {bound}: "
                "the daemon may not raise its own limit (CAP_SYS_RESOURCE)"
            )
            hard = bound
            soft = bound if soft == -1 or soft > bound else soft
        entries.append({"type": f"RLIMIT_{name.upper()}", "hard": _unsigned(hard), "soft": _unsigned(soft)})
    return entries, warnings


def _unsigned(value: int) -> int:
    return 2**64 - 1 if value == -1 else value
