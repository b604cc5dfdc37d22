"""Connections the kernel remembers follow what is published, and die with the addresses they were made with."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.kernel.test_packets import HOST_ADDRESS, OUTSIDE, World, living, publish
from tests.kernel.world import endpoint, inside, network, rendered, run, sandbox, settle_all, udp_socket
from tests.patience import PATIENCE, wait_for

from dari.kernel.conntrack import Entry, Publish, is_contradicted, is_orphaned, subnets_of
from dari.kernel.netlink import Message
from dari.net.desired import Desired, PublishWant
from dari.net.publish import Published
from dari.net.state import Address, KernelState

pytestmark = pytest.mark.kernel_ns

A, B = "10.1.0.10", "10.1.0.11"


def desired(*publishes: PublishWant, boxes: tuple[int, ...] = (0, 1), owner: int = 0) -> Desired:
    """Boxes 0 (10.1.0.10) and 1 (10.1.0.11) on one network; `publishes` belong to box `owner`."""
    return Desired(
        (network(1),),
        tuple(endpoint(1, box) for box in boxes),
        tuple(sandbox(box, publishes if box == owner else ()) for box in boxes),
    )


def udp(target: str, host: str = "0.0.0.0", port: int = 80) -> PublishWant:
    return publish("udp", host, 8080, target, port)


class Client:
    """A machine outside that keeps sending from one port."""

    def __init__(self, world: World, port: int = 8080, address: str = HOST_ADDRESS) -> None:
        self.address, self.port = address, port
        self.socket = inside(world.path(None), lambda: udp_socket(OUTSIDE, 4000))

    def reaches(self, *servers: socket.socket, seconds: float = 5 * PATIENCE) -> int | None:
        """Which of the servers gets the next packet; None where nobody does."""
        for each in servers:
            each.settimeout(0)
        self.socket.sendto(b"question", (self.address, self.port))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for number, each in enumerate(servers):
                try:
                    assert each.recv(100) == b"question"
                except BlockingIOError:
                    continue
                return number
            time.sleep(0.01)
        return None


def settle_to(world: World, wanted: Desired) -> None:
    settle_all(world.kernel, rendered(world.kernel, wanted))


@pytest.mark.parametrize("host", ["0.0.0.0", HOST_ADDRESS])
def test_a_udp_client_follows_what_is_published(tmp_path: Path, host: str) -> None:
    with living(tmp_path, desired(udp(A, host)), has_outside=True) as world:
        ours, theirs = world.udp(0, 80), world.udp(1, 80)
        own = world_socket(8080)
        client = Client(world)
        with client.socket, own:
            assert client.reaches(ours, theirs, own) == 0
            # Another container, the value of the same element.
            settle_to(world, desired(udp(B, host), owner=1))
            assert client.reaches(ours, theirs, own) == 1
            # Nobody any more: the host's own server gets it.
            settle_to(world, desired())
            assert world.kernel.wait_buried()
            assert client.reaches(ours, theirs, own) == 2
            # And published again, over an entry without any translation.
            settle_to(world, desired(udp(A, host)))
            assert client.reaches(ours, theirs, own) == 0


def world_socket(port: int) -> socket.socket:
    return udp_socket("0.0.0.0", port)


def test_others_connections_stay(tmp_path: Path) -> None:
    """A change of one published port leaves the entries of another, and of what only passes, alone."""
    other = publish("udp", "0.0.0.0", 8081, A, 81)
    with living(tmp_path, desired(other), has_outside=True) as world:
        out = world.udp(None, 8080, OUTSIDE)
        # Port 8080 of a machine outside: a destination port like the published one, on an address not ours.
        leaving = world.udp(0, 0)
        leaving.sendto(b"x", (OUTSIDE, 8080))
        out.recv(100)
        server = world.udp(0, 81)
        with inside(world.path(None), lambda: udp_socket(OUTSIDE, 4000)) as client:
            client.sendto(b"x", (HOST_ADDRESS, 8081))
            server.recv(100)
            before = connections()
            assert len(before) == 2
            settle_to(world, desired(other, udp(A)))
            settle_to(world, desired(other))
            assert world.kernel.wait_buried()
            assert connections() == before


def connections() -> list[str]:
    """Ports and addresses of the kernel's UDP entries, without counters and timers."""
    lines = Path("/proc/thread-self/net/nf_conntrack")
    if lines.exists():
        text = lines.read_text()
    else:
        text = run("conntrack", "-L")
    return sorted(
        " ".join(word for word in line.split() if word.startswith(("src=", "dst=", "sport=", "dport=")))
        for line in text.splitlines()
        if " udp " in f" {line}"
    )


