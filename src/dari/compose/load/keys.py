"""Every key of the Compose model in one table: what it may hold, how it merges, where it goes.

A row per key path. `*` stands for a name the user chooses, `[]` for a list's element. A new key is one row
here and, if it is more than a plain copy, a line in `convert.py`. Reference: compose-spec (schema and "Merge").
"""

from __future__ import annotations

from collections.abc import Iterator

from dari.compose.load import canonical as c
from dari.compose.load.key import Key
from dari.compose.load.key import key as _key

STR, INT, NUM, BOOL, LIST, MAP = (_key(kind) for kind in ("str", "int", "num", "bool", "list", "map"))
TEXT = _key("str int num bool")
STRINGS = _key("str list", c.string_list)
PAIRS = _key("list map", c.labels)
ANY = Key()

_PULL_POLICY = r"always|never|build|if_not_present|missing|refresh|daily|weekly|every_([0-9]+[wdhms])+"

_HOOK: dict[str, Key] = {
    "command": _key("str list", c.command, merge="replace"),
    "user": STR,
    "privileged": BOOL,
    "working_dir": STR,
    "environment": _key("list map", c.environment),
    "environment.*": TEXT,
    "environment[]": STR,
}

_DEVICE_REQUEST: dict[str, Key] = {
    "capabilities": _key("list", c.string_list),
    "count": _key("str int"),
    "device_ids": _key("list", c.string_list),
    "driver": STR,
    "options": _key("list map", c.labels),
    "options.*": TEXT,
}

