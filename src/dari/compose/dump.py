"""A project as `config` shows it: the canonical tree in compose-go's shape, JSON or YAML.

Must not know how a project is loaded; reads `Project.model` only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def tree(model: Mapping[str, Any]) -> dict[str, Any]:
    """The model in the order and shape `docker compose config` prints."""
    found: dict[str, Any] = {"name": model["name"]}
    found["services"] = {name: _service(service) for name, service in sorted(model["services"].items())}
    for section in ("networks", "volumes", "secrets", "configs", "models"):
        entries = model.get(section)
        if entries:
            found[section] = {name: _sorted(entry) for name, entry in sorted(entries.items())}
    for key, value in model.items():
        if key.startswith("x-"):
            found[key] = value
    return found


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


def _service(service: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(_sorted(dict(service)))
    _drop_false(found.get("healthcheck"), "disable")
    _drop_false(found.get("build"), "no_cache", "pull", "privileged")
    for mount in found.get("volumes") or []:
        _drop_false(mount.get("volume"), "nocopy")
    for hook in (*(found.get("post_start") or []), *(found.get("pre_stop") or [])):
        _drop_false(hook, "privileged")
    for trigger in (found.get("develop") or {}).get("watch") or []:
        _drop_false(trigger, "initial_sync")
        _drop_false(trigger.get("exec"), "privileged")
    if found.get("pre_start"):
        found["pre_start"] = [_service(hook) for hook in found["pre_start"]]
    if not found.get("profiles"):
        found.pop("profiles", None)
    if found.get("mem_swappiness") is not None:
        found["mem_swappiness"] = str(found["mem_swappiness"])
    health = found.get("healthcheck")
    if health and health.get("test") == []:
        found["healthcheck"] = {key: value for key, value in health.items() if key != "test"}
    if "extra_hosts" in found:
        found["extra_hosts"] = _hosts(found["extra_hosts"])
    build = found.get("build")
    if build and build.get("extra_hosts"):
        found["build"] = {**build, "extra_hosts": _hosts(build["extra_hosts"])}
    if build and build.get("ssh"):
        keys = [f"{name}={path}" if path else name for name, path in build["ssh"].items()]
        found["build"] = {**found["build"], "ssh": keys}
    for key in ("env_file",):
        for entry in found.get(key) or []:
            if entry.get("required") is True:
                del entry["required"]
    for mount in found.get("volumes") or []:
        bind = mount.get("bind")
        if bind and bind.get("create_host_path") is True:
            mount["bind"] = {key: value for key, value in bind.items() if key != "create_host_path"}
        if mount.get("read_only") is False:
            del mount["read_only"]
    for key in [
        key
        for key, value in found.items()
        if value in ({}, [], False, "") and key not in ("attach", "command", "entrypoint", "init")
    ]:
        del found[key]
    return found


def _drop_false(mapping: Any, *keys: str) -> None:
    """Takes switches that are off away: they are so without being named."""
    for key in keys:
        if isinstance(mapping, dict) and mapping.get(key) is False:
            del mapping[key]


def _hosts(hosts: Mapping[str, list[str]]) -> list[str]:
    return sorted(f"{name}={address}" for name, addresses in hosts.items() for address in addresses)


def as_json(model: Mapping[str, Any]) -> str:
    """Indented JSON, with a newline at the end."""
    import json

    return json.dumps(tree(model), indent=2, ensure_ascii=False) + "\n"


def doubled(value: Any) -> Any:
    """The tree with dollars doubled, so that its text loads as what it is."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: doubled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [doubled(item) for item in value]
    return value