def test_an_address_that_leaves_takes_its_connections_along(tmp_path: Path) -> None:
    """Who gets the address next is not trusted with its last owner's connections."""
    with living(tmp_path, desired(), has_outside=True) as world:
        out = world.udp(None, 9000, OUTSIDE)
        with inside(world.path(0), lambda: udp_socket(A, 5000)) as asking:
            asking.sendto(b"x", (OUTSIDE, 9000))
            _, answer_to = out.recvfrom(100)
            out.sendto(b"y", answer_to)
            assert asking.recv(100) == b"y"
        # Gone, and somebody else is there at once: before anything could happen behind our backs.
        settle_to(world, desired(boxes=(1,)))
        other = replace(
            endpoint(1, 0), sandbox_id="box2", host_interface="veth-other", altname="dari-ep-other"
        )
        settle_to(world, Desired((network(1),), (other,), (sandbox(2),)))
        with inside(world.path(2), lambda: udp_socket(A, 5000)) as asking:
            asking.settimeout(0.4)
            out.sendto(b"late", answer_to)
            with pytest.raises(TimeoutError):
                asking.recv(100)


def test_a_udp_client_follows_a_range(tmp_path: Path) -> None:
    """Port 8085 of a published range, moved to 85, goes from one container to the other and away."""

    def ranged(target: str) -> PublishWant:
        return replace(udp(target), host_port=8080, container_port=80, count=10)

    with living(tmp_path, desired(ranged(A)), has_outside=True) as world:
        ours, theirs = world.udp(0, 85), world.udp(1, 85)
        client = Client(world, 8085)
        with client.socket:
            assert client.reaches(ours, theirs) == 0
            settle_to(world, desired(ranged(B), owner=1))
            assert client.reaches(ours, theirs) == 1
            settle_to(world, desired())
            assert world.kernel.wait_buried()
            assert client.reaches(ours, theirs, seconds=1) is None
            settle_to(world, desired(ranged(A)))
            assert client.reaches(ours, theirs) == 0


def test_who_gets_his_own_address_back_keeps_his_connections(tmp_path: Path) -> None:
    """Off a network and on it again: nothing has to be looked for in the kernel's table."""
    alone = Desired((network(1),), (), (sandbox(0),))
    with living(tmp_path, desired(boxes=(0,)), has_outside=True) as world:
        out = world.udp(None, 9000, OUTSIDE)
        with inside(world.path(0), lambda: udp_socket(A, 5000)) as asking:
            asking.sendto(b"x", (OUTSIDE, 9000))
            _, answer_to = out.recvfrom(100)
        # Whoever wants to look at the kernel's table waits meanwhile: it is not needed.
        with world.kernel._connections._lock:
            settle_to(world, alone)
            settle_to(world, desired(boxes=(0,)))
        with inside(world.path(0), lambda: udp_socket(A, 5000)) as asking:
            out.sendto(b"y", answer_to)
            assert asking.recv(100) == b"y"


def test_a_network_left_takes_its_connections_along(tmp_path: Path) -> None:
    """The sandbox lives on; what it spoke over the interface that went is forgotten."""
    both = Desired(
        (network(1), network(2)),
        (endpoint(1, 0), endpoint(2, 0, "eth1", is_default=False)),
        (sandbox(0),),
    )
    with living(tmp_path, both) as world:
        with inside(world.path(0), lambda: udp_socket("10.2.0.10", 5000)) as asking:
            asking.connect(("10.2.0.1", 9000))
            asking.send(b"x")
        # On a busy machine a packet is handled a moment after it was sent.
        wait_for("the connection", lambda: any("src=10.2.0.10" in each for each in connections()))
        settle_to(world, replace(both, endpoints=both.endpoints[:1]))
        assert world.kernel.wait_buried()
        assert not any("src=10.2.0.10" in each for each in connections())


def test_a_daemon_that_starts_finds_what_another_left(tmp_path: Path) -> None:
    """The rule changed and its maker was killed before he could look at the connections."""
    with living(tmp_path, desired(udp(A)), has_outside=True) as world:
        ours, theirs = world.udp(0, 80), world.udp(1, 80)
        client = Client(world)
        with client.socket:
            assert client.reaches(ours, theirs) == 0
            for command in (
                "delete element inet dari publish_any4 { udp . 8080 }",
                f"add element inet dari publish_any4 {{ udp . 8080 : {B} . 80 }}",
            ):
                run("nft", *command.split())
            assert client.reaches(ours, theirs) == 0
            wanted = rendered(world.kernel, desired(udp(B), owner=1))
            settle_all(world.kernel, wanted)
            world.kernel.check_connections(wanted)
            assert client.reaches(ours, theirs) == 1
            world.kernel.check_connections(wanted)
            run("nft", "delete", "element", "inet", "dari", "publish_any4", "{ udp . 8080 }")
            world.kernel.check_connections(rendered(world.kernel, desired()))
            assert client.reaches(ours, theirs, seconds=1) is None


