"""[::1] and IPv6 addresses in front of containers with IPv4 only: the relay, over its own death and the daemon's."""

from __future__ import annotations

import os
import signal

from docker.types import IPAMConfig, IPAMPool
from tests.scenarios.conftest import Node, wait_for
from tests.scenarios.network.test_live_ports import dari, ports

from dari.relay import door


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
