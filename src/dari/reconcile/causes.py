"""Who wanted it so: the option of a network, the command or the Compose line behind a packet that is meant to fail.

Must not know: the kernel, HTTP. The Compose file's own lines are the client's to find: here is the path of the key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from dari.model.explain import Cause
from dari.model.network import Network
from dari.net import policy
from dari.net.packet import Hop
from dari.net.state import HOST
from dari.reconcile.context import Context
from dari.reconcile.ends import (
    Aim,
    End,
    addresses_of,
    asked_publications,
    leaves_by,
    near_misses,
    places_of,
    publications,
)
from dari.reconcile.networks import gateway_endpoint, network_want

_COMPOSE = "com.docker.compose."
_ON_A_WIRE = ("macvlan", "ipvlan")
_ICC = "com.docker.network.bridge.enable_icc"


@dataclass(frozen=True, slots=True)
class Why:
    """A sentence, what to do, and who wanted it."""

    text: str
    advice: str = ""
    causes: tuple[Cause, ...] = ()


def why(
    ctx: Context, source: End, target: End, aim: Aim | None, protocol: str, port: int, hop: Hop | None
) -> Why:
    """Of a packet that is meant not to arrive: `hop` is where the wanted picture stops it."""
    if source.is_own and not addresses_of(ctx, source):
        cause = container_cause(source, "network_mode", "--network none", "it has no network")
        text = f"{source.name} is on no network"
        return Why(text, f"connect it: dari network connect NETWORK {source.name}", (cause,))
    if hop is not None and hop.stage == "forward" and hop.key is not None and hop.key[0] == "sysctl":
        path = hop.key[2].replace("/", ".")
        return Why(
            hop.text, f"somebody switched it off: sysctl -w {path}=1, and look for what sets it at boot"
        )
    if _is_policy(target, hop):
        door = aim.published.container_port if aim is not None and aim.published is not None else port
        kind = "/udp" if protocol == "udp" else ""
        return _refused_by_policy(ctx, source, target, hop, f" {door}{kind}" if door else " icmp")
    if source.kind == "outside" and target.kind == "container" and (aim is None or aim.published is None):
        router = leaves_by(ctx, target)
        return _unpublished(target, protocol, port) if router is None else _on_a_wire(target, router)
    wire = aim.network if aim is not None and aim.network is not None else None
    if wire is not None and wire.spec.driver in _ON_A_WIRE and source.kind == "host":
        return _apart_from_host(target, wire)
    if aim is not None and aim.network is not None and target.kind == "container":
        return _between(ctx, source, target, aim.network, hop)
    if (
        source.is_own
        and hop is not None
        and hop.stage == "address"
        and aim is not None
        and aim.address.version == 6
    ):
        return _without_ipv6(ctx, source)
    if aim is not None and aim.network is not None and target.kind == "address" and aim.netns is None:
        name = aim.network.name
        text = f"nobody on network {name} has the address {aim.address}"
        return Why(text, f"see who has which: dari network inspect {name}; or ask by a name")
    if source.is_own and (aim is None or aim.netns is None or target.kind == "outside"):
        return _to_the_world(ctx, source, hop)
    return Why(hop.text if hop is not None else "it is meant so")


def _is_policy(target: End, hop: Hop | None) -> bool:
    """Whether the table of the receiver's own sandbox decided: that is where policies are in force."""
    key = hop.key if hop is not None else None
    return target.is_own and key is not None and key[0] == "nft-table" and key[1] == target.netns


def _refused_by_policy(ctx: Context, source: End, target: End, hop: Hop | None, door: str) -> Why:
    causes = []
    labels = target.container.config.labels if target.container is not None else {}
    if text := labels.get(policy.LABEL):
        said = f"the policy of {target.name} says: {_one_line(text)}"
        causes.append(
            _policy(container_cause(target, "x-policy", f"--label {policy.LABEL}={_one_line(text)}", said))
        )
    for network in _networks(ctx, target):
        if text := network.spec.labels.get(policy.LABEL):
            said = f"the policy of network {network.name} says: {_one_line(text)}"
            setting = f"--label {policy.LABEL}={_one_line(text)}"
            causes.append(_policy(network_cause(ctx, network, setting, ("labels", policy.LABEL), said)))
    advice = f"allow it in the policy: allow {source.name}{door} (docs/how-to/say-who-may-call-whom.md)"
    return Why(f"the policy of {target.name} does not let {source.name} in", advice, tuple(causes))


