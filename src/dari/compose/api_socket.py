"""`use_api_socket: true`: the engine's socket and the registry credentials in a service's containers. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from dari.client.docker import resolve_host
from dari.compose.project import Content, FileReference, Mount, Project

_INSIDE = "/var/run/docker.sock"
_CREDENTIALS = "/run/secrets/docker"
_SECRET = "#apisocket"


class NoSocket(Exception):
    """The engine is not reached by a socket that could be mounted."""


def with_api_socket(project: Project, environ: Mapping[str, str], credentials: str) -> Project:
    """The project whose services with `use_api_socket` mount the socket and, if there are any, the credentials.

    `credentials`: the text of a client's `config.json`. Raises NoSocket for an engine that is reached otherwise.
    """
    host = resolve_host(environ=environ)
    if not host.startswith("unix://"):
        raise NoSocket(
            f"use_api_socket can't be used with an engine at {host}: only a unix socket can be mounted"
        )
    services = dict(project.services)
    for name, service in project.services.items():
        if not service.model.get("use_api_socket"):
            continue
        mount = Mount(type="bind", source=host.removeprefix("unix://"), target=_INSIDE)
        service = service.replace(volumes=(*service.volumes, mount))
        if credentials:
            file = FileReference(source=_SECRET, target=f"{_CREDENTIALS}/config.json", mode="0400")
            service = service.replace(
                secrets=(*service.secrets, file),
                environment={**service.environment, "DOCKER_CONFIG": _CREDENTIALS},
            )
        services[name] = service
    if not credentials:
        return project.replace(services=services)
    secret = Content(key=_SECRET, name=_SECRET, content=credentials)
    return project.replace(services=services, secrets={**project.secrets, _SECRET: secret})
