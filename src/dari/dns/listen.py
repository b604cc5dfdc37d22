"""The sockets of one view: UDP and TCP, on 127.0.0.11 inside its sandbox or where it says, and the clients on them.

Must not know files or who tells the view to exist.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from socket import (
    AF_INET,
    SO_REUSEADDR,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_IP,
    SOL_SOCKET,
)
from socket import socket as Socket

from dari.dns import batch, wire
from dari.dns.answer import TCP_LIMIT, Forward, ViewTable, answer, udp_limit
from dari.dns.forward import Forwarder, parse_upstream
from dari.dns.loop import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, Loop
from dari.dns.netns import Namespaces

_BATCH = batch.Batch() if batch.IS_POSSIBLE else None
_IP_FREEBIND = 15  # bind before the sandbox's loopback is up
_BURST = 32
_CLIENT_SECONDS = 10.0
_CLIENTS_PER_VIEW = 64
_UNSENT_LIMIT = 1 << 18


class Counter:
    """Questions over all views: `value` received; of them `over_tcp`, `forwarded`, and `made`: not answered ready-made
    over UDP."""

    __slots__ = ("forwarded", "made", "over_tcp", "value")

    def __init__(self) -> None:
        self.value = self.over_tcp = self.made = self.forwarded = 0


Told = Callable[[bytes, bytes | None, str, bool, float], None]
"""What a log wants to hear: question, answer, by whom, over TCP?, when it came (time.monotonic())."""


class Listener:
    """Serves one view until closed; `table` may be replaced at any time."""

    def __init__(
        self,
        table: ViewTable,
        loop: Loop,
        namespaces: Namespaces,
        forwarder: Forwarder,
        counter: Counter,
    ) -> None:
        """Open the sockets. Raises OSError when the namespace is missing or the port is taken."""
        self._loop, self._namespaces, self._forwarder, self._counter = loop, namespaces, forwarder, counter
        self._clients: set[_Client] = set()
        self._told: Told | None = None
        self._batch = _BATCH
        self.asked = 0
        self.namespace = os.open(table.view.netns_path, os.O_RDONLY | os.O_CLOEXEC)
        self.identity = _identity(os.fstat(self.namespace))
        opened: list[Socket] = []
        try:
            with namespaces.inside(self.namespace):
                for kind in (SOCK_DGRAM, SOCK_STREAM):
                    sock = Socket(AF_INET, kind | SOCK_NONBLOCK | SOCK_CLOEXEC)
                    opened.append(sock)
                    sock.setsockopt(SOL_IP, _IP_FREEBIND, 1)
                    if kind == SOCK_STREAM:
                        sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
                    sock.bind((table.view.address, table.view.port))
            opened[1].listen(16)
        except OSError:
            for sock in opened:
                sock.close()
            os.close(self.namespace)
            raise
        self._udp, self._tcp = opened
        self.replace(table)
        loop.add(self._udp.fileno(), self._datagrams_ready, is_urgent=True)
        loop.add(self._tcp.fileno(), self._connection_ready)

    def replace(self, table: ViewTable) -> None:
        """Answer from another table of the same sandbox, namespace and port."""
        self.table = table
        self.upstreams = tuple(
            upstream for upstream in map(parse_upstream, table.view.upstreams) if upstream is not None
        )

    def tell(self, told: Told | None) -> None:
        """Have each question told from now on, or none any more; while none is, telling costs nothing."""
        self._told = told
        callback = self._datagrams_ready if told is None else self._datagrams_told
        self._loop.swap(self._udp.fileno(), callback)

    def is_of(self, netns_path: str) -> bool:
        """Whether the namespace now at this path is the one the sockets are in. Raises OSError."""
        return _identity(os.stat(netns_path)) == self.identity

    def close(self) -> None:
        """Close the sockets, and with them this process's hold on the namespace."""
        for client in list(self._clients):
            client.close()
        for sock in (self._udp, self._tcp):
            self._loop.drop(sock.fileno())
            sock.close()
        os.close(self.namespace)
        self.namespace = -1

    def ask(self, query: bytes, forward: Forward, reply: Callable[[bytes], None], over_tcp: bool) -> None:
        """Forward a question of this view's sandbox."""
        self._counter.forwarded += 1
        self._forwarder.ask(query, forward, self.upstreams, self._open, reply, over_tcp=over_tcp)

    def hear(self, query: bytes, reply: bytes | None, by: str, over_tcp: bool, began: float) -> None:
        """Tell the log, if there is one."""
        if self._told is not None:
            self._told(query, reply, by, over_tcp, began)

    def look(self, now: float) -> bool:
        """Close clients that have been quiet for too long; whether any are left."""
        for client in [c for c in self._clients if c.deadline <= now]:
            client.close()
        return bool(self._clients)

    def _open(self, make: Callable[[], Socket]) -> Socket:
        if self.table.view.upstream_scope == "host":
            return make()
        if self.namespace < 0:
            raise OSError("the sandbox is gone")
        with self._namespaces.inside(self.namespace):
            return make()

    def _datagrams_ready(self, _events: int) -> None:
        if self._batch is not None:
            count = self._batch.answer(self._udp.fileno(), self.table.ready, self._answer_datagram)
            self._counter.value += count
            self.asked += count
            return
        receive, send = self._udp.recvfrom, self._udp.sendto
        ready = self.table.ready
        count = 0
        try:
            while count < _BURST:
                query, peer = receive(4096)
                count += 1
                hit = ready.get(query[2:])
                if hit is None:
                    self._answer_datagram(query, peer)
                else:
                    send(query[:2] + (hit if isinstance(hit, bytes) else next(hit)), peer)
        except OSError:
            # Nothing left to read, or a reply that cannot be delivered: over UDP that is its asker's
            # loss alone, and an epoll that is level-triggered calls again if there is more.
            pass
        self._counter.value += count
        self.asked += count

    def _datagrams_told(self, _events: int) -> None:
        """The same, one at a time, each answer by way of those that are told."""
        try:
            query, peer = self._udp.recvfrom(4096)
        except OSError:
            return
        self._counter.value += 1
        self.asked += 1
        self._answer_datagram(query, peer)

    def _answer_datagram(self, query: bytes, peer: tuple[str, int]) -> None:
        began = time.monotonic()
        self._counter.made += 1
        result = answer(self.table, query)
        if isinstance(result, Forward):
            self.ask(query, result, lambda reply: self._answered(query, reply, peer, began), False)
            return
        if result is not None:
            self._reply(query, result, peer)
        self.hear(query, result, "dari" if result is not None else "", False, began)

    def _answered(self, query: bytes, reply: bytes, peer: tuple[str, int], began: float) -> None:
        self._reply(query, reply, peer)
        self.hear(query, reply, "upstream", False, began)

    def _reply(self, query: bytes, reply: bytes, peer: tuple[str, int]) -> None:
        if self.namespace < 0:  # closed while an upstream was asked
            return
        if len(reply) > wire.UDP_MINIMUM and len(reply) > udp_limit(query):
            reply = wire.truncated(reply)
        try:
            self._udp.sendto(reply, peer)
        except OSError:
            return

    def _connection_ready(self, _events: int) -> None:
        try:
            sock, _address = self._tcp.accept()
        except OSError:
            return
        if len(self._clients) >= _CLIENTS_PER_VIEW:
            sock.close()
            return
        sock.setblocking(False)
        self._clients.add(_Client(sock, self, self._loop, self._clients, self._counter))


