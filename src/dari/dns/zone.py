"""Zone and view files: what the responder knows, as plain data.

A zone file per network (`zones/<network_id>.json`) holds names and reverse records, and in lines behind the first what
changed since; a view file per sandbox (`views/<sandbox_id>.json`) says where that sandbox listens, which zones it sees
and whom to ask for the rest. The daemon puts files into place or adds to them (`files.py`), then nudges (`nudge.py`).
This module is pure: it knows no sockets, no folders, and not where the data comes from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

VERSION = 1
REVISION = 3
"""What a responder makes of such files; a daemon that writes more than the running one reads starts a new one."""
ZONES = "zones"
VIEWS = "views"
NUDGE_SOCKET = "nudge.sock"
CONTROL_SOCKET = "control.sock"
ADDRESS = "127.0.0.11"


class ZoneError(ValueError):
    """A zone or view file that cannot be read: not JSON, another version, a missing or mistyped field."""


ORDERS = ("random", "round-robin", "weighted")
"""How the addresses of one name are ordered from answer to answer."""


class Srv(NamedTuple):
    """A port somebody answers at (RFC 2782): `protocol` tcp, udp or sctp, asked for as `_80._tcp.NAME`, or as
    `_http._tcp.NAME` where the port has a name. A record of its own, under exactly its name, has no protocol."""

    protocol: str
    port: int
    target: str
    weight: int = 1
    service: str = ""
    priority: int = 0


class Addresses(NamedTuple):
    """What one name leads to: addresses as text (`172.18.0.2`, `fd00::2`), ports, texts, or another name.

    `weights` are those of addresses whose weight is not 1. A `cname` counts where there are no addresses.
    """

    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()
    srv: tuple[Srv, ...] = ()
    txt: tuple[str, ...] = ()
    cname: str = ""
    weights: tuple[tuple[str, int], ...] = ()


class Zone(NamedTuple):
    """The names of one network.

    `names` has lower-case names without a final dot; `*.web` stands for every name under `web` that is not there
    itself. `ptr` maps an address to one full name. An address inside `subnets` that has no `ptr` entry does not
    exist and is never asked upstream. `ttl` in seconds. `order` of a name's addresses: `random`, `round-robin` or
    `weighted`. `projects` has names followed by their Compose project (`web.shop`): a view of that project is
    answered from these first.
    """

    network_id: str
    network_name: str
    is_internal: bool = False
    subnets: tuple[str, ...] = ()
    names: Mapping[str, Addresses] = {}
    ptr: Mapping[str, str] = {}
    ttl: int = 0
    order: str = "random"
    projects: Mapping[str, Addresses] = {}


class Change(NamedTuple):
    """What became of names of a zone, by the zone's fields: what each leads to now; None: it is no more."""

    names: Mapping[str, Addresses | None] = {}
    projects: Mapping[str, Addresses | None] = {}
    ptr: Mapping[str, str | None] = {}


class View(NamedTuple):
    """What one sandbox sees.

    The responder listens on 127.0.0.11:`port` (UDP and TCP) inside the namespace at `netns_path`.
    `networks` are ids, the first that knows a name answers. `links` are names only this sandbox knows:
    addresses, or another name to look up in the networks. `upstreams` are `ip` or `ip:port` (`[ip6]:port`),
    at most three are asked, from the responder's own namespace when `upstream_scope` is "host" and from
    the sandbox's when it is "sandbox". When `is_internal_only`, nothing is asked. `project`: whose names go
    first. `address` instead of 127.0.0.11 is where the host itself is answered; `domain` then stands behind names
    that are never asked upstream (`db.shop_default.dari.internal`).
    """

    sandbox_id: str
    netns_path: str
    port: int
    networks: tuple[str, ...] = ()
    links: Mapping[str, tuple[str, ...] | str] = {}
    upstreams: tuple[str, ...] = ()
    upstream_scope: str = "host"
    is_internal_only: bool = False
    forward_single_label: bool = True
    project: str = ""
    address: str = ADDRESS
    domain: str = ""


def zone_path(network_id: str) -> str:
    """Path of a zone file relative to the responder's directory: the name used in a nudge."""
    return f"{ZONES}/{network_id}.json"


def view_path(sandbox_id: str) -> str:
    """Path of a view file relative to the responder's directory: the name used in a nudge."""
    return f"{VIEWS}/{sandbox_id}.json"


