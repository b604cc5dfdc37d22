"""What the thousandth endpoint costs beside the first: many endpoints, many networks, over the API.

`sudo PYTHONPATH=src python -m bench.scale [--endpoints N] [--networks N]` works in namespaces of its own and prints
one JSON object. Real: the store, the reconciler, netlink and nftables, dari-dns and its files, the API on a socket.
Left out: crun, conmon and images (tests/fakes), whose price does not depend on how many there are. Each row is a
hundred containers on one of five networks, created, started, ended and removed one after the other: milliseconds of
wall time, of the engine's CPU and of dari-dns's for one of them. Nothing is asserted: compare rows of one run.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import pstats
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.fakes.engine import Api, World, api_of
from tests.fakes.images import FakeImages
from tests.fakes.runtime import FakeRuntime

from dari.daemon.responder import Responder
from dari.engine import events, predefined
from dari.engine.base import Engine
from dari.kernel import rtnetlink, syscalls
from dari.kernel.host import Kernel
from dari.kernel.netlink import Netlink
from dari.model.config import Config, Pool
from dari.reconcile import boot
from dari.reconcile.context import Context
from dari.reconcile.settle import settle_everything
from dari.store.sqlite import SqliteStore
from dari.store.tables import Tables

BATCH = 100
POOLS = [Pool(base="10.64.0.0/10", size=20)]


class Clock:
    """Milliseconds by step, one list a batch."""

    def __init__(self, responder_pid: int) -> None:
        self.rows: dict[str, list[dict[str, float]]] = {}
        self._responder = Path(f"/proc/{responder_pid}/stat")

    def _responder_ms(self) -> float:
        words = self._responder.read_text().rpartition(") ")[2].split()
        return (int(words[11]) + int(words[12])) * 1000 / os.sysconf("SC_CLK_TCK")

    async def __call__(self, step: str, count: int, work: Callable[[int], Awaitable[None]]) -> None:
        """Run `work` for 0 to count-1; a row for each BATCH of them."""
        rows = self.rows.setdefault(step, [])
        for first in range(0, count, BATCH):
            walls: list[float] = []
            cpu, responder = time.process_time(), self._responder_ms()
            system = os.times().system
            for number in range(first, min(first + BATCH, count)):
                begin = time.perf_counter()
                await work(number)
                walls.append((time.perf_counter() - begin) * 1000)
            rows.append(
                {
                    "up_to": first + len(walls),
                    "median": round(statistics.median(walls), 2),
                    "mean": round(statistics.fmean(walls), 2),
                    "cpu": round((time.process_time() - cpu) * 1000 / len(walls), 2),
                    "of it in the kernel": round((os.times().system - system) * 1000 / len(walls), 2),
                    "responder": round((self._responder_ms() - responder) / len(walls), 2),
                }
            )

    def growth(self) -> dict[str, dict[str, float]]:
        """The last row by the first, of median wall time and of CPU."""
        return {
            step: {
                name: round(rows[-1][name] / rows[0][name], 2) if rows[0][name] else 0.0
                for name in ("median", "cpu")
            }
            for step, rows in self.rows.items()
            if len(rows) > 1
        }


async def endpoints(api: Api, clock: Clock, count: int) -> None:
    """Containers on five networks: created and started, looked at, removed."""
    for number in range(5):
        await ask(api, "POST", "/networks/create", {"Name": f"net{number}"}, status=201)

    async def start(number: int) -> None:
        host = {"NetworkMode": f"net{number % 5}"}
        body = {"Image": "busybox", "HostConfig": host}
        await ask(api, "POST", f"/containers/create?name=c{number}", body, status=201)
        await ask(api, "POST", f"/containers/c{number}/start", status=204)

    async def disconnect(number: int) -> None:
        body = {"Container": f"c{number}"}
        await ask(api, "POST", f"/networks/net{number % 5}/disconnect", body)
        await ask(api, "POST", f"/networks/net{number % 5}/connect", body)

    async def remove(number: int) -> None:
        await ask(api, "DELETE", f"/containers/c{count - 1 - number}?force=1", status=204)

    async def inspect(number: int) -> None:
        await ask(api, "GET", f"/containers/c{number}/json")

    async def look(_: int) -> None:
        await ask(api, "GET", "/networks")
        await ask(api, "GET", "/networks/net0")
        await ask(api, "GET", "/containers/json")

    await clock("start", count, start)
    await clock("reconnect", min(BATCH, count), disconnect)
    await clock("inspect", min(BATCH, count), inspect)
    await clock("lists", 3, look)
    await clock("remove", count, remove)
    for number in range(5):
        await ask(api, "DELETE", f"/networks/net{number}", status=204)


async def networks(api: Api, clock: Clock, count: int) -> None:
    async def create(number: int) -> None:
        await ask(api, "POST", "/networks/create", {"Name": f"many{number}"}, status=201)

    async def remove(number: int) -> None:
        await ask(api, "DELETE", f"/networks/many{number}", status=204)

    async def look(_: int) -> None:
        await ask(api, "GET", "/networks")

    await clock("network create", count, create)
    await clock("network list", 3, look)
    await clock("network remove", count, remove)


async def ask(api: Api, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    found, answer = await api(method, path, body)
    if found != status:
        raise RuntimeError(f"{method} {path}: {found} {answer}")
    return answer


async def run(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    config = Config(
        data_root=f"{folder}/data", exec_root=f"{folder}/run", resolv_conf="/dev/null", pools=POOLS
    )
    for path in (config.data_root, config.exec_root, config.netns_dir):
        os.makedirs(path)
    kernel, store = Kernel(config.netns_dir), SqliteStore(f"{config.data_root}/dari.db")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    runtime = FakeRuntime()
    ctx = Context(
        config=config,
        local=store,
        shared=store,
        tables=Tables(),
        kernel=kernel,
        runtime=runtime,  # type: ignore[arg-type]
        images=FakeImages(config),  # type: ignore[arg-type]
    )
    eng = Engine(ctx=ctx, id="5b7ed342-fe90-4628-b174-35e98f559d58", name="node", started=ctx.now())
    responder = Responder(config.dns_dir, f"{folder}/dns.pid", f"{folder}/dns.log", "error")
    follower = asyncio.create_task(events.follow(ctx))
    profiles = [cProfile.Profile(), cProfile.Profile()] if arguments.profile else []
    try:
        clock = Clock(await responder.ensure())
        await predefined.ensure_predefined(eng)
        async with ctx.lock("settle"):
            await settle_everything(ctx)
        async with api_of(World(eng, kernel, runtime, responder)) as api:  # type: ignore[arg-type]
            if profiles:
                ctx.settling.thread.submit(profiles[1].enable).result()
                profiles[0].enable()
            await endpoints(api, clock, arguments.endpoints)
            await networks(api, clock, arguments.networks)
            if profiles:
                profiles[0].disable()
                ctx.settling.thread.submit(profiles[1].disable).result()
    finally:
        await boot.leave(ctx)
        await responder.stop()
        for task in (follower, *ctx.tasks):
            task.cancel()
        await asyncio.gather(follower, *ctx.tasks, return_exceptions=True)
        ctx.settling.thread.shutdown()
        await store.close()
        kernel.close()
    for profile in profiles:
        pstats.Stats(profile, stream=sys.stderr).sort_stats(arguments.profile).print_stats(45)
    return {"unit": "ms", "last_by_first": clock.growth(), "steps": clock.rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoints", type=int, default=1000)
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--profile", choices=("cumulative", "tottime"))
    arguments = parser.parse_args()
    syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", syscalls.MS_REC | syscalls.MS_PRIVATE)
    with Netlink() as sock:
        sock.call(rtnetlink.set_link("lo", is_up=True))
    folder = Path(tempfile.mkdtemp(prefix="scale"))
    try:
        figures = asyncio.run(run(folder, arguments))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    json.dump(figures, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
