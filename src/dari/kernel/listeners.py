"""Who listens: the sockets of a namespace that wait for somebody, asked of the kernel by sock_diag(7).

Must not know: which process, which container.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from dari.kernel.netlink import Message, Netlink, attributes
from dari.net.state import Address

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_SKV6ONLY = 11  # INET_DIAG_SKV6ONLY
# TCP_LISTEN; a UDP socket that is connected to nobody is in TCP_CLOSE.
_WAITING = {"tcp": (socket.IPPROTO_TCP, 10), "udp": (socket.IPPROTO_UDP, 7)}
_ANSWER_BYTES = 72


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that waits at an address (0.0.0.0 and :: are any) and port. One that takes both families is two."""

    protocol: str
    address: Address
    port: int


def listeners() -> tuple[Listener, ...]:
    """Of the namespace the calling thread is in. Raises OSError where the kernel cannot tell."""
    found: dict[Listener, None] = {}
    with Netlink(_NETLINK_SOCK_DIAG) as sock:
        for protocol, (number, state) in _WAITING.items():
            for family in (socket.AF_INET, socket.AF_INET6):
                # struct inet_diag_req_v2; an empty socket id asks for all.
                body = struct.pack("=BBBBI", family, number, 0, 0, 1 << state) + bytes(48)
                for answer in sock.dump(Message(_SOCK_DIAG_BY_FAMILY, 0, body)):
                    found.update(dict.fromkeys(_read(answer.body, protocol)))
    return tuple(found)


def _read(body: bytes, protocol: str) -> Iterator[Listener]:
    """From a struct inet_diag_msg."""
    if len(body) < _ANSWER_BYTES:
        return
    family = body[0]
    (port,) = struct.unpack_from("!H", body, 4)
    if family == socket.AF_INET:
        yield Listener(protocol, IPv4Address(body[8:12]), port)
        return
    address = IPv6Address(body[8:24])
    yield Listener(protocol, address, port)
    is_six_only = attributes(body, _ANSWER_BYTES).get(_SKV6ONLY, b"\0")[0] != 0
    if is_six_only:
        return
    if address.is_unspecified:
        yield Listener(protocol, IPv4Address(0), port)
    elif address.ipv4_mapped is not None:
        yield Listener(protocol, address.ipv4_mapped, port)
