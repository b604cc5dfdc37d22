"""Docker's legacy links on the default bridge: variables that tell a container where the linked one listens.

The lines in /etc/hosts and the scoped names are names.py's. Source: Docker docs, "Legacy container links".
"""

from __future__ import annotations

import msgspec

from dari.model.container import Container, ContainerConfig
from dari.model.errors import Conflict, NotFound
from dari.reconcile.context import Context
from dari.reconcile.names import find_container, split_link
from dari.reconcile.networks import of_sandbox

_HIDDEN = ("HOME", "PATH")


def with_variables(ctx: Context, container: Container) -> ContainerConfig:
    """The container's config with the variables of its links; its own win.

    Raises NotFound, Conflict where a linked container is gone or does not run.
    """
    if container.host.network_mode not in ("bridge", "default"):
        return container.config
    found: list[str] = []
    for link in container.host.links:
        target, alias = split_link(link)
        other = find_container(ctx, target)
        if other is None:
            raise NotFound(f"could not get container for {target}: No such container: {target}")
        if other.status.state not in ("running", "paused"):
            raise Conflict(
                f"Cannot link to a non running container: /{other.name} AS /{container.name}/{alias}"
            )
        address = next((each.ipv4 for each in of_sandbox(ctx, other.sandbox_id) if each.ipv4), "")
        found += variables(container.name, alias, address, other.config)
    if not found:
        return container.config
    asked = {entry.partition("=")[0] for entry in container.config.env}
    env = [*(entry for entry in found if entry.partition("=")[0] not in asked), *container.config.env]
    return msgspec.structs.replace(container.config, env=env)


def variables(name: str, alias: str, address: str, other: ContainerConfig) -> list[str]:
    """`DB_PORT=tcp://172.17.0.2:5432`, `DB_NAME=/web/db`, `DB_ENV_USER=…` and their like."""
    prefix = alias.replace("-", "_").upper()
    ports = sorted(_port(text) for text in other.exposed_ports)
    found = []
    if ports:
        number, protocol = ports[0]
        found.append(f"{prefix}_PORT={protocol}://{address}:{number}")
    for number, protocol in ports:
        base = f"{prefix}_PORT_{number}_{protocol.upper()}"
        found += [
            f"{base}={protocol}://{address}:{number}",
            f"{base}_ADDR={address}",
            f"{base}_PORT={number}",
            f"{base}_PROTO={protocol}",
        ]
    found.append(f"{prefix}_NAME=/{name}/{alias}")
    for entry in other.env:
        key, has_value, value = entry.partition("=")
        if has_value and key not in _HIDDEN:
            found.append(f"{prefix}_ENV_{key}={value}")
    return found


def _port(text: str) -> tuple[int, str]:
    number, _, protocol = text.partition("/")
    return int(number.partition("-")[0]), protocol or "tcp"
