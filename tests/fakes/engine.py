"""An engine over fakes: memory store, FakeKernel, FakeRuntime, FakeResponder; and its API over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from tests.fakes.kernel import FakeKernel
from tests.fakes.responder import FakeResponder
from tests.fakes.runtime import FakeRuntime

from dari.api.server import make_app, make_runner
from dari.engine import events, predefined
from dari.engine.base import Engine
from dari.model.config import Config
from dari.model.container import Container, ContainerConfig, ContainerStatus, HostConfig
from dari.model.network import Endpoint, EndpointSpec, Sandbox
from dari.net.facts import HostFacts
from dari.reconcile import relays
from dari.reconcile.context import Context
from dari.reconcile.holds import Claim, Holds
from dari.reconcile.settle import settle
from dari.runtime.images import Images
from dari.store.base import Txn
from dari.store.memory import MemoryStore
from dari.store.tables import Tables
from dari.units import new_id


class FakeHolds(Holds):
    """Holds nothing of this machine's. `foreign`: ports (protocol, port) some other program has."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: set[tuple[str, int]] = set()

    def take(self, claim: Claim) -> tuple[int, int]:
        for port in range(claim.first, claim.last + 1):
            if (claim.protocol, port) in self.foreign:
                return errno.EADDRINUSE, port
        self.held.setdefault(claim, [])
        return 0, 0


@dataclass(slots=True)
class World:
    """`kernel`, `runtime` and `responder` are the fakes behind `eng`."""

    eng: Engine
    kernel: FakeKernel
    runtime: FakeRuntime
    responder: FakeResponder

    @property
    def ctx(self) -> Context:
        return self.eng.ctx


@contextlib.asynccontextmanager
async def world(folder: Path, facts: HostFacts | None = None, **settings: Any) -> AsyncIterator[World]:
    """A fresh engine whose default bridge is in place; its folders are below `folder`."""
    config = Config(
        data_root=str(folder / "data"),
        exec_root=f"/tmp/dari-{secrets.token_hex(4)}",
        resolv_conf="/dev/null",
        **settings,
    )
    for path in (config.data_root, config.netns_dir):
        Path(path).mkdir(parents=True, exist_ok=True)
    kernel, runtime, store = FakeKernel(facts=facts), FakeRuntime(), MemoryStore()
    with FakeResponder(config.dns_dir) as responder:
        ctx = Context(
            config=config,
            local=store,
            shared=store,
            tables=Tables(),
            kernel=kernel,  # type: ignore[arg-type]
            runtime=runtime,  # type: ignore[arg-type]
            images=Images(config),
            holds=FakeHolds(),
        )
        eng = Engine(ctx=ctx, id="5b7ed342-fe90-4628-b174-35e98f559d58", name="node", started=ctx.now())
        follower = asyncio.create_task(events.follow(ctx))
        try:
            await predefined.ensure_predefined(eng)
            await settle(ctx, ctx.tables.network_names.get(store, "bridge") or "")
            yield World(eng, kernel, runtime, responder)
        finally:
            for task in (follower, *ctx.tasks):
                task.cancel()
            await asyncio.gather(follower, *ctx.tasks, return_exceptions=True)
            relays.stop(ctx)
            ctx.holds.close()
            ctx.settling.thread.shutdown()
            await store.close()
    await asyncio.to_thread(_remove, config.exec_root)


def _end_relays(folder: str) -> None:
    """Whichever a task that was cancelled meanwhile had just begun: nobody has noted those."""
    own = f"{folder}/relay".encode()
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if own in each.read_bytes().split(b"\0"):
                os.kill(int(each.parent.name), signal.SIGTERM)


def _remove(folder: str) -> None:
    import shutil

    if os.path.exists(f"{folder}/relay.log"):
        _end_relays(folder)
    shutil.rmtree(folder, ignore_errors=True)


class Api:
    """Requests to the API of a world, answered as (status, JSON)."""

    def __init__(self, session: aiohttp.ClientSession, socket: str) -> None:
        self.session = session
        self.socket = socket

    async def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        if body is not None:
            options["json"] = body
        async with self.session.request(method, f"http://dari{path}", **options) as response:
            text = await response.read()
            is_json = response.content_type == "application/json" and text
            return response.status, (await response.json() if is_json else text.decode())


@contextlib.asynccontextmanager
async def api_of(found: World) -> AsyncIterator[Api]:
    runner = make_runner(make_app(found.eng))
    await runner.setup()
    path = f"{found.ctx.config.exec_root}/api.sock"
    await web.UnixSite(runner, path).start()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session:
            yield Api(session, path)
    finally:
        await runner.cleanup()


async def add_container(
    found: World, name: str, networks: dict[str, EndpointSpec], *, is_running: bool = True, **host: Any
) -> Container:
    """A container's rows, without image or process: what the network operations need of it."""
    ctx, txn = found.ctx, Txn()
    container_id, sandbox_id = new_id(), new_id()
    container = Container(
        id=container_id,
        name=name,
        created=ctx.now(),
        image_id="",
        config=ContainerConfig(image="busybox", hostname=container_id[:12]),
        host=HostConfig(**host),
        sandbox_id=sandbox_id,
        status=ContainerStatus(state="running" if is_running else "created"),
    )
    ctx.tables.containers.put(txn, container, container_id)
    ctx.tables.names.put(txn, container_id, name)
    ctx.tables.sandboxes.put(txn, Sandbox(id=sandbox_id, container_id=container_id), sandbox_id)
    for index, (network, spec) in enumerate(networks.items()):
        network_id = ctx.tables.network_names.get(ctx.shared, network) or network
        endpoint = Endpoint(
            id=new_id(),
            network_id=network_id,
            sandbox_id=sandbox_id,
            container_id=container_id,
            spec=spec,
            index=index,
        )
        ctx.tables.endpoints.put(txn, endpoint, network_id, endpoint.id)
    await ctx.local.commit(txn)
    if is_running:
        from dari.reconcile import endpoints

        await endpoints.activate(ctx, container_id)
        await settle(ctx, container_id)
    return container
