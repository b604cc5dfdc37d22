"""What skopeo shows of a transfer, as Docker's lines: layers with their bytes.

Asked on a terminal, skopeo draws a line for each blob, again and again: `Copying blob 27ce708cd0ff [==>--] 3.2MiB /
25.1MiB`, in the end `done` or `skipped: already exists`. Without one it names each blob once. Pure. Must not know:
programs, registries. Source: containers/image, copy/progress_bars.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_BLOB = re.compile(r"Copying blob (?:sha256:)?(?P<id>[0-9a-f]{12})[0-9a-f]*(?P<rest>.*)")
_SIZE = r"([0-9.]+)([KMGT]?)i?[Bb]"
_BYTES = re.compile(rf"{_SIZE}(?:\s*/\s*{_SIZE})?\s*\Z")
_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True, slots=True)
class Progress:
    """One line of a transfer: what happens (Docker's words), to which layer or tag; `aux` for machines.

    `current` of `total` bytes, 0 where it is not known.
    """

    status: str
    id: str = ""
    is_layer: bool = False
    aux: dict[str, Any] | None = None
    current: int = 0
    total: int = 0


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Seen:
    """A blob on a line of skopeo's. `current` of `total` bytes as shown, four digits of them."""

    id: str
    is_skipped: bool = False
    is_done: bool = False
    current: int = 0
    total: int = 0


def read(line: str) -> Seen | None:
    """The blob a line is about, None where it is about something else."""
    match = _BLOB.match(line)
    if match is None:
        return None
    rest = match["rest"].strip()
    if rest.startswith("skipped"):
        return Seen(match["id"], is_skipped=True)
    if rest.startswith("done"):
        return Seen(match["id"], is_done=True)
    sizes = _BYTES.search(rest)
    if sizes is None:
        return Seen(match["id"])
    total = _bytes(sizes[3], sizes[4]) if sizes[3] else 0
    return Seen(match["id"], current=_bytes(sizes[1], sizes[2]), total=total)


def _bytes(number: str, unit: str) -> int:
    return round(float(number) * _FACTORS[unit])


class _Watcher:
    """Says each thing once, though skopeo draws it many times. Subclasses give the words."""

    begun = moving = done = skipped = ended = ""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._last: dict[str, Seen] = {}

    def line(self, text: str) -> None:
        seen = read(text)
        if seen is None:
            return
        last = self._last.get(seen.id)
        if seen == last or (last is not None and (last.is_done or last.is_skipped)):
            return
        self._last[seen.id] = seen
        if seen.is_skipped:
            self._say(self.skipped, seen)
            return
        if last is None:
            self._say(self.begun, Seen(seen.id))
        if seen.is_done:
            self._say(self.done, seen)
        elif seen.current:
            self._say(self.moving, seen)

    def finish(self) -> None:
        """After skopeo's good end."""
        for seen in self._last.values():
            if seen.is_skipped:
                continue
            if not seen.is_done:
                self._say(self.done, Seen(seen.id))
            self._say(self.ended, Seen(seen.id))

    def _say(self, status: str, seen: Seen) -> None:
        if status:
            self._report(Progress(status, seen.id, is_layer=True, current=seen.current, total=seen.total))


class PullWatcher(_Watcher):
    begun, moving, done = "Pulling fs layer", "Downloading", "Download complete"
    skipped, ended = "Already exists", "Pull complete"


class PushWatcher(_Watcher):
    begun, moving, ended = "Preparing", "Pushing", "Pushed"
    skipped = "Layer already exists"
