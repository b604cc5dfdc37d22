"""What changed since: the keys of the last changes, so that an index follows its rows without looking at all of them.

Must not know: rows, stores.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

_REMEMBERED = 8192
_NONE: frozenset[str] = frozenset()


class ChangeLog:
    """Counts changes and remembers the last ones' keys."""

    def __init__(self) -> None:
        self._keys: deque[str] = deque(maxlen=_REMEMBERED)
        self._count = 0

    def add(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._keys.append(key)
            self._count += 1

    def forget(self) -> None:
        """Something changed and nobody knows what: whoever asks about before looks at everything."""
        self._keys.clear()
        self._count += 1

    def since(self, count: int) -> tuple[int, frozenset[str] | None]:
        """See `base.Store.changes`."""
        missed = self._count - count
        if not missed:
            return count, _NONE
        if missed > len(self._keys) or missed < 0:
            return self._count, None
        return self._count, frozenset(islice(reversed(self._keys), missed))