_SERVICE: dict[str, Key] = {
    "annotations": _key("list map", c.labels, body="HostConfig.Annotations"),
    "annotations.*": TEXT,
    "attach": BOOL,
    "blkio_config": MAP,
    "blkio_config.weight": INT,
    "blkio_config.weight_device": LIST,
    "blkio_config.weight_device[]": MAP,
    "blkio_config.weight_device[].path": STR,
    "blkio_config.weight_device[].weight": INT,
    **{
        f"blkio_config.{name}{suffix}": key
        for name in ("device_read_bps", "device_read_iops", "device_write_bps", "device_write_iops")
        for suffix, key in (("", LIST), ("[]", MAP), ("[].path", STR), ("[].rate", _key("int str", c.size)))
    },
    "build": _key("str map", c.build, is_set=True),
    "build.context": _key("str", path="build"),
    "build.dockerfile": STR,
    "build.dockerfile_inline": STR,
    "build.args": _key("list map", c.environment),
    "build.args.*": TEXT,
    "build.additional_contexts": _key("list map", c.labels),
    "build.additional_contexts.*": TEXT,
    "build.ssh": _key("list map", c.labels),
    "build.ssh.*": TEXT,
    "build.labels": PAIRS,
    "build.labels.*": TEXT,
    "build.cache_from": _key("list", c.string_list, unique="value"),
    "build.cache_to": _key("list", c.string_list, is_inert=True),
    "build.no_cache": BOOL,
    "build.no_cache_filter": _key("str list", c.string_list),
    "build.pull": BOOL,
    "build.network": STR,
    "build.target": STR,
    "build.shm_size": _key("int str", c.size),
    "build.extra_hosts": _key("list map", c.hosts),
    "build.extra_hosts.*": _key("str list", unique="value"),
    "build.isolation": _key("str", is_inert=True),
    "build.privileged": BOOL,
    "build.entitlements": _key("list", c.string_list, is_inert=True),
    "build.tags": _key("list", c.string_list, unique="value"),
    "build.ulimits": MAP,
    "build.ulimits.*": _key("int map", needs="soft hard", is_set=True),
    "build.ulimits.*.soft": INT,
    "build.ulimits.*.hard": INT,
    "build.platforms": _key("list", c.string_list, unique="value"),
    "build.provenance": _key("str bool", c.truth, is_inert=True),
    "build.sbom": _key("str bool", c.truth, is_inert=True),
    "build.secrets": _key("list", c.file_references, unique="source"),
    "build.secrets[]": _key("str map"),
    **{f"build.secrets[].{name}": STR for name in ("source", "target", "uid", "gid")},
    "build.secrets[].mode": _key("str int"),
    "cap_add": _key("list", c.string_list, unique="value", body="HostConfig.CapAdd"),
    "cap_drop": _key("list", c.string_list, unique="value", body="HostConfig.CapDrop"),
    "cgroup": _key("str", body="HostConfig.CgroupnsMode", choices="host private"),
    "cgroup_parent": _key("str", body="HostConfig.CgroupParent"),
    "command": _key("str list", c.command, merge="assign"),
    "configs": _key("list", c.file_references, unique="target"),
    "configs[]": _key("str map"),
    **{f"configs[].{name}": STR for name in ("source", "target", "uid", "gid")},
    "configs[].mode": _key("str int"),
    "container_name": _key("str", pattern="[a-zA-Z0-9][a-zA-Z0-9_.-]+"),
    "cpu_count": _key("int", body="HostConfig.CpuCount", low=0),
    "cpu_percent": _key("int", body="HostConfig.CpuPercent", low=0, high=100),
    "cpu_period": INT,
    "cpu_quota": _key("int", body="HostConfig.CpuQuota"),
    "cpu_rt_period": INT,
    "cpu_rt_runtime": INT,
    "cpu_shares": _key("int", body="HostConfig.CpuShares"),
    "cpus": NUM,
    "cpuset": _key("str", body="HostConfig.CpusetCpus"),
    "credential_spec": MAP,
    **{f"credential_spec.{name}": STR for name in ("config", "file", "registry")},
    "depends_on": _key("list map", c.depends_on, is_distinct=True),
    "depends_on.*": _key("map", needs="condition", is_set=True),
    "depends_on.*.condition": _key(
        "str", choices="service_started service_healthy service_completed_successfully"
    ),
    "depends_on.*.required": BOOL,
    "depends_on.*.restart": BOOL,
    "deploy": _key("map", c.deploy),
    "deploy.mode": _key("str", is_inert=True),
    "deploy.endpoint_mode": _key("str", is_inert=True),
    "deploy.replicas": _key("int", low=0),
    "deploy.labels": _key("list map", c.labels, is_inert=True),
    "deploy.labels.*": TEXT,
    "deploy.placement": _key("map", is_inert=True),
    "deploy.placement.constraints": _key("list", c.string_list, unique="value"),
    "deploy.placement.preferences": LIST,
    "deploy.placement.preferences[]": MAP,
    "deploy.placement.preferences[].spread": STR,
    "deploy.placement.max_replicas_per_node": INT,
    "deploy.resources": MAP,
    **{
        f"deploy.resources.{part}{rest}": key
        for part in ("limits", "reservations")
        for rest, key in (
            ("", MAP),
            (".cpus", NUM),
            (".memory", STR),
            (".pids", INT),
            (".generic_resources", _key("list", is_inert=True)),
        )
    },
    "deploy.resources.reservations.devices": _key("list", c.device_requests),
    "deploy.resources.reservations.devices[]": _key("map", needs="capabilities"),
    **{f"deploy.resources.reservations.devices[].{name}": key for name, key in _DEVICE_REQUEST.items()},
    "deploy.restart_policy": MAP,
    "deploy.restart_policy.condition": STR,
    "deploy.restart_policy.delay": _key("str", c.duration),
    "deploy.restart_policy.max_attempts": INT,
    "deploy.restart_policy.window": _key("str", c.duration),
    **{
        f"deploy.{part}{rest}": key
        for part in ("update_config", "rollback_config")
        for rest, key in (
            ("", _key("map", is_inert=True)),
            (".parallelism", INT),
            (".delay", _key("str", c.duration)),
            (".failure_action", STR),
            (".monitor", _key("str", c.duration)),
            (".max_failure_ratio", NUM),
            (".order", _key("str", choices="start-first stop-first")),
        )
    },
    "develop": _key("map", c.watch),
    "develop.watch": LIST,
    "develop.watch[]": _key("map", needs="path action"),
    "develop.watch[].path": _key("str", path="always"),
    "develop.watch[].action": _key("str", choices="rebuild sync restart sync+restart sync+exec"),
    "develop.watch[].target": STR,
    "develop.watch[].ignore": _key("str list"),
    "develop.watch[].include": _key("str list"),
    "develop.watch[].initial_sync": BOOL,
    "develop.watch[].exec": _key("map", needs="command"),
    **{f"develop.watch[].exec.{name}": key for name, key in _HOOK.items()},
    "device_cgroup_rules": _key(
        "list", c.string_list, unique="value", body="HostConfig.DeviceCgroupRules", is_distinct=True
    ),
    "devices": _key("list", c.devices, unique="target"),
    "devices[]": _key("str map", needs="source"),
    **{f"devices[].{name}": STR for name in ("source", "target", "permissions")},
    "dns": _key("str list", c.string_list, unique="value", body="HostConfig.Dns"),
    "dns_opt": _key("list", c.string_list, unique="value", body="HostConfig.DnsOptions"),
    "dns_search": _key("str list", c.string_list, unique="value", body="HostConfig.DnsSearch"),
    "domainname": _key("str", body="Domainname"),
    "entrypoint": _key("str list", c.command, merge="assign"),
    "env_file": _key("str list", c.env_file, unique="path"),
    "env_file[]": _key("str map", needs="path"),
    "env_file[].path": _key("str", path="always"),
    "env_file[].required": BOOL,
    "env_file[].format": STR,
    "environment": _key("list map", c.environment),
    "environment.*": TEXT,
    "environment[]": STR,
    "expose": _key("list", c.expose, unique="value"),
    "expose[]": _key("str int num"),
    "extends": _key("str map", c.extends, merge="replace", needs="service"),
    "extends.service": STR,
    "extends.file": STR,
    "external_links": _key("list", c.string_list, unique="value", is_distinct=True),
    "extra_hosts": _key("list map", c.hosts),
    "extra_hosts.*": _key("str list", unique="value"),
    "gpus": _key("str list", c.gpus, choices="all"),
    "gpus[]": MAP,
    **{f"gpus[].{name}": key for name, key in _DEVICE_REQUEST.items()},
    "group_add": _key("list", c.string_list, unique="value", body="HostConfig.GroupAdd", is_distinct=True),
    "group_add[]": _key("str int num"),
    "healthcheck": MAP,
    "healthcheck.test": _key("str list", c.health_test, merge="replace", is_set=True),
    "healthcheck.interval": _key("str", c.duration),
    "healthcheck.timeout": _key("str", c.duration),
    "healthcheck.start_period": _key("str", c.duration),
    "healthcheck.start_interval": _key("str", c.duration),
    "healthcheck.retries": INT,
    "healthcheck.disable": BOOL,
    "hostname": _key("str", body="Hostname"),
    "image": STR,
    "init": _key("bool", body="HostConfig.Init"),
    "ipc": STR,
    "isolation": _key("str", body="HostConfig.Isolation"),
    "label_file": _key("str list", c.string_list, unique="value", path="always"),
    "labels": PAIRS,
    "labels.*": TEXT,
    "links": _key("list", c.string_list, unique="value"),
    "logging": _key("map", c.logging, merge="logging"),
    "logging.driver": STR,
    "logging.options": MAP,
    "logging.options.*": _key("str int num"),
    "mac_address": STR,
    "mem_limit": _key("int str", c.size),
    "mem_reservation": _key("int str", c.size),
    "mem_swappiness": _key("int", body="HostConfig.MemorySwappiness"),
    "memswap_limit": _key("int str", c.size),
    "models": _key("list map", c.service_models, is_distinct=True),
    "models.*": MAP,
    "models.*.endpoint_var": STR,
    "models.*.model_var": STR,
    "network_mode": STR,
    "networks": _key("list map", c.networks, is_distinct=True),
    "networks.*": MAP,
    "networks.*.aliases": _key("list", c.string_list, unique="value"),
    "networks.*.ipv4_address": STR,
    "networks.*.ipv6_address": STR,
    "networks.*.link_local_ips": _key("list", c.string_list, unique="value"),
    "networks.*.mac_address": STR,
    "networks.*.driver_opts": _key("map", c.options),
    "networks.*.driver_opts.*": TEXT,
    "networks.*.priority": NUM,
    "networks.*.gw_priority": NUM,
    "networks.*.interface_name": STR,
    "networks.*.use_service_name_alias": BOOL,
    "oom_kill_disable": _key("bool", body="HostConfig.OomKillDisable"),
    "oom_score_adj": _key("int", body="HostConfig.OomScoreAdj", low=-1000, high=1000),
    "pid": STR,
    "pids_limit": _key("int", body="HostConfig.PidsLimit"),
    "platform": STR,
    "ports": _key("list", c.ports, unique="port"),
    "ports[]": _key("str int num map"),
    "ports[].target": INT,
    "ports[].published": _key("str int"),
    **{f"ports[].{name}": STR for name in ("name", "mode", "host_ip", "protocol", "app_protocol")},
    **{
        f"{part}{rest}": key
        for part in ("post_start", "pre_stop")
        for rest, key in (
            ("", LIST),
            ("[]", _key("map", needs="command")),
            *((f"[].{name}", key) for name, key in _HOOK.items()),
        )
    },
    "privileged": _key("bool", body="HostConfig.Privileged"),
    "profiles": _key("list", c.string_list, unique="value"),
    "provider": _key("map", needs="type"),
    "provider.type": STR,
    "provider.options": _key("map", c.provider_options),
    "provider.options.*": _key("str int num bool list", unique="value"),
    "pull_policy": _key("str", pattern=_PULL_POLICY),
    "pull_refresh_after": STR,
    "read_only": _key("bool", body="HostConfig.ReadonlyRootfs"),
    "restart": STR,
    "runtime": _key("str", body="HostConfig.Runtime"),
    "scale": _key("int", low=0),
    "secrets": _key("list", c.secrets, unique="target"),
    "secrets[]": _key("str map"),
    **{f"secrets[].{name}": STR for name in ("source", "target", "uid", "gid")},
    "secrets[].mode": _key("str int"),
    "security_opt": _key("list", c.string_list, unique="value", is_distinct=True),
    "shm_size": _key("int str", c.size),
    "stdin_open": _key("bool", body="OpenStdin"),
    "stop_grace_period": _key("str", c.duration),
    "stop_signal": _key("str", body="StopSignal"),
    "storage_opt": _key("map", c.options, body="HostConfig.StorageOpt"),
    "storage_opt.*": TEXT,
    "sysctls": _key("list map", c.labels, body="HostConfig.Sysctls"),
    "sysctls.*": TEXT,
    "tmpfs": _key("str list", c.string_list, unique="value"),
    "tty": _key("bool", body="Tty"),
    "ulimits": _key("map", c.ulimits),
    "ulimits.*": _key("int map", merge="replace", needs="soft hard", is_set=True),
    "ulimits.*.soft": INT,
    "ulimits.*.hard": INT,
    "umask": _key("int str", is_inert=True),
    "use_api_socket": BOOL,
    "user": STR,
    "userns_mode": _key("str", body="HostConfig.UsernsMode"),
    "uts": _key("str", body="HostConfig.UTSMode"),
    "volumes": _key("list", c.volumes, unique="target"),
    "volumes[]": _key("str map", needs="type"),
    "volumes[].type": _key("str", choices="bind volume tmpfs cluster npipe image"),
    **{f"volumes[].{name}": STR for name in ("source", "target")},
    "volumes[].consistency": _key("str", is_inert=True),
    "volumes[].read_only": BOOL,
    "volumes[].bind": MAP,
    "volumes[].bind.propagation": STR,
    "volumes[].bind.create_host_path": BOOL,
    "volumes[].bind.recursive": _key("str", choices="enabled disabled writable readonly"),
    "volumes[].bind.selinux": _key("str", choices="z Z"),
    "volumes[].volume": MAP,
    "volumes[].volume.nocopy": BOOL,
    "volumes[].volume.subpath": STR,
    "volumes[].volume.labels": PAIRS,
    "volumes[].volume.labels.*": TEXT,
    "volumes[].tmpfs": MAP,
    "volumes[].tmpfs.size": _key("int str", low=0),
    "volumes[].tmpfs.mode": _key("int str"),
    "volumes[].image": MAP,
    "volumes[].image.subpath": STR,
    "volumes_from": _key("list", c.string_list, unique="value", is_distinct=True),
    "working_dir": _key("str", body="WorkingDir"),
}

