"""Speaking with the relay: one SOCK_SEQPACKET message and one reply each, both JSON, sockets beside them.

`{"op": "add", "name": …, "kind": "tcp" | "udp", "target": [address, port]}` with the listening (or bound) socket;
without a socket it gives a known name a new target. With `"span": [address, first, last]` the socket takes all these
ports (lookup.py), and the target's port is the first one's. `{"op": "drop", "names": […]}`. `{"op": "list"}` answers
pid and the names with their targets. `{"op": "hold", "name": …}` keeps up to MOST_HELD sockets open and does nothing
with them; `{"op": "held"}` answers the names of those. `{"op": "get", "name": …}` answers with the socket, or sockets.
Calls block for well under a millisecond while the relay is well. Must not know: whose ports these are.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SOCKET = "relay.sock"
MOST_HELD = 64
"""Sockets in one message; the kernel takes 253."""

_BYTES = 1 << 18
_SECONDS = 2.0


def command(directory: str) -> list[str]:
    """Arguments that start a relay over `directory` in the foreground; isolated and without `site`, which halves
    its start and its memory."""
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("__main__.py")), "--dir", directory]


def add(
    directory: str,
    name: str,
    kind: str,
    target: tuple[str, int],
    sock: socket.socket | None = None,
    span: tuple[str, int, int] | None = None,
) -> bool:
    """Whether it is relayed now."""
    descriptors = [] if sock is None else [sock.fileno()]
    request = {"op": "add", "name": name, "kind": kind, "target": target, "span": span}
    answer, _ = _ask(directory, request, descriptors)
    return bool(answer and answer.get("ok"))


def owner(directory: str) -> int:
    """The pid of who has the door, even if it answers nobody; 0 where there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(_SECONDS)
        try:
            sock.connect(os.path.join(directory, SOCKET))
        except OSError:
            return 0
        # struct ucred: pid, uid, gid of whoever listens.
        return struct.unpack("=iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]  # type: ignore[no-any-return]


def drop(directory: str, names: Iterable[str]) -> bool:
    """Connections that are under way end too."""
    answer, _ = _ask(directory, {"op": "drop", "names": list(names)})
    return bool(answer and answer.get("ok"))


def entries(directory: str) -> tuple[int, dict[str, tuple[str, int]]] | None:
    """The relay's pid, and what it carries where; None where none answers."""
    answer, _ = _ask(directory, {"op": "list"})
    if answer is None:
        return None
    found = {str(name): (str(each[0]), int(each[1])) for name, each in answer["entries"].items()}
    return int(answer["pid"]), found


def get(directory: str, name: str) -> socket.socket | None:
    """Another handle of the socket behind a name."""
    found = get_all(directory, name)
    for each in found[1:]:
        each.close()
    return found[0] if found else None


def get_all(directory: str, name: str) -> list[socket.socket]:
    """Handles of all sockets behind a name, in the order they were given."""
    _, descriptors = _ask(directory, {"op": "get", "name": name})
    return [socket.socket(fileno=each) for each in descriptors]


def hold(directory: str, name: str, sockets: Iterable[socket.socket]) -> bool:
    """Whether they are kept open now, whatever becomes of the caller."""
    answer, _ = _ask(directory, {"op": "hold", "name": name}, [each.fileno() for each in sockets])
    return bool(answer and answer.get("ok"))


def held(directory: str) -> list[str] | None:
    """The names of what is kept open; None where no relay answers that knows how to."""
    answer, _ = _ask(directory, {"op": "held"})
    return [str(each) for each in answer["held"]] if answer is not None and "held" in answer else None


def _ask(
    directory: str, request: dict[str, Any], descriptors: Iterable[int] = ()
) -> tuple[dict[str, Any] | None, list[int]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(_SECONDS)
        try:
            sock.connect(os.path.join(directory, SOCKET))
            socket.send_fds(sock, [json.dumps(request).encode()], list(descriptors))
            data, received, _, _ = socket.recv_fds(sock, _BYTES, MOST_HELD)
        except OSError:
            return None, []
        for each in received:
            os.set_inheritable(each, False)
        return (json.loads(data) if data else None), received
