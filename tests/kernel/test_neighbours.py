"""The machine's tables of neighbours: counted where they are, out of reach from any other network namespace."""

from __future__ import annotations

import errno
import os

import pytest
from tests.kernel.world import run

from dari.kernel import neighbours, sysctl

PATHS = [neighbours._PATH.format(version, number) for version in (4, 6) for number in (1, 2, 3)]


def is_first_namespace() -> bool:
    return sysctl.read(PATHS[0]) is not None and os.path.exists("/proc/net/stat/arp_cache")


def test_they_are_counted_and_get_room() -> None:
    if os.geteuid() != 0 or not is_first_namespace():
        pytest.skip("needs root in the machine's own network namespace")
    before = {path: sysctl.read(path) for path in PATHS}
    four = next(each for each in neighbours.tables() if each.version == 4)
    # Every namespace's, so at least this one's.
    own = [line for line in run("ip", "-4", "neigh").splitlines() if "lladdr" in line]
    assert four.entries >= len(own) and four.overflows >= 0
    assert four.most == int(before["net/ipv4/neigh/default/gc_thresh3"] or 0)
    try:
        assert not neighbours.make_room(8)
        assert {path: sysctl.read(path) for path in PATHS} == before
        wanted = four.most + 64
        assert neighbours.make_room(wanted)
        assert sysctl.read("net/ipv4/neigh/default/gc_thresh3") == str(wanted)
        assert int(sysctl.read("net/ipv4/neigh/default/gc_thresh2") or 0) >= wanted // 2
        assert not neighbours.make_room(wanted)
    finally:
        for path, value in before.items():
            if value is not None:
                sysctl.write(path, value)


@pytest.mark.kernel_ns
def test_in_another_namespace_they_are_not_to_be_had() -> None:
    assert list(neighbours.tables()) == []
    with pytest.raises(OSError) as caught:
        neighbours.make_room(4096)
    assert caught.value.errno == errno.ENOENT
