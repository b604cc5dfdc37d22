"""explain, verify and doctor where the other end, or the trouble, is on another host."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE
from tests.scenarios.cluster.conftest import SUBNET, Host, Hosts, all_joined, eventually, some_hosts
from tests.scenarios.cluster.test_nodes import dari
from tests.store import servers

from dari.reconcile.verify_others import PAIRS_AT_ONCE


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Two hosts: what is said of them does not hang on the kind of store."""
    if not servers.has_etcd():
        pytest.skip("needs etcd")
    with some_hosts("etcd", tmp_path_factory.mktemp("across"), 2) as made:
        yield made


@pytest.fixture
def town(pair: Hosts) -> Iterator[tuple[Hosts, Any, Any]]:
    """`one` on the first host and `two`, a server, on the second, on one network; they know each other."""
    pair.clear()
    eventually("all joined", lambda: all_joined(pair))
    pair[0].client.networks.create("wide", driver="overlay", attachable=True)
    eventually("the network", lambda: pair[1].client.networks.list(names=["wide"]))
    one = pair[0].serve("one", "1", network="wide")
    two = pair[1].serve("two", "2", network="wide")
    eventually("two is known", lambda: pair[0].resolve(one, "two"))
    eventually("one is known", lambda: pair[1].resolve(two, "one"))
    yield pair, one, two
    pair.switch.plug_back(1)
    pair.clear()


def explain(host: Host, *words: str, attempts: int = 5) -> dict[str, Any]:
    """Asked again where the other node told nothing: on a slow machine it needs longer than it is waited for."""
    told: dict[str, Any] = {"NodeProblem": "did not answer"}
    while attempts and "did not answer" in told["NodeProblem"]:
        done = dari(host, "explain", "--json", "--timeout", "3", *words)
        assert done.returncode in (0, 1), done.stderr
        told = json.loads(done.stdout)
        attempts -= 1
    return told


def findings(host: Host, *words: str) -> set[str]:
    """The ids of what is more than worth knowing; what the machine under all hosts is like does not count."""
    told = json.loads(dari(host, "doctor", "--json", *words).stdout)
    found = {each["Id"] for each in told if each["Severity"] != "note"}
    return {each for each in found if not each.startswith("host.")}


def rows_of_talks(hosts: Hosts) -> list[str]:
    """Questions and answers of nodes that are in the store now."""
    prefixes = {b"/dari/rows/asks/": b"/dari/rows/asks0", b"/dari/rows/answers/": b"/dari/rows/answers0"}
    found = []
    for first, last in prefixes.items():
        question = {
            "key": b64encode(first).decode(),
            "range_end": b64encode(last).decode(),
            "keys_only": True,
        }
        url = f"http://{SUBNET}.1:{hosts.members[0].port}/v3/kv/range"
        told = json.loads(hosts.switch.run("curl", "-s", url, "-d", json.dumps(question)))
        found += [b64decode(each["key"]).decode() for each in told.get("kvs", ())]
    return found


def bridge(host: Host) -> str:
    [link] = json.loads(host.run("ip", "-j", "link", "show", "type", "vxlan"))
    return str(link["master"])


def tunnel(host: Host) -> str:
    [link] = json.loads(host.run("ip", "-j", "link", "show", "type", "vxlan"))
    return str(link["ifname"])


