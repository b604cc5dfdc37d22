"""The relay by itself: TCP and UDP from one family to the other, half-closed connections, many of them, new targets."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.kernel.world import tcp_connect, tcp_listener, udp_socket
from tests.patience import PATIENCE

from dari.relay import door, lookup

pytestmark = pytest.mark.kernel_ns


@contextmanager
def running(folder: Path) -> Iterator[str]:
    directory = str(folder / "relay")
    process = subprocess.Popen(door.command(directory))
    try:
        deadline = time.monotonic() + 10 * PATIENCE
        while door.entries(directory) is None:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        yield directory
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10 * PATIENCE)


def add(directory: str, kind: str, port: int, target: tuple[str, int]) -> None:
    with tcp_listener("::1", port) if kind == "tcp" else udp_socket("::1", port) as sock:
        assert door.add(directory, f"{kind} {port}", kind, target, sock)


def echo(server: socket.socket) -> None:
    """Reads all there is, then says how much."""
    accepted, _ = server.accept()
    with accepted:
        size = 0
        while data := accepted.recv(1 << 16):
            size += len(data)
        accepted.sendall(str(size).encode())


def test_tcp_passes_whole_and_half_closed(tmp_path: Path) -> None:
    with running(tmp_path) as directory, tcp_listener("127.0.0.1", 9000) as server:
        add(directory, "tcp", 8080, ("127.0.0.1", 9000))
        threads = []
        for size in (0, 1, 10_000_000):
            threads.append(threading.Thread(target=echo, args=(server,)))
            threads[-1].start()
            with tcp_connect("::1", 8080) as client:
                client.sendall(b"x" * size)
                client.shutdown(socket.SHUT_WR)
                assert client.recv(64) == str(size).encode()
                assert client.recv(64) == b""
        for each in threads:
            each.join()


def test_a_target_nobody_listens_at_closes_the_connection(tmp_path: Path) -> None:
    with running(tmp_path) as directory:
        add(directory, "tcp", 8080, ("127.0.0.1", 9))
        with tcp_connect("::1", 8080) as client:
            with pytest.raises((ConnectionResetError, AssertionError)):
                assert client.recv(16) != b""
        # And goes on.
        with tcp_listener("127.0.0.1", 9000) as server:
            assert door.add(directory, "tcp 8080", "tcp", ("127.0.0.1", 9000))
            with tcp_connect("::1", 8080) as client:
                accepted, _ = server.accept()
                with accepted:
                    accepted.sendall(b"hello")
                    assert client.recv(16) == b"hello"


def test_udp_keeps_clients_apart(tmp_path: Path) -> None:
    with running(tmp_path) as directory, udp_socket("127.0.0.1", 9000) as server:
        add(directory, "udp", 5300, ("127.0.0.1", 9000))
        clients = [udp_socket("::1") for _ in range(3)]
        for number, client in enumerate(clients):
            client.sendto(str(number).encode(), ("::1", 5300))
        for _ in clients:
            data, peer = server.recvfrom(16)
            server.sendto(b"answer to " + data, peer)
        for number, client in enumerate(clients):
            assert client.recvfrom(64)[0] == f"answer to {number}".encode()
            client.close()


def test_the_door(tmp_path: Path) -> None:
    with running(tmp_path) as directory:
        pid, entries = door.entries(directory) or (0, {})
        assert pid > 0 and pid != os.getpid() and entries == {}
        assert not door.add(directory, "tcp 1", "tcp", ("127.0.0.1", 1))
        add(directory, "tcp", 8080, ("127.0.0.1", 9000))
        assert door.entries(directory) == (pid, {"tcp 8080": ("127.0.0.1", 9000)})
        found = door.get(directory, "tcp 8080")
        assert found is not None and found.getsockname()[1] == 8080
        found.close()
        assert door.get(directory, "tcp 8081") is None
        with tcp_connect("::1", 8080):
            assert door.drop(directory, ["tcp 8080", "never heard of"])
        with pytest.raises(ConnectionRefusedError):
            tcp_connect("::1", 8080)
        # Nonsense harms nobody.
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as visitor:
            visitor.connect(f"{directory}/{door.SOCKET}")
            visitor.send(b"{")
        assert door.entries(directory) == (pid, {})
    assert door.entries(directory) is None


def test_sockets_that_are_only_held(tmp_path: Path) -> None:
    with running(tmp_path) as directory:
        assert door.held(directory) == []
        made = [udp_socket("127.0.0.1", port) for port in range(9000, 9000 + door.MOST_HELD)]
        assert door.hold(directory, "range", made)
        for each in made:
            each.close()
        assert door.held(directory) == ["range"] and (door.entries(directory) or (0, None))[1] == {}
        with pytest.raises(OSError):
            udp_socket("127.0.0.1", 9063)
        # Who comes later has them back, in their order.
        back = door.get_all(directory, "range")
        assert [each.getsockname()[1] for each in back] == list(range(9000, 9064))
        assert door.drop(directory, ["range"]) and door.held(directory) == []
        with pytest.raises(OSError):
            udp_socket("127.0.0.1", 9063)
        for each in back:
            each.close()
        udp_socket("127.0.0.1", 9063).close()
        assert door.get_all(directory, "range") == []


needs_lookup = pytest.mark.skipif(
    not lookup.is_available(), reason="needs BPF sk_lookup (Linux 5.9, CAP_BPF)"
)


@needs_lookup
@pytest.mark.parametrize(("address", "asked"), [("::1", "::1"), ("::", "::1"), ("::", "2001:db8::9")])
def test_a_long_range_is_one_socket(tmp_path: Path, address: str, asked: str) -> None:
    subprocess.run(["ip", "addr", "add", "2001:db8::9/64", "dev", "lo", "nodad"], check=True)
    with running(tmp_path) as directory:
        with tcp_listener(address, 0) as sock:
            span = (address, 20000, 29999)
            assert door.add(directory, "range", "tcp", ("127.0.0.1", 5000), sock, span)
            own = sock.getsockname()[1]
        for port in (20000, 24321, 29999):
            with tcp_listener("127.0.0.1", port - 15000) as server, tcp_connect(asked, port) as client:
                accepted, _ = server.accept()
                with accepted:
                    accepted.sendall(b"hello")
                    assert client.recv(16) == b"hello"
        for port in (19999, 30000):
            with pytest.raises(ConnectionRefusedError):
                tcp_connect(asked, port)
        # The range's own port is nobody's way in.
        with tcp_connect(asked, own) as client:
            assert client.recv(16) == b""
        if address == "::1":
            with pytest.raises(ConnectionRefusedError):
                tcp_connect("2001:db8::9", 20000)
        # A server that was there first, and one in front of it, are not asked; dropped, they are again.
        assert door.drop(directory, ["range"])
        with pytest.raises(ConnectionRefusedError):
            tcp_connect(asked, 20000)


@needs_lookup
def test_a_long_range_of_udp_answers_from_the_port_that_was_asked(tmp_path: Path) -> None:
    with running(tmp_path) as directory:
        with udp_socket("::1", 0) as sock:
            assert door.add(directory, "range", "udp", ("127.0.0.1", 5000), sock, ("::1", 20000, 20999))
        with (
            udp_socket("127.0.0.1", 5000) as first,
            udp_socket("127.0.0.1", 5999) as last,
            udp_socket("::1") as client,
        ):
            # One client, two ports of the range: two conversations.
            for port, server in ((20000, first), (20999, last), (20000, first)):
                client.sendto(b"question", ("::1", port))
                data, peer = server.recvfrom(16)
                server.sendto(b"answer to " + data, peer)
                answer, source = client.recvfrom(64)
                assert (answer, source[1]) == (b"answer to question", port)
        assert door.drop(directory, ["range"])
        assert (door.entries(directory) or (0, None))[1] == {}


@needs_lookup
def test_a_range_ends_with_the_relay(tmp_path: Path) -> None:
    with tcp_listener("127.0.0.1", 5000), running(tmp_path) as directory:
        with tcp_listener("::1", 0) as sock:
            assert door.add(directory, "range", "tcp", ("127.0.0.1", 5000), sock, ("::1", 20000, 29999))
        tcp_connect("::1", 20000).close()
    with pytest.raises(ConnectionRefusedError):
        tcp_connect("::1", 20000)


def test_it_ends_when_its_folder_is_gone(tmp_path: Path) -> None:
    directory = str(tmp_path / "relay")
    process = subprocess.Popen(door.command(directory))
    deadline = time.monotonic() + 60 * PATIENCE
    while door.entries(directory) is None:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    add(directory, "tcp", 8080, ("127.0.0.1", 9000))
    shutil.rmtree(directory)
    assert process.wait(60 * PATIENCE) == 0
    tcp_listener("::1", 8080).close()
