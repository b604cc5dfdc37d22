"""Host ports: which ones a container gets, and whether somebody else has them already.

Claims are rows, one for a range however long; the ports are held open by holds.py. Must not know: rules.
Source: Docker Engine API v1.51, `HostConfig.PortBindings`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import cast

from dari.model.container import Container, PortBinding
from dari.model.errors import InvalidArgument, PortInUse
from dari.model.network import Endpoint, Network, PublishedPort, Sandbox
from dari.net import gateway
from dari.net.desired import GatewayMode, Protocol
from dari.net.ports import Asked, Taken, join, pair_ranges, parse_range, pick_ports, shown
from dari.net.publish import parse_span, span
from dari.reconcile import relays
from dari.reconcile.context import Context
from dari.reconcile.holds import Claim, strerror
from dari.relay import lookup
from dari.relay.door import MOST_HELD
from dari.store.base import Txn


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
    bindings: Mapping[str, Sequence[PortBinding]] | None = None,
) -> list[PublishedPort]:
    """The container's bindings (or only `bindings`) decided, their claims added to `txn`, their ports held.

    The next `hold` lets go of what is not committed. Raises PortInUse, InvalidArgument.
    """
    if network is None or network.spec.driver not in ("bridge", "overlay"):
        return []
    if ctx.holds.is_stale:
        hold(ctx)
    wanted = _all_bindings(container) if bindings is None else bindings
    asked = list(_asked(ctx, wanted, network, endpoint))
    modes = gateway.gateway_modes(network.spec.options, is_internal=network.spec.is_internal)
    found = [*_routed(asked, modes)]
    asked = [*join(_translated(asked, modes))]
    for one in asked:
        _check_relayed(one, endpoint)
    taken = Taken(_holders(ctx))

    def refusal(one: Asked, address: str, port: int) -> str:
        code, taken_port = ctx.holds.take(_claim(one, address, port))
        if not code:
            return ""
        number = one.container_port + taken_port - port
        target = f"{endpoint.ipv4 or shown(endpoint.ipv6)}:{number}/{one.protocol}"
        return f"failed to bind host port for {shown(address)}:{taken_port}:{target}: {strerror(code)}"

    try:
        picked = pick_ports(asked, taken, ephemeral, refusal)
    except PortInUse as error:
        hold(ctx)
        raise PortInUse(
            "failed to set up container networking: driver failed programming external connectivity on endpoint "
            f"{container.name} ({endpoint.id}): {error.message}"
        ) from None
    for each in picked:
        one = each.asked
        for address in one.host_ips:
            ctx.tables.ports.insert(
                txn, sandbox.id, *_parts(one.protocol, address, each.host_port, one.count)
            )
            found.append(
                PublishedPort(
                    protocol=one.protocol,
                    host_ip=address,
                    host_port=each.host_port,
                    container_port=one.container_port,
                    count=one.count,
                )
            )
    return in_order(found)


def in_order(published: Iterable[PublishedPort]) -> list[PublishedPort]:
    return sorted(
        published,
        # What is routed has no host port: beside a translated one of the other family, IPv4 is still first.
        key=lambda one: (
            one.container_port,
            one.protocol,
            ":" in one.host_ip and not one.host_port,
            one.host_port,
            ":" in one.host_ip,
            one.host_ip,
        ),
    )


def release(ctx: Context, txn: Txn, sandbox: Sandbox, ports: Iterable[PublishedPort] | None = None) -> None:
    """Add to `txn` the end of a sandbox's claims, or of these ports'; the next `hold` lets go of them."""
    ctx.holds.is_stale = True
    for each in sandbox.ports if ports is None else ports:
        parts = _parts(each.protocol, each.host_ip, each.host_port, each.count)
        if ctx.tables.ports.get(ctx.local, *parts) == sandbox.id:
            ctx.tables.ports.delete(txn, *parts)


def reclaim(ctx: Context, txn: Txn, sandbox: Sandbox, published: Iterable[PublishedPort]) -> None:
    """Add to `txn` claims for what is left of ranges that were cut; those that stand already stay."""
    for each in published:
        parts = _parts(each.protocol, each.host_ip, each.host_port, each.count)
        if each.host_port and ctx.tables.ports.get(ctx.local, *parts) is None:
            ctx.tables.ports.insert(txn, sandbox.id, *parts)


def hold(ctx: Context) -> list[str]:
    """Make the held ports those of the store's claims. What somebody else has meanwhile, a line each."""
    claims = {
        Claim(cast(Protocol, protocol), address, first, last): None
        for protocol, address, first, last in _holders(ctx)
    }
    relays.drop_claims(ctx, ctx.holds.keep(claims))
    ctx.holds.is_stale = False
    lost = []
    for each in claims:
        code, port = ctx.holds.take(each)
        if code:
            lost.append(f"{shown(each.address)}:{port}/{each.protocol}: {strerror(code)}")
    return lost