def _policy(cause: Cause) -> Cause:
    return msgspec.structs.replace(cause, kind="policy")


def _one_line(text: str) -> str:
    return "; ".join(each.strip() for each in text.replace("\n", ";").split(";") if each.strip())


def _between(ctx: Context, source: End, target: End, network: Network, hop: Hop | None) -> Why:
    """Container to container."""
    here, there = _networks(ctx, source), _networks(ctx, target)
    if source.is_own and network.id not in {each.id for each in here}:
        return no_common_network(ctx, source, target)
    if not network_want(ctx, network).is_icc:
        text = (
            f"{source.name} may not talk with {target.name}: network {network.name} keeps its containers apart"
            f" ({_ICC}=false)"
        )
        said = f"network {network.name} keeps its containers apart"
        cause = network_cause(ctx, network, f"--opt {_ICC}=false", ("driver_opts", _ICC), said)
        advice = "make them a network of their own, or publish the port"
        if network.is_predefined:
            advice += f", or link {source.name} to {target.name}, which has to expose it (--link, --expose)"
        return Why(text, advice, (cause,))
    names = ", ".join(each.name for each in there)
    return Why(hop.text if hop is not None else f"{target.name} is on {names}")


def no_common_network(ctx: Context, source: End, target: End) -> Why:
    """Also why a name is not known."""
    here, there = _networks(ctx, source), _networks(ctx, target)
    text = f"{source.name} and {target.name} share no network: {_on(source, here)}, {_on(target, there)}"
    causes = [
        container_cause(each, "networks", " ".join(f"--network {one.name}" for one in on), _on(each, on))
        for each, on in ((source, here), (target, there))
        if each.is_own
    ]
    for network in (*here, *there):
        if network.spec.is_internal:
            causes.append(_internal(ctx, network))
    for each in (target, source):
        apart = _apart(each)
        if apart is not None:
            return Why(text, apart, tuple(causes))
    choice = (there or here)[:1]
    advice = f"dari network connect {choice[0].name} {source.name}" if choice else ""
    if choice and choice[0].is_predefined:
        advice = (
            f"make a network for both (dari network create NAME) and connect {source.name} and {target.name}"
        )
    return Why(text, advice, tuple(causes))


def _apart(end: End) -> str | None:
    """What to do about a container that can be put on no network while it runs."""
    if end.kind != "container" or end.sandbox is None or end.sandbox.mode not in ("host", "none"):
        return None
    if end.sandbox.mode == "none":
        return f"run {end.name} on a network instead of none: what has --network none can be connected to no other"
    return (
        f"{end.name} is at the host's own addresses: ask for host.docker.internal (--add-host"
        f" host.docker.internal:host-gateway), or run {end.name} on a network"
    )


def unnamed(ctx: Context, source: End, target: End) -> Why:
    """Why a container's name is not known to another that may well reach its address."""
    common = {each.id for each in _networks(ctx, source)} & {each.id for each in _networks(ctx, target)}
    if not common:
        return no_common_network(ctx, source, target)
    container, sandbox = target.container, target.sandbox
    if container is not None and sandbox is not None and sandbox.container_id != container.id:
        owner = ctx.tables.containers.get(ctx.local, sandbox.container_id)
        name = owner.name if owner is not None else sandbox.container_id[:12]
        text = f"{target.name} has no name of its own: it shares {name}'s network"
        return Why(
            text,
            f"ask for {name}",
            (container_cause(target, "network_mode", f"--network container:{name}", text),),
        )
    text = "on the default bridge containers have no names for each other"
    advice = "make a network for both (dari network create NAME), link them (--link), or ask by address"
    network = next(each for each in _networks(ctx, source) if each.id in common)
    if not network.is_predefined:
        text = f"{target.name} is not a name of network {network.name}"
        advice = "ask by a name it has there (dari inspect shows DNSNames)"
    setting = "default bridge" if network.is_predefined else ""
    return Why(text, advice, (network_cause(ctx, network, setting, (), text),))


