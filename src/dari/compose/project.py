"""The nouns of Compose: Project, Service and what they hold. Frozen, typed, complete.

Made by `load`, read by everybody else. `Service.model` is the canonical mapping of the Compose file, for keys
that are copied into the API as they are, for `config` and for the hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dari.compose.record import Record


class Dependency(Record):
    """`service` must have reached `condition` first; `restart`: restart me when it is restarted."""

    service: str
    condition: str = "service_started"
    is_required: bool = True
    restart: bool = False


class Port(Record):
    """A published port. `published` is "" (any), a number or a range as text."""

    target: int
    protocol: str = "tcp"
    published: str = ""
    host_ip: str = ""
    mode: str = "ingress"


class Mount(Record):
    """A mount of a service. `source` is a path, a volume's key in the project, or "" (anonymous)."""

    type: str
    target: str
    source: str = ""
    read_only: bool = False
    bind: Mapping[str, Any] = {}
    volume: Mapping[str, Any] = {}
    tmpfs: Mapping[str, Any] = {}
    image: Mapping[str, Any] = {}


class Attachment(Record):
    """How a service joins one network (the key in the project)."""

    network: str
    aliases: tuple[str, ...] = ()
    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: tuple[str, ...] = ()
    mac_address: str = ""
    driver_opts: Mapping[str, str] = {}
    priority: float = 0
    gw_priority: float = 0
    interface_name: str = ""
    # Whether the service's name is an alias of the container there.
    has_service_name: bool = True


class FileReference(Record):
    """A secret or config in a service: `source` is its key in the project, `target` an absolute path."""

    source: str
    target: str
    uid: str = ""
    gid: str = ""
    mode: str = ""


class Network(Record):
    """A top-level network; `name` is the engine's name."""

    key: str
    name: str
    external: bool = False
    model: Mapping[str, Any] = {}


class Volume(Record):
    """A top-level volume; `name` is the engine's name."""

    key: str
    name: str
    external: bool = False
    model: Mapping[str, Any] = {}


class Content(Record):
    """A top-level secret or config: from a `file`, an environment variable, or `content`."""

    key: str
    name: str
    external: bool = False
    file: str = ""
    environment: str = ""
    content: str | None = None


class Service(Record):
    """One service. `scale` is how many containers are wanted."""

    name: str
    image: str
    # Whether the image's name was given; without it the build's result is named after project and service.
    has_image: bool
    build: Mapping[str, Any] | None = None
    container_name: str = ""
    scale: int = 1
    environment: Mapping[str, str | None] = {}
    labels: Mapping[str, str] = {}
    depends_on: tuple[Dependency, ...] = ()
    networks: tuple[Attachment, ...] = ()
    network_mode: str = ""
    ports: tuple[Port, ...] = ()
    volumes: tuple[Mount, ...] = ()
    volumes_from: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    external_links: tuple[str, ...] = ()
    secrets: tuple[FileReference, ...] = ()
    configs: tuple[FileReference, ...] = ()
    profiles: tuple[str, ...] = ()
    pull_policy: str = ""
    platform: str = ""
    stop_grace_period: float | None = None
    is_attached: bool = True
    tty: bool = False
    # What runs to its end, in containers of their own, before the first container of the service starts.
    pre_start: tuple[Service, ...] = ()
    model: Mapping[str, Any] = {}


class Project(Record):
    """A Compose application. `model` is the whole canonical tree, as `config` prints it."""

    name: str
    directory: str
    files: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    services: Mapping[str, Service] = {}
    disabled: Mapping[str, Any] = {}
    networks: Mapping[str, Network] = {}
    volumes: Mapping[str, Volume] = {}
    secrets: Mapping[str, Content] = {}
    configs: Mapping[str, Content] = {}
    # What is no container and belongs to it: the bodies of its registrations, by key.
    members: Mapping[str, Mapping[str, Any]] = {}
    variables: Mapping[str, str] = {}
    model: Mapping[str, Any] = {}
    # Between the parts of the names of containers and built images.
    separator: str = "-"
    # Where each service was written, `file:line:column`, for the plan and for messages.
    places: Mapping[str, str] = {}
