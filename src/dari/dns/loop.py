"""One epoll over everything: descriptors with their callbacks, and a slow clock for deadlines.

Must not know DNS.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable

Callback = Callable[[int], None]
EPOLLIN, EPOLLOUT = select.EPOLLIN, select.EPOLLOUT
EPOLLERR, EPOLLHUP = select.EPOLLERR, select.EPOLLHUP
_IDLE = 5.0
_TICK = 0.1  # seconds between looks at deadlines while any exist


class Loop:
    """Runs callbacks with the epoll events of their descriptor until `stop`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._urgent: set[int] = set()
        self._ticks: list[Callable[[float], bool]] = []
        self._is_running = False

    def add(
        self, descriptor: int, callback: Callback, events: int = EPOLLIN, *, is_urgent: bool = False
    ) -> None:
        """Watch a descriptor (level-triggered). `is_urgent`: also in a `glance`."""
        self._callbacks[descriptor] = callback
        if is_urgent:
            self._urgent.add(descriptor)
        self._epoll.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        """Watch for other events."""
        self._epoll.modify(descriptor, events)

    def swap(self, descriptor: int, callback: Callback) -> None:
        """Call another one from now on."""
        if descriptor in self._callbacks:
            self._callbacks[descriptor] = callback

    def drop(self, descriptor: int) -> None:
        """Watch no more; to be called before the descriptor is closed."""
        self._urgent.discard(descriptor)
        if self._callbacks.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def every_tick(self, look: Callable[[float], bool]) -> None:
        """Call `look(now)` about ten times a second while any of these says it still waits for something."""
        self._ticks.append(look)

    def stop(self) -> None:
        """Return from `run` after the events at hand."""
        self._is_running = False

    def glance(self) -> None:
        """Within a callback that takes long: call those of urgent descriptors that are ready, and go on."""
        for descriptor, events in self._epoll.poll(0, 256):
            if descriptor in self._urgent:
                self._callbacks[descriptor](events)

    def run(self) -> None:
        """Serve until stopped."""
        self._is_running = True
        poll, callbacks = self._epoll.poll, self._callbacks
        now = next_look = 0.0
        is_waiting = True
        while self._is_running:
            # What an event just began to wait for is only known after the next look.
            for descriptor, events in poll(_TICK if is_waiting or now < next_look else _IDLE, 256):
                callback = callbacks.get(descriptor)  # an earlier callback may have dropped it
                if callback is not None:
                    callback(events)
            now = time.monotonic()
            if now >= next_look:
                next_look = now + _TICK
                is_waiting = sum(look(now) for look in self._ticks) > 0  # all of them look, so no any()
