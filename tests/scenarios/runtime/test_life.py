"""A container's life: create, start, end, signals, pause, removal, and the errors on the way."""

# ruff: noqa: ASYNC110 - a state of the kernel has no event to wait for
from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from pathlib import Path

import pytest
from tests.patience import PATIENCE

from dari.model.container import HostConfig, LogConfig
from dari.model.errors import Conflict, InvalidArgument, NotFound
from dari.runtime.failures import LaunchFailed, LaunchRefused
from dari.runtime.processes import start_time

from .conftest import Bench


async def test_a_command_runs_and_its_code_and_words_come_back(bench: Bench) -> None:
    assert await bench.run("sh", "-c", "echo out; echo err >&2; exit 7") == (7, "out\nerr\n")


async def test_create_waits_for_start(bench: Bench) -> None:
    launch = bench.launch("echo", "started")
    created = await bench.runtime.create(launch)
    assert created.pid == bench.runtime.pid(launch.id) > 0
    adopted = await bench.runtime.adopt(launch.id)
    assert adopted is not None
    assert adopted.state == "created"
    assert bench.said(launch.id) == ""
    await bench.runtime.start(launch.id)
    assert (await bench.runtime.wait_exit(launch.id)).code == 0
    assert bench.said(launch.id) == "started\n"
    with pytest.raises(Conflict):
        await bench.runtime.start(launch.id)


@pytest.mark.parametrize("command", ["true", "nope"])
async def test_nothing_ended_is_left_to_be_reaped(bench: Bench, command: str) -> None:
    launch = bench.launch(command)
    if command == "nope":
        with pytest.raises(LaunchRefused):
            await bench.runtime.create(launch)
    else:
        await bench.runtime.create(launch)
        await bench.runtime.start(launch.id)
        await bench.runtime.wait_exit(launch.id)
    children = " ".join(each.read_text() for each in Path("/proc/self/task").glob("*/children")).split()
    assert [pid for pid in children if start_time(int(pid)) == 0] == []


async def test_crun_waits_in_a_copy_that_nobody_can_write(bench: Bench) -> None:
    """What a container may get hold of as /proc/self/exe of its init (CVE-2019-5736)."""
    launch = bench.launch("true")
    created = await bench.runtime.create(launch)
    assert os.readlink(f"/proc/{created.pid}/exe").startswith("/memfd:crun")
    with open(f"/proc/{created.pid}/exe", "rb") as copy:
        assert fcntl.fcntl(copy, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("nope", 127, 'exec: "nope": executable file not found in $PATH'),
        ("/bin/nope", 127, 'exec: "/bin/nope": stat /bin/nope: no such file or directory'),
        ("/bin/text", 126, 'exec: "/bin/text": permission denied'),
        ("/bin", 126, 'exec: "/bin": permission denied'),
    ],
)
async def test_a_command_that_cannot_run_is_refused_and_leaves_nothing(
    bench: Bench, command: str, code: int, words: str
) -> None:
    launch = bench.launch(command)
    with pytest.raises(LaunchRefused) as caught:
        await bench.runtime.create(launch)
    assert caught.value.exit_code == code
    assert words in caught.value.message
    assert caught.value.message.startswith("failed to create task for container: ")
    assert bench.runtime.known_ids() == []
    assert await bench.runtime.adopt(launch.id) is None
    assert not os.path.exists(f"/sys/fs/cgroup/memory{bench.config.cgroup_parent}/{launch.id}")


async def test_an_unknown_user_is_refused_before_anything_is_made(bench: Bench) -> None:
    launch = bench.launch("true", user="nobody")
    with pytest.raises(
        InvalidArgument, match="unable to find user nobody: no matching entries in passwd file"
    ):
        await bench.runtime.create(launch)
    assert bench.runtime.known_ids() == []


async def test_a_bad_sysctl_fails_with_the_reason(bench: Bench) -> None:
    launch = bench.launch("true", host=HostConfig(sysctls={"net.ipv4.no_such": "1"}))
    with pytest.raises(LaunchFailed, match="no_such"):
        await bench.runtime.create(launch)


async def test_a_signal_ends_it(bench: Bench) -> None:
    launch = bench.launch("sleep", "1000")
    await bench.runtime.create(launch)
    await bench.runtime.start(launch.id)
    await bench.runtime.signal(launch.id, signal.SIGKILL)
    end = await asyncio.wait_for(bench.runtime.wait_exit(launch.id), 10 * PATIENCE)
    assert (end.code, end.is_oom_killed) == (137, False)
    assert end.finished > 0
    with pytest.raises(Conflict):
        await bench.runtime.signal(launch.id, signal.SIGTERM)


async def test_pause_stops_every_process_and_unpause_lets_them_go_on(bench: Bench) -> None:
    launch = bench.launch("sh", "-c", "while true; do echo x; sleep 0.01; done")
    await bench.runtime.create(launch)
    await bench.runtime.start(launch.id)
    while not bench.said(launch.id):
        await asyncio.sleep(0.01)
    await bench.runtime.pause(launch.id)
    adopted = await bench.runtime.adopt(launch.id)
    assert adopted is not None
    assert adopted.state == "paused"
    # conmon may still write down what was said before.
    before = ""
    async with asyncio.timeout(20 * PATIENCE):
        while before != (before := bench.said(launch.id)):
            await asyncio.sleep(0.1)
    await bench.runtime.unpause(launch.id)
    while bench.said(launch.id) == before:
        await asyncio.sleep(0.01)
    await bench.runtime.pause(launch.id)
    # Removal of a paused container must not hang.
    await asyncio.wait_for(bench.runtime.delete(launch.id), 20 * PATIENCE)


async def test_delete_of_a_running_container_removes_all_of_it(bench: Bench) -> None:
    launch = bench.launch("sh", "-c", "sleep 1000 & sleep 1000")
    created = await bench.runtime.create(launch)
    await bench.runtime.start(launch.id)
    await bench.runtime.delete(launch.id)
    assert not os.path.exists(f"/proc/{created.pid}")
    assert not os.path.exists(f"{bench.config.run_dir}/{launch.id}")
    for folder in Path("/sys/fs/cgroup").glob(f"*{bench.config.cgroup_parent}/{launch.id}"):
        pytest.fail(f"{folder} is left")
    await bench.runtime.delete(launch.id)
    with pytest.raises(NotFound):
        await bench.runtime.wait_exit(launch.id)


async def test_the_oom_killer_is_reported(bench: Bench) -> None:
    launch = bench.launch(
        "sh", "-c", "a=x; while true; do a=$a$a; done", host=HostConfig(memory=8 << 20, memory_swap=8 << 20)
    )
    await bench.runtime.create(launch)
    await bench.runtime.start(launch.id)
    end = await asyncio.wait_for(bench.runtime.wait_exit(launch.id), 30 * PATIENCE)
    assert (end.code, end.is_oom_killed) == (137, True)


async def test_without_a_log_nothing_is_kept(bench: Bench) -> None:
    launch = bench.launch("echo", "lost", host=HostConfig(log_config=LogConfig(type="none")), log_path="")
    await bench.runtime.create(launch)
    await bench.runtime.start(launch.id)
    assert (await bench.runtime.wait_exit(launch.id)).code == 0
    assert not os.path.exists(bench.log(launch.id))
