"""One sample of what a container uses, in the shape and under the names of Docker's `GET /containers/{id}/stats`.

The caller adds id, name, times, and the sample before. Must not know: Docker's stream, networks.
Sources: cgroup-v1/memory.txt, blkio-controller.rst, cgroup-v2.rst; proc(5) stat, net/dev.
"""

from __future__ import annotations

import os
import time

from dari.model.wire import Noun
from dari.runtime.cgroups import Cgroups

_NANOSECONDS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
# Above this a version 1 limit means "none"; Docker shows the machine's memory then.
_NO_LIMIT = 1 << 60


class CpuUsage(Noun, frozen=True, kw_only=True):
    """Nanoseconds since the container's start."""

    total_usage: int = 0
    percpu_usage: list[int] | None = None
    usage_in_kernelmode: int = 0
    usage_in_usermode: int = 0


class ThrottlingData(Noun, frozen=True, kw_only=True):
    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0


class CpuStats(Noun, frozen=True, kw_only=True):
    """`system_cpu_usage`: nanoseconds all processors of the host have run."""

    cpu_usage: CpuUsage = CpuUsage()
    system_cpu_usage: int = 0
    online_cpus: int = 0
    throttling_data: ThrottlingData = ThrottlingData()


class MemoryStats(Noun, frozen=True, kw_only=True):
    """Bytes. `stats` are the kernel's own numbers by its names."""

    usage: int = 0
    max_usage: int = 0
    stats: dict[str, int] = {}
    failcnt: int = 0
    limit: int = 0


class PidsStats(Noun, frozen=True, kw_only=True):
    current: int = 0
    limit: int = 0


class BlkioEntry(Noun, frozen=True, kw_only=True):
    major: int
    minor: int
    op: str
    value: int


class BlkioStats(Noun, frozen=True, kw_only=True):
    io_service_bytes_recursive: list[BlkioEntry] = []
    io_serviced_recursive: list[BlkioEntry] = []
    io_queue_recursive: list[BlkioEntry] = []
    io_service_time_recursive: list[BlkioEntry] = []
    io_wait_time_recursive: list[BlkioEntry] = []
    io_merged_recursive: list[BlkioEntry] = []
    io_time_recursive: list[BlkioEntry] = []
    sectors_recursive: list[BlkioEntry] = []


class NetworkStats(Noun, frozen=True, kw_only=True):
    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


class Stats(Noun, frozen=True, kw_only=True):
    """`read` is ns since the epoch. `networks` by interface, loopback left out."""

    read: int
    cpu_stats: CpuStats
    memory_stats: MemoryStats
    pids_stats: PidsStats
    blkio_stats: BlkioStats
    networks: dict[str, NetworkStats] = {}


def sample(cgroups: Cgroups, path: str, pid: int) -> Stats:
    """`pid`: a process in the container's network namespace, 0 for no network numbers (host network)."""
    cpu, memory, pids, blkio = (
        _sample_v1(cgroups, path) if cgroups.version == 1 else _sample_v2(cgroups, path)
    )
    return Stats(
        read=time.time_ns(),
        cpu_stats=cpu,
        memory_stats=memory,
        pids_stats=pids,
        blkio_stats=blkio,
        networks=_networks(pid) if pid else {},
    )


def host_memory() -> int:
    """Bytes of memory of the machine."""
    with open("/proc/meminfo") as file:
        return int(file.readline().split()[1]) * 1024