def test_connections_of_a_network_that_is_no_longer_here_are_forgotten(tmp_path: Path) -> None:
    """An overlay leaves a host with its last container there; whoever took it away was killed over it."""
    with living(tmp_path, desired(udp(A)), has_outside=True) as world:
        ours, theirs = world.udp(0, 80), world.udp(1, 80)
        client = Client(world)
        with client.socket:
            assert client.reaches(ours, theirs) == 0
            subnets = subnets_of(rendered(world.kernel, desired(udp(A))))
            run("nft", "delete", "element", "inet", "dari", "publish_any4", "{ udp . 8080 }")
            world.kernel.check_connections(KernelState())
            assert client.reaches(ours, theirs) == 0
            world.kernel.check_connections(KernelState(), subnets)
            assert client.reaches(ours, theirs, seconds=1) is None


def test_a_world_without_connections_is_left_in_peace(tmp_path: Path) -> None:
    with living(tmp_path, desired(udp(A))) as world:
        world.kernel.check_connections(KernelState())
        settle_to(world, desired())
        assert world.kernel.wait_buried()
        assert connections() == []


def entry(source: str, target: str, port: int, answers: str, answering_port: int) -> Entry:
    return Entry(
        ip_address(source),
        (ip_address(target), port),
        (ip_address(answers), answering_port),
        Message(0, 0, b""),
    )


HERE = ip_address("192.0.2.1")
ANY = ip_address("0.0.0.0")


def says(host: Address, target: str, is_gone: bool = False, last: int = 53) -> Publish:
    return Publish(Published("udp", host, 53, last, ip_address(target), 53), is_gone)


@pytest.mark.parametrize(
    ("publish", "found", "is_stale"),
    [
        # Appears: what went elsewhere, or to the host itself, must go; what already goes there stays.
        (says(ANY, A), entry(OUTSIDE, "192.0.2.1", 53, "192.0.2.1", 53), True),
        (says(ANY, A), entry(OUTSIDE, "192.0.2.1", 53, A, 53), False),
        (says(ANY, A), entry(OUTSIDE, "192.0.2.1", 53, B, 53), True),
        (says(ANY, A), entry("127.0.0.1", "127.0.0.1", 53, "127.0.0.1", 53), True),
        # A stranger's server on the same port is none of ours.
        (says(ANY, A), entry(A, "198.51.100.9", 53, "198.51.100.9", 53), False),
        (says(HERE, A), entry(OUTSIDE, "127.0.0.1", 53, "127.0.0.1", 53), False),
        (says(ANY, A), entry(OUTSIDE, "192.0.2.1", 54, "192.0.2.1", 54), False),
        (says(ANY, A), entry("fd00::2", "fd00::1", 53, "fd00::1", 53), False),
        # A range: each port has its own counterpart.
        (says(ANY, A, last=60), entry(OUTSIDE, "192.0.2.1", 60, A, 60), False),
        (says(ANY, A, last=60), entry(OUTSIDE, "192.0.2.1", 60, A, 53), True),
        (says(ANY, A, last=60), entry(OUTSIDE, "192.0.2.1", 61, "192.0.2.1", 61), False),
        # Goes: only what went where it pointed to.
        (says(ANY, A, is_gone=True), entry(OUTSIDE, "192.0.2.1", 53, A, 53), True),
        (says(ANY, A, is_gone=True), entry(OUTSIDE, "192.0.2.1", 53, B, 53), False),
    ],
)
def test_contradictions(publish: Publish, found: Entry, is_stale: bool) -> None:
    assert is_contradicted(found, publish, lambda address: address == HERE) is is_stale


def test_orphans() -> None:
    subnets = [network(1).subnets[0].prefix]
    translated = entry(OUTSIDE, "192.0.2.1", 53, A, 53)
    assert is_orphaned(translated, [], subnets)
    assert not is_orphaned(translated, [says(ANY, A)], subnets)
    assert is_orphaned(translated, [says(ANY, B)], subnets)
    assert not is_orphaned(entry(OUTSIDE, A, 53, A, 53), [], subnets)
    assert not is_orphaned(entry(OUTSIDE, "192.0.2.1", 53, "172.17.0.2", 53), [], subnets)
