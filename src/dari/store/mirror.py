"""The rows in memory, and those who watch them.

Every store keeps one: reads are answered from it, and a store tells it what changed. A watcher that is slow gets
the union of what it missed, so the queue behind it never grows.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Iterable, Mapping

from dari.store.base import Row
from dari.store.changelog import ChangeLog


class Mirror:
    """Sorted rows by key with level-triggered watches. For one event loop."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        # Sorted keys by folder, so that a key more costs what its folder has, and the sorted folders.
        self._keys: dict[str, list[str]] = {}
        self._folders: list[str] = []
        self._log = ChangeLog()
        self._watchers: set[_Watcher] = set()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> Mapping[str, Row]:
        """All of them as they are now, in no particular order; not to be kept."""
        return self._rows

    def get(self, key: str) -> Row | None:
        return self._rows.get(key)

    def read(self, prefix: str) -> Mapping[str, Row]:
        rows = self._rows
        folder = _folder(prefix)
        found: list[str] = []
        here = self._keys.get(folder)
        if here is not None and folder != prefix:
            for index in range(bisect_left(here, prefix), len(here)):
                if not here[index].startswith(prefix):
                    break
                found.append(here[index])
        for index in range(bisect_left(self._folders, prefix), len(self._folders)):
            if not self._folders[index].startswith(prefix):
                break
            found += self._keys[self._folders[index]]
        # Nearly sorted: the order of folders is that of their keys but where one is in the other.
        found.sort()
        return {key: rows[key] for key in found}

    def changes(self, since: int) -> tuple[int, frozenset[str] | None]:
        """See `base.Store`."""
        return self._log.since(since)

    def change(self, puts: Mapping[str, Row], deletes: Iterable[str]) -> None:
        changed = set(puts)
        for key in deletes:
            if key not in puts and self._rows.pop(key, None) is not None:
                self._leave(key)
                changed.add(key)
        for key, row in puts.items():
            if key not in self._rows:
                self._enter(key)
            self._rows[key] = row
        if changed:
            self._log.add(changed)
            for watcher in self._watchers:
                watcher.tell(changed)

    def _enter(self, key: str) -> None:
        folder = _folder(key)
        keys = self._keys.get(folder)
        if keys is None:
            self._keys[folder] = [key]
            insort(self._folders, folder)
        elif keys[-1] < key:
            # Rows that are read whole come in order.
            keys.append(key)
        else:
            insort(keys, key)

    def _leave(self, key: str) -> None:
        folder = _folder(key)
        keys = self._keys[folder]
        del keys[bisect_left(keys, key)]
        if not keys:
            del self._keys[folder]
            del self._folders[bisect_left(self._folders, folder)]

    async def watch(self, prefix: str) -> AsyncIterator[frozenset[str]]:
        watcher = _Watcher(prefix, set(self.read(prefix)))
        self._watchers.add(watcher)
        try:
            while True:
                changed = await watcher.next()
                if changed is None:
                    return
                yield changed
        finally:
            self._watchers.discard(watcher)

    def close(self) -> None:
        for watcher in self._watchers:
            watcher.end()


def _folder(key: str) -> str:
    """Up to the last slash, with it."""
    return key[: key.rfind("/") + 1]


class _Watcher:
    def __init__(self, prefix: str, first: set[str]) -> None:
        self._prefix = prefix
        self._pending = first
        self._ready = asyncio.Event()
        self._ready.set()
        self._ended = False

    def tell(self, keys: Iterable[str]) -> None:
        mine = {key for key in keys if key.startswith(self._prefix)}
        if mine:
            self._pending |= mine
            self._ready.set()

    def end(self) -> None:
        self._ended = True
        self._ready.set()

    async def next(self) -> frozenset[str] | None:
        await self._ready.wait()
        if self._ended:
            return None
        self._ready.clear()
        changed, self._pending = frozenset(self._pending), set()
        return changed
