"""A node whose clock is hours off, or is set while it runs: sessions, leases, heartbeats and names do not care.

The clock of one darid (its wall clock alone) is libfaketime's, told by a file; the other's is the machine's.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE
from tests.scenarios.cluster.conftest import Host, Hosts, all_joined, eventually, some_hosts
from tests.scenarios.cluster.test_overlay import fetch, knows
from tests.scenarios.discovery.test_members import dari
from tests.store import servers

from dari.client.discovery import Discovery
from dari.units import parse_time

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
TTL = 10
"""Of the hosts' sessions, in seconds: a machine so busy that darid is not heard for this long is not a wrong clock."""
LONGER = 1.2 * TTL
"""Who is judged by a clock that was set has lost his session by then."""


@pytest.fixture(scope="module", params=["etcd", pytest.param("zk", marks=pytest.mark.slow)])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Two hosts; the second one's clock is set by `set_clock`."""
    has = servers.has_etcd() if request.param == "etcd" else servers.has_zookeeper()
    if not has or LIBRARY is None:
        pytest.skip(f"needs {request.param} and faketime")
    folder = tmp_path_factory.mktemp(f"clock-{request.param}")
    with some_hosts(request.param, folder, 2, "--store-ttl", str(TTL)) as made:
        eventually("all joined", lambda: all_joined(made))
        host = made[1]
        host.kill()
        host.environment = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(host.folder / "clock"),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        set_clock(host, 0)
        host.start()
        eventually("all joined", lambda: all_joined(made))
        made[0].client.networks.create("wide", driver="overlay", attachable=True)
        eventually("the network", lambda: made[1].client.networks.list(names=["wide"]))
        yield made


def set_clock(host: Host, hours: int) -> None:
    """Behind (negative) or ahead of the machine's."""
    clock = host.folder / "clock"
    fresh = clock.with_suffix(".new")
    fresh.write_text(f"{hours:+d}h\n")
    fresh.rename(clock)


def offset(host: Host) -> float:
    """In hours, as its darid tells the time."""
    told = host.client.info()["SystemTime"]
    return (parse_time(told, 0) / 1e9 - time.time()) / 3600


class Beating:
    """Heartbeats of a member with a time to live, as long as it is entered; `failed`: one was refused."""

    def __init__(self, members: Discovery, registration_id: str) -> None:
        self.failed: list[BaseException] = []
        self._members, self._id = members, registration_id
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat)

    def __enter__(self) -> Beating:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(0.2):
            try:
                self._members.heartbeat(self._id)
            except Exception as error:
                self.failed.append(error)
                return


def stays_joined(hosts: Hosts, seconds: float) -> None:
    """For longer than a session lasts without a sign of life."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        assert all_joined(hosts)
        assert hosts.dari(hosts[1], "/dari/v1/cluster")["Problem"] == ""
        time.sleep(0.2)


def works(hosts: Hosts, number: int) -> None:
    """Containers start on both hosts, with addresses of their own, know each other and are gone when they end."""
    near = hosts[0].serve(f"near{number}", "near", network="wide")
    far = hosts[1].serve(f"far{number}", "far", network="wide")
    try:
        assert hosts[0].address(near, "wide") != hosts[1].address(far, "wide")
        eventually("far's name", lambda: knows(hosts[0], near, f"far{number}"))
        eventually("near's name", lambda: knows(hosts[1], far, f"near{number}"))
        assert fetch(hosts[0], near, f"far{number}") == "far\n"
        assert fetch(hosts[1], far, f"near{number}") == "near\n"
    finally:
        far.remove(force=True)
        eventually("far's name is gone", lambda: not knows(hosts[0], near, f"far{number}"))
        near.remove(force=True)


@pytest.mark.parametrize("hours", [-5, pytest.param(7, marks=pytest.mark.slow)])
def test_a_clock_that_is_set_while_darid_runs(pair: Hosts, hours: int) -> None:
    set_clock(pair[1], 0)
    host = pair[1]
    with contextlib.closing(Discovery(f"unix://{host.socket}")) as members:
        checks = [{"Kind": "ttl", "Interval": "10s"}]
        mine = members.register("beating", "192.0.2.7", 80, checks=checks)
        with Beating(members, mine["ID"]) as beating:
            eventually("it is known", lambda: dari(pair[0], "lookup", "beating").returncode == 0)
            set_clock(host, hours)
            assert round(offset(host)) == hours
            stays_joined(pair, LONGER)
            assert not beating.failed
            assert dari(pair[0], "lookup", "beating").returncode == 0
            works(pair, hours)
            set_clock(host, 0)
            stays_joined(pair, LONGER)
            assert not beating.failed
        eventually(
            "without heartbeats it goes", lambda: dari(pair[0], "lookup", "beating").returncode == 1, 40
        )


@pytest.mark.parametrize("hours", [7, pytest.param(-5, marks=pytest.mark.slow)])
def test_a_darid_that_starts_with_a_wrong_clock(pair: Hosts, hours: int) -> None:
    host = pair[1]
    stays = host.serve(f"stays{hours}", "stays", network="wide")
    host.kill()
    set_clock(host, hours)
    host.start()
    try:
        assert round(offset(host)) == hours
        eventually("all joined", lambda: all_joined(pair))
        assert host.pid(stays) > 0
        works(pair, hours)
        # Events are told, though some in the journal are from the future.
        told: list[dict[str, Any]] = []
        source = host.client.events(decode=True, filters={"type": "container"})
        hearing = threading.Thread(target=lambda: told.extend(next(source) for _ in range(2)))
        hearing.start()
        host.sleeper(f"heard{hours}").remove(force=True)
        hearing.join(20 * PATIENCE)
        assert [each["Action"] for each in told] == ["create", "start"]
        if hours > 0:
            # The row of the daemon before lives for a moment more.
            ahead = "its clock is ahead of this node's"
            eventually("it is a finding", lambda: ahead in dari(pair[0], "doctor").stdout)
    finally:
        set_clock(host, 0)
        stays.remove(force=True)
        host.kill()
        host.start()
        eventually("all joined", lambda: all_joined(pair))
