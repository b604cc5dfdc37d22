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
from dataclasses import dataclass
from typing import Literal, cast

from dari.model.container import Container, PortBinding
from dari.model.errors import InvalidArgument, PortInUse
from dari.model.network import Endpoint, Network, PublishedPort, Sandbox
from dari.reconcile.context import Context
from dari.store.base import Txn

Protocol = Literal["tcp", "udp", "sctp"]

_BINDING_OPTION = "com.docker.network.bridge.host_binding_ipv4"
_UNSPECIFIED = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Asked:
    """One container port wanted on `host_ips` (the same port on each); `first` 0 = any free one."""

    protocol: Protocol
    container_port: int
    host_ips: tuple[str, ...]
    first: int
    last: int


class Taken:
    """Who has which host port: by protocol and port, the addresses."""

    def __init__(self, keys: Iterator[tuple[str, ...]]) -> None:
        self._addresses: dict[tuple[str, int], set[str]] = {}
        for protocol, address, port in keys:
            self.add(protocol, address, int(port))

    def add(self, protocol: str, address: str, port: int) -> None:
        self._addresses.setdefault((protocol, port), set()).add(address)

    def has(self, protocol: str, address: str, port: int) -> bool:
        """Whether `address` or one that covers it, or that it covers, has the port."""
        others = self._addresses.get((protocol, port))
        if not others:
            return False
        version = ipaddress.ip_address(address).version
        same = {each for each in others if ipaddress.ip_address(each).version == version}
        return bool(same) and (
            address in _UNSPECIFIED or address in same or not same.isdisjoint(_UNSPECIFIED)
        )


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
    taken = Taken(iter(ctx.tables.ports.keys(ctx.local)))
    found: list[PublishedPort] = []
    # Fixed ports first: an ephemeral one must not take what another binding of the same container asks for.
    for each in sorted(asked, key=lambda one: one.first == 0):
        port = _choose(each, taken, ephemeral, container, endpoint)
        for address in each.host_ips:
            taken.add(each.protocol, address, port)
            ctx.tables.ports.insert(txn, sandbox.id, each.protocol, address, str(port))
            found.append(
                PublishedPort(
                    protocol=each.protocol,
                    host_ip=address,
                    host_port=port,
                    container_port=each.container_port,
                )
            )
    return sorted(found, key=lambda one: (one.container_port, one.protocol, one.host_port, one.host_ip))


def release(ctx: Context, txn: Txn, sandbox: Sandbox) -> None:
    """Add to `txn` the end of a sandbox's claims."""
    for each in sandbox.ports:
        parts = (each.protocol, each.host_ip, str(each.host_port))
        if ctx.tables.ports.get(ctx.local, *parts) == sandbox.id:
            ctx.tables.ports.delete(txn, *parts)


def _choose(
    asked: Asked, taken: Taken, ephemeral: tuple[int, int], container: Container, endpoint: Endpoint
) -> int:
    first, last = (asked.first, asked.last) if asked.first else ephemeral
    problem = ""
    for port in range(first, last + 1):
        problem = _problem(asked, port, taken, endpoint)
        if not problem:
            return port
    if first != last:
        where = f"{asked.host_ips[0]}:{first}-{last}"
        problem = f"Bind for {where} failed: all ports are allocated"
    raise PortInUse(
        "failed to set up container networking: driver failed programming external connectivity on endpoint "
        f"{container.name} ({endpoint.id}): {problem}"
    )


def _problem(asked: Asked, port: int, taken: Taken, endpoint: Endpoint) -> str:
    for address in asked.host_ips:
        shown = f"[{address}]" if ":" in address else address
        if taken.has(asked.protocol, address, port):
            return f"Bind for {shown}:{port} failed: port is already allocated"
        code = _bind_error(asked.protocol, address, port)
        if code:
            target = f"{endpoint.ipv4}:{asked.container_port}"
            reason = os.strerror(code).lower()
            return f"failed to bind host port for {shown}:{port}:{target}/{asked.protocol}: {reason}"
    return ""


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
        first, last = _range(text, name)
        for want in wants or [PortBinding()]:
            addresses = _addresses(want.host_ip, default, endpoint)
            low, high = _range(want.host_port, name) if want.host_port not in ("", "0") else (0, 0)
            for offset, port in enumerate(range(first, last + 1)):
                if not addresses:
                    continue
                span = (low + offset, low + offset) if low and last > first else (low, high)
                yield Asked(cast(Protocol, protocol or "tcp"), port, addresses, *span)


def _addresses(host_ip: str, default: str, endpoint: Endpoint) -> tuple[str, ...]:
    """Without an address asked: the default one, and `::` too where the endpoint has an IPv6 address."""
    if host_ip:
        address = ipaddress.ip_address(host_ip)
        return (str(address),) if (endpoint.ipv6 if address.version == 6 else endpoint.ipv4) else ()
    found = [default] if endpoint.ipv4 else []
    if endpoint.ipv6 and default == "0.0.0.0":
        found.append("::")
    return tuple(found)


def _range(text: str, name: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    try:
        low = int(first)
        high = int(last) if last else low
    except ValueError:
        raise InvalidArgument(f"invalid port specification: {text!r} of {name}") from None
    if not 0 < low <= high <= 65535:
        raise InvalidArgument(f"invalid port specification: {text!r} of {name}")
    return low, high
