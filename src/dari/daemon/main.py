"""Start and stop of darid, in order: settings, folders, store, kernel, names, boot, sockets.

SIGTERM stops it within moments: containers, their networks and dari-dns go on without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import faulthandler
import gc
import json
import logging
import os
import platform
import resource
import signal
import sys
import time
import uuid
from collections.abc import Coroutine, Sequence
from typing import Any

import uvloop
from aiohttp import web

from dari import __version__
from dari.api.server import make_app, make_runner
from dari.daemon import cluster, options, sockets
from dari.daemon.responder import Responder
from dari.engine import events, predefined, registrations
from dari.engine.base import Engine
from dari.kernel import neighbours, sole
from dari.kernel.host import Kernel
from dari.kernel.plugin import Plugins
from dari.model.config import Config
from dari.model.errors import DariError, is_of_machine, told
from dari.model.event import Event
from dari.reconcile import boot, plugin_boot, watch
from dari.reconcile.context import Context
from dari.reconcile.member_checks import Checker
from dari.runtime.containers import Runtime
from dari.runtime.images import Images
from dari.store.base import StoreUnavailable
from dari.store.federation import Federation
from dari.store.sqlite import SqliteStore
from dari.store.tables import Tables

log = logging.getLogger("dari.daemon")

_CANCEL_SECONDS = 5.0
_LOG_LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40, "fatal": 50}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run darid; the exit code: 0 told to stop, 1 cannot start, 2 wrong arguments."""
    warnings: list[str] = []
    given = sys.argv[1:] if arguments is None else arguments
    try:
        config = options.read(given, warnings)
    except DariError as error:
        print(f"darid: {error.message}", file=sys.stderr)
        return 2
    logging.basicConfig(
        stream=sys.stderr,
        level=_LOG_LEVELS[config.log_level],
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    if os.geteuid() != 0:
        print(
            "darid: it needs root, since it makes namespaces, interfaces, rules and mounts: start it with sudo, or "
            "as a service (docs/how-to/run-as-a-service.md)",
            file=sys.stderr,
        )
        return 1
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    for line in warnings:
        log.warning("%s", line)
    faulthandler.register(signal.SIGUSR1)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(config, given))
    except (DariError, StoreUnavailable) as error:
        print(f"darid: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if not is_of_machine(error) and error.filename is None:
            raise
        print(f"darid: {told(error)}", file=sys.stderr)
        return 1
    return 0


async def run(config: Config, arguments: Sequence[str] = ()) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises StoreUnavailable where another darid uses the data root, Unavailable where one has the network namespace.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, log.info, "darid is starting: its settings were just read")
    _prepare(config)
    local = SqliteStore(f"{config.data_root}/dari.db")
    store = cluster.open_shared(config, local) if config.store else local
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        stack.callback(os.close, sole.hold())
        # libnftables aborts on descriptors above 1023: the kernel's are opened before all others.
        kernel = Kernel(config.netns_dir)
        stack.callback(kernel.close)
        _raise_descriptor_limit()
        _make_room_for_neighbours(config.neighbours)
        ctx = Context(
            config=config,
            local=store,
            shared=store,
            tables=Tables(),
            kernel=kernel,
            runtime=Runtime(config),
            images=Images(config),
            plugins=Plugins(config.plugin_folders, config.plugin_timeout),
        )
        stack.callback(ctx.plugins.close)
        eng = Engine(ctx=ctx, id=_engine_id(config), name=platform.node(), started=time.time_ns())
        loop.add_signal_handler(signal.SIGHUP, _reload, eng, arguments)
        responder = Responder(
            config.dns_dir,
            f"{config.exec_root}/dari-dns.pid",
            f"{config.exec_root}/dari-dns.log",
            "debug" if config.is_debug else "info",
        )
        stack.push_async_callback(_leave, ctx, responder, stopped)
        stack.push_async_callback(_cancel, ctx)
        _spawn(ctx, events.follow(ctx))
        if isinstance(store, Federation):
            await cluster.begin(eng, store)
        await responder.ensure()
        await predefined.ensure_predefined(eng)
        await boot.boot(ctx)
        _spawn(ctx, responder.supervise())
        _spawn(ctx, boot.watch_host(ctx))
        _spawn(ctx, boot.follow_servers(ctx))
        eng.rooms[registrations.ROOM] = Checker(ctx)
        _spawn(ctx, eng.rooms[registrations.ROOM].run())
        if isinstance(store, Federation):
            for work in cluster.works(eng, store):
                _spawn(ctx, work)
        _spawn(ctx, plugin_boot.look_after(ctx))
        listeners = sockets.open_all(config)
        for each in listeners:
            stack.callback(each.remove)
        runner = make_runner(make_app(eng))
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        for each in listeners:
            await web.SockSite(runner, each.socket, ssl_context=each.tls, backlog=1024).start()
            log.info("API listen on %s", each.url)
        _write_pidfile(config.pidfile)
        stack.callback(_remove_pidfile, config.pidfile)
        gc.collect()
        gc.freeze()
        log.info("darid %s is ready", __version__)
        _spawn(ctx, watch.start_wanted(ctx))
        await stopped.wait()
        log.info("stopping; containers go on")


