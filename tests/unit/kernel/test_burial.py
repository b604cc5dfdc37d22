"""The thread that deletes links behind everybody's back: nothing that is to be deleted is missed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.patience import PATIENCE

from dari.kernel import burial
from dari.kernel.burial import Gravedigger


class Route:
    def __init__(self) -> None:
        self.deletions = 0

    def call(self, message: Any) -> None:
        self.deletions += 1

    def close(self) -> None:
        return None


class Connections:
    """Looks at the table until it may go on."""

    def __init__(self) -> None:
        self.is_looking = threading.Event()
        self.goes_on = threading.Event()

    def catch_up(self) -> None:
        self.is_looking.set()
        assert self.goes_on.wait(20 * PATIENCE)


@pytest.fixture
def connections() -> Iterator[Connections]:
    made = Connections()
    yield made
    made.goes_on.set()


@pytest.fixture
def route(monkeypatch: pytest.MonkeyPatch) -> Route:
    made = Route()
    monkeypatch.setattr(burial, "Netlink", lambda: made)
    monkeypatch.setattr(burial, "_PATIENCE", 0.01)
    return made


def test_what_is_buried_while_it_works_is_deleted_before_it_ends(
    route: Route, connections: Connections
) -> None:
    made = Gravedigger(connections)  # type: ignore[arg-type]
    made.wake()
    assert connections.is_looking.wait(20 * PATIENCE)
    before = route.deletions
    made.wake()
    ending = threading.Thread(target=made.close)
    ending.start()
    connections.goes_on.set()
    ending.join(20 * PATIENCE)
    assert not ending.is_alive()
    assert route.deletions > before


def test_it_is_idle_when_nothing_is_left(route: Route, connections: Connections) -> None:
    connections.goes_on.set()
    made = Gravedigger(connections)  # type: ignore[arg-type]
    assert made.wait(0)
    for number in range(1, 20):
        made.wake()
        assert made.wait(20 * PATIENCE)
        assert route.deletions >= number
    made.close()
