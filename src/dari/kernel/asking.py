"""Asks a sandbox's resolver for a name from inside the sandbox, for many sandboxes at once.

The question goes to the responder's own port on 127.0.0.11, so that the answer tells of the responder and not of the
rules that lead port 53 to it; where those are, it comes from port 53 (net/firewall.py). Must not know: what the answer
should be. Source: RFC 1035, 4.1.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Mapping
from ipaddress import IPv4Address

from dari.dns.wire import wire_name
from dari.kernel.visit import Visits
from dari.net.firewall import DNS_ADDRESS

_ID = b"\xda\x52"
_IP_RECVERR = 11
_A, _IN = b"\0\1", b"\0\1"


def ask(
    visits: Visits, questions: Mapping[str, tuple[str, int]], seconds: float
) -> dict[str, frozenset[IPv4Address] | None]:
    """By namespace: the addresses of a name (`questions`: name and port), None where nothing answers in `seconds`.

    Namespaces that do not exist are not in the result.
    """
    found: dict[str, frozenset[IPv4Address] | None] = {}
    with contextlib.ExitStack() as stack:
        waiting: dict[int, tuple[str, socket.socket]] = {}
        poll = select.poll()
        for netns, (name, port) in questions.items():
            visit = visits.get(netns)
            if visit is None:
                continue
            found[netns] = None
            with visit.entered():
                sock = socket.socket(
                    socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
                )
            stack.callback(sock.close)
            # Not connected, for the answer's port is another one; a port nobody listens on is an error at once all
            # the same.
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
                sock.sendto(_query(name), (DNS_ADDRESS, port))
                waiting[sock.fileno()] = (netns, sock)
                poll.register(sock, select.POLLIN)
        end = time.monotonic() + seconds
        while waiting and (left := end - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left * 1000):
                netns, sock = waiting.pop(descriptor)
                poll.unregister(descriptor)
                with contextlib.suppress(OSError):
                    found[netns] = _addresses(sock.recv(4096))
    return found


def _query(name: str) -> bytes:
    return _ID + b"\1\0\0\1\0\0\0\0\0\0" + (wire_name(name) or b"\0") + _A + _IN


def _addresses(answer: bytes) -> frozenset[IPv4Address] | None:
    """None for what is no answer to the question."""
    if len(answer) < 12 or answer[:2] != _ID:
        return None
    count, offset = int.from_bytes(answer[6:8], "big"), 12
    offset = _behind_name(answer, offset) + 4
    found = set()
    for _ in range(count):
        offset = _behind_name(answer, offset)
        kind, length = answer[offset : offset + 2], int.from_bytes(answer[offset + 8 : offset + 10], "big")
        if kind == _A and length == 4:
            found.add(IPv4Address(answer[offset + 10 : offset + 14]))
        offset += 10 + length
    return frozenset(found)


def _behind_name(answer: bytes, offset: int) -> int:
    while offset < len(answer) and (length := answer[offset]):
        if length >= 0xC0:
            return offset + 2
        offset += 1 + length
    return offset + 1
