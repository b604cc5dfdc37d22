"""Netlink transport: requests in one send, answers, errors with the kernel's extended text.

A batch asks for one acknowledgement, on its last request: the kernel works through a send in order, and errors are
answered unasked. Formats: linux/netlink.h (RFC 3549). Must not know: links, routes, rules (rtnetlink.py,
nfnetlink.py do).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dari.kernel.errors import NetlinkError

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
NETLINK_GENERIC = 16

NLM_F_REQUEST = 0x01
NLM_F_MULTI = 0x02
NLM_F_ACK = 0x04
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_DUMP = 0x300
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_NLM_F_DUMP_INTR = 0x10

NLMSG_ERROR = 2
NLMSG_DONE = 3

NLA_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_NLMSGERR_ATTR_MSG = 1
# Answers of a whole batch wait in the receive buffer; socket(7), no name in Python.
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_INT = struct.Struct("=i")

# A send must fit the socket's send buffer (212,992 bytes by default), and its answers the receive buffer.
_BATCH_BYTES = 32_000
_RECEIVE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """One request or answer: type, flags and everything behind the 16-byte header."""

    type: int
    flags: int
    body: bytes

    def encode(self, sequence: int, more_flags: int = 0) -> bytes:
        flags = self.flags | NLM_F_REQUEST | more_flags
        padding = b"\0" * (-len(self.body) % 4)
        return _HEADER.pack(16 + len(self.body), self.type, flags, sequence, 0) + self.body + padding


def attr(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attr(kind | NLA_NESTED, b"".join(attributes))


def attr_text(kind: int, text: str) -> bytes:
    return attr(kind, text.encode() + b"\0")


def attr_u32(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack("=I", value))


def attr_u8(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack("=B", value))


def attr_be32(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack("!I", value))


def iter_attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """(type without flags, payload) of each attribute from `offset` on."""
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & _NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Attributes by type; of one that repeats, the last."""
    return dict(iter_attributes(data, offset))


def text_of(payload: bytes) -> str:
    return payload.rstrip(b"\0").decode("utf-8", "replace")


def u32_of(payload: bytes) -> int:
    return int.from_bytes(payload[:4], "little" if _IS_LITTLE else "big")


_IS_LITTLE = struct.pack("=H", 1) == b"\1\0"


