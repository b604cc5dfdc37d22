"""What this host and this process allow: limits, capabilities, devices, mounts. Reads only.

Must not know: containers. Sources: proc(5), setrlimit(2), capabilities(7).
"""

from __future__ import annotations

import errno
import os
import platform
import resource
import shutil
import stat

from dari.model.errors import Internal, InvalidArgument, advice_for, told
from dari.model.wire import Noun
from dari.runtime import capabilities
from dari.runtime.resources import Device

_KEPT_DESCRIPTORS = 64
_INITS = ("docker-init", "tini-static", "catatonit", "tini")
_PRIVATE_DEVICES = {"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console", "ptmx"}
_LIMITS = "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack as"


class HostFacts(Noun, frozen=True, kw_only=True):
    """`hard_limits`: this process's by name, -1 unlimited. `init_path`: a static init, empty for none."""

    kernel: str
    capabilities: list[str]
    hard_limits: dict[str, int]
    oom_score_adj: int
    init_path: str = ""

    @property
    def may_raise_limits(self) -> bool:
        return "CAP_SYS_RESOURCE" in self.capabilities


def check_descriptors() -> None:
    """Raises Internal where so many files are open that a container more would leave none for stopping, removing and
    asking: some of the last are kept for those."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return
    try:
        # The lowest free number: that many are open, or nearly.
        used = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.close(used)
    except OSError as error:
        raise Internal(told(error)) from error
    if used > limit - min(_KEPT_DESCRIPTORS, limit // 2):
        advice = advice_for(errno.EMFILE)
        raise Internal(f"{used} of {limit} files are open, the others are kept for what ends: {advice}")


def host_facts() -> HostFacts:
    limits = {}
    for name in _LIMITS.split():
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is not None:
            limits[name] = resource.getrlimit(number)[1]
        elif name == "locks":
            limits[name] = -1
    mask = 0
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("CapPrm:"):
                mask = int(line.split()[1], 16)
    with open("/proc/self/oom_score_adj") as file:
        score = int(file.read())
    init = next((path for name in _INITS if (path := shutil.which(name))), "")
    return HostFacts(
        kernel=platform.release(),
        capabilities=capabilities.from_mask(mask),
        hard_limits=limits,
        oom_score_adj=score,
        init_path=os.path.realpath(init) if init else "",
    )


def device_at(path: str, target: str = "", permissions: str = "rwm") -> list[Device]:
    """The device node at `path`, or all nodes below it if it is a folder, as seen at `target`.

    Raises InvalidArgument in Docker's words if there is none.
    """
    target = target or path
    failed = f'error gathering device information while adding custom device "{path}": '
    try:
        real = os.path.realpath(path, strict=True)
        info = os.stat(real)
    except OSError as error:
        raise InvalidArgument(failed + (error.strerror or "unknown error").lower()) from None
    if stat.S_ISDIR(info.st_mode):
        found = []
        for folder, _, names in os.walk(real):
            for name in sorted(names):
                full = os.path.join(folder, name)
                device = _node(full, os.path.join(target, os.path.relpath(full, real)), permissions)
                if device is not None:
                    found.append(device)
        if not found:
            raise InvalidArgument(failed + "not a device node")
        return found
    device = _node(real, target, permissions)
    if device is None:
        raise InvalidArgument(failed + "not a device node")
    return [device]


def all_devices() -> list[Device]:
    """Every node below /dev that a privileged container gets."""
    found: list[Device] = []
    for folder, folders, names in os.walk("/dev"):
        if folder == "/dev":
            folders[:] = [name for name in folders if name not in _PRIVATE_DEVICES]
            names = [name for name in names if name not in _PRIVATE_DEVICES]
        for name in sorted(names):
            path = os.path.join(folder, name)
            device = _node(path, path, "rwm")
            if device is not None:
                found.append(device)
    return found


def memory_nodes() -> frozenset[int]:
    """The memory nodes there are. Source: kernel, Documentation/admin-guide/mm/numaperf.rst."""
    try:
        with open("/sys/devices/system/node/has_memory") as file:
            text = file.read().strip()
    except FileNotFoundError:
        return frozenset({0})
    found: set[int] = set()
    for span in text.split(","):
        first, _, last = span.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def block_numbers(paths: list[str]) -> dict[str, tuple[int, int]]:
    """(major, minor) by path. Raises InvalidArgument if one is no device."""
    numbers = {}
    for path in paths:
        try:
            info = os.stat(path)
        except OSError as error:
            raise InvalidArgument(f"stat {path}: {(error.strerror or 'unknown error').lower()}") from None
        if not (stat.S_ISBLK(info.st_mode) or stat.S_ISCHR(info.st_mode)):
            raise InvalidArgument(f"{path}: not a device node")
        numbers[path] = (os.major(info.st_rdev), os.minor(info.st_rdev))
    return numbers


def mount_of(path: str) -> tuple[str, list[str]]:
    """The mount point `path` lies on and its propagation (optional fields of mountinfo)."""
    real = os.path.realpath(path)
    best, fields = "/", list[str]()
    with open("/proc/self/mountinfo") as file:
        for line in file:
            words = line.split()
            point = words[4].encode().decode("unicode_escape")
            is_over = real == point or real.startswith(point.rstrip("/") + "/")
            # A later mount on the same point covers the earlier one.
            if is_over and len(point) >= len(best):
                best, fields = point, words[6 : words.index("-")]
    return best, fields


def _node(path: str, target: str, permissions: str) -> Device | None:
    try:
        info = os.lstat(path)
    except OSError:
        # It went away while the folder was read.
        return None
    if stat.S_ISCHR(info.st_mode):
        kind = "c"
    elif stat.S_ISBLK(info.st_mode):
        kind = "b"
    else:
        return None
    return Device(
        path=target,
        kind=kind,
        major=os.major(info.st_rdev),
        minor=os.minor(info.st_rdev),
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        permissions=permissions,
    )
