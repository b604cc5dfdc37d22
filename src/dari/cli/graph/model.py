"""What the picture shows, from the lists of Docker's API alone (`/networks`, `/containers/json`); works on any engine.

A sandbox is a box: containers that share a network namespace are in one. Must not know: how it is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
_UNNUMBERED = frozenset(("host", "none"))


@dataclass(frozen=True, slots=True)
class Wire:
    """A network. `notes`: its driver and what is special about it; `subnets` with their gateways."""

    name: str
    notes: tuple[str, ...]
    subnets: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Tap:
    """A box on a network, with its addresses there."""

    network: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A sandbox. `names`: its containers, the owner first. `ports`: (address and port of the host, or "", port and
    protocol inside)."""

    names: tuple[str, ...]
    project: str
    is_running: bool
    taps: tuple[Tap, ...]
    ports: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Graph:
    wires: tuple[Wire, ...]
    boxes: tuple[Box, ...] = field(default=())


def graph(
    networks: Sequence[Mapping[str, Any]],
    containers: Sequence[Mapping[str, Any]],
    *,
    project: str = "",
    is_everything: bool = False,
) -> Graph:
    """`project`: only its containers, and the networks they are on. `is_everything`: what does not run, and networks
    nobody is on, too."""
    sharers: dict[str, list[Mapping[str, Any]]] = {}
    owners: list[Mapping[str, Any]] = []
    ids = {each["Id"] for each in containers}
    for each in containers:
        kind, _, target = _mode(each).partition(":")
        if kind == "container" and target in ids:
            sharers.setdefault(target, []).append(each)
        else:
            owners.append(each)
    boxes = []
    for owner in owners:
        members = [owner, *sorted(sharers.get(owner["Id"], ()), key=_name)]
        if project and not any(_label(each, PROJECT) == project for each in members):
            continue
        if is_everything or any(_runs(each) for each in members):
            boxes.append(_box(members))
    boxes.sort(key=lambda each: (each.project, each.names))
    used = {tap.network for box in boxes for tap in box.taps}
    wires = [
        _wire(each)
        for each in networks
        if each["Name"] in used
        or (is_everything and not project and each["Name"] not in _UNNUMBERED)
        or (project and _label(each, PROJECT) == project and is_everything)
    ]
    wires.sort(key=lambda each: (each.name in _UNNUMBERED, each.name))
    return Graph(tuple(wires), tuple(boxes))


def _box(members: Sequence[Mapping[str, Any]]) -> Box:
    owner = members[0]
    attached: Mapping[str, Any] = (owner.get("NetworkSettings") or {}).get("Networks") or {}
    taps = [Tap(name, _addresses(found or {})) for name, found in sorted(attached.items())]
    ports = sorted({port for each in members for port in _ports(each.get("Ports") or ())}, key=_order)
    return Box(
        tuple(_name(each) for each in members),
        _label(owner, PROJECT),
        any(_runs(each) for each in members),
        tuple(taps),
        tuple(_runs_of(ports)),
    )


def _addresses(found: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(found[key]) for key in ("IPAddress", "GlobalIPv6Address") if found.get(key))


@dataclass(frozen=True, slots=True, order=True)
class _Port:
    """`host`: the address with its colon, empty where it is any; `public`: 0 where it is not published."""

    inside: int
    protocol: str
    host: str
    public: int


def _ports(listed: Iterable[Mapping[str, Any]]) -> Iterable[_Port]:
    """A port on `0.0.0.0` and on `::` is one for people."""
    seen: dict[tuple[int, int, str], set[str]] = {}
    for each in listed:
        inside, protocol = int(each["PrivatePort"]), str(each.get("Type") or "tcp")
        if not each.get("PublicPort"):
            yield _Port(inside, protocol, "", 0)
        else:
            seen.setdefault((int(each["PublicPort"]), inside, protocol), set()).add(each.get("IP") or "")
    for (public, inside, protocol), addresses in seen.items():
        if addresses & {"0.0.0.0", "::", ""}:
            yield _Port(inside, protocol, "", public)
            continue
        for address in sorted(addresses):
            yield _Port(inside, protocol, f"[{address}]:" if ":" in address else f"{address}:", public)


def _order(port: _Port) -> tuple[bool, str, str, int, int]:
    """Those of one kind beside each other, what is published first."""
    return not port.public, port.protocol, port.host, port.inside, port.public


def _runs_of(ports: Iterable[_Port]) -> Iterable[tuple[str, str]]:
    """Ports one behind the other, outside as inside, as one: `9991-9993` and `9991-9993/tcp`."""
    runs: list[tuple[_Port, int]] = []
    for each in ports:
        first, length = runs[-1] if runs else (each, 0)
        public = first.public + length if first.public else 0
        if each == _Port(first.inside + length, first.protocol, first.host, public):
            runs[-1:] = [(first, length + 1)]
        else:
            runs.append((each, 1))
    for first, length in runs:
        outside = f"{first.host}{_span(first.public, length)}" if first.public else ""
        yield outside, f"{_span(first.inside, length)}/{first.protocol}"


def _span(first: int, length: int) -> str:
    return str(first) if length == 1 else f"{first}-{first + length - 1}"


def _wire(network: Mapping[str, Any]) -> Wire:
    notes = [str(network.get("Driver") or "")]
    for field_name, word in (("Internal", "internal"), ("EnableIPv6", "IPv6"), ("Attachable", "")):
        if network.get(field_name) and word:
            notes.append(word)
    if (network.get("Options") or {}).get("com.docker.network.bridge.enable_icc") == "false":
        notes.append("no icc")
    config = (network.get("IPAM") or {}).get("Config") or ()
    subnets = tuple((str(each.get("Subnet") or ""), str(each.get("Gateway") or "")) for each in config)
    return Wire(str(network["Name"]), tuple(each for each in notes if each), subnets)


def _mode(container: Mapping[str, Any]) -> str:
    return str((container.get("HostConfig") or {}).get("NetworkMode") or "")


def _name(container: Mapping[str, Any]) -> str:
    names = [str(each).strip("/") for each in container.get("Names") or ()]
    own = [each for each in names if "/" not in each]
    return (own or names or [str(container["Id"])[:12]])[0]


def _label(item: Mapping[str, Any], key: str) -> str:
    return str((item.get("Labels") or {}).get(key) or "")


def _runs(container: Mapping[str, Any]) -> bool:
    return container.get("State") in ("running", "paused", "restarting")
