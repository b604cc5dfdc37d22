"""Members of JSON bodies under the names they are declared by, however a client wrote them.

Go's decoder takes `hostconfig` for `HostConfig`: the exact name first, else one that differs in case only; of two
members that mean one field the last one counts, and null means "not given". Keys of maps (labels, networks) stay as
they are. Pure. Must not know: any endpoint. Source: Go's encoding/json, `Unmarshal`.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec


@dataclass(slots=True)
class Shape:
    """What is inside a type: `fields` by declared name (an object), or `each` (what a map or a list holds)."""

    fields: dict[str, Shape | None] = field(default_factory=dict)
    folded: dict[str, str] = field(default_factory=dict)
    each: Shape | None = None

    def name(self, written: str) -> str:
        """The declared name; `written` itself where nothing is declared."""
        return written if written in self.fields else self.folded.get(written.casefold(), written)


def respell(value: Any, shape: Shape | None) -> Any:
    """The same JSON without nulls, with the declared names. Costs one look-up a member."""
    if isinstance(value, dict):
        inside = shape.each if shape is not None else None
        if shape is None or not shape.fields:
            return {key: respell(each, inside) for key, each in value.items() if each is not None}
        known = shape.fields
        return {
            (name := key if key in known else shape.name(key)): respell(each, known.get(name))
            for key, each in value.items()
            if each is not None
        }
    if isinstance(value, list):
        inside = shape.each if shape is not None else None
        return [respell(each, inside) for each in value]
    return value


def member(raw: Mapping[str, Any], name: str) -> Any:
    """The member `name` of an object that no type is there for, None where it is not given."""
    found = None
    folded = name.casefold()
    for key, value in raw.items():
        if value is not None and (key == name or key.casefold() == folded):
            found = value
    return found


def shape_of(kind: Any) -> Shape | None:
    """The shape of a type, None where it has no fields inside."""
    return _cached(kind)


@cache
def _cached(kind: Any) -> Shape | None:
    return _shape(kind, {})


def _shape(kind: Any, seen: dict[Any, Shape]) -> Shape | None:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if kind in seen:
            return seen[kind]
        made = seen[kind] = Shape()
        for each in msgspec.structs.fields(kind):
            made.fields[each.encode_name] = _shape(each.type, seen)
            made.folded.setdefault(each.encode_name.casefold(), each.encode_name)
        return made
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _shape(inside[0], seen)
    if origin in (typing.Union, types.UnionType):
        return next((shape for each in inside if (shape := _shape(each, seen)) is not None), None)
    if isinstance(origin, type) and inside and issubclass(origin, (Mapping, list, tuple, set, frozenset)):
        element = _shape(inside[1] if issubclass(origin, Mapping) else inside[0], seen)
        return Shape(each=element) if element is not None else None
    return None
