"""The table of all endpoints: the rows of every noun's module, and how a path finds its row.

A new endpoint is a row in its noun's `ROUTES`; a new noun is a line here. Must not know: what handlers do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dari.api import (
    absent,
    archive,
    attach,
    build,
    containers,
    dns,
    doctor,
    events,
    exec,
    explain,
    images,
    logs,
    networks,
    nodes,
    ports,
    registrations,
    system,
    volumes,
)
from dari.api.route import Handler, Route
from dari.api.versions import Version

ROUTES: list[Route] = [
    *absent.ROUTES,
    *system.ROUTES,
    *events.ROUTES,
    *containers.ROUTES,
    *attach.ROUTES,
    *logs.ROUTES,
    *exec.ROUTES,
    *networks.ROUTES,
    *archive.ROUTES,
    *images.ROUTES,
    *build.ROUTES,
    *volumes.ROUTES,
    *doctor.ROUTES,
    *nodes.ROUTES,
    *registrations.ROUTES,
    *ports.ROUTES,
    *explain.ROUTES,
    *dns.ROUTES,
]

_PARAMETER = re.compile(r"\{(\w+)(:[^}]*)?\}")


class Table:
    """Finds the handler of a method and a path. Rows are tried in their order within a first segment."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._rows: dict[tuple[str, str], list[tuple[re.Pattern[str], Route]]] = {}
        for route in routes:
            key = (route.method, _first_segment(route.path))
            self._rows.setdefault(key, []).append((_pattern(route.path), route))

    def find(self, method: str, path: str, version: Version) -> tuple[Handler, dict[str, str]] | None:
        """The handler and the values of the path's parameters; None where there is no such endpoint."""
        for pattern, route in self._rows.get((method, _first_segment(path)), ()):
            match = pattern.match(path)
            if match is not None and version >= route.since:
                return route.handler, match.groupdict()
        return None


def _first_segment(path: str) -> str:
    return path.split("/", 2)[1] if path.startswith("/") else path


def _pattern(path: str) -> re.Pattern[str]:
    """Literal text with parameters: `{id}` → one segment, `{name:.*}` → anything that is not empty."""
    parts: list[str] = []
    end = 0
    for match in _PARAMETER.finditer(path):
        parts.append(re.escape(path[end : match.start()]))
        parts.append(f"(?P<{match[1]}>{'.+' if match[2] else '[^/]+'})")
        end = match.end()
    parts.append(re.escape(path[end:]))
    return re.compile("".join(parts) + r"/?\Z")
