"""What inspect says about a container whose start is under way."""

from __future__ import annotations

import asyncio

from tests.api.containers.conftest import until
from tests.fakes.engine import Api, World
from tests.patience import PATIENCE


async def test_inspect_waits_for_a_start_under_way(found: World, api: Api) -> None:
    await api("POST", "/containers/create?name=web", {"Image": "busybox"})
    gate, start = asyncio.Event(), found.runtime.start

    async def slow(id: str) -> None:
        await gate.wait()
        await start(id)

    found.runtime.start = slow  # type: ignore[method-assign]
    starting = asyncio.ensure_future(api("POST", "/containers/web/start"))
    await until(lambda: found.runtime.containers)
    looking = asyncio.ensure_future(api("GET", "/containers/web/json"))
    done, _ = await asyncio.wait({looking}, timeout=0.2)
    assert not done
    gate.set()
    assert (await starting)[0] == 204
    status, body = await looking
    assert (status, body["State"]["Running"]) == (200, True)


async def test_a_list_waits_for_nobody(found: World, api: Api) -> None:
    await api("POST", "/containers/create?name=web", {"Image": "busybox"})
    gate = asyncio.Event()

    async def slow(id: str) -> None:
        await gate.wait()

    found.runtime.start = slow  # type: ignore[method-assign]
    starting = asyncio.ensure_future(api("POST", "/containers/web/start"))
    await until(lambda: found.runtime.containers)
    _, listed = await asyncio.wait_for(api("GET", "/containers/json?all=1"), 5 * PATIENCE)
    assert [each["State"] for each in listed] == ["created"]
    gate.set()
    await starting
