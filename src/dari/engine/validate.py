"""Whether a container may be made as asked, judged from the request alone.

Pure. Texts are Docker's where clients compare or show them. Must not know: stores, images, the kernel; what the host
offers comes in as `HostLimits`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dari.discovery import own_records
from dari.engine.signals import parse_signal
from dari.model.container import (
    ContainerConfig,
    HealthConfig,
    HostConfig,
    LogConfig,
    PortBinding,
    RestartPolicy,
)
from dari.model.errors import DriverRefused, InvalidArgument
from dari.net import names_options, policy
from dari.runtime.oci import read_security
from dari.units import SECOND, parse_size

_MIB = 1024 * 1024
_MIN_MEMORY = 6 * _MIB
_MS = 1_000_000
_PROTOCOLS = ("tcp", "udp", "sctp")
_LOG_DRIVERS = ("json-file", "local", "none", "k8s-file", "journald", "syslog")
_JSON_FILE_OPTION_TEXT = "max-file max-size compress labels labels-regex env env-regex tag"
_JSON_FILE_OPTIONS = frozenset(_JSON_FILE_OPTION_TEXT.split())
# Of every driver. A monitor of its own takes what a container writes, so it waits for no daemon in either mode.
_LOG_MODES = ("", "blocking", "non-blocking")
_LOG_MODE_OPTIONS = frozenset(("mode", "max-buffer-size"))
_CAPABILITY_TEXT = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
    "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
_CAPABILITIES = frozenset(_CAPABILITY_TEXT.split())


@dataclass(frozen=True, slots=True)
class HostLimits:
    """What bounds a request on this host: processors, memory nodes, and whether swap is accounted."""

    cpus: int
    memory_nodes: frozenset[int] = frozenset({0})
    has_swap_limit: bool = True


def check_config(config: ContainerConfig) -> None:
    """Raises InvalidArgument for the first field of `Config` that is wrong."""
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
        )
    for entry in config.env:
        if not entry or entry.startswith("="):
            raise InvalidArgument(f"invalid environment variable: {entry}")
    if config.stop_signal:
        parse_signal(config.stop_signal)
    if config.healthcheck is not None:
        _check_health(config.healthcheck)
    for port in config.exposed_ports:
        parse_port(port)
    for path in config.volumes:
        if not path.startswith("/"):
            raise InvalidArgument(f"invalid volume specification: '{path}': mount path must be absolute")
    check_policy(config.labels, has_targets=False)
    check_records(config.labels)
    names_options.check_weight(config.labels.get(names_options.WEIGHT, ""))
    if len(config.hostname) > 64:
        raise InvalidArgument(f"invalid hostname: {config.hostname!r} is longer than 64 characters")


def check_policy(labels: Mapping[str, str], *, has_targets: bool) -> None:
    """Raises InvalidArgument where the label of a container or (`has_targets`) a network is no policy."""
    try:
        policy.parse(labels.get(policy.LABEL, ""), has_targets=has_targets)
    except ValueError as error:
        raise InvalidArgument(f"label {policy.LABEL}: {error}") from None


def check_records(labels: Mapping[str, str]) -> None:
    """Raises InvalidArgument where the label with records of one's own is wrong."""
    try:
        own_records.parse(labels.get(own_records.LABEL, ""))
    except ValueError as error:
        raise InvalidArgument(f"label {own_records.LABEL}: {error}") from None


