"""Several files to one: phase 6, by compose-spec's "Merge" rules.

Both sides are canonical already, so one walk over the key table is enough: mappings merge by key, lists are
appended and made unique by the identity their row names, `command`, `entrypoint` and `healthcheck.test` are
replaced. `!reset` takes the older value away, `!override` puts the newer one in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from dari.compose.load.errors import Path
from dari.compose.load.keys import ROOT, Node


def _port(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    return (
        item.get("host_ip") or "0.0.0.0",
        item.get("published", ""),
        item.get("target"),
        item.get("protocol", "tcp"),
    )


def _by(name: str) -> Callable[[Any], Any]:
    return lambda item: item.get(name) if isinstance(item, dict) else item


def _target(item: Any) -> Any:
    return (item.get("target") or item.get("source")) if isinstance(item, dict) else item


IDENTITIES: dict[str, Callable[[Any], Any]] = {
    "value": lambda item: item,
    "port": _port,
    "target": _target,
    "path": _by("path"),
    "source": _by("source"),
    "subnet": _by("subnet"),
}


def merge(base: Any, over: Any, node: Node = ROOT) -> Any:
    """`base` with `over` laid upon it; neither is changed."""
    key = node.key
    if key is not None and key.merge == "assign":
        return over
    if over is None:
        return base
    if base is None:
        return over
    if key is not None and key.merge == "replace":
        return over
    if isinstance(base, dict) and isinstance(over, dict):
        if key is not None and key.merge == "logging" and _driver_changes(base, over):
            return over
        found = dict(base)
        for name, value in over.items():
            following = node.child(name) or _LEAF
            if name in found:
                found[name] = merge(found[name], value, following)
            else:
                found[name] = value
        return found
    if isinstance(base, list) and isinstance(over, list):
        return unique([*base, *over], key.unique if key else "")
    return over


_LEAF = Node()


def _driver_changes(base: dict[str, Any], over: dict[str, Any]) -> bool:
    return bool(over.get("driver")) and bool(base.get("driver")) and base["driver"] != over["driver"]


def unique(items: list[Any], identity: str) -> list[Any]:
    """Each item once by its identity: the later value, at the earlier place."""
    if not identity:
        return items
    of = IDENTITIES[identity]
    found: dict[Any, Any] = {}
    for item in items:
        found[of(item)] = item
    return list(found.values())


def make_unique(tree: Any, node: Node = ROOT) -> Any:
    """The tree with the lists of one file made unique too."""
    if isinstance(tree, dict):
        return {
            name: make_unique(value, following) if (following := node.child(name)) else value
            for name, value in tree.items()
        }
    if isinstance(tree, list) and node.key is not None and node.key.unique:
        return unique(tree, node.key.unique)
    return tree


def without(tree: Any, paths: Iterable[Path]) -> Any:
    """A copy of `tree` in which the paths do not exist (list elements by their place)."""
    for path in paths:
        tree = _without(tree, path)
    return tree


def _without(tree: Any, path: Path) -> Any:
    if not path or not isinstance(tree, dict) or path[0] not in tree:
        return tree
    if len(path) == 1:
        return {name: value for name, value in tree.items() if name != path[0]}
    return {**tree, path[0]: _without(tree[path[0]], path[1:])}
