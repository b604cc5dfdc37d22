"""The responder as people meet it: its log and counters, the host's own listener, servers that change, a storm."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE
from tests.scenarios.conftest import IMAGE, Node, image_tar, wait_for

SOURCE = str(Path(__file__).parents[3] / "src")
LISTEN = "127.0.0.57:5357"

ASK = """
import sys, dns.message, dns.query, dns.rcode
host, _, port = sys.argv[3].partition(":")
reply = dns.query.udp(dns.message.make_query(sys.argv[1], sys.argv[2]), host, port=int(port or 53), timeout=10)
records = [record.to_text() for rrset in reply.answer for record in rrset]
print(" ".join(sorted(records)) or dns.rcode.to_text(reply.rcode()))
"""

SERVE = """
import socket, sys, dns.message, dns.rrset
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    query, peer = sock.recvfrom(4096)
    reply = dns.message.make_response(dns.message.from_wire(query))
    reply.answer.append(dns.rrset.from_text(reply.question[0].name, 60, "IN", "A", sys.argv[2]))
    sock.sendto(reply.to_wire(), peer)
"""

# One asker that waits for each answer, and says how many it asked and how many it did not get.
STORM = """
import select, socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(20)
sock.connect(("127.0.0.11", 53))
question = b"\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\2db\\0\\0\\1\\0\\1"
print("ready", flush=True)
asked = lost = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    number = (asked & 0xffff).to_bytes(2, "big")
    sock.send(number + question)
    asked += 1
    try:
        answer = sock.recv(512)
        lost += answer[:2] != number or answer[7] != 1
    except OSError:
        lost += 1
