"""Who answers for an address on a bridge: ARP probes from the host's end, every answer collected.

A probe (RFC 5227, 1.1) names no sender's address, so nobody's table changes by it. Must not know: who should answer.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address

from dari.kernel import rtnetlink
from dari.kernel.visit import Visit
from dari.net.state import Address

_ETH_P_ARP = 0x0806
_HEADER = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ASK, _ANSWER = 1, 2
_PAUSE = 0.05
_ROUNDS = 2


def ask(
    host: Visit, wanted: Mapping[str, Mapping[IPv4Address, bool]], seconds: float = _PAUSE
) -> dict[tuple[str, Address], frozenset[str]]:
    """By (bridge, address) the hardware addresses that answered; empty where nobody did.

    `wanted`: by bridge the addresses, and whether somebody should answer: those are asked twice before they count as
    silent. Bridges that are missing or down are not asked. `seconds`: how long answers are waited for after each round.
    """
    found: dict[tuple[str, Address], set[str]] = {}
    with contextlib.ExitStack() as stack:
        sockets: dict[socket.socket, tuple[str, bytes]] = {}
        for bridge, addresses in wanted.items():
            opened = _open(host, bridge) if addresses else None
            if opened is not None:
                sock, mac = opened
                stack.callback(sock.close)
                sockets[sock] = (bridge, mac)
                found.update({(bridge, address): set() for address in addresses})
        for number in range(_ROUNDS):
            silent = [
                (bridge, address)
                for (bridge, address), macs in found.items()
                if not macs and (not number or wanted[bridge][IPv4Address(int(address))])
            ]
            if not silent:
                break
            for sock, (bridge, mac) in sockets.items():
                _send(sock, mac, [each for name, each in silent if name == bridge])
            _collect(sockets, found, seconds)
    return {key: frozenset(macs) for key, macs in found.items()}


def _open(host: Visit, bridge: str) -> tuple[socket.socket, bytes] | None:
    answers, _ = host.route.request([rtnetlink.get_link(bridge)])
    if not answers[0]:
        return None
    link = rtnetlink.read_link(answers[0][0])
    if not link.is_up or link.name != bridge:
        return None
    sock = socket.socket(
        socket.AF_PACKET,
        socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
        socket.htons(_ETH_P_ARP),
    )
    try:
        sock.bind((bridge, _ETH_P_ARP))
    except OSError:
        # It went away since.
        sock.close()
        return None
    return sock, bytes.fromhex(link.mac.replace(":", ""))


def _send(sock: socket.socket, mac: bytes, addresses: Collection[Address]) -> None:
    for address in addresses:
        frame = _HEADER.pack(b"\xff" * 6, mac, _ETH_P_ARP)
        frame += _ARP.pack(1, 0x0800, 6, 4, _ASK, mac, bytes(4), bytes(6), address.packed)
        # A full queue or an interface that went down: nobody answers, which is what is to be found out.
        with contextlib.suppress(OSError):
            sock.send(frame)


def _collect(
    sockets: Mapping[socket.socket, tuple[str, bytes]],
    found: Mapping[tuple[str, Address], set[str]],
    seconds: float,
) -> None:
    """Waits all of the time: a clash is known by its second answer."""
    by_descriptor = {each.fileno(): each for each in sockets}
    poll = select.poll()
    for each in by_descriptor:
        poll.register(each, select.POLLIN)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left * 1000):
            sock = by_descriptor[descriptor]
            try:
                frame = sock.recv(128)
            except OSError:
                continue
            if len(frame) < 42:
                continue
            _, _, _, _, operation, mac, sender, _, _ = _ARP.unpack_from(frame, 14)
            answering = found.get((sockets[sock][0], IPv4Address(sender)))
            if operation == _ANSWER and answering is not None:
                answering.add(mac.hex(":"))
