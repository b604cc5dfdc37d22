"""Real packets through the rendered firewall: who reaches whom, and with which source address."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from tests.kernel.world import endpoint, inside, network, opened, rendered, run, sandbox, settle_all
from tests.patience import PATIENCE

from dari.kernel.host import Kernel
from dari.net.desired import Desired, PublishWant, SandboxWant, SubnetWant
from dari.net.firewall import HOST_TABLE_TEXT, MARK
from dari.net.state import KernelState

pytestmark = pytest.mark.kernel_ns

HOST_ADDRESS, OUTSIDE = "198.51.100.1", "198.51.100.2"
BLOCKED = ""
# Long enough for a packet that passes, short enough to wait for one that does not.
PASSES, DROPPED = 5.0 * PATIENCE, 0.7

A, B, C, D, E, F = "10.1.0.10", "10.1.0.11", "10.2.0.12", "10.3.0.13", "10.4.0.14", "10.4.0.15"


def publish(protocol: str, host_ip: str, host_port: int, target: str) -> PublishWant:
    assert protocol in ("tcp", "udp")
    return PublishWant(protocol, ip_address(host_ip), host_port, ip_address(target), 80)  # type: ignore[arg-type]


def desired() -> Desired:
    """a, b on net1; c on net2; d on the internal net3; e, f on net4, whose containers must not talk."""
    published = tuple(
        publish(protocol, host, port, A)
        for protocol in ("tcp", "udp")
        for host, port in (("0.0.0.0", 8080), ("127.0.0.1", 8081), (HOST_ADDRESS, 8082))
    )
    return Desired(
        (network(1), network(2), network(3, is_internal=True), network(4, is_icc=False)),
        (endpoint(1, 0), endpoint(1, 1), endpoint(2, 2), endpoint(3, 3), endpoint(4, 4), endpoint(4, 5)),
        (
            sandbox(0, published),
            sandbox(1),
            sandbox(2),
            sandbox(3),
            sandbox(4, (publish("tcp", "0.0.0.0", 8084, E),)),
            sandbox(5),
            SandboxWant("outside", "outside"),
        ),
    )


CHECKS = [
    # On one network, and across networks.
    ("b", "tcp", A, 80, "a 10.1.0.11"),
    ("b", "udp", A, 80, "a 10.1.0.11"),
    ("c", "tcp", A, 80, BLOCKED),
    ("c", "udp", A, 80, BLOCKED),
    ("d", "tcp", A, 80, BLOCKED),
    ("a", "tcp", D, 80, BLOCKED),
    ("host", "tcp", D, 80, "d 10.3.0.1"),
    # Without communication between containers: each may leave, none may meet.
    ("e", "tcp", F, 80, BLOCKED),
    ("e", "tcp", OUTSIDE, 80, f"outside {HOST_ADDRESS}"),
    ("host", "tcp", E, 80, "e 10.4.0.1"),
    ("outside", "tcp", HOST_ADDRESS, 8084, f"e {OUTSIDE}"),
    # The world: out with the host's address, in through published ports alone.
    ("a", "tcp", OUTSIDE, 80, f"outside {HOST_ADDRESS}"),
    ("a", "udp", OUTSIDE, 80, f"outside {HOST_ADDRESS}"),
    ("d", "tcp", OUTSIDE, 80, BLOCKED),
    ("outside", "tcp", A, 80, BLOCKED),
    ("outside", "udp", D, 80, BLOCKED),
    # Published on any address: from the world, the host, the same network, the container itself, another network.
    *(
        check
        for protocol in ("tcp", "udp")
        for check in (
            ("outside", protocol, HOST_ADDRESS, 8080, f"a {OUTSIDE}"),
            ("host", protocol, "127.0.0.1", 8080, "a 10.1.0.1"),
            ("host", protocol, HOST_ADDRESS, 8080, f"a {HOST_ADDRESS}"),
            ("b", protocol, HOST_ADDRESS, 8080, "a 10.1.0.1"),
            ("b", protocol, "10.1.0.1", 8080, "a 10.1.0.1"),
            ("a", protocol, HOST_ADDRESS, 8080, "a 10.1.0.1"),
            ("c", protocol, HOST_ADDRESS, 8080, "a 10.1.0.1"),
            # On loopback only, and on one address only.
            ("host", protocol, "127.0.0.1", 8081, "a 10.1.0.1"),
            ("outside", protocol, HOST_ADDRESS, 8081, BLOCKED),
            ("outside", protocol, "127.0.0.1", 8081, BLOCKED),
            ("outside", protocol, HOST_ADDRESS, 8082, f"a {OUTSIDE}"),
            ("host", protocol, "127.0.0.1", 8082, BLOCKED),
        )
    ),
    ("d", "tcp", HOST_ADDRESS, 8080, BLOCKED),
    # The host's own ports: by the gateway's address yes, loopback never.
    ("a", "tcp", "10.1.0.1", 9000, f"host {A}"),
    ("b", "tcp", "127.0.0.1", 9000, BLOCKED),
]


@contextmanager
def scene(folder: Path, wanted: Desired | None = None) -> Iterator[tuple[Kernel, dict[str, str]]]:
    """The desired world in the kernel, an outside behind a link, and everybody answering on port 80."""
    with opened(folder) as kernel:
        settle_all(kernel, rendered(kernel, wanted or desired()))
        paths = {name: kernel.netns_path(f"box{number}") for number, name in enumerate("abcdef")}
        paths["outside"] = kernel.netns_path("outside")
        run("ip", "link", "add", "world", "type", "veth", "peer", "name", "eth0")
        run("ip", "link", "set", "eth0", "netns", paths["outside"])
        run("ip", "address", "add", f"{HOST_ADDRESS}/24", "dev", "world")
        run("ip", "link", "set", "world", "up")
        inside(paths["outside"], _outside)
        # b tries to reach the host's loopback services over its gateway.
        inside(paths["b"], _loopback_over_the_gateway)
        with serving(paths):
            yield kernel, paths
        settle_all(kernel, KernelState())


def _outside() -> None:
    run("ip", "address", "add", f"{OUTSIDE}/24", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    run("ip", "route", "add", "10.0.0.0/8", "via", HOST_ADDRESS)
    _loopback_over(HOST_ADDRESS, "eth0", OUTSIDE)


def _loopback_over_the_gateway() -> None:
    _loopback_over("10.1.0.1", "eth0", B)


def _loopback_over(gateway: str, link: str, own: str) -> None:
    """Send 127/8 out to the gateway instead of keeping it."""
    run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    run("ip", "rule", "add", "priority", "1", "to", "127.0.0.0/8", "lookup", "100")
    run("ip", "rule", "delete", "priority", "0")
    run("ip", "rule", "add", "priority", "2", "lookup", "local")
    run("ip", "route", "add", "127.0.0.0/8", "via", gateway, "dev", link, "src", own, "table", "100")


@contextmanager
def serving(paths: dict[str, str], family: int = socket.AF_INET) -> Iterator[None]:
    """Everybody answers TCP and UDP with his name and the address he sees."""
    selector = selectors.DefaultSelector()
    ends = [(name, 80, lambda work, path=path: inside(path, work)) for name, path in paths.items()]
    ends.append(("host", 9000, lambda work: work()))
    for name, port, where in ends:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            listener = where(lambda kind=kind, port=port: _listener(family, kind, port))
            selector.register(listener, selectors.EVENT_READ, (name, kind))
    waker, other = socket.socketpair()
    selector.register(waker, selectors.EVENT_READ, None)
    thread = threading.Thread(target=_serve, args=(selector,))
    thread.start()
    try:
        yield
    finally:
        other.close()
        thread.join()
        for key in list(selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        selector.close()


def _listener(family: int, kind: int, port: int) -> socket.socket:
    made = socket.socket(family, kind)
    made.bind(("", port))
    if kind == socket.SOCK_STREAM:
        made.listen(64)
    return made


def _serve(selector: selectors.BaseSelector) -> None:
    while True:
        for key, _ in selector.select():
            if key.data is None:
                return
            name, kind = key.data
            listener: socket.socket = key.fileobj  # type: ignore[assignment]
            if kind == socket.SOCK_STREAM:
                client, peer = listener.accept()
                with client:
                    client.sendall(f"{name} {peer[0]}".encode())
            else:
                _, peer = listener.recvfrom(64)
                listener.sendto(f"{name} {peer[0]}".encode(), peer)


def ask(protocol: str, address: str, port: int, timeout: float) -> str:
    """What the far end says; BLOCKED where nothing comes back in time or the host refuses."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as client:
        client.settimeout(timeout)
        try:
            client.connect((address, port))
            if protocol == "udp":
                client.send(b"?")
            return client.recv(64).decode()
        except OSError:
            return BLOCKED