def parse_network(text: str) -> dict[str, NetworkStats]:
    """/proc/<pid>/net/dev without loopback."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        numbers = [int(word) for word in rest.split()]
        if name.strip() == "lo" or len(numbers) < 12:
            continue
        found[name.strip()] = NetworkStats(
            rx_bytes=numbers[0],
            rx_packets=numbers[1],
            rx_errors=numbers[2],
            rx_dropped=numbers[3],
            tx_bytes=numbers[8],
            tx_packets=numbers[9],
            tx_errors=numbers[10],
            tx_dropped=numbers[11],
        )
    return found


def parse_blkio(text: str) -> list[BlkioEntry]:
    """`8:0 Read 4096` lines of version 1; the grand total is left out."""
    entries = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and ":" in words[0]:
            major, minor = words[0].split(":")
            entries.append(BlkioEntry(major=int(major), minor=int(minor), op=words[1], value=int(words[2])))
    return entries


def parse_io_stat(text: str) -> BlkioStats:
    """io.stat of version 2: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`."""
    moved: list[BlkioEntry] = []
    served: list[BlkioEntry] = []
    for line in text.splitlines():
        device, *pairs = line.split()
        if ":" not in device:
            continue
        major, minor = (int(part) for part in device.split(":"))
        values = dict(pair.split("=") for pair in pairs if "=" in pair)
        for key, op, entries in (
            ("rbytes", "read", moved),
            ("wbytes", "write", moved),
            ("rios", "read", served),
            ("wios", "write", served),
        ):
            if key in values:
                entries.append(BlkioEntry(major=major, minor=minor, op=op, value=int(values[key])))
    return BlkioStats(io_service_bytes_recursive=moved, io_serviced_recursive=served)


def _sample_v1(cgroups: Cgroups, path: str) -> tuple[CpuStats, MemoryStats, PidsStats, BlkioStats]:
    def text(controller: str, name: str) -> str:
        return _read(cgroups.file(path, controller, name))

    ticks = _pairs(text("cpuacct", "cpuacct.stat"))
    throttling = _pairs(text("cpu", "cpu.stat"))
    cpu = CpuStats(
        cpu_usage=CpuUsage(
            total_usage=_int(text("cpuacct", "cpuacct.usage")),
            percpu_usage=[int(word) for word in text("cpuacct", "cpuacct.usage_percpu").split()] or None,
            usage_in_kernelmode=ticks.get("system", 0) * _NANOSECONDS_PER_TICK,
            usage_in_usermode=ticks.get("user", 0) * _NANOSECONDS_PER_TICK,
        ),
        system_cpu_usage=_system_usage(),
        online_cpus=_online(),
        throttling_data=ThrottlingData(
            periods=throttling.get("nr_periods", 0),
            throttled_periods=throttling.get("nr_throttled", 0),
            throttled_time=throttling.get("throttled_time", 0),
        ),
    )
    limit = _int(text("memory", "memory.limit_in_bytes"))
    memory = MemoryStats(
        usage=_int(text("memory", "memory.usage_in_bytes")),
        max_usage=_int(text("memory", "memory.max_usage_in_bytes")),
        stats=_pairs(text("memory", "memory.stat")),
        failcnt=_int(text("memory", "memory.failcnt")),
        limit=host_memory() if limit == 0 or limit > _NO_LIMIT else limit,
    )
    pids = PidsStats(current=_int(text("pids", "pids.current")), limit=_int(text("pids", "pids.max")))
    blkio = BlkioStats(
        io_service_bytes_recursive=parse_blkio(text("blkio", "blkio.throttle.io_service_bytes_recursive")),
        io_serviced_recursive=parse_blkio(text("blkio", "blkio.throttle.io_serviced_recursive")),
    )
    return cpu, memory, pids, blkio


def _sample_v2(cgroups: Cgroups, path: str) -> tuple[CpuStats, MemoryStats, PidsStats, BlkioStats]:
    def text(name: str) -> str:
        return _read(cgroups.file(path, "", name))

    usage = _pairs(text("cpu.stat"))
    cpu = CpuStats(
        cpu_usage=CpuUsage(
            total_usage=usage.get("usage_usec", 0) * 1000,
            usage_in_kernelmode=usage.get("system_usec", 0) * 1000,
            usage_in_usermode=usage.get("user_usec", 0) * 1000,
        ),
        system_cpu_usage=_system_usage(),
        online_cpus=_online(),
        throttling_data=ThrottlingData(
            periods=usage.get("nr_periods", 0),
            throttled_periods=usage.get("nr_throttled", 0),
            throttled_time=usage.get("throttled_usec", 0) * 1000,
        ),
    )
    limit = _int(text("memory.max"))
    memory = MemoryStats(
        usage=_int(text("memory.current")),
        max_usage=_int(text("memory.peak")),
        stats=_pairs(text("memory.stat")),
        failcnt=_pairs(text("memory.events")).get("max", 0),
        limit=limit or host_memory(),
    )
    pids = PidsStats(current=_int(text("pids.current")), limit=_int(text("pids.max")))
    return cpu, memory, pids, parse_io_stat(text("io.stat"))


def _networks(pid: int) -> dict[str, NetworkStats]:
    return parse_network(_read(f"/proc/{pid}/net/dev"))


def _system_usage() -> int:
    with open("/proc/stat") as file:
        # user nice system idle iowait irq softirq; what follows is contained in them or stolen.
        return sum(int(word) for word in file.readline().split()[1:8]) * _NANOSECONDS_PER_TICK


def _online() -> int:
    return os.sysconf("SC_NPROCESSORS_ONLN")


def _pairs(text: str) -> dict[str, int]:
    return {
        words[0]: int(words[1])
        for line in text.splitlines()
        if len(words := line.split()) == 2 and words[1].isdigit()
    }


def _int(text: str) -> int:
    """0 for nothing and for `max`."""
    return int(text) if text.strip().isdigit() else 0


def _read(path: str) -> str:
    """Empty for a file this kernel does not have; a container may end while it is looked at."""
    if not path:
        return ""
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
