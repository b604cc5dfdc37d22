"""Zone and view files: what the responder knows, as plain data.

A zone file per network (`zones/<network_id>.json`) holds names and reverse records; a view file per
sandbox (`views/<sandbox_id>.json`) says where that sandbox listens, which zones it sees and whom to ask
for the rest. The daemon puts files into place (`files.py`), then nudges (`nudge.py`).
This module is pure: it knows no sockets, no folders, and not where the data comes from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

VERSION = 1
ZONES = "zones"
VIEWS = "views"
NUDGE_SOCKET = "nudge.sock"
CONTROL_SOCKET = "control.sock"


class ZoneError(ValueError):
    """A zone or view file that cannot be read: not JSON, another version, a missing or mistyped field."""


class Addresses(NamedTuple):
    """The addresses of one name, as text (`172.18.0.2`, `fd00::2`)."""

    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()


class Zone(NamedTuple):
    """The names of one network.

    `names` has lower-case names without a final dot; `ptr` maps an address to one full name. An address
    inside `subnets` that has no `ptr` entry does not exist and is never asked upstream. `ttl` in seconds.
    """

    network_id: str
    network_name: str
    is_internal: bool = False
    subnets: tuple[str, ...] = ()
    names: Mapping[str, Addresses] = {}
    ptr: Mapping[str, str] = {}
    ttl: int = 0


class View(NamedTuple):
    """What one sandbox sees.

    The responder listens on 127.0.0.11:`port` (UDP and TCP) inside the namespace at `netns_path`.
    `networks` are ids, the first that knows a name answers. `links` are names only this sandbox knows:
    addresses, or another name to look up in the networks. `upstreams` are `ip` or `ip:port` (`[ip6]:port`),
    at most three are asked, from the responder's own namespace when `upstream_scope` is "host" and from
    the sandbox's when it is "sandbox". When `is_internal_only`, nothing is asked.
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


def zone_path(network_id: str) -> str:
    """Path of a zone file relative to the responder's directory: the name used in a nudge."""
    return f"{ZONES}/{network_id}.json"


def view_path(sandbox_id: str) -> str:
    """Path of a view file relative to the responder's directory: the name used in a nudge."""
    return f"{VIEWS}/{sandbox_id}.json"


def encode_zone(zone: Zone) -> str:
    """The text of a zone file."""
    names = {name.lower(): _shape(addresses) for name, addresses in zone.names.items()}
    return json.dumps(
        {
            "version": VERSION,
            "network_id": zone.network_id,
            "network_name": zone.network_name,
            "is_internal": zone.is_internal,
            "subnets": list(zone.subnets),
            "ttl": zone.ttl,
            "names": names,
            "ptr": dict(zone.ptr),
        },
        separators=(",", ":"),
    )


def encode_view(view: View) -> str:
    """The text of a view file."""
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
        },
        separators=(",", ":"),
    )


class Piece(NamedTuple):
    """What one endpoint adds to a zone file: `entry` is its addresses as they stand there, `ptr` the names its
    addresses point back to."""

    names: tuple[str, ...]
    addresses: Addresses
    entry: str
    ptr: tuple[tuple[str, str], ...]


def piece(names: Iterable[str], addresses: Addresses, target: str) -> Piece:
    """The part of an endpoint that is known by `names` and whose addresses lead back to `target`."""
    back = tuple((address, target) for address in (*addresses.ipv4, *addresses.ipv6))
    return Piece(tuple(name.lower() for name in names), addresses, _entry(addresses), back)


def encode_pieces(zone: Zone, pieces: Iterable[Piece]) -> str:
    """The text of the file of a zone whose names are those of the pieces, in their order.

    A file of hundreds of names is written anew whenever one of them changes, so that whoever reads it reads a
    whole; joining texts that are ready keeps the price of that below a millisecond.
    """
    ready = list(pieces)
    head = encode_zone(zone._replace(names={}, ptr={})).removesuffix(_NO_NAMES)
    if _are_apart(ready):
        texts = ",".join([_name_texts(each.names, each.entry) for each in ready if each.names])
        back = ",".join([_ptr_texts(each.ptr) for each in ready if each.ptr])
    else:
        texts, back = _merged(ready)
    return f'{head}"names":{{{texts}}},"ptr":{{{back}}}}}'