def test_who_reaches_whom(tmp_path):
    with scene(tmp_path) as (_, paths):
        # Seven sandboxes and four networks later the rules are still the constant ones.
        assert run("nft", "-s", "-t", "list", "table", "inet", "dari") == HOST_TABLE_TEXT

        def check(row: tuple[str, str, str, int, str]) -> str | None:
            where, protocol, address, port, expected = row

            def work() -> str:
                return ask(protocol, address, port, PASSES if expected else DROPPED)

            # A thread of the pool starts in the namespace of the one that makes it: the host's of this scene.
            said = work() if where == "host" else inside(paths[where], work)
            if said == expected:
                return None
            return (
                f"{where} {protocol} {address}:{port}: {said or 'nothing'}, expected {expected or 'nothing'}"
            )

        with ThreadPoolExecutor(12) as pool:
            wrong = [line for line in pool.map(check, CHECKS) if line]
        assert not wrong, "\n".join(wrong)


def test_the_guard_of_loopback_is_what_keeps_it(tmp_path):
    """Without the raw rule the very same packet gets through: the check above can fail."""
    with scene(tmp_path) as (_, paths):
        assert inside(paths["b"], lambda: ask("tcp", "127.0.0.1", 9000, DROPPED)) == BLOCKED
        run("nft", "flush", "chain", "inet", "dari", "raw")
        assert inside(paths["b"], lambda: ask("tcp", "127.0.0.1", 9000, PASSES)).startswith("host")


