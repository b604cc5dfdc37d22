"""`--publish` and `--expose`. Pure."""

from __future__ import annotations

from collections.abc import Iterable

Bindings = dict[str, list[dict[str, str]]]


def parse_publish(texts: Iterable[str]) -> tuple[set[str], Bindings]:
    """Exposed ports and `PortBindings` of `[ip:][host[-host]:]port[-port][/proto]`. Raises ValueError."""
    exposed: set[str] = set()
    bindings: Bindings = {}
    for text in texts:
        address, host, container, proto = _publish_parts(text)
        private = _range(container, text)
        public = _range(host, text) if host else []
        # `8000-9000:80` is one port that takes any of a range; otherwise the ranges go side by side.
        is_choice = len(private) == 1 and len(public) > 1
        if public and not is_choice and len(public) != len(private):
            raise ValueError(f"invalid ranges specified for container and host Ports: {container} and {host}")
        for index, port in enumerate(private):
            key = f"{port}/{proto}"
            exposed.add(key)
            chosen = host if is_choice else (str(public[index]) if public else "")
            bindings.setdefault(key, []).append({"HostIp": address, "HostPort": chosen})
    return exposed, bindings


def parse_ranges(texts: Iterable[str]) -> Bindings:
    """The same bindings with ranges kept whole: `8000-8010/tcp`. Raises ValueError."""
    bindings: Bindings = {}
    for text in texts:
        address, host, container, proto = _publish_parts(text)
        private = _range(container, text)
        public = _range(host, text) if host else []
        if public and len(private) > 1 and len(public) != len(private):
            raise ValueError(f"invalid ranges specified for container and host Ports: {container} and {host}")
        bindings.setdefault(f"{container}/{proto}", []).append({"HostIp": address, "HostPort": host})
    return bindings


def parse_expose(texts: Iterable[str]) -> set[str]:
    """Ports of `port[-port][/proto]`. Raises ValueError."""
    found = set()
    for text in texts:
        ports, _, proto = text.partition("/")
        found |= {f"{port}/{_proto(proto, text)}" for port in _range(ports, text)}
    return found


def _publish_parts(text: str) -> tuple[str, str, str, str]:
    rest, _, proto = text.partition("/")
    address = ""
    if rest.startswith("["):
        address, bracket, rest = rest[1:].partition("]:")
        if not bracket:
            raise ValueError(f"invalid port specification: {text}")
    parts = rest.rsplit(":", 2)
    if len(parts) == 3:
        if address or ":" in parts[0]:
            raise ValueError(f"invalid port specification: {text}")
        address = parts[0]
    host = parts[-2] if len(parts) > 1 else ""
    return address, host, parts[-1], _proto(proto, text)


def _proto(text: str, whole: str) -> str:
    proto = text.lower() or "tcp"
    if proto not in ("tcp", "udp", "sctp"):
        raise ValueError(f"invalid proto: {text} in {whole}")
    return proto


def _range(text: str, whole: str) -> list[int]:
    first, _, last = text.partition("-")
    last = last or first
    if not (first.isascii() and first.isdigit() and last.isascii() and last.isdigit()):
        raise ValueError(f"invalid containerPort: {text} in {whole}")
    low, high = int(first), int(last)
    if not 0 < low <= high <= 65535:
        raise ValueError(f"invalid port range: {text} in {whole}")
    return list(range(low, high + 1))
