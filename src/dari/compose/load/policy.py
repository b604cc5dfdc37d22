"""`x-policy`: who may call whom, from the file to the label `dari.policy` of each service's containers.

    x-policy:
      default: deny
      allow:
        - {from: web, to: db, ports: [5432]}
        - {from: outside, to: web, ports: [80, 443]}

A service may have an `x-policy` of its own, without `to`. Pure; must not know what an engine makes of the label (its
text: docs/how-to/say-who-may-call-whom.md).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from dari.compose.load.errors import ComposeError, Path

LABEL = "dari.policy"
KEY = "x-policy"

_SPECIAL = ("any", "host", "outside")
_PORTS = re.compile(r"(?:(\d{1,5})(?:-(\d{1,5}))?(?:/(?:tcp|udp|sctp))?|icmp)\Z")
_SUBNET = re.compile(r"[0-9a-fA-F.:]+/\d{1,3}\Z")
_NETWORK = re.compile(r"network:[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")
_CONTAINER = re.compile(r"container:(?P<name>[a-zA-Z0-9][a-zA-Z0-9_.-]*)\Z")


def apply(tree: dict[str, Any], known: Collection[str]) -> None:
    """Put the label on every service of `tree` (normalised) that a policy speaks of.

    `known`: the names of all services, disabled ones too. Raises ComposeError with the path of what is wrong.
    """
    general = tree.get(KEY) or {}
    _check(general, (KEY,), known)
    for name, service in tree["services"].items():
        own = service.get(KEY) or {}
        _check(own, ("services", name, KEY), known)
        text = "; ".join(_statements(name, general, own))
        if text:
            service["labels"] = {**(service.get("labels") or {}), LABEL: text}


def _statements(name: str, general: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[str]:
    default = own.get("default") or general.get("default")
    if default:
        yield default
    for policy in (general, own):
        for verdict in ("allow", "deny"):
            for rule in policy.get(verdict) or ():
                targets = _words(rule.get("to"))
                if not targets or name in targets:
                    ports = [str(port) for port in _words(rule.get("ports"))]
                    sources = [_CONTAINER.sub(r"\g<name>", source) for source in _words(rule["from"])]
                    yield " ".join([verdict, ",".join(sources), *([",".join(ports)] if ports else [])])


def _check(policy: Mapping[str, Any], path: Path, known: Collection[str]) -> None:
    if policy.get("default") not in (None, "allow", "deny"):
        raise ComposeError(f"default must be allow or deny, not {policy['default']}", (*path, "default"))
    for verdict in ("allow", "deny"):
        for number, rule in enumerate(policy.get(verdict) or ()):
            place = (*path, verdict, number)
            if not rule.get("from"):
                raise ComposeError("say who may call: 'from' is missing", place)
            for word in _words(rule["from"]):
                if not _is_source(word, known):
                    raise ComposeError(
                        f"{word!r} is no service; from is a service, container:NAME, network:NAME, a subnet, "
                        f"{', '.join(_SPECIAL)}",
                        (*place, "from"),
                    )
            for word in _words(rule.get("to")):
                if word not in known:
                    raise ComposeError(f"{word!r} is no service", (*place, "to"))
            for port in _words(rule.get("ports")):
                if not _is_port(str(port)):
                    text = f"{port!r} is no port: write 5432, 53/udp, 8000-8010 or icmp"
                    raise ComposeError(text, (*place, "ports"))


def _is_source(word: str, known: Collection[str]) -> bool:
    return (
        word in known or word in _SPECIAL or any(one.match(word) for one in (_SUBNET, _NETWORK, _CONTAINER))
    )


def _is_port(text: str) -> bool:
    found = _PORTS.match(text)
    if found is None or not found[1]:
        return found is not None
    return 1 <= int(found[1]) <= int(found[2] or found[1]) <= 65535


def _words(value: Any) -> list[Any]:
    """A single word, or a list of them."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
