"""A further process in a running container: `crun exec`, its streams, its exit code.

The process belongs to this daemon: when the daemon dies its streams end. Must not know: who asked, healthchecks.
"""

from __future__ import annotations


class ExecHandle:
    """A running exec; satisfies `launch.Stdio` for its streams."""

    pid: int

    async def read(self) -> tuple[int, bytes] | None:
        """The next piece as (1 stdout | 2 stderr, bytes); None when both have ended."""
        raise NotImplementedError

    async def write(self, data: bytes) -> None:
        raise NotImplementedError

    async def close_stdin(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the streams; the process goes on."""
        raise NotImplementedError

    def resize(self, height: int, width: int) -> None:
        raise NotImplementedError

    async def wait(self) -> int:
        """The exit code, 128+n for a signal. May be awaited by several."""
        raise NotImplementedError
