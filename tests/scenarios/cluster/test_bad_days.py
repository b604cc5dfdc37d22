"""What a cluster survives: a store that stops, cables that are pulled, nodes that fall and storms of changes.

Each kind of fault ends the same way: nothing double, nothing stale, and names answer again without anybody's help.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import docker
import pytest
from tests.scenarios.cluster.conftest import Host, Hosts, all_joined, eventually, some_hosts
from tests.scenarios.cluster.test_nodes import dari, states
from tests.scenarios.cluster.test_overlay import entries, fetch, knows
from tests.store import servers


@pytest.fixture(scope="module", params=["etcd", pytest.param("zk", marks=pytest.mark.slow)])
def trio(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Three hosts on a store of three members."""
    has = servers.has_etcd() if request.param == "etcd" else servers.has_zookeeper()
    if not has:
        pytest.skip(f"needs {request.param}")
    with some_hosts(request.param, tmp_path_factory.mktemp(request.param), 3, members=3) as made:
        yield made


@pytest.fixture
def hosts(trio: Hosts) -> Iterator[Hosts]:
    trio.clear()
    eventually("all joined", lambda: all_joined(trio), 40)
    trio[0].client.networks.create("wide", driver="overlay", attachable=True)
    for host in trio.hosts:
        eventually("the network is known", lambda host=host: host.client.networks.list(names=["wide"]))  # type: ignore[misc]
    yield trio
    for number in range(3):
        trio.switch.plug_back(number)
    eventually("all joined", lambda: all_joined(trio), 40)
    trio.clear()


def serve_everywhere(hosts: Hosts) -> list[Any]:
    made = [
        host.serve(f"s{number}", f"here {number}", network="wide") for number, host in enumerate(hosts.hosts)
    ]
    agree(hosts, made)
    return made


def agree(hosts: Hosts, made: list[Any], seconds: float = 30.0) -> None:
    """Every host knows every name, reaches it, and has an entry for each container elsewhere and no other."""
    for number, host in enumerate(hosts.hosts):
        for other in range(len(made)):
            eventually(f"s{other} on {host.name}", partial(knows, host, made[number], f"s{other}"), seconds)
            eventually(
                f"s{other} answers {host.name}",
                lambda host=host, number=number, other=other: (
                    fetch(host, made[number], f"s{other}")  # type: ignore[misc]
                    == f"here {other}\n"
                ),
                seconds,
            )
        eventually(
            f"the entries of {host.name}",
            lambda host=host, number=number: led(host) == should_lead(hosts, made, number),  # type: ignore[misc]
            seconds,
        )


def should_lead(hosts: Hosts, made: list[Any], asking: int) -> set[tuple[str, ...]]:
    """What a host's tunnel has to know of the containers on the others, and no more."""
    addresses = {each["Name"]: each["Address"] for each in hosts.dari(hosts[asking], "/dari/v1/nodes")}
    found: set[tuple[str, ...]] = set()
    for number, container in enumerate(made):
        if number != asking:
            container.reload()
            place = container.attrs["NetworkSettings"]["Networks"]["wide"]
            found.add((place["MacAddress"], addresses[hosts[number].name]))
            found.add((place["IPAddress"], place["MacAddress"]))
    return found


def led(host: Host) -> set[tuple[str, ...]]:
    """What it knows: (hardware address, host) and (address, hardware address)."""
    links = [
        each["ifname"] for each in json.loads(host.run("ip", "-j", "link", "show", "type", "vxlan") or "[]")
    ]
    found: set[tuple[str, ...]] = set()
    for link in links:
        found |= {
            (each["dst"], each["lladdr"])
            for each in json.loads(host.run("ip", "-j", "neigh", "show", "dev", link))
        }
    return found | {(words[0], words[words.index("dst") + 1]) for words in map(str.split, entries(host))}


def addresses(hosts: Hosts) -> list[str]:
    """The addresses all running containers have on the network, as their hosts tell."""
    found = []
    for host in hosts.hosts:
        for container in host.client.containers.list():
            networks = container.attrs["NetworkSettings"]["Networks"]
            if "wide" in networks:
                found.append(networks["wide"]["IPAddress"])
    return found


