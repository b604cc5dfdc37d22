"""One probe's socket: it asks, and tells what became of it, by protocol.

Non-blocking; made in the source's namespace, it works from anywhere. Errors that came by ICMP are told apart from
those of the own host by the socket's error queue (IP_RECVERR, ip(7)). Must not know: namespaces, traces.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal, TypeAlias

from dari.net.state import Address

Outcome: TypeAlias = Literal["open", "answered", "refused", "rejected", "unreachable", "silent", "failed"]
"""`open`: a TCP connection came about; `answered`: UDP or an echo came back; `refused`: RST, or ICMP port
unreachable; `rejected`: another ICMP answer, or a firewall's refusal; `unreachable`: no way there; `silent`:
nothing in time; `failed`: could not be sent."""

ECHO_TEXT = b"dari probe"

_IP_RECVERR, _IPV6_RECVERR = 11, 25
# ip(7), ipv6(7): never cut, whatever is known of the way (IP_MTU_DISCOVER and IPV6_MTU_DISCOVER at PROBE).
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 23, 3
_MSG_ERRQUEUE = 0x2000
_EXTENDED = struct.Struct("=IBBBBII")
_FROM_ICMP = (2, 3)
_UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
_TYPES4 = {
    (3, 0): "network unreachable", (3, 1): "host unreachable", (3, 2): "protocol unreachable",
    (3, 3): "port unreachable", (3, 4): "fragmentation needed", (3, 9): "network prohibited",
    (3, 10): "host prohibited", (3, 13): "administratively prohibited", (11, 0): "time to live exceeded",
}  # fmt: skip
_TYPES6 = {
    (1, 0): "no route", (1, 1): "administratively prohibited", (1, 3): "address unreachable",
    (1, 4): "port unreachable", (1, 5): "source address refused", (1, 6): "route rejected",
    (3, 0): "hop limit exceeded",
}  # fmt: skip
_PORT_UNREACHABLE = ((3, 3), (1, 4))
_NO_WAY = {4: ((3, 0), (3, 1)), 6: ((1, 0), (1, 3))}


@dataclass(frozen=True, slots=True)
class Told:
    """How it ended. `icmp` says which ICMP answer came and `icmp_from` whose it was."""

    outcome: Outcome
    text: str
    icmp: str = ""
    icmp_from: Address | None = None
    answer: bytes = b""


class ShotSocket:
    """Make it in the namespace to ask from; `own_port` is the one to ask from (the id of an echo).

    Raises OSError: EADDRINUSE where somebody has that port.
    """

    def __init__(self, protocol: str, destination: Address, port: int, payload: bytes, own_port: int) -> None:
        self._protocol = protocol
        self._destination = destination
        self._version = destination.version
        self._port = port
        self._payload = payload
        family = socket.AF_INET if self._version == 4 else socket.AF_INET6
        flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self.port = own_port
        if protocol == "icmp":
            number = socket.IPPROTO_ICMP if self._version == 4 else socket.IPPROTO_ICMPV6
            self.socket = socket.socket(family, socket.SOCK_RAW | flags, number)
            if payload:
                # It is there to be of a size.
                level = socket.IPPROTO_IP if self._version == 4 else socket.IPPROTO_IPV6
                option = _IP_MTU_DISCOVER if self._version == 4 else _IPV6_MTU_DISCOVER
                self.socket.setsockopt(level, option, _PMTUDISC_PROBE)
        else:
            kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
            self.socket = socket.socket(family, kind | flags)
            try:
                if protocol == "tcp":
                    # Over what an earlier probe left in TIME_WAIT.
                    self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self.socket.bind(("", own_port) if self._version == 4 else ("::", own_port))
            except OSError:
                self.socket.close()
                raise
        if self._version == 4:
            self.socket.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        else:
            self.socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)

    @property
    def is_writing(self) -> bool:
        """Whether the end shows by the socket's becoming writable (a connection), else readable."""
        return self._protocol == "tcp"

    @property
    def source(self) -> Address | None:
        """The own address the kernel chose; None where it found no way."""
        text = str(self.socket.getsockname()[0]).partition("%")[0]
        address = ip_address(text) if text else None
        return None if address is None or address.is_unspecified else address

    def fire(self) -> Told | None:
        """Send; what can be told at once."""
        target = (str(self._destination), self._port if self._protocol != "icmp" else 0)
        number = self.socket.connect_ex(target)
        if self._protocol == "tcp":
            if number == errno.EINPROGRESS:
                return None
            return self._judge(number)
        if number:
            return self._judge(number)
        try:
            self.socket.send(self._echo() if self._protocol == "icmp" else self._payload)
        except BlockingIOError:
            return None
        except OSError as error:
            return self._judge(error.errno or 0)
        return None

    def look(self) -> Told | None:
        """What can be told now that the socket is ready; None = still nothing."""
        if self._protocol == "tcp":
            return self._judge(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        try:
            while True:
                data = self.socket.recv(65536)
                if self._protocol == "udp":
                    return Told("answered", f"{len(data)} bytes came back", answer=data)
                if self._is_own_echo(data):
                    return Told("answered", "the echo came back")
        except BlockingIOError:
            # An error may wait in the queue although nothing is to be read.
            return self._from_queue()
        except OSError as error:
            return self._judge(error.errno or 0)

    def close(self) -> None:
        self.socket.close()

    def _judge(self, number: int) -> Told:
        if number == 0:
            return Told("open", "the connection was accepted")
        told = self._from_queue()
        if told is not None:
            return told
        if number == errno.ECONNREFUSED:
            return Told("refused", "the connection was refused (RST): nothing listens on that port")
        if number in _UNREACHABLE:
            return Told("unreachable", _words(number))
        if number == errno.EINVAL:
            # What a route of kind blackhole answers to the own host.
            return Told("unreachable", "the route there is a black hole")
        if number == errno.ETIMEDOUT:
            return Told("silent", "no answer")
        if number in (errno.EPERM, errno.EACCES):
            return Told("rejected", f"not allowed to send: {_words(number)}")
        return Told("failed", _words(number))

    def _from_queue(self) -> Told | None:
        try:
            _, ancillary, _, _ = self.socket.recvmsg(512, 512, _MSG_ERRQUEUE)
        except OSError:
            # Nothing in the queue: the error is the host's own.
            return None
        for level, kind, data in ancillary:
            if (level, kind) not in (
                (socket.IPPROTO_IP, _IP_RECVERR),
                (socket.IPPROTO_IPV6, _IPV6_RECVERR),
            ):
                continue
            number, origin, icmp_type, icmp_code, _, _, _ = _EXTENDED.unpack_from(data)
            if origin not in _FROM_ICMP:
                if number in _UNREACHABLE:
                    return Told("unreachable", f"{_words(number)}: no neighbour answers")
                continue
            return self._from_icmp(icmp_type, icmp_code, _offender(data[_EXTENDED.size :]))
        return None

    def _from_icmp(self, kind: int, code: int, sender: Address | None) -> Told:
        names = _TYPES4 if self._version == 4 else _TYPES6
        name = names.get((kind, code), f"type {kind} code {code}")
        text = f"ICMP {name} from {sender}" if sender is not None else f"ICMP {name}"
        outcome: Outcome = "rejected"
        if (kind, code) in _PORT_UNREACHABLE:
            # From the asked one himself over UDP: that nobody listens. TCP would be refused by RST.
            outcome = "refused" if self._protocol == "udp" else "rejected"
        elif (kind, code) in _NO_WAY[self._version]:
            outcome = "unreachable"
        return Told(outcome, text, icmp=name, icmp_from=sender)

    def _echo(self) -> bytes:
        kind = 8 if self._version == 4 else 128
        data = struct.pack("!BBHHH", kind, 0, 0, self.port, 1) + ECHO_TEXT + self._payload
        if self._version == 6:
            return data  # the kernel sums it
        return data[:2] + struct.pack("!H", _checksum(data)) + data[4:]

    def _is_own_echo(self, data: bytes) -> bool:
        if self._version == 4:
            data = data[(data[0] & 0x0F) * 4 :] if data else b""
        if len(data) < 8:
            return False
        kind, _, _, number, _ = struct.unpack_from("!BBHHH", data)
        return bool(kind == (0 if self._version == 4 else 129) and number == self.port)


def echo_padding(size: int, version: int) -> bytes:
    """The payload that makes an echo request an IP packet of `size` bytes."""
    return bytes(max(0, size - (20 if version == 4 else 40) - 8 - len(ECHO_TEXT)))


def _offender(data: bytes) -> Address | None:
    """The struct sockaddr behind an extended error."""
    if len(data) < 8:
        return None
    (family,) = struct.unpack_from("=H", data)
    if family == socket.AF_INET:
        return ip_address(data[4:8])
    if family == socket.AF_INET6 and len(data) >= 24:
        return ip_address(data[8:24])
    return None


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _words(number: int) -> str:
    return os.strerror(number).lower()
