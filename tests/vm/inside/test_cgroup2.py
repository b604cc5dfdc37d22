"""Containers' limits on a pure cgroup v2 host with controllers: set, shown, changed, enforced, gone."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from tests.scenarios.conftest import IMAGE, Node, wait_for

MIB = 1 << 20


def group(node: Node, container: Any) -> Path:
    """The container's cgroup as the host sees it."""
    line = Path(f"/proc/{node.pid(container)}/cgroup").read_text().strip()
    assert line.startswith("0::/"), line
    return Path("/sys/fs/cgroup" + line.removeprefix("0::"))


def value(folder: Path, name: str) -> str:
    return (folder / name).read_text().strip()


def test_the_host_is_told_as_it_is(node: Node) -> None:
    info = node.client.info()
    assert info["CgroupVersion"] == "2"
    assert all(
        info[name] for name in ("MemoryLimit", "SwapLimit", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit")
    )


def test_limits_are_set_shown_and_changed(node: Node) -> None:
    limits = {
        "mem_limit": 64 * MIB,
        "memswap_limit": 96 * MIB,
        "mem_reservation": 32 * MIB,
        "nano_cpus": 500_000_000,
        "cpu_shares": 512,
        "cpuset_cpus": "0",
        "pids_limit": 50,
    }
    box = node.sleeper("box", **limits)
    found = group(node, box)
    assert value(found, "memory.max") == str(64 * MIB)
    assert value(found, "memory.swap.max") == str(32 * MIB)
    assert value(found, "memory.low") == str(32 * MIB)
    assert value(found, "cpu.max") == "50000 100000"
    assert value(found, "cpu.weight") == "20"
    assert value(found, "cpuset.cpus") == "0"
    assert value(found, "pids.max") == "50"
    host = box.attrs["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (
        64 * MIB,
        96 * MIB,
        500_000_000,
        50,
    )
    # The container sees its own group, in a namespace of its own.
    assert box.exec_run(["cat", "/proc/1/cgroup"]).output.decode() == "0::/\n"
    seen = box.exec_run(["cat", "/sys/fs/cgroup/memory.max"])
    assert (seen.exit_code, seen.output.decode().strip()) == (0, str(64 * MIB))

    box.update(mem_limit=128 * MIB, memswap_limit=128 * MIB, cpu_shares=1024, cpuset_cpus="0-1")
    assert value(found, "memory.max") == str(128 * MIB)
    assert value(found, "memory.swap.max") == "0"
    assert value(found, "cpu.weight") == "39"
    assert value(found, "cpuset.cpus") == "0-1"
    node.client.api._post_json(
        node.client.api._url("/containers/{0}/update", box.id),
        data={"NanoCpus": 250_000_000, "PidsLimit": 20},
    ).raise_for_status()
    assert value(found, "cpu.max") == "25000 100000"
    assert value(found, "pids.max") == "20"
    box.reload()
    assert (box.attrs["HostConfig"]["Memory"], box.attrs["HostConfig"]["PidsLimit"]) == (128 * MIB, 20)
    # What was changed holds after a restart.
    box.restart(timeout=0)
    found = group(node, box)
    assert value(found, "memory.max") == str(128 * MIB)
    assert value(found, "pids.max") == "20"
    box.remove(force=True)
    wait_for("the group's end", lambda: not found.exists())


def test_raising_the_memory_limit_alone_keeps_the_swap_limit(node: Node) -> None:
    """memory.swap.max is swap alone, Docker's MemorySwap is both: one moves with the other."""
    box = node.sleeper("box", mem_limit=64 * MIB, memswap_limit=128 * MIB)
    found = group(node, box)
    assert value(found, "memory.swap.max") == str(64 * MIB)
    box.update(mem_limit=96 * MIB)
    box.reload()
    assert (box.attrs["HostConfig"]["Memory"], box.attrs["HostConfig"]["MemorySwap"]) == (96 * MIB, 128 * MIB)
    assert value(found, "memory.max") == str(96 * MIB)
    assert value(found, "memory.swap.max") == str(32 * MIB)


def test_too_much_memory_is_an_oom_kill(node: Node) -> None:
    box = node.client.containers.run(
        IMAGE,
        ["sh", "-c", "tail /dev/zero"],
        name="greedy",
        mem_limit=16 * MIB,
        memswap_limit=16 * MIB,
        detach=True,
    )
    assert box.wait(timeout=60)["StatusCode"] == 137
    box.reload()
    assert box.attrs["State"]["OOMKilled"] is True
    events = node.client.events(
        since=1, until=int(time.time()) + 1, decode=True, filters={"container": "greedy"}
    )
    with contextlib.closing(events):
        assert "oom" in {each["Action"] for each in events}


def test_too_many_processes_are_refused(node: Node) -> None:
    box = node.sleeper("box", pids_limit=6)
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait"
    told = box.exec_run(["sh", "-c", script])
    assert b"fork" in told.output


def test_pause_and_stats(node: Node) -> None:
    box = node.client.containers.run(
        IMAGE,
        ["sh", "-c", "while :; do :; done"],
        name="busy",
        nano_cpus=200_000_000,
        mem_limit=64 * MIB,
        detach=True,
    )
    found = group(node, box)
    stats = box.stats(stream=False)
    assert stats["memory_stats"]["limit"] == 64 * MIB
    assert 0 < stats["memory_stats"]["usage"] < 64 * MIB
    assert stats["pids_stats"]["current"] >= 1
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    wait_for("throttling", lambda: "nr_throttled 0" not in value(found, "cpu.stat"))
    throttled = box.stats(stream=False)["cpu_stats"]["throttling_data"]
    assert throttled["throttled_periods"] > 0 and throttled["throttled_time"] > 0
    box.pause()
    assert "frozen 1" in value(found, "cgroup.events")
    box.reload()
    assert box.status == "paused"
    box.unpause()
    assert "frozen 0" in value(found, "cgroup.events")


def test_devices_are_kept_out(node: Node) -> None:
    """Device rules are a BPF program here, not files."""
    box = node.sleeper("box", devices=["/dev/fuse:/dev/given:r"] if Path("/dev/fuse").exists() else [])
    told = box.exec_run(["sh", "-c", "mknod /tmp/disk b 254 0 && cat /tmp/disk > /dev/null"])
    assert told.exit_code != 0 and b"ermitted" in told.output
    assert box.exec_run(["sh", "-c", "echo x > /dev/null"]).exit_code == 0


def test_a_daemon_that_died_finds_the_groups_again(node: Node) -> None:
    box = node.sleeper("box", mem_limit=64 * MIB, pids_limit=9)
    found = group(node, box)
    node.kill()
    node.start()
    again = node.client.containers.get("box")
    assert again.status == "running" and group(node, again) == found
    again.update(mem_limit=32 * MIB, memswap_limit=32 * MIB)
    assert value(found, "memory.max") == str(32 * MIB)
    told = again.exec_run(["cat", "/proc/self/cgroup"])
    assert told.exit_code == 0
    again.remove(force=True)
    wait_for("the group's end", lambda: not found.exists())