def test_with_the_store_away_what_runs_goes_on_and_changes_wait(hosts: Hosts) -> None:
    made = serve_everywhere(hosts)
    # Killed before it had a quiet moment for anything.
    fresh = hosts[1].sleeper("fresh", network="wide")
    hosts[1].kill()
    for member in hosts.members:
        member.pause()
    try:
        status = lambda: hosts.dari(hosts[0], "/dari/v1/cluster")  # noqa: E731
        eventually("the store is missed", lambda: not status()["Connected"], 40)
        assert fetch(hosts[0], made[0], "s2") == "here 2\n"
        with pytest.raises(docker.errors.APIError) as caught:
            hosts[0].client.networks.create("more", driver="overlay")
        assert caught.value.status_code == 503
        # What is local goes on.
        hosts[0].client.networks.create("local").remove()
        lonely = hosts[0].sleeper("lonely", network="none")
        lonely.remove(force=True)
        # What only gives back does not wait.
        hosts[2].client.containers.get("s2").remove(force=True)
        assert not hosts[2].client.containers.list(all=True)
        hosts[1].start()
        assert hosts[1].pid(made[1]) > 0
        assert f"{hosts[1].address(fresh, 'wide')}/" in hosts[1].net(
            fresh, "ip", "-br", "addr", "show", "eth0"
        )
        fresh.remove(force=True)
        assert fetch(hosts[1], made[1], "s0") == "here 0\n"
    finally:
        for member in hosts.members:
            member.go_on()
    eventually("s2 is gone everywhere", lambda: not knows(hosts[0], made[0], "s2"), 40)
    eventually("the entries", lambda: len(entries(hosts[0])) == 1, 40)
    # Its name is gone with its session too, before that host has the store again.
    eventually("host2 has it", lambda: hosts.dari(hosts[2], "/dari/v1/cluster")["Connected"], 40)
    hosts[2].serve("s2", "here 2", network="wide")
    agree(hosts, [*made[:2], hosts[2].client.containers.get("s2")])


@pytest.mark.slow
def test_any_member_of_the_store_may_die(hosts: Hosts) -> None:
    made = serve_everywhere(hosts)
    for member in hosts.members:
        member.kill()
        agree(hosts, made, 40)
        name = f"extra{member.port}"

        def start(name: str = name) -> bool:
            try:
                hosts[1].sleeper(name, network="wide")
            except docker.errors.APIError as error:
                # A moment without a leader is told, not hidden.
                assert error.status_code in (503, 409), error
                for left in hosts[1].client.containers.list(all=True, filters={"name": name}):
                    left.remove(force=True)
                return False
            return True

        eventually("a start while a member is gone", start, 40)
        eventually("its name", partial(knows, hosts[0], made[0], name), 40)
        hosts[1].client.containers.get(name).remove(force=True)
        eventually("its name is gone", lambda name=name: not knows(hosts[0], made[0], name), 40)  # type: ignore[misc]
        member.start()
        kind = hosts.url.partition(":")[0]
        eventually(
            f"{kind} again", lambda member=member: f":{member.port} " in hosts.switch.run("ss", "-Hltn"), 60
        )  # type: ignore[misc]
    agree(hosts, made, 40)


def test_a_host_whose_cable_was_out_heals_by_itself(hosts: Hosts) -> None:
    made = serve_everywhere(hosts)
    hosts.switch.unplug(2)
    eventually("s2 is gone", lambda: not knows(hosts[0], made[0], "s2"), 40)
    eventually("its entry too", lambda: len(entries(hosts[0])) == 1, 40)
    # Meanwhile the others change, and so does what runs behind the pulled cable.
    hosts[1].client.containers.get("s1").remove(force=True)
    made[1] = hosts[1].serve("s1", "here 1", network="wide")
    assert hosts[2].pid(made[2]) > 0
    hosts.switch.plug_back(2)
    agree(hosts, made, 40)
    assert len(set(addresses(hosts))) == 3


def cut_off_and_remove(hosts: Hosts) -> None:
    """The last host, which hears nothing of it."""
    hosts.switch.unplug(2)
    eventually("host2 is missed", lambda: states(hosts[0])["host2"] == "down", 40)
    assert dari(hosts[0], "node", "rm", "host2").returncode == 0