def check_host(config: ContainerConfig, host: HostConfig, limits: HostLimits) -> list[str]:
    """The warnings a request deserves. Raises InvalidArgument for the first field of `HostConfig` that is wrong."""
    check_restart_policy(host.restart_policy)
    if host.auto_remove and host.restart_policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")
    _check_network_mode(config, host)
    check_ports(host.port_bindings)
    for entry in host.extra_hosts:
        _check_extra_host(entry)
    for address in host.dns:
        _check_address(address, "DNS server")
    for field, names in (("CapAdd", host.cap_add), ("CapDrop", host.cap_drop)):
        for name in names:
            plain = name.upper().removeprefix("CAP_")
            if plain != "ALL" and plain not in _CAPABILITIES:
                raise InvalidArgument(f'invalid {field}: unknown capability: "CAP_{plain}"')
    _check_log(host.log_config)
    if host.storage_opt:
        raise DriverRefused("--storage-opt is supported only for overlay over xfs with 'pquota' mount option")
    if host.isolation not in ("", "default"):
        raise InvalidArgument(f"invalid isolation '{host.isolation}' on linux")
    if "" in host.annotations:
        raise InvalidArgument("invalid Annotations: the empty string is not permitted as an annotation key")
    if host.uts_mode == "host" and config.hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if host.pid_mode not in ("", "host", "private") and not _is_join(host.pid_mode):
        raise InvalidArgument(f"invalid PID mode: {host.pid_mode}")
    if host.ipc_mode not in ("", "none", "private", "shareable", "host") and not _is_join(host.ipc_mode):
        raise InvalidArgument(f"invalid IPC mode: {host.ipc_mode}")
    if host.uts_mode not in ("", "host"):
        raise InvalidArgument(f"invalid UTS mode: {host.uts_mode}")
    if host.cgroupns_mode not in ("", "host", "private"):
        raise InvalidArgument(f"invalid cgroup namespace mode: {host.cgroupns_mode}")
    if host.cgroupns_mode == "private" and host.privileged is False and host.cgroup:
        raise InvalidArgument(f"invalid cgroup: {host.cgroup}")
    read_security(host.security_opt, host.privileged)
    return _health_warnings(config) + _port_warnings(host) + check_resources(host, limits)


def _port_warnings(host: HostConfig) -> list[str]:
    if host.network_mode != "host" or not host.port_bindings:
        return []
    return ["Published ports are discarded when using host network mode"]


def _health_warnings(config: ContainerConfig) -> list[str]:
    """Docker makes a container with a check of no kind, too, and does not check it."""
    test = config.healthcheck.test if config.healthcheck is not None else []
    if not test or test[0] in ("NONE", "CMD", "CMD-SHELL"):
        return []
    return [
        f"Unknown healthcheck type '{test[0]}' (expected 'CMD', 'CMD-SHELL' or 'NONE'): "
        "the container's health is not checked."
    ]


def _is_join(mode: str) -> bool:
    return mode.startswith("container:") and mode != "container:"


def check_restart_policy(policy: RestartPolicy) -> None:
    """Raises InvalidArgument."""
    if policy.name == "on-failure":
        if policy.maximum_retry_count < 0:
            raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    elif policy.maximum_retry_count != 0:
        negative = " and cannot be negative" if policy.maximum_retry_count < 0 else ""
        raise InvalidArgument(
            f"invalid restart policy: maximum retry count can only be used with 'on-failure'{negative}"
        )


def _check_log(config: LogConfig) -> None:
    if config.type == "none":
        return
    if config.type and config.type not in _LOG_DRIVERS:
        raise InvalidArgument(
            f'error looking up logging plugin {config.type}: plugin "{config.type}" not found'
        )
    mode, size = config.config.get("mode", ""), config.config.get("max-buffer-size")
    if mode not in _LOG_MODES:
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if size is not None:
        if mode != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        try:
            parse_size(size)
        except ValueError:
            raise InvalidArgument(
                f"logger: error parsing option max-buffer-size: invalid size: '{size}'"
            ) from None
    if config.type in ("", "json-file"):
        for option in config.config:
            if option not in _JSON_FILE_OPTIONS | _LOG_MODE_OPTIONS:
                raise InvalidArgument(f"unknown log opt '{option}' for json-file log driver")


def check_resources(host: HostConfig, limits: HostLimits) -> list[str]:
    """Memory, processor and block limits; also used by `update`. Raises InvalidArgument."""
    warnings: list[str] = []
    _check_memory(host)
    if host.oom_kill_disable and not host.memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system "
            "running out of resources."
        )
    if host.memory_swap > 0 and not limits.has_swap_limit:
        warnings.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
    _check_cpu(host, limits)
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    for device in host.blkio_weight_device:
        if not 10 <= device.weight <= 1000:
            raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(
            f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]."
        )
    for limit in host.ulimits:
        if limit.hard != -1 and (limit.soft > limit.hard or limit.soft == -1):
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
            )
    return warnings


def check_least_memory(host: HostConfig) -> None:
    """Raises InvalidArgument for a limit no process could live with."""
    if host.memory < 0 or 0 < host.memory < _MIN_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")


def _check_memory(host: HostConfig) -> None:
    check_least_memory(host)
    if host.memory > 0 and 0 < host.memory_swap < host.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory == 0 and host.memory_swap > 0:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    swappiness = host.memory_swappiness
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    if 0 < host.memory_reservation < _MIN_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if 0 < host.memory < host.memory_reservation:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")


