"""The machine of the scenarios, seen through the clients people use: docker-py and the docker command."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import Node, machine, node

__all__ = ["machine", "node"]


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str


Docker = Callable[..., Done]


@pytest.fixture
def docker_cli(node: Node) -> Docker:
    """Run the docker command against the node; `stdin` is text."""
    program = shutil.which("docker")
    if program is None:
        pytest.skip("needs the docker command")

    def run(*words: str, stdin: str | None = None, timeout: float = 60 * PATIENCE) -> Done:
        done = subprocess.run(
            [program, "-H", f"unix://{node.socket}", *words],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


class Terminal:
    """The docker command on a terminal of its own."""

    def __init__(self, socket: str, *words: str) -> None:
        self.text = ""
        pid, self._fd = pty.fork()
        if pid == 0:
            os.execvp("docker", ["docker", "-H", f"unix://{socket}", *words])
        self._pid, self._is_over = pid, False

    def expect(self, wanted: str, seconds: float = 20) -> str:
        """Read until `wanted` appears; what came up to it."""
        deadline = time.monotonic() + seconds * PATIENCE
        while wanted not in self.text:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._fd], [], [], left)[0]:
                raise AssertionError(f"{wanted!r} never came: {self.text!r}")
            try:
                data = os.read(self._fd, 65536)
            except OSError:
                data = b""
            if not data:
                raise AssertionError(f"ended before {wanted!r}: {self.text!r}")
            self.text += data.decode(errors="replace")
        before, _, self.text = self.text.partition(wanted)
        return before

    def send(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait(self) -> int:
        """The exit code."""
        while True:
            try:
                if not os.read(self._fd, 65536):
                    break
            except OSError:
                break
        _, status = os.waitpid(self._pid, 0)
        os.close(self._fd)
        self._is_over = True
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """End a command nobody waited for."""
        if not self._is_over:
            os.kill(self._pid, signal.SIGKILL)
            self.wait()


@pytest.fixture
def terminal(node: Node) -> Iterator[Callable[..., Terminal]]:
    if shutil.which("docker") is None:
        pytest.skip("needs the docker command")
    made: list[Terminal] = []

    def on_terminal(*words: str) -> Terminal:
        made.append(Terminal(node.socket, *words))
        return made[-1]

    yield on_terminal
    for each in made:
        each.close()
