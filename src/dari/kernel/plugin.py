"""The calls to network and IPAM plugins: handshake, POSTs, waiting and trying again, as Docker's client does.

A plugin is another program that changes the kernel on our behalf; the calls are carried out here, like the other
steps of a plan. Blocking: every call belongs into one of `threads`, which no other work waits for. Must not know:
stores, what a network is. Sources: Docker docs, "Docker Plugin API"; libnetwork, docs/remote.md.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from dari.kernel import plugin_folders
from dari.kernel.plugin_folders import BadSpec, Location
from dari.model.plugin import (
    IPAM_DRIVER,
    NETWORK_DRIVER,
    Answer,
    IpamCapabilities,
    Manifest,
    NetworkCapabilities,
    TlsFiles,
)

log = logging.getLogger("dari.kernel")

T = TypeVar("T")
A = TypeVar("A", bound=Answer)

MIME_TYPE = "application/vnd.docker.plugins.v1.2+json"
# What a unix socket's server is told it is called; an empty name is refused by some.
_UNIX_HOST = "plugin.dari.localhost"
_LARGEST_ANSWER = 4 << 20
_HEADERS = {"Accept": MIME_TYPE, "Content-Type": MIME_TYPE, "Connection": "close"}
_THREADS = 32


class PluginFailure(Exception):
    """A plugin did not do what it was asked. `status` is the HTTP status where it answered with a bad one, else 0."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class PluginMissing(PluginFailure):
    """No plugin of that name is in any folder."""


@dataclass(slots=True)
class _Active:
    """A plugin that has answered the handshake."""

    location: Location
    implements: frozenset[str]
    network: NetworkCapabilities | None = None
    ipam: IpamCapabilities | None = None


@dataclass(slots=True)
class _Room:
    lock: threading.Lock = field(default_factory=threading.Lock)
    active: _Active | None = None


