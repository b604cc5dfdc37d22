"""Logs of bounded size, written by a real conmon and rotated while it writes."""

# ruff: noqa: ASYNC110 - a file has no event to wait for
from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dari.model.container import HostConfig, LogConfig
from dari.runtime import logfiles, logs
from dari.runtime.containers import Runtime
from dari.runtime.failures import LaunchFailed
from dari.runtime.launch import LogEntry

from .conftest import Bench

# Numbered lines as fast as a shell writes them, then a word from outside for the end.
WRITER = "n=0; while [ $n -lt 3000 ]; do n=$((n+1)); echo line $n; done; read word; echo $word"


def host(**options: str) -> HostConfig:
    return HostConfig(
        log_config=LogConfig(
            type="json-file", config={name.replace("_", "-"): each for name, each in options.items()}
        )
    )


async def numbers(entries: AsyncIterator[LogEntry]) -> list[int]:
    """Of the lines read. A follower gets a line in pieces where it is quicker than its writer."""
    text = b"".join([each.data async for each in entries])
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith(b"line")]


async def test_a_follower_sees_every_line_over_rotations(bench: Bench) -> None:
    launch = bench.launch("sh", "-c", WRITER, host=host(max_size="10k", max_file="1000"), open_stdin=True)
    await bench.runtime.create(launch)
    path = launch.log_path
    following = asyncio.create_task(
        numbers(logs.read(path, follow=True, ended=bench.runtime.wait_exit(launch.id)))
    )
    stdio = await bench.runtime.attach(launch.id)
    await bench.runtime.start(launch.id)
    seen = b""
    while b"line 3000" not in seen:
        frame = await asyncio.wait_for(stdio.read(), 60)
        assert frame is not None
        seen = seen[-100:] + frame[1]
    while len(logfiles.numbered(path)) < 2:
        await asyncio.sleep(0.01)
    await stdio.write(b"end\n")
    stdio.close()
    assert await asyncio.wait_for(following, 60) == list(range(1, 3001))
    assert await numbers(logs.read(path)) == list(range(1, 3001))
    assert await numbers(logs.read(path, tail=2001)) == list(range(1001, 3001))


async def test_older_files_are_packed_and_read_as_one(bench: Bench) -> None:
    options = host(max_size="10k", max_file="1000", compress="true")
    launch = bench.launch("sh", "-c", WRITER, host=options, open_stdin=True)
    await bench.runtime.create(launch)
    path = launch.log_path
    following = asyncio.create_task(
        numbers(logs.read(path, follow=True, ended=bench.runtime.wait_exit(launch.id)))
    )
    stdio = await bench.runtime.attach(launch.id)
    await bench.runtime.start(launch.id)
    seen = b""
    while b"line 3000" not in seen:
        frame = await asyncio.wait_for(stdio.read(), 60)
        assert frame is not None
        seen = seen[-100:] + frame[1]
    while len(found := logfiles.numbered(path)) < 2 or not all(each.endswith(".gz") for _, each in found[1:]):
        await asyncio.sleep(0.01)
    assert await numbers(logs.read(path)) == list(range(1, 3001))
    await stdio.write(b"end\n")
    stdio.close()
    assert await asyncio.wait_for(following, 60) == list(range(1, 3001))
    assert await numbers(logs.read(path, tail=2001)) == list(range(1001, 3001))


async def test_old_files_beyond_the_number_go(bench: Bench) -> None:
    slow = "n=0; while [ $n -lt 40 ]; do n=$((n+1)); echo line $n xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; read word; done"
    launch = bench.launch("sh", "-c", slow, host=host(max_size="100", max_file="3"), open_stdin=True)
    await bench.runtime.create(launch)
    stdio = await bench.runtime.attach(launch.id)
    await bench.runtime.start(launch.id)
    path = launch.log_path
    for _ in range(40):
        seen = b""
        while b"\n" not in seen:
            frame = await asyncio.wait_for(stdio.read(), 60)
            assert frame is not None
            seen += frame[1]
        # Two lines fill a file: the next one waits for the rotation.
        while os.path.exists(path) and os.stat(path).st_size >= 100:
            await asyncio.sleep(0.005)
        while not os.path.exists(path):
            await asyncio.sleep(0.005)
        await stdio.write(b"go\n")
    stdio.close()
    await bench.runtime.wait_exit(launch.id)
    assert [number for number, _ in logfiles.numbered(path)] == [0, 1, 2]
    assert await numbers(logs.read(path)) == [37, 38, 39, 40]


async def test_the_next_daemon_goes_on(bench: Bench) -> None:
    """Also where the one before was killed after it had renamed the file."""
    launch = bench.launch("sh", "-c", WRITER, host=host(max_size="20k", max_file="50"), open_stdin=True)
    await bench.runtime.create(launch)
    bench.runtime._rotator.close()
    bench.runtime._rotator.forget(launch.id)
    path = launch.log_path
    os.rename(path, f"{path}.1")
    await bench.runtime.start(launch.id)
    heir = Runtime(bench.config)
    try:
        adopted = await heir.adopt(launch.id)
        assert adopted is not None
        assert adopted.state == "running"
        while not os.path.exists(path):
            await asyncio.sleep(0.01)
        stdio = await heir.attach(launch.id)
        await stdio.write(b"end\n")
        await asyncio.wait_for(heir.wait_exit(launch.id), 60)
        stdio.close()
        assert await numbers(logs.read(path)) == list(range(1, 3001))
    finally:
        heir.close()


async def test_one_file_is_begun_anew(bench: Bench) -> None:
    code, _ = await bench.run("sh", "-c", WRITER, host=host(max_size="5k"))
    assert code in (0, 1)
    (path,) = Path(bench.log(bench.ids[-1])).parent.iterdir()
    assert path.stat().st_size <= 5000


async def test_a_start_with_options_docker_refuses(bench: Bench) -> None:
    launch = bench.launch("true", host=host(max_file="0"))
    with pytest.raises(
        LaunchFailed, match="failed to initialize logging driver: max-file cannot be less than 1"
    ):
        await bench.runtime.create(launch)
