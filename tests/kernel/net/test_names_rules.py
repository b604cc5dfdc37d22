"""The sandbox's own table: 127.0.0.11:53 leads to the responder's port, without connection tracking.

Real sockets in a sandbox; the responder is a socket of the test's on the port it would have.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.kernel.test_packets import World, living, two_networks
from tests.kernel.world import inside, rendered, run_in, sandbox, settle_all, tcp_listener, udp_socket
from tests.patience import PATIENCE

from dari.net.firewall import DNS_ADDRESS

pytestmark = pytest.mark.kernel_ns

PORT = 61053
BIG = b"answer" * 500_000


@contextmanager
def asked(folder: Path) -> Iterator[World]:
    desired = two_networks()
    boxes = (sandbox(0, dns_port=PORT), *desired.sandboxes[1:])
    with living(folder, replace(desired, sandboxes=boxes)) as world:
        yield world


@contextmanager
def serving(work: Callable[[], None]) -> Iterator[None]:
    """`work` in a thread of its own until its socket is closed or it ends."""

    def body() -> None:
        with contextlib.suppress(OSError):
            work()

    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield
    finally:
        thread.join(20 * PATIENCE)
        assert not thread.is_alive()


def connected(world: World, address: str = DNS_ADDRESS, port: int = 53) -> socket.socket:
    """A resolver's socket: it takes answers from there alone."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.settimeout(5 * PATIENCE)
        made.connect((address, port))
        return made

    return inside(world.path(0), make)


def echo(responder: socket.socket, asker: socket.socket, size: int = 40) -> bytes:
    """A question there and its bytes back."""
    asker.send(b"q" * size)
    said, peer = responder.recvfrom(65535)
    assert said == b"q" * size
    responder.sendto(said[::-1] + b"!", peer)
    return asker.recv(65535)


@pytest.mark.parametrize("size", [12, 40, 1500, 9000, 60000])
def test_a_connected_socket_is_answered_from_port_53(tmp_path: Path, size: int) -> None:
    with asked(tmp_path) as world, connected(world) as asker:
        responder = world.udp(0, PORT, DNS_ADDRESS)
        assert echo(responder, asker, size) == b"q" * size + b"!"


def test_an_unconnected_socket_sees_port_53(tmp_path: Path) -> None:
    with asked(tmp_path) as world:
        responder, asker = world.udp(0, PORT, DNS_ADDRESS), world.udp(0, 0)
        asker.sendto(b"q", (DNS_ADDRESS, 53))
        _, peer = responder.recvfrom(100)
        responder.sendto(b"a", peer)
        assert asker.recvfrom(100) == (b"a", (DNS_ADDRESS, 53))


def listener_answers_over_tcp(tmp_path: Path) -> None:
    """Segments of any size, checksums whole: what the kernel would drop never arrives."""
    with asked(tmp_path) as world:
        listener = world.listen(0, PORT, DNS_ADDRESS)

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                assert peer.recv(100) == b"question"
                peer.sendall(BIG)

        with serving(answer):

            def ask() -> tuple[bytes, tuple[str, int]]:
                with socket.create_connection((DNS_ADDRESS, 53), 5 * PATIENCE) as client:
                    client.sendall(b"question")
                    said = b"".join(iter(lambda: client.recv(1 << 20), b""))
                    return said, client.getpeername()

            said, peer = inside(world.path(0), ask)
        assert said == BIG
        assert peer == (DNS_ADDRESS, 53)


def test_nobody_there_is_told_at_once(tmp_path: Path) -> None:
    """As with Docker: an asker whose responder is away is refused, over UDP and over TCP, and needs not wait."""
    with asked(tmp_path) as world:
        with connected(world) as asker:
            asker.send(b"q")
            with pytest.raises(ConnectionRefusedError):
                asker.recv(100)
        with pytest.raises(ConnectionRefusedError):
            inside(world.path(0), lambda: socket.create_connection((DNS_ADDRESS, 53), 5 * PATIENCE))
        # Other ports of that address are nobody's business.
        with connected(world, DNS_ADDRESS, 5300) as other:
            other.send(b"q")
            with pytest.raises(ConnectionRefusedError):
                other.recv(100)


def test_a_server_of_the_containers_own_on_port_53(tmp_path: Path) -> None:
    """It listens on every address; only 127.0.0.11 is not its."""
    with asked(tmp_path) as world:
        responder, own = world.udp(0, PORT, DNS_ADDRESS), world.udp(0, 53)
        for address in ("127.0.0.1", "10.0.0.10"):
            with connected(world, address) as asker:
                assert echo(own, asker) == b"q" * 40 + b"!"
        # Its neighbour asks it over the network.
        neighbour = inside(world.path(1), lambda: udp_socket("0.0.0.0"))
        with neighbour:
            neighbour.connect(("10.0.0.10", 53))
            assert echo(own, neighbour) == b"q" * 40 + b"!"
        with connected(world) as asker:
            assert echo(responder, asker) == b"q" * 40 + b"!"
        # It asks upstream from its own socket.
        own.sendto(b"up", (DNS_ADDRESS, 53))
        said, peer = responder.recvfrom(100)
        assert said == b"up"
        responder.sendto(b"down", peer)
        assert own.recvfrom(100) == (b"down", (DNS_ADDRESS, 53))
        listener = inside(world.path(0), lambda: tcp_listener("0.0.0.0", 53))
        with listener:
            for address in ("127.0.0.1", "10.0.0.10"):
                with inside(world.path(0), lambda: socket.create_connection((address, 53), 5)):  # noqa: B023
                    listener.accept()[0].close()