print(asked, lost, flush=True)
"""


class ListeningNode(Node):
    def config_file(self) -> Path:
        path = self.folder / "daemon.json"
        resolv, resolved = self.folder / "resolv.conf", self.folder / "resolved.conf"
        if not path.exists():
            resolv.write_text("nameserver 192.0.2.53\n")
            settings = {"dns-listen": LISTEN, "resolv-conf": str(resolv), "resolved-conf": str(resolved)}
            path.write_text(json.dumps(settings))
        return path

    def servers(self, text: str) -> None:
        """A new resolv.conf of the host, renamed into place as resolvconf(8) does."""
        beside = self.folder / "resolv.conf.new"
        beside.write_text(text)
        os.rename(beside, self.folder / "resolv.conf")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = ListeningNode(tmp_path_factory.mktemp("node"))
    try:
        tar = image_tar()
        made.client.api.import_image_from_data(
            tar, repository="busybox", tag="latest", changes=["ENV PATH=/bin"]
        )
        yield made
    finally:
        made.close()


def dari(node: Node, *words: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "dari.cli.main", "-H", f"unix://{node.socket}", *words],
        env={**os.environ, "PYTHONPATH": SOURCE},
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
        check=True,
    ).stdout


def ask(node: Node, where: Any, name: str, rtype: str = "A", server: str = "127.0.0.11") -> str:
    command = (sys.executable, "-c", ASK, name, rtype, server)
    return (node.run(*command) if where is None else node.net(where, *command)).strip()


def running(node: Node, where: Any, *command: str) -> subprocess.Popen[str]:
    """A host program in a container's network (None: the machine's), once it says that it is ready."""
    pid = node.holder.pid if where is None else node.pid(where)
    process = subprocess.Popen(
        ["nsenter", "-t", str(pid), "-n", sys.executable, "-u", "-c", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_the_log_tells_what_is_asked(node: Node) -> None:
    node.client.networks.create("net")
    db, other = node.sleeper("db", network="net"), node.sleeper("other", network="net")
    before = json.loads(dari(node, "dns", "stats", "--json"))
    ask(node, db, "db")  # ready-made from here on: it must be told all the same
    reader = subprocess.Popen(
        [sys.executable, "-m", "dari.cli.main", "-H", f"unix://{node.socket}", "dns", "log", "--json", "db"],
        env={**os.environ, "PYTHONPATH": SOURCE},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert reader.stdout is not None
        # Nobody knows when the reader is heard: ask until its first line is there.
        descriptor, told = reader.stdout.fileno(), bytearray()
        os.set_blocking(descriptor, False)

        def first() -> str:
            ask(node, other, "db")
            ask(node, db, "db")
            with contextlib.suppress(BlockingIOError):
                told.extend(os.read(descriptor, 1 << 16))
            return told.partition(b"\n")[0].decode() if b"\n" in told else ""

        line = json.loads(wait_for("the first line", first))
        address = node.address(db, "net")
        assert {key: line[key] for key in ("Container", "Name", "Type", "Transport", "Answer", "By")} == {
            "Container": "db", "Name": "db", "Type": "A", "Transport": "udp", "Answer": "NOERROR", "By": "dari",
        }  # fmt: skip
        assert line["Addresses"] == [address]
    finally:
        reader.terminate()
        reader.wait()
    after = json.loads(dari(node, "dns", "stats", "--json"))
    assert after["Queries"] >= before["Queries"] + 3
    assert after["Containers"]["db"] >= 2
    assert "other" in dari(node, "dns", "stats")
    assert ask(node, other, "db") == address  # and without a reader again


def test_the_host_is_answered(node: Node) -> None:
    node.client.networks.create("net_a")
    db = node.sleeper("db", network="net_a")
    address = node.address(db, "net_a")
    for name in ("db", "db.net_a", "db.dari.internal", "db.net_a.dari.internal"):
        assert ask(node, None, name, server=LISTEN) == address
    assert ask(node, None, "nobody.dari.internal", server=LISTEN) == "NXDOMAIN"
    assert ask(node, None, "example.com", server=LISTEN) == "REFUSED"
    back = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
    assert ask(node, None, back, "PTR", server=LISTEN) == "db.net_a.dari.internal."
    assert dari(node, "doctor", "--json").count("resolver.") == 0
    db.remove(force=True)
    assert ask(node, None, "db.dari.internal", server=LISTEN) == "NXDOMAIN"


def test_servers_follow_the_hosts(node: Node) -> None:
    assert isinstance(node, ListeningNode)
    node.client.networks.create("net")
    asker = node.sleeper("asker", network="net")
    first = running(node, None, SERVE, "127.0.0.81", "192.0.2.81")
    second = running(node, None, SERVE, "127.0.0.82", "192.0.2.82")
    try:
        node.servers("nameserver 127.0.0.81\n")
        wait_for("the first server is asked", lambda: ask(node, asker, "example.com") == "192.0.2.81")
        node.servers("nameserver 127.0.0.82\n")
        wait_for("the second server is asked", lambda: ask(node, asker, "example.com") == "192.0.2.82")
        stats = json.loads(dari(node, "dns", "stats", "--json"))
        assert stats["Upstreams"]["127.0.0.82:53"]["Answered"] >= 1
        # What can be nobody else's stays here.
        forwarded = stats["Forwarded"]
        assert ask(node, asker, "gone.my_net") == "192.0.2.82"
        node.client.networks.create("my_net").connect(asker)
        assert ask(node, asker, "gone.my_net") == "NXDOMAIN"
        assert json.loads(dari(node, "dns", "stats", "--json"))["Forwarded"] == forwarded + 1
    finally:
        for process in (first, second):
            process.terminate()
            process.wait()
        node.servers("nameserver 192.0.2.53\n")


def test_systemd_resolved_is_seen_through(node: Node) -> None:
    assert isinstance(node, ListeningNode)
    (node.folder / "resolved.conf").write_text("nameserver 192.0.2.99\n")
    node.servers("nameserver 127.0.0.53\n")
    try:
        container = node.client.containers.run(IMAGE, ["sleep", "1000"], name="plain", detach=True)
        assert "nameserver 192.0.2.99" in node.inside(container, "cat", "/etc/resolv.conf")
        assert "127.0.0.53" not in node.inside(container, "cat", "/etc/resolv.conf")
    finally:
        (node.folder / "resolved.conf").unlink()
        node.servers("nameserver 192.0.2.53\n")


def test_a_container_may_serve_names_itself(node: Node) -> None:
    node.client.networks.create("net")
    server, asker = node.sleeper("server", network="net"), node.sleeper("asker", network="net")
    process = running(node, server, SERVE, "0.0.0.0", "192.0.2.1")
    try:
        address = node.address(server, "net")
        assert ask(node, asker, "anything", server=address) == "192.0.2.1"
        assert ask(node, server, "anything", server="127.0.0.1") == "192.0.2.1"
        assert ask(node, server, "asker") == node.address(asker, "net")
    finally:
        process.terminate()
        process.wait()


def test_a_killed_darid_loses_no_answer(node: Node) -> None:
    node.client.networks.create("net")
    asker = node.sleeper("db", network="net")
    storm = running(node, asker, STORM)
    for _ in range(3):
        node.kill()
        node.start()
    told, _ = storm.communicate("stop\n", timeout=60 * PATIENCE)
    asked, lost = map(int, told.split())
    assert asked > 100
    assert lost == 0
