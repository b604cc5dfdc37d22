"""`dari update`: other limits or another restart policy for existing containers."""

from __future__ import annotations

from typing import Any

from dari.cli.container_config import restart_policy
from dari.cli.context import Context
from dari.cli.flags import Flag, Options, UsageError, verb
from dari.units import parse_size

_NUMBERS = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-shares": "CpuShares",
    "pids-limit": "PidsLimit",
}
_SIZES = {"memory": "Memory", "memory-reservation": "MemoryReservation", "memory-swap": "MemorySwap"}
_TEXTS = {"cpuset-cpus": "CpusetCpus", "cpuset-mems": "CpusetMems"}


@verb(
    "update",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Update configuration of one or more containers",
    Flag("blkio-weight", "int", "Block IO (relative weight), between 10 and 1000, or 0 to disable"),
    Flag("cpu-period", "int", "Limit CPU CFS (Completely Fair Scheduler) period"),
    Flag("cpu-quota", "int", "Limit CPU CFS (Completely Fair Scheduler) quota"),
    Flag("cpu-shares", "int", "CPU shares (relative weight)", "c"),
    Flag("cpus", "text", "Number of CPUs"),
    Flag("cpuset-cpus", "text", "CPUs in which to allow execution (0-3, 0,1)"),
    Flag("cpuset-mems", "text", "MEMs in which to allow execution (0-3, 0,1)"),
    Flag("memory", "text", "Memory limit", "m"),
    Flag("memory-reservation", "text", "Memory soft limit"),
    Flag("memory-swap", "text", "Swap limit equal to memory plus swap: -1 to enable unlimited swap"),
    Flag("pids-limit", "int", "Tune container pids limit (set -1 for unlimited)"),
    Flag("restart", "text", "Restart policy to apply when a container exits"),
    least=1,
)
def update(context: Context, options: Options) -> int:
    body: dict[str, Any] = {
        field: options.number(name) for name, field in _NUMBERS.items() if options.has(name)
    }
    body |= {field: options.text(name) for name, field in _TEXTS.items() if options.has(name)}
    try:
        for name, field in _SIZES.items():
            if options.has(name):
                text = options.text(name)
                body[field] = -1 if text == "-1" else parse_size(text)
        if options.has("cpus"):
            body["NanoCpus"] = round(float(options.text("cpus")) * 1e9)
        if options.has("restart"):
            body["RestartPolicy"] = restart_policy(options.text("restart"))
    except ValueError as error:
        raise UsageError(str(error)) from error
    if not body:
        raise UsageError("you must provide one or more flags when using this command")

    def one(name: str) -> None:
        found = context.docker.post(f"/containers/{name}/update", body) or {}
        for warning in found.get("Warnings") or ():
            context.complain(warning)

    return context.each(options.arguments, one)
