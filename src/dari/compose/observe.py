"""What an engine has of a project: three list calls, and no call afterwards.

The lists carry labels, mounts, networks and states, which is all the planner needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dari.client.docker import Docker
from dari.compose import labels
from dari.compose.observed import Observed, ObservedContainer, ObservedNetwork, ObservedVolume
from dari.compose.threads import at_once


def observe(docker: Docker, project: str) -> Observed:
    """Containers (one-off ones too), networks and volumes that carry the project's label."""
    filters = labels.project_filter(project)
    docker.api_version  # noqa: B018  negotiated once, before the threads

    def ask(path: str) -> Any:
        return docker.get(path, filters=filters, **({"all": True} if path == "/containers/json" else {}))

    containers, networks, volumes = at_once(ask, ("/containers/json", "/networks", "/volumes"))
    return Observed(
        containers=tuple(container(entry) for entry in containers or []),
        networks=tuple(
            ObservedNetwork(
                id=entry["Id"],
                name=entry["Name"],
                key=(entry.get("Labels") or {}).get(labels.NETWORK, ""),
                config_hash=(entry.get("Labels") or {}).get(labels.CONFIG_HASH, ""),
            )
            for entry in networks or []
        ),
        volumes=tuple(
            ObservedVolume(
                name=entry["Name"],
                key=(entry.get("Labels") or {}).get(labels.VOLUME, ""),
                config_hash=(entry.get("Labels") or {}).get(labels.CONFIG_HASH, ""),
            )
            for entry in (volumes or {}).get("Volumes") or []
        ),
    )


def containers_of(docker: Docker, project: str, *, all: bool = True) -> tuple[ObservedContainer, ...]:
    """Only the containers: one list call."""
    found = docker.get("/containers/json", all=all, filters=labels.project_filter(project))
    return tuple(container(entry) for entry in found or [])


def container(entry: Mapping[str, Any]) -> ObservedContainer:
    """One entry of GET /containers/json."""
    found = entry.get("Labels") or {}
    names = [name.lstrip("/") for name in entry.get("Names") or [] if name.count("/") == 1]
    number = found.get(labels.NUMBER, "")
    networks = (entry.get("NetworkSettings") or {}).get("Networks") or {}
    return ObservedContainer(
        id=entry["Id"],
        name=names[0] if names else entry["Id"][:12],
        service=found.get(labels.SERVICE, ""),
        number=int(number) if number.isdigit() else 0,
        is_oneoff=found.get(labels.ONEOFF, "False") == "True",
        config_hash=found.get(labels.CONFIG_HASH, ""),
        image=entry.get("Image", ""),
        image_id=entry.get("ImageID", ""),
        state=entry.get("State", ""),
        status=entry.get("Status", ""),
        created=entry.get("Created", 0),
        network_mode=(entry.get("HostConfig") or {}).get("NetworkMode", ""),
        networks={name: (value or {}).get("NetworkID", "") for name, value in networks.items()},
        mounts=tuple(entry.get("Mounts") or ()),
        ports=tuple(entry.get("Ports") or ()),
        command=entry.get("Command", ""),
        labels=found,
    )
