"""Streams of bytes to whole lines."""

from __future__ import annotations

from collections.abc import Iterator


class LineSplitter:
    """Whole lines of one stream; the rest waits for more."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r").decode(errors="replace")

    def end(self) -> Iterator[str]:
        """What never got its newline."""
        if self._rest:
            yield self._rest.decode(errors="replace")
            self._rest = b""
