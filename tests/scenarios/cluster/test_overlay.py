"""One network over three hosts: names, addresses and packets, through either store."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from functools import partial
from typing import Any

import docker
import pytest
from tests.scenarios.cluster.conftest import Host, Hosts, all_joined, eventually
from tests.scenarios.cluster.test_nodes import dari


@pytest.fixture
def wide(hosts: Hosts) -> str:
    eventually("all joined", lambda: all_joined(hosts))
    hosts[0].client.networks.create("wide", driver="overlay", attachable=True)
    for host in hosts.hosts:
        eventually("the network is known", lambda host=host: host.client.networks.list(names=["wide"]))  # type: ignore[misc]
    return "wide"


def fetch(host: Host, container: Any, name: str) -> str:
    """What the server of that name says to a container."""
    return host.curl(container, f"http://{knows(host, container, name)[0]}/")


def knows(host: Host, container: Any, name: str) -> list[str]:
    return host.resolve(container, name)


def test_names_and_packets_pass_between_hosts(hosts: Hosts, wide: str) -> None:
    servers = [
        host.serve(f"s{number}", f"here {number}", network=wide) for number, host in enumerate(hosts.hosts)
    ]
    for number, host in enumerate(hosts.hosts):
        for other in range(3):
            eventually(
                "the name",
                partial(knows, host, servers[number], f"s{other}"),
            )  # type: ignore[misc]
            assert fetch(host, servers[number], f"s{other}") == f"here {other}\n"
    # What is large goes through as well: the MTU leaves room for the tunnel.
    for size in ("1400", "5000"):
        target = knows(hosts[0], servers[0], "s2")[0]
        told = hosts[0].net(servers[0], "ping", "-c", "1", "-W", "3", "-s", size, target)
        assert "1 received" in told
    hosts[1].client.containers.get("s1").remove(force=True)
    eventually("the name is gone", lambda: not knows(hosts[0], servers[0], "s1"))
    assert "NXDOMAIN" in hosts[0].inside(servers[0], "nslookup", "-type=a", "s1", check=False)


def test_looking_up_knows_projects_of_containers_elsewhere(hosts: Hosts, wide: str) -> None:
    labels = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web", "dari.tags": "blue"}
    image = hosts[1].client.images.get("busybox")
    alias = {wide: hosts[1].client.api.create_endpoint_config(aliases=["front", "web"])}
    hosts[1].client.containers.run(
        image, ["sleep", "1000"], name="shop-web-1", detach=True, labels=labels, network=wide,
        networking_config=alias, ports={"80/tcp": None},
    )  # fmt: skip
    for name in ("web.shop", "shop-web-1.shop", "web.wide"):
        here = partial(hosts.dari, hosts[0], f"/dari/v1/services/{name}")
        eventually(name, lambda here=here: [each for each in here() if each["Network"]])  # type: ignore[misc]
        [found] = [each for each in here() if each["Network"]]
        assert found["Address"] == hosts[1].address(hosts[1].client.containers.get("shop-web-1"), wide)
        assert (found["Tags"], found["Ports"]) == (["blue"], [{"Port": 80, "Protocol": "tcp"}])
    # They are listed under their service there as here.
    for host in hosts.hosts:
        listed = {each["Name"] for each in hosts.dari(host, "/dari/v1/services")}
        assert "web" in listed and "front" not in listed


def test_the_other_host_tells_its_half_of_the_way(hosts: Hosts, wide: str) -> None:
    one, _ = hosts[0].sleeper("one", network=wide), hosts[2].serve("two", "2", network=wide)
    eventually("the name", lambda: knows(hosts[0], one, "two"))

    def whole() -> Any:
        told = json.loads(dari(hosts[0], "explain", "--json", "--timeout", "3", "one", "two:80").stdout)
        # On a slow machine the other host needs longer than it is waited for.
        return None if "did not answer" in told["NodeProblem"] else told

    told = eventually("its half", whole)
    assert (told["IsReachable"], told["NodeProblem"]) == (True, "")
    assert "two@host2" in {each["Where"] for each in told["Found"]["Hops"]}
    assert json.loads(dari(hosts[0], "verify", "--json", "--timeout", "3").stdout)["IsAsAsked"]


ECHO = """
import socket
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.bind(("", 5000))
link.settimeout(60)
while True:
    data, peer = link.recvfrom(2000)
    link.sendto(data.upper(), peer)
"""
ASK = """
import socket, sys
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.settimeout(0.5)
for _ in range(40):
    link.sendto(b"hello", (sys.argv[1], 5000))
    try:
        print(link.recv(100).decode())
        break
    except OSError:
        continue
