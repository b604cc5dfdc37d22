"""Many datagrams with one system call: recvmmsg(2) and sendmmsg(2), which Python's sockets do not have.

One set of buffers serves all sockets, since everything happens in one thread. Must not know DNS.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from itertools import cycle
from socket import AF_INET, inet_ntop

COUNT = 64
SIZE = 4096
_DONTWAIT = 0x40
_NAME_SIZE = 16  # struct sockaddr_in
_HEADER_SIZE = 64  # struct mmsghdr of 64-bit systems; its last eight bytes begin with the length

Peer = tuple[str, int]
Ready = dict[bytes, "bytes | cycle[bytes]"]


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("iov", ctypes.c_void_p),
        ("iov_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("padding", ctypes.c_int),
        ("length", ctypes.c_uint),
    )


_libc = ctypes.CDLL(None, use_errno=True)
IS_POSSIBLE = ctypes.sizeof(_Message) == _HEADER_SIZE and hasattr(_libc, "recvmmsg")
"""Whether structures here are what the code counts on; else datagrams go one at a time."""


class Batch:
    """Buffers for `COUNT` questions and their answers."""

    def __init__(self) -> None:
        self._in, self._out = (
            ctypes.create_string_buffer(COUNT * SIZE),
            ctypes.create_string_buffer(COUNT * SIZE),
        )
        self._names = ctypes.create_string_buffer(COUNT * _NAME_SIZE)
        self._in_iov, self._out_iov = (_Iovec * COUNT)(), (_Iovec * COUNT)()
        self._received, self._sent = (_Message * COUNT)(), (_Message * COUNT)()
        for number in range(COUNT):
            name = ctypes.addressof(self._names) + number * _NAME_SIZE
            for buffer, iov, messages in (
                (self._in, self._in_iov, self._received),
                (self._out, self._out_iov, self._sent),
            ):
                iov[number].base, iov[number].length = ctypes.addressof(buffer) + number * SIZE, SIZE
                message = messages[number]
                message.name, message.name_length = name, _NAME_SIZE
                message.iov, message.iov_count = ctypes.addressof(iov) + number * ctypes.sizeof(_Iovec), 1
        self._questions = memoryview(self._in).cast("B")
        self._answers = memoryview(self._out).cast("B")
        self._peers = memoryview(self._names).cast("B")
        # The lengths, as words: in a struct mmsghdr the 15th of four bytes, in a struct iovec the second of eight.
        self._in_lengths = memoryview(self._received).cast("B").cast("I")
        self._out_lengths = memoryview(self._out_iov).cast("B").cast("Q")
        self._receive, self._send = _libc.recvmmsg, _libc.sendmmsg
        self._first_received, self._first_sent = (
            ctypes.c_void_p(ctypes.addressof(each)) for each in (self._received, self._sent)
        )

    def answer(self, descriptor: int, ready: Ready, other: Callable[[bytes, Peer], None]) -> int:
        """Read what has come and answer what `ready` has (all but the id); `other` is called for the rest. How many
        came; a reply that cannot be delivered is its asker's loss alone."""
        count: int = self._receive(descriptor, self._first_received, COUNT, _DONTWAIT, None)
        if count <= 0:
            return 0
        questions, answers, out_lengths = self._questions, self._answers, self._out_lengths
        first = 0
        for number, length in enumerate(self._in_lengths[14 : 16 * count : 16].tolist()):
            at = number * SIZE
            hit = ready.get(questions[at + 2 : at + length].tobytes())
            if hit is not None:
                text = hit if isinstance(hit, bytes) else next(hit)
                size = len(text) + 2
                if size <= SIZE:
                    answers[at : at + 2] = questions[at : at + 2]
                    answers[at + 2 : at + size] = text
                    out_lengths[2 * number + 1] = size
                    continue
            self._flush(descriptor, first, number)
            first = number + 1
            other(questions[at : at + length].tobytes(), self._peer(number))
        self._flush(descriptor, first, count)
        return count

    def _flush(self, descriptor: int, first: int, end: int) -> None:
        while first < end:
            start = (
                ctypes.c_void_p(ctypes.addressof(self._sent) + first * _HEADER_SIZE)
                if first
                else self._first_sent
            )
            done = self._send(descriptor, start, end - first, _DONTWAIT)
            # The one that cannot be delivered is left out, the others go.
            first += done if done > 0 else 1

    def _peer(self, number: int) -> Peer:
        name = self._peers[number * _NAME_SIZE : (number + 1) * _NAME_SIZE].tobytes()
        return inet_ntop(AF_INET, name[4:8]), int.from_bytes(name[2:4], "big")
