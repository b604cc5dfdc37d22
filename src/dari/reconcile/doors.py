"""Who listens: the sockets of namespaces, a container's doors, and what listens instead of what was asked for.

Must not know: packets, who asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dari.kernel.probe import Probing
from dari.net.packet import Listeners
from dari.net.state import HOST
from dari.reconcile import ends
from dari.reconcile.ends import End

# A listening UDP port above may be a client's.
_EPHEMERAL = 32768
# Of a published range, however long: the first ports stand for all of them, which are one rule.
_RANGE_SHOWN = 16


def listeners(probing: Probing, namespaces: Iterable[str]) -> Listeners:
    """Who listens in these namespaces. Raises OSError."""
    found = []
    seen = []
    for name in namespaces:
        sockets = probing.listeners(name)
        if sockets is not None:
            seen.append(name)
            found += [(name, each.protocol, each.address, each.port) for each in sockets]
    return Listeners.of(found, seen)


def doors(end: End, heard: Listeners) -> list[tuple[str, int, list[str]]]:
    """A container's doors by port: protocol, port and why it is one."""
    found: dict[tuple[str, int], dict[str, None]] = {}
    for protocol, port, why in _doors(end, heard):
        found.setdefault((protocol, port), {})[why] = None
    ordered = sorted(found.items(), key=lambda each: (each[0][1], each[0][0]))
    return [(protocol, port, list(why)) for (protocol, port), why in ordered]


def _doors(end: End, heard: Listeners) -> Iterator[tuple[str, int, str]]:
    if end.is_own:
        for each in ends.publications(end)[:_RANGE_SHOWN]:
            if each.protocol in ("tcp", "udp"):
                yield each.protocol, each.container_port, "published"
    for text in end.container.config.exposed_ports if end.container is not None else ():
        port, _, protocol = text.partition("/")
        if port.isdigit() and protocol in ("tcp", "udp", ""):
            yield protocol or "tcp", int(port), "exposed"
    if not end.is_own:
        # The host's own sockets are not this container's doors.
        return
    for kind, at, number in heard.sockets.get(end.netns or HOST, ()):
        if not at.is_loopback and (kind == "tcp" or number < _EPHEMERAL):
            yield kind, number, "listening"


def listening(heard: Listeners | None, netns: str, protocol: str, asked: int) -> str:
    """What listens in a namespace instead of the port that was asked for, as advice."""
    sockets = heard.sockets.get(netns) if heard is not None else None
    if not sockets:
        return ""
    same = sorted(str(at) for kind, at, port in sockets if (kind, port) == (protocol, asked))
    if same:
        return f"it listens on {', '.join(same)} only: let it listen on 0.0.0.0 (or ::)"
    others = sorted(
        {f"{port}/{kind}" for kind, at, port in sockets if not at.is_loopback and port < 32768},
        key=lambda each: int(each.partition("/")[0]),
    )
    return f"ask for what listens there: {', '.join(others)}" if others else "start what should listen there"
