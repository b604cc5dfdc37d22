"""A project as the YAML that `config` prints: keys in Docker Compose's order, texts quoted as it quotes them. Pure.

Text that would read back as something else (`"1"`, `"yes"`, `"12:30"`) is quoted; text of several lines is a block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cmp_to_key
from typing import Any

from dari.compose.load.yaml import plain_scalar

_HOOK = "command user privileged working_dir environment"
_REFERENCE = "source target uid gid mode"
_LIMITS = "cpus memory pids devices generic_resources"
_UPDATE = "parallelism delay failure_action monitor max_failure_ratio order"
_DEVICE = "capabilities driver count device_ids options"
_RESOURCE = "name file environment content external labels driver driver_opts template_driver"
_SERVICE = (
    "profiles annotations attach build develop blkio_config cap_add cap_drop cgroup_parent cgroup cpu_count "
    "cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpus cpuset cpu_shares command configs "
    "container_name credential_spec depends_on deploy device_cgroup_rules devices dns dns_opt dns_search domainname "
    "entrypoint provider environment env_file expose extends external_links extra_hosts group_add gpus hostname "
    "healthcheck image init ipc isolation labels label_file links logging mem_limit mem_reservation memswap_limit "
    "mem_swappiness mac_address models network_mode networks oom_kill_disable oom_score_adj pid pids_limit platform "
    "ports privileged pull_policy pull_refresh_after read_only restart runtime scale secrets security_opt shm_size "
    "stdin_open stop_grace_period stop_signal storage_opt sysctls tmpfs tty ulimits umask use_api_socket user "
    "userns_mode uts volumes volumes_from working_dir pre_start post_start pre_stop"
)
# The keys of a mapping in their order, by its place; those of other mappings are sorted.
_ORDERS: dict[str, str] = {
    "": "name services networks volumes secrets configs models",
    "services.*": _SERVICE,
    "services.*.pre_start.[]": _SERVICE,
    "services.*.build": (
        "context dockerfile dockerfile_inline entitlements args provenance sbom ssh labels cache_from cache_to "
        "no_cache no_cache_filter additional_contexts pull extra_hosts isolation network target secrets shm_size tags "
        "ulimits platforms privileged"
    ),
    "services.*.build.secrets.[]": _REFERENCE,
    "services.*.build.ulimits.*": "soft hard",
    "services.*.develop.watch.[]": "path action target exec include ignore initial_sync",
    "services.*.develop.watch.[].exec": _HOOK,
    "services.*.post_start.[]": _HOOK,
    "services.*.pre_stop.[]": _HOOK,
    "services.*.blkio_config": (
        "weight weight_device device_read_bps device_read_iops device_write_bps device_write_iops"
    ),
    "services.*.configs.[]": _REFERENCE,
    "services.*.secrets.[]": _REFERENCE,
    "services.*.depends_on.*": "condition restart required",
    "services.*.deploy": (
        "mode replicas labels update_config rollback_config resources restart_policy placement endpoint_mode"
    ),
    "services.*.deploy.update_config": _UPDATE,
    "services.*.deploy.rollback_config": _UPDATE,
    "services.*.deploy.resources": "limits reservations",
    "services.*.deploy.resources.limits": _LIMITS,
    "services.*.deploy.resources.reservations": _LIMITS,
    "services.*.deploy.resources.reservations.devices.[]": _DEVICE,
    "services.*.deploy.restart_policy": "condition delay max_attempts window",
    "services.*.deploy.placement": "constraints preferences max_replicas_per_node",
    "services.*.gpus.[]": _DEVICE,
    "services.*.devices.[]": "source target permissions",
    "services.*.env_file.[]": "path required format",
    "services.*.healthcheck": "test timeout interval retries start_period start_interval disable",
    "services.*.logging": "driver options",
    "services.*.networks.*": (
        "aliases driver_opts gw_priority interface_name ipv4_address ipv6_address link_local_ips mac_address priority"
    ),
    "services.*.ports.[]": "name mode host_ip target published protocol app_protocol",
    "services.*.provider": "type options",
    "services.*.ulimits.*": "soft hard",
    "services.*.volumes.[]": "type source target read_only consistency bind volume tmpfs image",
    "services.*.volumes.[].bind": "selinux propagation create_host_path recursive",
    "services.*.volumes.[].volume": "labels nocopy subpath",
    "services.*.volumes.[].tmpfs": "size mode",
    "services.*.pre_start.[].volumes.[]": "type source target read_only consistency bind volume tmpfs image",
    "services.*.models.*": "endpoint_var model_var",
    "networks.*": "name driver driver_opts ipam external internal attachable labels enable_ipv4 enable_ipv6",
    "networks.*.ipam": "driver config",
    "networks.*.ipam.config.[]": "subnet gateway ip_range aux_addresses",
    "volumes.*": "name driver driver_opts external labels",
    "secrets.*": _RESOURCE,
    "configs.*": _RESOURCE,
    "models.*": "name model context_size runtime_flags",
}
_NAMED = frozenset(
    ("services", "networks", "volumes", "secrets", "configs", "models", "depends_on", "ulimits")
)
_OLD_BOOLEANS = re.compile(r"(?:y|Y|yes|Yes|YES|n|N|no|No|NO|on|On|ON|off|Off|OFF)\Z")
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?\Z")
_TIME = re.compile(r"\d{4}-\d{1,2}-\d{1,2}(?:[Tt ].*)?\Z")


def as_yaml(value: Any, *, is_ordered: bool = True) -> str:
    """YAML that reads back as the same tree. `is_ordered`: keys come in Compose's order, else sorted."""
    import yaml

    class Dumper(yaml.SafeDumper):
        yaml_implicit_resolvers: dict[str, Any] = {}

        def ignore_aliases(self, data: Any) -> bool:
            return True

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

    def text(dumper: Any, data: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=_style(data))

    def plain(dumper: Any, data: Any) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", _plain(data))

    Dumper.add_representer(str, text)
    for kind in (int, float, bool, type(None)):
        Dumper.add_representer(kind, plain)
    tree = _ordered(value, "", is_ordered)
    return yaml.dump(
        tree,
        Dumper=Dumper,
        sort_keys=False,
        default_flow_style=False,
        allow_unicode=True,
        width=1 << 30,
    )


