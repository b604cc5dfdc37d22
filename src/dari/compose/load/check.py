"""Kinds and unknown keys: phase 3. Every key is in the table of `keys.py` or the model is refused.

Works on one interpolated file, short forms and all, and casts text that stands for a number or a boolean
(variables are always text). `x-` keys hold anything, anywhere, but for `x-policy`
and `x-dns`, which are dari's (policy.py, records.py).
"""

from __future__ import annotations

import re
from typing import Any

from dari.compose.load.errors import ComposeError, Path, dotted
from dari.compose.load.key import Key
from dari.compose.load.keys import ROOT, Node

_NAMES = re.compile(r"[a-zA-Z0-9._-]+\Z")
_TRUE = frozenset(("true", "y", "yes", "on"))
_FALSE = frozenset(("false", "n", "no", "off"))
_WORDS = {
    "str": "a string", "int": "an integer", "num": "a number", "bool": "a boolean", "list": "a list",
    "map": "a mapping",
}  # fmt: skip
# Sections whose entries the user names: names are limited, and `x-` is a name like any other.
_NAMED_SECTIONS = frozenset(("services", "networks", "volumes", "secrets", "configs", "models"))


def check(
    tree: Any, path: Path = (), inert: list[Path] | None = None, *, is_interpolated: bool = True
) -> Any:
    """The tree with its scalars cast; paths of keys that are accepted but not acted on go into `inert`.

    Where variables were not filled in (`is_interpolated`), text with a `$` may stand for anything. Raises
    ComposeError naming the first wrong key.
    """
    if not isinstance(tree, dict):
        raise ComposeError("top-level object must be a mapping", path)
    node = ROOT
    for part in path:
        following = node.child(part) if isinstance(part, str) else node.element
        if following is None:
            return tree
        node = following
    return _Walk([] if inert is None else inert, is_interpolated).walk(tree, node, path)


class _Walk:
    """One pass over a tree."""

    def __init__(self, inert: list[Path], is_interpolated: bool) -> None:
        self._inert = inert
        self._is_interpolated = is_interpolated

    def walk(self, value: Any, node: Node, path: Path) -> Any:
        key = node.key
        if key is None:
            return value
        if key.is_inert and value not in (None, [], {}):
            self._inert.append(path)
        if value is None:
            if key.is_required:
                raise ComposeError(f"{dotted(path)} must be {_alternatives(key)}", path)
            return None
        if isinstance(value, dict):
            _expect("map", key, path)
            return self._mapping(value, node, path)
        if isinstance(value, list):
            _expect("list", key, path)
            if key.is_distinct:
                _distinct(value, path)
            if node.element is None:
                return value
            return [self.walk(item, node.element, (*path, index)) for index, item in enumerate(value)]
        if not self._is_interpolated and isinstance(value, str) and "$" in value:
            return value
        found = _scalar(value, key, path)
        _within(found, key, path)
        return found

    def _mapping(self, value: dict[str, Any], node: Node, path: Path) -> dict[str, Any]:
        if not node.children and node.wildcard is None:
            return value
        is_named = len(path) == 1 and path[0] in _NAMED_SECTIONS
        found = {}
        for name, item in value.items():
            place = (*path, name)
            if is_named and not _NAMES.match(name):
                raise ComposeError(
                    f"{dotted(path)}: invalid name {name!r}, use letters, digits, '.', '_', '-'", place
                )
            following = node.child(name)
            if following is None and name.startswith("x-") and not is_named:
                found[name] = item
                continue
            if following is None:
                raise ComposeError(_unknown(name, node, path), place)
            found[name] = self.walk(item, following, place)
        return found


def complete(tree: Any, node: Node = ROOT, path: Path = ()) -> None:
    """Has every mapping of a merged tree what it must have? Raises ComposeError naming the first that has not."""
    key = node.key
    if tree is None:
        if key is not None and key.is_set:
            raise ComposeError(f"{dotted(path)} must be {_alternatives(key)}", path)
    elif isinstance(tree, dict):
        for name in key.needs if key is not None else ():
            if name not in tree:
                raise ComposeError(f"{dotted(path)} missing property '{name}'", path)
        for name, value in tree.items():
            following = node.child(name)
            if following is not None:
                complete(value, following, (*path, name))
    elif isinstance(tree, list) and node.element is not None:
        for index, item in enumerate(tree):
            complete(item, node.element, (*path, index))


def _distinct(items: list[Any], path: Path) -> None:
    for index, item in enumerate(items):
        first = items.index(item)
        if first < index:
            raise ComposeError(f"{dotted(path)} items at {first} and {index} are equal", path)


def _within(value: Any, key: Key, path: Path) -> None:
    """Is the scalar one of the allowed ones, or in the allowed range?"""
    if key.choices and value not in key.choices:
        allowed = ", ".join(f"'{one}'" for one in key.choices)
        raise ComposeError(f"{dotted(path)} value must be one of {allowed}", path)
    if key.pattern and not re.fullmatch(key.pattern, str(value)):
        raise ComposeError(f"{dotted(path)} does not match pattern '^({key.pattern})$'", path)
    if isinstance(value, (int, float)):
        if key.low is not None and value < key.low:
            raise ComposeError(f"{dotted(path)} must be greater than or equal to {key.low}", path)
        if key.high is not None and value > key.high:
            raise ComposeError(f"{dotted(path)} must be less than or equal to {key.high}", path)


def _unknown(name: str, node: Node, path: Path) -> str:
    import difflib

    where = dotted(path) or "the top level"
    near = difflib.get_close_matches(name, node.children, n=1)
    hint = f", did you mean '{near[0]}'?" if near else ""
    return f"{where}: additional property '{name}' is not allowed{hint}"


def _expect(kind: str, key: Key, path: Path) -> None:
    if kind not in key.kinds and "any" not in key.kinds:
        raise ComposeError(f"{dotted(path)} must be {_alternatives(key)}", path)


def _alternatives(key: Key) -> str:
    return " or ".join(_WORDS[kind] for kind in key.kinds)


def _scalar(value: Any, key: Key, path: Path) -> Any:
    kinds = key.kinds
    if "any" in kinds:
        return value
    if isinstance(value, bool):
        if "bool" in kinds:
            return value
    elif isinstance(value, str):
        if "str" in kinds:
            return value
        cast = _cast(value, kinds)
        if cast is not None:
            return cast
    elif isinstance(value, int):
        if "int" in kinds or "num" in kinds:
            return value
    elif isinstance(value, float):
        if "num" in kinds:
            return value
        if "int" in kinds and value.is_integer():
            return int(value)
        if "int" in kinds and "str" in kinds:
            return value
    raise ComposeError(f"{dotted(path)} must be {_alternatives(key)}", path)


def _cast(text: str, kinds: tuple[str, ...]) -> Any:
    if "bool" in kinds:
        lower = text.lower()
        if lower in _TRUE:
            return True
        if lower in _FALSE:
            return False
    for kind, convert in (("int", int), ("num", float)):
        if kind in kinds:
            try:
                return convert(text)
            except ValueError:
                continue
    return None
