"""FakeResponder: answers every nudge with "ok" and remembers what it was told. A thread on the nudge's socket."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading

from dari.dns.zone import CONTROL_SOCKET, NUDGE_SOCKET


class FakeResponder:
    """Open with `with`. `told` are the file names of all nudges; `answer` is what it says."""

    def __init__(self, directory: str) -> None:
        self.told: list[str] = []
        self.answer = b"ok"
        self._sockets = []
        os.makedirs(directory, exist_ok=True)
        for name in (NUDGE_SOCKET, CONTROL_SOCKET):
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            listener.bind(f"{directory}/{name}")
            listener.listen(16)
            self._sockets.append(listener)
        self._threads = [
            threading.Thread(target=self._serve, args=(each, is_control), daemon=True)
            for each, is_control in zip(self._sockets, (False, True), strict=True)
        ]

    def _serve(self, listener: socket.socket, is_control: bool) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                message = connection.recv(1 << 18)
                if is_control:
                    status = {"pid": os.getpid(), "views": 0, "zones": 0, "queries": 0, "failed": {}}
                    connection.send(json.dumps(status).encode())
                else:
                    self.told.extend(message.decode().splitlines())
                    connection.send(self.answer)

    def __enter__(self) -> FakeResponder:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._sockets:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for thread in self._threads:
            thread.join(2)
