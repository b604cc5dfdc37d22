"""Progress of pull, push, load and build: lines that redraw on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from dari.units import format_size

Write = Callable[[str], None]


class Progress:
    """Draws records of a progress stream as they come."""

    def __init__(self, write: Write, is_terminal: bool, width: int = 80) -> None:
        self._write, self._is_terminal, self._width = write, is_terminal, width
        self._lines: dict[str, int] = {}

    def show(self, record: dict[str, Any]) -> None:
        """One record: `{"stream": …}` or `{"status": …, "id": …, "progressDetail": …}`."""
        if "stream" in record:
            self._lines.clear()
            self._write(record["stream"])
            return
        status, name = record.get("status"), record.get("id", "")
        if status is None:
            return
        detail = record.get("progressDetail") or {}
        if not self._is_terminal:
            if not detail.get("current"):
                self._write(f"{name}: {status}\n" if name else f"{status}\n")
            return
        if not name:
            self._lines.clear()
            self._write(f"{status}\n")
            return
        self._redraw(name, f"{name}: {status} {bar(detail, self._width)}".rstrip())

    def _redraw(self, name: str, text: str) -> None:
        if name not in self._lines:
            self._lines[name] = len(self._lines)
            self._write(f"{text}\n")
            return
        up = len(self._lines) - self._lines[name]
        self._write(f"\x1b[{up}A\x1b[2K\r{text}\r\x1b[{up}B")


def bar(detail: dict[str, Any], width: int) -> str:
    """`[=====>     ]  1.2MB/3MB`, shorter on narrow terminals."""
    current, total = int(detail.get("current") or 0), int(detail.get("total") or 0)
    if current <= 0:
        return ""
    numbers = format_size(current)
    if total <= 0 or current > total:
        return numbers
    numbers = f"{numbers}/{format_size(total)}"
    if width <= 110:
        return numbers
    done = current * 50 // total
    return f"[{'=' * done}{'>' if done < 50 else ''}{' ' * (49 - done)}]  {numbers}"


def follow(
    records: Iterable[dict[str, Any]], descriptor: int = 1, *, is_quiet: bool = False
) -> list[dict[str, Any]]:
    """Draw all records on a descriptor; returns their `aux` values."""

    def write(text: str) -> None:
        view = memoryview(text.encode())
        while view:
            view = view[os.write(descriptor, view) :]

    is_terminal = os.isatty(descriptor)
    progress = Progress(write, is_terminal, os.get_terminal_size(descriptor).columns if is_terminal else 80)
    found = []
    for record in records:
        if isinstance(record.get("aux"), dict):
            found.append(record["aux"])
        if not is_quiet:
            progress.show(record)
    return found