class Netlink:
    """A netlink socket of the namespace the calling thread is in when it is made. Not thread-safe."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 * 1024 * 1024)
            self._socket.bind((0, 0))
        except OSError:
            self._socket.close()
            raise
        self._sequence = 0
        self._buffer = bytearray(_RECEIVE_BYTES)

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """For a selector: readable when something a group tells has arrived."""
        return self._socket.fileno()

    def join(self, group: int) -> None:
        """Hear what the kernel tells this multicast group; a socket that listens asks nothing any more."""
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def heard(self) -> list[Message]:
        """What has arrived so far, without waiting. Raises OSError (ENOBUFS: some of it was lost)."""
        found: list[Message] = []
        self._socket.setblocking(False)
        try:
            while True:
                found.extend(message for _, message in self._receive())
        except BlockingIOError:
            return found
        finally:
            self._socket.setblocking(True)

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, messages: Sequence[Message]) -> tuple[list[list[Message]], list[NetlinkError]]:
        """Send all; the answers of each request and the errors, in order, each with its request's index.

        Work of a later request is done even if an earlier one failed (the kernel's own rule).
        """
        answers: list[list[Message]] = [[] for _ in messages]
        errors: list[NetlinkError] = []
        start = 0
        while start < len(messages):
            size, end = 0, start
            while end < len(messages) and (size == 0 or size + len(messages[end].body) + 20 < _BATCH_BYTES):
                size += len(messages[end].body) + 20
                end += 1
            self._exchange(messages[start:end], start, answers, errors)
            start = end
        return answers, errors

    def call(self, *messages: Message) -> list[list[Message]]:
        """`request`, raising the first error."""
        answers, errors = self.request(messages)
        if errors:
            raise errors[0]
        return answers

    def _exchange(
        self,
        messages: Sequence[Message],
        offset: int,
        answers: list[list[Message]],
        errors: list[NetlinkError],
    ) -> None:
        first = self._sequence + 1
        self._sequence += len(messages)
        last = len(messages) - 1
        self._socket.send(
            b"".join(
                each.encode(first + index, NLM_F_ACK if index == last else 0)
                for index, each in enumerate(messages)
            )
        )
        while True:
            for sequence, answer in self._receive():
                index = sequence - first
                if not 0 <= index <= last:
                    continue
                if answer.type == NLMSG_ERROR:
                    error = _error(answer, offset + index)
                    if error is not None:
                        errors.append(error)
                    if index == last:
                        return
                else:
                    answers[offset + index].append(answer)

    def dump(self, message: Message) -> list[Message]:
        """All answers of a dump request. Raises NetlinkError; a dump the kernel interrupted is asked again."""
        for _ in range(10):
            answers, is_interrupted = self._dump_once(message)
            if not is_interrupted:
                return answers
        return answers

    def _dump_once(self, message: Message) -> tuple[list[Message], bool]:
        self._sequence += 1
        expected = self._sequence
        self._socket.send(message.encode(expected, NLM_F_DUMP))
        answers: list[Message] = []
        is_interrupted = False
        while True:
            for sequence, answer in self._receive():
                if sequence != expected:
                    continue
                is_interrupted = is_interrupted or bool(answer.flags & _NLM_F_DUMP_INTR)
                if answer.type == NLMSG_ERROR or answer.type == NLMSG_DONE:
                    error = _error(answer, 0)
                    if error is not None:
                        raise error
                    return answers, is_interrupted
                answers.append(answer)

    def transact(self, messages: Sequence[Message]) -> list[NetlinkError]:
        """Send all in one go, as one transaction of a protocol that has such; its errors, in order.

        The kernel answers before the send returns, so what is there then is everything.
        """
        first = self._sequence + 1
        self._sequence += len(messages)
        data = b"".join(each.encode(first + index) for index, each in enumerate(messages))
        if len(data) > _BATCH_BYTES:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * len(data) + _BATCH_BYTES)
        self._socket.send(data)
        errors: list[NetlinkError] = []
        self._socket.setblocking(False)
        try:
            while True:
                for sequence, answer in self._receive():
                    if answer.type == NLMSG_ERROR and first <= sequence < first + len(messages):
                        error = _error(answer, sequence - first)
                        if error is not None:
                            errors.append(error)
        except BlockingIOError:
            return errors
        finally:
            self._socket.setblocking(True)

    def _receive(self) -> Iterator[tuple[int, Message]]:
        size = self._socket.recv_into(self._buffer)
        data = bytes(memoryview(self._buffer)[:size])
        offset = 0
        while offset + 16 <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            if length < 16:
                return
            yield sequence, Message(kind, flags, data[offset + 16 : offset + length])
            offset += (length + 3) & ~3


def _error(answer: Message, index: int) -> NetlinkError | None:
    number = -_INT.unpack_from(answer.body)[0] if len(answer.body) >= 4 else 0
    if number == 0:
        return None
    return NetlinkError(number, extended_text(answer) or os.strerror(number), index)


def extended_text(answer: Message) -> str:
    """The kernel's own words in an error answer, where it sent any."""
    if not answer.flags & _NLM_F_ACK_TLVS:
        return ""
    # errno, then the header of the request (the rest of it is left out: NETLINK_CAP_ACK), then attributes. A
    # dump's end carries the attributes right behind the errno.
    offset = 4 if answer.type == NLMSG_DONE else 20
    if answer.type == NLMSG_ERROR and not answer.flags & _NLM_F_CAPPED and len(answer.body) >= 20:
        offset = 4 + ((_HEADER.unpack_from(answer.body, 4)[0] + 3) & ~3)
    for kind, payload in iter_attributes(answer.body, offset):
        if kind == _NLMSGERR_ATTR_MSG:
            return text_of(payload)
    return ""
