"""What the user sees while work goes on: lines that redraw on a terminal, plain lines elsewhere. On stderr.

The words and their places are those of Docker Compose 5 (cmd/display).

Must not know what is worked on; it gets a title ("Container a-web-1") and words ("Starting", "Started").
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any, TextIO

MODES = ("auto", "tty", "plain", "lines", "json", "quiet")
_DRY_RUN = " DRY-RUN MODE - "


class Progress:
    """Collects and draws. `mode` is one of MODES; `auto` asks the terminal, `lines` is for a terminal that shows
    logs at the same time. Usable from many threads.

    `operation`: what is done to the project, told above the lines that redraw. `is_dry_run`: nothing is done, which
    each line says.
    """

    def __init__(
        self,
        mode: str = "auto",
        stream: TextIO | None = None,
        is_coloured: bool | None = None,
        *,
        operation: str = "Running",
        is_dry_run: bool = False,
    ) -> None:
        self._stream = stream or sys.stderr
        if mode == "auto":
            mode = "tty" if self._stream.isatty() else "plain"
        self.mode = mode
        self._operation = operation
        self._mark = _DRY_RUN if is_dry_run else ""
        self._is_coloured = mode in ("tty", "lines") if is_coloured is None else is_coloured
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}
        self._drawn = 0
        self._said: set[tuple[str, str]] = set()

    def begin(self, title: str, word: str, detail: str = "") -> None:
        self._event(title, word, "working", detail)

    def end(self, title: str, word: str, detail: str = "") -> None:
        self._event(title, word, "done", detail)

    def warn(self, title: str, text: str) -> None:
        self._event(title, "Warning", "warning", text)

    def fail(self, title: str, text: str) -> None:
        self._event(title, "Error", "error", text)

    def close(self) -> None:
        """Ends the block: the next one is drawn below it."""
        with self._lock:
            if self.mode == "tty" and self._lines:
                self._draw()
            self._lines.clear()
            self._drawn = 0
            self._said.clear()

    def _event(self, title: str, word: str, state: str, detail: str) -> None:
        if not title or self.mode == "quiet":
            return
        with self._lock:
            if self.mode == "json":
                self._json(title, word, state, detail)
                return
            if self.mode == "plain":
                if (title, word) not in self._said or detail:
                    self._said.add((title, word))
                    self._stream.write(f"{self._mark} {title} {word} {detail}\n")
                    self._stream.flush()
                return
            if self.mode == "lines":
                self._line(title, word, state, detail)
                return
            line = self._lines.setdefault(title, _Line())
            line.update(word, state, detail)
            self._draw()

    def _line(self, title: str, word: str, state: str, detail: str) -> None:
        # That a container starts is seen from what it says.
        if word in ("Starting", "Started"):
            return
        shown = f"\x1b[{_COLOURS.get(state, 32)}m{word}\x1b[0m" if self._is_coloured else word
        self._stream.write(f"{title} {shown} {detail}\n")
        self._stream.flush()

    def _json(self, title: str, word: str, state: str, detail: str) -> None:
        import json

        record: dict[str, Any] = {"id": title, "status": state.capitalize(), "text": word}
        if self._mark:
            record = {"dry-run": True, **record}
        if detail:
            record["details"] = detail
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()

    def _draw(self) -> None:
        width, height = _size(self._stream)
        done = sum(line.state != "working" for line in self._lines.values())
        lines = [f"[+] {self._operation} {done}/{len(self._lines)}"]
        shown = list(self._lines.items())[-(height - 2) :]
        widest = max((len(title) for title, _ in shown), default=0)
        for title, line in shown:
            lines.append(line.text(self._mark, title, widest, width, self._is_coloured))
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._stream.write(up + "".join(f"\r\x1b[2K{line}\n" for line in lines))
        self._stream.flush()
        self._drawn = len(lines)


_SIGNS = {"done": "✔", "error": "✘", "warning": "!"}
_COLOURS = {"done": 32, "error": 31, "warning": 33}


class _Line:
    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.ended = 0.0
        self.word, self.state, self.detail = "", "working", ""

    def update(self, word: str, state: str, detail: str) -> None:
        if self.state != "working" and state == "working":
            self.ended = 0.0
        self.word, self.state, self.detail = word, state, detail
        if state != "working":
            self.ended = time.monotonic()

    def text(self, mark: str, title: str, widest: int, width: int, is_coloured: bool) -> str:
        sign, colour = _SIGNS.get(self.state, "-"), _COLOURS.get(self.state, 34)
        seconds = f"{(self.ended or time.monotonic()) - self.begun:.1f}s"
        middle = f"{title:<{widest}} {self.word} {self.detail}".replace("\n", " ")
        room = max(width - len(seconds) - len(mark) - 5, 10)
        middle = middle[:room].ljust(room)
        if not is_coloured:
            return f" {sign}{mark} {middle} {seconds}"
        shown = f"\x1b[34m{mark}\x1b[0m" if mark else ""
        return f" \x1b[{colour}m{sign}\x1b[0m{shown} {middle} \x1b[34m{seconds}\x1b[0m"


def _size(stream: TextIO) -> tuple[int, int]:
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return 80, 24
    return size.columns or 80, size.lines or 24