def _check_cpu(host: HostConfig, limits: HostLimits) -> None:
    if host.nano_cpus > 0 and host.cpu_period:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if host.nano_cpus > 0 and host.cpu_quota:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if host.nano_cpus < 0 or host.nano_cpus > limits.cpus * SECOND:
        raise InvalidArgument(
            f"Range of CPUs is from 0.01 to {limits.cpus}.00, as there are only {limits.cpus} CPUs available"
        )
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidArgument(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < host.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if host.cpuset_cpus:
        wanted = _cpu_set(host.cpuset_cpus)
        if wanted is None:
            raise InvalidArgument(
                f"Invalid value {host.cpuset_cpus} for cpuset cpus: invalid format: {host.cpuset_cpus}"
            )
        if max(wanted) >= limits.cpus:
            raise InvalidArgument(
                f"Requested CPUs are not available - requested {host.cpuset_cpus}, "
                f"available: {'0' if limits.cpus == 1 else f'0-{limits.cpus - 1}'}"
            )
    if host.cpuset_mems:
        nodes = _cpu_set(host.cpuset_mems)
        if nodes is None:
            raise InvalidArgument(
                f"Invalid value {host.cpuset_mems} for cpuset mems: invalid format: {host.cpuset_mems}"
            )
        if not nodes <= limits.memory_nodes:
            raise InvalidArgument(
                f"Requested memory nodes are not available - requested {host.cpuset_mems}, "
                f"available: {','.join(str(each) for each in sorted(limits.memory_nodes))}"
            )


def _cpu_set(text: str) -> set[int] | None:
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if match is None:
            return None
        first, last = int(match.group(1)), int(match.group(2) or match.group(1))
        if last < first:
            return None
        found.update(range(first, last + 1))
    return found


def _check_health(health: HealthConfig) -> None:
    for name, value in (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ):
        if value and value < _MS:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if health.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")


def _check_network_mode(config: ContainerConfig, host: HostConfig) -> None:
    mode = host.network_mode
    if mode == "host":
        if host.links:
            raise InvalidArgument(
                "conflicting options: host type networking can't be used with links. "
                "This would result in undefined behavior"
            )
        if config.mac_address:
            raise InvalidArgument("conflicting options: mac-address and the network mode")
        return
    if not mode.startswith("container:") and mode != "container":
        return
    if not mode.removeprefix("container").removeprefix(":"):
        raise InvalidArgument("invalid network mode: invalid container format container:<name|id>")
    if host.links:
        raise InvalidArgument(
            "conflicting options: container type network can't be used with links. "
            "This would result in undefined behavior"
        )
    for is_set, text in (
        (config.hostname, "hostname and the network mode"),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (config.mac_address, "mac-address and the network mode"),
        (host.port_bindings or host.publish_all_ports, "port publishing and the container type network mode"),
        (config.exposed_ports, "port exposing and the container type network mode"),
    ):
        if is_set:
            raise InvalidArgument(f"conflicting options: {text}")


def check_ports(wanted: Mapping[str, Sequence[PortBinding]]) -> None:
    """Raises InvalidArgument with Docker's texts."""
    for port, bindings in wanted.items():
        parse_port(port)
        for binding in bindings:
            if binding.host_port and parse_range(binding.host_port.partition("/")[0]) is None:
                raise InvalidArgument(f'invalid port specification: "{binding.host_port}"')
            if binding.host_ip:
                _check_address(binding.host_ip, "port binding")


def _check_address(text: str, what: str) -> None:
    try:
        ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        raise InvalidArgument(f"invalid IP address in {what}: {text!r}") from None


def _check_extra_host(entry: str) -> None:
    name, colon, address = entry.partition(":")
    if not colon:
        name, colon, address = entry.partition("=")
    if not name or not colon or not address:
        raise InvalidArgument(f'bad format for add-host: "{entry}"')
    if address == "host-gateway":
        return
    try:
        ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        raise InvalidArgument(f'invalid IP address in add-host: "{address}"') from None


def parse_port(text: str) -> tuple[int, str]:
    """`80/tcp` → (80, "tcp"). Raises InvalidArgument."""
    number, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {protocol}")
    span = parse_range(number)
    if span is None:
        raise InvalidArgument(f'invalid port specification: "{number}"')
    return span[0], protocol


def parse_range(text: str) -> tuple[int, int] | None:
    """`80` or `8000-8010` as first and last port; None where it is neither."""
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
    if match is None:
        return None
    first, last = int(match.group(1)), int(match.group(2) or match.group(1))
    return (first, last) if 0 <= first <= last <= 65535 else None
