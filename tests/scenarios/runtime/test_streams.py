"""Attach, stdin, terminals, exec."""

# ruff: noqa: ASYNC110 - a state of the kernel has no event to wait for
from __future__ import annotations

import asyncio
import os
import signal

import pytest
from tests.patience import PATIENCE

from dari.model.errors import Conflict, InvalidArgument
from dari.runtime.failures import ExecRefused
from dari.runtime.launch import ExecSpec, Stdio

from .conftest import Bench


async def drain(stdio: Stdio) -> tuple[bytes, bytes]:
    streams = {1: b"", 2: b""}
    while (frame := await stdio.read()) is not None:
        streams[frame[0]] += frame[1]
    return streams[1], streams[2]


async def until(stdio: Stdio, words: bytes) -> bytes:
    seen = b""
    while words not in seen:
        frame = await asyncio.wait_for(stdio.read(), 10 * PATIENCE)
        assert frame is not None, seen
        seen += frame[1]
    return seen


async def running(bench: Bench, *args: str, **more: object) -> str:
    launch = bench.launch(*(args or ("sleep", "1000")), **more)
    await bench.runtime.create(launch)
    await bench.runtime.start(launch.id)
    return launch.id


async def test_attached_before_start_nothing_is_missed(bench: Bench) -> None:
    launch = bench.launch("sh", "-c", "echo out; echo err >&2; cat", open_stdin=True, stdin_once=True)
    await bench.runtime.create(launch)
    first, second = await bench.runtime.attach(launch.id), await bench.runtime.attach(launch.id)
    await bench.runtime.start(launch.id)
    await first.write(b"typed\n")
    await first.close_stdin()
    assert await drain(first) == (b"out\ntyped\n", b"err\n")
    assert await drain(second) == (b"out\ntyped\n", b"err\n")
    first.close()
    second.close()
    assert (await bench.runtime.wait_exit(launch.id)).code == 0
    with pytest.raises(Conflict):
        await bench.runtime.attach(launch.id)


async def test_a_reader_that_leaves_takes_no_stdin_with_it(bench: Bench) -> None:
    launch = bench.launch("cat", open_stdin=True, stdin_once=True)
    await bench.runtime.create(launch)
    writer, watcher = await bench.runtime.attach(launch.id), await bench.runtime.attach(launch.id)
    await bench.runtime.start(launch.id)
    await writer.write(b"one\n")
    await until(writer, b"one\n")
    watcher.close()
    await asyncio.sleep(0.05)
    await writer.write(b"two\n")
    await until(writer, b"two\n")
    await writer.close_stdin()
    assert await asyncio.wait_for(drain(writer), 10 * PATIENCE) == (b"", b"")
    writer.close()


async def test_stdin_that_is_kept_open_takes_a_second_client(bench: Bench) -> None:
    id = await running(bench, "cat", open_stdin=True)
    for words in (b"one\n", b"two\n"):
        client = await bench.runtime.attach(id)
        await client.write(words)
        await until(client, words)
        await client.close_stdin()
        client.close()


async def test_a_slow_reader_loses_nothing(bench: Bench) -> None:
    launch = bench.launch("sh", "-c", "yes 0123456789abcde | head -n 600000; echo end")
    await bench.runtime.create(launch)
    stdio = await bench.runtime.attach(launch.id)
    await bench.runtime.start(launch.id)
    await asyncio.sleep(0.3)
    out, _ = await asyncio.wait_for(drain(stdio), 30 * PATIENCE)
    assert len(out) == 600_000 * 16 + 4
    stdio.close()


async def test_much_stdin_arrives_whole(bench: Bench) -> None:
    launch = bench.launch("wc", "-c", open_stdin=True, stdin_once=True)
    await bench.runtime.create(launch)
    stdio = await bench.runtime.attach(launch.id)
    await bench.runtime.start(launch.id)
    await stdio.write(b"x" * 3_000_000)
    await stdio.close_stdin()
    assert (await asyncio.wait_for(drain(stdio), 30 * PATIENCE))[0].strip() == b"3000000"
    stdio.close()


