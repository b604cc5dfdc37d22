"""Throw-away namespaces held by descriptors alone, a real responder, and upstreams that misbehave on order."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import dns.message
import dns.rcode
import dns.rrset
import pytest
from tests.patience import PATIENCE

from dari.dns import files, nudge, spawn, zone

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
T = TypeVar("T")


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _in_thread(act: Callable[[], T]) -> T:  # a thread's namespace is its own, and ends with it
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(act()))
    thread.start()
    thread.join()
    return found[0]


class Netns:
    """A network namespace with its loopback up; `path` is good for as long as this process lives."""

    def __init__(self) -> None:
        def make() -> int:
            _check(_libc.unshare(_CLONE_NEWNET))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                fcntl.ioctl(sock, 0x8914, struct.pack("16sh22x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        self.descriptor = _in_thread(make)
        self.path = f"/proc/{os.getpid()}/fd/{self.descriptor}"

    def socket(self, kind: int) -> socket.socket:
        def make() -> socket.socket:
            _check(_libc.setns(self.descriptor, _CLONE_NEWNET))
            return socket.socket(socket.AF_INET, kind)

        made = _in_thread(make)
        made.settimeout(10 * PATIENCE)
        return made

    def close(self) -> None:
        os.close(self.descriptor)


class Responder:
    """A real dari-dns over a directory, with the daemon's side of the door."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None
        files.prepare(directory)

    def start(self) -> None:
        self.process = subprocess.Popen(spawn.command(self.directory, pidfile=f"{self.directory}/pid"))
        deadline = time.monotonic() + 20 * PATIENCE
        while (status := nudge.ping(self.directory)) is None or status.pid != self.process.pid:
            assert time.monotonic() < deadline, "the responder does not start"
            assert self.process.poll() is None, "the responder ended"
            time.sleep(0.005)

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(20 * PATIENCE)
        self.process = None
        return code

    def put(self, *items: zone.Zone | zone.View) -> bool:
        names = [
            files.write_zone(self.directory, item)
            if isinstance(item, zone.Zone)
            else files.write_view(self.directory, item)
            for item in items
        ]
        return nudge.nudge(self.directory, names, timeout=20 * PATIENCE)

    def status(self) -> nudge.Status:
        status = nudge.ping(self.directory, timeout=20 * PATIENCE)
        assert status is not None
        return status


def _pair(make: Callable[[int], socket.socket]) -> tuple[socket.socket, socket.socket]:
    """A UDP and a listening TCP socket on one port of 127.0.0.1: a port free for one may be taken for the other."""
    for _ in range(50):
        udp, tcp = make(socket.SOCK_DGRAM), make(socket.SOCK_STREAM)
        udp.bind(("127.0.0.1", 0))
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tcp.bind(udp.getsockname())
        except OSError:
            udp.close()
            tcp.close()
            continue
        tcp.listen(8)
        return udp, tcp
    raise AssertionError("no port of 127.0.0.1 is free for both UDP and TCP")


class Upstream:
    """A resolver on 127.0.0.1 that answers what `act` says, over UDP and TCP; None is silence."""

    def __init__(
        self,
        act: Callable[[bytes, bool], bytes | None],
        make: Callable[[int], socket.socket] = lambda kind: socket.socket(socket.AF_INET, kind),
    ) -> None:
        self.asked: list[bytes] = []
        self._act = act
        self._udp, self._tcp = _pair(make)
        self.address = f"127.0.0.1:{self._udp.getsockname()[1]}"
        for sock in (self._udp, self._tcp):
            sock.settimeout(0.05)
        self._is_open = True
        self._threads = [threading.Thread(target=serve) for serve in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._is_open = False
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()

    def _serve_udp(self) -> None:
        while self._is_open:
            try:
                query, peer = self._udp.recvfrom(4096)
            except TimeoutError:
                continue
            self.asked.append(query)
            reply = self._act(query, False)
            if reply is not None:
                self._udp.sendto(reply, peer)

    def _serve_tcp(self) -> None:
        while self._is_open:
            try:
                client, _ = self._tcp.accept()
            except TimeoutError:
                continue
            with client:
                client.settimeout(5 * PATIENCE)
                size = struct.unpack("!H", client.recv(2))[0]
                query = client.recv(size)
                self.asked.append(query)
                reply = self._act(query, True)
                if reply is not None:
                    client.sendall(struct.pack("!H", len(reply)) + reply)


def answering(
    address: str, rcode: dns.rcode.Rcode = dns.rcode.NOERROR
) -> Callable[[bytes, bool], bytes | None]:
    """An upstream's act: one A record, or none and an rcode."""

    def act(wire: bytes, _over_tcp: bool) -> bytes:
        reply = dns.message.make_response(dns.message.from_wire(wire))
        reply.set_rcode(rcode)
        if rcode == dns.rcode.NOERROR:
            reply.answer.append(dns.rrset.from_text(reply.question[0].name, 60, "IN", "A", address))
        return reply.to_wire()

    return act


@pytest.fixture
def netns() -> Iterator[Netns]:
    made = Netns()
    yield made
    made.close()


@pytest.fixture
def responder(tmp_path: Path) -> Iterator[Responder]:
    made = Responder(str(tmp_path / "dns"))
    made.start()
    yield made
    if made.process is not None:
        assert made.stop() == 0


@pytest.fixture
def upstream() -> Iterator[Callable[..., Upstream]]:
    made: list[Upstream] = []

    def make(*arguments: object) -> Upstream:
        made.append(Upstream(*arguments))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for item in made:
        item.close()