def _reload(eng: Engine, arguments: Sequence[str]) -> None:
    """SIGHUP: read the settings again, take over what dockerd takes over, and tell."""
    ctx = eng.ctx
    try:
        config = options.reload(ctx.config, arguments)
    except DariError as error:
        log.error("the settings stay as they are: %s", error.message)
        return
    ctx.config = config
    ctx.images.transfer.config = config
    logging.getLogger().setLevel(_LOG_LEVELS[config.log_level])
    log.info("settings are read again: debug, labels, mirrors, insecure registries, shutdown timeout")
    told = {
        "name": eng.name,
        "debug": str(config.is_debug).lower(),
        "labels": json.dumps(config.labels),
        "insecure-registries": json.dumps(config.insecure_registries),
        "registry-mirrors": json.dumps(config.mirrors.get("docker.io", [])),
        "shutdown-timeout": str(config.shutdown_timeout),
        "live-restore": "true",
    }
    event = Event(type="daemon", action="reload", actor_id=eng.id, attributes=told)
    _spawn(ctx, events.announce(ctx, event))


def _prepare(config: Config) -> None:
    for folder, mode in (
        (config.data_root, 0o710),
        (config.exec_root, 0o711),
        (config.netns_dir, 0o700),
        (config.containers_dir, 0o710),
        (config.run_dir, 0o700),
        (config.volumes_dir, 0o701),
        (config.storage_dir, 0o710),
    ):
        os.makedirs(folder, mode, exist_ok=True)


def _engine_id(config: Config) -> str:
    """The daemon's id, made at the first start and kept with its data."""
    path = f"{config.data_root}/engine-id"
    with contextlib.suppress(FileNotFoundError):
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    value = str(uuid.uuid4())
    with open(path, "w", encoding="ascii") as file:
        file.write(value + "\n")
    return value


def _make_room_for_neighbours(count: int) -> None:
    try:
        if count and neighbours.make_room(count):
            log.info("the host's tables of neighbours have room for %d entries now", count)
    except OSError as error:
        where = (
            "in this network namespace they are not to be had" if error.errno == errno.ENOENT else told(error)
        )
        log.warning("--neighbours %d: the host's tables stay as they are: %s", count, where)


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _spawn(ctx: Context, work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    ctx.tasks.add(task)
    task.add_done_callback(ctx.tasks.discard)
    task.add_done_callback(_log_failure)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a task of the daemon failed", exc_info=task.exception())


async def _cancel(ctx: Context) -> None:
    """End what still works in the background, and what its clean-up began. The next start finishes the rest."""
    deadline = time.monotonic() + _CANCEL_SECONDS
    while ctx.tasks and time.monotonic() < deadline:
        for task in ctx.tasks:
            task.cancel()
        await asyncio.wait(list(ctx.tasks), timeout=1.0)
    for task in ctx.tasks:
        log.warning("%s did not end in time", task.get_name())


async def _leave(ctx: Context, responder: Responder, stopped: asyncio.Event) -> None:
    """After the last request of a daemon that was told to stop."""
    if not stopped.is_set():
        return
    try:
        if await boot.leave(ctx):
            await responder.stop()
    except DariError as error:
        log.error("leaving: %s", error.message)


def _write_pidfile(path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")


def _remove_pidfile(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
