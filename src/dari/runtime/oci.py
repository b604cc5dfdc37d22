"""From Docker's words to the OCI configuration that crun reads. Pure: everything about the host comes in.

`build` is the whole of it; its parts are in mounts.py, resources.py, capabilities.py, seccomp.py. Must not know:
files, processes, how the container is run. Source: OCI runtime specification 1.0, config.md and config-linux.md.
"""

from __future__ import annotations

from typing import Any

from dari.model.container import ContainerConfig, HostConfig, Mount
from dari.model.errors import InvalidArgument
from dari.model.wire import Noun
from dari.runtime import mounts as mounting
from dari.runtime.resources import Device
from dari.runtime.users import User

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INIT_TARGET = "/sbin/docker-init"


class Security(Noun, frozen=True, kw_only=True):
    """`HostConfig.SecurityOpt` taken apart. `seccomp`: None = default profile, "unconfined", or JSON."""

    seccomp: str | None = None
    no_new_privileges: bool = False
    is_unmasked: bool = False


class OciInputs(Noun, frozen=True, kw_only=True):
    """All that `build` looks at. `args` is the whole command line, paths are the host's, targets resolved.

    `netns`, `pid_ns`, `ipc_ns`: a path to join, "" for a new one, "host". `cgroup_path` starts with a slash.
    `seccomp_bpf` is base64, empty for none. `resources` is empty where cgroups are written by the caller.
    """

    id: str
    config: ContainerConfig
    host: HostConfig
    args: list[str]
    rootfs: str
    user: User
    security: Security
    mounts: list[Mount] = []
    files: dict[str, str] = {}
    hostname: str = ""
    netns: str = ""
    pid_ns: str = ""
    ipc_ns: str = ""
    is_cgroupns_private: bool = False
    shm_source: str = ""
    shm_size: int = 0
    capabilities: list[str] = []
    devices: list[Device] = []
    rlimits: list[dict[str, Any]] = []
    resources: dict[str, Any] = {}
    cgroup_path: str = ""
    seccomp: dict[str, Any] = {}
    seccomp_bpf: str = ""
    sysctls: dict[str, str] = {}
    oom_score_adj: int = 0
    has_init: bool = False


def build(inputs: OciInputs) -> dict[str, Any]:
    """The configuration as JSON-able data. Raises InvalidArgument for what Docker refuses."""
    host = inputs.host
    linux: dict[str, Any] = {
        "cgroupsPath": inputs.cgroup_path,
        "namespaces": _namespaces(inputs),
        "sysctl": _sysctls(inputs),
        "devices": [_device(d) for d in inputs.devices],
        "maskedPaths": _paths(host, inputs.security, host.masked_paths, mounting.MASKED),
        "readonlyPaths": _paths(host, inputs.security, host.readonly_paths, mounting.READONLY),
    }
    if inputs.resources:
        linux["resources"] = inputs.resources
    if propagation := mounting.root_propagation(inputs.mounts):
        linux["rootfsPropagation"] = propagation
    annotations = dict(host.annotations)
    if inputs.seccomp_bpf:
        annotations["run.oci.seccomp_bpf_data"] = inputs.seccomp_bpf
    if inputs.seccomp:
        linux["seccomp"] = inputs.seccomp
    result: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": process(inputs),
        "root": {"path": inputs.rootfs, "readonly": host.readonly_rootfs},
        "mounts": mounting.container_mounts(
            host, inputs.mounts, inputs.files, inputs.shm_source, inputs.shm_size
        ),
        "linux": linux,
        "annotations": annotations,
    }
    if inputs.hostname and host.uts_mode != "host":
        result["hostname"] = inputs.hostname
    return result