def encode_zone(zone: Zone) -> str:
    """The text of a zone file."""
    # What is not there is left out, so that a responder from before these fields reads the same file.
    shape: dict[str, Any] = {
        "version": VERSION,
        "network_id": zone.network_id,
        "network_name": zone.network_name,
        "is_internal": zone.is_internal,
        "subnets": list(zone.subnets),
        "ttl": zone.ttl,
    }
    if zone.order != "random":
        shape["order"] = zone.order
    if zone.projects:
        shape["projects"] = _shapes(zone.projects)
    shape |= {"names": _shapes(zone.names), "ptr": dict(zone.ptr)}
    return json.dumps(shape, separators=(",", ":"))


def _shapes(names: Mapping[str, Addresses]) -> dict[str, Any]:
    return {name.lower(): _shape(addresses) for name, addresses in names.items()}


def encode_view(view: View) -> str:
    """The text of a view file."""
    optional = {
        "project": (view.project, ""),
        "address": (view.address, ADDRESS),
        "domain": (view.domain, ""),
    }
    return json.dumps(
        {
            "version": VERSION,
            "sandbox_id": view.sandbox_id,
            "netns_path": view.netns_path,
            "port": view.port,
            "networks": list(view.networks),
            "links": {
                name.lower(): target if isinstance(target, str) else list(target)
                for name, target in view.links.items()
            },
            "upstreams": list(view.upstreams),
            "upstream_scope": view.upstream_scope,
            "is_internal_only": view.is_internal_only,
            "forward_single_label": view.forward_single_label,
            **{name: value for name, (value, usual) in optional.items() if value != usual},
        },
        separators=(",", ":"),
    )


def entry(addresses: Addresses) -> str:
    """What stands behind a name in a file."""
    return json.dumps(_shape(addresses), separators=(",", ":"))


def _shape(addresses: Addresses) -> dict[str, Any]:
    shape: dict[str, Any] = {}
    if addresses.ipv4:
        shape["a"] = list(addresses.ipv4)
    if addresses.ipv6:
        shape["aaaa"] = list(addresses.ipv6)
    if addresses.srv:
        shape["srv"] = [list(each) for each in addresses.srv]
    if addresses.txt:
        shape["txt"] = list(addresses.txt)
    if addresses.cname:
        shape["cname"] = addresses.cname
    if addresses.weights:
        shape["weights"] = dict(addresses.weights)
    return shape


def together(all_of: Iterable[Addresses]) -> Addresses:
    """What a name leads to that leads to all of these."""
    ipv4: dict[str, None] = {}
    ipv6: dict[str, None] = {}
    srv: dict[Srv, None] = {}
    txt: dict[str, None] = {}
    weights: dict[str, int] = {}
    cname = ""
    for each in all_of:
        ipv4.update(dict.fromkeys(each.ipv4))
        ipv6.update(dict.fromkeys(each.ipv6))
        srv.update(dict.fromkeys(each.srv))
        txt.update(dict.fromkeys(each.txt))
        weights.update(each.weights)
        cname = cname or each.cname
    return Addresses(tuple(ipv4), tuple(ipv6), tuple(srv), tuple(txt), cname, tuple(weights.items()))


def decode_zone(text: str | bytes) -> Zone:
    """A zone from the text of its file, all changes in it made. Raises ZoneError."""
    first, rest = lines_of(text if isinstance(text, bytes) else text.encode(errors="replace"))
    zone, count = decode_first(first)
    if len(rest) < count:
        raise ZoneError(f"expected {count} more lines, got {len(rest)}")
    found: tuple[dict[str, Any], ...] = (dict(zone.names), dict(zone.projects), dict(zone.ptr))
    for line in rest:
        for known, changed in zip(found, decode_change(line), strict=True):
            known.update(changed)
            for name, value in changed.items():
                if value is None:
                    del known[name]
    return zone._replace(names=found[0], projects=found[1], ptr=found[2])


def lines_of(text: bytes) -> tuple[bytes, list[bytes]]:
    """The first line of a zone file, and those behind it that are whole: a writer may have been killed in the midst of
    the last one, which then is no part of the file."""
    first, *rest = text.split(b"\n")
    if not first.rstrip().endswith(b"}"):
        return text, []  # laid out by hand over several lines: one object all the same
    return first, rest[:-1]


def decode_first(line: bytes) -> tuple[Zone, int]:
    """The zone as its first line has it, and how many of the lines behind belong to that. Raises ZoneError."""
    raw = _load(line)
    order = _field(raw, "order", str, "random")
    if order not in ORDERS:
        raise ZoneError(f"field order: expected one of {', '.join(ORDERS)}, got {order!r}")
    ptr = _field(raw, "ptr", dict, {})
    if not all(isinstance(name, str) for name in ptr.values()):
        raise ZoneError("field ptr: expected names")
    zone = Zone(
        network_id=_field(raw, "network_id", str),
        network_name=_field(raw, "network_name", str),
        is_internal=_field(raw, "is_internal", bool, False),
        subnets=_texts(raw, "subnets"),
        names=_entries(_field(raw, "names", dict, {}), "names"),
        ptr=ptr,
        ttl=_number(raw, "ttl", 0, 0x7FFFFFFF, 0),
        order=order,
        projects=_entries(_field(raw, "projects", dict, {}), "projects"),
    )
    return zone, _number(raw, "lines", 0, 1 << 31, 0)


