"""Random work on all hosts at once, faults in the midst of it; whenever they are over all views agree again.

`DARI_SOAK=SEED:ROUNDS` says what to run instead of the short one here.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest
import requests
from tests.scenarios.cluster.conftest import SUBNET, Host, Hosts, all_joined, eventually, some_hosts
from tests.scenarios.cluster.truth import disagreements
from tests.store import servers

NETWORKS = ["o0", "o1"]
SERVER = ["sh", "-c", "exec httpd -f -p 80 -h /tmp"]
NAMES = [f"c{host}-{number}" for host in range(3) for number in range(3)] + ["web"]
SEED, ROUNDS = map(int, os.environ.get("DARI_SOAK", "5:6").split(":"))
# What a user may be told: it is not there, it is taken, the store is away.
REFUSALS = {304, 400, 403, 404, 409, 503}

pytestmark = pytest.mark.slow


@pytest.fixture(params=["etcd", "zk"])
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    if not (servers.has_etcd() if request.param == "etcd" else servers.has_zookeeper()):
        pytest.skip(f"needs {request.param}")
    with some_hosts(request.param, tmp_path_factory.mktemp(request.param), 3, members=3) as made:
        eventually("all joined", lambda: all_joined(made), 40)
        for number in range(len(NETWORKS)):
            create(made[0], number)
        yield made
        eventually("all joined", lambda: all_joined(made), 40)
        made.clear()


def create(host: Host, number: int) -> None:
    pool = docker.types.IPAMPool(subnet=f"10.90.{number}.0/24")
    ipam = docker.types.IPAMConfig(pool_configs=[pool])
    host.client.networks.create(NETWORKS[number], driver="overlay", attachable=True, ipam=ipam)


class Worker(threading.Thread):
    """What users of one host do until `ends`. `troubles`: answers nobody should get."""

    def __init__(self, host: Host, chance: random.Random, ends: float) -> None:
        super().__init__()
        self.host, self.chance, self.ends = host, chance, ends
        self.troubles: list[str] = []

    def run(self) -> None:
        acts = [
            self.start_one,
            self.start_one,
            self.remove,
            self.restart,
            self.stop,
            self.connect,
            self.leave,
        ]
        acts.append(self.drop_network)
        while time.monotonic() < self.ends:
            act = self.chance.choice(acts)
            name = f"c{self.host.number}-{self.chance.randrange(3)}"
            try:
                act(name, self.chance.randrange(len(NETWORKS)))
            except docker.errors.APIError as error:
                if error.response is None or error.response.status_code not in REFUSALS:
                    self.troubles.append(f"{self.host.name} {act.__name__} {name}: {error}")
            except (requests.exceptions.RequestException, docker.errors.DockerException):
                # Its darid was ended meanwhile.
                time.sleep(0.1)
            time.sleep(0.1 * self.chance.random())

    def place(self, number: int) -> dict[str, Any]:
        asked: dict[str, Any] = {"aliases": self.chance.sample(["web"], self.chance.randrange(2))}
        if self.chance.random() < 0.4:
            asked["ipv4_address"] = f"10.90.{number}.{self.chance.randrange(50, 53)}"
        return asked

    def start_one(self, name: str, number: int) -> None:
        api, network = self.host.client.api, NETWORKS[number]
        config = api.create_networking_config({network: api.create_endpoint_config(**self.place(number))})
        made = api.create_container(
            "busybox",
            SERVER,
            name=name,
            host_config=api.create_host_config(network_mode=network),
            networking_config=config,
        )
        api.start(made)

    def remove(self, name: str, _: int) -> None:
        self.host.client.api.remove_container(name, force=True)

    def restart(self, name: str, _: int) -> None:
        self.host.client.api.restart(name, timeout=0)

    def stop(self, name: str, _: int) -> None:
        self.host.client.api.stop(name, timeout=0)

    def connect(self, name: str, number: int) -> None:
        self.host.client.api.connect_container_to_network(name, NETWORKS[number], **self.place(number))

    def leave(self, name: str, number: int) -> None:
        self.host.client.api.disconnect_container_from_network(name, NETWORKS[number])

    def drop_network(self, _: str, number: int) -> None:
        """Refused while anybody is on it; made anew where nobody was."""
        self.host.client.api.remove_network(NETWORKS[number])
        create(self.host, number)


Fault = tuple[str, Callable[[], Any], Callable[[], Any]]


def faults(hosts: Hosts, chance: random.Random) -> list[Fault]:
    """What may happen to one host or member: its name, how it begins and how it is healed."""
    host, member = chance.choice(hosts.hosts), chance.choice(hosts.members)

    def signalled(number: int) -> None:
        if host.daemon is not None:
            host.daemon.send_signal(number)

    def cut_from_store() -> None:
        host.run("nft", "add table inet cut; add chain inet cut out { type filter hook output priority 0; }")
        host.run("nft", f"add rule inet cut out ip daddr {SUBNET}.1 drop")

    def all_members(act: Callable[[servers.Member], None]) -> None:
        for each in hosts.members:
            act(each)

    return [
        (f"{host.name}'s darid is killed", host.kill, host.start),
        (
            f"{host.name}'s darid is stopped",
            lambda: signalled(signal.SIGSTOP),
            lambda: signalled(signal.SIGCONT),
        ),
        (f"{host.name}'s dari-dns is killed", host.kill_dns, lambda: None),
        (
            f"{host.name}'s cable is out",
            lambda: hosts.switch.unplug(host.number),
            lambda: hosts.switch.plug_back(host.number),
        ),
        (f"{host.name} has no store", cut_from_store, lambda: host.run("nft", "delete table inet cut")),
        ("a member is killed", member.kill, member.start),
        ("a member is stopped", member.pause, member.go_on),
        (
            "the store is stopped",
            lambda: all_members(servers.Member.pause),
            lambda: all_members(servers.Member.go_on),
        ),
    ]


def test_whatever_happens_all_agree_afterwards(hosts: Hosts) -> None:
    for number in range(ROUNDS):
        chance = random.Random(f"{SEED}/{number}")
        what, begin, heal = chance.choice(faults(hosts, chance))
        workers = [
            Worker(host, random.Random(f"{SEED}/{number}/{host.number}"), time.monotonic() + 4)
            for host in hosts.hosts
        ]
        for each in workers:
            each.start()
        time.sleep(chance.random())
        begin()
        time.sleep(chance.choice([3, 6]))
        heal()
        for each in workers:
            each.join()
        told: list[str] = []

        def agree(told: list[str] = told) -> bool:
            with contextlib.suppress(requests.exceptions.RequestException, docker.errors.APIError):
                told[:] = disagreements(hosts, NAMES)
                return not told
            return False

        try:
            eventually("all agree", agree, 60)
        except AssertionError:
            raise AssertionError(f"seed {SEED}, round {number}, {what}:\n" + "\n".join(told)) from None
        assert not [trouble for each in workers for trouble in each.troubles], f"round {number}, {what}"
