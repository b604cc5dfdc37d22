"""[::1] and IPv6 addresses in front of containers with IPv4 only: the relay, over its own death and the daemon's."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from docker.types import IPAMConfig, IPAMPool
from tests.scenarios.conftest import Node, wait_for
from tests.scenarios.network.test_explain import explain
from tests.scenarios.network.test_live_ports import dari, ports

from dari.relay import door, lookup


def answers(node: Node, port: int = 8080, address: str = "[::1]") -> bool:
    return node.curl(None, f"http://{address}:{port}/") == "hello\n"


def relay(node: Node) -> int:
    found = door.entries(f"{node.exec_root}/relay")
    assert found is not None
    return found[0]


def test_loopback_of_ipv6_leads_to_a_container_with_ipv4(node: Node) -> None:
    server = node.serve("srv", "hello", ports={"80/tcp": ("::1", 8080)})
    assert answers(node)
    assert ports(node, server) == {"80/tcp": [{"HostIp": "::1", "HostPort": "8080"}]}
    # The port is held, and nothing answers at other addresses.
    assert node.run("sh", "-c", "nc -l ::1 8080 </dev/null 2>&1; true").strip().endswith("in use")
    assert not answers(node, address="127.0.0.1")
    dari(node, "port", "add", "srv", "[::1]:8081:80")
    assert answers(node, 8081)
    dari(node, "port", "rm", "srv", "[::1]:8080:80")
    assert not answers(node) and answers(node, 8081)
    # What was let go of can be had at once.
    dari(node, "port", "add", "srv", "[::1]:8080:80")
    assert answers(node)
    server.restart(timeout=0)
    wait_for("the server", lambda: answers(node))
    # With its last port the relay ends, and begins again with the next.
    dari(node, "port", "rm", "srv", "80")
    wait_for("its end", lambda: door.entries(f"{node.exec_root}/relay") is None)
    dari(node, "port", "add", "srv", "[::1]:8080:80")
    assert answers(node)


def test_ipv6_at_all_addresses_with_and_without_an_ipv6_container(node: Node) -> None:
    pools = [IPAMPool(subnet="10.77.0.0/24"), IPAMPool(subnet="fd00:77::/64")]
    node.client.networks.create("six", enable_ipv6=True, ipam=IPAMConfig(pool_configs=pools))
    node.serve("srv6", "hello", network="six", ports={"80/tcp": 8080})
    node.serve("srv4", "hello", ports={"80/tcp": ("::", 8090)})
    # httpd of busybox listens on both.
    assert answers(node, address="127.0.0.1") and answers(node)
    assert answers(node, address="[fd00:77::1]")
    assert answers(node, 8090) and answers(node, 8090, "[fd00:77::1]")


def test_it_outlives_the_daemon_and_is_adopted(node: Node) -> None:
    node.serve("srv", "hello", ports={"80/tcp": ("::1", 8080)})
    pid = relay(node)
    node.kill()
    assert answers(node)
    node.start()
    assert answers(node) and relay(node) == pid
    # Its own death is noticed.
    os.kill(pid, signal.SIGKILL)
    wait_for("another relay", lambda: answers(node))
    assert relay(node) != pid
    # Both dead: the next daemon has everything in force.
    node.kill()
    os.kill(relay(node), signal.SIGKILL)
    assert not answers(node)
    node.start()
    wait_for("the relay", lambda: answers(node))


_TAKE = """
import errno, socket, sys
kind = socket.SOCK_DGRAM if "-u" in sys.argv else socket.SOCK_STREAM
with socket.socket(socket.AF_INET, kind) as taken:
    if kind == socket.SOCK_STREAM:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind(("0.0.0.0", int(sys.argv[1])))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        print("free")
    except OSError as error:
        assert error.errno == errno.EADDRINUSE
        print("taken")
