"""Several hosts on one machine: a switch in a namespace of its own, the store beside it, a machine for each host."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import Node, image_tar, wait_for
from tests.store import servers

SUBNET = "10.77.0"


class Switch:
    """A bridge in a namespace: hosts plug in, servers run there. Its own address is SUBNET.1."""

    def __init__(self, mtu: int = 1500) -> None:
        self.mtu = mtu
        self.holder = subprocess.Popen(["unshare", "-n", "sleep", "100000"])
        wait_for(
            "the switch's namespace",
            lambda: Path(f"/proc/{self.holder.pid}/comm").read_text() == "sleep\n",
        )
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "link", "add", "sw", "type", "bridge")
        self.run("ip", "link", "set", "sw", "up")
        self.run("ip", "addr", "add", f"{SUBNET}.1/24", "dev", "sw")
        self.prefix = ["nsenter", "-t", str(self.holder.pid), "-n"]

    def run(self, *command: str) -> str:
        done = subprocess.run(
            ["nsenter", "-t", str(self.holder.pid), "-n", *command],
            capture_output=True,
            text=True,
            timeout=30 * PATIENCE,
        )
        assert not done.returncode, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def plug(self, pid: int, number: int) -> str:
        """Give the namespace of `pid` an interface `up0` on the switch; its address."""
        port = f"p{number}"
        self.run(
            "ip",
            "link",
            "add",
            port,
            "mtu",
            str(self.mtu),
            "type",
            "veth",
            "peer",
            "name",
            "up0",
            "netns",
            str(pid),
        )
        self.run("ip", "link", "set", port, "master", "sw", "up")
        address = f"{SUBNET}.{10 + number}"
        enter = ["nsenter", "-t", str(pid), "-n"]
        for words in (
            ["ip", "link", "set", "up0", "mtu", str(self.mtu), "up"],
            ["ip", "addr", "add", f"{address}/24", "dev", "up0"],
            ["ip", "route", "add", "default", "via", f"{SUBNET}.1"],
        ):
            subprocess.run([*enter, *words], check=True, capture_output=True)
        return address

    def unplug(self, number: int) -> None:
        """The cable of a host is out: nothing passes, nothing is told."""
        self.run("ip", "link", "set", f"p{number}", "nomaster")

    def plug_back(self, number: int) -> None:
        self.run("ip", "link", "set", f"p{number}", "master", "sw")

    def close(self) -> None:
        self.holder.kill()
        self.holder.wait()


class Host(Node):
    """A `Node` on the switch. `number` is its port's, `underlay` its own address."""

    def __init__(self, folder: Path, switch: Switch, number: int, store: str, *options: str) -> None:
        self.number = number
        self.switch = switch
        self.name = f"host{number}"
        self.underlay = ""
        self._store = store
        super().__init__(folder, *options)

    def start(self, *, waits: bool = True) -> None:
        if not self.underlay:
            self.underlay = self.switch.plug(self.holder.pid, self.number)
            self.options = (
                *("--store", self._store, "--advertise", self.underlay, "--node-name", self.name),
                *("--store-ttl", "3", *self.options),
            )
        super().start(waits=waits)


@dataclass
class Hosts:
    """`url` is the store's. The members of the store listen beside the switch."""

    switch: Switch
    members: list[servers.Member]
    url: str
    hosts: list[Host] = field(default_factory=list)

    def __getitem__(self, index: int) -> Host:
        return self.hosts[index]

    def dari(self, host: Host, *words: str) -> Any:
        """JSON of one of dari's own calls."""
        return host.client.api._get(host.client.api.base_url + words[0]).json()

    def clear(self) -> None:
        for host in self.hosts:
            if host.daemon is None:
                host.start()
        for host in self.hosts:
            client = host.client
            for container in client.containers.list(all=True):
                container.remove(force=True, v=True)
        for host in self.hosts:
            host.client.networks.prune()


def store_members(kind: str, folder: Path, switch: Switch, count: int) -> list[servers.Member]:
    members = (
        servers.etcd_members(folder, count) if kind == "etcd" else servers.zookeeper_members(folder, count)
    )
    for member in members:
        if kind == "etcd":
            member.command = [word.replace("127.0.0.1", f"{SUBNET}.1") for word in member.command]
        else:
            config = member.folder / "zoo.cfg"
            config.write_text(
                config.read_text().replace("clientPortAddress=127.0.0.1", f"clientPortAddress={SUBNET}.1")
            )
        member.command = [*switch.prefix, *member.command]
    return members


def start_members(kind: str, members: list[servers.Member], switch: Switch) -> None:
    for member in members:
        member.start()
    for member in members:
        wait_for(
            f"{kind} on port {member.port}",
            lambda member=member: f":{member.port} " in switch.run("ss", "-Hltn"),  # type: ignore[misc]
            60,
        )


@contextlib.contextmanager
def some_hosts(
    kind: str, folder: Path, count: int, *options: str, members: int = 1, mtu: int = 1500
) -> Iterator[Hosts]:
    switch = Switch(mtu)
    made = Hosts(switch, store_members(kind, folder / "store", switch, members), "")
    try:
        start_members(kind, made.members, switch)
        made.url = f"{kind}://" + ",".join(f"{SUBNET}.1:{member.port}" for member in made.members)
        for number in range(count):
            (folder / f"host{number}").mkdir()
            made.hosts.append(Host(folder / f"host{number}", switch, number, made.url, *options))
        image = image_tar()
        for host in made.hosts:
            host.client.api.import_image_from_data(
                image, repository="busybox", tag="latest", changes=["ENV PATH=/bin"]
            )
        yield made
    finally:
        for host in made.hosts:
            host.close()
        for member in made.members:
            member.kill()
        switch.close()


def eventually(what: str, condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    return wait_for(what, condition, seconds)


@pytest.fixture(scope="module", params=["etcd", "zk"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Three hosts on one store."""
    has = servers.has_etcd() if request.param == "etcd" else servers.has_zookeeper()
    if not has:
        pytest.skip(f"needs {request.param}")
    with some_hosts(request.param, tmp_path_factory.mktemp(request.param), 3) as made:
        yield made


@pytest.fixture
def hosts(cluster: Hosts) -> Iterator[Hosts]:
    """The module's hosts, empty and all joined."""
    cluster.clear()
    yield cluster
    cluster.clear()
    deadline = time.monotonic() + 30 * PATIENCE
    while time.monotonic() < deadline and not all_joined(cluster):
        time.sleep(0.1)


def all_joined(made: Hosts) -> bool:
    found = made.dari(made[0], "/dari/v1/nodes")
    return [each["Status"] for each in found] == ["ready"] * len(made.hosts)
