"""A world with images that need no rights, and its API."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.engine import Api, World, api_of, world
from tests.fakes.images import FakeImages
from tests.patience import PATIENCE

Run = Callable[..., Awaitable[str]]


@pytest.fixture
async def found(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as each:
        each.ctx.images = FakeImages(each.ctx.config)  # type: ignore[assignment]
        yield each


@pytest.fixture
async def api(found: World) -> AsyncIterator[Api]:
    async with api_of(found) as each:
        yield each


@pytest.fixture
def run(api: Api) -> Run:
    """Create and start a container; its id."""

    async def make(name: str, host: dict[str, Any] | None = None, **config: Any) -> str:
        body = {"Image": "busybox", "HostConfig": host or {}, **config}
        status, made = await api("POST", f"/containers/create?name={name}", body)
        assert status == 201, made
        status, answer = await api("POST", f"/containers/{name}/start")
        assert status == 204, answer
        return str(made["Id"])

    return make


@pytest.fixture
def state_of(api: Api) -> Callable[[str], Awaitable[dict[str, Any]]]:
    async def look(name: str) -> dict[str, Any]:
        _, body = await api("GET", f"/containers/{name}/json")
        return dict(body["State"])

    return look


async def until(condition: Callable[[], Any]) -> Any:
    """Let the loop run until `condition`, which may have to be awaited, holds; what it said then."""
    deadline = time.monotonic() + 10 * PATIENCE
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, "it never came to be"
        await asyncio.sleep(0.01)