# What a `pre_start` step may say: its own container, but nothing of what starts or watches a service.
_NO_HOOK_KEYS = (
    "attach build container_name depends_on deploy develop expose extends external_links healthcheck links ports "
    "post_start pre_stop profiles provider restart scale stdin_open tty"
)
HOOK_KEYS = {path.split(".")[0].split("[")[0] for path in _SERVICE} - set(_NO_HOOK_KEYS.split())
_SERVICE |= {
    "pre_start": LIST,
    "pre_start[]": MAP,
    "pre_start[].per_replica": BOOL,
    **{
        f"pre_start[].{path}": key
        for path, key in _SERVICE.items()
        if path.split(".")[0].split("[")[0] in HOOK_KEYS
    },
    "pre_start[].models": _key("list map", c.service_models, is_inert=True, is_distinct=True),
}

_RESOURCE: dict[str, Key] = {
    "name": STR,
    "external": _key("bool map"),
    "external.name": STR,
    "labels": PAIRS,
    "labels.*": TEXT,
}
_DRIVER: dict[str, Key] = {
    "driver": STR,
    "driver_opts": _key("map", c.options),
    "driver_opts.*": _key("str int num", is_set=True),
}
_CONTENT: dict[str, Key] = {
    **_RESOURCE,
    **_DRIVER,
    "file": _key("str", path="always"),
    "environment": STR,
    "template_driver": _key("str", is_inert=True),
}

