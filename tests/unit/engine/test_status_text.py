"""Ages and the Status column."""

from __future__ import annotations

import pytest

from dari.engine.duration import status_text
from dari.model.container import Container, ContainerConfig, ContainerStatus, Health, HostConfig
from dari.units import SECOND, in_words

NOW = 10**18


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (3600 * 5, "5 hours"),
        (3600 * 47, "47 hours"),
        (3600 * 50, "2 days"),
        (86400 * 20, "2 weeks"),
        (86400 * 90, "3 months"),
        (86400 * 800, "2 years"),
    ],
)
def test_ages(seconds: float, words: str) -> None:
    assert in_words(int(seconds * SECOND)) == words


def container(status: ContainerStatus) -> Container:
    return Container(
        id="c" * 64,
        name="web",
        created=1,
        image_id="sha256:1",
        config=ContainerConfig(),
        host=HostConfig(),
        sandbox_id="s",
        status=status,
    )


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (ContainerStatus(), "Created"),
        (ContainerStatus(state="running", started=NOW - 3 * SECOND), "Up 3 seconds"),
        (
            ContainerStatus(state="running", started=NOW - 3 * SECOND, health=Health(status="healthy")),
            "Up 3 seconds (healthy)",
        ),
        (
            ContainerStatus(state="running", started=NOW - 3 * SECOND, health=Health()),
            "Up 3 seconds (health: starting)",
        ),
        (ContainerStatus(state="paused", started=NOW - 3 * SECOND), "Up 3 seconds (Paused)"),
        (
            ContainerStatus(state="exited", exit_code=137, started=1, finished=NOW - 120 * SECOND),
            "Exited (137) 2 minutes ago",
        ),
        (
            ContainerStatus(state="restarting", exit_code=1, started=1, finished=NOW - 5 * SECOND),
            "Restarting (1) 5 seconds ago",
        ),
        (ContainerStatus(state="removing"), "Removal In Progress"),
    ],
)
def test_status_column(status: ContainerStatus, text: str) -> None:
    assert status_text(container(status), NOW) == text
