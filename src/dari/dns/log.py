"""The live log of questions: who asked what, what was answered, by whom and how fast.

Nothing is kept and nothing is made while nobody listens. Who reads too slowly misses lines and is told how many. Must
not know: sockets of sandboxes, files.
"""

from __future__ import annotations

import json
import time
from socket import socket as Socket

from dari.dns import ask, wire

_TYPES = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 64: "SVCB",
    65: "HTTPS", 255: "ANY",
}  # fmt: skip
_RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


class Reader:
    """Somebody who reads the log; `sandbox_id` "" reads all."""

    def __init__(self, sock: Socket, sandbox_id: str) -> None:
        self.sandbox_id = sandbox_id
        self._sock = sock
        self._missed = 0

    def tell(self, sandbox_id: str, line: dict[str, object]) -> None:
        if self.sandbox_id not in ("", sandbox_id):
            return
        told = line | {"missed": self._missed} if self._missed else line
        try:
            self._sock.send(json.dumps(told, separators=(",", ":")).encode())
            self._missed = 0
        except OSError:  # full, or gone: the door finds out which
            self._missed += 1


def line(
    sandbox_id: str, query: bytes, reply: bytes | None, by: str, over_tcp: bool, began: float
) -> dict[str, object]:
    """What is told of a question; `reply` None: it deserved silence. `began` by time.monotonic()."""
    question = wire.read_question(query) if query[4:6] == b"\0\1" else None
    told = ask.read(reply) if reply is not None else None
    return {
        "time": time.time_ns(),
        "sandbox": sandbox_id,
        "name": name_text(question.name) if question is not None else "",
        "type": _TYPES.get(question.qtype, str(question.qtype)) if question is not None else "",
        "transport": "tcp" if over_tcp else "udp",
        "rcode": _RCODES.get(reply[3] & 15, str(reply[3] & 15)) if reply is not None else "",
        "addresses": [str(each) for each in told.addresses] if told is not None else [],
        "by": by,
        "microseconds": round((time.monotonic() - began) * 1e6),
    }


def name_text(name: bytes) -> str:
    """A wire name for people; bytes that are no letters as `\\ddd` (RFC 1035, 5.1)."""
    labels, at = [], 0
    while name[at]:
        label = name[at + 1 : at + 1 + name[at]]
        labels.append("".join(chr(byte) if 32 < byte < 127 else f"\\{byte:03d}" for byte in label))
        at += name[at] + 1
    return ".".join(labels) or "."
