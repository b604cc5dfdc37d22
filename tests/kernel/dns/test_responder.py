"""A real responder in real namespaces: answers, forwarding, files that come and go, death and return."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest
from tests.patience import PATIENCE

from dari.dns import files, nudge, spawn
from dari.dns.zone import Addresses, View, Zone

from .conftest import Netns, Responder, Upstream, answering

PORT = 5311
WEB = Zone(
    "n1",
    "web",
    subnets=("172.18.0.0/16",),
    names={
        "db": Addresses(("172.18.0.2",)),
        "many": Addresses(tuple(f"172.18.1.{n}" for n in range(1, 101))),
    },
    ptr={"172.18.0.2": "db.web"},
)


def view(netns: Netns, sandbox_id: str = "s1", **changes: Any) -> View:
    return View(sandbox_id, netns.path, PORT, ("n1",))._replace(**changes)


def ask(netns: Netns, name: str, rtype: str = "A", over_tcp: bool = False) -> dns.message.Message:
    query = dns.message.make_query(name, rtype)
    with netns.socket(socket.SOCK_STREAM if over_tcp else socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.11", PORT))
        wire = query.to_wire()
        if over_tcp:
            sock.sendall(struct.pack("!H", len(wire)) + wire)
            stream = sock.makefile("rb")
            reply = stream.read(struct.unpack("!H", stream.read(2))[0])
        else:
            sock.send(wire)
            reply = sock.recv(65535)
    message = dns.message.from_wire(reply)
    assert query.is_response(message)
    return message


def addresses(message: dns.message.Message) -> list[str]:
    assert message.rcode() == dns.rcode.NOERROR
    return [item.to_text() for rrset in message.answer for item in rrset]


@pytest.mark.parametrize("over_tcp", [False, True])
def test_names_are_answered_inside_the_sandbox(responder: Responder, netns: Netns, over_tcp: bool) -> None:
    assert responder.put(WEB, view(netns))
    assert addresses(ask(netns, "db", over_tcp=over_tcp)) == ["172.18.0.2"]
    assert addresses(ask(netns, "2.0.18.172.in-addr.arpa", "PTR", over_tcp=over_tcp)) == ["db.web."]
    assert ask(netns, "gone", over_tcp=over_tcp).rcode() == dns.rcode.NXDOMAIN
    assert responder.status().queries == 3


def test_a_long_answer_comes_over_tcp(responder: Responder, netns: Netns) -> None:
    assert responder.put(WEB, view(netns))
    assert ask(netns, "many").flags & dns.flags.TC
    assert len(addresses(ask(netns, "many", over_tcp=True))) == 100


def test_a_tcp_client_may_ask_on_and_be_slow(responder: Responder, netns: Netns) -> None:
    assert responder.put(WEB, view(netns))
    wire = dns.message.make_query("db", "A").to_wire()
    framed = struct.pack("!H", len(wire)) + wire
    with netns.socket(socket.SOCK_STREAM) as sock:
        sock.connect(("127.0.0.11", PORT))
        sock.sendall(framed + framed + framed[:5])
        sock.sendall(framed[5:])
        sock.shutdown(socket.SHUT_WR)
        replies = sock.makefile("rb").read()
    assert len(replies) == 3 * (len(wire) + 16 + 2)


def test_the_acknowledged_nudge_is_in_force(responder: Responder, netns: Netns) -> None:
    assert responder.put(WEB, view(netns))
    for number in range(20):
        assert responder.put(WEB._replace(names={"db": Addresses((f"172.18.9.{number}",))}))
        assert addresses(ask(netns, "db")) == [f"172.18.9.{number}"]
    assert responder.put(WEB._replace(names={}))
    assert ask(netns, "db").rcode() == dns.rcode.NXDOMAIN
    assert nudge.nudge(responder.directory, [files.remove_zone(responder.directory, "n1")])
    assert responder.status().zones == 0


def namespaces_held(responder: Responder) -> int:
    """Descriptors of namespaces: those of sockets come and go with whoever nudges or asks."""
    folder = f"/proc/{responder.process.pid}/fd"
    found = 0
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(f"{folder}/{name}").startswith("net:[")
    return found


def test_a_removed_view_lets_go_of_the_namespace(responder: Responder, netns: Netns) -> None:
    before = namespaces_held(responder)
    assert responder.put(WEB, view(netns))
    assert namespaces_held(responder) == before + 1
    assert nudge.nudge(responder.directory, [files.remove_view(responder.directory, "s1")])
    assert responder.status().views == 0
    assert namespaces_held(responder) == before
    with netns.socket(socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.11", PORT))
        sock.send(b"x" * 20)
        with pytest.raises(ConnectionRefusedError):
            sock.recv(100)


def test_a_missing_namespace_is_told_and_tried_again(
    responder: Responder, netns: Netns, tmp_path: Path
) -> None:
    path = tmp_path / "later"
    late = view(netns)._replace(netns_path=str(path))
    assert not responder.put(WEB, late)
    assert "No such file" in responder.status().failed["s1"]
    assert responder.put(WEB)  # the others' names go on
    path.symlink_to(netns.path)
    assert responder.put(WEB)
    assert responder.status().failed == {}
    assert addresses(ask(netns, "db")) == ["172.18.0.2"]


def test_another_namespace_at_the_same_path_is_noticed(responder: Responder, tmp_path: Path) -> None:
    first, second = Netns(), Netns()
    path = tmp_path / "ns"
    path.symlink_to(first.path)
    moving = view(first)._replace(netns_path=str(path))
    assert responder.put(WEB, moving)
    path.unlink()
    path.symlink_to(second.path)
    assert responder.put(moving)
    assert addresses(ask(second, "db")) == ["172.18.0.2"]
    first.close()
    second.close()


def test_malformed_files_and_names_change_nothing(responder: Responder, netns: Netns) -> None:
    assert responder.put(WEB, view(netns))
    Path(responder.directory, "zones/n1.json").write_text("{")
    assert not nudge.nudge(responder.directory, ["zones/n1.json"])
    assert not nudge.nudge(responder.directory, ["zones/../../etc/passwd", "lock", "views/.json"])
    assert addresses(ask(netns, "db")) == ["172.18.0.2"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_new_responder_takes_over_the_files(responder: Responder, netns: Netns, number: int) -> None:
    assert responder.put(WEB, view(netns))
    code = responder.stop(number)
    assert code == (0 if number == signal.SIGTERM else -number)
    assert not nudge.nudge(responder.directory, ["zones/n1.json"])
    responder.start()
    assert addresses(ask(netns, "db")) == ["172.18.0.2"]
    assert addresses(ask(netns, "db", over_tcp=True)) == ["172.18.0.2"]


def test_sighup_reads_everything_again(responder: Responder, netns: Netns) -> None:
    files.write_zone(responder.directory, WEB)
    files.write_view(responder.directory, view(netns))
    responder.process.send_signal(signal.SIGHUP)
    while responder.status().views == 0:
        continue
    assert addresses(ask(netns, "db")) == ["172.18.0.2"]


def test_there_is_one_responder_to_a_directory(responder: Responder) -> None:
    second = subprocess.run(spawn.command(responder.directory), capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert responder.directory in second.stderr
    assert responder.status().pid == responder.process.pid


def test_two_hundred_sandboxes(responder: Responder) -> None:
    spaces = [Netns() for _ in range(200)]
    views = [view(space, f"s{number}") for number, space in enumerate(spaces)]
    assert responder.put(WEB, *views)
    assert responder.status().views == 200
    for space in spaces:
        assert addresses(ask(space, "db")) == ["172.18.0.2"]
    responder.stop(signal.SIGKILL)
    responder.start()
    assert responder.status().views == 200
    assert addresses(ask(spaces[199], "db")) == ["172.18.0.2"]
    gone = [files.remove_view(responder.directory, item.sandbox_id) for item in views]
    assert nudge.nudge(responder.directory, gone, timeout=20 * PATIENCE)
    assert responder.status().views == 0
    for space in spaces:
        space.close()


@pytest.mark.parametrize("over_tcp", [False, True])
@pytest.mark.parametrize("scope", ["host", "sandbox"])
def test_other_names_are_asked_upstream(
    responder: Responder, netns: Netns, upstream: Callable[..., Upstream], over_tcp: bool, scope: str
) -> None:
    make = [netns.socket] if scope == "sandbox" else []
    other = upstream(answering("192.0.2.7"), *make)
    assert responder.put(WEB, view(netns, upstreams=(other.address,), upstream_scope=scope))
    assert addresses(ask(netns, "example.com", over_tcp=over_tcp)) == ["192.0.2.7"]
    assert addresses(ask(netns, "db", over_tcp=over_tcp)) == ["172.18.0.2"]
    assert len(other.asked) == 1


def test_internal_networks_ask_nobody(
    responder: Responder, netns: Netns, upstream: Callable[..., Upstream]
) -> None:
    other = upstream(answering("192.0.2.7"))
    assert responder.put(WEB, view(netns, upstreams=(other.address,), is_internal_only=True))
    assert ask(netns, "example.com").rcode() == dns.rcode.NXDOMAIN
    assert other.asked == []


@pytest.mark.parametrize("over_tcp", [False, True])
def test_the_next_upstream_answers_for_a_broken_one(
    responder: Responder, netns: Netns, upstream: Callable[..., Upstream], over_tcp: bool
) -> None:
    closed = upstream(answering("192.0.2.1"))
    closed.close()
    sick = upstream(answering("192.0.2.2", dns.rcode.SERVFAIL))
    well = upstream(answering("192.0.2.3"))
    upstreams = (closed.address, "not an address", sick.address, well.address)
    assert responder.put(WEB, view(netns, upstreams=upstreams))
    assert addresses(ask(netns, "example.com", over_tcp=over_tcp)) == ["192.0.2.3"]


def test_dead_upstreams(responder: Responder, netns: Netns, upstream: Callable[..., Upstream]) -> None:
    closed = upstream(answering("192.0.2.1"))
    closed.close()
    assert responder.put(WEB, view(netns, upstreams=(closed.address,)))
    assert ask(netns, "example.com").rcode() == dns.rcode.SERVFAIL
    # A container that stopped: "there is none", whatever is wrong upstream.
    assert ask(netns, "stopped").rcode() == dns.rcode.NXDOMAIN
    assert ask(netns, "stopped.web").rcode() == dns.rcode.NXDOMAIN


def test_a_silent_upstream_is_given_up(
    responder: Responder, netns: Netns, upstream: Callable[..., Upstream]
) -> None:
    silent = upstream(lambda query, over_tcp: None)
    assert responder.put(WEB, view(netns, upstreams=(silent.address,)))
    assert ask(netns, "stopped").rcode() == dns.rcode.NXDOMAIN
    assert ask(netns, "stopped2").rcode() == dns.rcode.NXDOMAIN
    assert len(silent.asked) == 1  # known to be silent, so the second question did not wait for it


def test_answers_that_do_not_belong_are_ignored(
    responder: Responder, netns: Netns, upstream: Callable[..., Upstream]
) -> None:
    right = answering("192.0.2.9")

    def act(query: bytes, over_tcp: bool) -> bytes | None:
        reply = right(query, over_tcp)
        assert reply is not None
        return bytes((reply[0] ^ 1, reply[1])) + reply[2:]  # a guessed id

    liar = upstream(act)
    assert responder.put(WEB, view(netns, upstreams=(liar.address,)))
    assert ask(netns, "stopped").rcode() == dns.rcode.NXDOMAIN


def test_large_upstream_answers_are_cut_over_udp(
    responder: Responder, netns: Netns, upstream: Callable[..., Upstream]
) -> None:
    def act(query: bytes, over_tcp: bool) -> bytes:
        reply = dns.message.make_response(dns.message.from_wire(query))
        texts = [f"192.0.2.{n}" for n in range(1, 201)]
        reply.answer.append(dns.rrset.from_text_list(reply.question[0].name, 60, "IN", "A", texts))
        return reply.to_wire(max_size=65535)

    assert responder.put(WEB, view(netns, upstreams=(upstream(act).address,)))
    assert ask(netns, "example.com").flags & dns.flags.TC
    assert len(addresses(ask(netns, "example.com", over_tcp=True))) == 200


def test_noise_changes_nothing(responder: Responder, netns: Netns, upstream: Callable[..., Upstream]) -> None:
    silent = upstream(lambda query, over_tcp: None)
    assert responder.put(WEB, view(netns, upstreams=(silent.address,)))
    noise = random.Random(7)
    with netns.socket(socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.11", PORT))
        for _ in range(300):
            sock.send(noise.randbytes(noise.randrange(1, 80)))
            sock.send(b"\0\1\1\0\0\1\0\0\0\0\0\1" + noise.randbytes(noise.randrange(0, 60)))
    for size in (1, 5, 300, 3000):
        with netns.socket(socket.SOCK_STREAM) as sock:
            sock.connect(("127.0.0.11", PORT))
            sock.sendall(noise.randbytes(size))
    # A client that asks, does not wait, and is gone with a reset while an upstream keeps silent.
    for _ in range(5):
        wire = dns.message.make_query("example.com", "A").to_wire()
        with netns.socket(socket.SOCK_STREAM) as sock:
            sock.connect(("127.0.0.11", PORT))
            sock.sendall(struct.pack("!H", len(wire)) + wire)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert addresses(ask(netns, "db")) == ["172.18.0.2"]
    assert addresses(ask(netns, "db", over_tcp=True)) == ["172.18.0.2"]


@pytest.mark.parametrize("seed", range(4))
def test_no_bytes_end_it(
    netns: Netns, responder: Responder, upstream: Callable[..., Upstream], seed: int
) -> None:
    """Noise over UDP and TCP, to it and back from an upstream, while somebody reads the log; it answers afterwards, is
    the same process, and no client is left behind."""
    dice = random.Random(seed)
    noise = upstream(lambda wire, _: wire[:2] + bytes([0x81, 0x80]) + dice.randbytes(dice.randrange(80)))
    assert responder.put(WEB, view(netns, upstreams=(noise.address,)))
    before = responder.status().pid
    log = nudge.open_log(responder.directory)
    assert log is not None
    log.setblocking(False)
    whole = dns.message.make_query("db.example.com", "A").to_wire()
    with netns.socket(socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.11", PORT))
        for _ in range(20_000):
            kind = dice.randrange(4)
            if kind == 0:
                sent = dice.randbytes(dice.randrange(1, 600))
            else:
                sent = bytearray(whole if kind < 3 else dns.message.make_query("db", "A").to_wire())
                for _ in range(dice.randrange(4)):
                    sent[dice.randrange(len(sent))] = dice.randrange(256)
                sent = bytes(sent[: dice.randrange(1, len(sent) + 1)] if dice.randrange(3) == 0 else sent)
            sock.send(sent)
    for _ in range(300):
        with netns.socket(socket.SOCK_STREAM) as sock, contextlib.suppress(OSError):
            sock.connect(("127.0.0.11", PORT))
            sock.sendall(dice.randbytes(dice.randrange(1, 300)))
    log.close()
    assert addresses(ask(netns, "db")) == ["172.18.0.2"]
    assert addresses(ask(netns, "db", over_tcp=True)) == ["172.18.0.2"]
    assert responder.status().pid == before