def _without_ipv6(ctx: Context, source: End) -> Why:
    networks = [each for each in _networks(ctx, source) if not each.spec.enable_ipv6]
    names = ", ".join(each.name for each in networks)
    text = f"{source.name} has no IPv6 address" + (f": its networks have none ({names})" if networks else "")
    causes = [
        network_cause(ctx, each, "no --ipv6", ("enable_ipv6",), f"network {each.name} has no IPv6")
        for each in networks
    ]
    return Why(text, "make the network with --ipv6 (enable_ipv6: true), or ask by IPv4", tuple(causes))


def _to_the_world(ctx: Context, source: End, hop: Hop | None) -> Why:
    networks = _networks(ctx, source)
    internal = [each for each in networks if each.spec.is_internal]
    if internal and len(internal) == len(networks):
        names = ", ".join(each.name for each in internal)
        text = f"{source.name} is on internal networks only ({names}): nothing leaves them"
        advice = f"connect it to a network that is not internal: dari network connect NETWORK {source.name}"
        return Why(text, advice, tuple(_internal(ctx, each) for each in internal))
    gateway = gateway_endpoint(ctx, [endpoint for _, endpoint in places_of(ctx, source)])
    if gateway is None:
        return Why(f"{source.name} has no way out: none of its networks has a gateway")
    if hop is not None and (hop.stage, hop.where) == ("route", HOST):
        return Why(hop.text, "give the host a route there (ip route show): containers leave by the host's")
    return Why(hop.text if hop is not None else "it is meant so")


def by_another_router(source: End, target: End, router: Network) -> Why:
    """Of a container that leaves by a router of its network's own, where this host or its outside was asked for."""
    if target.kind == "host":
        return _apart_from_host(source, router)
    text = f"{source.name} leaves by the router of network {router.name} ({router.spec.driver}), not by this host"
    return Why(text, f"ask for an address out there: dari explain {source.name} ADDRESS:PORT")


def _on_a_wire(target: End, network: Network) -> Why:
    driver = network.spec.driver
    place = f"{target.name} is on network {network.name} ({driver})"
    text = f"{place}: the world reaches it by that network, not by this host"
    return Why(text, "ask from a machine out there; every port is open at its own address, -p does nothing")


def _apart_from_host(container: End, network: Network) -> Why:
    driver = network.spec.driver
    text = f"the host and {container.name} do not hear each other over network {network.name} ({driver})"
    if driver not in _ON_A_WIRE:
        return Why(text, "put the container on a bridge network too")
    advice = (
        "give the host an interface there (-o dari.host_shim=ADDRESS/BITS when the network is made,"
        " docs/how-to/put-containers-on-your-lan.md), or put the container on a bridge network too"
    )
    return Why(text, advice)


def unanswered() -> str:
    """What to do where a packet went out into the world and nothing came back."""
    return (
        "is it the right address, does it listen, and does a firewall on the way or on that machine drop it? There"
        " tcpdump shows whether it comes"
    )


def beyond(hop: Hop | None) -> str:
    """What to do where the way goes on behind the host's own interfaces, and does not."""
    if hop is None or hop.towards is None:
        link = hop.key[2] if hop is not None and hop.key is not None else "it"
        return f"look after it: ip link show {link}; a cable, or its far end, may be missing"
    return (
        f"is {hop.towards} the right address, is that machine on, and does its network begin there? A VLAN's tag, a"
        " switch that allows one hardware address a port, and a hypervisor that filters them look the same"
    )


