"""One encrypted network over two hosts that share an etcd: names, packets, keys, and what the tools say of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import tempfile
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.scenarios.cluster.conftest import Host, Hosts, all_joined, eventually, some_hosts
from tests.scenarios.cluster.test_across import explain, findings
from tests.scenarios.cluster.test_nodes import dari

from dari.kernel import syscalls

TEXT = "the plain text nobody on the wire may see"
PORT = 51829


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    # Longer than what an emulated processor is silent for.
    with some_hosts("etcd", tmp_path_factory.mktemp("encrypted"), 2, "--store-ttl", "30") as made:
        yield made


@pytest.fixture(scope="module")
def town(pair: Hosts) -> Iterator[tuple[Hosts, Any, Any]]:
    """`one` on the first host and `two`, a server, on the second, on one encrypted network; tests leave it whole."""
    eventually("all joined", lambda: all_joined(pair))
    pair[0].client.networks.create("secret", driver="overlay", attachable=True, options={"encrypted": ""})
    eventually("the network", lambda: pair[1].client.networks.list(names=["secret"]))
    one = pair[0].sleeper("one", network="secret")
    two = pair[1].serve("two", f"'{TEXT}'", network="secret")
    eventually("two is known", lambda: pair[0].resolve(one, "two"))
    yield pair, one, two
    pair.clear()
    for host in pair.hosts:
        eventually("the tunnel is gone", lambda host=host: "wireguard" not in _namespaces(host))  # type: ignore[misc]


def _namespaces(host: Host) -> list[str]:
    return os.listdir(f"{host.exec_root}/netns")


def fetch(host: Host, container: Any, name: str) -> str:
    return host.curl(container, f"http://{host.resolve(container, name)[0]}/")


def wg(host: Host, *words: str) -> str:
    """`wg`, or another program, in the host's tunnel."""
    return host.run("nsenter", f"--net={host.exec_root}/netns/wireguard", *words)


def peers(host: Host) -> dict[str, str]:
    """By public key, where the peer is."""
    lines = [line.split("\t") for line in wg(host, "wg", "show", "wg0", "dump").splitlines()[1:]]
    return {key: endpoint for key, _, endpoint, *_ in lines}


def key_of(host: Host) -> str:
    """As the node says it."""
    told = json.loads(dari(host, "node", "inspect", "self").stdout)[0]["WireGuard"]
    return str(told["PublicKey"])


@contextmanager
def tapped(hosts: Hosts) -> Iterator[list[bytes]]:
    """What passes the second host's cable meanwhile."""
    seen: list[bytes] = []
    is_open, is_over = threading.Event(), threading.Event()

    def listen() -> None:
        there = os.open(f"/proc/{hosts.switch.holder.pid}/ns/net", os.O_RDONLY)
        syscalls.setns(there)
        os.close(there)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as sniffer:
            sniffer.bind(("p1", 3))
            sniffer.settimeout(0.1)
            is_open.set()
            while True:
                try:
                    seen.append(sniffer.recv(65535))
                except TimeoutError:
                    continue
                except BlockingIOError:
                    return
                finally:
                    if is_over.is_set():
                        # What has passed is there; what passes later is nobody's.
                        sniffer.setblocking(False)

    thread = threading.Thread(target=listen)
    thread.start()
    is_open.wait()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()


def udp_ports(frame: bytes) -> set[int]:
    """Of an IPv4 packet; empty for what is none."""
    if frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_UDP:
        return set()
    start = 14 + (frame[14] & 0x0F) * 4
    return {int.from_bytes(frame[start + at : start + at + 2], "big") for at in (0, 2)}