def troubles(hosts: Hosts, host: Host) -> list[str]:
    """What the doctor finds wrong there."""
    found = hosts.dari(host, "/dari/v1/doctor")["Findings"]
    return [f"{each['Id']} {each['Text']}" for each in found if each["Severity"] == "error"]


def test_a_host_that_was_cut_off_and_removed_takes_its_places_again(hosts: Hosts) -> None:
    made = serve_everywhere(hosts)
    stopped = hosts[2].sleeper("stopped", network="wide")
    stopped.stop(timeout=0)
    before = hosts[2].address(made[2], "wide")
    cut_off_and_remove(hosts)
    hosts.switch.plug_back(2)
    eventually("all joined", lambda: all_joined(hosts), 40)
    agree(hosts, made, 40)
    assert hosts[2].address(made[2], "wide") == before
    assert troubles(hosts, hosts[2]) == []
    stopped.start()
    eventually("its name", lambda: knows(hosts[0], made[0], "stopped"), 40)
    # So it is where its darid died meanwhile.
    hosts[2].kill()
    cut_off_and_remove(hosts)
    hosts.switch.plug_back(2)
    hosts[2].start()
    eventually("all joined", lambda: all_joined(hosts), 40)
    for name in ("stopped", "s2"):
        eventually(name, partial(knows, hosts[0], made[0], name), 40)
    assert hosts[2].address(made[2], "wide") == before
    stopped.remove(force=True)
    agree(hosts, made, 40)


def test_what_others_have_by_then_is_not_touched_and_told(hosts: Hosts) -> None:
    pool = docker.types.IPAMPool(subnet="10.66.7.0/24")
    ipam = docker.types.IPAMConfig(pool_configs=[pool])
    hosts[0].client.networks.create("fixed", driver="overlay", attachable=True, ipam=ipam)
    eventually("known", lambda: hosts[2].client.networks.list(names=["fixed"]))
    asker = hosts[0].sleeper("asker", network="fixed")
    server = hosts[2].serve("server", "back", network="fixed")
    address = hosts[2].address(server, "fixed")
    cut_off_and_remove(hosts)
    other = hosts[1].sleeper("other")
    hosts[1].client.networks.get("fixed").connect(other, ipv4_address=address)
    hosts.switch.plug_back(2)
    eventually("all joined", lambda: all_joined(hosts), 40)
    # What was its container's is somebody else's: it is off the network, in the kernel as well.
    eventually("no interface", lambda: "eth0" not in hosts[2].net(server, "ip", "-br", "link"), 40)
    server.reload()
    assert server.attrs["NetworkSettings"]["Networks"] == {}
    told = f"it runs without network fixed, where it was {address}: {address} is other's on node host1 by now"
    eventually("it is told", lambda: troubles(hosts, hosts[2]) == [f"cluster.off-network {told}"], 40)
    assert hosts[1].address(other, "fixed") == address
    other.remove(force=True)
    eventually("it is back", lambda: "eth0" in hosts[2].net(server, "ip", "-br", "link"), 60)
    assert hosts[2].address(server, "fixed") == address
    eventually("its name", lambda: knows(hosts[0], asker, "server"), 40)
    assert fetch(hosts[0], asker, "server") == "back\n"
    assert troubles(hosts, hosts[2]) == []


@pytest.mark.slow
def test_all_hosts_at_once(hosts: Hosts) -> None:
    made = serve_everywhere(hosts)
    for host in hosts.hosts:
        host.kill()
    for host in hosts.hosts:
        host.start()
    agree(hosts, made, 40)


