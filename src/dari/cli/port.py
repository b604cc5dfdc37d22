"""`dari port`: what a container publishes, more of it, less of it, while it runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dari.cli.context import Context, Failed
from dari.cli.flags import Options, verb

_VERBS = ("add", "rm", "ls")


@verb(
    "port",
    "CONTAINER [PRIVATE_PORT[/PROTO]] | add|rm|ls CONTAINER [PORT…]",
    "List port mappings or a specific mapping; add, remove or list them while the container runs",
    least=1,
)
def port(context: Context, options: Options) -> int:
    """`dari port add` of a container named `add`: its id, or `dari port ls add`."""
    word, *rest = options.arguments
    if word in _VERBS:
        if not rest:
            raise Failed(f"dari port {word}: give a container", 125)
        return {"add": _add, "rm": _remove, "ls": _list}[word](context, rest)
    if len(options.arguments) > 2:
        raise Failed("'dari port' requires at most 2 arguments", 125)
    return _mappings(context, options.arguments)


def _add(context: Context, words: list[str]) -> int:
    from dari.cli.portspec import parse_ranges

    name, *specs = words
    if not specs:
        raise Failed("dari port add: give at least one port, as [IP:][HOST:]CONTAINER[/PROTO]", 125)
    bindings = parse_ranges(specs)
    found = context.docker.post(f"/dari/v1/containers/{name}/ports", {"PortBindings": bindings})
    _say(context, found["Ports"])
    return 0


def _remove(context: Context, words: list[str]) -> int:
    from dari.cli.portspec import parse_ranges

    name, *specs = words
    if not specs:
        raise Failed("dari port rm: give at least one port, as [[IP:]HOST:]CONTAINER[/PROTO]", 125)
    for private, wants in parse_ranges(specs).items():
        for want in wants:
            query: dict[str, Any] = {"port": private}
            if want["HostIp"]:
                query["hostip"] = want["HostIp"]
            if want["HostPort"]:
                query["hostport"] = int(want["HostPort"].partition("-")[0])
            context.docker.delete(f"/dari/v1/containers/{name}/ports", **query)
            context.say(private)
    return 0


def _list(context: Context, words: list[str]) -> int:
    if len(words) > 1:
        return _mappings(context, words)
    _say(context, context.docker.get(f"/dari/v1/containers/{words[0]}/ports")["Ports"])
    return 0


def _say(context: Context, ports: dict[str, list[dict[str, str]]]) -> None:
    """A range is one line."""
    for private in sorted(ports, key=_order):
        for binding in ports[private]:
            context.say(f"{private} -> {_address(binding)}")


def _mappings(context: Context, words: Iterable[str]) -> int:
    """Docker's `port`."""
    name, *rest = words
    found: dict[str, Any] = context.docker.get(f"/containers/{name}/json")["NetworkSettings"]["Ports"] or {}
    if not rest:
        for private in sorted(found, key=_order):
            for binding in found[private] or ():
                context.say(f"{private} -> {_address(binding)}")
        return 0
    wanted = rest[0] if "/" in rest[0] else f"{rest[0]}/tcp"
    bindings = found.get(wanted)
    if not bindings:
        raise Failed(f"Error: No public port '{rest[0]}' published for {name}")
    for binding in bindings:
        context.say(_address(binding))
    return 0


def _order(private: str) -> tuple[int, str]:
    ports, _, protocol = private.partition("/")
    return int(ports.partition("-")[0]), protocol


def _address(binding: dict[str, str]) -> str:
    host = binding.get("HostIp") or "0.0.0.0"
    return f"[{host}]:{binding['HostPort']}" if ":" in host else f"{host}:{binding['HostPort']}"