def test_the_way_is_told_through_both_hosts(town: tuple[Hosts, Any, Any]) -> None:
    hosts, one, _ = town
    told = explain(hosts[0], "one", "two:80")
    assert (told["IsReachable"], told["Conclusion"]) == (True, "reachable")
    ways = " ".join(each["Text"] for each in (*told["Names"], *told["Found"]["Hops"]))
    assert f"on node host1 ({hosts[1].underlay})" in ways
    assert f"is on host {hosts[1].underlay}: it leaves through the tunnel" in ways
    # The other half is told by the other host, from its own kernel.
    assert (told["Node"], told["NodeProblem"]) == (f"host1 ({hosts[1].underlay})", "")
    there = [each for each in told["Found"]["Hops"] if each["Where"].endswith("@host1")]
    assert {each["Where"] for each in there} == {"host@host1", "two@host1"}
    assert "through the tunnel" in there[0]["Text"]
    assert any("a socket of two listens" in each["Text"] for each in there)
    assert any(each.get("IsAnswer") and "leaves through the tunnel" in each["Text"] for each in there)
    # The packet was seen there.
    passed = [(each["Where"], each["Hook"]) for each in told["Probe"]["Passed"] if not each["IsAnswer"]]
    assert passed[-1] == ("two@host1", "input") or told["Probe"]["Untraced"]
    told = explain(hosts[0], "one", "two:81")
    assert (told["IsReachable"], told["Conclusion"]) == (False, "application")
    assert told["Advice"] == f"ask for what listens there: 80/tcp, on node host1 ({hosts[1].underlay})"
    assert not rows_of_talks(hosts)
    # By its address it is the same.
    assert explain(hosts[0], "one", hosts[0].resolve(one, "two")[0] + ":80")["IsReachable"]


def test_everybody_on_the_other_host_is_verified_too(town: tuple[Hosts, Any, Any]) -> None:
    hosts, _, _ = town
    told = json.loads(dari(hosts[0], "verify", "--json", "--timeout", "3").stdout)
    assert told["IsAsAsked"], told["Findings"]
    names = [each["Name"] for each in told["Ends"]]
    assert "two@host1" in names
    [cell] = [each for each in told["Cells"] if names[told["Services"][each["To"]]["End"]] == "two@host1"]
    assert (names[cell["From"]], cell["IsReachable"], cell["Probe"]) == ("one", True, "delivered")
    service = told["Services"][cell["To"]]
    assert (service["Protocol"], service["Port"], service["Why"]) == ("tcp", 80, ["listening"])
    assert not rows_of_talks(hosts)


@pytest.mark.slow
def test_more_pairs_than_a_node_takes_at_once_are_asked_in_turn(town: tuple[Hosts, Any, Any]) -> None:
    hosts, _, two = town
    two.remove(force=True)
    api, count = hosts[1].client.api, PAIRS_AT_ONCE + 20
    wide = api.create_networking_config({"wide": api.create_endpoint_config()})
    doors = [(port, "tcp") for port in range(20_000, 20_000 + count)]
    api.create_container("busybox", ["sleep", "1000"], name="many", ports=doors, networking_config=wide)
    api.start("many")
    eventually("many is known", lambda: explain(hosts[0], "one", "many")["IsReachable"])
    told = json.loads(dari(hosts[0], "verify", "--json", "--timeout", "20").stdout)
    assert told["IsAsAsked"], told["Findings"]
    names = [each["Name"] for each in told["Ends"]]
    cells = [each for each in told["Cells"] if names[told["Services"][each["To"]]["End"]] == "many@host1"]
    assert len(cells) == count and {each["Probe"] for each in cells} == {"refused"}
    assert not rows_of_talks(hosts)


def test_a_cable_that_is_out_is_told_from_a_fault_of_ours(town: tuple[Hosts, Any, Any]) -> None:
    hosts, one, _ = town
    address = hosts[0].resolve(one, "two")[0]
    hosts.switch.unplug(1)
    told = explain(hosts[0], "one", f"{address}:80")
    assert (told["IsReachable"], told["Conclusion"]) == (False, "away")
    assert "node host1" in told["Text"]
    eventually("two is unknown", lambda: not hosts[0].resolve(one, "two"))
    told = explain(hosts[0], "one", "two:80")
    assert (told["IsReachable"], told["Conclusion"]) == (False, "away")
    assert "nothing was heard for its time to live" in told["Text"]
    assert findings(hosts[0]) == {"cluster.node-down"}
    eventually("the other one knows that it is alone", lambda: "cluster.store-away" in findings(hosts[1]))
    told = json.loads(dari(hosts[0], "verify", "--json", "--timeout", "3").stdout)
    assert not told["IsAsAsked"]
    hosts.switch.plug_back(1)
    eventually("two is known again", lambda: hosts[0].resolve(one, "two"))
    eventually("one reaches two", lambda: explain(hosts[0], "one", "two:80")["IsReachable"])
    eventually("all is well", lambda: not findings(hosts[0]) and not findings(hosts[1]))