"""


def test_udp_and_an_address_of_ones_own_choice(hosts: Hosts) -> None:
    fixed(hosts)
    made = create_at(hosts[0], "one", ["sleep", "1000"], "fixed", "10.99.0.7")
    hosts[0].client.api.start(made)
    one = hosts[0].client.containers.get(made)
    two = hosts[1].sleeper("two", network="fixed")
    assert hosts[0].address(one, "fixed") == "10.99.0.7"
    command = ["nsenter", "-t", str(hosts[0].pid(one)), "-n", sys.executable, "-c", ECHO]
    server = subprocess.Popen(command)
    try:
        assert hosts[1].net(two, sys.executable, "-c", ASK, "10.99.0.7") == "HELLO\n"
    finally:
        server.kill()
        server.wait()


def fixed(hosts: Hosts) -> str:
    """A network with a subnet of its own choice, known on two hosts."""
    eventually("all joined", lambda: all_joined(hosts))
    pool = docker.types.IPAMPool(subnet="10.99.0.0/24", gateway="10.99.0.254")
    ipam = docker.types.IPAMConfig(pool_configs=[pool])
    hosts[0].client.networks.create("fixed", driver="overlay", ipam=ipam)
    eventually("the network is known", lambda: hosts[1].client.networks.list(names=["fixed"]))
    return "fixed"


def create_at(host: Host, name: str, command: list[str], network: str, address: str) -> str:
    """The id of a container made to have that address."""
    api = host.client.api
    config = api.create_networking_config({network: api.create_endpoint_config(ipv4_address=address)})
    made: str = api.create_container(
        "busybox",
        command,
        name=name,
        host_config=api.create_host_config(network_mode=network),
        networking_config=config,
    )["Id"]
    return made


def test_of_two_who_claim_one_address_at_once_one_gets_it(hosts: Hosts) -> None:
    wide = fixed(hosts)
    address = "10.99.0.77"
    made = [
        create_at(host, f"claim{host.number}", ["sleep", "1000"], wide, address) for host in hosts.hosts[:2]
    ]
    outcomes: dict[int, str] = {}

    def start(number: int) -> None:
        try:
            hosts[number].client.api.start(made[number])
            outcomes[number] = "started"
        except docker.errors.APIError as error:
            outcomes[number] = str(error.explanation)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes.values(), key=lambda text: text != "started")[0] == "started"
    assert "Address already in use" in sorted(outcomes.values(), key=lambda text: text != "started")[1], (
        outcomes
    )


def test_a_network_in_use_anywhere_stays_and_an_unused_one_goes_everywhere(hosts: Hosts, wide: str) -> None:
    hosts[2].sleeper("far", network=wide)
    with pytest.raises(docker.errors.APIError, match="has active endpoints") as caught:
        hosts[0].client.networks.get(wide).remove()
    assert "far" in str(caught.value)
    hosts[2].client.containers.get("far").remove(force=True)
    hosts[0].client.networks.get(wide).remove()
    for host in hosts.hosts:
        eventually("the network is gone", lambda host=host: not host.client.networks.list(names=["wide"]))  # type: ignore[misc]
    # The name is free again, for either kind.
    hosts[1].client.networks.create("wide").remove()


def test_a_killed_hosts_names_vanish_and_come_back_with_it(hosts: Hosts, wide: str) -> None:
    near = hosts[0].sleeper("near", network=wide)
    far = hosts[1].serve("far", "still here", network=wide)
    eventually("the name", lambda: knows(hosts[0], near, "far"))
    hosts[1].kill()
    eventually("the name is gone", lambda: not knows(hosts[0], near, "far"), 30)
    assert not entries(hosts[0])
    hosts[1].start()
    eventually("the name is back", lambda: knows(hosts[0], near, "far"))
    assert fetch(hosts[0], near, "far") == "still here\n"
    assert hosts[1].pid(far) > 0


def test_a_daemon_that_restarts_is_not_missed(hosts: Hosts, wide: str) -> None:
    near = hosts[0].sleeper("near", network=wide)
    hosts[1].serve("far", "here", network=wide)
    eventually("the name", lambda: knows(hosts[0], near, "far"))
    hosts[1].kill(signal.SIGTERM)
    assert knows(hosts[0], near, "far")
    hosts[1].start()
    eventually("all joined", lambda: all_joined(hosts))
    # On a machine under load the start may take longer than the node's time to live.
    eventually("the name", lambda: knows(hosts[0], near, "far"))
    assert fetch(hosts[0], near, "far") == "here\n"


def entries(host: Host) -> list[str]:
    """The forwarding entries of VXLAN interfaces that lead to other hosts."""
    links = [
        each["ifname"]
        for each in json.loads(host.run("ip", "-j", "link"))
        if each["ifname"].startswith("vx-")
    ]
    return [
        line
        for link in links
        for line in host.run("bridge", "fdb", "show", "dev", link).splitlines()
        if " dst " in line
    ]
