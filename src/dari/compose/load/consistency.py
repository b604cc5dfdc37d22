"""Does the model hold together? Phase 9: every name refers to something, nothing excludes something else.

The messages are those users know from Docker Compose. Looks at the enabled services only, since a disabled
one may refer to what its profile would bring.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from dari.compose.load.errors import ComposeError

_CONDITIONS = frozenset(("service_started", "service_healthy", "service_completed_successfully"))
_SHARED = ("network_mode", "ipc", "pid")
_SUFFIX = "invalid compose project"
_MOUNTS = frozenset(("bind", "volume", "tmpfs", "npipe", "cluster", "image"))


def verify(tree: Mapping[str, Any], enabled: Mapping[str, Any], disabled: Collection[str] = ()) -> None:
    """Raises ComposeError for the first thing that does not fit (services in alphabetical order).

    `disabled`: services that no active profile has; a dependency that is not required may be one of them.
    """
    for name in sorted(enabled):
        _service(name, enabled[name], tree, enabled, disabled)
    _no_cycle(enabled)
    _resources(tree)


def _fail(message: str, *path: str) -> ComposeError:
    return ComposeError(f"{message}: {_SUFFIX}", path)


def _service(
    name: str,
    service: Mapping[str, Any],
    tree: Mapping[str, Any],
    enabled: Mapping[str, Any],
    disabled: Collection[str],
) -> None:
    where = ("services", name)
    if not service.get("image") and not service.get("build") and not service.get("provider"):
        raise _fail(f'service "{name}" has neither an image nor a build context specified', *where)
    build = service.get("build") or {}
    if build.get("dockerfile_inline") and build.get("dockerfile") not in (None, "Dockerfile"):
        raise _fail(f'service "{name}" declares mutually exclusive dockerfile and dockerfile_inline', *where)
    for key, target in (build.get("additional_contexts") or {}).items():
        kind, _, base = str(target).partition(":")
        if kind == "service" and base not in enabled:
            raise _fail(
                f'service "{name}" declares unknown service "{base}" as additional contexts {key}', *where
            )
        if kind == "service" and not enabled[base].get("build"):
            raise _fail(
                f'service "{name}" declares non-buildable service "{base}" as additional contexts {key}',
                *where,
            )
    for reference in build.get("secrets") or []:
        if reference.get("source") not in (tree.get("secrets") or {}):
            raise _fail(
                f'service "{name}" refers to undefined build secret {reference.get("source")}',
                *where,
                "build",
            )
    for model in service.get("models") or {}:
        if model not in (tree.get("models") or {}):
            raise _fail(f'service "{name}" refers to undefined model {model}', *where, "models", model)
    if service.get("network_mode") and service.get("networks"):
        raise _fail(f'service "{name}" declares mutually exclusive `network_mode` and `networks`', *where)
    for network in service.get("networks") or {}:
        if network not in tree["networks"]:
            raise _fail(
                f'service "{name}" refers to undefined network {network}', *where, "networks", network
            )
    for hook in service.get("pre_start") or []:
        _mounts(name, hook, tree)
    _dependencies(name, service, enabled, disabled)
    _mounts(name, service, tree)
    for section, word in (("configs", "config"), ("secrets", "secret")):
        for reference in service.get(section) or []:
            if reference.get("source") not in (tree.get(section) or {}):
                raise _fail(
                    f'service "{name}" refers to undefined {word} {reference.get("source")}', *where, section
                )
    test = (service.get("healthcheck") or {}).get("test")
    if test and test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise _fail(
            f'service "{name}": healthcheck.test must start either by "CMD", "CMD-SHELL" or "NONE"',
            *where,
            "healthcheck",
            "test",
        )
    deploy = service.get("deploy") or {}
    scale, replicas = service.get("scale"), deploy.get("replicas")
    if scale is not None and replicas is not None and scale != replicas:
        raise _fail(f"services.{name}: can't set distinct values on 'scale' and 'deploy.replicas'", *where)
    if service.get("container_name") and max(scale or 0, replicas or 0) > 1:
        raise _fail(
            f"services.{name}: can't set container_name and scale, as container name must be unique", *where
        )
    resources = deploy.get("resources") or {}
    for own, part, theirs in (
        ("cpus", "limits", "cpus"),
        ("mem_limit", "limits", "memory"),
        ("mem_reservation", "reservations", "memory"),
        ("pids_limit", "limits", "pids"),
    ):
        if part not in resources or not float(service.get(own) or 0):
            continue
        if float(service[own]) != float((resources[part] or {}).get(theirs) or 0):
            raise _fail(
                f"services.{name}: can't set distinct values on '{own}' and 'deploy.resources.{part}.{theirs}'",
                *where,
            )


def _dependencies(
    name: str, service: Mapping[str, Any], enabled: Mapping[str, Any], disabled: Collection[str]
) -> None:
    for target, dependency in (service.get("depends_on") or {}).items():
        if target == name:
            raise _fail(f'service "{name}" depends on itself', "services", name, "depends_on")
        if dependency.get("condition") not in _CONDITIONS:
            raise _fail(
                f"services.{name}.depends_on.{target}.condition must be one of {', '.join(sorted(_CONDITIONS))}",
                "services", name, "depends_on", target,
            )  # fmt: skip
        is_spared = target in disabled and not dependency.get("required", True)
        if target not in enabled and not is_spared:
            raise _fail(
                f'service "{name}" depends on undefined service "{target}"', "services", name, "depends_on"
            )
    for key in _SHARED:
        kind, separator, target = str(service.get(key, "")).partition(":")
        if separator and kind == "service" and target not in enabled:
            raise _fail(f'service "{name}" not found for {key}: service:{target}', "services", name, key)


def _mounts(name: str, service: Mapping[str, Any], tree: Mapping[str, Any]) -> None:
    taken: dict[str, str] = {}
    for index, entry in enumerate(service.get("tmpfs") or []):
        taken[str(entry).partition(":")[0]] = f"services.{name}.tmpfs[{index}]"
    for index, mount in enumerate(service.get("volumes") or []):
        target = str(mount.get("target") or "")
        if target in taken:
            raise _fail(
                f"services.{name}.volumes[{index}]: target {target} already mounted as {taken[target]}",
                *("services", name, "volumes"),
            )
    for index, mount in enumerate(service.get("volumes") or []):
        where = ("services", name, "volumes")
        kind = mount["type"]
        if kind not in _MOUNTS:
            raise _fail(f"services.{name}.volumes.{index}.type {kind!r} is unknown", *where)
        if not mount.get("target"):
            raise _fail(f"services.{name}.volumes.{index}: target is missing", *where)
        if kind == "bind" and not mount.get("source"):
            raise _fail(
                f'service "{name}": invalid mount config for type "bind": field Source must not be empty',
                *where,
            )
        if kind == "volume" and mount.get("source") and mount["source"] not in (tree.get("volumes") or {}):
            raise _fail(f'service "{name}" refers to undefined volume {mount["source"]}', *where)


def _no_cycle(enabled: Mapping[str, Any]) -> None:
    done: set[str] = set()
    trail: list[str] = []

    def visit(name: str) -> None:
        if name in done or name not in enabled:
            return
        if name in trail:
            chain = " -> ".join([*trail[trail.index(name) :], name])
            raise ComposeError(f"dependency cycle detected: {chain}", ("services", name, "depends_on"))
        trail.append(name)
        for target in enabled[name].get("depends_on") or {}:
            visit(target)
        trail.pop()
        done.add(name)

    for name in sorted(enabled):
        visit(name)


def _resources(tree: Mapping[str, Any]) -> None:
    for section, word in (("volumes", "volume"), ("networks", "network")):
        for name, resource in (tree.get(section) or {}).items():
            if not resource.get("external"):
                continue
            for key in ("driver", "driver_opts", "labels"):
                if resource.get(key):
                    raise _fail(
                        f'conflicting parameters "external" and "{key}" specified for {word} "{name}"',
                        section, name,
                    )  # fmt: skip
    for section, word in (("secrets", "secret"), ("configs", "config")):
        for name, resource in (tree.get(section) or {}).items():
            sources = [key for key in ("file", "environment", "content") if resource.get(key) is not None]
            if not sources and not resource.get("external"):
                raise _fail(f'{word} "{name}" must declare either `file` or `environment`', section, name)
            if len(sources) > 1:
                raise _fail(f'{word} "{name}": {" and ".join(sources)} are mutually exclusive', section, name)
