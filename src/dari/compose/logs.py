"""Output of many containers as one: prefixes, colours, whole lines, following.

One thread per followed container; one lock keeps lines whole.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from dari.client.docker import Docker
from dari.client.errors import ClientError
from dari.client.streams import STDERR, demux, raw
from dari.compose.lines import LineSplitter

_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)


class Printer:
    """Writes lines with the container's name before them. Usable from many threads."""

    def __init__(
        self,
        *,
        has_prefix: bool = True,
        is_coloured: bool | None = None,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self._out, self._err = stdout or sys.stdout, stderr or sys.stderr
        self._has_prefix = has_prefix
        self._is_coloured = self._out.isatty() if is_coloured is None else is_coloured
        self._names: dict[str, int] = {}
        self._width = 0
        self._lock = threading.Lock()

    def register(self, names: Iterable[str]) -> None:
        """Makes room for names, so that columns do not move later."""
        with self._lock:
            for name in names:
                self._names.setdefault(name, len(self._names))
                self._width = max(self._width, len(name))

    def line(self, name: str, text: str, is_error: bool = False) -> None:
        """One line of one container."""
        with self._lock:
            stream = self._err if is_error else self._out
            stream.write(self._prefix(name) + text + "\n")
            stream.flush()

    def notice(self, name: str, text: str) -> None:
        """A line about a container, in its colour: `web-1 exited with code 0`."""
        with self._lock:
            shown = (
                f"\x1b[{self._colour(name)}m{name} {text}\x1b[0m" if self._is_coloured else f"{name} {text}"
            )
            self._out.write(shown + "\n")
            self._out.flush()

    def _colour(self, name: str) -> int:
        return _COLOURS[self._names.setdefault(name, len(self._names)) % len(_COLOURS)]

    def _prefix(self, name: str) -> str:
        if not self._has_prefix:
            return ""
        self._width = max(self._width, len(name))
        text = f"{name:<{self._width}}  | "
        return f"\x1b[{self._colour(name)}m{text}\x1b[0m" if self._is_coloured else text


def stream(
    docker: Docker, container: str, printer: Printer, name: str, *, has_tty: bool | None = None, **query: Any
) -> None:
    """Prints a container's log until it ends (with `follow`: until the container stops).

    `has_tty`: None when unknown; then the engine's answer or the container's configuration tells.
    """
    response = docker.send("GET", f"/containers/{container}/logs", {"stdout": True, "stderr": True, **query})
    kind = response.headers.get("content-type", "")
    if kind.endswith("multiplexed-stream"):
        has_tty = False
    elif docker.supports("1.42") and kind.endswith("raw-stream"):
        has_tty = True
    elif has_tty is None:
        has_tty = bool((docker.get(f"/containers/{container}/json").get("Config") or {}).get("Tty"))
    splitters = {True: LineSplitter(), False: LineSplitter()}
    for number, data in raw(response) if has_tty else demux(response):
        for line in splitters[number == STDERR].feed(data):
            printer.line(name, line, number == STDERR)
    for is_error, splitter in splitters.items():
        for line in splitter.end():
            printer.line(name, line, is_error)


class Followers:
    """Threads that print logs; `join` waits for all, errors are told at the end."""

    def __init__(self, docker: Docker, printer: Printer) -> None:
        self._docker = docker
        self._printer = printer
        self._threads: dict[str, threading.Thread] = {}
        self.errors: list[str] = []

    def follow(
        self, container: str, name: str, query: Mapping[str, Any], has_tty: bool | None = None
    ) -> None:
        """Begins to print a container's log, unless that is being done already."""
        thread = self._threads.get(container)
        if thread is not None and thread.is_alive():
            return
        thread = threading.Thread(
            target=self._run, args=(container, name, dict(query), has_tty), name=f"log of {name}", daemon=True
        )
        self._threads[container] = thread
        thread.start()

    def _run(self, container: str, name: str, query: dict[str, Any], has_tty: bool | None) -> None:
        try:
            stream(self._docker, container, self._printer, name, has_tty=has_tty, **query)
        except (ClientError, OSError) as error:
            self.errors.append(f"{name}: {error}")

    def wait_for(self, container: str, timeout: float | None = None) -> None:
        """Waits until a container's log has ended."""
        thread = self._threads.get(container)
        if thread is not None:
            thread.join(timeout)

    def join(self) -> None:
        """Waits for all logs to end."""
        for thread in list(self._threads.values()):
            # A join without a timeout cannot be interrupted by Ctrl-C on some systems.
            while thread.is_alive():
                thread.join(0.5)


def short_name(project: str, container: str) -> str:
    """A container's name as a prefix: without the project before it."""
    return container.removeprefix(f"{project}-")
