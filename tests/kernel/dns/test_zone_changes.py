"""Changes of a zone reach a real responder line by line, and neither side's death shows half of one."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import threading
import time
from pathlib import Path

import dns.message
import dns.reversename
import pytest
from tests.kernel.dns.conftest import Netns, Responder
from tests.patience import PATIENCE

from dari.dns import ask as asking
from dari.dns import files, nudge, zone
from dari.dns.book import Book, piece
from dari.dns.zone import Addresses, View, Zone

pytestmark = pytest.mark.kernel_ns

PORT = 5311
HEAD = Zone("n1", "web", subnets=("10.0.0.0/8",))


def view(netns: Netns, sandbox_id: str = "s1") -> View:
    return View(sandbox_id, netns.path, PORT, ("n1",), is_internal_only=True)


class Writer:
    """The daemon's side."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.path = f"{directory}/{zone.zone_path('n1')}"
        self.book = Book(HEAD)
        self.size = 0

    def whole(self) -> None:
        text = self.book.take_text()
        Path(f"{self.path}.new").write_text(text)
        os.rename(f"{self.path}.new", self.path)
        self.size = len(text)

    def add(self) -> None:
        line = self.book.take_change()
        assert files.append(self.path, line, self.size)
        self.size += len(line)

    def nudge(self) -> bool:
        return nudge.nudge(self.directory, [zone.zone_path("n1")], timeout=30 * PATIENCE)

    def name(self, key: str, *names: str, address: str) -> None:
        self.book.put(key, piece(names, Addresses((address,)), names[0]))


class Asker:
    """One socket in a sandbox that asks and waits."""

    def __init__(self, netns: Netns) -> None:
        self.sock = netns.socket(socket.SOCK_DGRAM)
        self.sock.connect(("127.0.0.11", PORT))
        self.number = 0

    def __call__(self, name: str) -> list[str]:
        self.number = self.number % 60000 + 1
        query = asking.query(name, 1, self.number)
        assert query is not None
        self.sock.send(query)
        while True:
            answer = self.sock.recv(4096)
            if answer[:2] == query[:2]:
                break
        reply = asking.read(answer)
        assert reply is not None
        return [str(each) for each in reply.addresses]

    def reverse(self, address: str) -> str:
        query = dns.message.make_query(dns.reversename.from_address(address), "PTR")
        self.sock.send(query.to_wire())
        answer = dns.message.from_wire(self.sock.recv(4096))
        return str(answer.answer[0][0]) if answer.answer else ""


def large(writer: Writer, count: int = 3000) -> None:
    for number in range(count):
        writer.name(f"e{number}", f"c{number}", address=f"10.1.{number // 250}.{number % 250}")


def test_what_is_added_is_in_force(responder: Responder, netns: Netns) -> None:
    writer = Writer(responder.directory)
    large(writer)
    writer.whole()
    assert responder.put(view(netns)) and writer.nudge()
    ask = Asker(netns)
    assert (ask("c2999"), ask("new")) == (["10.1.11.249"], [])
    for number in range(1, 50):
        writer.name("new", "new", f"new{number}", address=f"10.2.0.{number}")
        writer.add()
        assert writer.nudge()
        assert ask("new") == ask(f"new{number}") == [f"10.2.0.{number}"]
        assert ask(f"new{number - 1}") == []
        assert ask.reverse(f"10.2.0.{number}") == "new."
        assert ask.reverse(f"10.2.0.{number - 1}") == ""
    writer.book.put("new", None)
    writer.add()
    assert writer.nudge()
    assert ask("new") == []
    # The same file anew, and one that a reader from its beginning reads.
    writer.whole()
    assert writer.nudge()
    assert ask("c7") == ["10.1.0.7"]
    assert responder.status().zones == 1


def test_a_line_is_all_or_nothing(responder: Responder, netns: Netns) -> None:
    writer = Writer(responder.directory)
    writer.name("e1", "one", "two", address="10.0.0.2")
    writer.whole()
    assert responder.put(view(netns)) and writer.nudge()
    ask = Asker(netns)
    writer.name("e1", "one", "two", address="10.0.0.3")
    line = writer.book.take_change()
    assert files.append(writer.path, line[:-20], writer.size)
    assert writer.nudge()
    assert ask("one") == ask("two") == ["10.0.0.2"]
    responder.stop(signal.SIGKILL)
    responder.start()
    assert ask("one") == ask("two") == ["10.0.0.2"]
    # The next daemon does not trust a file that ends so.
    writer.whole()
    assert writer.nudge()
    assert ask("one") == ask("two") == ["10.0.0.3"]


