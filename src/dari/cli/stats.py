"""`dari stats`: resource use of running containers, redrawn each second."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dari.cli.context import Context
from dari.cli.flags import Flag, Options, verb
from dari.cli.listing import FORMAT, NO_TRUNC, show
from dari.units import format_size, short_id

_COLUMNS = {
    "CONTAINER ID": "ID",
    "NAME": "Name",
    "CPU %": "CPUPerc",
    "MEM USAGE / LIMIT": "MemUsage",
    "MEM %": "MemPerc",
    "NET I/O": "NetIO",
    "BLOCK I/O": "BlockIO",
    "PIDS": "PIDs",
}


@verb(
    "stats",
    "[OPTIONS] [CONTAINER...]",
    "Display a live stream of container(s) resource usage statistics",
    Flag("all", "bool", "Show all containers (default shows just running)", "a"),
    FORMAT,
    Flag("no-stream", "bool", "Disable streaming stats and only pull the first result"),
    NO_TRUNC,
)
def stats(context: Context, options: Options) -> int:
    with ThreadPoolExecutor(16) as pool:
        while True:
            started = time.monotonic()
            names = options.arguments or _names(context, options)
            found = list(pool.map(lambda name: _sample(context, name, bool(options.arguments)), names))
            rows = [row(sample, options.on("no-trunc")) for sample in found if sample is not None]
            if not options.on("no-stream") and os.isatty(1):
                context.write(b"\x1b[H\x1b[J")
            show(context, options, _COLUMNS, rows)
            if options.on("no-stream"):
                return 0
            time.sleep(max(0.0, 1.0 - (time.monotonic() - started)))


def _names(context: Context, options: Options) -> list[str]:
    found = context.docker.get("/containers/json", all=True if options.on("all") else None)
    return [str(container["Id"]) for container in found]


def _sample(context: Context, name: str, is_required: bool) -> dict[str, Any] | None:
    from dari.client.errors import ApiError

    try:
        found = context.docker.get(f"/containers/{name}/stats", stream=False)
    except ApiError as error:
        if error.status == 404 and not is_required:
            return None  # gone between the list and now
        raise
    assert isinstance(found, dict)
    return found


def row(sample: dict[str, Any], is_whole: bool) -> dict[str, str]:
    """The fields of one sample, computed as Docker's client does."""
    memory = sample.get("memory_stats") or {}
    detail = memory.get("stats") or {}
    # Page cache that can go at once is not "used": total_inactive_file on cgroup v1, inactive_file on v2.
    cache = detail.get("total_inactive_file", detail.get("inactive_file", 0))
    usage, limit = max(0, memory.get("usage", 0) - cache), memory.get("limit", 0)
    networks = (sample.get("networks") or {}).values()
    received = sum(network.get("rx_bytes", 0) for network in networks)
    sent = sum(network.get("tx_bytes", 0) for network in networks)
    blocks = (sample.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    read = sum(block["value"] for block in blocks if block["op"].lower() == "read")
    written = sum(block["value"] for block in blocks if block["op"].lower() == "write")
    name = sample.get("id", "")
    return {
        "ID": name if is_whole else short_id(name),
        "Container": name,
        "Name": sample.get("name", "").removeprefix("/"),
        "CPUPerc": f"{cpu_percent(sample):.2f}%",
        "MemUsage": f"{format_size(usage, binary=True)} / {format_size(limit, binary=True)}",
        "MemPerc": f"{usage / limit * 100 if limit else 0:.2f}%",
        "NetIO": f"{format_size(received)} / {format_size(sent)}",
        "BlockIO": f"{format_size(read)} / {format_size(written)}",
        "PIDs": str((sample.get("pids_stats") or {}).get("current", 0)),
    }


def cpu_percent(sample: dict[str, Any]) -> float:
    """Percent of one processor used between the sample's two readings."""
    now, before = sample.get("cpu_stats") or {}, sample.get("precpu_stats") or {}
    used = (now.get("cpu_usage") or {}).get("total_usage", 0) - (before.get("cpu_usage") or {}).get(
        "total_usage", 0
    )
    passed = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    cpus = now.get("online_cpus") or len((now.get("cpu_usage") or {}).get("percpu_usage") or ()) or 1
    return used / passed * cpus * 100 if passed > 0 and used > 0 else 0.0
