"""One line of a k8s-file log, and the way from lines to entries. Pure, and quick: a log has a million of them.

Must not know: files. Format (conmon(8), Kubernetes CRI logging): `TIME STREAM TAG TEXT`, TIME in RFC 3339 with
nanoseconds, TAG `F` for a full line, `P` for a piece that the next line of the stream goes on with. A tag of our own,
`P:end`, stands behind the pieces of a line that a run ended in: who does not know it reads an empty piece.
"""

from __future__ import annotations

from datetime import datetime

from dari.runtime.launch import STDERR, STDOUT, LogEntry

END = b"P:end"
_SECOND = 1_000_000_000
# A process that writes no newline at all must not fill the memory of who reads its log.
_LONGEST = 1 << 20


class Joiner:
    """Puts the pieces of lines together; keeps to itself what is not finished. Only wanted streams come out."""

    def __init__(self, has_stdout: bool, has_stderr: bool) -> None:
        self._wanted = {b"stdout": STDOUT} if has_stdout else {}
        if has_stderr:
            self._wanted[b"stderr"] = STDERR
        self._pieces: dict[int, list[bytes]] = {}
        self._sizes: dict[int, int] = {}
        self._times: dict[int, int] = {}
        self._second_text = b""
        self._second = 0

    def feed(self, lines: list[bytes]) -> list[LogEntry]:
        """The entries that `lines` (without their newlines) complete. Lines that are none are left out."""
        entries = []
        for line in lines:
            parts = line.split(b" ", 3)
            if len(parts) != 4:
                continue
            stream = self._wanted.get(parts[1])
            if stream is None:
                continue
            text = parts[3]
            if parts[2] == b"F":
                if stream in self._pieces:
                    text = b"".join((*self._pieces.pop(stream), text))
                    time = self._times.pop(stream)
                else:
                    time = self.time(parts[0])
                entries.append(LogEntry(time=time, stream=stream, data=text + b"\n"))
                continue
            if parts[2] == END:
                if stream in self._pieces:
                    entries.append(self._give_up(stream))
                continue
            pieces = self._pieces.setdefault(stream, [])
            if not pieces:
                self._times[stream] = self.time(parts[0])
                self._sizes[stream] = 0
            pieces.append(text)
            self._sizes[stream] += len(text)
            if self._sizes[stream] > _LONGEST:
                entries.append(self._give_up(stream))
        return entries

    def until(self, lines: list[bytes], end: int) -> list[bytes]:
        """Without the last ones that were written after `end` (ns), pieces of lines counting for themselves."""
        count = len(lines)
        while count and self._is_after(lines[count - 1], end):
            count -= 1
        return lines[:count]

    def _is_after(self, line: bytes, end: int) -> bool:
        parts = line.split(b" ", 2)
        return len(parts) == 3 and parts[1] in (b"stdout", b"stderr") and self.time(parts[0]) > end

    def flush(self) -> list[LogEntry]:
        """What is there of unfinished lines, without a newline."""
        return [self._give_up(stream) for stream in list(self._pieces)]

    def time(self, text: bytes) -> int:
        """Nanoseconds since the epoch. Raises ValueError."""
        # Most lines share their second with the line before.
        head, rest = text[:19], text[19:]
        fraction, offset = rest[1:10], rest[10:]
        if head + offset != self._second_text:
            moment = datetime.fromisoformat((head + offset).decode())
            self._second = int(moment.timestamp()) * _SECOND
            self._second_text = head + offset
        return self._second + int(fraction)

    def _give_up(self, stream: int) -> LogEntry:
        return LogEntry(time=self._times.pop(stream), stream=stream, data=b"".join(self._pieces.pop(stream)))
