"""Host ports: which ones a container gets, and whether somebody else has them already.

dari translates packets and listens nowhere, so a foreign process's socket would not collide by itself: it is looked
for. Must not know: rules. Source: Docker Engine API v1.51, `HostConfig.PortBindings`.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import cast

from dari.model.container import Container, PortBinding
from dari.model.errors import PortInUse
from dari.model.network import Endpoint, Network, PublishedPort, Sandbox
from dari.net.desired import Protocol
from dari.net.ports import Asked, Taken, pair_ranges, parse_range, pick_ports, shown
from dari.reconcile.context import Context
from dari.store.base import Txn

_BINDING_OPTION = "com.docker.network.bridge.host_binding_ipv4"


def needs_ephemeral(container: Container) -> bool:
    """Whether a binding leaves the host port open."""
    host = container.host
    return host.publish_all_ports or any(
        not wants or any(want.host_port in ("", "0") for want in wants)
        for wants in host.port_bindings.values()
    )


def claim(
    ctx: Context,
    txn: Txn,
    container: Container,
    sandbox: Sandbox,
    network: Network | None,
    endpoint: Endpoint,
    ephemeral: tuple[int, int],
) -> list[PublishedPort]:
    """The container's bindings decided, their claims added to `txn`. Raises PortInUse, InvalidArgument."""
    if network is None or network.spec.driver != "bridge":
        return []
    asked = list(_asked(ctx, container, network, endpoint))
    if not asked:
        return []
    taken = Taken(
        (protocol, address, int(port)) for protocol, address, port in ctx.tables.ports.keys(ctx.local)
    )

    def refusal(one: Asked, address: str, port: int) -> str:
        return _refusal(one, address, port, endpoint)

    try:
        picked = pick_ports(asked, taken, ephemeral, refusal)
    except PortInUse as error:
        raise PortInUse(
            "failed to set up container networking: driver failed programming external connectivity on endpoint "
            f"{container.name} ({endpoint.id}): {error.message}"
        ) from None
    found: list[PublishedPort] = []
    for each in picked:
        for address in each.asked.host_ips:
            parts = (each.asked.protocol, address, str(each.host_port))
            ctx.tables.ports.insert(txn, sandbox.id, *parts)
            found.append(
                PublishedPort(
                    protocol=each.asked.protocol,
                    host_ip=address,
                    host_port=each.host_port,
                    container_port=each.asked.container_port,
                )
            )
    return sorted(found, key=lambda one: (one.container_port, one.protocol, one.host_port, one.host_ip))


def release(ctx: Context, txn: Txn, sandbox: Sandbox) -> None:
    """Add to `txn` the end of a sandbox's claims."""
    for each in sandbox.ports:
        parts = (each.protocol, each.host_ip, str(each.host_port))
        if ctx.tables.ports.get(ctx.local, *parts) == sandbox.id:
            ctx.tables.ports.delete(txn, *parts)


def _refusal(asked: Asked, address: str, port: int, endpoint: Endpoint) -> str:
    code = _bind_error(asked.protocol, address, port)
    if not code:
        return ""
    target = f"{endpoint.ipv4}:{asked.container_port}"
    reason = os.strerror(code).lower()
    return f"failed to bind host port for {shown(address)}:{port}:{target}/{asked.protocol}: {reason}"


def _bind_error(protocol: Protocol, address: str, port: int) -> int:
    """The errno another process's socket (or an address that is not ours) gives, 0 where the port is free."""
    if protocol == "sctp":
        return 0
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as probe:
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "tcp":
            # Connections that linger in TIME_WAIT do not matter, a listener does.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno or errno.EINVAL
    return 0


def _asked(ctx: Context, container: Container, network: Network, endpoint: Endpoint) -> Iterator[Asked]:
    default = network.spec.options.get(_BINDING_OPTION) or ctx.config.default_bind_ip
    bindings = dict(container.host.port_bindings)
    if container.host.publish_all_ports:
        for exposed in container.config.exposed_ports:
            bindings.setdefault(exposed, [PortBinding()])
            bindings[exposed] = bindings[exposed] or [PortBinding()]
    for name, wants in bindings.items():
        text, _, protocol = name.partition("/")
        container_range = parse_range(text, name)
        for want in wants or [PortBinding()]:
            addresses = _addresses(want.host_ip, default, endpoint)
            host_range = parse_range(want.host_port, name) if want.host_port not in ("", "0") else (0, 0)
            yield from pair_ranges(cast(Protocol, protocol or "tcp"), container_range, host_range, addresses)


def _addresses(host_ip: str, default: str, endpoint: Endpoint) -> tuple[str, ...]:
    """Without an address asked: the default one, and `::` too where the endpoint has an IPv6 address."""
    if host_ip:
        address = ipaddress.ip_address(host_ip)
        return (str(address),) if (endpoint.ipv6 if address.version == 6 else endpoint.ipv4) else ()
    found = [default] if endpoint.ipv4 else []
    if endpoint.ipv6 and default == "0.0.0.0":
        found.append("::")
    return tuple(found)
