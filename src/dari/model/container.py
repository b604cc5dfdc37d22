"""The container: what was asked (`ContainerConfig`, `HostConfig`), what is wanted, and what was seen.

Field names are Docker's (API v1.51 `ContainerConfig`, `HostConfig`), spelled in Python; encoded they are Docker's
own. Addresses are canonical text. Times are nanoseconds since the epoch, durations nanoseconds, sizes bytes.
Must not know: stores, clocks, HTTP. See network.py for endpoints and sandboxes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from dari.model.wire import DockerNoun, Noun

State = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]
Desired = Literal["created", "running", "paused", "stopped", "removed"]


class HealthConfig(DockerNoun, frozen=True, kw_only=True, omit_defaults=True):
    """`Test` is `[]` inherit, `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", line]`; durations ns, 0 = default."""

    test: list[str] = []
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0
    start_interval: int = 0


class ContainerConfig(DockerNoun, frozen=True, kw_only=True):
    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, str]] = {}
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] = []
    cmd: list[str] | None = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, dict[str, str]] = {}
    working_dir: str = ""
    entrypoint: list[str] | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] | None = None
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


class PortBinding(DockerNoun, frozen=True, kw_only=True):
    """Where a container port is wanted on the host; empty port = any free one, `a-b` = one of a range."""

    host_ip: str = msgspec.field(name="HostIp", default="")
    host_port: str = ""


class RestartPolicy(DockerNoun, frozen=True, kw_only=True):
    name: Literal["", "no", "always", "unless-stopped", "on-failure"] = "no"
    maximum_retry_count: int = 0


class LogConfig(DockerNoun, frozen=True, kw_only=True):
    type: str = "json-file"
    config: dict[str, str] = {}


class Ulimit(DockerNoun, frozen=True, kw_only=True):
    name: str
    hard: int
    soft: int


class DeviceMapping(DockerNoun, frozen=True, kw_only=True):
    path_on_host: str
    path_in_container: str = ""
    cgroup_permissions: str = "rwm"


class DeviceRequest(DockerNoun, frozen=True, kw_only=True):
    driver: str = ""
    count: int = 0
    device_ids: list[str] = msgspec.field(name="DeviceIDs", default_factory=list)
    capabilities: list[list[str]] = []
    options: dict[str, str] = {}


class ThrottleDevice(DockerNoun, frozen=True, kw_only=True):
    path: str
    rate: int


class WeightDevice(DockerNoun, frozen=True, kw_only=True):
    path: str
    weight: int


class BindOptions(DockerNoun, frozen=True, kw_only=True, omit_defaults=True):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class DriverConfig(DockerNoun, frozen=True, kw_only=True, omit_defaults=True):
    name: str = ""
    options: dict[str, str] = {}


class VolumeOptions(DockerNoun, frozen=True, kw_only=True, omit_defaults=True):
    no_copy: bool = False
    labels: dict[str, str] = {}
    driver_config: DriverConfig | None = None
    subpath: str = ""


class TmpfsOptions(DockerNoun, frozen=True, kw_only=True, omit_defaults=True):
    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] = []


class ImageOptions(DockerNoun, frozen=True, kw_only=True, omit_defaults=True):
    subpath: str = ""


class MountRequest(DockerNoun, frozen=True, kw_only=True, omit_defaults=True):
    """One entry of `HostConfig.Mounts`."""

    type: str = "volume"
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    image_options: ImageOptions | None = None


class HostConfig(DockerNoun, frozen=True, kw_only=True):
    binds: list[str] = []
    container_id_file: str = msgspec.field(name="ContainerIDFile", default="")
    log_config: LogConfig = LogConfig()
    network_mode: str = "default"
    port_bindings: dict[str, list[PortBinding]] = {}
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] = []
    console_size: list[int] = msgspec.field(default_factory=lambda: [0, 0])
    annotations: dict[str, str] = {}
    cap_add: list[str] = []
    cap_drop: list[str] = []
    cgroupns_mode: str = ""
    dns: list[str] = []
    dns_options: list[str] = []
    dns_search: list[str] = []
    extra_hosts: list[str] = []
    group_add: list[str] = []
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] = []
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] = []
    storage_opt: dict[str, str] = {}
    tmpfs: dict[str, str] = {}
    uts_mode: str = ""
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] = {}
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] = []
    blkio_device_read_bps: list[ThrottleDevice] = []
    blkio_device_write_bps: list[ThrottleDevice] = []
    blkio_device_read_iops: list[ThrottleDevice] = msgspec.field(
        name="BlkioDeviceReadIOps", default_factory=list
    )
    blkio_device_write_iops: list[ThrottleDevice] = msgspec.field(
        name="BlkioDeviceWriteIOps", default_factory=list
    )
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] = []
    device_cgroup_rules: list[str] = []
    device_requests: list[DeviceRequest] = []
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] = []
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = msgspec.field(name="IOMaximumIOps", default=0)
    io_maximum_bandwidth: int = msgspec.field(name="IOMaximumBandwidth", default=0)
    mounts: list[MountRequest] = []
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    init: bool | None = None


class Mount(Noun, frozen=True, kw_only=True):
    """A mount as resolved at create: what the runtime binds and what `inspect` shows under `Mounts`.

    `source` is a host path (bind: the asked path; volume: its folder; image: where it is mounted while the container
    runs; tmpfs: empty). `image` is the image's name as asked for. `origin` says which part of
    the request made it: `bind` (Binds), `mount` (Mounts), `image` (VOLUME), `tmpfs`.
    """

    type: Literal["bind", "volume", "tmpfs", "image"]
    target: str
    source: str = ""
    volume: str = ""
    is_anonymous: bool = False
    driver: str = "local"
    mode: str = ""
    is_read_only: bool = False
    propagation: str = ""
    options: list[str] = []
    origin: str = "bind"
    subpath: str = ""
    image: str = ""


class HealthResult(DockerNoun, frozen=True, kw_only=True):
    start: int
    end: int
    exit_code: int
    output: str


class Health(DockerNoun, frozen=True, kw_only=True):
    status: Literal["none", "starting", "healthy", "unhealthy"] = "starting"
    failing_streak: int = 0
    log: list[HealthResult] = []


class ContainerStatus(Noun, frozen=True, kw_only=True):
    """What was last seen. `started`/`finished` ns since the epoch, 0 = never."""

    state: State = "created"
    pid: int = 0
    conmon_pid: int = 0
    exit_code: int = 0
    error: str = ""
    is_oom_killed: bool = False
    started: int = 0
    finished: int = 0
    restart_count: int = 0
    health: Health | None = None
    # A container the user stopped is not restarted when the daemon starts (policy unless-stopped) nor by its exit.
    is_stopped_by_user: bool = False
    # Its anonymous volumes go with it (`rm -v`): a daemon killed half-way remembers.
    is_removing_volumes: bool = False


class Container(Noun, frozen=True, kw_only=True):
    """`name` has no leading slash. `sandbox_id` is the sandbox it runs in (its own, or the shared one's)."""

    id: str
    name: str
    created: int
    image_id: str
    config: ContainerConfig
    host: HostConfig
    sandbox_id: str
    desired_state: Desired = "created"
    status: ContainerStatus = ContainerStatus()
    mounts: list[Mount] = []
    path: str = ""
    args: list[str] = []
    platform: str = "linux"
    # Command line of the entry with image defaults merged: Path + Args as Docker shows them.

    @property
    def short_id(self) -> str:
        return self.id[:12]
