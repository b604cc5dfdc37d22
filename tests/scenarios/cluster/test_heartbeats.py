"""Members with a time to live on several hosts: they may speak to any of them, whichever dies, through either store."""

from __future__ import annotations

import time

from tests.patience import PATIENCE
from tests.scenarios.cluster.conftest import Host, Hosts, all_joined, eventually

from dari.client.discovery import Discovery
from dari.client.errors import ApiError

SECONDS = int(3 * PATIENCE)


def beat(host: Host, member: str) -> str:
    """The heartbeat's answer where it is refused; empty where it counts."""
    with Discovery(f"unix://{host.socket}") as made:
        try:
            made.heartbeat(member)
        except ApiError as error:
            return f"{error.status} {error}"
    return ""


def beat_on(host: Host, member: str, lives: float = 1.25) -> None:
    """For some times to live, so that one that counts elsewhere alone would be over."""
    end = time.monotonic() + lives * SECONDS
    while time.monotonic() < end:
        assert beat(host, member) == ""
        time.sleep(SECONDS / 20)


def lookup(host: Host, name: str) -> list[str]:
    with Discovery(f"unix://{host.socket}") as made:
        return [each["Address"] for each in made.lookup(name)]


def register(host: Host, seconds: int = SECONDS) -> str:
    with Discovery(f"unix://{host.socket}") as made:
        checks = [{"Kind": "ttl", "Interval": f"{seconds}s"}]
        return str(made.register("speaker", "192.0.2.7", 80, checks=checks)["ID"])


def test_any_node_hears_it(hosts: Hosts) -> None:
    eventually("all joined", lambda: all_joined(hosts))
    member = register(hosts[0])
    # At once, before anybody may have told this node of it.
    assert beat(hosts[1], member) == ""
    beat_on(hosts[1], member)
    # The node that hears it dies: it goes on with the next, and is missed by nobody.
    hosts[1].kill()
    beat_on(hosts[2], member)
    assert lookup(hosts[0], "speaker") == ["192.0.2.7"]
    eventually("it is withdrawn", lambda: not lookup(hosts[0], "speaker") and not lookup(hosts[2], "speaker"))
    hosts[1].start()
    eventually("all joined", lambda: all_joined(hosts))
    for host in hosts.hosts:
        assert beat(host, member).startswith("404 ")


def test_the_node_that_registered_it_may_be_gone(hosts: Hosts) -> None:
    eventually("all joined", lambda: all_joined(hosts))
    member = register(hosts[2], 3600)
    assert beat(hosts[0], member) == ""
    hosts[2].kill()
    assert beat(hosts[1], member) == ""
    with Discovery(f"unix://{hosts[1].socket}") as made:
        made.deregister(member)
    eventually("it is gone", lambda: not lookup(hosts[0], "speaker"))
    assert beat(hosts[0], member).startswith("404 ")
    hosts[2].start()
    eventually("all joined", lambda: all_joined(hosts))
    assert lookup(hosts[2], "speaker") == []


def test_without_the_store_it_counts_where_it_did(hosts: Hosts) -> None:
    eventually("all joined", lambda: all_joined(hosts))
    member = register(hosts[0], 3600)
    assert beat(hosts[1], member) == ""
    for each in hosts.members:
        each.pause()
    try:
        for host in hosts.hosts:
            eventually(
                "it is missed", lambda host=host: not hosts.dari(host, "/dari/v1/cluster")["Connected"], 40
            )  # type: ignore[misc]
        assert beat(hosts[1], member) == ""
        refused = beat(hosts[2], member)
        assert refused.startswith("503 ")
        assert "another node counts them" in refused
        assert beat(hosts[2], "nobody").startswith("503 ")
    finally:
        for each in hosts.members:
            each.go_on()
    eventually("it counts again", lambda: beat(hosts[2], member) == "", 40)
    with Discovery(f"unix://{hosts[1].socket}") as made:
        made.deregister(member)
