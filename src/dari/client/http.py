"""HTTP/1.1 over a blocking socket: just what the Docker Engine API needs (RFC 9112).

Why not `http.client`: importing it costs 30 ms and each run of the command would pay for it. Keep-alive,
chunked bodies both ways, and the Upgrade that turns a connection into a raw stream. Knows nothing of Docker:
paths, versions and JSON live in `docker.py`.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dari.client.errors import ConnectionFailed, ProtocolError

Query = Mapping[str, Any]
Body = bytes | Iterable[bytes] | None
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH_SAFE = _UNRESERVED | frozenset(b"/:@!$&'()*+,;=")
_READ_SIZE = 65536
_MAX_HEAD = 1 << 20


def quote(text: str, *, path: bool = False) -> str:
    """`text` percent-encoded for a query, or for a path (RFC 3986)."""
    safe = _PATH_SAFE if path else _UNRESERVED
    return "".join(chr(byte) if byte in safe else f"%{byte:02X}" for byte in text.encode())


def encode_query(query: Query) -> str:
    """`?a=1&b=2`, or nothing. None is left out, lists repeat the key, mappings become JSON, booleans 1/0."""
    pairs: list[str] = []
    for key, value in query.items():
        for item in value if isinstance(value, list | tuple) else (value,):
            if item is None:
                continue
            if isinstance(item, bool):
                item = "1" if item else "0"
            elif isinstance(item, Mapping):
                import json

                item = json.dumps(item, separators=(",", ":"))
            pairs.append(f"{quote(key)}={quote(str(item))}")
    return "?" + "&".join(pairs) if pairs else ""


class Address:
    """Where an engine listens: `unix:///path` or `tcp://host:port` (TLS when `tls` is a certificate folder).

    `tls` None means plain TCP; an empty string means TLS with the system's authorities.
    """

    def __init__(self, host: str, tls: str | None = None, verify: bool = True) -> None:
        self.host = host
        self.tls = tls
        self.verify = verify
        scheme, separator, rest = host.partition("://")
        if not separator:
            scheme, rest = ("unix", host) if host.startswith("/") else ("tcp", host)
        if scheme == "unix":
            self.path: str | None = rest
            self.name, self.port = "", 0
        elif scheme in ("tcp", "http", "https"):
            if scheme == "https" and tls is None:
                self.tls = ""
            self.path = None
            rest = rest.split("/", 1)[0]
            default = "2376" if self.tls is not None else "2375"
            if rest.startswith("["):
                self.name, _, port = rest[1:].partition("]")
                port = port.removeprefix(":") or default
            else:
                self.name, _, port = rest.partition(":")
            if not (port or default).isdigit():
                raise ConnectionFailed(host, f"invalid port {port!r}")
            self.name, self.port = self.name or "127.0.0.1", int(port or default)
        else:
            raise ConnectionFailed(host, f"unknown scheme {scheme!r}, use unix:// or tcp://")

    def connect(self, timeout: float | None = None) -> socket.socket:
        """A connected blocking socket; raises ConnectionFailed."""
        try:
            if self.path is not None:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    sock.settimeout(timeout)
                    sock.connect(self.path)
                except BaseException:
                    sock.close()
                    raise
            else:
                sock = socket.create_connection((self.name, self.port), timeout)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.tls is not None:
                    sock = self._wrap(sock)
        except PermissionError as error:
            raise ConnectionFailed(self.host, "permission denied") from error
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise ConnectionFailed(self.host) from error
        except OSError as error:
            raise ConnectionFailed(self.host, str(error)) from error
        sock.settimeout(None)
        return sock

    def _wrap(self, sock: socket.socket) -> socket.socket:
        import ssl
        from pathlib import Path

        context = ssl.create_default_context()
        folder = Path(self.tls) if self.tls else None
        if folder is not None and (folder / "ca.pem").exists():
            context.load_verify_locations(folder / "ca.pem")
        if folder is not None and (folder / "cert.pem").exists():
            context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(sock, server_hostname=self.name)


class Connection:
    """One socket and what was read ahead from it. Not safe for two threads at once; see `Pool`."""

    def __init__(self, address: Address, timeout: float | None = None) -> None:
        self.address = address
        self.sock = address.connect(timeout)
        self.buffer = bytearray()
        self.requests = 0

    def close(self) -> None:
        self.sock.close()

    def fill(self) -> bool:
        """Reads more into the buffer; False at the end of the stream."""
        try:
            data = self.sock.recv(_READ_SIZE)
        except ConnectionResetError:
            return False
        self.buffer += data
        return bool(data)

    def take(self, size: int) -> bytes:
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    def read_line(self) -> bytes:
        """One line without its end; raises ProtocolError at the end of the stream."""
        while (end := self.buffer.find(b"\n")) < 0:
            if len(self.buffer) > _MAX_HEAD:
                raise ProtocolError("the engine sent a header line without an end")
            if not self.fill():
                raise ProtocolError("the engine closed the connection in the middle of an answer")
        return self.take(end + 1).rstrip(b"\r\n")

    def request(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Sends one request and reads the head of its answer.

        `path` is sent as it is (already encoded), `body` bytes with a length, an iterable chunk by chunk.
        Raises ProtocolError; `Stale` when a kept connection turned out to be dead before any answer.
        """
        target = path + encode_query(query or {})
        host = "localhost" if self.address.path is not None else f"{self.address.name}:{self.address.port}"
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "User-Agent: dari"]
        lines += [f"{key}: {value}" for key, value in (headers or {}).items()]
        if isinstance(body, bytes):
            lines.append(f"Content-Length: {len(body)}")
        elif body is not None:
            lines.append("Transfer-Encoding: chunked")
        elif method in ("POST", "PUT"):
            lines.append("Content-Length: 0")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        self.requests += 1
        try:
            if isinstance(body, bytes):
                self.sock.sendall(head + body)
            else:
                self.sock.sendall(head)
                if body is not None:
                    for chunk in body:
                        if chunk:
                            self.sock.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                    self.sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            # An engine that refuses a long body answers first and closes: its answer says more than EPIPE.
            if self.requests > 1:
                raise Stale("the kept connection was closed") from None
        if not self.buffer and not self.fill():
            if self.requests > 1:
                raise Stale("the kept connection was closed")
            raise ProtocolError(f"the engine at {self.address.host} closed the connection without an answer")
        return self._read_head(method)

    def _read_head(self, method: str) -> Response:
        while True:
            version, _, rest = self.read_line().decode("latin-1").partition(" ")
            code, _, reason = rest.partition(" ")
            if not version.startswith("HTTP/1.") or not code.isdigit():
                raise ProtocolError(f"the engine at {self.address.host} does not speak HTTP")
            headers: dict[str, str] = {}
            while line := self.read_line():
                key, _, value = line.decode("latin-1").partition(":")
                headers[key.strip().lower()] = value.strip()
            if int(code) != 100:
                return Response(self, method, int(code), reason, headers)


