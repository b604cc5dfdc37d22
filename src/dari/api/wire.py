"""Requests in, JSON out: bodies, query parameters and filters as Docker's clients send them.

Go's decoder takes `null` for "not given" and names in any case, so a body is respelled before it is read into its
type. Must not know: any endpoint. Source: Docker Engine API v1.51 and its clients' observed behaviour.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from dari.api import jsontext
from dari.api.casing import respell, shape_of
from dari.model.errors import InvalidArgument

T = TypeVar("T")

Filters = dict[str, list[str]]
"""Filter name → the values asked for; one key's values are alternatives, keys are all required."""

_FALSE = ("", "0", "no", "false", "none")


async def read_json(request: web.Request) -> Any:
    """The body as plain JSON, None where there is none. Raises InvalidArgument with Docker's texts."""
    body = await request.read()
    if not body.strip():
        if body or request.headers.get("Transfer-Encoding"):
            raise InvalidArgument("invalid JSON: got EOF while reading request body")
        return None
    kind = request.headers.get("Content-Type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise InvalidArgument(f"unsupported Content-Type header ({kind}): must be 'application/json'")
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidArgument(_why_no_json(body, error)) from error


def _why_no_json(body: bytes, error: Exception) -> str:
    try:
        rest = jsontext.rest_of(body)
    except jsontext.Malformed as found:
        return f"invalid JSON: {found}"
    if rest:
        return "unexpected content after JSON"
    return (
        "invalid JSON: exceeded max depth" if isinstance(error, RecursionError) else f"invalid JSON: {error}"
    )


def convert(raw: Any, kind: type[T]) -> T:
    """Plain JSON as a typed noun, nulls dropped, names in any case. Raises InvalidArgument naming the field."""
    if not isinstance(raw, dict):
        raise InvalidArgument(f"invalid JSON: expected an object, got {type(raw).__name__}")
    try:
        return msgspec.convert(respell(raw, shape_of(kind)), kind)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid JSON: {error}") from error


async def read_body(request: web.Request, kind: type[T]) -> T:
    """The body as a typed noun; an absent body is an empty object. Raises InvalidArgument."""
    raw = await read_json(request)
    return convert({} if raw is None else raw, kind)


def filters(request: web.Request, allowed: frozenset[str] | None = None) -> Filters:
    """The `filters` parameter, in both forms clients send: `{"label": ["a"]}` and `{"label": {"a": true}}`.

    Raises InvalidArgument for malformed JSON or a filter that is not `allowed`.
    """
    text = request.query.get("filters", "")
    if not text:
        return {}
    try:
        raw = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"invalid filter: {error}") from error
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise InvalidArgument("invalid filter: expected an object")
    found: Filters = {}
    for name, values in raw.items():
        if allowed is not None and name not in allowed:
            raise InvalidArgument(f"invalid filter '{name}'")
        if isinstance(values, Mapping):
            found[name] = [str(value) for value, is_set in values.items() if is_set]
        elif isinstance(values, list):
            found[name] = [value if isinstance(value, str) else str(value).lower() for value in values]
        else:
            raise InvalidArgument(f"invalid filter '{name}'")
    return {name: values for name, values in found.items() if values}


def flag(request: web.Request, name: str, default: bool = False) -> bool:
    """A boolean parameter as Docker reads it: absent = default; empty, 0, no, false, none = false; else true."""
    value = request.query.get(name)
    if value is None:
        return default
    return value.strip().lower() not in _FALSE


def number(request: web.Request, name: str, default: int | None = None) -> int | None:
    """A whole number parameter; empty or absent = default. Raises InvalidArgument."""
    value = request.query.get(name, "")
    if not value:
        return default
    try:
        return int(value)
    except ValueError:
        raise InvalidArgument(f"invalid value for parameter {name}: {value!r} is not a number") from None


def json_response(value: Any, status: int = 200) -> web.Response:
    """Any value msgspec can encode (nouns, dicts, lists) as the JSON answer."""
    return web.Response(
        status=status, body=msgspec.json.encode(value) + b"\n", content_type="application/json"
    )


def no_content() -> web.Response:
    return web.Response(status=204)
