"""Records of one's own: the label `dari.dns` of a container or a network. Pure.

    {"old-db": {"CNAME": "db"}, "*.dev": {"A": ["10.0.0.5"]}, "_ldap._tcp": {"SRV": "0 5 389 ldap.example.com"}}

A name, then types, then one value or a list. Must not know: whose label it is.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from dari.dns.zone import Addresses, Srv

LABEL = "dari.dns"
TYPES = ("A", "AAAA", "CNAME", "TXT", "SRV")
_LONGEST_TEXT = 1024
_PART = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")


@lru_cache(maxsize=1024)
def parse(text: str) -> Mapping[str, Addresses]:
    """What each name leads to; nothing for an empty label. Raises ValueError naming what is wrong."""
    if not text.strip():
        return MappingProxyType({})
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise ValueError('expected an object like {"old-db": {"CNAME": "db"}}')
    return MappingProxyType({check_name(name): _of(name, types) for name, types in raw.items()})


def check_name(name: str) -> str:
    """The name in lower case. Raises ValueError."""
    plain = name.lower().rstrip(".")
    parts = plain.removeprefix("*.").split(".")
    if len(plain) > 253 or not all(_PART.match(part) for part in parts):
        raise ValueError(
            f"invalid name {name!r}: letters, digits, dashes and underscores, in parts of 63 at most with dots "
            "between, or *. and such a name"
        )
    return plain


def _of(name: str, types: object) -> Addresses:
    if not isinstance(types, dict) or not types:
        raise ValueError(f"{name}: expected types and their values, of {', '.join(TYPES)}")
    found = Addresses()
    for written, given in types.items():
        kind = written.upper()
        values = given if isinstance(given, list) else [given]
        for value in values:
            if not isinstance(value, str):
                raise ValueError(f"{name}: {kind}: expected text, not {json.dumps(value)}")
        try:
            found = _with(found, kind, values)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if found.cname and found != Addresses(cname=found.cname):
        raise ValueError(f"{name}: a name with a CNAME has nothing else (RFC 1034)")
    return found


def _with(found: Addresses, kind: str, values: list[str]) -> Addresses:
    if kind == "A":
        return found._replace(ipv4=tuple(str(_address(kind, value, 4)) for value in values))
    if kind == "AAAA":
        return found._replace(ipv6=tuple(str(_address(kind, value, 6)) for value in values))
    if kind == "CNAME":
        if len(values) != 1:
            raise ValueError("a name has one CNAME")
        return found._replace(cname=check_name(values[0]))
    if kind == "TXT":
        if any(len(value.encode()) > _LONGEST_TEXT for value in values):
            raise ValueError(f"TXT: at most {_LONGEST_TEXT} bytes")
        return found._replace(txt=tuple(values))
    if kind == "SRV":
        return found._replace(srv=tuple(map(_srv, values)))
    raise ValueError(f"{kind} is not known: {', '.join(TYPES)}")


def _address(kind: str, value: str, version: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        address = None
    if address is None or address.version != version:
        raise ValueError(f"{kind}: {value!r} is no IPv{version} address")
    return address


def _srv(value: str) -> Srv:
    words = value.split()
    numbers = [int(word) for word in words[:3] if word.isascii() and word.isdigit() and int(word) <= 65535]
    if len(words) != 4 or len(numbers) != 3:
        raise ValueError(f"SRV: {value!r} is not PRIORITY WEIGHT PORT TARGET")
    return Srv("", numbers[2], check_name(words[3]), numbers[1], "", numbers[0])
