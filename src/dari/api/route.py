"""One row of the table of endpoints. Each noun's module has a list of them, routes.py joins the lists."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from dari.engine.base import Engine

Handler = Callable[[web.Request, Engine], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """`path` is Docker's, without version: `/containers/{id}/json`. `{name}` is one segment, `{name:.*}` may
    hold slashes (image names); the values are in `request.match_info`. `since` is the first version with it."""

    method: str
    path: str
    handler: Handler
    since: tuple[int, int] = (1, 24)