def test_accepted_packets_pass_a_dropping_forward_chain_through_docker_user(tmp_path):
    """dockerd's FORWARD: policy drop, DOCKER-USER first; iptables still understands the chain."""
    run("iptables", "-N", "DOCKER-USER")
    run("iptables", "-A", "FORWARD", "-j", "DOCKER-USER")
    run("iptables", "-P", "FORWARD", "DROP")
    with scene(tmp_path) as (kernel, paths):
        assert kernel.facts().has_docker_user_chain
        assert "--mark 0x8000000/0x8000000" in run("iptables", "-S", "DOCKER-USER")
        assert MARK == 0x08000000
        assert inside(paths["a"], lambda: ask("tcp", OUTSIDE, 80, PASSES)) == f"outside {HOST_ADDRESS}"
        assert inside(paths["outside"], lambda: ask("tcp", HOST_ADDRESS, 8080, PASSES)) == f"a {OUTSIDE}"
        assert inside(paths["c"], lambda: ask("tcp", A, 80, DROPPED)) == BLOCKED
    # Wanting nothing takes the rule out again and leaves the chain to its owner.
    assert run("iptables", "-S", "DOCKER-USER").splitlines() == ["-N DOCKER-USER"]


def test_names_are_answered_from_port_53(tmp_path):
    with opened(tmp_path) as kernel:
        settle_all(
            kernel, rendered(kernel, Desired((network(1),), (endpoint(1, 0),), (sandbox(0, (), 41000),)))
        )

        def query() -> tuple[list[str], list[tuple[str, int]]]:
            with (
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
                socket.create_server(("127.0.0.11", 41000)) as listener,
            ):
                server.bind(("127.0.0.11", 41000))
                for each in (server, client, listener):
                    each.settimeout(PASSES)
                client.sendto(b"?", ("127.0.0.11", 53))
                text, peer = server.recvfrom(16)
                server.sendto(b"udp", peer)
                answer, source = client.recvfrom(16)
                with socket.create_connection(("127.0.0.11", 53), PASSES) as stream:
                    accepted, _ = listener.accept()
                    with accepted:
                        accepted.sendall(b"tcp")
                    return [text.decode(), answer.decode(), stream.recv(16).decode()], [
                        source,
                        stream.getpeername(),
                    ]

        said, sources = inside(kernel.netns_path("box0"), query)
        assert said == ["?", "udp", "tcp"]
        assert sources == [("127.0.0.11", 53), ("127.0.0.11", 53)]
        settle_all(kernel, KernelState())


def test_ipv6_is_isolated_masqueraded_and_published(tmp_path):
    networks = tuple(
        replace(
            network(number),
            subnets=(SubnetWant(ip_network(f"fd00:{number}::/64"), ip_interface(f"fd00:{number}::1/64")),),
        )
        for number in (1, 2)
    )
    endpoints = tuple(
        replace(
            endpoint(net, box),
            addresses=(ip_interface(f"fd00:{net}::{box + 10}/64"),),
            gateways=(ip_address(f"fd00:{net}::1"),),
        )
        for net, box in ((1, 0), (1, 1), (2, 2))
    )
    published = PublishWant("tcp", ip_address("::"), 8080, ip_address("fd00:1::10"), 80)
    boxes = (sandbox(0, (published,)), sandbox(1), sandbox(2), SandboxWant("outside", "outside"))
    with opened(tmp_path) as kernel:
        settle_all(kernel, rendered(kernel, Desired(networks, endpoints, boxes)))
        names = ("box0", "box1", "box2", "outside")
        paths = {name: kernel.netns_path(name) for name in names}
        run("ip", "link", "add", "world", "type", "veth", "peer", "name", "eth0")
        run("ip", "link", "set", "eth0", "netns", paths["outside"])
        run("ip", "address", "add", "2001:db8::1/64", "dev", "world", "nodad")
        run("ip", "link", "set", "world", "up")
        inside(paths["outside"], _outside6)
        with serving(paths, socket.AF_INET6):

            def said(where: str, address: str, port: int, timeout: float) -> str:
                return inside(paths[where], lambda: ask("tcp", address, port, timeout))

            assert said("box1", "fd00:1::10", 80, PASSES) == "box0 fd00:1::11"
            assert said("box2", "fd00:1::10", 80, DROPPED) == BLOCKED
            assert said("outside", "fd00:1::10", 80, DROPPED) == BLOCKED
            assert said("box0", "2001:db8::2", 80, PASSES) == "outside 2001:db8::1"
            assert said("outside", "2001:db8::1", 8080, PASSES) == "box0 2001:db8::2"
            assert said("box1", "2001:db8::1", 8080, PASSES) == "box0 fd00:1::1"
        settle_all(kernel, KernelState())


def _outside6() -> None:
    run("ip", "address", "add", "2001:db8::2/64", "dev", "eth0", "nodad")
    run("ip", "link", "set", "eth0", "up")
    run("ip", "route", "add", "fd00::/16", "via", "2001:db8::1")
