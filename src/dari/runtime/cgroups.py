"""Control groups of containers, both versions behind one door.

Version 1: dari makes the groups itself in every hierarchy and lets crun's process write *itself* into them; the
kernel needs no lock for that, while moving another process waits for a grace period (17 ms on an idle machine).
Version 2: crun makes the group, since its device rules are a BPF program. Must not know: containers.
Sources: Linux Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import shlex
import signal
from collections.abc import Iterator
from typing import Any, Protocol

from dari.model.errors import Internal, InvalidArgument
from dari.model.wire import Noun


class Hierarchy(Noun, frozen=True, kw_only=True):
    """A version 1 hierarchy: where it is mounted, which controllers it has (`name=systemd` is one)."""

    mountpoint: str
    controllers: list[str]


class Cgroups(Protocol):
    """`path` starts with a slash and is relative to the root of each hierarchy."""

    version: int

    def create(self, path: str) -> bool:
        """Whether there was none before; false where another may have left processes or limits in it."""

    def entering(self, path: str) -> list[str]:
        """A command line to put before another, so that it runs inside `path`; empty if crun enters itself."""

    def join(self, path: str) -> None:
        """Make `path` and put the calling thread there, and with it what it starts; version 1 only."""

    def move(self, path: str, pid: int) -> None:
        """Make `path` and put `pid` there; version 2 only, where threads cannot part."""

    def leave(self, path: str, pid: int) -> None:
        """Move `pid`, which entered `path`, up to its parent; nothing where `entering` is empty."""

    def apply(self, path: str, resources: dict[str, Any]) -> list[str]:
        """Set the limits of OCI `resources`; returns warnings. Raises InvalidArgument if the kernel refuses."""

    def file(self, path: str, controller: str, name: str) -> str:
        """Where `name` of `controller` is for `path`; empty if this host has no such controller."""

    def set_frozen(self, path: str, is_frozen: bool) -> None: ...

    def is_frozen(self, path: str) -> bool: ...

    def pids(self, path: str) -> list[int]:
        """Every process in `path` and below."""

    def children(self, path: str) -> list[str]:
        """The names of the groups right below `path`, in whatever hierarchy."""

    def remove(self, path: str) -> bool:
        """Remove `path` with all below; False if a process is still in it."""


def detect(mountinfo: str = "/proc/self/mountinfo", own: str = "/proc/self/cgroup") -> Cgroups:
    """The version this host uses. Raises Internal if none is mounted."""
    hierarchies: list[Hierarchy] = []
    unified = ""
    known = _controllers(own)
    with open(mountinfo) as file:
        for line in file:
            words = line.split()
            kind = words[words.index("-") + 1]
            if kind == "cgroup2":
                unified = unified or words[4]
            elif kind == "cgroup":
                options = set(words[-1].split(","))
                controllers = [name for name in known if name in options]
                if controllers and not any(h.controllers == controllers for h in hierarchies):
                    hierarchies.append(Hierarchy(mountpoint=words[4], controllers=controllers))
    if hierarchies:
        return CgroupsV1(hierarchies)
    if unified:
        return CgroupsV2(unified)
    raise Internal("no cgroup file system is mounted: mount cgroup2 on /sys/fs/cgroup")


async def freeze(cgroups: Cgroups, path: str, is_frozen: bool) -> None:
    """Freeze or thaw and wait until it is so. Raises Internal if it does not come about in ten seconds."""
    for attempt in range(2000):
        cgroups.set_frozen(path, is_frozen)
        if cgroups.is_frozen(path) == is_frozen:
            return
        await asyncio.sleep(min(0.0005 * (attempt + 1), 0.005))
    raise Internal(f"cgroup {path} is neither frozen nor thawed")


async def remove_all(cgroups: Cgroups, path: str) -> None:
    """Kill what is in `path`, then remove it. Raises Internal if processes stay for ten seconds."""
    for attempt in range(1000):
        if cgroups.remove(path):
            return
        kill_all(cgroups, path)
        await asyncio.sleep(min(0.001 * (attempt + 1), 0.01))
    raise Internal(f"cgroup {path} keeps processes {cgroups.pids(path)[:5]}: they cannot be killed")


def kill_all(cgroups: Cgroups, path: str) -> None:
    if cgroups.is_frozen(path):
        # A frozen process does not die (version 1).
        cgroups.set_frozen(path, False)
    for pid in cgroups.pids(path):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


class CgroupsV1:
    version = 1

    def __init__(self, hierarchies: list[Hierarchy]) -> None:
        self._hierarchies = hierarchies
        self._by_controller = {name: h.mountpoint for h in hierarchies for name in h.controllers}
        tops = " ".join(shlex.quote(h.mountpoint) for h in hierarchies)
        self._script = f'p=$1; shift; for h in {tops}; do echo 0 > "$h$p/tasks" || exit 1; done; exec "$@"'

    def create(self, path: str) -> bool:
        is_new = True
        for hierarchy in self._hierarchies:
            is_cpuset = "cpuset" in hierarchy.controllers
            is_new = _make_group(hierarchy.mountpoint, path.strip("/").split("/"), is_cpuset) and is_new
        return is_new

    def entering(self, path: str) -> list[str]:
        return ["/bin/sh", "-c", self._script, "sh", path]

    def join(self, path: str) -> None:
        self.create(path)
        for hierarchy in self._hierarchies:
            _write(f"{hierarchy.mountpoint}{path}/tasks", "0")

    def move(self, path: str, pid: int) -> None:
        """`join` has done it."""

    def leave(self, path: str, pid: int) -> None:
        for hierarchy in self._hierarchies:
            try:
                _write(f"{hierarchy.mountpoint}{os.path.dirname(path)}/cgroup.procs", str(pid))
            except (ProcessLookupError, FileNotFoundError):
                return

    def file(self, path: str, controller: str, name: str) -> str:
        top = self._by_controller.get(controller)
        return f"{top}{path}/{name}" if top else ""

    def apply(self, path: str, resources: dict[str, Any]) -> list[str]:
        writes: list[tuple[str, str, str]] = []
        cpu = resources.get("cpu") or {}
        for key, controller, name in (
            ("shares", "cpu", "cpu.shares"),
            ("period", "cpu", "cpu.cfs_period_us"),
            ("quota", "cpu", "cpu.cfs_quota_us"),
            ("realtimePeriod", "cpu", "cpu.rt_period_us"),
            ("realtimeRuntime", "cpu", "cpu.rt_runtime_us"),
            ("cpus", "cpuset", "cpuset.cpus"),
            ("mems", "cpuset", "cpuset.mems"),
        ):
            if key in cpu:
                writes.append((controller, name, str(cpu[key])))
        memory = resources.get("memory") or {}
        writes.extend(self._memory_order(path, memory))
        if "reservation" in memory:
            writes.append(("memory", "memory.soft_limit_in_bytes", str(memory["reservation"])))
        if "swappiness" in memory:
            writes.append(("memory", "memory.swappiness", str(memory["swappiness"])))
        if memory.get("disableOOMKiller"):
            writes.append(("memory", "memory.oom_control", "1"))
        if "pids" in resources:
            limit = resources["pids"]["limit"]
            writes.append(("pids", "pids.max", str(limit) if limit > 0 else "max"))
        writes.extend(_blkio_v1(resources.get("blockIO") or {}))
        for rule in resources.get("devices") or []:
            name = "devices.allow" if rule["allow"] else "devices.deny"
            writes.append(("devices", name, _device_rule(rule)))
        return self._write_all(path, writes)

    def _memory_order(self, path: str, memory: dict[str, Any]) -> list[tuple[str, str, str]]:
        """memory <= memory + swap holds at every moment: raise the outer one first, lower the inner first."""
        writes = []
        if "limit" in memory:
            writes.append(("memory", "memory.limit_in_bytes", str(memory["limit"])))
        if "swap" in memory:
            writes.append(("memory", "memory.memsw.limit_in_bytes", str(memory["swap"])))
        if len(writes) == 2:
            now = _read(self.file(path, "memory", "memory.memsw.limit_in_bytes"))
            if now.isdigit() and (memory["swap"] == -1 or memory["swap"] > int(now)):
                writes.reverse()
        return writes

    def _write_all(self, path: str, writes: list[tuple[str, str, str]]) -> list[str]:
        warnings = []
        for (controller, name), group in itertools.groupby(writes, lambda each: each[:2]):
            target = self.file(path, controller, name)
            value = ""
            try:
                if not target:
                    raise FileNotFoundError
                # The eleven rules of devices go through one descriptor.
                fd = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    for _, _, value in group:
                        os.write(fd, value.encode())
                finally:
                    os.close(fd)
            except FileNotFoundError:
                warnings.append(f"this kernel has no {name}: limitation discarded")
            except OSError as error:
                raise InvalidArgument(f"set {name} to {value}: {(error.strerror or '').lower()}") from error
        return warnings

    def set_frozen(self, path: str, is_frozen: bool) -> None:
        target = self.file(path, "freezer", "freezer.state")
        if not target:
            raise Internal("this host has no freezer cgroup: pausing is not possible")
        _write(target, "FROZEN" if is_frozen else "THAWED")

    def is_frozen(self, path: str) -> bool:
        target = self.file(path, "freezer", "freezer.state")
        return bool(target) and _read(target) == "FROZEN"

    def pids(self, path: str) -> list[int]:
        for controller in ("pids", "memory", "freezer", "devices"):
            if controller in self._by_controller:
                return _pids_below(self._by_controller[controller] + path)
        return _pids_below(self._hierarchies[0].mountpoint + path)

    def children(self, path: str) -> list[str]:
        found = {name for each in self._hierarchies for name in _children(each.mountpoint + path)}
        return sorted(found)

    def remove(self, path: str) -> bool:
        results = [_remove_tree(h.mountpoint + path) for h in self._hierarchies]
        return all(results)


class CgroupsV2:
    version = 2

    def __init__(self, mountpoint: str) -> None:
        self._top = mountpoint

    def create(self, path: str) -> bool:
        """Only the parent, with its controllers handed down: crun makes the group itself."""
        parent = os.path.dirname(path).strip("/")
        here = self._top
        _delegate(here)
        for part in parent.split("/") if parent else []:
            here = f"{here}/{part}"
            os.makedirs(here, 0o755, exist_ok=True)
            _delegate(here)
        return not os.path.exists(f"{self._top}{path}")

    def entering(self, path: str) -> list[str]:
        return []

    def join(self, path: str) -> None:
        """`move` does it."""

    def move(self, path: str, pid: int) -> None:
        self.create(path)
        os.makedirs(f"{self._top}{path}", 0o755, exist_ok=True)
        try:
            _write(f"{self._top}{path}/cgroup.procs", str(pid))
        except ProcessLookupError:
            # It has ended already.
            return

    def leave(self, path: str, pid: int) -> None:
        """crun stays outside here."""

    def file(self, path: str, controller: str, name: str) -> str:
        return f"{self._top}{path}/{name}"

    def apply(self, path: str, resources: dict[str, Any]) -> list[str]:
        warnings = []
        for name, value in _v2_files(resources):
            target = f"{self._top}{path}/{name}"
            try:
                _write(target, value)
            except FileNotFoundError:
                warnings.append(f"this kernel has no {name}: limitation discarded")
            except OSError as error:
                raise InvalidArgument(f"set {name} to {value}: {(error.strerror or '').lower()}") from error
        return warnings

    def set_frozen(self, path: str, is_frozen: bool) -> None:
        _write(f"{self._top}{path}/cgroup.freeze", "1" if is_frozen else "0")

    def is_frozen(self, path: str) -> bool:
        return "frozen 1" in _read(f"{self._top}{path}/cgroup.events")

    def pids(self, path: str) -> list[int]:
        return _pids_below(self._top + path)

    def children(self, path: str) -> list[str]:
        return sorted(_children(self._top + path))

    def remove(self, path: str) -> bool:
        return _remove_tree(self._top + path)


def _v2_files(resources: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The conversions are those of the OCI runtimes (crun(1), "cgroup v2")."""
    memory = resources.get("memory") or {}
    if "limit" in memory:
        yield "memory.max", str(memory["limit"])
    if "swap" in memory:
        swap = memory["swap"]
        yield "memory.swap.max", "max" if swap == -1 else str(max(swap - memory.get("limit", 0), 0))
    if "reservation" in memory:
        yield "memory.low", str(memory["reservation"])
    cpu = resources.get("cpu") or {}
    if "shares" in cpu:
        yield "cpu.weight", str(1 + (max(cpu["shares"], 2) - 2) * 9999 // 262142)
    if "quota" in cpu or "period" in cpu:
        quota = cpu.get("quota", -1)
        yield "cpu.max", f"{quota if quota > 0 else 'max'} {cpu.get('period', 100000)}"
    if "cpus" in cpu:
        yield "cpuset.cpus", cpu["cpus"]
    if "mems" in cpu:
        yield "cpuset.mems", cpu["mems"]
    if "pids" in resources:
        limit = resources["pids"]["limit"]
        yield "pids.max", str(limit) if limit > 0 else "max"
    blkio = resources.get("blockIO") or {}
    if "weight" in blkio:
        yield "io.bfq.weight", str(blkio["weight"])
    for key, word in (
        ("throttleReadBpsDevice", "rbps"),
        ("throttleWriteBpsDevice", "wbps"),
        ("throttleReadIOPSDevice", "riops"),
        ("throttleWriteIOPSDevice", "wiops"),
    ):
        for device in blkio.get(key) or []:
            yield "io.max", f"{device['major']}:{device['minor']} {word}={device['rate']}"


def _blkio_v1(blkio: dict[str, Any]) -> list[tuple[str, str, str]]:
    writes = []
    if "weight" in blkio:
        writes.append(("blkio", "blkio.weight", str(blkio["weight"])))
    for key, name, unit in (
        ("weightDevice", "blkio.weight_device", "weight"),
        ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rate"),
        ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "rate"),
        ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "rate"),
        ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "rate"),
    ):
        for device in blkio.get(key) or []:
            writes.append(("blkio", name, f"{device['major']}:{device['minor']} {device[unit]}"))
    return writes


