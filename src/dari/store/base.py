"""What every store promises: keys, bytes, transactions, watches, sessions.

A store is dull on purpose: it does not know what a key is for (tables.py alone does). Reads are answered from a
mirror in memory, so they are synchronous and go on while a distant store is away; a commit checks revisions, so
a stale mirror can never lose an update, it only loses the race (`TxnConflict`).
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import msgspec

from dari.model.errors import Unavailable

_P = ParamSpec("_P")
_T = TypeVar("_T")
_S = TypeVar("_S", bound="_Telling")


class TxnConflict(Exception):
    """A check of a transaction failed; `key` names the first one. Nothing was written."""

    def __init__(self, key: str) -> None:
        super().__init__(f"transaction conflict on {key}")
        self.key = key


class StoreUnavailable(Unavailable):
    """The store does not answer; nothing is known about the commit's outcome unless it says so."""


class StoreRefused(StoreUnavailable):
    """The store answers and is not for us: another cluster's, another layout, wrong credentials. Trying again does
    not help until somebody changes something."""


class _Telling(Protocol):
    def status(self) -> Status: ...


class StoreAway(StoreUnavailable):
    """What those are told who want a change, the first as well as the later ones."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"the store {url} is away: {reason}; what runs goes on")


class NotDone(StoreUnavailable):
    """The store answers, and does not do this: the session has ended, it is too much at once."""


def tells_away(
    call: Callable[Concatenate[_S, _P], Awaitable[_T]],
) -> Callable[Concatenate[_S, _P], Coroutine[Any, Any, _T]]:
    """A store's method that says it as `StoreAway` where the store does not answer."""

    @functools.wraps(call)
    async def told(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await call(self, *args, **kwargs)
        except (StoreAway, NotDone):
            raise
        except StoreUnavailable as error:
            raise StoreAway(self.status().url, str(error)) from error

    return told


class Row(msgspec.Struct, frozen=True, gc=False):
    """A value and the revision of the commit that wrote it. Hundreds of thousands of them may be in memory: the
    garbage collector, which has nothing to find in them, does not know them."""

    value: bytes
    revision: int


ABSENT = 0


@dataclass(slots=True)
class Txn:
    """Checks, puts and deletes that happen together or not at all.

    `checks[key]` is the revision the key must have, `ABSENT` that it must not exist. `session` ties the put keys
    to a session: they vanish with it.
    """

    checks: dict[str, int] = field(default_factory=dict)
    puts: dict[str, bytes] = field(default_factory=dict)
    deletes: set[str] = field(default_factory=set)
    session_id: str = ""

    def is_empty(self) -> bool:
        return not (self.puts or self.deletes or self.checks)


@dataclass(frozen=True, slots=True)
class Status:
    """How a store is: where it is (a URL without credentials; empty for an embedded one), whether it answers, and if
    not, what it said. `is_known`: the mirror has been whole once (a copy of an earlier time counts)."""

    url: str
    is_connected: bool
    is_known: bool
    reason: str = ""


class Session(Protocol):
    """Liveness: keys put under it vanish when it ends. `id` goes into `Txn.session_id`."""

    id: str

    def is_alive(self) -> bool: ...

    async def ended(self) -> None:
        """Returns when the session has ended, whoever ended it."""
        ...

    async def close(self) -> None:
        """End it: its keys vanish now. Where the store does not answer they vanish after its time to live."""
        ...

    async def abandon(self) -> None:
        """Keep it alive no longer: its keys vanish after its time to live, unless somebody puts them again."""
        ...


class Store(Protocol):
    """See the module docstring. All methods may be called from one event loop only."""

    def read(self, prefix: str) -> Mapping[str, Row]:
        """All rows whose key starts with `prefix`, from the mirror, sorted by key."""
        ...

    def get(self, key: str) -> Row | None: ...

    def changes(self, since: int) -> tuple[int, frozenset[str] | None]:
        """What changed in the mirror since it had changed `since` times: how often it has now, and the keys.

        None instead of keys: too many to remember, look at everything. 0 asks for the first time.
        """
        ...

    async def commit(self, txn: Txn) -> int:
        """All or nothing; the new revision. Raises TxnConflict, StoreUnavailable."""
        ...

    def watch(self, prefix: str) -> AsyncIterator[frozenset[str]]:
        """Level-triggered: names keys that may have changed, the first time all of them; may skip steps,
        never the last one."""
        ...

    async def session(self, ttl: float) -> Session:
        """A session that ends `ttl` seconds after its last sign of life. Raises StoreUnavailable."""
        ...

    def status(self) -> Status: ...

    async def close(self) -> None: ...
