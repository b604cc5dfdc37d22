"""Container output on the wire: the multiplexed stream of attach, exec and logs, and raw terminals.

Without a tty the engine sends frames: one byte of stream number (1 stdout, 2 stderr), three zero bytes, a
big-endian length, the bytes (Docker API, "Attach to a container"). With a tty the bytes come bare.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

from dari.client.docker import Hijacked
from dari.client.errors import ProtocolError

STDIN, STDOUT, STDERR = 0, 1, 2
DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"


def demux(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """`(stream, bytes)` of a multiplexed stream; a long frame is passed on in pieces as it comes."""
    buffer = bytearray()
    stream, left = 0, 0
    for chunk in chunks:
        buffer += chunk
        while buffer:
            if left == 0:
                if len(buffer) < 8:
                    break
                stream, left = buffer[0], int.from_bytes(buffer[4:8], "big")
                if stream > STDERR or any(buffer[1:4]):
                    raise ProtocolError("the engine's stream is not multiplexed")
                del buffer[:8]
                continue
            data = bytes(buffer[:left])
            del buffer[: len(data)]
            left -= len(data)
            yield stream, data


def raw(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The same shape for a stream of a container with a tty: everything is stdout."""
    for chunk in chunks:
        yield STDOUT, chunk


def parse_detach_keys(text: str) -> bytes:
    """Bytes of `ctrl-p,ctrl-q` or `a,b`. Raises ValueError for an unknown key."""
    keys = bytearray()
    for name in filter(None, text.split(",")):
        if len(name) == 1:
            keys += name.encode()
        elif name.startswith("ctrl-") and len(name) == 6 and 0x40 <= ord(name[5].upper()) <= 0x5F:
            keys.append(ord(name[5].upper()) & 0x1F)
        else:
            raise ValueError(f"Unknown character: '{name}'")
    return bytes(keys)


class DetachFilter:
    """Looks for the detach keys in typed bytes, which may come one at a time."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What may be sent on, and whether the keys were met (a begun sequence is held back)."""
        if not self._keys:
            return data, False
        data = self._held + data
        found = data.find(self._keys)
        if found >= 0:
            self._held = b""
            return data[:found], True
        for size in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if data.endswith(self._keys[:size]):
                self._held = data[-size:]
                return data[:-size], False
        self._held = b""
        return data, False


class RawTerminal:
    """Puts the terminal behind `fd` into raw mode inside a `with`; harmless when `fd` is no terminal."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[Any] | None = None

    def __enter__(self) -> RawTerminal:
        if os.isatty(self._fd):
            import termios
            import tty

            self._saved = termios.tcgetattr(self._fd)
            tty.setraw(self._fd, termios.TCSANOW)  # what was typed ahead is kept
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._saved is not None:
            import termios

            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)


def terminal_size(fd: int) -> tuple[int, int] | None:
    """`(rows, columns)` of the terminal behind `fd`, None when it is none."""
    try:
        size = os.get_terminal_size(fd)
    except OSError:
        return None
    return size.lines, size.columns


def interact(
    stream: Hijacked,
    *,
    tty: bool,
    stdin: int | None = 0,
    stdout: int | None = 1,
    stderr: int | None = 2,
    detach_keys: bytes = b"",
    on_resize: Callable[[int, int], None] | None = None,
) -> bool:
    """Joins file descriptors with a hijacked stream until the engine closes it.

    With `tty` and a terminal on `stdin` the terminal is raw meanwhile and `on_resize(rows, columns)` is
    called at the start and at each SIGWINCH (main thread only). Returns True when the user typed the detach
    keys, False at the end of the stream.
    """
    import contextlib

    with contextlib.ExitStack() as stack:
        if tty and stdin is not None:
            stack.enter_context(RawTerminal(stdin))
        if on_resize is not None and stdout is not None:
            stack.callback(_watch_size(stdout, on_resize))
        return _copy(stream, tty, stdin, stdout, stderr, DetachFilter(detach_keys if tty else b""))


def _watch_size(fd: int, on_resize: Callable[[int, int], None]) -> Callable[[], None]:
    import signal

    def report(*_: object) -> None:
        size = terminal_size(fd)
        if size is not None:
            on_resize(*size)

    previous = signal.signal(signal.SIGWINCH, report)
    report()

    def restore() -> None:
        signal.signal(signal.SIGWINCH, previous)

    return restore


def _copy(
    stream: Hijacked,
    tty: bool,
    stdin: int | None,
    stdout: int | None,
    stderr: int | None,
    keys: DetachFilter,
) -> bool:
    feed = _Demux(tty, stdout, stderr)
    while True:
        watched: list[int] = [stream.sock.fileno()] + ([stdin] if stdin is not None else [])
        ready = [watched[0]] if stream.has_read_ahead else select.select(watched, [], [])[0]
        if watched[0] in ready:
            data = stream.recv()
            if not data:
                return False
            feed.write(data)
        if stdin is not None and stdin in ready:
            typed = os.read(stdin, 65536)
            if not typed:
                stream.close_write()
                stdin = None
                continue
            passed, is_detached = keys.feed(typed)
            try:
                if passed:
                    stream.send(passed)
            except (BrokenPipeError, ConnectionResetError):
                stdin = None
            if is_detached:
                return True


class _Demux:
    """Writes pieces of a stream to descriptors, keeping a frame that is cut in the middle."""

    def __init__(self, tty: bool, stdout: int | None, stderr: int | None) -> None:
        self._tty = tty
        self._targets = {STDIN: stdout, STDOUT: stdout, STDERR: stderr}
        self._buffer = bytearray()
        self._stream, self._left = 0, 0

    def write(self, data: bytes) -> None:
        if self._tty:
            _write(self._targets[STDOUT], data)
            return
        self._buffer += data
        while self._buffer:
            if self._left == 0:
                if len(self._buffer) < 8:
                    return
                self._stream, self._left = self._buffer[0], int.from_bytes(self._buffer[4:8], "big")
                if self._stream > STDERR:
                    raise ProtocolError("the engine's stream is not multiplexed")
                del self._buffer[:8]
                continue
            part = bytes(self._buffer[: self._left])
            del self._buffer[: len(part)]
            self._left -= len(part)
            _write(self._targets[self._stream], part)


def _write(fd: int | None, data: bytes) -> None:
    while fd is not None and data:
        data = data[os.write(fd, data) :]