class Plugins:
    """`folders` in the order they are searched; `timeout` seconds an answer, and a plugin's absence, may last."""

    def __init__(self, folders: Sequence[str] = (), timeout: float = 30.0) -> None:
        self.folders = tuple(folders)
        self.timeout = timeout
        self.threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="plugin")
        self._rooms: dict[str, _Room] = {}
        self._live: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def close(self) -> None:
        """Who waits for a plugin is told that it failed."""
        self._closing.set()
        with self._lock:
            for connection in self._live:
                _hang_up(connection)
        self.threads.shutdown(wait=False, cancel_futures=True)

    def names(self) -> list[str]:
        """The plugins in the folders, sorted."""
        return plugin_folders.scan(self.folders)

    def activated(self) -> dict[str, frozenset[str]]:
        """What the plugins that were used so far implement, by name."""
        with self._lock:
            rooms = dict(self._rooms)
        return {name: room.active.implements for name, room in rooms.items() if room.active is not None}

    def url(self, name: str) -> str:
        """Where a plugin is reached; empty where it is not, or its file is no good."""
        try:
            location = plugin_folders.find(self.folders, name)
        except BadSpec:
            return ""
        return location.url if location is not None else ""

    def network(self, name: str) -> NetworkCapabilities:
        """What the network driver of that name can do. Raises PluginMissing, PluginFailure."""
        active = self._activate(name, NETWORK_DRIVER)
        if active.network is None:
            found = self._talk(active.location, f"{NETWORK_DRIVER}.GetCapabilities", b"", NetworkCapabilities)
            for text in (found.scope, found.connectivity_scope or found.scope):
                if text not in ("local", "global"):
                    raise PluginFailure(
                        f"plugin {name}: invalid capability: expecting 'local' or 'global', got {text or ''}"
                    )
            active.network = found
        return active.network

    def ipam(self, name: str) -> IpamCapabilities:
        """What the IPAM driver of that name needs. Raises PluginMissing, PluginFailure."""
        active = self._activate(name, IPAM_DRIVER)
        if active.ipam is None:
            try:
                method = f"{IPAM_DRIVER}.GetCapabilities"
                active.ipam = self._talk(active.location, method, b"", IpamCapabilities)
            except PluginFailure as error:
                # It is not mandatory to know this call.
                log.info("ipam plugin %s does not tell its capabilities: %s", name, error)
                active.ipam = IpamCapabilities()
        return active.ipam

    def call(
        self,
        name: str,
        method: str,
        request: msgspec.Struct | None,
        kind: type[A],
        timeout: float | None = None,
    ) -> A:
        """Ask `NetworkDriver.Join` or its like. Raises PluginMissing, PluginFailure (also where the answer says so).

        `timeout`: less patience than usual, in seconds.
        """
        subsystem = method.partition(".")[0]
        active = self._activate(name, subsystem, timeout)
        body = msgspec.json.encode(request) if request is not None else b""
        return self._talk(active.location, method, body, kind, timeout)

    # The handshake

    def _activate(self, name: str, subsystem: str, timeout: float | None = None) -> _Active:
        """At the first use, and again where somebody else listens now."""
        try:
            location = plugin_folders.find(self.folders, name)
        except BadSpec as error:
            raise PluginFailure(str(error)) from error
        if location is None:
            raise PluginMissing(f'plugin "{name}" not found')
        with self._lock:
            room = self._rooms.setdefault(name, _Room())
        with room.lock:
            active = room.active
            if active is None or active.location != location:
                room.active = None
                content = self._post(location, "Plugin.Activate", b"", timeout)
                answer = self._decode(location, "Plugin.Activate", content, Manifest)
                active = room.active = _Active(location, frozenset(answer.implements or ()))
        if subsystem not in active.implements:
            told = ", ".join(sorted(active.implements)) or "nothing"
            raise PluginFailure(
                f"legacy plugin: Plugin does not implement the requested driver: {name} implements {told}, "
                f"not {subsystem}"
            )
        return active

    # One call

    def _talk(
        self, location: Location, method: str, body: bytes, kind: type[A], timeout: float | None = None
    ) -> A:
        answer = self._decode(location, method, self._post(location, method, body, timeout), kind)
        if problem := answer.err or answer.error:
            raise PluginFailure(f"remote: {problem}")
        return answer

    def _decode(self, location: Location, method: str, content: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(content or b"{}", type=kind)
        except msgspec.DecodeError as error:
            raise PluginFailure(
                f"plugin {location.name}: {method}: the answer makes no sense: {error}"
            ) from error

    def _post(self, location: Location, method: str, body: bytes, timeout: float | None) -> bytes:
        """The answer's body. A plugin that cannot be reached, or hangs up, is tried again with growing pauses."""
        start, pause = time.monotonic(), 1.0
        limit = self.timeout if timeout is None else min(timeout, self.timeout)
        while True:
            try:
                status, content = self._once(location, method, body, limit)
                break
            except (OSError, http.client.HTTPException) as error:
                reason = _reason(error, limit)
                if time.monotonic() - start + pause >= limit or self._closing.is_set():
                    raise PluginFailure(
                        f"plugin {location.name} ({location.url}): {method}: {reason}"
                    ) from error
                log.warning(
                    "Unable to connect to plugin: %s/%s: %s, retrying in %gs",
                    location.url,
                    method,
                    reason,
                    pause,
                )
            if self._closing.wait(pause):
                raise PluginFailure(f"plugin {location.name}: {method}: the daemon stops")
            pause = min(pause * 2, 30.0)
        if status != 200:
            raise PluginFailure(f"{method}: {_problem(content)}", status)
        return content

    def _once(self, location: Location, method: str, body: bytes, limit: float) -> tuple[int, bytes]:
        """Raises TimeoutError where the whole answer does not come in time, however busily it trickles in."""
        connection = _connect(location, limit)
        ended = threading.Event()

        def end() -> None:
            ended.set()
            _hang_up(connection)

        timer = threading.Timer(limit, end)
        timer.daemon = True
        timer.start()
        with self._lock:
            self._live.add(connection)
        try:
            connection.request("POST", f"/{method}", body=body, headers=_HEADERS)
            answer = connection.getresponse()
            content = answer.read(_LARGEST_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            if ended.is_set():
                raise TimeoutError from error
            raise
        finally:
            timer.cancel()
            with self._lock:
                self._live.discard(connection)
            connection.close()
        if ended.is_set():
            raise TimeoutError
        if len(content) > _LARGEST_ANSWER:
            raise PluginFailure(f"plugin {location.name}: {method}: the answer is longer than 4 MiB")
        return answer.status, content


def _hang_up(connection: http.client.HTTPConnection) -> None:
    """Whoever reads or writes there hears the end."""
    if connection.sock is not None:
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)


def _problem(content: bytes) -> str:
    """What a bad status' body says: its `Err`, or the text as it is."""
    try:
        answer = msgspec.json.decode(content, type=Answer)
    except msgspec.DecodeError:
        answer = Answer()
    return answer.err or answer.error or content[:1000].decode(errors="replace").strip()


def _reason(error: Exception, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout:g} seconds"
    if isinstance(error, http.client.RemoteDisconnected):
        return "it hung up without an answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__(_UNIX_HOST, timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connect(location: Location, timeout: float) -> http.client.HTTPConnection:
    if location.path:
        return _UnixConnection(location.path, timeout)
    if location.tls is None:
        return http.client.HTTPConnection(location.host, location.port, timeout=timeout)
    try:
        context = _tls(location.tls)
    except (OSError, ssl.SSLError) as error:
        raise PluginFailure(f"plugin {location.name}: its TLS files cannot be used: {error}") from error
    return http.client.HTTPSConnection(location.host, location.port, timeout=timeout, context=context)


def _tls(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.ca_file or None)
    if files.is_unverified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files.cert_file:
        context.load_cert_chain(files.cert_file, files.key_file or None)
    return context
