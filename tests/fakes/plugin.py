"""FakePlugin: a plugin that says what a test tells it to, over a real unix socket.

`answers[method]` is what it answers: a dict, bytes as they are, an (HTTP status, text) pair, or a function of the
request. `hang` methods are not answered until the plugin stops; at `die` methods it hangs up and is gone.
"""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE

Request = dict[str, Any]


class FakePlugin:
    def __init__(self, folder: Path, name: str, *implements: str) -> None:
        self.path = folder / f"{name}.sock"
        self.name = name
        self.calls: list[tuple[str, Request]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: dict[str, Any] = {
            "Plugin.Activate": {"Implements": list(implements or ("NetworkDriver", "IpamDriver"))},
            "NetworkDriver.GetCapabilities": {"Scope": "local"},
            "IpamDriver.GetCapabilities": {},
            "IpamDriver.GetDefaultAddressSpaces": {
                "LocalDefaultAddressSpace": "here",
                "GlobalDefaultAddressSpace": "there",
            },
        }
        self.hang: set[str] = set()
        self.die: set[str] = set()
        self.stopped = threading.Event()
        self._server: socketserver.ThreadingUnixStreamServer | None = None

    def start(self) -> FakePlugin:
        self.stopped.clear()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        server = socketserver.ThreadingUnixStreamServer(str(self.path), _handler(self))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self._server = server
        return self

    def stop(self, *, leaves_socket: bool = False) -> None:
        self.stopped.set()
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        if not leaves_socket:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> FakePlugin:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def methods(self, *leaving_out: str) -> list[str]:
        """What was called, without the subsystem, handshakes left out."""
        found = [method for method, _ in self.calls if method not in leaving_out]
        quiet = ("Plugin.Activate", "NetworkDriver.GetCapabilities", "IpamDriver.GetCapabilities")
        return [method.partition(".")[2] for method in found if method not in quiet]

    def wait_for(self, method: str) -> None:
        """Until that call has come."""
        deadline = time.monotonic() + 30 * PATIENCE
        while method not in [name for name, _ in self.calls]:
            assert time.monotonic() < deadline, f"{method} was not called"
            time.sleep(0.01)

    def last(self, method: str) -> Request:
        return next(body for name, body in reversed(self.calls) if name.endswith(f".{method}"))


def _handler(plugin: FakePlugin) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            method = self.path.lstrip("/")
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            plugin.calls.append((method, body))
            plugin.headers.append(dict(self.headers.items()))
            if method in plugin.die:
                threading.Thread(target=plugin.stop, kwargs={"leaves_socket": True}).start()
                plugin.stopped.wait(10 * PATIENCE)
                return
            if method in plugin.hang:
                plugin.stopped.wait(60 * PATIENCE)
                return
            answer = plugin.answers.get(method, {})
            if isinstance(answer, Callable):  # type: ignore[arg-type]
                answer = answer(body)
            status = 200
            if isinstance(answer, tuple):
                status, answer = answer
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            if isinstance(answer, str):
                content = answer.encode()
            # Who asked may have been killed meanwhile.
            with contextlib.suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class FakePools:
    """IPAM answers: pools 10.77.<n>.0/24 and their addresses in order; what is given and not back is in `held`."""

    def __init__(self, plugin: FakePlugin) -> None:
        self.held: set[str] = set()
        self.next_pool = 0
        self.next_address: dict[str, int] = {}
        plugin.answers |= {
            "IpamDriver.RequestPool": self.request_pool,
            "IpamDriver.ReleasePool": self.release_pool,
            "IpamDriver.RequestAddress": self.request_address,
            "IpamDriver.ReleaseAddress": self.release_address,
        }

    def request_pool(self, body: Request) -> Request:
        if body["Pool"]:
            pool = body["Pool"]
        else:
            pool = f"10.77.{self.next_pool}.0/24"
            self.next_pool += 1
        self.held.add(f"pool-{pool}")
        return {"PoolID": f"pool-{pool}", "Pool": pool}

    def release_pool(self, body: Request) -> Request:
        self.held.discard(body["PoolID"])
        return {}

    def request_address(self, body: Request) -> Request:
        pool = body["PoolID"]
        base = pool.removeprefix("pool-").rpartition(".")[0]
        address = body["Address"]
        if not address:
            self.next_address[pool] = self.next_address.get(pool, 0) + 1
            address = f"{base}.{self.next_address[pool]}"
        if address in self.held:
            return {"Error": f"{address} is taken"}
        self.held.add(address)
        return {"Address": f"{address}/24"}

    def release_address(self, body: Request) -> Request:
        self.held.discard(body["Address"])
        return {}