class _Client:
    """One TCP connection: length-prefixed questions in, answers out, in whatever order they are ready."""

    def __init__(
        self, sock: Socket, listener: Listener, loop: Loop, peers: set[_Client], counter: Counter
    ) -> None:
        self._sock, self._listener, self._loop, self._peers = sock, listener, loop, peers
        self._counter = counter
        self._incoming = b""
        self._outgoing = b""
        self._is_open = True
        self._is_finished = False
        self._open_questions = 0
        self.deadline = time.monotonic() + _CLIENT_SECONDS
        loop.add(sock.fileno(), self._ready)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._loop.drop(self._sock.fileno())
            self._sock.close()
            self._peers.discard(self)

    def _ready(self, events: int) -> None:
        try:
            if events & EPOLLOUT:
                self._flush()
            if events & ~EPOLLOUT and not self._is_finished:
                data = self._sock.recv(TCP_LIMIT)
                if data:
                    self._take(data)
                else:
                    self._is_finished = True
            elif events & (EPOLLHUP | EPOLLERR):  # nobody is left to answer, and epoll would say so for ever
                self.close()
            self._settle()
        except BlockingIOError:
            return
        except OSError:
            self.close()

    def _take(self, data: bytes) -> None:
        self.deadline = time.monotonic() + _CLIENT_SECONDS
        self._incoming += data
        while len(self._incoming) > 2:
            size = int.from_bytes(self._incoming[:2], "big")
            if len(self._incoming) < 2 + size:
                return
            query, self._incoming = self._incoming[2 : 2 + size], self._incoming[2 + size :]
            self._counter.value += 1
            self._counter.over_tcp += 1
            self._listener.asked += 1
            self._answer(query)

    def _answer(self, query: bytes) -> None:
        began = time.monotonic()
        result = answer(self._listener.table, query, over_tcp=True)
        if result is None:  # not a question: whoever is there does not speak DNS
            self._is_finished = True
        elif isinstance(result, Forward):
            self._open_questions += 1
            self._listener.ask(query, result, lambda reply: self._forwarded(query, reply, began), True)
            return
        else:
            self._write(result)
        self._listener.hear(query, result, "dari" if result is not None else "", True, began)

    def _forwarded(self, query: bytes, reply: bytes, began: float) -> None:
        self._open_questions -= 1
        self._listener.hear(query, reply, "upstream", True, began)
        if self._is_open:
            self.deadline = time.monotonic() + _CLIENT_SECONDS
            try:
                self._write(reply)
                self._settle()
            except OSError:
                self.close()

    def _write(self, reply: bytes) -> None:
        self._outgoing += len(reply).to_bytes(2, "big") + reply
        if len(self._outgoing) > _UNSENT_LIMIT:
            raise OSError("the client does not read")
        self._flush()

    def _flush(self) -> None:
        if self._outgoing:
            try:
                self._outgoing = self._outgoing[self._sock.send(self._outgoing) :]
            except BlockingIOError:
                return

    def _settle(self) -> None:
        """Watch for what is needed next; close when all is said."""
        if not self._is_open:
            return
        if self._is_finished and not self._outgoing and not self._open_questions:
            self.close()
            return
        events = (0 if self._is_finished else EPOLLIN) | (EPOLLOUT if self._outgoing else 0)
        self._loop.change(self._sock.fileno(), events)


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino
