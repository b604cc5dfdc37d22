"""Paths in a hostile root, cgroup files of both versions, statistics."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dari.model.errors import Internal
from dari.runtime import cgroups, stats
from dari.runtime.paths import mkdir_in, open_in, read_text_in, resolve_in


@pytest.fixture
def root(tmp_path: Path) -> Path:
    top = tmp_path / "root"
    (top / "etc").mkdir(parents=True)
    (top / "run").mkdir()
    (tmp_path / "secret").write_text("secret")
    (top / "etc/passwd").symlink_to("../../../secret")
    (top / "etc/absolute").symlink_to(str(tmp_path / "secret"))
    (top / "etc/group").write_text("group")
    (top / "var").symlink_to("/")
    (top / "loop").symlink_to("loop")
    (top / "out").symlink_to("../../..")
    return top


def test_links_stay_inside(root: Path) -> None:
    assert read_text_in(str(root), "/etc/passwd") == ""
    assert read_text_in(str(root), "/etc/absolute") == ""
    assert read_text_in(str(root), "/var/etc/group") == "group"
    assert read_text_in(str(root), "/loop") == ""
    assert read_text_in(str(root), "/etc") == ""
    os.mkfifo(root / "fifo")
    assert read_text_in(str(root), "/fifo") == ""


def test_targets_resolve_as_the_container_sees_them(root: Path) -> None:
    assert resolve_in(str(root), "/var/run/x") == "/run/x"
    assert resolve_in(str(root), "/out/etc/../new/file") == "/new/file"
    with pytest.raises(OSError, match="symbolic links"):
        resolve_in(str(root), "/loop/x")


def test_folders_are_made_inside(root: Path, tmp_path: Path) -> None:
    mkdir_in(str(root), "/out/work/deep")
    assert (root / "work/deep").is_dir()
    mkdir_in(str(root), "/work/deep")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["root", "secret"]
    with pytest.raises(NotADirectoryError):
        os.close(open_in(str(root), "/etc/group/x"))


@given(st.text(alphabet="./ab", max_size=20))
def test_no_path_climbs(path: str) -> None:
    parts = resolve_in("/nonexistent", path).split("/")
    assert parts[0] == ""
    assert ".." not in parts
    assert "." not in parts


V1_INFO = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 31 0:31 / /elsewhere rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""


def test_hierarchies_are_found(tmp_path: Path) -> None:
    info, own = tmp_path / "info", tmp_path / "own"
    info.write_text(V1_INFO)
    own.write_text("2:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n")
    found = cgroups.detect(str(info), str(own))
    assert found.version == 1
    assert found.file("/d/x", "cpuacct", "cpuacct.usage") == "/sys/fs/cgroup/cpu,cpuacct/d/x/cpuacct.usage"
    assert found.file("/d/x", "memory", "x") == ""
    assert found.entering("/d/x")[-1] == "/d/x"
    info.write_text("35 31 0:32 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    own.write_text("0::/\n")
    found = cgroups.detect(str(info), str(own))
    assert (found.version, found.entering("/d/x")) == (2, [])
    info.write_text("")
    with pytest.raises(Internal, match="no cgroup file system"):
        cgroups.detect(str(info), str(own))


def test_version_2_files(tmp_path: Path) -> None:
    folder = tmp_path / "d/x"
    folder.mkdir(parents=True)
    for name in ("memory.max", "memory.swap.max", "cpu.max", "cpu.weight", "pids.max"):
        (folder / name).write_text("")
    (tmp_path / "cgroup.controllers").write_text("cpu memory")
    (tmp_path / "cgroup.subtree_control").write_text("")
    (tmp_path / "d/cgroup.controllers").write_text("")
    group = cgroups.CgroupsV2(str(tmp_path))
    warnings = group.apply(
        "/d/x",
        {
            "memory": {"limit": 100, "swap": 150},
            "cpu": {"quota": 50000, "period": 100000, "shares": 1024, "cpus": "0"},
            "pids": {"limit": -1},
        },
    )
    assert {p.name: p.read_text() for p in folder.iterdir()} == {
        "memory.max": "100",
        "memory.swap.max": "50",
        "cpu.max": "50000 100000",
        "cpu.weight": "39",
        "pids.max": "max",
    }
    assert warnings == ["this kernel has no cpuset.cpus: limitation discarded"]


def test_network_and_block_numbers() -> None:
    text = (
        "Inter-|   Receive  |  Transmit\n face |bytes packets\n"
        "    lo:     1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"
        "  eth0:   100 2 3 4 0 0 0 0 200 5 6 7 0 0 0 0\n"
    )
    assert stats.parse_network(text) == {
        "eth0": stats.NetworkStats(
            rx_bytes=100,
            rx_packets=2,
            rx_errors=3,
            rx_dropped=4,
            tx_bytes=200,
            tx_packets=5,
            tx_errors=6,
            tx_dropped=7,
        )
    }
    assert stats.parse_blkio("8:0 Read 5\n8:0 Total 9\nTotal 9\n") == [
        stats.BlkioEntry(major=8, minor=0, op="Read", value=5),
        stats.BlkioEntry(major=8, minor=0, op="Total", value=9),
    ]
    found = stats.parse_io_stat("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n")
    assert [(e.op, e.value) for e in found.io_service_bytes_recursive] == [("read", 1), ("write", 2)]
    assert [e.value for e in found.io_serviced_recursive] == [3, 4]
