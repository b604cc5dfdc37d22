"""What the table of keys says of one key: a row of `keys.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Unique = str  # name of an identity in `merge.IDENTITIES`


class Key(NamedTuple):
    """What is true of one key.

    `kinds`: accepted kinds, of `str int num bool list map null`; `any` accepts all. Empty values (null) are
    accepted everywhere but where `is_required`.
    `canonical`: short form to long form. `merge`: `default` (mappings by key, lists appended, scalars
    replaced), `replace`, or `assign` (as `replace`, and null is a value too).
    `unique`: how two list elements are found to be the same; the later one wins.
    `path`: relative to the project directory (`always`), `if_dotted` (a name otherwise), `build` (also URLs).
    `body`: place in Docker's container-create body, for a plain copy. `is_inert`: known, accepted, not acted on.
    `choices`: the only texts allowed. `pattern`: what a text must match. `low`, `high`: the range of a number.
    `needs`: keys that a mapping must have once all files are merged. `is_set`: the same of the value itself, it must
    not be null. `is_distinct`: no two elements may be equal.
    """

    kinds: tuple[str, ...] = ("any",)
    canonical: Callable[[Any], Any] | None = None
    merge: str = "default"
    unique: Unique = ""
    path: str = ""
    body: str = ""
    is_inert: bool = False
    is_required: bool = False
    choices: tuple[str, ...] = ()
    pattern: str = ""
    low: int | None = None
    high: int | None = None
    needs: tuple[str, ...] = ()
    is_distinct: bool = False
    is_set: bool = False


def key(
    kinds: str,
    canonical: Callable[[Any], Any] | None = None,
    merge: str = "default",
    unique: str = "",
    path: str = "",
    body: str = "",
    is_inert: bool = False,
    is_required: bool = False,
    choices: str = "",
    pattern: str = "",
    low: int | None = None,
    high: int | None = None,
    needs: str = "",
    is_distinct: bool = False,
    is_set: bool = False,
) -> Key:
    return Key(
        tuple(kinds.split()),
        canonical,
        merge,
        unique,
        path,
        body,
        is_inert,
        is_required,
        tuple(choices.split()),
        pattern,
        low,
        high,
        tuple(needs.split()),
        is_distinct,
        is_set,
    )
