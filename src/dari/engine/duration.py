"""Ages in words, as `docker ps` prints them. Pure; the arithmetic of Docker's go-units `HumanDuration`."""

from __future__ import annotations

from dari.model.container import Container
from dari.units import SECOND


def in_words(ns: int) -> str:
    """A rough duration: `Less than a second`, `3 seconds`, `About a minute`, `2 weeks`."""
    seconds = max(0, ns) // SECOND
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, size, word in (
        (48, 1, "hours"),
        (24 * 7 * 2, 24, "days"),
        (24 * 30 * 2, 24 * 7, "weeks"),
        (24 * 365 * 2, 24 * 30, "months"),
    ):
        if hours < limit:
            return f"{hours // size} {word}"
    return f"{seconds // (3600 * 24 * 365)} years"


def status_text(container: Container, now: int) -> str:
    """The `Status` column: `Up 3 seconds (healthy)`, `Exited (1) 2 minutes ago`, `Created`."""
    status = container.status
    age = in_words(now - (status.finished if status.state in ("exited", "restarting") else status.started))
    match status.state:
        case "running":
            words = {"starting": "health: starting", "healthy": "healthy", "unhealthy": "unhealthy"}
            health = words.get(status.health.status) if status.health else None
            return f"Up {age} ({health})" if health else f"Up {age}"
        case "paused":
            return f"Up {age} (Paused)"
        case "restarting":
            return f"Restarting ({status.exit_code}) {age} ago"
        case "removing":
            return "Removal In Progress"
        case "dead":
            return "Dead"
        case "exited":
            return f"Exited ({status.exit_code}) {age} ago"
        case _:
            return "Created"
