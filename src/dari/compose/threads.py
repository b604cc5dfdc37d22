"""Several calls at the same time, in threads.

concurrent.futures does the same and more, but its import alone (logging, traceback, tokenize) costs a command line
as much as a tenth of its whole start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """Threads that carry out `work(item)` for what is given to them; results come as they are ready.

    Threads are begun as they are needed, at most `limit`; they end with `close`, or with the program.
    """

    def __init__(self, work: Callable[[Any], Any], limit: int) -> None:
        self._work = work
        self._limit = limit
        self._todo: SimpleQueue[Any] = SimpleQueue()
        self._done: SimpleQueue[tuple[Any, Any, BaseException | None]] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self.pending = 0

    def give(self, item: Any) -> None:
        """Has `item` worked on as soon as a thread is free."""
        self.pending += 1
        self._todo.put(item)
        if len(self._threads) < min(self.pending, self._limit):
            thread = threading.Thread(target=self._run, name="worker", daemon=True)
            self._threads.append(thread)
            thread.start()

    def take(self) -> tuple[Any, Any]:
        """The next item that is ready, and its result; waits. Raises what its work raised."""
        item, result, error = self._done.get()
        self.pending -= 1
        if error is not None:
            raise error
        return item, result

    def close(self) -> None:
        """Lets the threads end when what is under way is done, and waits for that. What was not begun is dropped."""
        try:
            while True:
                self._todo.get_nowait()
        except Empty:
            pass  # nothing is left to be begun
        for _ in self._threads:
            self._todo.put(_END)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (item := self._todo.get()) is not _END:
            try:
                self._done.put((item, self._work(item), None))
            except BaseException as error:
                self._done.put((item, None, error))


_END = object()


def at_once(work: Callable[[T], R], items: Iterable[T], limit: int = 16) -> list[R]:
    """`work(item)` of every item, in their order, up to `limit` at the same time. Raises the first error there is."""
    everything = list(items)
    if len(everything) < 2:
        return [work(item) for item in everything]
    workers = Workers(lambda numbered: work(numbered[1]), limit)
    results: dict[int, R] = {}
    try:
        for numbered in enumerate(everything):
            workers.give(numbered)
        while workers.pending:
            (number, _), result = workers.take()
            results[number] = result
    finally:
        workers.close()
    return [results[number] for number in range(len(everything))]