def _style(text: str) -> str | None:
    if "\n" in text:
        return "|"
    is_other = (
        text == "<<"
        or _OLD_BOOLEANS.match(text)
        or not isinstance(plain_scalar(text), str)
        or _BASE_60.match(text)
        or _TIME.match(text)
    )
    return '"' if is_other else None


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return str(value)


def _ordered(value: Any, place: str, is_ordered: bool) -> Any:
    if isinstance(value, list):
        return [_ordered(item, f"{place}.[]", is_ordered) for item in value]
    if not isinstance(value, Mapping):
        return value
    order = _ORDERS.get(place) if is_ordered else None
    if order is None:
        keys = sorted(value, key=_natural)
    else:
        wanted = order.split()
        keys = [key for key in wanted if key in value] + sorted(
            (key for key in value if key not in wanted), key=_natural
        )
    is_named = place.rpartition(".")[2] in _NAMED
    return {
        key: _ordered(value[key], f"{place}.{'*' if is_named else key}".removeprefix("."), is_ordered)
        for key in keys
        if not _is_left_out(key, value[key], place)
    }


def _compare(one: str, other: str) -> int:
    """Order of keys as Go's YAML has it: numbers by value, other signs before letters (after them behind digits)."""
    is_behind_digit = False
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a == b:
            is_behind_digit = a.isdigit()
            continue
        if a.isalpha() and b.isalpha():
            return -1 if a < b else 1
        if a.isalpha() or b.isalpha():
            return -1 if (a.isalpha() if is_behind_digit else b.isalpha()) else 1
        first, second = _digits(one, at), _digits(other, at)
        if first and second and (int(first), len(first)) != (int(second), len(second)):
            return -1 if (int(first), len(first)) < (int(second), len(second)) else 1
        if bool(first) != bool(second):
            return -1 if not first else 1
        return -1 if a < b else 1
    return len(one) - len(other)


def _digits(text: str, at: int) -> str:
    end = at
    while end < len(text) and text[end].isdigit():
        end += 1
    return text[at:end]


_natural = cmp_to_key(_compare)


def _is_left_out(key: str, value: Any, place: str) -> bool:
    """What JSON shows and YAML does not: commands that are not set, empty parts."""
    if place in ("services.*", "services.*.pre_start.[]") and key in ("command", "entrypoint"):
        return value is None
    if place == "services.*.develop.watch.[]" and key == "exec":
        return bool(value == {"command": None})
    if place == "services.*.deploy":
        return value in ({}, None)
    return place == "networks.*" and key == "ipam" and value == {}
