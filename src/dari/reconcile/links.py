"""Docker's legacy links on the default bridge: variables that tell a container where the linked one listens, and where
the bridge keeps its containers apart (--icc=false) the ports that they open.

The lines in /etc/hosts and the scoped names are names.py's. Source: Docker docs, "Legacy container links"; dockerd's
bridge driver, link.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address

import msgspec

from dari.model.container import Container, ContainerConfig
from dari.model.errors import Conflict, NotFound
from dari.model.network import Endpoint
from dari.net import options
from dari.net.desired import LinkWant
from dari.reconcile.attached import of_sandbox
from dari.reconcile.context import Context
from dari.reconcile.names import find_container, split_link

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


def opened(ctx: Context, container_id: str, active: Sequence[Endpoint]) -> Iterator[LinkWant]:
    """What a container with these endpoints may ask by its links: the exposed ports of those that run."""
    container = ctx.tables.containers.get(ctx.local, container_id)
    if container is None or not container.host.links:
        return
    for endpoint in active:
        network = ctx.tables.networks.get(ctx.shared, endpoint.network_id)
        if network is None or not network.is_predefined or options.parse(network.spec.options).is_icc:
            continue
        for link in container.host.links:
            other = find_container(ctx, split_link(link)[0])
            ends = of_sandbox(ctx, other.sandbox_id) if other is not None else ()
            address = next(
                (each.ipv4 for each in ends if each.network_id == network.id and each.is_active), ""
            )
            if other is None or not (address and endpoint.ipv4):
                continue
            for number, protocol in map(_port, sorted(other.config.exposed_ports)):
                yield LinkWant(IPv4Address(endpoint.ipv4), IPv4Address(address), protocol, number)


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
