"""Kinds of error → HTTP status: the only place that knows both.

Source: Docker Engine API v1.51, "Errors": a JSON object with one `message`. Must not know: what was asked.
"""

from __future__ import annotations

import logging

import msgspec
from aiohttp import web

from dari.model import errors

log = logging.getLogger(__name__)

_STATUS: dict[type[errors.DariError], int] = {
    errors.InvalidArgument: 400,
    errors.DriverRefused: 500,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.PortInUse: 500,
    errors.Forbidden: 403,
    errors.Unauthorized: 401,
    errors.NotModified: 304,
    errors.Unsupported: 501,
    errors.Unavailable: 503,
    errors.Internal: 500,
}


def status_of(error: Exception) -> int:
    """The status of a kind of error; 500 for everything that is none."""
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind]
    return 500


def message_response(status: int, message: str) -> web.Response:
    """Docker's error body. 304 has none."""
    if status == 304:
        return web.Response(status=304)
    body = msgspec.json.encode({"message": message}) + b"\n"
    return web.Response(status=status, body=body, content_type="application/json")


def error_response(error: Exception) -> web.Response:
    """The answer for an exception a handler raised; what nobody raised on purpose is logged with its trace."""
    if isinstance(error, errors.DariError):
        if isinstance(error, errors.Internal):
            log.error("%s", error.message)
        return message_response(status_of(error), error.message)
    if isinstance(error, OSError) and errors.is_of_machine(error):
        log.error("a request failed: %s", error)
        return message_response(500, errors.told(error))
    log.error("a request failed unexpectedly", exc_info=error)
    return message_response(500, f"internal error: {type(error).__name__}: {error}")
