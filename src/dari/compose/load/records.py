"""`x-dns`: records of one's own, from the file to the label `dari.dns` of networks and containers.

    x-dns:
      old-db: {cname: db}
      "*.dev": {a: 10.0.0.5}

At the top level they hold on every network the file defines, for as long as it is there; under a service while one of
its containers runs. Pure; must not know what an engine makes of the label (its text: docs/how-to/names.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from dari.compose.load.errors import ComposeError, Path

LABEL = "dari.dns"
KEY = "x-dns"

_TYPES = ("A", "AAAA", "CNAME", "TXT", "SRV")
_PART = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_SRV = re.compile(r"(\d{1,5})\s+(\d{1,5})\s+(\d{1,5})\s+(\S+)\Z")


def apply(tree: dict[str, Any]) -> None:
    """Put the label on networks and services of `tree` (normalised). Raises ComposeError with the path of what is
    wrong."""
    _label(tree.get("networks") or {}, _records(tree.get(KEY) or {}, (KEY,)))
    for name, service in tree["services"].items():
        own = _records(service.get(KEY) or {}, ("services", name, KEY))
        _label({name: service}, own)


def _label(holders: Mapping[str, Any], records: dict[str, dict[str, list[str]]]) -> None:
    for holder in holders.values() if records else ():
        if not holder.get("external"):
            text = json.dumps(records, separators=(",", ":"), ensure_ascii=False)
            holder["labels"] = {LABEL: text, **(holder.get("labels") or {})}


def _records(given: Mapping[str, Any], path: Path) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    for name, types in given.items():
        place = (*path, name)
        if not _is_name(name):
            raise ComposeError(
                f"{name!r} is no name: letters, digits, dashes, dots, perhaps *. before", place
            )
        if not types:
            raise ComposeError(f"say what {name} is: {', '.join(_TYPES).lower()}", place)
        entry = found.setdefault(name.lower().rstrip("."), {})
        for written, value in types.items():
            kind = written.upper()
            if kind not in _TYPES:
                text = f"{written!r} is no type of record: {', '.join(_TYPES).lower()} are known"
                raise ComposeError(text, (*place, written))
            values = value if isinstance(value, list) else [value]
            for number, each in enumerate(values):
                why = _fault(kind, str(each))
                if why:
                    where = (*place, written, number) if isinstance(value, list) else (*place, written)
                    raise ComposeError(why, where)
            entry[kind] = [str(each) for each in values]
        if "CNAME" in entry and (len(entry) > 1 or len(entry["CNAME"]) != 1):
            raise ComposeError(f"{name} has a cname, so it can have nothing else", place)
    return found


def _fault(kind: str, value: str) -> str:
    """What is wrong with a value; empty if nothing is."""
    if kind in ("A", "AAAA"):
        import ipaddress

        version = 4 if kind == "A" else 6
        try:
            is_good = ipaddress.ip_address(value).version == version
        except ValueError:
            is_good = False
        return "" if is_good else f"{value!r} is no IPv{version} address"
    if kind == "CNAME" and not _is_name(value):
        return f"{value!r} is no name"
    if kind == "TXT" and len(value.encode()) > 1024:
        return "a txt record has at most 1024 bytes"
    if kind == "SRV":
        found = _SRV.match(value)
        if found is None or any(int(each) > 65535 for each in found.groups()[:3]) or not _is_name(found[4]):
            return f"{value!r} is not PRIORITY WEIGHT PORT TARGET"
    return ""


def _is_name(name: str) -> bool:
    plain = name.lower().rstrip(".")
    return len(plain) <= 253 and all(_PART.match(part) for part in plain.removeprefix("*.").split("."))