def _unpublished(target: End, protocol: str, port: int) -> Why:
    if not port:
        text = (
            f"from outside a container is reached by its published ports only, not by {target.name}'s address"
        )
        return Why(text, "ask for a port", (container_cause(target, "ports", "no -p", text),))
    own = asked_publications(target, protocol, port)
    if own:
        at = ", ".join(f"{each.host_ip}:{each.host_port}" for each in own)
        text = f"port {port}/{protocol} of {target.name} is published on {at} only"
        command = " ".join(f"-p {each.host_ip}:{each.host_port}:{each.container_port}" for each in own)
        return Why(
            text, "publish it without that address", (container_cause(target, "ports", command, text),)
        )
    others = dict.fromkeys(f"{each.container_port}/{each.protocol}" for each in publications(target))
    has = f" (published are {', '.join(list(others)[:12])})" if others else ""
    text = f"port {port}/{protocol} of {target.name} is not published{has}"
    advice = (
        f"publish it: -p {port}:{port}{'/udp' if protocol == 'udp' else ''}, or ports: in the Compose file"
    )
    return Why(text, advice, (container_cause(target, "ports", "no -p", text),))


def unheard(ctx: Context, aim: Aim, protocol: str) -> str:
    """Of a port of the host's where nobody listens: which one was perhaps meant, as advice."""
    for name, each in near_misses(ctx, protocol, aim.port):
        at = f"{each.host_ip}:{each.host_port}"
        if each.host_port != aim.port:
            return f"port {aim.port}/{protocol} of {name} is published at {at}: ask there"
        if each.protocol != protocol:
            return f"{name} is published at {at} over {each.protocol}, not {protocol}"
        return f"{name} is published at {at} only: ask there, or publish it without that address"
    return ""


def _networks(ctx: Context, end: End) -> list[Network]:
    return list({network.id: network for network, _ in places_of(ctx, end)}.values())


def _on(end: End, networks: list[Network]) -> str:
    if end.kind == "host" or (end.kind == "container" and not end.is_own):
        return f"{end.name} is on the host's own network"
    names = ", ".join(each.name for each in networks)
    return f"{end.name} is on {names}" if names else f"{end.name} is on none"


def _internal(ctx: Context, network: Network) -> Cause:
    return network_cause(ctx, network, "--internal", ("internal",), f"network {network.name} is internal")


def container_cause(end: End, key: str, setting: str, text: str) -> Cause:
    """`key` is the service's in a Compose file."""
    labels = end.container.config.labels if end.container is not None else {}
    service = labels.get(f"{_COMPOSE}service", "")
    return Cause(
        kind="container" if end.kind == "container" else "host",
        name=end.name,
        text=text,
        setting=setting,
        key=["services", service, key] if service else [],
        project=labels.get(f"{_COMPOSE}project", ""),
        service=service,
        files=_files(labels),
        working_dir=labels.get(f"{_COMPOSE}project.working_dir", ""),
    )


def network_cause(ctx: Context, network: Network, setting: str, key: tuple[str, ...], text: str) -> Cause:
    """`key` is the network's in a Compose file. Its files are named by a container of the same project."""
    labels = network.spec.labels
    project, name = labels.get(f"{_COMPOSE}project", ""), labels.get(f"{_COMPOSE}network", "")
    of_project = next(_labels(ctx, project), {}) if project else {}
    return Cause(
        kind="network",
        name=network.name,
        text=text,
        setting=setting,
        key=["networks", name, *key] if name else [],
        project=project,
        files=_files(of_project),
        working_dir=of_project.get(f"{_COMPOSE}project.working_dir", ""),
    )


def _labels(ctx: Context, project: str) -> Iterator[dict[str, str]]:
    for container in ctx.tables.containers.all(ctx.local):
        if container.config.labels.get(f"{_COMPOSE}project") == project:
            yield container.config.labels


def _files(labels: dict[str, str]) -> list[str]:
    text = labels.get(f"{_COMPOSE}project.config_files", "")
    return [each for each in text.split(",") if each]
