"""Telling the responder that files changed, and asking how it is.

One SOCK_SEQPACKET message and one reply each: to `nudge.sock` the changed file names, one a line, answered
after the change is in force; to `control.sock` the word `ping`, answered with a status in JSON, `revision`,
`stats`, or `log`, after which each message is a line of the log until the asker closes.
Calls block for well under a millisecond while the responder is well. Must not know what the files say.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from typing import Any, NamedTuple

from dari.dns.zone import CONTROL_SOCKET, NUDGE_SOCKET

_BATCH = 256  # names in one message: far below the 200 kB a unix socket takes


class Status(NamedTuple):
    """What a running responder says of itself; `failed` maps a sandbox id to why it is not served."""

    pid: int
    views: int
    zones: int
    queries: int
    failed: dict[str, str]


def nudge(directory: str, names: Iterable[str], timeout: float = 2.0) -> bool:
    """Tell the responder that these files (`zones/<id>.json`, `views/<id>.json`) are new, changed or gone.

    True once all of them are in force: a view's sockets are open, a removed view's sockets are closed.
    False when nobody answers within `timeout` seconds or a file could not be put in force (`ping` tells
    why). A responder that starts later reads all files anyway.
    """
    pending = sorted(set(names))
    for start in range(0, len(pending), _BATCH):
        message = "\n".join(pending[start : start + _BATCH]).encode()
        if _ask(f"{directory}/{NUDGE_SOCKET}", message, timeout) != b"ok":
            return False
    return True


def ping(directory: str, timeout: float = 2.0) -> Status | None:
    """The responder's status, or None when none answers within `timeout` seconds."""
    reply = _ask(f"{directory}/{CONTROL_SOCKET}", b"ping", timeout)
    if reply is None:
        return None
    try:
        return Status(**json.loads(reply))
    except (ValueError, TypeError):
        return None


def revision(directory: str, timeout: float = 2.0) -> int:
    """What the running responder can read (zone.REVISION); 1 for one from before there was this question."""
    reply = _ask(f"{directory}/{CONTROL_SOCKET}", b"revision", timeout)
    found = json.loads(reply).get("revision") if reply else None
    return found if isinstance(found, int) else 1


def stats(directory: str, timeout: float = 2.0) -> dict[str, Any] | None:
    """The responder's counters; None where none answers within `timeout` seconds, or it is too old to count."""
    reply = _ask(f"{directory}/{CONTROL_SOCKET}", b"stats", timeout)
    found = json.loads(reply) if reply else {}
    return found if "queries" in found else None


def open_log(directory: str, sandbox_id: str = "", timeout: float = 2.0) -> socket.socket | None:
    """A socket on which each message is a line of the log in JSON, of one sandbox or of all; None where none answers.
    An empty message is the responder's end."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(timeout)
    try:
        sock.connect(f"{directory}/{CONTROL_SOCKET}")
        sock.send(f"log {sandbox_id}".encode())
        if b"error" not in sock.recv(1 << 16):
            return sock
    except OSError:
        sock.close()
        return None
    sock.close()
    return None


def _ask(path: str, message: bytes, timeout: float) -> bytes | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(path)
            sock.send(message)
            return sock.recv(1 << 18)
        except OSError:
            return None