def process(inputs: OciInputs) -> dict[str, Any]:
    config = inputs.config
    args = inputs.args
    if not args:
        raise InvalidArgument("no command specified")
    if inputs.has_init:
        args = [INIT_TARGET, "--", *args]
    result: dict[str, Any] = {
        "terminal": config.tty,
        "user": {
            "uid": inputs.user.uid,
            "gid": inputs.user.gid,
            "additionalGids": inputs.user.groups,
        },
        "args": args,
        "env": environment(config.env, inputs.hostname, inputs.user.home, config.tty),
        "cwd": config.working_dir or "/",
        "capabilities": capability_sets(inputs.capabilities, inputs.user.uid),
        "noNewPrivileges": inputs.security.no_new_privileges,
        "oomScoreAdj": inputs.oom_score_adj,
        "rlimits": inputs.rlimits,
    }
    height, width = (*inputs.host.console_size, 0, 0)[:2]
    if config.tty and height and width:
        result["consoleSize"] = {"height": height, "width": width}
    return result


def environment(env: list[str], hostname: str, home: str, is_tty: bool) -> list[str]:
    """Docker's PATH, HOSTNAME and TERM, then what was asked, then HOME; a bare name takes a variable away."""
    values = {"PATH": PATH}
    if hostname:
        values["HOSTNAME"] = hostname
    if is_tty:
        values["TERM"] = "xterm"
    for entry in env:
        name, equals, value = entry.partition("=")
        if equals:
            values[name] = value
        else:
            values.pop(name, None)
    if not values.get("HOME"):
        values["HOME"] = home
    return [f"{name}={value}" for name, value in values.items()]


def capability_sets(names: list[str], uid: int) -> dict[str, list[str]]:
    """Root holds them; another user only may regain them by a set-user-id program, as execve(2) has it."""
    if uid == 0:
        return {"bounding": names, "effective": names, "permitted": names}
    return {"bounding": names}


def read_security(options: list[str], is_privileged: bool) -> Security:
    """`--security-opt` values. apparmor and label are accepted and do nothing here. Raises InvalidArgument."""
    seccomp: str | None = "unconfined" if is_privileged else None
    no_new, is_unmasked = False, is_privileged
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            name, equals, value = option.partition(":")
        if not equals and name not in ("no-new-privileges", "writable-cgroups", "disable"):
            raise InvalidArgument(f'invalid --security-opt 1: "{option}"')
        if name == "no-new-privileges":
            if value not in ("", "true", "false", "1", "0"):
                raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
            no_new = value in ("", "true", "1")
        elif name == "seccomp" and value:
            seccomp = None if value == "builtin" else value
        elif name == "systempaths" and value == "unconfined":
            is_unmasked = True
        elif name == "writable-cgroups":
            # mounts.py reads it; Docker takes these words alone.
            if value not in ("", "true", "false"):
                raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
        elif name in ("apparmor", "label", "disable"):
            continue
        else:
            raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
    return Security(seccomp=seccomp, no_new_privileges=no_new, is_unmasked=is_unmasked)


def _namespaces(inputs: OciInputs) -> list[dict[str, str]]:
    result: list[dict[str, str]] = [{"type": "mount"}]
    for kind, path in (("network", inputs.netns), ("pid", inputs.pid_ns), ("ipc", inputs.ipc_ns)):
        if path == "host":
            continue
        result.append({"type": kind, "path": path} if path else {"type": kind})
    if inputs.host.uts_mode != "host":
        result.append({"type": "uts"})
    if inputs.is_cgroupns_private:
        result.append({"type": "cgroup"})
    return result


def _sysctls(inputs: OciInputs) -> dict[str, str]:
    result: dict[str, str] = {}
    if inputs.netns != "host":
        # Docker since 20.10: ports below 1024 and ping need no capability inside a network of one's own.
        result["net.ipv4.ip_unprivileged_port_start"] = "0"
        result["net.ipv4.ping_group_range"] = "0 2147483647"
    if inputs.config.domainname and inputs.host.uts_mode != "host":
        result["kernel.domainname"] = inputs.config.domainname
    result.update(inputs.sysctls)
    result.update(inputs.host.sysctls)
    return result


def _paths(host: HostConfig, security: Security, asked: list[str] | None, default: list[str]) -> list[str]:
    if host.privileged or security.is_unmasked:
        return []
    return default if asked is None else asked


def _device(device: Device) -> dict[str, Any]:
    return {
        "path": device.path,
        "type": device.kind,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode,
        "uid": device.uid,
        "gid": device.gid,
    }