_RULES: dict[str, Key] = {
    f"x-policy.{verdict}{suffix}": key
    for verdict in ("allow", "deny")
    for suffix, key in {
        "": LIST,
        "[]": MAP,
        "[].from": _key("str list"),
        "[].from[]": STR,
        "[].ports": _key("str int list"),
        "[].ports[]": _key("str int"),
    }.items()
}
_POLICY: dict[str, Key] = {"x-policy": MAP, "x-policy.default": STR, **_RULES}

_MEMBERS: dict[str, Key] = {
    "x-members": MAP,
    "x-members.*": _key("str map"),
    "x-members.*.address": _key("str", is_required=True),
    **{f"x-members.*.{name}": STR for name in ("name", "protocol")},
    **{f"x-members.*.{name}": _key("str list") for name in ("tags", "checks")},
    **{f"x-members.*.{name}[]": STR for name in ("tags", "checks")},
    "x-members.*.meta": MAP,
    "x-members.*.meta.*": TEXT,
}

_RECORDS: dict[str, Key] = {
    "x-dns": MAP,
    "x-dns.*": MAP,
    "x-dns.*.*": _key("str list"),
    "x-dns.*.*[]": STR,
}

TABLE: dict[str, Key] = {
    "version": ANY,
    "name": STR,
    "include": _key("list", c.include),
    "include[]": _key("str map"),
    "include[].path": _key("str list"),
    "include[].env_file": _key("str list"),
    "include[].project_directory": STR,
    "services": _key("map", is_required=True),
    "services.*": _key("map", is_required=True),
    **{f"services.*.{path}": key for path, key in _SERVICE.items()},
    **{f"services.*.{path}": key for path, key in _POLICY.items()},
    **{f"services.*.{path}": key for path, key in _RECORDS.items()},
    **_POLICY,
    **_MEMBERS,
    **_RECORDS,
    **{f"x-policy.{verdict}[].to": _key("str list") for verdict in ("allow", "deny")},
    **{f"x-policy.{verdict}[].to[]": STR for verdict in ("allow", "deny")},
    "networks": MAP,
    "networks.*": _key("map", c.resource),
    **{f"networks.*.{path}": key for path, key in {**_RESOURCE, **_DRIVER}.items()},
    "networks.*.attachable": BOOL,
    "networks.*.internal": BOOL,
    "networks.*.enable_ipv4": BOOL,
    "networks.*.enable_ipv6": BOOL,
    "networks.*.ipam": MAP,
    "networks.*.ipam.driver": STR,
    "networks.*.ipam.options": _key("map", c.options),
    "networks.*.ipam.options.*": STR,
    "networks.*.ipam.config": _key("list", unique="subnet"),
    "networks.*.ipam.config[]": _key("map", is_set=True),
    **{f"networks.*.ipam.config[].{name}": STR for name in ("subnet", "ip_range", "gateway")},
    "networks.*.ipam.config[].aux_addresses": MAP,
    "networks.*.ipam.config[].aux_addresses.*": STR,
    "volumes": MAP,
    "volumes.*": _key("map", c.resource),
    **{f"volumes.*.{path}": key for path, key in {**_RESOURCE, **_DRIVER}.items()},
    "secrets": MAP,
    "secrets.*": _key("map", c.resource),
    **{f"secrets.*.{path}": key for path, key in _CONTENT.items()},
    "configs": MAP,
    "configs.*": _key("map", c.resource),
    **{f"configs.*.{path}": key for path, key in _CONTENT.items()},
    "configs.*.content": STR,
    "models": MAP,
    "models.*": _key("map", needs="model"),
    "models.*.name": STR,
    "models.*.model": STR,
    "models.*.context_size": INT,
    "models.*.runtime_flags": _key("list", c.string_list),
}