def test_containers_meet_by_name_and_the_wire_sees_ciphers(town: tuple[Hosts, Any, Any]) -> None:
    hosts, one, _ = town
    with tapped(hosts) as seen:
        assert fetch(hosts[0], one, "two") == f"{TEXT}\n"
    assert any(PORT in udp_ports(each) for each in seen)
    assert not any(4789 in udp_ports(each) for each in seen)
    assert not any(TEXT.encode() in each for each in seen)
    assert hosts[1].client.networks.get("secret").attrs["Options"]["encrypted"] == ""
    # 1500 less WireGuard's 60 and VXLAN's 50.
    assert "mtu 1390" in hosts[0].net(one, "ip", "link", "show", "eth0")
    address = hosts[0].resolve(one, "two")[0]
    assert "1 received" in hosts[0].net(one, "ping", "-c1", "-W20", "-Mdo", "-s1362", address)
    assert "1 received" in hosts[0].net(one, "ping", "-c1", "-W20", "-s5000", address)
    # Beside it, that the tap would see it: a network in the clear.
    hosts[0].client.networks.create("open", driver="overlay", attachable=True)
    eventually("the network", lambda: hosts[1].client.networks.list(names=["open"]))
    near = hosts[0].sleeper("near", network="open")
    hosts[1].serve("far", f"'{TEXT}'", network="open")
    eventually("far is known", lambda: hosts[0].resolve(near, "far"))
    with tapped(hosts) as seen:
        assert fetch(hosts[0], near, "far") == f"{TEXT}\n"
    assert any(TEXT.encode() in each and 4789 in udp_ports(each) for each in seen)


def test_what_is_told_of_it(town: tuple[Hosts, Any, Any]) -> None:
    hosts, _, _ = town
    for host in hosts.hosts:
        told = json.loads(dari(host, "node", "inspect", "self").stdout)[0]["WireGuard"]
        assert (told["Port"], told["Problem"]) == (PORT, "")
        interface = wg(host, "wg", "show", "wg0", "dump").splitlines()[0].split("\t")
        assert told["PublicKey"] == interface[1]
        assert f"{told['TunnelAddress']}/10" in wg(host, "ip", "addr", "show", "wg0")
        # The private key is in one file, and nowhere else.
        path = host.folder / "data" / "wireguard.key"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        private = path.read_text().strip()
        assert len(b64decode(private)) == 32 and private == interface[0]
        assert private not in host.log()
        assert findings(host) == set()
    told = explain(hosts[0], "one", "two:80")
    assert (told["IsReachable"], told["Conclusion"]) == (True, "reachable")
    # There, and back where the other node answers in time.
    there, *back = [each for each in told["Found"]["Hops"] if each["Stage"] == "encrypt"]
    assert f"{hosts[1].underlay}:{PORT}, whose key is {key_of(hosts[1])}" in there["Text"]
    assert all("host1" in each["Where"] and key_of(hosts[0]) in each["Text"] for each in back)


def test_a_peer_that_is_gone_is_named_and_comes_back(town: tuple[Hosts, Any, Any]) -> None:
    hosts, one, _ = town
    far = key_of(hosts[1])
    wg(hosts[0], "wg", "set", "wg0", "peer", far, "remove")
    told = explain(hosts[0], "one", "two:80")
    if told["Conclusion"] != "reachable":
        # Else it was back before it was looked for.
        assert told["Conclusion"] == "drift" and "wg0 has no peer for" in told["Text"]
    eventually("it is back", lambda: far in peers(hosts[0]))
    wg(hosts[0], "wg", "set", "wg0", "peer", far, "remove")
    # Where nobody waits for it.
    dari(hosts[0], "doctor", "--fix")
    assert far in peers(hosts[0])
    wg(hosts[0], "ip", "link", "del", "wg0")
    eventually("the link is back", lambda: "wg0" in wg(hosts[0], "ip", "link") and far in peers(hosts[0]))
    eventually("one reaches two", lambda: fetch(hosts[0], one, "two"))


def test_a_dead_nodes_peer_goes_and_the_key_it_made_anew_is_followed(town: tuple[Hosts, Any, Any]) -> None:
    hosts, one, two = town
    before = json.loads(dari(hosts[1], "node", "inspect", "self").stdout)[0]["WireGuard"]
    assert set(peers(hosts[0])) == {before["PublicKey"]}
    hosts[1].kill(signal.SIGKILL)
    try:
        # Its session has run out.
        eventually("nothing is sent there any more", lambda: not peers(hosts[0]))
        (hosts[1].folder / "data" / "wireguard.key").unlink()
    finally:
        hosts[1].start()
    eventually("it has told a new key", lambda: peers(hosts[0]))
    after = json.loads(dari(hosts[1], "node", "inspect", "self").stdout)[0]["WireGuard"]
    assert set(peers(hosts[0])) == {after["PublicKey"]} and after["PublicKey"] != before["PublicKey"]
    assert after["TunnelAddress"] == before["TunnelAddress"]
    eventually("two is known", lambda: hosts[0].resolve(one, "two"))
    eventually("one reaches two", lambda: fetch(hosts[0], one, "two"))
    # It went on meanwhile.
    assert hosts[1].pid(two)


