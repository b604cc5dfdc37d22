"""Relative paths to absolute ones: phase 5. Before merging, since each file may have its own base folder.

Pure text work; whether anything exists is asked by those who open it.
"""

from __future__ import annotations

import posixpath
from typing import Any

from dari.compose.load.canonical import is_drive, is_path
from dari.compose.load.keys import ROOT, Node

_REMOTE = ("https://", "http://", "git://", "ssh://", "github.com/", "git@", "oci://")


def absolute(path: str, directory: str, home: str) -> str:
    """`path` below `directory`; `~` is `home`. An absolute path stays as it is written."""
    if path == "~" or path.startswith("~/"):
        return posixpath.join(home, path[2:]) if home else path
    if posixpath.isabs(path) or is_drive(path):
        return path
    return posixpath.normpath(posixpath.join(directory, path))


def is_remote(context: str) -> bool:
    """Whether a build context is a URL or a named source (`docker-image://`) instead of a folder."""
    return context.startswith(_REMOTE) or "://" in context or context.startswith("service:")


def resolve(tree: Any, directory: str, home: str, node: Node = ROOT) -> Any:
    """A copy of a canonical tree whose paths are absolute."""
    if isinstance(tree, dict):
        found = {}
        for name, value in tree.items():
            following = node.child(name)
            if following is None:
                found[name] = value
                continue
            rule = following.key.path if following.key else ""
            if rule and isinstance(value, str):
                found[name] = (
                    value if rule == "build" and is_remote(value) else absolute(value, directory, home)
                )
            elif rule and isinstance(value, list):
                found[name] = [absolute(str(item), directory, home) for item in value]
            elif name == "additional_contexts" and isinstance(value, dict):
                found[name] = {
                    key: item if is_remote(item) else absolute(item, directory, home)
                    for key, item in value.items()
                }
            else:
                found[name] = resolve(value, directory, home, following)
        if found.get("type") == "bind" and isinstance(found.get("source"), str) and "target" in found:
            found["source"] = absolute(found["source"], directory, home)
        if "driver_opts" in found and isinstance(found["driver_opts"], dict):
            found["driver_opts"] = _local_volume(found, directory, home)
        return found
    if isinstance(tree, list) and node.element is not None:
        element = node.element
        return [resolve(item, directory, home, element) for item in tree]
    return tree


def _local_volume(volume: dict[str, Any], directory: str, home: str) -> dict[str, Any]:
    """A bind made by the local driver (`type: none, o: bind`) may name its device relatively."""
    options: dict[str, Any] = volume["driver_opts"]
    device = options.get("device")
    is_bind = "bind" in str(options.get("o", "")).split(",") and volume.get("driver", "local") == "local"
    if isinstance(device, str) and is_bind and is_path(device):
        return {**options, "device": absolute(device, directory, home)}
    return options