async def test_a_terminal_has_a_size_and_one_stream(bench: Bench) -> None:
    launch = bench.launch("sh", tty=True, open_stdin=True)
    await bench.runtime.create(launch)
    stdio = await bench.runtime.attach(launch.id)
    await bench.runtime.start(launch.id)
    await bench.runtime.resize(launch.id, 33, 77)
    await stdio.write(b"stty size; echo $TERM; echo err >&2; exit 3\n")
    seen = await until(stdio, b"err\r\n")
    assert b"33 77" in seen
    assert b"xterm" in seen
    assert (await bench.runtime.wait_exit(launch.id)).code == 3
    stdio.close()


async def test_exec_runs_inside_with_its_own_streams_and_code(bench: Bench) -> None:
    id = await running(bench, env=["A=1"])
    spec = ExecSpec(
        cmd=["sh", "-c", "echo $A $B $HOME; pwd; id -u; id -G; cat; echo err >&2; exit 9"],
        env=["B=2"],
        user="web",
        working_dir="/tmp",
        attach_stdin=True,
    )
    handle = await bench.runtime.exec_start(id, spec)
    assert handle.pid in bench.runtime.pids(id)
    await handle.write(b"typed\n")
    await handle.close_stdin()
    assert await drain(handle) == (b"1 2 /home/web\n/tmp\n1000\n1001 50\ntyped\n", b"err\n")
    assert await handle.wait() == 9
    handle.close()


async def test_exec_with_a_terminal(bench: Bench) -> None:
    id = await running(bench)
    spec = ExecSpec(cmd=["sh"], is_tty=True, attach_stdin=True, console_size=[20, 50])
    handle = await bench.runtime.exec_start(id, spec)
    await handle.write(b"stty size\n")
    await until(handle, b"20 50")
    handle.resize(21, 51)
    await handle.write(b"stty size\n")
    await until(handle, b"21 51")
    await handle.write(b"exit 4\n")
    await drain(handle)
    assert await handle.wait() == 4
    handle.close()


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("nope", 127, 'OCI runtime exec failed: exec failed: .*exec: "nope": executable file not found'),
        ("/bin/text", 126, "OCI runtime exec failed: exec failed: .*permission denied"),
    ],
)
@pytest.mark.parametrize("is_tty", [False, True])
async def test_exec_of_what_cannot_run_is_refused(
    bench: Bench, command: str, code: int, words: str, is_tty: bool
) -> None:
    id = await running(bench)
    with pytest.raises(ExecRefused, match=words) as caught:
        await bench.runtime.exec_start(id, ExecSpec(cmd=[command], is_tty=is_tty))
    assert caught.value.exit_code == code


async def test_exec_needs_a_user_and_a_running_container(bench: Bench) -> None:
    id = await running(bench)
    with pytest.raises(InvalidArgument, match="unable to find user nobody"):
        await bench.runtime.exec_start(id, ExecSpec(cmd=["true"], user="nobody"))
    await bench.runtime.signal(id, signal.SIGKILL)
    await bench.runtime.wait_exit(id)
    with pytest.raises(Conflict, match="is not running"):
        await bench.runtime.exec_start(id, ExecSpec(cmd=["true"]))


async def test_a_long_exec_leaves_only_its_own_process_in_the_container(bench: Bench) -> None:
    id = await running(bench)
    handle = await bench.runtime.exec_start(id, ExecSpec(cmd=["sleep", "1000"]))
    while len(bench.runtime.pids(id)) != 2:
        await asyncio.sleep(0.05)
    assert set(bench.runtime.pids(id)) == {bench.runtime.pid(id), handle.pid}
    handle.signal(signal.SIGKILL)
    assert await drain(handle) == (b"", b"")
    assert await handle.wait() == 137
    handle.close()


async def test_a_detached_exec_and_open_descriptors(bench: Bench) -> None:
    id = await running(bench)
    before = len(os.listdir("/proc/self/fd"))
    for is_tty in (False, True):
        spec = ExecSpec(cmd=["true"], is_tty=is_tty, attach_stdout=False, attach_stderr=False)
        handle = await bench.runtime.exec_start(id, spec)
        await drain(handle)
        assert await handle.wait() == 0
        handle.close()
    assert len(os.listdir("/proc/self/fd")) == before