def test_a_key_is_changed_while_they_talk(town: tuple[Hosts, Any, Any]) -> None:
    hosts, one, _ = town
    before = key_of(hosts[1])
    address = hosts[0].resolve(one, "two")[0]
    assert "1 received" in hosts[0].net(one, "ping", "-c1", "-W20", address)
    with talking(hosts[0], one, address) as said:
        eventually("they talk", lambda: said() > 3)
        # Of the other node, by this one.
        done = dari(hosts[0], "node", "rotate-key", "-q", "host1")
        assert done.returncode == 0, done.stderr
        print(done.stderr)
        after = done.stdout.strip()
        heard = said()
        eventually("they go on talking", lambda: said() > heard + 3)
    assert after == key_of(hosts[1]) != before
    assert set(peers(hosts[0])) == {after}
    assert wg(hosts[1], "wg", "show", "wg0", "public-key").strip() == after
    assert os.listdir(hosts[1].folder / "data").count("wireguard.key.next") == 0
    # And its own.
    mine = dari(hosts[0], "node", "rotate-key", "-q").stdout.strip()
    assert mine == key_of(hosts[0]) and set(peers(hosts[1])) == {mine}
    eventually("one reaches two", lambda: fetch(hosts[0], one, "two"))
    for host in hosts.hosts:
        assert findings(host) == set()


@contextmanager
def talking(host: Host, container: Any, address: str) -> Iterator[Callable[[], int]]:
    """A ping that goes on meanwhile, every 0.2 s; how many answers it has had. What was lost is printed."""
    with tempfile.TemporaryFile("w+") as out:
        command = ["nsenter", "-t", str(host.pid(container)), "-n", "ping", "-i", "0.2", address]
        process = subprocess.Popen(command, stdout=out)

        def said() -> int:
            return os.pread(out.fileno(), 1 << 20, 0).count(b"bytes from")

        try:
            yield said
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
            print(os.pread(out.fileno(), 1 << 20, 0).decode()[-300:])


def _foreign(told: dict[str, Any]) -> dict[str, Any] | None:
    return told if told["Conclusion"] == "foreign" and not told["IsReachable"] else None


def test_what_stops_it_on_the_other_host_is_named(town: tuple[Hosts, Any, Any]) -> None:
    hosts, _, _ = town
    # Until the other node, which is slow here, answers in time.
    eventually("all is as asked", lambda: json.loads(dari(hosts[0], "verify", "--json").stdout)["IsAsAsked"])
    for words in (
        ("add", "table", "inet", "fw"),
        ("add", "chain", "inet", "fw", "in", "{ type filter hook input priority 0; }"),
        ("add", "rule", "inet", "fw", "in", "udp", "dport", str(PORT), "drop"),
    ):
        hosts[1].run("nft", *words)
    try:
        told = eventually("it is seen there", lambda: _foreign(explain(hosts[0], "one", "two:80")))
        assert f"node host1, input: `udp dport {PORT} drop`" in told["Text"]
    finally:
        hosts[1].run("nft", "delete", "table", "inet", "fw")
    # That of overlays in the clear is not asked for.
    for words in (
        ("add", "table", "inet", "fw"),
        ("add", "chain", "inet", "fw", "in", "{ type filter hook input priority 0; }"),
        ("add", "rule", "inet", "fw", "in", "udp", "dport", "4789", "drop"),
    ):
        hosts[1].run("nft", *words)
    try:
        assert explain(hosts[0], "one", "two:80")["IsReachable"]
    finally:
        hosts[1].run("nft", "delete", "table", "inet", "fw")
    wg(hosts[1], "ip", "link", "set", "wg0", "down")
    told = explain(hosts[0], "one", "two:80")
    if told["Conclusion"] != "reachable":
        # Else it was back before it was looked for, or the other node did not tell in time.
        assert told["Conclusion"] == "unexplained" or "wg0 is down" in told["Text"]
    eventually("one reaches two", lambda: explain(hosts[0], "one", "two:80")["IsReachable"])
