"""buildah's report of a build as the lines Docker's builder writes.

Pure. Must not know: where images lie. Sources: buildah-build(1); the output of `DOCKER_BUILDKIT=0 docker build`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from dari.runtime.dockerfile import Steps

_STEP = re.compile(r"(?:\[(\d+)/(\d+)\] )?STEP (\d+)/(\d+): (.*)", re.DOTALL)
_LAYER = re.compile(r"(?:\[\d+/\d+\] )?--> (Using cache )?([0-9a-f]{11,64})\Z")
_NOISE = re.compile(
    r"(?:\[\d+/\d+\] )?COMMIT(?: |\Z)|Successfully tagged |time=\"|Getting image source signatures|"
    r"Writing manifest|Storing signatures|Resolving |(?:Error: )?(?:error )?building at STEP|Error: "
)
_SHORT = 12


class Teller(Protocol):
    """Who hears of a build."""

    def say(self, text: str, *, is_error: bool = False) -> None:
        """Text as it comes; `is_error`: a step wrote it to its standard error."""

    def stage(self, image_id: str) -> None:
        """A stage is built, and others follow it."""


class Translator:
    """`step` is the one under way as buildah says it, `source` as the file does.

    `find` answers an image's id by its name or by the beginning of its id, empty where there is none. `labels`:
    how many were asked for beside the file, which are steps at the end of the last stage."""

    def __init__(self, teller: Teller, plan: Steps, find: Callable[[str], str], labels: int = 0) -> None:
        self._teller = teller
        self._say = teller.say
        self._plan = plan
        self._find = find
        self._labels = labels
        self.step = ""
        self.source = ""
        self.image_id = ""
        self._layer = ""
        self._base: str | None = None
        self._last = ""

    def line(self, line: str) -> None:
        """One of buildah's output: its own, or a step's."""
        if (match := _STEP.match(line)) is not None:
            self._show_base()
            self._begin(match)
        elif (match := _LAYER.match(line)) is not None:
            self._show_base()
            self._end(match[2], is_cached=bool(match[1]))
        elif re.fullmatch(r"[0-9a-f]{64}", line):
            # The last one is the image's: buildah's answer.
            self.image_id = line
        elif not _NOISE.match(line):
            self._say(f"{line}\n")

    def error(self, line: str) -> None:
        """One of buildah's errors: its own, or a step's."""
        if not _NOISE.match(line):
            self._say(f"{line}\n", is_error=True)

    def _begin(self, match: re.Match[str]) -> None:
        self.step = self.source = match[5]
        number, total, shown = int(match[3]), int(match[4]), match[5]
        stage = int(match[1] or 1) - 1
        if stage and number == 1 and self._last:
            self._teller.stage(self._last)
        stages = self._plan.stages[: int(match[2] or 1)]
        counts = [len(each) for each in stages]
        if counts:
            counts[-1] += self._labels
        # buildah counts within a stage, Docker through the whole file.
        if stage < len(counts) and counts[stage] == total:
            before = self._plan.before
            total = len(before) + sum(counts)
            if number <= len(stages[stage]):
                self.source = stages[stage][number - 1].text
            if number == 1:
                shown = self.source
                if stage == 0:
                    for place, argument in enumerate(before, 1):
                        self._step(place, total, argument.text)
            number += len(before) + sum(counts[:stage])
        self._step(number, total, re.sub(r"\A(FROM [0-9a-f]{12})[0-9a-f]{52}", r"\1", shown))
        words = self.step.split()
        if words[:1] and words[0].upper() == "FROM":
            self._base = next((word for word in words[1:] if not word.startswith("--")), "")

    def _step(self, number: int, total: int, text: str) -> None:
        self._say(f"Step {number}/{total} : {text}\n")

    def _show_base(self) -> None:
        """A base's id, once the base is here for certain: the step after it has begun."""
        if self._base is not None:
            found = self._find(self._base) if self._base != "scratch" else ""
            if found or self._base == "scratch":
                self._arrow(found)
            self._last = found
            self._base = None

    def _end(self, layer: str, *, is_cached: bool) -> None:
        if is_cached:
            self._say(" ---> Using cache\n")
        # A step from the cache is told twice, the second time shorter.
        if not (self._layer and self._layer.startswith(layer)):
            self._last = self._find(layer)
            self._arrow(self._last or layer)
        self._layer = layer

    def _arrow(self, image_id: str) -> None:
        self._say(f" ---> {image_id.removeprefix('sha256:')[:_SHORT]}\n")