def test_a_way_that_loses_large_packets_is_told(town: tuple[Hosts, Any, Any]) -> None:
    hosts, _, _ = town
    assert "bytes do not get through" not in explain(hosts[0], "one", "two:80")["Text"]
    hosts.switch.run("ip", "link", "set", "p1", "mtu", "1400")
    try:
        told = explain(hosts[0], "one", "two:80")
    finally:
        hosts.switch.run("ip", "link", "set", "p1", "mtu", "1500")
    # The question is small, and arrives.
    assert told["IsReachable"] and "packets of 1500 bytes do not get through" in told["Text"], told["Text"]


def test_underlay_packets_that_a_firewall_takes(town: tuple[Hosts, Any, Any]) -> None:
    hosts, _, _ = town
    for words in (
        ("add", "table", "inet", "fw"),
        ("add", "chain", "inet", "fw", "in", "{ type filter hook input priority 0; }"),
        ("add", "rule", "inet", "fw", "in", "udp", "dport", "4789", "drop"),
    ):
        hosts[1].run("nft", *words)
    try:
        told = explain(hosts[0], "one", "two:80")
        assert (told["IsReachable"], told["Conclusion"]) == (False, "foreign")
        assert "node host1, input: `udp dport 4789 drop`" in told["Text"]
        decider = told["Found"]["Hops"][told["Found"]["DecidedBy"]]
        assert (decider["Where"], decider["Object"][-1]) == ("host@host1", "fw")
    finally:
        hosts[1].run("nft", "delete", "table", "inet", "fw")
    eventually("one reaches two", lambda: explain(hosts[0], "one", "two:80")["IsReachable"])


def test_what_stops_it_on_the_other_host_is_named_with_that_host(town: tuple[Hosts, Any, Any]) -> None:
    hosts, _, two = town
    # A rule inside the container there: seen by the walk, and caught by the trace.
    hosts[1].net(
        two, "nft", "add table inet mine; add chain inet mine in { type filter hook input priority 0; }"
    )
    hosts[1].net(two, "nft", "add", "rule", "inet", "mine", "in", "tcp", "dport", "80", "drop")
    told = explain(hosts[0], "one", "two:80")
    assert (told["IsReachable"], told["Conclusion"]) == (False, "foreign")
    assert (told["Probe"]["Caught"]["Where"], told["Probe"]["Caught"]["Table"]) == ("two@host1", "mine")
    assert "in two@host1" in told["Text"]
    verified = json.loads(dari(hosts[0], "verify", "--json", "--timeout", "3").stdout)
    assert not verified["IsAsAsked"]
    assert any("one should reach two@host1:80/tcp" in each for each in verified["Findings"])
    hosts[1].net(two, "nft", "delete", "table", "inet", "mine")
    # The server's cable there.
    [port] = json.loads(hosts[1].run("ip", "-j", "link", "show", "type", "veth", "master", bridge(hosts[1])))
    hosts[1].run("ip", "link", "set", port["ifname"], "down")
    told = explain(hosts[0], "one", "two:80")
    assert (told["IsReachable"], told["Conclusion"]) == (False, "drift")
    assert told["Advice"] == "dari doctor --fix, on node host1"
    assert told["Found"]["Hops"][told["Found"]["DecidedBy"]]["Where"] == "host@host1"
    assert any(port["ifname"] in each for each in told["Differences"])
    dari(hosts[1], "doctor", "--fix")
    assert explain(hosts[0], "one", "two:80")["IsReachable"]


