"""Walks the key table and brings every value into its long form: phase 4 (the functions are in `canonical.py`)."""

from __future__ import annotations

from typing import Any

from dari.compose.load.errors import ComposeError, Path, dotted
from dari.compose.load.keys import ROOT, Node


def canonicalise(tree: Any, node: Node = ROOT, path: Path = (), *, is_interpolated: bool = True) -> Any:
    """A canonical copy of a checked tree. Raises ComposeError naming the key.

    Without `is_interpolated`, what cannot be read for the variables in it stays as it is written.
    """
    key = node.key
    if tree is None:
        return None
    if key is not None and key.canonical is not None:
        try:
            tree = key.canonical(tree)
        except ValueError as error:
            if not is_interpolated:
                return tree
            raise ComposeError(f"{dotted(path)}: {error}", path) from None
    if isinstance(tree, dict) and (node.children or node.wildcard):
        return {
            name: canonicalise(value, following, (*path, name), is_interpolated=is_interpolated)
            if (following := node.child(name))
            else value
            for name, value in tree.items()
        }
    if isinstance(tree, list) and node.element is not None:
        element = node.element
        return [
            canonicalise(item, element, (*path, index), is_interpolated=is_interpolated)
            for index, item in enumerate(tree)
        ]
    return tree
