"""The nouns of what an engine has of a project. Frozen; made by `observe`, read by `plan` and the verbs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dari.compose.record import Record


class ObservedContainer(Record):
    """A container as GET /containers/json tells it. `networks` maps a network's name to its id."""

    id: str
    name: str
    service: str = ""
    number: int = 0
    is_oneoff: bool = False
    config_hash: str = ""
    image: str = ""
    image_id: str = ""
    state: str = ""
    status: str = ""
    created: int = 0
    network_mode: str = ""
    networks: Mapping[str, str] = {}
    mounts: tuple[Mapping[str, Any], ...] = ()
    ports: tuple[Mapping[str, Any], ...] = ()
    command: str = ""
    labels: Mapping[str, str] = {}

    @property
    def is_running(self) -> bool:
        """Whether it runs or will by itself (restarting), paused included."""
        return self.state in ("running", "restarting", "paused")


class ObservedNetwork(Record):
    """A network that carries the project's label; `key` is its name in the Compose file."""

    id: str
    name: str
    key: str = ""
    config_hash: str = ""


class ObservedVolume(Record):
    """A volume that carries the project's label."""

    name: str
    key: str = ""
    config_hash: str = ""


class Observed(Record):
    """Everything of one project on one engine, at one moment."""

    containers: tuple[ObservedContainer, ...] = ()
    networks: tuple[ObservedNetwork, ...] = ()
    volumes: tuple[ObservedVolume, ...] = ()

    def of_service(self, name: str) -> list[ObservedContainer]:
        """A service's containers by number, without one-off ones."""
        return sorted(
            (one for one in self.containers if one.service == name and not one.is_oneoff),
            key=lambda one: (one.number, one.created),
        )
