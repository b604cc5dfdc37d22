"""`/dari/v1/doctor` over a memory store and a fake kernel: what no tool can break from outside."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from tests.fakes.engine import Api, World, add_container, api_of, world

from dari.model.network import EndpointSpec
from dari.net.survey import DropNeighbour, Neighbour, Survey
from dari.reconcile.settle import settle
from dari.store.base import Txn


async def ask(api: Api, method: str) -> list[dict[str, Any]]:
    status, body = await api(method, "/dari/v1/doctor")
    assert status == 200, body
    found: list[dict[str, Any]] = body["Findings"]
    # Nobody is on this world's wire.
    return [each for each in found if not each["Id"].startswith(("host.", "address.silent"))]


@contextlib.asynccontextmanager
async def town(folder: Path) -> AsyncIterator[tuple[World, Api]]:
    """A world whose containers are rows, each with a process nobody can look into; a network web."""
    async with world(folder) as found, api_of(found) as api:
        found.runtime.pid = lambda id: 4_100_000  # type: ignore[method-assign, assignment]
        assert (await api("POST", "/networks/create", {"Name": "web"}))[0] == 201
        yield found, api


def short(found: list[dict[str, Any]]) -> list[tuple[str, str, bool]]:
    return [(each["Id"], each["Object"], each["IsMended"]) for each in found]


async def test_rows_without_an_owner(tmp_path: Path) -> None:
    async with town(tmp_path) as (found, api):
        await add_container(found, "db", {"web": EndpointSpec()})
        assert await ask(api, "GET") == []
        ctx, txn = found.ctx, Txn()
        network_id = ctx.tables.network_names.get(ctx.shared, "web") or ""
        ctx.tables.leases.put(txn, "nobody", network_id, "172.18.0.99")
        ctx.tables.ports.put(txn, "nobody", "tcp", "0.0.0.0", "8099")
        await ctx.local.commit(txn)
        wanted = [("lease.orphaned", "network web"), ("port.orphaned", "host")]
        assert short(await ask(api, "GET")) == [(*each, False) for each in wanted]
        assert short(await ask(api, "POST")) == [(*each, True) for each in wanted]
        assert await ask(api, "GET") == []


async def test_what_is_gone_from_the_kernel_and_what_is_beside_it(tmp_path: Path) -> None:
    async with town(tmp_path) as (found, api):
        container = await add_container(found, "db", {"web": EndpointSpec()})
        (endpoint,) = found.ctx.tables.endpoints_of_sandbox.get(found.ctx.shared, container.sandbox_id)
        found.kernel.remove(("link", "", endpoint.host_interface))
        bridge = next(key[2] for key in found.kernel.objects if key[0] == "link" and key[2].startswith("br-"))
        wrong = Neighbour("", bridge, ip_address(endpoint.ipv4), "02:00:00:00:00:01", True)
        found.kernel.surroundings = Survey(neighbours=(wrong,))
        assert short(await ask(api, "GET")) == [
            ("link.missing", "container db", False),
            ("neighbour.wrong", "network web", False),
        ]
        answer = await ask(api, "POST")
        # The fake mends nothing of what is beside: said to be there still.
        assert short(answer) == [
            ("link.missing", "container db", True),
            ("neighbour.wrong", "network web", False),
        ]
        assert DropNeighbour("", bridge, ip_address(endpoint.ipv4)) in found.kernel.mended


async def test_what_is_being_settled_is_no_finding(tmp_path: Path) -> None:
    async with town(tmp_path) as (found, api):
        for number in range(5):
            looking = asyncio.create_task(ask(api, "GET"))
            container = await add_container(found, f"db{number}", {"web": EndpointSpec()})
            await settle(found.ctx, container.id)
            assert await looking == []
