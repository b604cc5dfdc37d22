"""`POST /auth` against registries that ask for Basic and for Bearer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from tests.fakes.engine import Api, api_of, world

GOOD = "Basic dXNlcjpzZWNyZXQ="


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with world(tmp_path) as found, api_of(found) as made:
        yield made


@pytest.fixture(params=["Basic", "Bearer"])
async def registry(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    kind: str = request.param

    async def v2(asked: web.Request) -> web.Response:
        if kind == "Basic" and asked.headers.get("Authorization") == GOOD:
            return web.Response()
        realm = f"http://{asked.host}/token"
        return web.Response(
            status=401, headers={"WWW-Authenticate": f'{kind} realm="{realm}",service="here"'}
        )

    async def token(asked: web.Request) -> web.Response:
        is_good = asked.headers.get("Authorization") == GOOD and asked.query["service"] == "here"
        return web.json_response({"token": "t"}, status=200 if is_good else 401)

    app = web.Application()
    app.router.add_get("/v2/", v2)
    app.router.add_get("/token", token)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"{host}:{port}"
    await runner.cleanup()


async def test_login(api: Api, registry: str) -> None:
    body = {"username": "user", "password": "secret", "serveraddress": registry}
    assert await api("POST", "/auth", body) == (200, {"Status": "Login Succeeded", "IdentityToken": ""})
    status, answer = await api("POST", "/auth", {**body, "password": "wrong"})
    assert status == 401
    assert answer["message"].endswith("unauthorized: incorrect username or password")


async def test_a_registry_that_is_not_there(api: Api) -> None:
    body = {"username": "user", "password": "secret", "serveraddress": "127.0.0.1:1"}
    status, answer = await api("POST", "/auth", body)
    assert status == 503 and "127.0.0.1:1" in answer["message"]
