"""The daemon's settings, parsed once at its door (daemon.py) and frozen.

Paths are absolute. Names follow dockerd's flags where one exists.
"""

from __future__ import annotations

import msgspec

from dari.model.wire import Noun


class Pool(Noun, frozen=True, kw_only=True):
    """A range that subnets are cut from: `base` in CIDR form, `size` the prefix length of a subnet."""

    base: str
    size: int


DEFAULT_POOLS = [
    *(Pool(base=f"172.{second}.0.0/16", size=16) for second in range(17, 32)),
    Pool(base="192.168.0.0/16", size=20),
]


DEFAULT_OVERLAY_POOLS = [Pool(base="10.0.0.0/8", size=24)]


class Config(Noun, frozen=True, kw_only=True):
    """`mirrors`: registry host → list of mirror URLs tried first (docker.io, quay.io, …)."""

    data_root: str = "/var/lib/dari"
    exec_root: str = "/run/dari"
    pidfile: str = "/run/dari/darid.pid"
    hosts: list[str] = []
    group: str = "docker"
    log_level: str = "info"
    bridge_name: str = "dari0"
    # Without, containers that name no network have none.
    has_default_bridge: bool = True
    bip: str = ""
    mtu: int = 1500
    pools: list[Pool] = msgspec.field(default_factory=lambda: list(DEFAULT_POOLS))
    dns: list[str] = []
    dns_search: list[str] = []
    dns_options: list[str] = []
    bip6: str = ""
    fixed_cidr: str = ""
    fixed_cidr6: str = ""
    default_gateway: str = ""
    default_gateway6: str = ""
    is_bridge_ipv6: bool = False
    is_bridge_icc: bool = True
    is_bridge_masquerading: bool = True
    is_forwarding: bool = True
    # Entries the kernel's tables of neighbours have room for at least; 0: as the host has it.
    neighbours: int = 0
    host_gateway_ips: list[str] = []
    default_network_options: dict[str, dict[str, str]] = {}
    default_bind_ip: str = "0.0.0.0"
    # Whether published ports answer at the containers' own addresses, whoever asks.
    is_direct_routing: bool = False
    # Mark and mask of forwarded packets that pass into bridges.
    accept_mark: tuple[int, int] | None = None
    mirrors: dict[str, list[str]] = {}
    insecure_registries: list[str] = []
    cgroup_manager: str = "cgroupfs"
    cgroup_parent: str = "/dari"
    runtime: str = "crun"
    labels: list[str] = []
    tls_cert: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    # Where network and IPAM plugins are looked for, instead of Docker's folders and our own.
    plugin_dirs: list[str] = []
    # Seconds a plugin may take to answer, or be away.
    plugin_timeout: int = 30
    default_ulimits: dict[str, str] = {}
    default_shm_size: int = 64 * 1024 * 1024
    shutdown_timeout: int = 15
    # Of containers that do not say otherwise; empty: private where the host has unified cgroups, else host.
    default_ipc_mode: str = "private"
    default_cgroupns_mode: str = ""
    is_debug: bool = False
    # The store shared with other nodes: a URL ("" = none), its credentials, and who this node is among them.
    store: str = ""
    store_user: str = ""
    store_password: str = ""
    store_ca: str = ""
    store_cert: str = ""
    store_key: str = ""
    store_ttl: int = 10
    node_name: str = ""
    advertise: str = ""
    data_path_port: int = 4789
    wireguard_port: int = 51829
    overlay_pools: list[Pool] = msgspec.field(default_factory=lambda: list(DEFAULT_OVERLAY_POOLS))
    # The resolv.conf whose servers are asked for what dari does not know; a test may name its own.
    resolv_conf: str = "/etc/resolv.conf"
    # Where systemd-resolved says whom it asks itself; its own address answers nobody in another namespace.
    resolved_conf: str = "/run/systemd/resolve/resolv.conf"
    # Where the host itself is answered, `ADDRESS` or `ADDRESS:PORT`; empty: nowhere.
    dns_listen: str = ""

    @property
    def plugin_folders(self) -> list[str]:
        """In the order they are searched."""
        docker = ["/run/docker/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins"]
        return self.plugin_dirs or [f"{self.exec_root}/plugins", *docker, "/etc/dari/plugins"]

    @property
    def wireguard_key_file(self) -> str:
        """This node's private key, which never leaves it."""
        return f"{self.data_root}/wireguard.key"

    @property
    def netns_dir(self) -> str:
        return f"{self.exec_root}/netns"

    @property
    def dns_dir(self) -> str:
        return f"{self.exec_root}/dns"

    @property
    def containers_dir(self) -> str:
        """Per container: `<id>/` with hosts, hostname, resolv.conf, log (survives reboots)."""
        return f"{self.data_root}/containers"

    @property
    def left_dir(self) -> str:
        """Per sandbox whose owner was removed: `<sandbox id>/` with hosts, hostname, resolv.conf."""
        return f"{self.data_root}/sandboxes"

    @property
    def run_dir(self) -> str:
        """Per container: `<id>/` with bundle, pid files, attach sockets (gone with a reboot)."""
        return f"{self.exec_root}/containers"

    @property
    def volumes_dir(self) -> str:
        return f"{self.data_root}/volumes"

    @property
    def storage_dir(self) -> str:
        """containers/storage graph root, dari's alone."""
        return f"{self.data_root}/storage"
