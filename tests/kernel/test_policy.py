"""Policies in the kernel: real packets between sandboxes, and peers that come and go without a rule changed."""

from __future__ import annotations

import socket
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from tests.kernel.world import (
    endpoint,
    inside,
    network,
    opened,
    rendered,
    run_in,
    sandbox,
    settle_all,
    tcp_connect,
    tcp_listener,
)

from dari.kernel.host import Kernel
from dari.net.desired import Desired, PolicyWant
from dari.net.policy import Peer, Receiver, compiled, parse
from dari.net.scope import Scope
from dari.net.state import KernelState, NftElement, NftTable

pytestmark = pytest.mark.kernel_ns

# box1 is called; box2 and box3 call. 10.1.0.11, .12, .13.
ADDRESS = {number: ip_address(f"10.1.0.{number + 10}") for number in (1, 2, 3)}


def policy(text: str, *peers: int) -> PolicyWant | None:
    receiver = Receiver(
        frozenset(("box1",)),
        {"web1": "eth0"},
        {"web1": (ip_network("10.1.0.0/24"),)},
        {"web1": (ip_address("10.1.0.1"),)},
    )
    known = [Peer("web1", frozenset((f"box{each}",)), (ADDRESS[each],)) for each in peers]
    return compiled(parse(text), {}, receiver, known)


def world(text: str, *peers: int) -> Desired:
    boxes = [replace(sandbox(1), policy=policy(text, *peers)), sandbox(2), sandbox(3)]
    return Desired((network(1),), tuple(endpoint(1, each) for each in (1, 2, 3)), tuple(boxes))


def calls(kernel: Kernel, caller: int | None, port: int) -> bool:
    def call() -> bool:
        try:
            # What is refused is refused at once: only a lost packet takes its time.
            tcp_connect(str(ADDRESS[1]), port).close()
        except OSError:
            return False
        return True

    return call() if caller is None else inside(kernel.netns_path(f"box{caller}"), call)


def listening(kernel: Kernel, *ports: int) -> list[socket.socket]:
    def listen() -> list[socket.socket]:
        return [tcp_listener("0.0.0.0", each) for each in ports]

    return inside(kernel.netns_path("box1"), listen)


def settle(kernel: Kernel, desired: Desired) -> KernelState:
    wanted = rendered(kernel, desired)
    settle_all(kernel, wanted)
    return wanted


def test_who_may_call(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        settle(kernel, world("deny; allow box2 80", 2, 3))
        sockets = listening(kernel, 80, 81)
        assert calls(kernel, 2, 80)
        assert not calls(kernel, 2, 81)
        assert not calls(kernel, 3, 80)
        assert not calls(kernel, None, 80)
        # A call outwards is answered, and the container reaches itself.
        answering = inside(kernel.netns_path("box3"), lambda: tcp_listener("0.0.0.0", 80))
        path = kernel.netns_path("box1")
        inside(path, lambda: tcp_connect(str(ADDRESS[3]), 80).close())
        inside(path, lambda: tcp_connect(str(ADDRESS[1]), 81).close())
        for each in (*sockets, answering):
            each.close()


@pytest.mark.parametrize(
    ("text", "open_to"),
    [
        ("allow box2", {2, 3, None}),
        ("deny", set()),
        ("deny; allow box2,box3 80", {2, 3}),
        ("deny; allow host", {None}),
        ("deny; allow any 80; deny box3", {2, None}),
        ("deny; allow 10.1.0.12/31 70-90", {2, 3}),
        ("deny box2 80", {3, None}),
        ("deny; allow network:web1 80; deny 10.1.0.13/32 80", {2, None}),
        ("deny; allow outside", set()),
        ("deny; allow box2 81", set()),
    ],
)
def test_words(tmp_path: Path, text: str, open_to: set[int | None]) -> None:
    with opened(tmp_path) as kernel:
        settle(kernel, world(text, 2, 3))
        sockets = listening(kernel, 80)
        assert {each for each in (2, 3, None) if calls(kernel, each, 80)} == open_to
        for each in sockets:
            each.close()


def test_ping_has_a_word(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:

        def pings(caller: int) -> bool:
            told = run_in(
                kernel.netns_path(f"box{caller}"), "sh", "-c", f"ping -c 1 -W 1 {ADDRESS[1]} || true"
            )
            return "1 received" in told

        settle(kernel, world("deny; allow box2 icmp", 2, 3))
        assert pings(2) and not pings(3)


def test_an_open_connection_outlives_a_peer_that_goes(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        settle(kernel, world("deny; allow box2 80", 2))
        (listener,) = listening(kernel, 80)
        client = inside(kernel.netns_path("box2"), lambda: tcp_connect(str(ADDRESS[1]), 80))
        server, _ = listener.accept()
        settle(kernel, world("deny; allow box2 80"))
        assert not calls(kernel, 2, 80)
        client.sendall(b"still here")
        assert server.recv(16) == b"still here"
        for each in (client, server, listener):
            each.close()


def test_peers_come_and_go_as_elements(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        before = settle(kernel, world("deny; allow box2,box3 80,90-95", 2))
        after = settle(kernel, world("deny; allow box2,box3 80,90-95", 2, 3))
        changed = set(after.objects.values()) ^ set(before.objects.values())
        assert changed and all(isinstance(each, NftElement) for each in changed)
        found = kernel.read(Scope.everything(after))
        assert set(found.objects.values()) == set(after.objects.values())
        assert [each for each in found if isinstance(each, NftTable) and each.netns == "box1"]


def test_a_policy_that_ends_leaves_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as kernel:
        settle(kernel, world("deny", 2))
        plain = world("deny")
        settle(kernel, replace(plain, sandboxes=(sandbox(1), sandbox(2), sandbox(3))))
        sockets = listening(kernel, 80)
        assert calls(kernel, 3, 80)
        assert "dari" not in run_in(kernel.netns_path("box1"), "nft", "list", "ruleset")
        for each in sockets:
            each.close()