def _device_rule(rule: dict[str, Any]) -> str:
    if "type" not in rule or rule["type"] == "a":
        return "a"
    major, minor = rule.get("major", "*"), rule.get("minor", "*")
    return f"{rule['type']} {major}:{minor} {rule['access']}"


def _delegate(folder: str) -> None:
    """Hand every controller down, one at a time: one that cannot be must not keep the others back."""
    for name in _read(f"{folder}/cgroup.controllers").split():
        try:
            _write(f"{folder}/cgroup.subtree_control", f"+{name}")
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM):
                raise


def _pids_below(top: str) -> list[int]:
    found: list[int] = []
    for folder, _, _ in os.walk(top):
        found.extend(int(line) for line in _read(f"{folder}/cgroup.procs").split())
    return found


def _children(top: str) -> list[str]:
    try:
        with os.scandir(top) as entries:
            return [each.name for each in entries if each.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _make_group(top: str, parts: list[str], is_cpuset: bool) -> bool:
    """Make a group below `top`, and those above it where they are missing; whether it is new. Raises Internal."""
    here = f"{top}/{'/'.join(parts)}"
    try:
        os.mkdir(here, 0o755)
        is_new = True
    except FileExistsError:
        is_new = False
    except FileNotFoundError:
        if len(parts) < 2:
            raise Internal(f"make cgroup {here}: {top} is not mounted any more") from None
        _make_group(top, parts[:-1], is_cpuset)
        return _make_group(top, parts, is_cpuset)
    except OSError as error:
        raise Internal(f"make cgroup {here}: {error.strerror}") from error
    if is_cpuset:
        above = os.path.dirname(here)
        # An empty cpuset takes no process, and one made by another thread a moment ago is still empty.
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not _read(f"{here}/{name}"):
                given = _read(f"{above}/{name}")
                if not given and len(parts) > 1:
                    _make_group(top, parts[:-1], is_cpuset)
                    given = _read(f"{above}/{name}")
                _write(f"{here}/{name}", given)
    return is_new


def _remove_tree(top: str) -> bool:
    try:
        os.rmdir(top)
        return True
    except FileNotFoundError:
        return True
    except OSError as error:
        # Processes are in it, or groups.
        if error.errno != errno.EBUSY:
            raise
    for folder, _, _ in os.walk(top, topdown=False):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            raise
    return True


def _controllers(own: str) -> list[str]:
    names: list[str] = []
    with open(own) as file:
        for line in file:
            names.extend(name for name in line.split(":")[1].split(",") if name)
    return names


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
