"""Asking the upstreams: at most three in turn, by the transport the asker used.

Each question goes out from a connected socket of its own, so the kernel drops answers from anybody else,
the source port is unpredictable, and a refused port is known at once. Must not know zones or views.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from socket import (
    AF_INET,
    AF_INET6,
    SO_ERROR,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
)
from socket import socket as Socket
from typing import NamedTuple

from dari.dns import wire
from dari.dns.answer import Forward, failure, is_address
from dari.dns.loop import EPOLLIN, EPOLLOUT, Loop

UPSTREAMS_ASKED = 3
ATTEMPT_SECONDS = 4.0
SHORT_ATTEMPT_SECONDS = 1.0  # for names that most likely were ours: nobody should wait long for "no"
SILENT_SECONDS = 10.0
MAX_PENDING = 2048


class Upstream(NamedTuple):
    """A resolver's address and port."""

    address: str
    port: int


Opener = Callable[[Callable[[], Socket]], Socket]


def parse_upstream(text: str) -> Upstream | None:
    """An upstream from `ip`, `ip:port` or `[ip6]:port`, or None when it is none of them."""
    address, port = text, "53"
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or "53"
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    plain, _, zone = address.partition("%")  # fe80::1%eth0
    if not is_address(plain) or (zone and ":" not in plain):
        return None
    if not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        return None
    return Upstream(address, int(port))


def _behind(reply: Callable[[bytes], None], query: bytes, forward: Forward) -> Callable[[bytes], None]:
    """Replies to `query` with what upstreams say of the name its CNAMEs lead to."""
    return lambda answer: reply(wire.spliced(answer, query, forward.question_end, list(forward.chain)))


class Tally:
    """How an upstream fared: questions sent, answers, and those it kept silent at or could not be asked."""

    __slots__ = ("answered", "asked", "failed", "seconds")

    def __init__(self) -> None:
        self.asked = self.answered = self.failed = 0
        self.seconds = 0.0


class _Exchange:
    """One question on its way, through one upstream after the other."""

    __slots__ = (
        "began", "deadline", "forward", "incoming", "number", "opener", "outgoing", "over_tcp", "query", "reply",
        "rest", "sock", "upstream",
    )  # fmt: skip

    def __init__(
        self,
        query: bytes,
        forward: Forward,
        upstreams: list[Upstream],
        over_tcp: bool,
        opener: Opener,
        reply: Callable[[bytes], None],
    ) -> None:
        self.query = query
        self.forward = forward
        self.rest = upstreams
        self.over_tcp = over_tcp
        self.opener = opener
        self.reply = reply
        self.sock: Socket | None = None
        self.upstream: Upstream | None = None
        self.number = b""
        self.began = self.deadline = 0.0
        self.outgoing = b""
        self.incoming = b""


