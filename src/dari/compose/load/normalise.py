"""What a model means but does not say: phase 8. Default network, full names, implied dependencies, `env_file`.

Works on the merged canonical tree; the result is what `config` prints.
"""

from __future__ import annotations

import posixpath
from typing import Any

from dari.compose.load import dotenv
from dari.compose.load.errors import ComposeError
from dari.compose.load.keys import HOOK_KEYS, ROOT
from dari.compose.load.merge import make_unique, merge
from dari.compose.load.source import Context

_SHARED = ("network_mode", "ipc", "pid", "uts", "cgroup")


def normalise(context: Context, tree: dict[str, Any], name: str, directory: str) -> dict[str, Any]:
    """The tree with defaults written out. Raises ComposeError for a missing env file."""
    found = dict(tree)
    found["name"] = name
    services = {
        key: _service(context, tree, key, dict(service), directory)
        for key, service in (tree.get("services") or {}).items()
    }
    found["services"] = services
    networks = dict(tree.get("networks") or {})
    if any("default" in (service.get("networks") or {}) for service in services.values()):
        networks.setdefault("default", None)
    found["networks"] = {key: _network(value, key, name) for key, value in networks.items()}
    for section in ("volumes", "secrets", "configs"):
        if tree.get(section):
            found[section] = {key: _named(value, key, name) for key, value in tree[section].items()}
        else:
            found.pop(section, None)
    return found


def _named(value: dict[str, Any] | None, key: str, project: str) -> dict[str, Any]:
    found = dict(value or {})
    if not found.get("name"):
        found["name"] = key if found.get("external") else f"{project}_{key}"
    return found


def _network(value: dict[str, Any] | None, key: str, project: str) -> dict[str, Any]:
    found = _named(value, key, project)
    found["ipam"] = found.get("ipam") or {}
    return found


def _service(
    context: Context, tree: dict[str, Any], name: str, service: dict[str, Any], directory: str
) -> dict[str, Any]:
    for key in [
        key for key, value in service.items() if value is None and key not in ("command", "entrypoint")
    ]:
        del service[key]
    service.setdefault("command", None)
    service.setdefault("entrypoint", None)
    build = service.get("build")
    if build is not None:
        build = dict(build)
        build["context"] = build.get("context") or directory
        if not build.get("dockerfile_inline"):
            build["dockerfile"] = build.get("dockerfile") or "Dockerfile"
        if build.get("args") and context.is_interpolated:
            known = {
                key: context.variables.get(key) if value is None else value
                for key, value in build["args"].items()
            }
            build["args"] = {key: value for key, value in known.items() if value is not None}
        service["build"] = build
    if not service.get("networks"):
        service.pop("networks", None)
        if not service.get("network_mode") and not service.get("provider"):
            service["networks"] = {"default": None}
    if service.get("scale") is not None and service.get("deploy"):
        service["deploy"] = {"replicas": service["scale"], **service["deploy"]}
    if service.get("pull_policy") == "if_not_present":
        service["pull_policy"] = "missing"
    _tell_what_is_left_out(context, tree, name, service)
    _dependencies(service)
    if context.is_environment_resolved:
        _environment(context, name, service)
    if service.get("pre_start"):
        service["pre_start"] = [_pre_start(context, name, service, hook) for hook in service["pre_start"]]
    return service


def _pre_start(context: Context, name: str, service: dict[str, Any], hook: dict[str, Any]) -> dict[str, Any]:
    """A step with what it takes over from its service: all but the volumes, which it shares when it runs."""
    node = ROOT.children["services"].wildcard
    assert node is not None
    taken = {
        key: value
        for key, value in service.items()
        if key in HOOK_KEYS and key not in ("volumes", "volumes_from", "env_file", "label_file")
    }
    if context.is_environment_resolved:
        hook = dict(hook)
        _environment(context, name, hook)
    if "command" not in hook:
        taken.pop("command", None)
    found = merge(taken, hook, node)
    return {"command": None, "entrypoint": None, **make_unique(found, node)}


