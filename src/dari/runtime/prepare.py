"""From a `Launch` to an OCI configuration: looks at the root and at this host, then calls the pure `oci.build`.

Leaves two things behind in the file system: the working folder, and a tmpfs for a shareable /dev/shm.
Must not know: processes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import posixpath
from typing import Any

import msgspec

from dari.model.config import Config
from dari.model.container import ContainerConfig, Mount
from dari.model.errors import Internal, InvalidArgument, Unsupported
from dari.model.wire import Noun
from dari.runtime import capabilities, hostfacts, mounts, oci, resources, seccomp, users, volumes
from dari.runtime.failures import LaunchFailed
from dari.runtime.hostfacts import HostFacts
from dari.runtime.launch import Launch
from dari.runtime.layout import Layout, layout_of
from dari.runtime.paths import mkdir_in, read_text_in, resolve_in
from dari.runtime.record import Record
from dari.runtime.resources import Device

_libc = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8


class Prepared(Noun, frozen=True, kw_only=True):
    """`resources` are the limits in OCI words, whoever writes them."""

    spec: dict[str, Any]
    record: Record
    resources: dict[str, Any]
    warnings: list[str]


def prepare(
    launch: Launch, config: Config, facts: HostFacts, layout: Layout, cgroup_version: int
) -> Prepared:
    """Raises InvalidArgument or Unsupported for what cannot be had; nothing is left behind then."""
    host = launch.host
    security = oci.read_security(host.security_opt, host.privileged)
    if host.device_requests:
        request = host.device_requests[0]
        asked = "[" + " ".join(f"[{' '.join(names)}]" for names in request.capabilities) + "]"
        raise InvalidArgument(f'could not select device driver "{request.driver}" with capabilities: {asked}')
    user = users.find_user(
        launch.config.user,
        read_text_in(launch.rootfs, "/etc/passwd"),
        read_text_in(launch.rootfs, "/etc/group"),
        host.group_add,
    )
    names = capabilities.resolve(host.cap_add, host.cap_drop, host.privileged, facts.capabilities)
    devices = _devices(launch)
    limits, warnings = resources.rlimits(
        host, config.default_ulimits, facts.hard_limits, facts.may_raise_limits
    )
    wanted = resources.cgroup_resources(host, devices, hostfacts.block_numbers(resources.blkio_paths(host)))
    score, complaint = _oom_score(host.oom_score_adj, facts)
    warnings += complaint
    section: dict[str, Any] = {}
    bpf = ""
    if security.seccomp != "unconfined":
        section, compiled = seccomp.filter_of(security.seccomp, tuple(names), facts.kernel)
        if compiled is not None:
            # crun wants to see a section before it takes the filter, but not what is in it.
            section, bpf = {"defaultAction": section["defaultAction"]}, compiled
    resolved = [_resolved(launch.rootfs, mount) for mount in launch.mounts]
    for mount in resolved:
        _check_propagation(mount)
    shm_source = _shm_source(launch, config, layout)
    inputs = oci.OciInputs(
        id=launch.id,
        config=launch.config,
        host=msgspec.structs.replace(
            host, tmpfs={resolve_in(launch.rootfs, target): text for target, text in host.tmpfs.items()}
        ),
        args=launch.args,
        rootfs=launch.rootfs,
        user=user,
        security=security,
        mounts=resolved,
        files=_files(launch, facts),
        hostname=launch.hostname or launch.config.hostname,
        netns="host" if launch.netns is None else launch.netns,
        pid_ns=_namespace("pid", host.pid_mode, launch.pid_of_pid),
        ipc_ns=_namespace("ipc", host.ipc_mode, launch.pid_of_ipc),
        is_cgroupns_private=_is_cgroupns_private(launch, cgroup_version),
        shm_source=shm_source,
        shm_size=host.shm_size or config.default_shm_size,
        capabilities=names,
        devices=devices,
        rlimits=limits,
        resources=wanted if cgroup_version == 2 else {},
        cgroup_path=cgroup_path(launch, config),
        seccomp=section,
        seccomp_bpf=bpf,
        sysctls=launch.sysctls,
        oom_score_adj=score,
        has_init=bool(host.init),
    )
    spec = oci.build(inputs)
    try:
        mkdir_in(launch.rootfs, spec["process"]["cwd"])
    except NotADirectoryError:
        raise InvalidArgument(f"Cannot mkdir: {spec['process']['cwd']} is not a directory") from None
    _leave_marks(launch.rootfs)
    record = Record(
        id=launch.id,
        cgroup=inputs.cgroup_path,
        rootfs=launch.rootfs,
        loses_stdin=launch.config.open_stdin and not keeps_stdin(launch.config),
        has_shm_mount=shm_source == layout.shm,
        is_on_host_network=launch.netns is None,
        process=spec["process"],
        user=launch.config.user,
        group_add=host.group_add,
        is_term_default=launch.config.tty
        and not any(entry.startswith("TERM=") for entry in launch.config.env),
        is_home_default=not any(entry.startswith("HOME=") for entry in launch.config.env),
        capabilities=names,
        all_capabilities=facts.capabilities,
    )
    return Prepared(spec=spec, record=record, resources=wanted, warnings=warnings)


def _leave_marks(rootfs: str) -> None:
    """What programs look for in a container of Docker's: `/.dockerenv`, and `/etc/mtab` for those that list mounts."""
    # An image that has them, has no /etc, or is odd in another way, starts all the same.
    with contextlib.suppress(OSError):
        os.close(os.open(f"{rootfs}/.dockerenv", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o755))
        os.symlink("/proc/mounts", f"{rootfs}{resolve_in(rootfs, '/etc')}/mtab")


