"""Any process may die alone: the container goes on, and the next runtime finds it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest
from tests.patience import PATIENCE

from dari.runtime.containers import Runtime
from dari.runtime.launch import Adopted, Launch

from .conftest import Bench

CHILD = textwrap.dedent(
    """
    import asyncio, sys
    import msgspec
    from dari.model.config import Config
    from dari.runtime.containers import Runtime
    from dari.runtime.launch import Launch

    async def main(config, launch):
        runtime = Runtime(config)
        await runtime.create(launch)
        await runtime.start(launch.id)
        stdio = await runtime.attach(launch.id)
        print("up", flush=True)
        while await stdio.read():
            pass

    config, launch = sys.stdin.buffer.read().split(b"\\0")
    asyncio.run(main(msgspec.json.decode(config, type=Config), msgspec.json.decode(launch, type=Launch)))
    """
)


async def start_elsewhere(bench: Bench, launch: Launch) -> asyncio.subprocess.Process:
    """A process that makes the container and stays attached to it."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CHILD,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(msgspec.json.encode(bench.config) + b"\0" + msgspec.json.encode(launch))
    child.stdin.close()
    assert await asyncio.wait_for(child.stdout.readline(), 20 * PATIENCE) == b"up\n"
    return child


@pytest.mark.parametrize("is_tty", [False, True])
async def test_the_daemon_is_killed_and_the_container_goes_on(bench: Bench, is_tty: bool) -> None:
    script = "while [ ! -e /dev/shm/stop ]; do echo x; sleep 0.01; done; exit 5"
    launch = bench.launch("sh", "-c", script, open_stdin=is_tty, stdin_once=is_tty, tty=is_tty)
    child = await start_elsewhere(bench, launch)
    child.send_signal(signal.SIGKILL)
    await child.wait()
    later = Runtime(bench.config)
    found = await later.adopt(launch.id)
    assert found is not None
    assert (found.state, found.exit) == ("running", None)
    assert later.known_ids() == [launch.id]
    before = bench.said(launch.id)
    for _ in range(500):
        if bench.said(launch.id) != before:
            break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("the container does not go on")
    waiting = asyncio.create_task(later.wait_exit(launch.id))
    Path(f"/proc/{found.pid}/root/dev/shm/stop").touch()
    assert (await asyncio.wait_for(waiting, 10 * PATIENCE)).code == 5
    await later.delete(launch.id)
    assert await later.adopt(launch.id) is None


async def test_an_end_nobody_watched_is_found(bench: Bench) -> None:
    launch = bench.launch("sh", "-c", "while [ ! -e /dev/shm/stop ]; do sleep 0.01; done; exit 6")
    child = await start_elsewhere(bench, launch)
    child.send_signal(signal.SIGKILL)
    await child.wait()
    living = await Runtime(bench.config).adopt(launch.id)
    assert living is not None
    Path(f"/proc/{living.pid}/root/dev/shm/stop").touch()
    await bench.runtime.wait_exit(launch.id)
    found = await Runtime(bench.config).adopt(launch.id)
    assert isinstance(found, Adopted)
    assert found.state == "exited"
    assert found.exit is not None
    assert (found.exit.code, found.exit.finished > 0) == (6, True)


async def test_a_killed_conmon_takes_nothing_with_it_but_the_code(bench: Bench) -> None:
    launch = bench.launch("sleep", "1000")
    created = await bench.runtime.create(launch)
    await bench.runtime.start(launch.id)
    os.kill(created.conmon_pid, signal.SIGKILL)
    found = await bench.runtime.adopt(launch.id)
    assert found is not None
    assert (found.state, found.pid) == ("running", created.pid)
    waiting = asyncio.create_task(bench.runtime.wait_exit(launch.id))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await bench.runtime.signal(launch.id, signal.SIGKILL)
    assert (await asyncio.wait_for(waiting, 10 * PATIENCE)).code == 255


async def test_a_daemon_killed_between_intent_and_deed_leaves_what_delete_removes(bench: Bench) -> None:
    """The record is there, conmon and crun have noted their pids, the daemon has not."""
    launch = bench.launch("sleep", "1000")
    created = await bench.runtime.create(launch)
    record = Path(bench.config.run_dir) / launch.id / "record.json"
    intent = msgspec.json.decode(record.read_bytes())
    for name in ("pid", "pid_started", "conmon_pid", "conmon_started"):
        intent[name] = 0
    record.write_bytes(msgspec.json.encode(intent))
    later = Runtime(bench.config)
    found = await later.adopt(launch.id)
    assert found is not None
    assert (found.state, found.pid, found.conmon_pid) == ("created", created.pid, created.conmon_pid)
    await later.delete(launch.id)
    assert not os.path.exists(f"/proc/{found.pid}")
    assert not os.path.exists(f"/proc/{found.conmon_pid}")
    record.parent.mkdir()
    await later.delete(launch.id)
    assert not record.parent.exists()


async def test_waiting_is_for_many_and_may_be_given_up(bench: Bench) -> None:
    launch = bench.launch("sleep", "1000")
    await bench.runtime.create(launch)
    await bench.runtime.start(launch.id)
    before = len(os.listdir("/proc/self/fd"))
    waiting = [asyncio.create_task(bench.runtime.wait_exit(launch.id)) for _ in range(3)]
    await asyncio.sleep(0.02)
    waiting[0].cancel()
    await asyncio.wait([waiting[0]])
    await bench.runtime.signal(launch.id, signal.SIGKILL)
    assert {end.code for end in await asyncio.gather(*waiting[1:])} == {137}
    assert len(os.listdir("/proc/self/fd")) == before


async def test_conmon_is_not_in_the_daemon_s_cgroup(bench: Bench) -> None:
    """Whoever stops a service by its cgroup must not stop the containers."""
    launch = bench.launch("sleep", "1000")
    created = await bench.runtime.create(launch)
    for line in Path(f"/proc/{created.conmon_pid}/cgroup").read_text().splitlines():
        number, _, path = line.split(":", 2)
        if number != "0" or bench.runtime.cgroup_version == 2:
            assert path == f"{bench.config.cgroup_parent}/conmon"
    assert bench.config.cgroup_parent not in Path("/proc/self/cgroup").read_text()


async def test_a_launch_given_up_half_way_leaves_nothing(bench: Bench) -> None:
    for wait in (0.0, 0.002, 0.005, 0.01, 0.015):
        launch = bench.launch("sleep", "1000")
        task = asyncio.create_task(bench.runtime.create(launch))
        await asyncio.sleep(wait)
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            assert await bench.runtime.adopt(launch.id) is None
            assert bench.runtime.known_ids() == []
        else:
            await bench.runtime.delete(launch.id)