"""


def is_free(node: Node, port: int, *flags: str) -> bool:
    """Whether a server of the machine could have it."""
    return node.run(sys.executable, "-c", _TAKE, str(port), *flags) == "free\n"


def test_published_ports_stay_taken_while_the_daemon_is_away(node: Node) -> None:
    ports_of = {"80/tcp": 8080, "53/udp": 5300}
    server = node.serve("srv", "hello", ports=ports_of)
    dari(node, "port", "add", "srv", "9000-9009:9000-9009")
    folder = f"{node.exec_root}/relay"
    wait_for("all are handed over", lambda: len(door.held(folder) or ()) >= 3)
    pid = relay(node)
    node.kill()
    assert not is_free(node, 8080) and not is_free(node, 9009) and not is_free(node, 5300, "-u")
    assert is_free(node, 8081)
    node.start()
    # They are this daemon's as they were the last one's.
    assert relay(node) == pid
    dari(node, "port", "rm", "srv", "9000-9009")
    assert is_free(node, 9009) and not is_free(node, 8080)
    node.sleeper("next", ports={"1/tcp": 9009})
    server.restart(timeout=0)
    wait_for("the server", lambda: answers(node, address="127.0.0.1"))
    # The relay's own death gives nothing away, for darid has the sockets too.
    os.kill(pid, signal.SIGKILL)
    assert not is_free(node, 8080)
    wait_for("another one has them", lambda: len(door.held(folder) or ()) >= 3)
    for name in ("srv", "next"):
        node.client.containers.get(name).remove(force=True)
    wait_for("its end", lambda: door.entries(folder) is None)
    assert is_free(node, 8080)


def test_what_ended_while_the_daemon_was_away_is_let_go(node: Node) -> None:
    node.serve("srv", "hello", ports={"80/tcp": 8080})
    wait_for("it is handed over", lambda: door.held(f"{node.exec_root}/relay"))
    pid = node.pid(node.client.containers.get("srv"))
    node.kill()
    os.kill(pid, signal.SIGKILL)
    assert not is_free(node, 8080)
    node.start()
    wait_for("it is free", lambda: is_free(node, 8080))


@pytest.mark.skipif(not lookup.is_available(), reason="needs BPF sk_lookup (Linux 5.9, CAP_BPF)")
def test_a_long_range_at_the_loopback_of_ipv6(node: Node) -> None:
    server = node.serve(
        "srv", "hello", ports={f"{80 + each}/tcp": ("::1", 20000 + each) for each in range(1000)}
    )
    assert answers(node, 20000) and not answers(node, 20001)
    assert not answers(node, 20000, "127.0.0.1")
    pid = relay(node)
    # One socket, whoever counts.
    assert len(node.run("ss", "-Hltn", "src", "[::1]").splitlines()) == 1
    told = explain(node, "host", "::1", 20000)
    assert told["IsReachable"], told["Text"]
    assert [each["Stage"] for each in told["Found"]["Hops"] if not each["IsOk"]] == []
    node.kill()
    assert answers(node, 20000)
    node.start()
    assert answers(node, 20000) and relay(node) == pid
    # A part of it.
    dari(node, "port", "rm", "srv", "90-1079")
    assert answers(node, 20000)
    os.kill(relay(node), signal.SIGKILL)
    wait_for("another relay", lambda: answers(node, 20000))
    server.remove(force=True)
    wait_for("its end", lambda: door.entries(f"{node.exec_root}/relay") is None)
    assert not answers(node, 20000)


def test_a_relay_that_hangs_is_replaced(node: Node) -> None:
    node.serve("srv", "hello", ports={"80/tcp": ("::1", 8080)})
    pid = relay(node)
    os.kill(pid, signal.SIGSTOP)
    wait_for("another one", lambda: answers(node), 60)
    # And by the next daemon, which finds it so.
    pid = relay(node)
    node.kill()
    os.kill(pid, signal.SIGSTOP)
    node.start()
    wait_for("another one", lambda: answers(node), 60)
    assert relay(node) != pid