def test_a_question_that_starts_on_the_other_host_is_asked_there(town: tuple[Hosts, Any, Any]) -> None:
    hosts, one, _ = town
    told = explain(hosts[0], "two", "one:80")
    assert (told["IsReachable"], told["Conclusion"]) == (True, "reachable")
    assert told["AskedNode"] == f"host1 ({hosts[1].underlay})"
    assert told["From"]["Name"] == "two@host1"
    # The half that lies here is told by this node, to that one.
    assert told["Node"] == f"host0 ({hosts[0].underlay})"
    places = {each["Where"] for each in told["Found"]["Hops"]}
    assert places == {"two@host1", "host@host1", "host@host0", "one@host0"}
    said = dari(hosts[0], "explain", "two@host1", "one:81").stdout
    assert said.startswith(f"two@host1 → one:81/tcp\nas node host1 ({hosts[1].underlay}) tells it\n")
    assert "The network is fine." in said and "what listens there: 80/tcp, on node host0" in said
    # Of one that is on no network of both only its own node knows.
    hosts[1].client.containers.get("two").rename("three")
    hidden = hosts[1].serve("hidden", "3", network="bridge")
    done = dari(hosts[0], "explain", "hidden", "outside:80")
    assert done.returncode == 2 and "hidden@NODE" in done.stderr
    assert explain(hosts[0], "hidden@host1", "outside:80")["From"]["Name"] == "hidden@host1"
    apart = explain(hosts[0], "hidden@host1", "one:80")
    assert "hidden and one share no network" in apart["Text"] and "network connect wide" in apart["Advice"]
    told = explain(hosts[0], "host@host1", "one:80")
    assert "a host is on no network of several nodes" in told["Text"]
    hidden.remove(force=True)
    # A published port is its own node's to tell of.
    hosts[1].serve("shown", "4", network="bridge", ports={"80/tcp": 8090})
    eventually("it is told", lambda: explain(hosts[0], "outside", "shown:80")["IsReachable"])
    from_afar = explain(hosts[0], hosts[0].underlay.rpartition(".")[0] + ".99", "shown:8090")
    assert from_afar["IsReachable"] and from_afar["AskedNode"], from_afar["Text"]
    told = explain(hosts[0], "one", "shown:80")
    assert f"shown is on node host1 ({hosts[1].underlay})" in told["Text"], told["Text"]
    assert f"{hosts[1].underlay}:8090/tcp" in told["Advice"]
    # An address of the other node's is that container.
    assert explain(hosts[0], hosts[0].resolve(one, "three")[0], "one:80")["From"]["Name"] == "three@host1"
    # By its own address, whatever its name is here.
    assert explain(hosts[0], "one", "three@host1:80")["IsReachable"]
    assert explain(hosts[0], "three@host1", "one@host0:80")["IsReachable"]
    assert explain(hosts[0], "host@host1", "host@host0")["IsReachable"]
    done = dari(hosts[0], "explain", "one@host7", "two:80")
    assert (done.returncode, "no node is called host7" in done.stderr) == (2, True)
    assert not rows_of_talks(hosts)


def test_a_policy_of_the_other_host_is_told_as_it_was_asked_for(town: tuple[Hosts, Any, Any]) -> None:
    hosts, one, _ = town
    hosts[1].serve("safe", "3", network="wide", labels={"dari.policy": "deny; allow somebody 80"})
    eventually("safe is known", lambda: hosts[0].resolve(one, "safe"))
    told = explain(hosts[0], "one", "safe:80")
    assert (told["IsReachable"], told["Conclusion"]) == (False, "meant")
    assert told["Text"] == "the policy of safe does not let one in, on node host1"
    assert [each["Kind"] for each in told["Causes"]] == ["policy"]
    verified = json.loads(dari(hosts[0], "verify", "--json", "--timeout", "3").stdout)
    assert verified["IsAsAsked"], verified["Findings"]


@contextmanager
def frozen(hosts: Hosts) -> Iterator[None]:
    """The second host's darid stands still, and its session lasts however slow this machine is."""
    host, before = hosts[1], hosts[1].options

    def again(*options: str) -> None:
        host.kill(signal.SIGTERM)
        host.options = options
        host.start()

    again(*before, "--store-ttl", "300")
    try:
        eventually("all joined", lambda: all_joined(hosts))
        one = hosts[0].client.containers.get("one")
        eventually("two is known", lambda: hosts[0].resolve(one, "two"))
        assert host.daemon is not None
        host.daemon.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            host.daemon.send_signal(signal.SIGCONT)
    finally:
        again(*before)


