"""`x-members`: processes, machines and services outside that belong to the project.

    x-members:
      db: {address: 10.0.0.5:5432, tags: [primary], checks: [tcp]}
      legacy: 192.0.2.7

Each becomes a registration of the engine on `up` and ends with `down`. Pure; must not know how an engine checks
(docs/how-to/make-anything-a-member.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dari.compose.load.errors import ComposeError, Path
from dari.units import parse_duration

KEY = "x-members"
KINDS = ("tcp", "http", "command", "ttl")
_OPTIONS = ("interval", "timeout", "retries")


def read(tree: Mapping[str, Any], project: str) -> dict[str, dict[str, Any]]:
    """The bodies of the registrations, by key. Raises ComposeError with the path of what is wrong."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in (tree.get(KEY) or {}).items():
        path: Path = (KEY, key)
        member: Mapping[str, Any] = {"address": value} if isinstance(value, str) else value or {}
        if not member.get("address"):
            raise ComposeError("say where it is: 'address' is missing", path)
        import ipaddress

        try:
            address, port = split_address(member["address"])
            ipaddress.ip_address(address)
        except ValueError as error:
            raise ComposeError(f"{member['address']!r}: {error}", (*path, "address")) from None
        checks = []
        for number, text in enumerate(_list(member.get("checks"))):
            try:
                checks.append(parse_check(text))
            except ValueError as error:
                raise ComposeError(str(error), (*path, "checks", number)) from None
        found[key] = {
            "ID": f"{project}-{key}",
            "Name": member.get("name") or key,
            "Address": address,
            "Port": port,
            "Protocol": member.get("protocol") or "tcp",
            "Tags": _list(member.get("tags")),
            "Meta": {
                **{name: str(value) for name, value in (member.get("meta") or {}).items()},
                "com.docker.compose.project": project,
            },
            "Checks": checks,
        }
    return found


def split_address(text: str) -> tuple[str, int]:
    """`10.0.0.5:5432`, `[fd00::5]:5432`, or an address alone. Raises ValueError."""
    if not text.startswith("[") and text.count(":") > 1:
        return text, 0
    host, separator, port = text.rpartition(":")
    if not separator or text.endswith("]"):
        return text.strip("[]"), 0
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"invalid port {port!r}: give a number from 1 to 65535")
    return host.strip("[]"), int(port)


def parse_check(text: str) -> dict[str, Any]:
    """The API's check of `tcp`, `http:URL,interval=5s,retries=3` or `ttl:30s`. Raises ValueError."""
    head, *options = text.split(",")
    while options and options[0].partition("=")[0] not in _OPTIONS:
        head += "," + options.pop(0)
    kind, _, target = head.partition(":")
    if kind not in KINDS:
        raise ValueError(f"invalid check {text!r}: {', '.join(KINDS)} are known")
    body: dict[str, Any] = {"Kind": kind}
    if kind == "ttl":
        parse_duration(target)
        body["Interval"] = target
    elif target:
        body["Target"] = target
    for each in options:
        name, _, value = each.partition("=")
        if name not in _OPTIONS:
            raise ValueError(f"invalid check {text!r}: {name} is not one of {', '.join(_OPTIONS)}")
        if name == "retries":
            if not value.isdigit():
                raise ValueError(f"invalid check {text!r}: retries is a number")
            body["Retries"] = int(value)
        else:
            parse_duration(value)
            body[name.capitalize()] = value
    return body


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
