"""Containers with published ports are found from every host, at their node's address, and go with their node."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from typing import Any

from tests.scenarios.cluster.conftest import Host, Hosts, all_joined, eventually


def found(hosts: Hosts, host: Host, name: str) -> list[tuple[str, int]]:
    """Where the name leads from there without being on any network with it."""
    members: list[dict[str, Any]] = hosts.dari(host, f"/dari/v1/services/{name}")
    return [
        (each["Address"], port["Port"]) for each in members if not each["Network"] for port in each["Ports"]
    ]


def test_a_published_port_is_found_and_reached_from_every_host(hosts: Hosts) -> None:
    eventually("all joined", lambda: all_joined(hosts))
    ports = {"80/tcp": None, "81/tcp": ("127.0.0.1", None)}
    web = hosts[1].serve("front", "here I am", ports=ports, labels={"dari.tags": "public"})
    web.reload()
    port = int(web.ports["80/tcp"][0]["HostPort"])
    for host in hosts.hosts:
        eventually("the member", partial(found, hosts, host, "front"))
        assert found(hosts, host, "front") == [(hosts[1].underlay, port)]
    assert hosts[0].run("curl", "-s", f"http://{hosts[1].underlay}:{port}/") == "here I am\n"
    targets = hosts.dari(hosts[2], "/dari/v1/http_sd?tag=public")
    assert [each["targets"] for each in targets] == [[f"{hosts[1].underlay}:{port}"]]
    web.stop(timeout=0)
    eventually("it is withdrawn", lambda: not found(hosts, hosts[0], "front"))
    web.start()
    eventually("it is there again", lambda: found(hosts, hosts[0], "front"))
    web.remove(force=True)
    eventually("it is withdrawn", lambda: not found(hosts, hosts[0], "front"))


def test_it_goes_with_its_node_and_returns_with_it(hosts: Hosts) -> None:
    eventually("all joined", lambda: all_joined(hosts))
    hosts[2].serve("front", "x", ports={"80/tcp": None})
    eventually("the member", lambda: found(hosts, hosts[0], "front"))
    before = found(hosts, hosts[0], "front")
    hosts[2].kill()
    eventually("it is gone with its node", lambda: not found(hosts, hosts[0], "front"))
    hosts[2].start()
    eventually("it is back", lambda: found(hosts, hosts[0], "front") == before)


def test_a_lost_session_is_followed_by_all_rows_under_the_next(hosts: Hosts) -> None:
    eventually("all joined", lambda: all_joined(hosts))
    for number in range(3):
        hosts[2].serve(f"front{number}", "x", ports={"80/tcp": None})
        eventually("the member", partial(found, hosts, hosts[0], f"front{number}"))
    assert hosts[2].daemon is not None
    os.kill(hosts[2].daemon.pid, signal.SIGSTOP)
    try:
        for number in range(3):
            eventually("it is gone", lambda number=number: not found(hosts, hosts[0], f"front{number}"))  # type: ignore[misc]
    finally:
        os.kill(hosts[2].daemon.pid, signal.SIGCONT)
    for number in range(3):
        eventually("it is back", partial(found, hosts, hosts[0], f"front{number}"))


def test_a_clean_restart_withdraws_nothing(hosts: Hosts) -> None:
    eventually("all joined", lambda: all_joined(hosts))
    hosts[2].serve("front", "x", ports={"80/tcp": None})
    eventually("the member", lambda: found(hosts, hosts[0], "front"))
    began = time.monotonic()
    hosts[2].kill(signal.SIGTERM)
    is_there = bool(found(hosts, hosts[0], "front"))
    # On a machine so slow that the session's three seconds were over nothing is shown by this.
    assert is_there or time.monotonic() - began > 1
    hosts[2].start()
    eventually("it is there", lambda: all_joined(hosts) and found(hosts, hosts[0], "front"))
