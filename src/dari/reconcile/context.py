"""What the reconciler works with: both hands, the settings and the clock.

One value, made by daemon.py, passed to every function of this room and (inside `Engine`) of the engine. It has no
verbs. Must not know: HTTP, or who asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dari.kernel.host import Kernel
from dari.model.config import Config
from dari.model.event import Event
from dari.runtime.containers import Runtime
from dari.store.base import Store
from dari.store.tables import Tables


@dataclass(slots=True)
class Context:
    """`local` holds this host's objects, `shared` those of global scope (one and the same on a single host).

    `locks[object id]` serialises operations on one object; `listeners` get every event after its commit.
    """

    config: Config
    local: Store
    shared: Store
    tables: Tables
    kernel: Kernel
    runtime: Runtime
    now: Callable[[], int] = time.time_ns
    locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    listeners: set[Callable[[Event], None]] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def lock(self, object_id: str) -> asyncio.Lock:
        return self.locks.setdefault(object_id, asyncio.Lock())