class Node:
    """A step of the key tree: the row here, children by name, `*` for any name, `[]` for elements."""

    __slots__ = ("children", "element", "key", "wildcard")

    def __init__(self) -> None:
        self.key: Key | None = None
        self.children: dict[str, Node] = {}
        self.wildcard: Node | None = None
        self.element: Node | None = None

    def child(self, name: str) -> Node | None:
        """The node of a mapping's key."""
        return self.children.get(name) or self.wildcard


def _steps(path: str) -> Iterator[str]:
    for part in path.split("."):
        if part.endswith("[]"):
            yield part[:-2]
            yield "[]"
        else:
            yield part


_LISTS_OF_TEXT = (c.string_list, c.command, c.health_test, c.labels, c.environment, c.hosts)


def _tree() -> Node:
    root = Node()
    root.key = MAP
    for path, key in TABLE.items():
        node = root
        for step in _steps(path):
            if step == "[]":
                node.element = node = node.element or Node()
            elif step == "*":
                node.wildcard = node = node.wildcard or Node()
            else:
                node = node.children.setdefault(step, Node())
        node.key = key
        if node.element is None and key.canonical in _LISTS_OF_TEXT:
            node.element = Node()
            node.element.key = STR
    return root


ROOT = _tree()
# The rows whose value is copied as it is into the container-create body: key, place.
BODY: tuple[tuple[str, tuple[str, ...]], ...] = tuple(
    (path, tuple(key.body.split(".")))
    for path, key in _SERVICE.items()
    if key.body and not path.startswith("pre_start")
)
