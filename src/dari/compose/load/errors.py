"""Errors and warnings of a Compose model, each with the place in the file it speaks of.

Must not know phases: every phase raises `ComposeError` with what it knows, the pipeline adds the mark.
"""

from __future__ import annotations

from typing import NamedTuple

Path = tuple[str | int, ...]


class Mark(NamedTuple):
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class ComposeError(Exception):
    """The model is not acceptable. `path` names the key, `mark` the place when one is known."""

    def __init__(self, message: str, path: Path = (), mark: Mark | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.mark = mark

    def __str__(self) -> str:
        return f"{self.mark}: {self.message}" if self.mark else self.message


def dotted(path: Path) -> str:
    """`services.web.ports.0` for people."""
    return ".".join(str(part) for part in path)


class Marks:
    """Where each key path was written; later files win. Looks up the nearest known ancestor."""

    def __init__(self) -> None:
        self._found: dict[Path, Mark] = {}

    def put(self, path: Path, mark: Mark) -> None:
        self._found[path] = mark

    def update(self, other: Marks, prefix: Path = ()) -> None:
        """Takes over the other's places, below `prefix`."""
        if prefix:
            self._found.update({(*prefix, *path): mark for path, mark in other._found.items()})
        else:
            self._found.update(other._found)

    def find(self, path: Path) -> Mark | None:
        """The place of `path`, else of its nearest ancestor."""
        for end in range(len(path), -1, -1):
            mark = self._found.get(path[:end])
            if mark is not None:
                return mark
        return None

    def exact(self, path: Path) -> Mark | None:
        """The place of `path` itself."""
        return self._found.get(path)

    def below(self, prefix: Path) -> Marks:
        """The places under `prefix`, with `prefix` taken off."""
        result = Marks()
        size = len(prefix)
        result._found = {path[size:]: mark for path, mark in self._found.items() if path[:size] == prefix}
        return result