def test_questions_to_others_keep_their_port(tmp_path: Path) -> None:
    with asked(tmp_path) as world:
        far = world.udp(1, 53)
        with connected(world, "10.0.0.11") as asker:
            assert echo(far, asker) == b"q" * 40 + b"!"


def test_no_connection_is_tracked(tmp_path: Path) -> None:
    with asked(tmp_path) as world:
        responder = world.udp(0, PORT, DNS_ADDRESS)
        before = tracked(world)
        for _ in range(20):
            with connected(world) as asker:
                echo(responder, asker)
        listener = world.listen(1, 80)
        with inside(world.path(0), lambda: socket.create_connection(("10.0.0.11", 80), 5 * PATIENCE)):
            listener.accept()[0].close()
        assert tracked(world) == before == 0


def tracked(world: World) -> int:
    """Connections the kernel knows of in the sandbox (the file tells of the namespace of who opens it)."""
    count = Path("/proc/sys/net/netfilter/nf_conntrack_count")
    return int(inside(world.path(0), count.read_text))


FIREWALL = """
table ip own {
	chain in { type filter hook input priority 0; policy drop;
		ct state invalid counter drop
		ct state established,related accept
		ct state new iif "lo" udp dport 61053 accept
		ct state new iif "lo" tcp dport 61053 accept
	}
	chain out { type filter hook output priority 0; policy accept; ct state invalid drop; }
	chain leave { type nat hook postrouting priority srcnat; policy accept; masquerade; }
}
"""


def test_a_stateful_firewall_of_the_containers_own(tmp_path: Path) -> None:
    """Docker in Docker, a VPN's kill switch: it tracks, and what it sees is one conversation."""
    with asked(tmp_path) as world:
        run_in(world.path(0), "nft", FIREWALL)
        responder = world.udp(0, PORT, DNS_ADDRESS)
        with connected(world) as asker:
            for _ in range(3):
                assert echo(responder, asker) == b"q" * 40 + b"!"
        listener = world.listen(0, PORT, DNS_ADDRESS)

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(BIG)

        with serving(answer):

            def ask() -> bytes:
                with socket.create_connection((DNS_ADDRESS, 53), 5 * PATIENCE) as client:
                    return b"".join(iter(lambda: client.recv(1 << 20), b""))

            assert inside(world.path(0), ask) == BIG
        rules = run_in(world.path(0), "nft", "list", "chain", "ip", "own", "in")
        assert "counter packets 0 bytes 0" in rules, rules
        # Who is away is told apart through it as well.
        responder.close()
        with connected(world) as asker:
            asker.send(b"q")
            with pytest.raises(ConnectionRefusedError):
                asker.recv(100)


def test_the_containers_own_translation_comes_first(tmp_path: Path) -> None:
    """A VPN that leads all questions to its own server gets them."""
    own = "table ip own { chain out { type nat hook output priority -100; udp dport 53 dnat to 127.0.0.1:5353; }; }"
    with asked(tmp_path) as world:
        run_in(world.path(0), "nft", own)
        theirs = world.udp(0, 5353, "127.0.0.1")
        with connected(world) as asker:
            assert echo(theirs, asker) == b"q" * 40 + b"!"


def test_the_doctors_question_goes_past_the_rules(tmp_path: Path) -> None:
    """To the responder's own port; it is told apart whether nobody listens or nobody answers."""
    with asked(tmp_path) as world:
        # Refused, so the five seconds are not waited for.
        assert world.kernel.ask_names({"box0": ("web", PORT)}, 5 * PATIENCE) == {"box0": None}
        responder = world.udp(0, PORT, DNS_ADDRESS)

        def answer() -> None:
            said, peer = responder.recvfrom(500)
            record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton("10.0.0.10")
            responder.sendto(said[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + said[12:] + record, peer)

        with serving(answer):
            found = world.kernel.ask_names({"box0": ("web", PORT)}, 5 * PATIENCE)
        addresses = found["box0"]
        assert addresses is not None
        assert {str(each) for each in addresses} == {"10.0.0.10"}


def test_a_question_from_127_0_0_11_itself(tmp_path: Path) -> None:
    with asked(tmp_path) as world:
        responder, asker = world.udp(0, PORT, DNS_ADDRESS), world.udp(0, 0, DNS_ADDRESS)
        asker.sendto(b"q", (DNS_ADDRESS, 53))
        _, peer = responder.recvfrom(100)
        responder.sendto(b"a", peer)
        assert asker.recvfrom(100) == (b"a", (DNS_ADDRESS, 53))


def test_taken_away_it_leaves_nothing(tmp_path: Path) -> None:
    with asked(tmp_path) as world:
        desired = two_networks()
        settle_all(world.kernel, rendered(world.kernel, desired))
        assert run_in(world.path(0), "nft", "list", "ruleset") == ""
        with pytest.raises(OSError) as refused:
            inside(world.path(0), lambda: socket.create_connection((DNS_ADDRESS, 53), 5 * PATIENCE))
        assert refused.value.errno == errno.ECONNREFUSED
    assert os.listdir(tmp_path / "netns") == []