class Forwarder:
    """The questions under way. `opener` given with each makes its sockets in the right namespace."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._pending: dict[int, _Exchange] = {}
        self._silent_until: dict[Upstream, float] = {}
        self.tallies: dict[Upstream, Tally] = {}
        loop.every_tick(self._look)

    def ask(
        self,
        query: bytes,
        forward: Forward,
        upstreams: tuple[Upstream, ...],
        opener: Opener,
        reply: Callable[[bytes], None],
        *,
        over_tcp: bool = False,
    ) -> None:
        """Call `reply` once with an upstream's answer, or with a failure (the forward's fallback rcode).

        SERVFAIL and REFUSED of an upstream count as no answer while another one is left.
        """
        if forward.target:
            reply = _behind(reply, query, forward)
            question = forward.target + query[forward.question_end - 4 : forward.question_end]
            query = query[:4] + b"\0\1" + bytes(6) + question
            forward = forward._replace(question_end=len(query), target=b"", chain=())
        now = time.monotonic()
        # Resolvers that kept silent a moment ago are asked last, so that one dead entry costs nothing.
        awake = [u for u in upstreams if self._silent_until.get(u, 0.0) <= now]
        silent = [u for u in upstreams if self._silent_until.get(u, 0.0) > now]
        is_ours = forward.fallback == wire.NXDOMAIN
        if len(self._pending) >= MAX_PENDING or (is_ours and not awake):
            reply(failure(query, forward.fallback))
            return
        rest = awake if is_ours else awake + silent
        exchange = _Exchange(query, forward, rest[:UPSTREAMS_ASKED], over_tcp, opener, reply)
        self._next(exchange)

    def _next(self, exchange: _Exchange, last: bytes | None = None) -> None:
        self._close(exchange)
        while exchange.rest:
            exchange.upstream = exchange.rest.pop(0)
            exchange.began = time.monotonic()
            tally = self._tally(exchange.upstream)
            tally.asked += 1
            try:
                self._send(exchange, exchange.upstream)
                return
            except OSError:
                tally.failed += 1
                self._close(exchange)
        if last is not None and exchange.forward.fallback != wire.NXDOMAIN:
            exchange.reply(last)
        else:
            exchange.reply(failure(exchange.query, exchange.forward.fallback))

    def _send(self, exchange: _Exchange, upstream: Upstream) -> None:
        family = AF_INET6 if ":" in upstream.address else AF_INET
        kind = (SOCK_STREAM if exchange.over_tcp else SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC
        exchange.sock = sock = exchange.opener(lambda: Socket(family, kind))
        exchange.number = os.urandom(2)
        message = exchange.number + exchange.query[2:]
        is_short = exchange.forward.fallback == wire.NXDOMAIN
        exchange.deadline = time.monotonic() + (SHORT_ATTEMPT_SECONDS if is_short else ATTEMPT_SECONDS)
        exchange.incoming = b""
        if exchange.over_tcp:
            exchange.outgoing = len(message).to_bytes(2, "big") + message
            try:
                sock.connect(upstream)
            except BlockingIOError:
                pass  # under way: EPOLLOUT tells
            self._loop.add(sock.fileno(), lambda events: self._stream_ready(exchange, events), EPOLLOUT)
        else:
            sock.connect(upstream)
            sock.send(message)
            self._loop.add(sock.fileno(), lambda _: self._datagram_ready(exchange))
        self._pending[sock.fileno()] = exchange

    def _datagram_ready(self, exchange: _Exchange) -> None:
        assert exchange.sock is not None
        try:
            answer = exchange.sock.recv(65535)
        except BlockingIOError:
            return
        except OSError:  # the port is closed, or there is no way to it
            self._failed(exchange)
            return
        if self._belongs(exchange, answer):
            self._finish(exchange, answer)

    def _stream_ready(self, exchange: _Exchange, events: int) -> None:
        sock = exchange.sock
        assert sock is not None
        try:
            if exchange.outgoing:
                error = sock.getsockopt(SOL_SOCKET, SO_ERROR)
                if error:
                    raise OSError(error, os.strerror(error))
                exchange.outgoing = exchange.outgoing[sock.send(exchange.outgoing) :]
                if not exchange.outgoing:
                    self._loop.change(sock.fileno(), EPOLLIN)
                return
            data = sock.recv(65535)
            if not data:
                raise OSError("closed before an answer")
        except BlockingIOError:
            return
        except OSError:
            self._failed(exchange)
            return
        exchange.incoming += data
        size = int.from_bytes(exchange.incoming[:2], "big")
        if len(exchange.incoming) >= 2 + size and len(exchange.incoming) > 2:
            answer = exchange.incoming[2 : 2 + size]
            if self._belongs(exchange, answer):
                self._finish(exchange, answer)
            else:
                self._failed(exchange)

    def _tally(self, upstream: Upstream) -> Tally:
        return self.tallies.setdefault(upstream, Tally())

    def _failed(self, exchange: _Exchange) -> None:
        if exchange.upstream is not None:
            self._tally(exchange.upstream).failed += 1
        self._next(exchange)

    def _belongs(self, exchange: _Exchange, answer: bytes) -> bool:
        if len(answer) < wire.HEADER_SIZE or answer[:2] != exchange.number or not answer[2] & 0x80:
            return False
        if answer[4:6] == b"\0\0":  # some leave the question out of an error
            return answer[3] & 15 != wire.NOERROR
        start, end = wire.HEADER_SIZE, exchange.forward.question_end
        return answer[start:end].lower() == exchange.query[start:end].lower()

    def _finish(self, exchange: _Exchange, answer: bytes) -> None:
        if exchange.upstream is not None:
            self._silent_until.pop(exchange.upstream, None)
            tally = self._tally(exchange.upstream)
            tally.answered += 1
            tally.seconds += time.monotonic() - exchange.began
        answer = exchange.query[:2] + answer[2:]
        if answer[3] & 15 in (wire.SERVFAIL, wire.REFUSED):
            self._next(exchange, answer)
            return
        self._close(exchange)
        exchange.reply(answer)

    def _close(self, exchange: _Exchange) -> None:
        if exchange.sock is not None:
            self._pending.pop(exchange.sock.fileno(), None)
            self._loop.drop(exchange.sock.fileno())
            exchange.sock.close()
            exchange.sock = None

    def _look(self, now: float) -> bool:
        for exchange in [e for e in self._pending.values() if e.deadline <= now]:
            if exchange.upstream is not None:
                self._silent_until[exchange.upstream] = now + SILENT_SECONDS
            self._failed(exchange)
        for upstream in [u for u, until in self._silent_until.items() if until <= now]:
            del self._silent_until[upstream]
        return bool(self._pending)