def test_a_storm_leaves_nothing_double_and_nothing_behind(hosts: Hosts) -> None:
    made = serve_everywhere(hosts)
    troubles: list[BaseException] = []

    def storm(host: Host) -> None:
        client = host.client
        try:
            guests = [host.sleeper(f"g{host.number}-{each}", network="none") for each in range(2)]
            for guest in guests:
                client.networks.get("none").disconnect(guest)
            for _ in range(5):
                for guest in guests:
                    client.networks.get("wide").connect(guest)
                for guest in guests:
                    client.networks.get("wide").disconnect(guest)
            for guest in guests:
                client.networks.get("wide").connect(guest)
        except BaseException as error:
            troubles.append(error)

    threads = [threading.Thread(target=storm, args=(host,)) for host in hosts.hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not troubles
    everybody = addresses(hosts)
    assert len(everybody) == 9
    assert len(set(everybody)) == 9
    for host in hosts.hosts:
        eventually("six entries", lambda host=host: len(entries(host)) == 6)  # type: ignore[misc]
    for host in hosts.hosts:
        for each in range(2):
            host.client.containers.get(f"g{host.number}-{each}").remove(force=True)
    agree(hosts, made)


def test_ten_networks(hosts: Hosts) -> None:
    makers = [
        threading.Thread(
            target=hosts[number % 3].client.networks.create,
            args=(f"n{number}",),
            kwargs={"driver": "overlay"},
        )
        for number in range(10)
    ]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    subnets, numbers = set(), set()
    for number in range(10):
        for host in hosts.hosts:
            eventually(
                "known", lambda host=host, number=number: host.client.networks.list(names=[f"n{number}"])
            )  # type: ignore[misc]
        attrs = hosts[0].client.networks.get(f"n{number}").attrs
        subnets.add(attrs["IPAM"]["Config"][0]["Subnet"])
        numbers.add(attrs["Options"]["com.docker.network.driver.overlay.vxlanid_list"])
    assert len(subnets) == len(numbers) == 10
    near = hosts[0].sleeper("near", network="n0")
    far = hosts[1].serve("far", "there", network="n0")
    for number in range(1, 10):
        hosts[0].client.networks.get(f"n{number}").connect(near)
        hosts[1].client.networks.get(f"n{number}").connect(far)
    for number in range(10):
        address = hosts[1].address(far, f"n{number}")
        assert hosts[0].curl(near, f"http://{address}/") == "there\n"


def test_a_subnet_that_overlaps_a_route_of_one_host_is_refused_there(hosts: Hosts) -> None:
    hosts[1].run("ip", "route", "add", "10.66.0.0/16", "via", "10.77.0.1")
    try:
        pool = docker.types.IPAMPool(subnet="10.66.5.0/24")
        hosts[0].client.networks.create(
            "narrow", driver="overlay", ipam=docker.types.IPAMConfig(pool_configs=[pool])
        )
        eventually("known", lambda: hosts[1].client.networks.list(names=["narrow"]))
        hosts[0].sleeper("fine", network="narrow")
        with pytest.raises(docker.errors.APIError, match=r"overlaps with route 10\.66\.0\.0/16 of this node"):
            hosts[1].sleeper("refused", network="narrow")
        assert json.loads(hosts[1].run("ip", "-j", "link", "show", "type", "vxlan") or "[]") == []
    finally:
        hosts[1].run("ip", "route", "del", "10.66.0.0/16")


@pytest.mark.slow
def test_a_host_that_comes_back_under_another_address_is_found(hosts: Hosts) -> None:
    made = serve_everywhere(hosts)
    host = hosts[2]
    host.kill(signal.SIGTERM)
    host.run("ip", "addr", "add", "10.77.0.99/24", "dev", "up0")
    before = host.options
    host.options = tuple("10.77.0.99" if each == host.underlay else each for each in before)
    try:
        host.start()
        agree(hosts, made, 40)
        assert any("10.77.0.99" in line for line in entries(hosts[0]))
    finally:
        host.kill(signal.SIGTERM)
        host.options = before
        host.start()
    agree(hosts, made, 40)


@pytest.mark.parametrize("kind", ["etcd"])
def test_a_smaller_underlay_makes_smaller_packets(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not servers.has_etcd():
        pytest.skip("needs etcd")
    with some_hosts(kind, tmp_path_factory.mktemp("small"), 2, mtu=1400) as hosts:
        eventually("all joined", lambda: all_joined(hosts))
        hosts[0].client.networks.create("wide", driver="overlay")
        eventually("known", lambda: hosts[1].client.networks.list(names=["wide"]))
        near, far = (host.sleeper(f"c{host.number}", network="wide") for host in hosts.hosts)
        assert "mtu 1350" in hosts[0].net(near, "ip", "link", "show", "eth0")
        eventually("the name", partial(knows, hosts[0], near, "c1"))
        target = hosts[1].address(far, "wide")
        told = hosts[0].net(near, "ping", "-c", "1", "-W", "5", "-M", "do", "-s", "1322", target)
        assert "1 received" in told
        hosts.clear()