def lost(ctx: Context) -> list[tuple[Claim, int, str]]:
    """Claims of the store that somebody else's socket stands in the way of: the port, and the sandbox that publishes
    it. Those that are free again are held from now on."""
    found = []
    for protocol, address, ports in ctx.tables.ports.keys(ctx.local):
        claim = Claim(cast(Protocol, protocol), address, *parse_span(ports))
        code, port = ctx.holds.take(claim)
        if code:
            found.append((claim, port, ctx.tables.ports.get(ctx.local, protocol, address, ports) or ""))
    return found


def claim_parts(published: PublishedPort) -> tuple[str, str, str]:
    """The parts of the key of a published port's claim."""
    return _parts(published.protocol, published.host_ip, published.host_port, published.count)


def _holders(ctx: Context) -> Iterator[tuple[str, str, int, int]]:
    for protocol, address, ports in ctx.tables.ports.keys(ctx.local):
        yield protocol, address, *parse_span(ports)


def _parts(protocol: str, address: str, first: int, count: int) -> tuple[str, str, str]:
    return protocol, address, span(first, first + count - 1)


def _claim(asked: Asked, address: str, port: int) -> Claim:
    return Claim(asked.protocol, address, port, port + asked.count - 1)


def _all_bindings(container: Container) -> Mapping[str, Sequence[PortBinding]]:
    bindings: dict[str, Sequence[PortBinding]] = dict(container.host.port_bindings)
    if container.host.publish_all_ports:
        for exposed in container.config.exposed_ports:
            bindings[exposed] = bindings.get(exposed) or [PortBinding()]
    return bindings


def _asked(
    ctx: Context, bindings: Mapping[str, Sequence[PortBinding]], network: Network, endpoint: Endpoint
) -> Iterator[Asked]:
    defaults = gateway.default_bindings(network.spec.options, ctx.config.default_bind_ip)
    for name, wants in bindings.items():
        text, _, protocol = name.partition("/")
        kind = cast(Protocol, protocol or "tcp")
        container_range = parse_range(text, name)
        for want in wants or [PortBinding()]:
            addresses = _addresses(want.host_ip, defaults, endpoint)
            host_range = parse_range(want.host_port, name) if want.host_port not in ("", "0") else (0, 0)
            yield from pair_ranges(kind, container_range, host_range, addresses)


def _addresses(host_ip: str, defaults: tuple[str, ...], endpoint: Endpoint) -> tuple[str, ...]:
    """The asked address, or those of the defaults whose family the endpoint has.

    An IPv6 address that was asked for also serves a container that has IPv4 only (relays.py)."""
    if host_ip:
        address = str(ipaddress.ip_address(host_ip.strip("[]")))
        return (address,) if endpoint.ipv4 or (":" in address and endpoint.ipv6) else ()
    return tuple(each for each in defaults if (endpoint.ipv6 if ":" in each else endpoint.ipv4))


@lru_cache(maxsize=1)
def _has_lookup() -> bool:
    return lookup.is_available()


def _check_relayed(asked: Asked, endpoint: Endpoint) -> None:
    """Raises InvalidArgument for what neither the kernel nor the relay can carry."""
    for address in asked.host_ips:
        needs_relay = address == "::1" or (":" in address and not endpoint.ipv6)
        if not needs_relay or (asked.protocol != "sctp" and (asked.count <= MOST_HELD or _has_lookup())):
            continue
        what, why = "SCTP", ""
        if asked.protocol != "sctp":
            what, why = (
                f"a range of more than {MOST_HELD} ports",
                " (BPF sk_lookup, Linux 5.9, is not to be had)",
            )
        raise InvalidArgument(
            f"cannot publish {what} at {shown(address)}: the kernel does not translate there, and the relay does "
            f"not carry it{why}; publish at an IPv4 address, or at another IPv6 address on a network with IPv6"
        )


def _routed(asked: Iterable[Asked], modes: Mapping[int, GatewayMode]) -> Iterator[PublishedPort]:
    """Ports that need no port of the host's: they answer at the container's own address."""
    for each in asked:
        for address in each.host_ips:
            if modes.get(_version(address)) == "routed":
                yield PublishedPort(
                    protocol=each.protocol,
                    host_ip=address,
                    host_port=0,
                    container_port=each.container_port,
                    count=each.count,
                )


def _translated(asked: Iterable[Asked], modes: Mapping[int, GatewayMode]) -> Iterator[Asked]:
    for each in asked:
        addresses = tuple(one for one in each.host_ips if modes.get(_version(one)) != "routed")
        if addresses:
            yield Asked(each.protocol, each.container_port, addresses, each.first, each.last, each.count)


def _version(address: str) -> int:
    return 6 if ":" in address else 4
