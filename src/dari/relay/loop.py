"""The relay's loop: listeners, connections in both directions, UDP clients; one thread, no waiting but in select.

Sockets that are only held are never looked at. Everything came over the door, so a relay without entries is an idle
process. Must not know: anything of dari's.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dari.relay.door import MOST_HELD

if TYPE_CHECKING:
    from dari.relay.lookup import Range

_CHUNK = 1 << 16
_UDP_IDLE_SECONDS = 90.0
_MOST_CLIENTS = 1024
"""UDP clients remembered for each port; the one quiet for longest goes first."""

_HOME_SECONDS = 5.0
_MOST_BUFFERED = 4 * _CHUNK
# IPV6_RECVORIGDSTADDR, linux/in6.h: a message beside each packet with the struct sockaddr_in6 it was sent to.
_ORIGINAL = 74
_ANCILLARY_BYTES = 64


@dataclass(slots=True)
class Entry:
    """One relayed port, or a range of them (`first` to `last`, for which the kernel asks `lookup`; `target` is the
    first one's). `clients` (UDP): the socket to the target by client and port, the oldest first; `mouths`: of a range,
    the sockets answers leave by, by port."""

    name: str
    kind: str
    listener: socket.socket
    target: tuple[str, int]
    pairs: set[Pair] = field(default_factory=set)
    clients: dict[Any, tuple[socket.socket, float]] = field(default_factory=dict)
    address: str = ""
    first: int = 0
    last: int = 0
    lookup: Range | None = None
    mouths: dict[int, socket.socket] = field(default_factory=dict)

    def target_of(self, port: int) -> tuple[str, int] | None:
        """Where what came to that port goes; None where it is none of the range's."""
        if not self.last:
            return self.target
        if not self.first <= port <= self.last:
            return None
        return self.target[0], self.target[1] + port - self.first


class Pair:
    """A TCP connection and its counterpart. Each side's bytes wait in a buffer for the other side; an end of one
    side is passed on when its buffer is empty."""

    def __init__(self, loop: Loop, entry: Entry, client: socket.socket, target: tuple[str, int]) -> None:
        self._loop = loop
        self._entry = entry
        family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self._ends = (client, socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
        # What waits to be sent to end 0 and 1; whether that end's counterpart has said all; who is shut already.
        self._waiting = (bytearray(), bytearray())
        self._has_ended = [False, False]
        self._is_shut = [False, False]
        self._is_connected = False
        for each in self._ends:
            each.setblocking(False)
        entry.pairs.add(self)
        try:
            self._ends[1].connect(target)
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        for each in self._ends:
            self._loop.selector.register(each, selectors.EVENT_WRITE, self._ready)
        self._watch()

    def _ready(self, end: socket.socket, events: int) -> None:
        number = self._ends.index(end)
        try:
            if number == 1 and not self._is_connected:
                code = end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, os.strerror(code))
                self._is_connected = True
            if events & selectors.EVENT_READ:
                self._read(number)
            self._flush(0)
            self._flush(1)
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if all(self._is_shut):
            self.close()
        else:
            self._watch()

    def _read(self, number: int) -> None:
        data = self._ends[number].recv(_CHUNK)
        if data:
            self._waiting[1 - number].extend(data)
        else:
            self._has_ended[1 - number] = True

    def _flush(self, number: int) -> None:
        if number == 1 and not self._is_connected:
            return
        waiting = self._waiting[number]
        if waiting:
            try:
                del waiting[: self._ends[number].send(waiting)]
            except BlockingIOError:
                return
        if not waiting and self._has_ended[number] and not self._is_shut[number]:
            self._is_shut[number] = True
            self._ends[number].shutdown(socket.SHUT_WR)

    def _watch(self) -> None:
        for number, end in enumerate(self._ends):
            events = 0
            if not self._has_ended[1 - number] and len(self._waiting[1 - number]) < _MOST_BUFFERED:
                events |= selectors.EVENT_READ
            if self._waiting[number] or (number == 1 and not self._is_connected):
                events |= selectors.EVENT_WRITE
            self._loop.watch(end, events, self._ready)

    def close(self) -> None:
        self._entry.pairs.discard(self)
        for each in self._ends:
            self._loop.forget(each)
            each.close()


class Loop:
    """`run` serves the door until SIGTERM ends the process, or `home`, the door's folder, is gone: then nobody can come
    any more, and the next relay needs the ports."""

    def __init__(self, door: socket.socket, home: str) -> None:
        self._home = home
        self.selector = selectors.DefaultSelector()
        self.entries: dict[str, Entry] = {}
        self.held: dict[str, list[socket.socket]] = {}
        self._door = door
        door.setblocking(False)
        self.selector.register(door, selectors.EVENT_READ, self._knock)

    def run(self) -> None:
        next_look = 0.0
        while True:
            if time.monotonic() > next_look:
                next_look = time.monotonic() + _HOME_SECONDS
                if not os.path.isdir(self._home):
                    return
            for key, events in self.selector.select(_HOME_SECONDS):
                # A socket whose turn comes may have been closed by the one before.
                if self._is_registered(key.fileobj):
                    act: Callable[[Any, int], None] = key.data
                    act(key.fileobj, events)
            self._forget_quiet_clients()

    def watch(self, sock: socket.socket, events: int, act: Callable[[Any, int], None]) -> None:
        if not events:
            self.forget(sock)
        elif self._is_registered(sock):
            self.selector.modify(sock, events, act)
        else:
            self.selector.register(sock, events, act)

    def forget(self, sock: socket.socket) -> None:
        if self._is_registered(sock):
            self.selector.unregister(sock)

    def _is_registered(self, sock: Any) -> bool:
        return sock.fileno() >= 0 and sock in self.selector.get_map()

    # The door

    def _knock(self, door: socket.socket, _: int) -> None:
        visitor, _ = door.accept()
        with visitor:
            visitor.settimeout(1.0)
            try:
                data, descriptors, _, _ = socket.recv_fds(visitor, 1 << 18, MOST_HELD)
                answer, given = self._answer(json.loads(data), descriptors)
                socket.send_fds(visitor, [json.dumps(answer).encode()], given)
            except (OSError, ValueError, KeyError, TypeError):
                # Whoever asked went away or asked nonsense: the relay goes on.
                return

    def _answer(self, request: dict[str, Any], descriptors: list[int]) -> tuple[dict[str, Any], list[int]]:
        match request["op"]:
            case "add":
                sock = socket.socket(fileno=descriptors[0]) if descriptors else None
                target = (str(request["target"][0]), int(request["target"][1]))
                span = request.get("span") or ("", 0, 0)
                return {"ok": self._add(request["name"], request["kind"], target, sock, *span)}, []
            case "drop":
                for name in request["names"]:
                    self._drop(name)
                return {"ok": True}, []
            case "get":
                entry = self.entries.get(request["name"])
                sockets = [entry.listener] if entry else self.held.get(request["name"], [])
                return {"ok": bool(sockets)}, [each.fileno() for each in sockets]
            case "hold":
                self._drop(request["name"])
                self.held[request["name"]] = [socket.socket(fileno=each) for each in descriptors]
                return {"ok": True}, []
            case "held":
                return {"held": list(self.held)}, []
            case _:
                return {"pid": os.getpid(), "entries": {n: e.target for n, e in self.entries.items()}}, []

    def _add(
        self,
        name: str,
        kind: str,
        target: tuple[str, int],
        sock: socket.socket | None,
        address: str,
        first: int,
        last: int,
    ) -> bool:
        known = self.entries.get(name)
        if sock is None:
            if known is None:
                return False
            known.target = target
            self._close_clients(known)
            return True
        self._drop(name)
        sock.setblocking(False)
        entry = Entry(name, kind, sock, target, address=address, first=first, last=last)
        if last:
            try:
                entry.lookup = _range(sock, address, first, last)
            except OSError:
                sock.close()
                return False
        self.entries[name] = entry
        act = self._accept if kind == "tcp" else self._from_client
        self.selector.register(sock, selectors.EVENT_READ, lambda _, __: act(entry))
        return True

    def _drop(self, name: str) -> None:
        for sock in self.held.pop(name, ()):
            sock.close()
        entry = self.entries.pop(name, None)
        if entry is None:
            return
        self.forget(entry.listener)
        if entry.lookup is not None:
            entry.lookup.close()
        for mouth in entry.mouths.values():
            mouth.close()
        entry.listener.close()
        for each in list(entry.pairs):
            each.close()
        self._close_clients(entry)

    # TCP

    def _accept(self, entry: Entry) -> None:
        try:
            client, _ = entry.listener.accept()
        except OSError:
            # Gone again, or no descriptor is left: the next turn tries again.
            return
        target = entry.target_of(client.getsockname()[1])
        if target is None:
            # Somebody found the range's own socket.
            client.close()
            return
        Pair(self, entry, client, target)

    # UDP

    def _from_client(self, entry: Entry) -> None:
        try:
            data, ancillary, _, peer = entry.listener.recvmsg(_CHUNK, _ANCILLARY_BYTES)
        except OSError:
            return
        port = next((_port_of(each) for _, kind, each in ancillary if kind == _ORIGINAL), 0)
        target, client = entry.target_of(port), (peer, port)
        if target is None:
            return
        sock, _ = entry.clients.pop(client, (None, 0.0))
        if sock is None:
            if len(entry.clients) >= _MOST_CLIENTS:
                self._close_client(entry, next(iter(entry.clients)))
            family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            sock.setblocking(False)
            try:
                sock.connect(target)
            except OSError:
                sock.close()
                return
            self.selector.register(
                sock, selectors.EVENT_READ, lambda one, _: self._to_client(entry, client, one)
            )
        entry.clients[client] = (sock, time.monotonic())
        try:
            sock.send(data)
        except OSError:
            # Refused, or the buffer is full: a datagram may get lost.
            return

    def _to_client(self, entry: Entry, client: Any, sock: socket.socket) -> None:
        peer, port = client
        try:
            self._mouth(entry, port).sendto(sock.recv(_CHUNK), peer)
        except OSError:
            return

    def _mouth(self, entry: Entry, port: int) -> socket.socket:
        """The socket an answer leaves by: with the port that was asked. Raises OSError."""
        if not entry.last:
            return entry.listener
        mouth = entry.mouths.get(port)
        if mouth is None:
            if len(entry.mouths) >= _MOST_CLIENTS:
                entry.mouths.pop(next(iter(entry.mouths))).close()
            mouth = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            try:
                mouth.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                mouth.bind((entry.address, port))
            except OSError:
                mouth.close()
                raise
            entry.mouths[port] = mouth
        return mouth

    def _forget_quiet_clients(self) -> None:
        before = time.monotonic() - _UDP_IDLE_SECONDS
        for entry in self.entries.values():
            for client, (_, last) in list(entry.clients.items()):
                if last > before:
                    break
                self._close_client(entry, client)

    def _close_clients(self, entry: Entry) -> None:
        for client in list(entry.clients):
            self._close_client(entry, client)

    def _close_client(self, entry: Entry, client: Any) -> None:
        sock, _ = entry.clients.pop(client)
        self.forget(sock)
        sock.close()


def _range(sock: socket.socket, address: str, first: int, last: int) -> Range:
    """Raises OSError."""
    # Late: few have such a range, and what it needs is large.
    from dari.relay.lookup import Range

    if sock.type == socket.SOCK_DGRAM:
        sock.setsockopt(socket.IPPROTO_IPV6, _ORIGINAL, 1)
    return Range(sock, address, first, last)


def _port_of(sockaddr: bytes) -> int:
    return int.from_bytes(sockaddr[2:4], "big")
