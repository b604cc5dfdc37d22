"""Names that Compose gives: containers, and how one service's container is called by another. Pure."""

from __future__ import annotations

from dari.compose.project import Project, Service


def container_name(project: Project, service: Service, number: int) -> str:
    """`<project>-<service>-<number>`, or the name the file asks for; underscores with `--compatibility`."""
    return service.container_name or project.separator.join((project.name, service.name, str(number)))


def shared_service(value: str) -> str | None:
    """The service that `service:x` (network_mode, ipc, pid) names."""
    kind, separator, target = value.partition(":")
    return target if separator and kind == "service" else None
