"""The HTTP side of the API: version, routing, errors. Nothing of any endpoint.

One catch-all route leads into our own table, since Docker's paths start with a version that is the same for all.
Handlers are not cancelled when their client goes away: a start half-way done is worse than one nobody waits for.
Streams look for themselves (`stream.is_gone`). Source: Docker Engine API v1.51.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from dari.api import halfopen, routes, versions
from dari.api.errors import error_response, message_response
from dari.engine.base import Engine

log = logging.getLogger(__name__)

_MAX_JSON = 64 * 1024 * 1024
# Of a request's line and of its headers, as Go's servers have it (net/http, DefaultMaxHeaderBytes): filters are long.
_MAX_HEAD = 1 << 20


def make_app(eng: Engine, table: routes.Table | None = None) -> web.Application:
    """The application that answers for `eng`."""
    rows = table or routes.Table(routes.ROUTES)
    app = web.Application(client_max_size=_MAX_JSON)
    app.router.add_route("*", "/{path:.*}", _dispatcher(eng, rows))
    app.on_response_prepare.append(_announce)
    return app


def make_runner(app: web.Application) -> web.AppRunner:
    """A runner without access log that ends quickly: clients who wait for a container are cut off."""
    return halfopen.Runner(
        app,
        access_log=None,
        shutdown_timeout=0.2,
        handle_signals=False,
        keepalive_timeout=3600,
        max_line_size=_MAX_HEAD,
        max_field_size=_MAX_HEAD,
    )


def _dispatcher(eng: Engine, rows: routes.Table) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    is_debug = log.isEnabledFor(logging.DEBUG)

    async def dispatch(request: web.Request) -> web.StreamResponse:
        begin = time.monotonic() if is_debug else 0.0
        halfopen.begin(request)
        try:
            response = await _answer(request, eng, rows)
        except web.HTTPException as error:
            response = message_response(error.status, error.text or error.reason)
        except ConnectionResetError:
            # The client has gone; whatever is answered goes nowhere.
            return web.Response(status=499)
        except versions.TooOld as error:
            # Clients of that age know no JSON in errors.
            response = web.Response(status=400, text=f"{error.message}\n")
        except Exception as error:
            response = error_response(error)
        finally:
            halfopen.end(request)
        if is_debug:
            took = (time.monotonic() - begin) * 1000
            log.debug("%s %s %d %.1f ms", request.method, request.path_qs, response.status, took)
        return response

    return dispatch


async def _answer(request: web.Request, eng: Engine, rows: routes.Table) -> web.StreamResponse:
    version, path = versions.split(request.path)
    if request.method == "OPTIONS":
        return web.Response()
    found = rows.find(request.method, path, version)
    if found is None:
        return message_response(404, "page not found")
    handler, parameters = found
    request.match_info.clear()
    request.match_info.update(parameters)
    versions.remember(request, version)
    return await handler(request, eng)


async def _announce(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(versions.HEADERS)