def test_a_node_that_does_not_answer_is_named_and_the_store_is_believed(town: tuple[Hosts, Any, Any]) -> None:
    hosts, _, _ = town
    with frozen(hosts):
        told = explain(hosts[0], "one", "two:80", attempts=1)
        assert (told["IsReachable"], told["Conclusion"]) == (True, "reachable")
        assert told["NodeProblem"] == "node host1 did not answer within 3 s"
        verified = json.loads(dari(hosts[0], "verify", "--json", "--timeout", "3").stdout)
        assert not verified["IsAsAsked"]
        assert any("node host1 did not answer within 3 s" in each for each in verified["Findings"])
        done = dari(hosts[0], "explain", "two", "one:80")
        assert done.returncode == 2 and "node host1" in done.stderr, done
        assert "did not answer within 2 s" in done.stderr
    eventually("it is asked again", lambda: not explain(hosts[0], "one", "two:80")["NodeProblem"])
    eventually("nothing is left of the questions", lambda: not rows_of_talks(hosts))


def test_a_darid_that_dies_while_it_asks_leaves_no_question(town: tuple[Hosts, Any, Any]) -> None:
    hosts, _, _ = town
    with frozen(hosts):
        asking = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "dari.cli.main",
                "-H",
                f"unix://{hosts[0].socket}",
                "explain",
                "one",
                "two:80",
            ],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually("the question is there", lambda: rows_of_talks(hosts))
        hosts[0].kill()
        asking.wait(20 * PATIENCE)
    hosts[0].start()
    eventually("it went with its session, and its answer with it", lambda: not rows_of_talks(hosts))
    eventually("all joined", lambda: all_joined(hosts))
    eventually("one reaches two", lambda: explain(hosts[0], "one", "two:80")["IsReachable"])


def test_entries_somebody_changed_are_right_again_by_themselves(town: tuple[Hosts, Any, Any]) -> None:
    hosts, _, two = town
    near, link = hosts[0], tunnel(hosts[0])
    place = two.client.api.inspect_container(two.id)["NetworkSettings"]["Networks"]["wide"]
    mac = place["MacAddress"]

    def known() -> tuple[list[str], list[str]]:
        forwarding = near.run("bridge", "fdb", "show", "dev", link).splitlines()
        neighbours = json.loads(near.run("ip", "-j", "neigh", "show", "dev", link))
        return [each for each in forwarding if " dst " in each], [each["dst"] for each in neighbours]

    before = ([f"{mac} dst {hosts[1].underlay} self permanent"], [place["IPAddress"]])
    eventually("its entries", lambda: known() == before)
    stray = "02:00:00:00:00:77"
    for words in (
        ("bridge", "fdb", "append", stray, "dev", link, "dst", "10.77.0.99"),
        ("ip", "neigh", "replace", "10.0.0.99", "lladdr", stray, "dev", link, "nud", "permanent"),
        ("bridge", "fdb", "replace", mac, "dev", link, "dst", "10.77.0.99"),
        ("bridge", "fdb", "del", mac, "dev", link, "dst", hosts[1].underlay),
        ("ip", "neigh", "del", place["IPAddress"], "dev", link),
    ):
        near.run(*words)
        eventually(f"it is as it was after {' '.join(words)}", lambda: known() == before)
    assert findings(near) == set()
    assert explain(near, "one", "two:80")["IsReachable"]


def test_entries_that_went_stale_while_darid_was_away_go_at_its_start(town: tuple[Hosts, Any, Any]) -> None:
    hosts, one, _ = town
    near, link = hosts[0], tunnel(hosts[0])
    near.kill()
    near.run("bridge", "fdb", "append", "02:00:00:00:00:77", "dev", link, "dst", "10.77.0.99")
    near.start()
    eventually("all joined", lambda: all_joined(hosts))
    eventually("it went", lambda: "02:00:00:00:00:77" not in near.run("bridge", "fdb", "show", "dev", link))
    eventually("two is known", lambda: near.resolve(one, "two"))


def test_the_store_away_is_a_finding(town: tuple[Hosts, Any, Any]) -> None:
    hosts, _, _ = town
    hosts.members[0].kill()
    try:
        eventually("it is told", lambda: "cluster.store-away" in findings(hosts[0]))
    finally:
        hosts.members[0].start()
    eventually("all is well", lambda: not findings(hosts[0]) and all_joined(hosts))
