"""The responder: files in, listeners kept equal to them, nudges and pings answered.

It reads all files at the start and on SIGHUP, and those a nudge names when nudged; of a zone's what was added since.
While it reads a large one it answers from what it knew. A view whose namespace is missing is tried again; a file
that cannot be read leaves the last good one in force. Must not know packets (`answer.py`, `wire.py`) or who writes the
files.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from socket import AF_UNIX, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_SEQPACKET
from socket import socket as Socket
from typing import TYPE_CHECKING

from dari.dns.answer import ViewTable, ZoneTable, change_zone, compile_view, compile_zone
from dari.dns.files import stored_ids
from dari.dns.forward import Forwarder
from dari.dns.listen import Counter, Listener, Told
from dari.dns.loop import Loop
from dari.dns.netns import Namespaces
from dari.dns.zone import (
    CONTROL_SOCKET,
    NUDGE_SOCKET,
    REVISION,
    VIEWS,
    ZONES,
    View,
    ZoneError,
    decode_change,
    decode_first,
    decode_view,
    view_path,
    zone_path,
)
from dari.dns.zonefile import Text, ZoneFile

if TYPE_CHECKING:
    from dari.dns.log import Reader

_RETRY_SECONDS = 1.0
_GLANCE_VIEWS = 64  # looked after between two looks at questions
_STATS_VIEWS = 1000  # the busiest: the answer is one message
Log = Callable[[str, str], None]


class Server:
    """The views and zones of one directory."""

    def __init__(self, directory: str, loop: Loop, log: Log) -> None:
        self._directory, self._loop, self._log = directory, loop, log
        self._namespaces = Namespaces()
        self._forwarder = Forwarder(loop)
        self._counter = Counter()
        self._files: dict[str, ZoneFile] = {}
        self._tables: dict[str, ZoneTable] = {}
        self._views: dict[str, View] = {}
        self._onlookers: dict[str, set[str]] = {}  # by zone, the views that look into it
        self._listeners: dict[str, Listener] = {}
        self._failed: dict[str, str] = {}
        self._doors: list[_Door] = []
        self._readers: dict[Socket, Reader] = {}
        self._next_retry = 0.0
        loop.every_tick(self._look)

    def open_doors(self) -> None:
        """Listen for nudges and pings; those that arrive before `read_all` ends wait. Raises OSError."""
        for name, serve in ((NUDGE_SOCKET, self._serve_nudge), (CONTROL_SOCKET, self._serve_control)):
            self._doors.append(_Door(f"{self._directory}/{name}", self._loop, serve, self._end_log))

    def read_all(self) -> None:
        """Bring everything to the state of the files."""
        zones = set(stored_ids(self._directory, ZONES)) | self._tables.keys()
        views = set(stored_ids(self._directory, VIEWS)) | self._views.keys()
        self.apply([*map(zone_path, zones), *map(view_path, views)], is_whole=True)

    def close(self) -> None:
        """Close all sockets and remove those in the file system."""
        for door in self._doors:
            door.close()
        for sandbox_id in list(self._listeners):
            self._listeners.pop(sandbox_id).close()
        for file in self._files.values():
            file.close()

    def apply(self, names: Iterable[str], *, is_whole: bool = False) -> list[str]:
        """Put the named files in force; returns what could not be, one line each. `is_whole`: zones are read from
        their beginning, as if nothing of them were known."""
        troubles: list[str] = []
        named_views: set[str] = set()
        changed_zones: set[str] = set()
        new_zones: set[str] = set()
        for name in names:
            folder, _, base = name.partition("/")
            key = base.removesuffix(".json")
            if folder not in (ZONES, VIEWS) or not key or "/" in key or name != f"{folder}/{key}.json":
                troubles.append(f"{name}: not the name of a zone or view file")
                continue
            try:
                if folder == ZONES:
                    (new_zones if self._read_zone(key, is_whole) else changed_zones).add(key)
                else:
                    self._read_view(key)
                    named_views.add(key)
            except (ZoneError, OSError) as error:
                troubles.append(f"{name}: {error}")
        for sandbox_id in named_views | self._failed.keys():
            self._settle(sandbox_id)
        if changed_zones or new_zones:
            self._look_again(changed_zones, new_zones, named_views)
        # Another sandbox that cannot be served is no reason to call the zone it looks into not in force.
        troubles += [f"{view_path(key)}: {self._failed[key]}" for key in named_views if key in self._failed]
        for line in troubles:
            self._log("error", line)
        return troubles

    def _read_zone(self, network_id: str, is_whole: bool) -> bool:
        """Whether there is another table of it now, or none. Raises ZoneError, OSError."""
        path = f"{self._directory}/{zone_path(network_id)}"
        file = self._files.get(network_id)
        if file is None:
            file = self._files[network_id] = ZoneFile(path)
        table = self._tables.get(network_id)
        found = file.read(is_whole=is_whole or table is None)
        if found is None:
            self._tables.pop(network_id, None)
            del self._files[network_id]
        elif isinstance(found, Text):
            try:
                self._tables[network_id] = self._compiled(network_id, found)
            except ZoneError:
                file.forget()
                raise
        elif table is not None:
            for change in found:
                change_zone(table, change)
            return False
        return True

    def _compiled(self, network_id: str, text: Text) -> ZoneTable:
        """A whole zone, line by line: between two of them questions are answered. Raises ZoneError."""
        zone, lines = decode_first(text.first)
        if zone.network_id != network_id:
            raise ZoneError(f"is of network {zone.network_id}")
        if len(text.rest) < lines:
            raise ZoneError(f"expected {lines} more lines, got {len(text.rest)}")
        table = compile_zone(zone)
        for line in text.rest:
            change_zone(table, decode_change(line))
            self._loop.glance()
        return table

    def _read_view(self, sandbox_id: str) -> None:
        text = self._read(view_path(sandbox_id))
        if text is None:
            self._know(sandbox_id, None)
            return
        view = decode_view(text)
        if view.sandbox_id != sandbox_id:
            raise ZoneError(f"is of sandbox {view.sandbox_id}")
        self._know(sandbox_id, view)

    def _know(self, sandbox_id: str, view: View | None) -> None:
        before = self._views.pop(sandbox_id, None)
        for network_id in before.networks if before is not None else ():
            onlookers = self._onlookers[network_id]
            onlookers.discard(sandbox_id)
            if not onlookers:
                del self._onlookers[network_id]
        if view is not None:
            self._views[sandbox_id] = view
            for network_id in view.networks:
                self._onlookers.setdefault(network_id, set()).add(sandbox_id)

    def _read(self, name: str) -> bytes | None:
        try:
            with open(f"{self._directory}/{name}", "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def _settle(self, sandbox_id: str) -> None:
        """Make the listener of a sandbox what its view says: open, replaced, opened anew or closed."""
        view = self._views.get(sandbox_id)
        listener = self._listeners.get(sandbox_id)
        try:
            if listener is not None and (view is None or self._is_elsewhere(listener, view)):
                self._listeners.pop(sandbox_id).close()
                self._log("debug", f"view {sandbox_id}: closed")
                listener = None
            if view is not None:
                table = compile_view(view, self._tables)
                if listener is not None:
                    listener.replace(table)
                else:
                    self._listeners[sandbox_id] = self._listen(table)
                    if self._readers:
                        self._aim_log()
                    self._log("debug", f"view {sandbox_id}: open on port {view.port}")
            self._failed.pop(sandbox_id, None)
        except OSError as error:
            self._failed[sandbox_id] = f"cannot listen in {view.netns_path if view else sandbox_id}: {error}"

    def _look_again(self, changed: set[str], new: set[str], but: set[str]) -> None:
        """Zones changed and these views did not: their sockets stay. One without sockets is among the failed ones."""
        onlookers = self._onlookers
        for sandbox_id in {each for zone in changed for each in onlookers.get(zone, ())} - but:
            listener = self._listeners.get(sandbox_id)
            if listener is not None:
                listener.table.ready.clear()
        others = {each for zone in new for each in onlookers.get(zone, ())} - but
        for number, sandbox_id in enumerate(others):
            listener = self._listeners.get(sandbox_id)
            if listener is not None:
                listener.table = compile_view(self._views[sandbox_id], self._tables)
                if number % _GLANCE_VIEWS == 0:
                    self._loop.glance()

    def _listen(self, table: ViewTable) -> Listener:
        return Listener(table, self._loop, self._namespaces, self._forwarder, self._counter)

    def _is_elsewhere(self, listener: Listener, view: View) -> bool:
        if listener.table.view.port != view.port:
            return True
        try:
            return not listener.is_of(view.netns_path)
        except FileNotFoundError:
            # The file is gone while the view still stands: being removed, or replaced in a moment. Answers
            # keep flowing until the view goes or a new namespace is there.
            return False

    def _look(self, now: float) -> bool:
        if self._failed and now >= self._next_retry:
            self._next_retry = now + _RETRY_SECONDS
            for sandbox_id in list(self._failed):
                self._settle(sandbox_id)
        clients = sum(listener.look(now) for listener in self._listeners.values())
        return clients > 0 or bool(self._failed)

    def _serve_nudge(self, message: bytes, _peer: Socket) -> bytes:
        started = time.monotonic()
        names = [line for line in message.decode(errors="replace").split("\n") if line]
        troubles = self.apply(names)
        self._log("debug", f"nudge of {len(names)} in {(time.monotonic() - started) * 1e3:.2f} ms")
        return b"ok" if not troubles else "\n".join(["failed", *troubles]).encode()[:100_000]

    def _serve_control(self, message: bytes, peer: Socket) -> bytes:
        if message == b"revision":
            return b'{"revision":%d}' % REVISION
        if message == b"stats":
            return self._stats()
        if message == b"log" or message.startswith(b"log "):
            return self._begin_log(message[4:].decode(errors="replace"), peer)
        if message != b"ping":
            return b'{"error":"the questions are ping, revision, stats and log"}'
        status = {
            "pid": os.getpid(),
            "views": len(self._listeners),
            "zones": len(self._tables),
            "queries": self._counter.value,
            "failed": self._failed,
        }
        return json.dumps(status).encode()

    def _stats(self) -> bytes:
        counter = self._counter
        busiest = sorted(self._listeners.items(), key=lambda item: -item[1].asked)[:_STATS_VIEWS]
        told = {
            "queries": counter.value,
            "over_tcp": counter.over_tcp,
            "made": counter.made,
            "forwarded": counter.forwarded,
            "views": {sandbox_id: listener.asked for sandbox_id, listener in busiest},
            "upstreams": {
                f"[{each.address}]:{each.port}" if ":" in each.address else f"{each.address}:{each.port}": {
                    "asked": tally.asked,
                    "answered": tally.answered,
                    "failed": tally.failed,
                    "milliseconds": round(tally.seconds / max(1, tally.answered) * 1e3, 2),
                }
                for each, tally in self._forwarder.tallies.items()
            },
        }
        return json.dumps(told).encode()

    def _begin_log(self, sandbox_id: str, peer: Socket) -> bytes:
        from dari.dns.log import Reader  # only somebody who reads pays for it

        self._readers[peer] = Reader(peer, sandbox_id)
        self._aim_log()
        return b'{"log":true}'

    def _end_log(self, peer: Socket) -> None:
        if self._readers.pop(peer, None) is not None:
            self._aim_log()

    def _aim_log(self) -> None:
        """Have those listeners tell that somebody reads of, and no others."""
        wanted = {reader.sandbox_id for reader in self._readers.values()}
        for sandbox_id, listener in self._listeners.items():
            is_read = "" in wanted or sandbox_id in wanted
            listener.tell(self._teller(sandbox_id) if is_read else None)

    def _teller(self, sandbox_id: str) -> Told:
        from dari.dns.log import line

        def told(query: bytes, reply: bytes | None, by: str, over_tcp: bool, began: float) -> None:
            made = line(sandbox_id, query, reply, by, over_tcp, began)
            for reader in list(self._readers.values()):
                reader.tell(sandbox_id, made)

        return told


class _Door:
    """A SOCK_SEQPACKET listener in the file system: one reply to each message."""

    def __init__(
        self, path: str, loop: Loop, serve: Callable[[bytes, Socket], bytes], ended: Callable[[Socket], None]
    ) -> None:
        self._path, self._loop, self._serve, self._ended = path, loop, serve, ended
        if os.path.lexists(path):
            os.unlink(path)  # of a responder that was killed: the lock says that none is alive
        self._sock = Socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC)
        self._sock.bind(path)
        os.chmod(path, 0o600)
        self._sock.listen(128)
        self._peers: set[Socket] = set()
        loop.add(self._sock.fileno(), self._accept)

    def close(self) -> None:
        for sock in (self._sock, *self._peers):
            self._loop.drop(sock.fileno())
            sock.close()
        if os.path.lexists(self._path):
            os.unlink(self._path)

    def _accept(self, _: int) -> None:
        try:
            peer, _address = self._sock.accept()
        except OSError as error:
            print(f"dari-dns: accept on {self._path}: {error}", file=sys.stderr)
            return
        peer.setblocking(False)
        self._peers.add(peer)
        self._loop.add(peer.fileno(), lambda _: self._message(peer))

    def _message(self, peer: Socket) -> None:
        try:
            message = peer.recv(1 << 18)
            if message:
                peer.send(self._serve(message, peer))
                return
        except BlockingIOError:
            return
        except OSError:
            pass  # the asker went away: nothing is owed
        self._ended(peer)
        self._loop.drop(peer.fileno())
        self._peers.discard(peer)
        peer.close()
