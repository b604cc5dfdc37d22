"""Frozen values with keyword construction, cheap to import.

`dataclasses` costs a command line some 10 ms for its import and its generated code; this costs nothing. Type
checkers treat a `Record` as a frozen dataclass (PEP 681).
"""

from __future__ import annotations

from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T", bound="Record")


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """Fields are the annotated names of the class; those with a value there may be left out."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.fields() == other.fields()

    __hash__ = None  # type: ignore[assignment]

    def fields(self) -> dict[str, Any]:
        """Every field's value by its name, defaults included."""
        names: dict[str, None] = {}
        for kind in reversed(type(self).__mro__):
            names.update(dict.fromkeys(kind.__dict__.get("__annotations__", {})))  # noqa: RUF063
        return {name: getattr(self, name) for name in names}

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({inner})"

    def replace(self: T, **fields: Any) -> T:
        """A copy with some fields changed."""
        return type(self)(**{**self.__dict__, **fields})
