"""darid and dockerd on one machine: both networks carry traffic, and neither takes the other's away."""

from __future__ import annotations

import ipaddress
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.scenarios.beside.conftest import OUTSIDE, UPLINK, Dockerd, Outside
from tests.scenarios.conftest import Node, wait_for


def user_chain(node: Node) -> str:
    return node.run("nft", "list", "chain", "ip", "filter", "DOCKER-USER", check=False)


def ours_and_theirs_flow(node: Node, outside: Outside, dockerd: Dockerd) -> None:
    """A published port and the way out of a container, in both engines."""
    assert "policy drop" in node.run("nft", "list", "chain", "ip", "filter", "FORWARD")
    for port, text in ((8080, "ours\n"), (9090, "theirs\n")):
        assert outside.curl(f"http://{UPLINK}:{port}/") == text
        assert node.curl(None, f"http://{UPLINK}:{port}/") == text
    for each in (node.client.containers.get("ours"), dockerd.client.containers.get("theirs")):
        assert node.curl(each, f"http://{OUTSIDE}/") == UPLINK


@contextmanager
def both(node: Node, dockerd: Dockerd) -> Iterator[None]:
    """A server in each: ours behind 8080, theirs behind 9090."""
    node.client.networks.create("web")
    node.serve("ours", "ours", network="web", ports={"80/tcp": 8080})
    dockerd.client.networks.create("their-web")
    dockerd.serve("theirs", "theirs", network="their-web", ports={"80/tcp": 9090})
    yield
    dockerd.clear()


def test_traffic_flows_in_both(node: Node, outside: Outside, dockerd: Dockerd) -> None:
    with both(node, dockerd):
        ours_and_theirs_flow(node, outside, dockerd)
        ours, theirs = node.client.containers.get("ours"), dockerd.client.containers.get("theirs")
        # Strangers reach published ports alone, over both borders: what dari lets out of its bridges is not let into
        # dockerd's.
        for network in ("their-web", "bridge"):
            hidden = dockerd.serve(f"hidden-{network}", "hidden", network=network)
            address = hidden.attrs["NetworkSettings"]["Networks"][network]["IPAddress"]
            assert node.curl(None, f"http://{address}/") == "hidden\n"
            assert node.curl(ours, f"http://{address}/") == ""
        assert node.curl(theirs, f"http://{node.address(ours, 'web')}/") == ""
        assert outside.curl(f"http://{node.address(ours, 'web')}/") == ""
        assert node.curl(theirs, f"http://{UPLINK}:8080/") == "ours\n"
        assert node.curl(ours, f"http://{UPLINK}:9090/") == "theirs\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_our_restart_touches_nothing_of_theirs(
    node: Node, outside: Outside, dockerd: Dockerd, number: int
) -> None:
    with both(node, dockerd):
        before = dockerd.rules()
        node.kill(number)
        assert dockerd.rules() == before
        assert 'comment "dari"' in user_chain(node)
        node.start()
        assert dockerd.rules() == before
        assert user_chain(node).count('comment "dari"') == 1
        ours_and_theirs_flow(node, outside, dockerd)


def test_their_restart_touches_nothing_of_ours(node: Node, outside: Outside, dockerd: Dockerd) -> None:
    with both(node, dockerd):
        before = node.kernel()
        dockerd.stop()
        assert outside.curl(f"http://{UPLINK}:8080/") == "ours\n"
        dockerd.start()
        assert outside.curl(f"http://{UPLINK}:8080/") == "ours\n"
        dockerd.client.containers.get("theirs").start()
        wait_for("their server", lambda: outside.curl(f"http://{UPLINK}:9090/") == "theirs\n")
        ours_and_theirs_flow(node, outside, dockerd)
        links = {each for each in before if not each.startswith("link veth")}
        assert links <= node.kernel()


def test_a_flushed_chain_of_theirs_gets_our_rule_again(
    node: Node, outside: Outside, dockerd: Dockerd
) -> None:
    """Somebody writes DOCKER-USER anew; dari looks after its rule by itself."""
    with both(node, dockerd):
        # Nothing can be asked in between: dari hears of it within moments.
        node.run("iptables", "-F", "DOCKER-USER")
        wait_for("our rule", lambda: 'comment "dari"' in user_chain(node), 25)
        ours_and_theirs_flow(node, outside, dockerd)


def test_the_rule_leaves_with_dari(node: Node, dockerd: Dockerd) -> None:
    """Stopped with nothing running, dari leaves Docker's chain as Docker made it."""
    before = dockerd.rules()
    node.kill(signal.SIGTERM)
    assert dockerd.rules() == before
    assert 'comment "dari"' not in user_chain(node)
    assert "inet dari" not in node.run("nft", "list", "tables")
    assert "dari0" not in node.run("ip", "link") and "docker0" in node.run("ip", "link")
    node.start()
    assert 'comment "dari"' in user_chain(node)


def test_pools_keep_clear_of_each_other(node: Node, dockerd: Dockerd) -> None:
    """By turns, each engine makes networks without being told a subnet; none overlaps another."""
    for number in range(4):
        dockerd.client.networks.create(f"theirs{number}")
        node.client.networks.create(f"ours{number}")
    subnets = [
        ipaddress.ip_network(config["Subnet"])
        for client in (node.client, dockerd.client)
        for each in client.networks.list()
        for config in each.attrs["IPAM"]["Config"] or ()
    ]
    assert len(subnets) == 10
    for index, one in enumerate(subnets):
        assert not any(one.overlaps(other) for other in subnets[index + 1 :]), subnets
    routes = {each["dst"] for each in json.loads(node.run("ip", "-j", "route")) if each["dst"] != "default"}
    assert {str(each) for each in subnets} <= routes
    for number in range(4):
        dockerd.client.networks.get(f"theirs{number}").remove()
