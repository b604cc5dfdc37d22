"""Several calls at once."""

from __future__ import annotations

import threading

import pytest
from tests.patience import PATIENCE

from dari.compose.threads import Workers, at_once


def test_results_are_in_the_order_of_the_items() -> None:
    barrier = threading.Barrier(3)

    def work(item: int) -> int:
        barrier.wait(10 * PATIENCE)
        return item * 2

    assert at_once(work, [1, 2, 3], 3) == [2, 4, 6]
    assert at_once(str, []) == []
    assert at_once(str, [1]) == ["1"]


def test_no_more_threads_than_allowed() -> None:
    busy, most, lock = 0, 0, threading.Lock()

    def work(item: int) -> int:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        threading.Event().wait(0.001)
        with lock:
            busy -= 1
        return item

    assert at_once(work, range(20), 2) == list(range(20))
    assert most <= 2


def test_an_error_is_raised_where_the_result_is_taken() -> None:
    def work(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    with pytest.raises(ValueError, match="two"):
        at_once(work, range(5))


def test_what_was_not_begun_is_dropped() -> None:
    gate, done = threading.Event(), []

    def work(item: int) -> None:
        gate.wait(10 * PATIENCE)
        done.append(item)

    workers = Workers(work, 1)
    for item in range(5):
        workers.give(item)
    threading.Timer(0.05, gate.set).start()
    workers.close()
    assert done == [0]
