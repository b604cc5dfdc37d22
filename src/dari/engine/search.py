"""`docker search`: which repositories a registry has, by Docker's filters.

Must not know: HTTP, JSON. Source: Docker Engine API v1.51, `ImageSearch`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dari.engine import selection
from dari.engine.base import Engine
from dari.model.errors import InvalidArgument
from dari.runtime import search as registry
from dari.runtime.registries import Credentials
from dari.runtime.search import Found

Filters = Mapping[str, Sequence[str]]
_FILTERS = frozenset(("is-automated", "is-official", "stars"))


async def search(
    eng: Engine, term: str, limit: int, filters: Filters, credentials: Credentials
) -> list[Found]:
    """Raises InvalidArgument, Internal."""
    pick = picker(filters)
    if pick is None:
        return []
    return list(pick(await registry.search(eng.ctx.config, term, limit, credentials)))


class _Picker:
    def __init__(self, is_official: bool | None, stars: int) -> None:
        self._is_official = is_official
        self._stars = stars

    def __call__(self, rows: Iterable[Found]) -> Iterable[Found]:
        for row in rows:
            if self._is_official in (None, row.is_official) and row.star_count >= self._stars:
                yield row


def picker(filters: Filters) -> _Picker | None:
    """What passes the filters; None: nothing can (no repository is automated any more). Raises InvalidArgument."""
    selection.check(filters, _FILTERS)
    if "is-automated" in filters and selection.truth("is-automated", filters["is-automated"]):
        return None
    is_official = selection.truth("is-official", filters["is-official"]) if "is-official" in filters else None
    return _Picker(is_official, max((_stars(value) for value in filters.get("stars", ())), default=0))


def _stars(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise InvalidArgument(f"invalid filter 'stars={value}': {value!r} is not a number") from None
