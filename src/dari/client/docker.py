"""The Docker Engine API as a client sees it: versions, JSON, streams, hijacked connections.

Works on any engine that speaks the API (dockerd too), so it must not know dari's rooms. Blocking, usable from
many threads at once. Reference: https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

from dari.client.errors import ApiError, ProtocolError, StreamError
from dari.client.http import Address, Body, Pool, Response, quote

MIN_API_VERSION = "1.24"
MAX_API_VERSION = "1.51"
DARI_SOCKET = "/run/dari/dari.sock"
DOCKER_SOCKET = "/var/run/docker.sock"

__all__ = ["Docker", "Hijacked", "quote", "resolve_host"]


def resolve_host(explicit: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """The engine to talk to: explicit, DARI_HOST, DOCKER_HOST, dari's socket if it is there, Docker's."""
    env = os.environ if environ is None else environ
    host = explicit or env.get("DARI_HOST") or env.get("DOCKER_HOST")
    if host:
        return host
    return f"unix://{DARI_SOCKET}" if os.path.exists(DARI_SOCKET) else f"unix://{DOCKER_SOCKET}"


def version_key(version: str) -> tuple[int, ...]:
    """A key to compare versions such as `1.41` by number."""
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


def _tls_folder(environ: Mapping[str, str]) -> str | None:
    if environ.get("DOCKER_TLS_VERIFY") or environ.get("DOCKER_TLS"):
        return environ.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")
    return None


class Hijacked:
    """A connection turned into a raw two-way stream (attach, exec). Read with `recv`, write with `send`."""

    def __init__(self, sock: socket.socket, ahead: bytes, is_multiplexed: bool | None) -> None:
        self.sock = sock
        # None when the engine did not say (before API 1.42): then it depends on the container's tty.
        self.is_multiplexed = is_multiplexed
        self._ahead = ahead

    def recv(self, size: int = 65536) -> bytes:
        """Up to `size` bytes; empty at the end of the stream."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        try:
            return self.sock.recv(size)
        except ConnectionResetError:
            return b""

    @property
    def has_read_ahead(self) -> bool:
        """Whether bytes wait that `select` on the socket cannot see."""
        pending = getattr(self.sock, "pending", None)
        return bool(self._ahead) or (pending is not None and pending() > 0)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def close_write(self) -> None:
        """Says "no more input". TLS of the standard library cannot half-close, so there it is a no-op."""
        if hasattr(self.sock, "pending"):
            return
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        self.sock.close()

    def __iter__(self) -> Iterator[bytes]:
        while data := self.recv():
            yield data

    def __enter__(self) -> Hijacked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Docker:
    """An engine. `host` as in `resolve_host`; `api_version` fixes the version, else it is negotiated.

    Every verb takes the path without its version prefix (`/containers/json`), the query as keyword arguments
    (None left out, mappings such as `filters` sent as JSON) and raises ApiError, ConnectionFailed,
    ProtocolError.
    """

    def __init__(
        self,
        host: str | None = None,
        api_version: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        env = os.environ if environ is None else environ
        self.address = Address(
            resolve_host(host, env), tls=_tls_folder(env), verify=bool(env.get("DOCKER_TLS_VERIFY", "1"))
        )
        self.host = self.address.host
        self.pool = Pool(self.address)
        self._version = api_version or env.get("DOCKER_API_VERSION") or None
        self._lock = threading.Lock()

    @property
    def api_version(self) -> str:
        """The version in use; asks the engine (GET /_ping) the first time."""
        with self._lock:
            if self._version is None:
                response = self.pool.send("GET", "/_ping")
                response.read()
                theirs = response.headers.get("api-version", MIN_API_VERSION)
                ours = min(theirs, MAX_API_VERSION, key=version_key)
                if version_key(ours) < version_key(MIN_API_VERSION):
                    raise ApiError(
                        400,
                        f"the engine's API version {theirs} is too old, {MIN_API_VERSION} is the oldest known",
                    )
                self._version = ours
            return self._version

    def supports(self, version: str) -> bool:
        """Whether the version in use is at least `version`."""
        return version_key(self.api_version) >= version_key(version)

    def ping(self) -> dict[str, str]:
        """The headers of GET /_ping (lower-case names)."""
        response = self.pool.send("GET", "/_ping")
        response.read()
        return response.headers

    def close(self) -> None:
        self.pool.close()

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """The answer with its body unread. `body`: bytes or an iterator of bytes as it is, else JSON."""
        fields = dict(headers or {})
        payload: Body = None
        if body is not None:
            if isinstance(body, bytes) or (isinstance(body, Iterable) and hasattr(body, "__next__")):
                payload = body
                fields.setdefault("Content-Type", "application/x-tar")
            else:
                payload = json.dumps(body, separators=(",", ":")).encode()
                fields.setdefault("Content-Type", "application/json")
        target = f"/v{self.api_version}{quote_path(path)}"
        response = self.pool.send(method, target, query, payload, fields)
        if response.status >= 400:
            raise _error(response)
        return response

    def _json(self, response: Response) -> Any:
        data = response.read()
        if not data.strip():
            return None
        try:
            return json.loads(data)
        except ValueError:
            return data.decode(errors="replace")

    def get(self, path: str, /, **query: Any) -> Any:
        """The JSON of a GET."""
        return self._json(self.send("GET", path, query))

    def head(self, path: str, /, **query: Any) -> dict[str, str]:
        """The headers of a HEAD (lower-case names)."""
        return self.send("HEAD", path, query).headers

    def post(
        self, path: str, body: Any = None, /, *, headers: Mapping[str, str] | None = None, **query: Any
    ) -> Any:
        """The JSON of a POST, None when there is none (204, 304)."""
        return self._json(self.send("POST", path, query, body, headers))

    def put(
        self, path: str, body: Any = None, /, *, headers: Mapping[str, str] | None = None, **query: Any
    ) -> Any:
        """The JSON of a PUT."""
        return self._json(self.send("PUT", path, query, body, headers))

    def delete(self, path: str, /, **query: Any) -> Any:
        """The JSON of a DELETE, None when there is none."""
        return self._json(self.send("DELETE", path, query))

    def stream(
        self,
        method: str,
        path: str,
        /,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        **query: Any,
    ) -> Iterator[bytes]:
        """The body in pieces as they come; closing the iterator drops the connection.

        The request is sent at the call, not at the first piece.
        """
        return iter(self.send(method, path, query, body, headers))

    def stream_json(
        self,
        method: str,
        path: str,
        /,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        raise_errors: bool = True,
        **query: Any,
    ) -> Iterator[dict[str, Any]]:
        """JSON records of a progress or event stream. Raises StreamError at an `error` record."""
        response = self.send(method, path, query, body, headers)
        return _records(response, raise_errors)

    def hijack(
        self,
        method: str,
        path: str,
        /,
        body: Any = None,
        **query: Any,
    ) -> Hijacked:
        """A raw stream after an Upgrade (101), or after the plain 200 that old engines give."""
        fields = {"Connection": "Upgrade", "Upgrade": "tcp", "Content-Type": "application/json"}
        payload = json.dumps(body).encode() if body is not None else None
        from dari.client.http import Connection

        target = f"/v{self.api_version}{quote_path(path)}"
        connection = Connection(self.address)
        try:
            response = connection.request(method, target, query, payload, fields)
            if response.status >= 400:
                raise _error(response)
            if response.status not in (101, 200):
                raise ProtocolError(f"the engine answered {response.status} to an upgrade")
        except BaseException:
            connection.close()
            raise
        kind = response.headers.get("content-type", "")
        multiplexed = (
            True
            if kind.endswith("multiplexed-stream")
            else (False if self.supports("1.42") and kind.endswith("raw-stream") else None)
        )
        return Hijacked(connection.sock, connection.take(len(connection.buffer)), multiplexed)


def quote_path(path: str) -> str:
    """A path whose unsafe characters are encoded; already encoded ones (`%2F`) stay."""
    return quote(path, path=True).replace("%25", "%")


def _error(response: Response) -> ApiError:
    data = response.read()
    try:
        found = json.loads(data)
        message = str(found["message"]) if isinstance(found, dict) and "message" in found else data.decode()
    except ValueError:
        message = data.decode(errors="replace").strip()
    return ApiError(response.status, message or response.reason)


def _records(response: Response, raise_errors: bool) -> Iterator[dict[str, Any]]:
    """Splits concatenated JSON objects; newlines between them are not promised (RFC 7464 is not used)."""
    decoder = json.JSONDecoder()
    text = ""
    rest = b""
    for chunk in response:
        rest += chunk
        try:
            text += rest.decode()
            rest = b""
        except UnicodeDecodeError as error:
            text += rest[: error.start].decode()
            rest = rest[error.start :]
        while text := text.lstrip():
            try:
                record, end = decoder.raw_decode(text)
            except ValueError:
                break
            text = text[end:]
            if raise_errors and record.get("error"):
                response.close()
                raise StreamError(str(record["error"]))
            yield record
    if text.strip():
        raise ProtocolError(f"the engine's stream ended in the middle of a record: {text[:80]!r}")