def _tell_what_is_left_out(
    context: Context, tree: dict[str, Any], name: str, service: dict[str, Any]
) -> None:
    """Warnings for values (not keys, `check` knows those) that have no effect."""
    for section in ("secrets", "configs"):
        sources = tree.get(section) or {}
        for reference in service.get(section) or []:
            has_file = bool((sources.get(reference.get("source")) or {}).get("file"))
            if has_file and any(reference.get(key) for key in ("uid", "gid", "mode")):
                mark = context.marks.find(("services", name, section))
                context.warnings[
                    f"{mark}: uid, gid and mode of {section} from a file are ignored: the file is mounted as it is"
                ] = None


def _dependencies(service: dict[str, Any]) -> None:
    implied = [link.split(":")[0] for link in service.get("links") or []]
    for key in _SHARED:
        kind, separator, target = str(service.get(key, "")).partition(":")
        if separator and kind == "service":
            implied.append(target)
    depends_on = dict(service.get("depends_on") or {})
    for target in implied:
        depends_on.setdefault(target, {"condition": "service_started", "required": True, "restart": True})
    for source in service.get("volumes_from") or []:
        if not source.startswith("container:"):
            depends_on.setdefault(source.split(":")[0], {"condition": "service_started", "required": True})
    for target, dependency in depends_on.items():
        if dependency.get("restart") is False:
            depends_on[target] = {key: value for key, value in dependency.items() if key != "restart"}
    if depends_on:
        service["depends_on"] = depends_on
    else:
        service.pop("depends_on", None)


def _environment(context: Context, name: str, service: dict[str, Any]) -> None:
    """env_file below environment, both complete; a name without a value takes the surrounding one's.

    Inside a file `${A}` is the surrounding one's, else what `environment` says, else an earlier line's.
    """
    found: dict[str, str | None] = {}
    own = {key: value for key, value in (service.get("environment") or {}).items() if value is not None}
    around = {**own, **context.variables}
    for entry in service.get("env_file") or []:
        path = entry["path"]
        try:
            text = context.read(path)
        except FileNotFoundError:
            if entry.get("required", True):
                raise ComposeError(
                    f"env file {path} not found: stat {path}: no such file or directory",
                    ("services", name, "env_file"),
                ) from None
            continue
        except OSError as error:
            raise ComposeError(
                f"env file {path}: {error.strerror or error}", ("services", name, "env_file")
            ) from None
        if entry.get("format") == "raw":
            values = dotenv.parse_raw(text)
        elif entry.get("format"):
            raise ComposeError(
                f'unsupported env_file format "{entry["format"]}"', ("services", name, "env_file")
            )
        else:
            before = {key: value for key, value in found.items() if value is not None}
            values = dotenv.parse(text, path, around, missing=context.missing, before=before)
        for key, value in values.items():
            value = context.variables.get(key) if value is None else value
            if value is not None:
                found[key] = value
    for key, value in (service.get("environment") or {}).items():
        found[key] = context.variables.get(key) if value is None else value
    if found:
        service["environment"] = found
    labels: dict[str, str] = {}
    for path in service.get("label_file") or []:
        try:
            text = context.read(path)
        except OSError:
            raise ComposeError(
                f"label file {path} not found: stat {path}: no such file or directory",
                ("services", name, "label_file"),
            ) from None
        values = dotenv.parse(text, path, context.variables, missing=context.missing, is_bare_kept=False)
        labels.update({key: value for key, value in values.items() if value is not None})
    if labels:
        service["labels"] = {**labels, **(service.get("labels") or {})}


def default_name(directory: str) -> str:
    """The project's name when nobody gave one: the folder's, in the allowed letters."""
    return clean_name(posixpath.basename(posixpath.normpath(directory)))


def clean_name(text: str) -> str:
    """Lower case, only `a-z0-9_-`, beginning with a letter or a digit."""
    kept = "".join(char for char in text.lower() if char in _NAME_LETTERS)
    return kept.lstrip("_-")


_NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")