def _are_apart(pieces: Sequence[Piece]) -> bool:
    """Whether no name and no address is in two pieces: then their texts only need joining."""
    names = [name for each in pieces for name in each.names]
    addresses = [address for each in pieces for address, _ in each.ptr]
    return len(set(names)) == len(names) and len(set(addresses)) == len(addresses)


@lru_cache(maxsize=16384)
def _name_texts(names: tuple[str, ...], entry: str) -> str:
    return ",".join([f"{_quoted(name)}:{entry}" for name in names])


@lru_cache(maxsize=16384)
def _ptr_texts(ptr: tuple[tuple[str, str], ...]) -> str:
    return ",".join([f'"{address}":{_quoted(target)}' for address, target in ptr])


def _merged(pieces: Sequence[Piece]) -> tuple[str, str]:
    """A name that several answer to has the addresses of them all; an address leads back to the first."""
    names: dict[str, str] = {}
    owners: dict[str, list[Addresses]] = {}
    ptr: dict[str, str] = {}
    for each in pieces:
        for name in each.names:
            known = owners.get(name)
            if known is None:
                owners[name] = [each.addresses]
                names[name] = each.entry
            else:
                known.append(each.addresses)
                names[name] = _entry(_together(known))
        for address, target in each.ptr:
            ptr.setdefault(address, target)
    texts = ",".join([f"{_quoted(name)}:{entry}" for name, entry in names.items()])
    back = ",".join([f'"{address}":{_quoted(target)}' for address, target in ptr.items()])
    return texts, back


_NO_NAMES = '"names":{},"ptr":{}}'


@lru_cache(maxsize=16384)
def _quoted(text: str) -> str:
    return json.dumps(text)


def _entry(addresses: Addresses) -> str:
    return json.dumps(_shape(addresses), separators=(",", ":"))


def _shape(addresses: Addresses) -> dict[str, list[str]]:
    shape: dict[str, list[str]] = {}
    if addresses.ipv4:
        shape["a"] = list(addresses.ipv4)
    if addresses.ipv6:
        shape["aaaa"] = list(addresses.ipv6)
    return shape


def _together(all_of: Iterable[Addresses]) -> Addresses:
    ipv4: dict[str, None] = {}
    ipv6: dict[str, None] = {}
    for each in all_of:
        ipv4.update(dict.fromkeys(each.ipv4))
        ipv6.update(dict.fromkeys(each.ipv6))
    return Addresses(tuple(ipv4), tuple(ipv6))


def decode_zone(text: str | bytes) -> Zone:
    """A zone from the text of its file. Raises ZoneError."""
    raw = _load(text)
    names = {}
    for name, entry in _field(raw, "names", dict, {}).items():
        if not isinstance(entry, dict):
            raise ZoneError(f"field names: {name}: expected an object")
        names[name.lower()] = Addresses(_texts(entry, "a"), _texts(entry, "aaaa"))
    ptr = _field(raw, "ptr", dict, {})
    if not all(isinstance(name, str) for name in ptr.values()):
        raise ZoneError("field ptr: expected names")
    return Zone(
        network_id=_field(raw, "network_id", str),
        network_name=_field(raw, "network_name", str),
        is_internal=_field(raw, "is_internal", bool, False),
        subnets=_texts(raw, "subnets"),
        names=names,
        ptr=ptr,
        ttl=_number(raw, "ttl", 0, 0x7FFFFFFF, 0),
    )


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
    )


def _load(text: str | bytes) -> dict[str, Any]:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ZoneError(f"not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ZoneError("expected an object")
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