def keeps_stdin(config: ContainerConfig) -> bool:
    """Whether a client that leaves does not end the input. A terminal's end of input is a character."""
    return config.tty or not config.stdin_once


def cgroup_path(launch: Launch, config: Config) -> str:
    """`<parent>/<id>`, from the root of each hierarchy, which no parent climbs out of."""
    parent = launch.host.cgroup_parent or config.cgroup_parent
    parts = [part for part in posixpath.normpath(f"/{parent}").split("/") if part]
    return "/" + "/".join([*parts, launch.id])


def mount_shm(target: str, size: int) -> None:
    os.makedirs(target, exist_ok=True)
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    text = f"mode=1777,size={size}".encode()
    code = _libc.mount(b"shm", os.fsencode(target), b"tmpfs", ctypes.c_ulong(flags), text)
    if code != 0:
        raise Internal(f"mount tmpfs on {target}: {os.strerror(ctypes.get_errno())}")


def unmount(target: str) -> None:
    """Nothing mounted there is no error."""
    _libc.umount2(os.fsencode(target), _MNT_DETACH)


def _devices(launch: Launch) -> list[Device]:
    found: list[Device] = hostfacts.all_devices() if launch.host.privileged else []
    for asked in launch.host.devices:
        found.extend(
            hostfacts.device_at(
                asked.path_on_host, asked.path_in_container, asked.cgroup_permissions or "rwm"
            )
        )
    # The last word about a path counts.
    return list({device.path: device for device in found}.values())


def _oom_score(asked: int, facts: HostFacts) -> tuple[int, list[str]]:
    if asked >= facts.oom_score_adj or facts.may_raise_limits:
        return asked, []
    text = (
        f"oom score {asked} raised to {facts.oom_score_adj}: the daemon may not lower it (CAP_SYS_RESOURCE)"
    )
    # Nobody asked for the default, so nobody need hear that it is not to be had.
    return facts.oom_score_adj, [text] if asked else []


# What of /proc may be covered: what tools show of the machine (the same as runc allows).
_OPEN_IN_PROC = frozenset(
    f"/proc/{name}"
    for name in ["cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo"]
) | {"/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled"}


def _resolved(rootfs: str, mount: Mount) -> Mount:
    options, source = mount.options, mount.source
    if mount.subpath:
        try:
            source = volumes.source_of(mount)
        except InvalidArgument as error:
            raise LaunchFailed(f"failed to create task for container: {error.message}") from error
    where = "/" + posixpath.normpath(mount.target).strip("/")
    if where.startswith("/proc/") and where not in _OPEN_IN_PROC:
        raise LaunchFailed(
            f'failed to create task for container: "{where}" cannot be mounted because it is inside /proc'
        )
    if source and not os.path.isdir(source):
        # Nothing is mounted below a file, and crun cannot set attributes recursively on one.
        options = [*options, "non-recursive"]
    return msgspec.structs.replace(
        mount, source=source, target=resolve_in(rootfs, mount.target), options=options
    )


def _check_propagation(mount: Mount) -> None:
    wanted = mounts.propagation_of(mount)
    if mount.source and wanted and "private" not in wanted:
        point, fields = hostfacts.mount_of(mount.source)
        mounts.check_propagation(mount.source, wanted, point, fields)


def _files(launch: Launch, facts: HostFacts) -> dict[str, str]:
    files = {
        "/etc/hosts": launch.hosts_file,
        "/etc/hostname": launch.hostname_file,
        "/etc/resolv.conf": launch.resolv_file,
    }
    if launch.host.init:
        if not facts.init_path:
            raise Unsupported('no init found: install "tini" or "catatonit", or run without --init')
        files[oci.INIT_TARGET] = facts.init_path
    return {resolve_in(launch.rootfs, target): source for target, source in files.items() if source}


def _namespace(kind: str, mode: str, pid: int) -> str:
    if mode == "host":
        return "host"
    return f"/proc/{pid}/ns/{kind}" if mode.startswith("container:") and pid else ""


def _is_cgroupns_private(launch: Launch, cgroup_version: int) -> bool:
    mode = launch.host.cgroupns_mode
    if mode:
        return mode == "private"
    return cgroup_version == 2 and not launch.host.privileged


def _shm_source(launch: Launch, config: Config, layout: Layout) -> str:
    mode = launch.host.ipc_mode
    if mode == "host":
        return "/dev/shm"
    if mode.startswith("container:"):
        shared = layout_of(config, launch.ipc_owner_id).shm
        if not os.path.ismount(shared):
            raise InvalidArgument(
                f"can't join IPC of container {launch.ipc_owner_id}: non-shareable IPC "
                "(hint: use IpcMode:shareable for the donor container)"
            )
        return shared
    return layout.shm if mode == "shareable" else ""