def test_a_bad_line_leaves_the_last_good_zone(responder: Responder, netns: Netns) -> None:
    writer = Writer(responder.directory)
    writer.name("e1", "one", address="10.0.0.2")
    writer.whole()
    assert responder.put(view(netns)) and writer.nudge()
    assert files.append(writer.path, '{"names":{"one":7}}\n', writer.size)
    assert not writer.nudge()
    ask = Asker(netns)
    assert ask("one") == ["10.0.0.2"]
    writer.name("e1", "one", address="10.0.0.3")
    writer.whole()
    assert writer.nudge()
    assert ask("one") == ["10.0.0.3"]


def test_many_views_see_a_change(responder: Responder) -> None:
    spaces = [Netns() for _ in range(70)]
    writer = Writer(responder.directory)
    writer.name("e1", "one", address="10.0.0.2")
    writer.whole()
    assert responder.put(*(view(each, f"s{number}") for number, each in enumerate(spaces))) and writer.nudge()
    askers = [Asker(each) for each in spaces]
    assert [ask("one") for ask in askers] == [["10.0.0.2"]] * 70
    writer.name("e1", "one", address="10.0.0.3")
    writer.add()
    assert writer.nudge()
    assert [ask("one") for ask in askers] == [["10.0.0.3"]] * 70
    writer.name("e1", "one", address="10.0.0.4")
    writer.whole()
    assert writer.nudge()
    assert [ask("one") for ask in askers] == [["10.0.0.4"]] * 70
    for each in spaces:
        each.close()


def test_questions_are_answered_while_a_large_zone_is_read(responder: Responder, netns: Netns) -> None:
    """From the zone as it was: each answer is either the old one or the new one, and there are many of the old."""
    writer = Writer(responder.directory)
    large(writer, 12_000)
    writer.name("x", "one", "two", address="10.0.0.2")
    writer.whole()
    assert responder.put(view(netns)) and writer.nudge()
    ask = Asker(netns)
    assert ask("one") == ["10.0.0.2"]
    seen: list[tuple[bool, tuple[str, ...]]] = []
    is_done = threading.Event()
    is_reading = threading.Event()

    def go_on() -> None:
        while not is_done.is_set():
            at = is_reading.is_set()
            seen.append((at, (*ask("one"), *ask("two"))))

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        for number in range(3, 6):
            writer.name("x", "one", "two", address=f"10.0.0.{number}")
            writer.whole()
            is_reading.set()
            assert writer.nudge()
            is_reading.clear()
    finally:
        is_done.set()
        thread.join(20 * PATIENCE)
    assert not thread.is_alive()
    assert sum(at for at, _ in seen) > 20, "nobody was answered meanwhile"
    allowed = {f"10.0.0.{number}" for number in range(2, 6)}
    assert {address for _, pair in seen for address in pair} <= allowed
    # The two names may be asked before and after a change, never the other way round.
    assert all(first <= second for _, (first, second) in seen)


def _write_for_ever(directory: str, started: object) -> None:
    writer = Writer(directory)
    number = 0
    while True:
        number += 1
        writer.name("e1", "one", "two", f"n{number}", address=f"10.0.{number // 250 % 250}.{number % 250}")
        if number % 40 == 1:
            writer.whole()
        else:
            writer.add()
        writer.nudge()
        if number == 1:
            started.set()  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_any_moment(responder: Responder, netns: Netns, seed: int) -> None:
    """The daemon and the responder die by SIGKILL while changes go on; what is answered afterwards is one state."""
    dice = random.Random(seed)
    context = multiprocessing.get_context("fork")
    assert responder.put(view(netns))
    ask = Asker(netns)
    for _ in range(4):
        started = context.Event()
        child = context.Process(target=_write_for_ever, args=(responder.directory, started))
        child.start()
        try:
            assert started.wait(20 * PATIENCE)
            time.sleep(dice.uniform(0, 0.08))
            if dice.random() < 0.5:
                responder.stop(signal.SIGKILL)
                responder.start()
                assert ask("one") == ask("two") or child.is_alive()
                time.sleep(dice.uniform(0, 0.03))
        finally:
            child.kill()
            child.join()
        # What lies there is a zone, whose names agree.
        found = zone.decode_zone(Path(responder.directory, zone.zone_path("n1")).read_bytes())
        assert found.names["one"] == found.names["two"]
        assert len(found.names) == 3
        # A responder that has followed it, and one that begins with it, know the same.
        responder.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
        responder.status()
        known = (ask("one"), ask("two"))
        assert known[0] == known[1] == list(found.names["one"].ipv4)
        responder.stop(signal.SIGKILL)
        responder.start()
        assert (ask("one"), ask("two")) == known