def decode_change(line: bytes) -> Change:
    """One line behind the first. Raises ZoneError."""
    raw = _object(line)
    ptr = _field(raw, "ptr", dict, {})
    if not all(isinstance(name, str) or name is None for name in ptr.values()):
        raise ZoneError("field ptr: expected names or null")
    found: list[dict[str, Addresses | None]] = []
    for field in ("names", "projects"):
        shapes = _field(raw, field, dict, {})
        gone = dict.fromkeys((name.lower() for name, shape in shapes.items() if shape is None))
        found.append({**gone, **_entries({k: v for k, v in shapes.items() if v is not None}, field)})
    return Change(found[0], found[1], ptr)


def _entries(shapes: dict[str, Any], field: str) -> dict[str, Addresses]:
    names = {}
    for name, shape in shapes.items():
        if not isinstance(shape, dict):
            raise ZoneError(f"field {field}: {name}: expected an object")
        names[name.lower()] = Addresses(
            _texts(shape, "a"),
            _texts(shape, "aaaa"),
            tuple(_srv(name, each) for each in _field(shape, "srv", list, [])) if "srv" in shape else (),
            _texts(shape, "txt"),
            _field(shape, "cname", str, ""),
            tuple(
                (key, _number(shape["weights"], key, 0, 65535)) for key in _field(shape, "weights", dict, {})
            ),
        )
    return names


def _srv(name: str, raw: Any) -> Srv:
    if not isinstance(raw, list) or [type(each) for each in raw] != [str, int, str, int, str, int]:
        raise ZoneError(f"field srv: {name}: expected [protocol, port, target, weight, service, priority]")
    made = Srv(*raw)
    if not all(0 <= number <= 65535 for number in (made.port, made.weight, made.priority)):
        raise ZoneError(f"field srv: {name}: expected numbers from 0 to 65535")
    return made


def decode_view(text: str | bytes) -> View:
    """A view from the text of its file. Raises ZoneError."""
    raw = _load(text)
    links: dict[str, tuple[str, ...] | str] = {}
    link_field = _field(raw, "links", dict, {})
    for name, target in link_field.items():
        links[name.lower()] = target if isinstance(target, str) else _texts(link_field, name)
    scope = _field(raw, "upstream_scope", str, "host")
    if scope not in ("host", "sandbox"):
        raise ZoneError(f"field upstream_scope: expected host or sandbox, got {scope!r}")
    return View(
        sandbox_id=_field(raw, "sandbox_id", str),
        netns_path=_field(raw, "netns_path", str),
        port=_number(raw, "port", 1, 65535),
        networks=_texts(raw, "networks"),
        links=links,
        upstreams=_texts(raw, "upstreams"),
        upstream_scope=scope,
        is_internal_only=_field(raw, "is_internal_only", bool, False),
        forward_single_label=_field(raw, "forward_single_label", bool, True),
        project=_field(raw, "project", str, ""),
        address=_field(raw, "address", str, ADDRESS),
        domain=_field(raw, "domain", str, ""),
    )


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ZoneError(f"not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ZoneError("expected an object")
    return raw


def _load(text: str | bytes) -> dict[str, Any]:
    raw = _object(text)
    if raw.get("version") != VERSION:
        raise ZoneError(f"version {raw.get('version')!r} is not known, expected {VERSION}")
    return raw


_MISSING: Any = object()


def _field(raw: dict[str, Any], name: str, kind: type, default: Any = _MISSING) -> Any:
    value = raw.get(name, default)
    if value is _MISSING:
        raise ZoneError(f"field {name} is missing")
    if not isinstance(value, kind):
        raise ZoneError(f"field {name}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _number(raw: dict[str, Any], name: str, low: int, high: int, default: Any = _MISSING) -> int:
    value = _field(raw, name, int, default)
    if isinstance(value, bool) or not low <= value <= high:
        raise ZoneError(f"field {name}: expected a number from {low} to {high}, got {value!r}")
    return int(value)


def _texts(raw: dict[str, Any], name: str) -> tuple[str, ...]:
    value = raw.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ZoneError(f"field {name}: expected a list of strings")
    return tuple(value)