class Stale(ProtocolError):
    """A kept connection was closed by the engine before it answered: safe to send again."""


class Response:
    """Status, headers (lower-case names) and the body, read in pieces as they come.

    The connection goes back to its pool when the body has been read to its end, and is closed otherwise.
    """

    def __init__(
        self, connection: Connection, method: str, status: int, reason: str, headers: dict[str, str]
    ) -> None:
        self.connection = connection
        self.status = status
        self.reason = reason
        self.headers = headers
        self.pool: Pool | None = None
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length")
        self._left: int | None = int(length) if length is not None and not self._chunked else None
        self._done = False
        self._keep = headers.get("connection", "").lower() != "close"
        if method == "HEAD" or status in (204, 304) or self._left == 0:
            self._finish()

    def _finish(self) -> None:
        if not self._done:
            self._done = True
            if self.pool is not None:
                self.pool.give_back(self.connection, keep=self._keep)

    def adopt(self, pool: Pool) -> None:
        """Says where the connection goes at the end of the body."""
        self.pool = pool
        if self._done:
            pool.give_back(self.connection, keep=self._keep)

    def read_some(self) -> bytes:
        """The next piece of the body, as soon as there is one; empty at its end. Raises ProtocolError."""
        if self._done:
            return b""
        connection = self.connection
        if self._chunked:
            return self._read_chunk()
        if not connection.buffer and not connection.fill():
            if self._left is not None:
                self.close()
                raise ProtocolError("the engine closed the connection in the middle of an answer")
            self._keep = False
            self._finish()
            return b""
        size = len(connection.buffer) if self._left is None else min(self._left, len(connection.buffer))
        data = connection.take(size)
        if self._left is not None:
            self._left -= size
            if self._left == 0:
                self._finish()
        return data

    def _read_chunk(self) -> bytes:
        connection = self.connection
        if not self._left:
            text = connection.read_line().split(b";")[0].strip()
            try:
                self._left = int(text, 16)
            except ValueError:
                self.close()
                raise ProtocolError(f"bad chunk size {text!r}") from None
            if self._left == 0:
                while connection.read_line():
                    pass
                self._finish()
                return b""
        if not connection.buffer and not connection.fill():
            self.close()
            raise ProtocolError("the engine closed the connection in the middle of an answer")
        data = connection.take(min(self._left, len(connection.buffer)))
        self._left -= len(data)
        if self._left == 0:
            connection.read_line()
        return data

    def __iter__(self) -> Iterator[bytes]:
        try:
            while data := self.read_some():
                yield data
        finally:
            self.close()

    def read(self) -> bytes:
        """The whole rest of the body."""
        return b"".join(self)

    def close(self) -> None:
        """Drops the connection when the body was not read to its end; harmless otherwise."""
        if not self._done:
            self._keep = False
            self._finish()
            self.connection.close()


class Pool:
    """Idle connections to one engine; any thread may take one."""

    def __init__(self, address: Address, limit: int = 32) -> None:
        self.address = address
        self._limit = limit
        self._idle: list[Connection] = []
        self._lock = threading.Lock()

    def give_back(self, connection: Connection, *, keep: bool) -> None:
        with self._lock:
            if keep and not connection.buffer and len(self._idle) < self._limit:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def send(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """One request over a kept or a new connection. Raises ConnectionFailed, ProtocolError."""
        while True:
            with self._lock:
                kept = self._idle.pop() if self._idle and (body is None or isinstance(body, bytes)) else None
            connection = kept or Connection(self.address)
            try:
                response = connection.request(method, path, query, body, headers)
            except Stale:
                connection.close()
                continue
            except BaseException:
                connection.close()
                raise
            if response.status != 101:
                response.adopt(self)
            return response
