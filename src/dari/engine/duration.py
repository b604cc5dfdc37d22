"""The `Status` column of `docker ps`. Pure."""

from __future__ import annotations

from dari.model.container import Container
from dari.units import in_words


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
