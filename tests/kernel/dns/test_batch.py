"""Many questions at once, each with its own answer: by one call for all of them, and one at a time."""

from __future__ import annotations

import socket
import threading

import dns.message
import pytest
from tests.patience import PATIENCE

from dari.dns.answer import compile_view, compile_zone
from dari.dns.batch import COUNT, IS_POSSIBLE
from dari.dns.forward import Forwarder
from dari.dns.listen import Counter, Listener
from dari.dns.loop import Loop
from dari.dns.netns import Namespaces
from dari.dns.zone import Addresses, View, Zone

from .conftest import Netns

PORT = 5312
NAMES = {f"n{number}": Addresses((f"172.18.{number // 250}.{number % 250 + 1}",)) for number in range(300)}


@pytest.mark.parametrize("is_batched", [True, False])
def test_each_gets_its_own_answer(netns: Netns, is_batched: bool) -> None:
    assert IS_POSSIBLE
    loop, counter = Loop(), Counter()
    table = compile_view(
        View("s", netns.path, PORT, ("n",)), {"n": compile_zone(Zone("n", "web", names=NAMES))}
    )
    found: list[BaseException] = []

    def serve() -> None:  # a thread's namespaces are its own, and the sockets are made in this one
        try:
            listener = Listener(table, loop, Namespaces(), Forwarder(loop), counter)
            if not is_batched:
                listener._batch = None
            ready.set()
            loop.run()
            listener.close()
        except BaseException as error:
            found.append(error)
            ready.set()

    ready = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    ready.wait(10 * PATIENCE)
    assert not found
    socks = [netns.socket(socket.SOCK_DGRAM) for _ in range(5)]
    gone = netns.socket(socket.SOCK_DGRAM)
    try:
        for _ in range(2):  # computed at first, ready-made then
            for number, (name, addresses) in enumerate(NAMES.items()):
                sock = socks[number % len(socks)]
                if number % 50 == 0:
                    # Whoever does not wait for its answer keeps nobody from theirs.
                    gone.sendto(
                        b"\1\2" + dns.message.make_query(name, "A").to_wire()[2:], ("127.0.0.11", PORT)
                    )
                    gone.close()
                    gone = netns.socket(socket.SOCK_DGRAM)
                query = dns.message.make_query(name, "A")
                sock.sendto(query.to_wire(), ("127.0.0.11", PORT))
                reply, peer = sock.recvfrom(4096)
                message = dns.message.from_wire(reply)
                assert peer == ("127.0.0.11", PORT)
                assert query.is_response(message)
                assert [item.to_text() for item in message.answer[0]] == list(addresses.ipv4)
        # More than one call takes, from several sockets, asked before anything is read.
        asked = {sock: {} for sock in socks}  # type: ignore[var-annotated]
        for number, (name, addresses) in enumerate(list(NAMES.items())[: COUNT * 2]):
            query = dns.message.make_query(name if number % 7 else "nobody", "A", id=number)
            sock = socks[number % len(socks)]
            asked[sock][query.id] = list(addresses.ipv4) if number % 7 else []
            sock.sendto(query.to_wire(), ("127.0.0.11", PORT))
        for sock, wanted in asked.items():
            told = {}
            for _ in range(len(wanted)):
                message = dns.message.from_wire(sock.recv(4096))
                told[message.id] = [item.to_text() for rrset in message.answer for item in rrset]
            assert told == wanted
    finally:
        loop.stop()
        socks[0].sendto(b"wake", ("127.0.0.11", PORT))
        thread.join(10 * PATIENCE)
        for sock in (*socks, gone):
            sock.close()
    assert not found
    assert counter.value >= 2 * len(NAMES) + 2 * COUNT
