"""What a container sees mounted: Docker's defaults, the sandbox's files, the user's mounts, in order.

Pure: targets are resolved inside the root and sources exist. Must not know: volumes, images.
Source: OCI runtime specification, config.md "Mounts"; mount options: mount(8).
"""

from __future__ import annotations

from typing import Any

from dari.model.container import HostConfig, Mount
from dari.model.errors import InvalidArgument

_ALWAYS_WRITABLE = {"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"}
_PROPAGATIONS = {"shared", "rshared", "slave", "rslave", "private", "rprivate"}
_OPPOSITES = [("exec", "noexec"), ("suid", "nosuid"), ("dev", "nodev"), ("rw", "ro"), ("async", "sync")]
MASKED = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
]
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def container_mounts(
    host: HostConfig, mounts: list[Mount], files: dict[str, str], shm_source: str, shm_size: int
) -> list[dict[str, Any]]:
    """`mounts` of the OCI configuration.

    `files`: target → host file (hosts, hostname, resolv.conf, init). `shm_source`: a folder to bind as /dev/shm
    (IPC shared with the host or a container); empty for a tmpfs of its own of `shm_size` bytes.
    """
    chosen = {_clean(m.target) for m in mounts} | {_clean(target) for target in host.tmpfs}
    result = []
    for default in _defaults(host, shm_source, shm_size):
        target = default["destination"]
        if target in chosen or (target.startswith("/dev/") and "/dev" in chosen):
            continue
        if host.readonly_rootfs and target not in _ALWAYS_WRITABLE and "ro" not in default["options"]:
            default["options"].append("ro")
        result.append(default)
    asked = [_of_user(m) for m in mounts]
    asked.extend(
        {
            "destination": target,
            "type": "tmpfs",
            "source": "tmpfs",
            "options": tmpfs_options(options.split(",") if options else []),
        }
        for target, options in host.tmpfs.items()
    )
    asked.extend(
        {
            "destination": target,
            "type": "bind",
            "source": source,
            "options": ["rbind", "rprivate", *(["ro"] if host.readonly_rootfs else [])],
        }
        for target, source in files.items()
        if target not in chosen
    )
    # A parent before what lies in it, else it would hide it; among equals the order asked.
    asked.sort(
        key=lambda mount: _clean(mount["destination"]).count("/") if mount["destination"] != "/" else 0
    )
    return result + asked


def tmpfs_options(asked: list[str]) -> list[str]:
    """Docker's noexec, nosuid, nodev, each of which the user may turn round."""
    options = ["noexec", "nosuid", "nodev"]
    for option in asked:
        for plain, negated in _OPPOSITES:
            if option in (plain, negated):
                options = [o for o in options if o not in (plain, negated)]
        key = option.partition("=")[0]
        if "=" in option:
            options = [o for o in options if not o.startswith(f"{key}=")]
        if option and option != "defaults":
            options.append(option)
    return options


def root_propagation(mounts: list[Mount]) -> str:
    """`linux.rootfsPropagation`: what lets propagation of single mounts work; empty for the default."""
    modes = {propagation_of(m) for m in mounts}
    if modes & {"shared", "rshared"}:
        return "shared"
    return "rslave" if modes & {"slave", "rslave"} else ""


def propagation_of(mount: Mount) -> str:
    if mount.propagation:
        return mount.propagation
    return next((word for word in mount.mode.split(",") if word in _PROPAGATIONS), "")


def check_propagation(source: str, wanted: str, mountpoint: str, optional_fields: list[str]) -> None:
    """Raises InvalidArgument if events cannot flow as wanted from the mount `source` lies on.

    `optional_fields` as in /proc/self/mountinfo (proc(5)): `shared:3`, `master:1`.
    """
    is_shared = any(field.startswith("shared:") for field in optional_fields)
    is_slave = any(field.startswith("master:") for field in optional_fields)
    if wanted in ("shared", "rshared") and not is_shared:
        raise InvalidArgument(f"path {source} is mounted on {mountpoint} but it is not a shared mount")
    if wanted in ("slave", "rslave") and not (is_shared or is_slave):
        raise InvalidArgument(
            f"path {source} is mounted on {mountpoint} but it is not a shared or slave mount"
        )


def _defaults(host: HostConfig, shm_source: str, shm_size: int) -> list[dict[str, Any]]:
    safe = ["nosuid", "noexec", "nodev"]
    closed = [] if host.privileged else ["ro"]
    result: list[dict[str, Any]] = [
        _mount("/proc", "proc", "proc", safe),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        _mount("/sys", "sysfs", "sysfs", safe + closed),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", safe + ([] if _has_writable_cgroups(host) else ["ro"])),
        _mount("/dev/mqueue", "mqueue", "mqueue", safe),
    ]
    if shm_source:
        result.append(_mount("/dev/shm", "bind", shm_source, ["rbind", "rprivate"]))
    elif host.ipc_mode != "none":
        result.append(_mount("/dev/shm", "tmpfs", "shm", [*safe, "mode=1777", f"size={shm_size}"]))
    return result


def _has_writable_cgroups(host: HostConfig) -> bool:
    for option in reversed(host.security_opt):
        name, _, value = option.replace(":", "=", 1).partition("=")
        if name == "writable-cgroups":
            return value != "false"
    return host.privileged


def _mount(target: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


def _of_user(mount: Mount) -> dict[str, Any]:
    if mount.type == "tmpfs":
        options = list(mount.options)
        if mount.is_read_only:
            options.append("ro")
        return _mount(mount.target, "tmpfs", "tmpfs", tmpfs_options(options))
    words = set(mount.mode.split(",")) | set(mount.options)
    bind = "bind" if words & {"bind", "non-recursive"} else "rbind"
    propagation = propagation_of(mount) or "rprivate"
    if bind == "bind":
        # crun binds recursively where the propagation is recursive.
        propagation = propagation.removeprefix("r")
    options = [bind, propagation]
    if mount.is_read_only:
        options.append("ro")
        if bind == "rbind" and "ro-non-recursive" not in words:
            options.append("rro")
    return _mount(mount.target, "bind", mount.source, options)


def _clean(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part)
