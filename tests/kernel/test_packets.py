"""Real packets through what render wants and apply makes: who reaches whom, and by which address he is seen."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.world import (
    endpoint,
    inside,
    network,
    opened,
    rendered,
    run,
    run_in,
    sandbox,
    settle_all,
    tcp_connect,
    tcp_listener,
    udp_socket,
)
from tests.patience import PATIENCE

from dari.kernel.host import Kernel
from dari.net.desired import Desired, EndpointWant, LinkWant, PublishWant, SubnetWant
from dari.net.state import KernelState

pytestmark = pytest.mark.kernel_ns

OUTSIDE = "192.0.2.2"
HOST_ADDRESS = "192.0.2.1"
SILENCE = 0.4


def publish(protocol: Any, host: str, host_port: int, target: str, port: int) -> PublishWant:
    return PublishWant(protocol, ip_address(host), host_port, ip_address(target), port)


class World:
    """A settled Desired, the sandboxes' namespaces, and a neighbour machine outside."""

    def __init__(self, kernel: Kernel, folder: Path) -> None:
        self.kernel = kernel
        self.folder = folder
        self._outside = folder / "outside"
        self._stack = ExitStack()

    def path(self, box: int | None) -> str:
        """None: the machine outside."""
        return str(self._outside) if box is None else str(self.folder / "netns" / f"box{box}")

    def attach_outside(self) -> None:
        self._outside.touch()
        run("unshare", f"--net={self._outside}", "true")
        run("ip", "link", "add", "wan", "type", "veth", "peer", "name", "lan", "netns", str(self._outside))
        run("ip", "addr", "add", f"{HOST_ADDRESS}/24", "dev", "wan")
        run("ip", "link", "set", "wan", "up")
        for command in (f"addr add {OUTSIDE}/24 dev lan", "link set lan up", "link set lo up"):
            run_in(self._outside, "ip", *command.split())
        # It knows the way to the sandboxes, so that only rules keep it out.
        run_in(self._outside, "ip", "route", "add", "10.0.0.0/8", "via", HOST_ADDRESS)

    def listen(self, box: int | None, port: int, address: str = "0.0.0.0") -> socket.socket:
        made = inside(self.path(box), lambda: tcp_listener(address, port))
        self._stack.callback(made.close)
        return made

    def udp(self, box: int | None, port: int, address: str = "0.0.0.0") -> socket.socket:
        made = inside(self.path(box), lambda: udp_socket(address, port))
        self._stack.callback(made.close)
        return made

    def close(self) -> None:
        self._stack.close()
        settle_all(self.kernel, KernelState())
        if self._outside.exists():
            run("umount", str(self._outside))


@contextmanager
def living(folder: Path, desired: Desired, *, has_outside: bool = False) -> Iterator[World]:
    with opened(folder) as kernel:
        world = World(kernel, folder)
        try:
            if has_outside:
                world.attach_outside()
            settle_all(kernel, rendered(kernel, desired))
            yield world
        finally:
            world.close()


def speaks(listener: socket.socket, client: socket.socket) -> str:
    """Bytes both ways; the address the server sees."""
    with client:
        server, (peer, *_) = listener.accept()
        with server:
            server.settimeout(5 * PATIENCE)
            client.sendall(b"question")
            assert server.recv(100) == b"question"
            server.sendall(b"answer")
            assert client.recv(100) == b"answer"
    return str(peer)


def reach(world: World, box: int | None, address: str, port: int, listener: socket.socket) -> str:
    return speaks(listener, inside(world.path(box), lambda: tcp_connect(address, port)))


def cannot(world: World, box: int | None, address: str, port: int) -> None:
    with pytest.raises(OSError):
        inside(world.path(box), lambda: tcp_connect(address, port, SILENCE)).close()


def two_networks(**attributes: Any) -> Desired:
    """Boxes 0 and 1 on network 0, box 2 on network 1."""
    return Desired(
        (network(0, **attributes), network(1)),
        (endpoint(0, 0), endpoint(0, 1), endpoint(1, 2)),
        (sandbox(0), sandbox(1), sandbox(2)),
    )


def test_neighbours_speak_and_networks_are_apart(tmp_path: Path) -> None:
    with living(tmp_path, two_networks()) as world:
        listener = world.listen(0, 80)
        assert reach(world, 1, "10.0.0.10", 80, listener) == "10.0.0.11"
        cannot(world, 2, "10.0.0.10", 80)
        # The host reaches every sandbox, and a sandbox the host.
        assert speaks(listener, tcp_connect("10.0.0.10", 80)) == "10.0.0.1"
        with tcp_listener("0.0.0.0", 7000) as host:
            assert reach(world, 0, "10.0.0.1", 7000, host) == "10.0.0.10"


def test_a_sandbox_on_two_networks_reaches_both(tmp_path: Path) -> None:
    desired = two_networks()
    second = endpoint(1, 1, interface="eth1", is_default=False)
    with living(tmp_path, replace(desired, endpoints=(*desired.endpoints, second))) as world:
        assert reach(world, 1, "10.0.0.10", 80, world.listen(0, 80)) == "10.0.0.11"
        assert reach(world, 1, "10.1.0.12", 80, world.listen(2, 80)) == "10.1.0.11"
        # Disconnected: the one is gone, the other stays.
        settle_all(world.kernel, rendered(world.kernel, desired))
        cannot(world, 1, "10.1.0.12", 80)
        assert reach(world, 1, "10.0.0.10", 81, world.listen(0, 81)) == "10.0.0.11"
        with tcp_listener("0.0.0.0", 7000) as host:
            assert reach(world, 1, "10.0.0.1", 7000, host) == "10.0.0.11"


def test_out_into_the_world_with_the_hosts_address(tmp_path: Path) -> None:
    with living(tmp_path, two_networks(), has_outside=True) as world:
        assert reach(world, 0, OUTSIDE, 80, world.listen(None, 80)) == HOST_ADDRESS
        # In: not without a published port.
        world.listen(0, 80)
        cannot(world, None, "10.0.0.10", 80)


def test_an_internal_network_stays_inside(tmp_path: Path) -> None:
    with living(tmp_path, two_networks(is_internal=True), has_outside=True) as world:
        listener = world.listen(0, 80)
        assert reach(world, 1, "10.0.0.10", 80, listener) == "10.0.0.11"
        assert speaks(listener, tcp_connect("10.0.0.10", 80)) == "10.0.0.1"
        world.listen(None, 80)
        cannot(world, 0, OUTSIDE, 80)
        # Not even one that gives itself a way out.
        run_in(world.path(0), "ip", "route", "add", "default", "via", "10.0.0.1")
        cannot(world, 0, OUTSIDE, 80)
        cannot(world, 0, "10.1.0.12", 80)
        cannot(world, None, "10.0.0.10", 80)
        cannot(world, 2, "10.0.0.10", 80)


def test_published_ports_do_not_open_an_internal_network(tmp_path: Path) -> None:
    desired = two_networks(is_internal=True)
    boxes = (
        sandbox(0, publishes=(publish("tcp", "0.0.0.0", 8080, "10.0.0.10", 80),)),
        sandbox(1),
        sandbox(2, publishes=(publish("tcp", "0.0.0.0", 8082, "10.1.0.12", 80),)),
    )
    with living(tmp_path, replace(desired, sandboxes=boxes), has_outside=True) as world:
        listener, other = world.listen(0, 80), world.listen(2, 80)
        cannot(world, None, HOST_ADDRESS, 8080)
        cannot(world, 1, "10.0.0.1", 8082)
        assert reach(world, None, HOST_ADDRESS, 8082, other) == OUTSIDE
        assert speaks(listener, tcp_connect("10.0.0.1", 8080)) == "10.0.0.1"


def test_without_icc_neighbours_are_apart(tmp_path: Path) -> None:
    with living(tmp_path, two_networks(is_icc=False), has_outside=True) as world:
        listener = world.listen(0, 80)
        cannot(world, 1, "10.0.0.10", 80)
        assert speaks(listener, tcp_connect("10.0.0.10", 80)) == "10.0.0.1"
        assert reach(world, 0, OUTSIDE, 80, world.listen(None, 80)) == HOST_ADDRESS


def test_without_icc_a_link_opens_one_way_to_one_port(tmp_path: Path) -> None:
    desired = two_networks(is_icc=False, is_default=True)
    link = LinkWant(IPv4Address("10.0.0.11"), IPv4Address("10.0.0.10"), "tcp", 80)
    linked = replace(
        desired, sandboxes=(sandbox(0), replace(sandbox(1), links=(link, link)), *desired.sandboxes[2:])
    )
    with living(tmp_path, linked) as world:
        listener, other, own = world.listen(0, 80), world.listen(0, 81), world.listen(1, 80)
        assert reach(world, 1, "10.0.0.10", 80, listener) == "10.0.0.11"
        cannot(world, 1, "10.0.0.10", 81)
        cannot(world, 0, "10.0.0.11", 80)
        # Not with the other's address from elsewhere.
        run_in(world.path(2), "ip", "addr", "add", "10.0.0.11/32", "dev", "lo")
        run_in(world.path(2), "ip", "route", "add", "10.0.0.10", "via", "10.1.0.1", "src", "10.0.0.11")
        cannot(world, 2, "10.0.0.10", 80)
        settle_all(world.kernel, rendered(world.kernel, desired))
        cannot(world, 1, "10.0.0.10", 80)
        assert other and own


def published(*ports: PublishWant) -> Desired:
    desired = two_networks()
    boxes = (sandbox(0, publishes=ports), *desired.sandboxes[1:])
    return replace(desired, sandboxes=boxes)


def test_a_published_port_from_everywhere(tmp_path: Path) -> None:
    desired = published(publish("tcp", "0.0.0.0", 8080, "10.0.0.10", 80))
    with living(tmp_path, desired, has_outside=True) as world:
        listener = world.listen(0, 80)
        # From outside the client's own address is seen.
        assert reach(world, None, HOST_ADDRESS, 8080, listener) == OUTSIDE
        assert speaks(listener, tcp_connect("127.0.0.1", 8080)) == "10.0.0.1"
        assert speaks(listener, tcp_connect(HOST_ADDRESS, 8080)) in ("10.0.0.1", HOST_ADDRESS)
        # From the same network, from another one, and from the publisher itself (hairpin).
        assert reach(world, 1, HOST_ADDRESS, 8080, listener) == "10.0.0.1"
        assert reach(world, 1, "10.0.0.1", 8080, listener) == "10.0.0.1"
        reach(world, 2, HOST_ADDRESS, 8080, listener)
        reach(world, 0, HOST_ADDRESS, 8080, listener)
        # No other port is open, and the sandbox's own is not from outside.
        cannot(world, None, HOST_ADDRESS, 8081)
        cannot(world, None, "10.0.0.10", 80)
        # Gone at once.
        settle_all(world.kernel, rendered(world.kernel, two_networks()))
        cannot(world, None, HOST_ADDRESS, 8080)
        with pytest.raises(ConnectionRefusedError):
            tcp_connect("127.0.0.1", 8080)


def test_a_port_published_on_one_address(tmp_path: Path) -> None:
    ports = (
        publish("tcp", "127.0.0.1", 8080, "10.0.0.10", 80),
        publish("tcp", HOST_ADDRESS, 8081, "10.0.0.10", 80),
    )
    with living(tmp_path, published(*ports), has_outside=True) as world:
        listener = world.listen(0, 80)
        speaks(listener, tcp_connect("127.0.0.1", 8080))
        cannot(world, None, HOST_ADDRESS, 8080)
        reach(world, None, HOST_ADDRESS, 8081, listener)
        with pytest.raises(ConnectionRefusedError):
            tcp_connect("127.0.0.1", 8081)


def test_the_hosts_loopback_stays_closed(tmp_path: Path) -> None:
    """route_localnet on the bridges must not lead a neighbour or a sandbox to 127.0.0.1 of the host."""
    desired = published(publish("udp", "127.0.0.1", 8080, "10.0.0.10", 80))
    with living(tmp_path, desired, has_outside=True) as world, udp_socket("127.0.0.1", 7000) as host:
        server = world.udp(0, 80)
        for box, device in ((None, "lan"), (1, "eth0"), (2, "eth0")):
            path = world.path(box)
            gateway = {None: HOST_ADDRESS, 1: "10.0.0.1", 2: "10.1.0.1"}[box]
            run_in(path, "sysctl", "-qw", f"net.ipv4.conf.{device}.route_localnet=1")
            for own in ("127.0.0.0/8", "127.0.0.1"):
                run_in(path, "ip", "route", "flush", "table", "local", own)
            run_in(path, "ip", "route", "add", "127.0.0.0/8", "via", gateway, "dev", device)
            run("sysctl", "-qw", "net.ipv4.conf.wan.route_localnet=1")
            for port in (7000, 8080):
                world.udp(box, 0).sendto(b"let me in", ("127.0.0.1", port))
        # The host itself is heard, so the silence below is the rules'.
        with udp_socket("127.0.0.1") as client:
            client.sendto(b"host", ("127.0.0.1", 7000))
            client.sendto(b"host", ("127.0.0.1", 8080))
            for each in (host, server):
                assert each.recv(100) == b"host"
                each.settimeout(SILENCE)
                with pytest.raises(TimeoutError):
                    each.recv(100)


def answer_udp(server: socket.socket, client: socket.socket, address: str, port: int) -> str:
    with client:
        client.sendto(b"question", (address, port))
        data, peer = server.recvfrom(100)
        assert data == b"question"
        server.sendto(b"answer", peer)
        answer, source = client.recvfrom(100)
        assert (answer, source) == (b"answer", (address, port))
    return str(peer[0])


def test_udp_is_published_too(tmp_path: Path) -> None:
    desired = published(publish("udp", "0.0.0.0", 5353, "10.0.0.10", 53))
    with living(tmp_path, desired, has_outside=True) as world:
        server = world.udp(0, 53)
        assert answer_udp(server, world.udp(None, 0), HOST_ADDRESS, 5353) == OUTSIDE
        assert answer_udp(server, udp_socket("127.0.0.1"), "127.0.0.1", 5353) == "10.0.0.1"
        assert answer_udp(server, world.udp(1, 0), HOST_ADDRESS, 5353) == "10.0.0.1"


def test_ports_from_1_to_a_thousand_are_elements_alone(tmp_path: Path) -> None:
    ports = tuple(publish("tcp", "0.0.0.0", 8000 + each, "10.0.0.10", 80) for each in range(500))
    with living(tmp_path, published(*ports), has_outside=True) as world:
        listener = world.listen(0, 80)
        reach(world, None, HOST_ADDRESS, 8499, listener)


def test_names_are_asked_at_port_53(tmp_path: Path) -> None:
    """127.0.0.11:53 is answered by whoever listens on the sandbox's other port; its own port 53 stays free."""
    desired = two_networks()
    boxes = (sandbox(0, dns_port=40001), sandbox(1, dns_port=40002), desired.sandboxes[2])
    with living(tmp_path, replace(desired, sandboxes=boxes)) as world:
        for box, port in ((0, 40001), (1, 40002)):
            server = world.udp(box, port, "127.0.0.11")
            assert answer_udp(server, world.udp(box, 0), "127.0.0.11", 53) == "127.0.0.1"
            # Asking from the sandbox's own port 53 socket.
            own = world.udp(box, 53)
            assert answer_udp(server, own, "127.0.0.11", 53)
            listener = world.listen(box, port, "127.0.0.11")
            reach(world, box, "127.0.0.11", 53, listener)


def with_ipv6(desired: Desired) -> Desired:
    """The same with fd00:<net>::/64 on every network."""
    networks = tuple(
        replace(
            each,
            subnets=(
                *each.subnets,
                SubnetWant(ip_network(f"fd00:{n}::/64"), ip_interface(f"fd00:{n}::1/64")),
            ),
        )
        for n, each in enumerate(desired.networks)
    )

    def end(each: EndpointWant) -> EndpointWant:
        net = each.network_id.removeprefix("net")
        last = int(str(each.addresses[0].ip).rpartition(".")[2])
        return replace(
            each,
            addresses=(*each.addresses, ip_interface(f"fd00:{net}::{last}/64")),
            gateways=(*each.gateways, ip_address(f"fd00:{net}::1")),
        )

    return replace(desired, networks=networks, endpoints=tuple(map(end, desired.endpoints)))


def test_ipv6(tmp_path: Path) -> None:
    desired = with_ipv6(published(publish("tcp", "::", 8080, "fd00:0::10", 80)))
    with living(tmp_path, desired) as world:
        listener = world.listen(0, 80, "::")
        assert reach(world, 1, "fd00:0::10", 80, listener) == "fd00::11"
        cannot(world, 2, "fd00:0::10", 80)
        # Through the host, by an address of its own.
        reach(world, 2, "fd00:1::1", 8080, listener)
        assert reach(world, 1, "fd00:0::1", 8080, listener) == "fd00::1"
        speaks(listener, tcp_connect("fd00:1::1", 8080))


def test_beside_a_forward_chain_that_drops(tmp_path: Path) -> None:
    """As dockerd leaves a host: policy drop in iptables' FORWARD, DOCKER-USER for others."""
    run("iptables", "-P", "FORWARD", "DROP")
    run("iptables", "-N", "DOCKER-USER")
    run("iptables", "-A", "DOCKER-USER", "-j", "RETURN")
    run("iptables", "-A", "FORWARD", "-j", "DOCKER-USER")
    desired = published(publish("tcp", "0.0.0.0", 8080, "10.0.0.10", 80))
    with living(tmp_path, desired, has_outside=True) as world:
        listener = world.listen(0, 80)
        assert reach(world, None, HOST_ADDRESS, 8080, listener) == OUTSIDE
        assert reach(world, 1, "10.0.0.10", 80, listener) == "10.0.0.11"
        assert reach(world, 0, OUTSIDE, 80, world.listen(None, 80)) == HOST_ADDRESS
        cannot(world, 2, "10.0.0.10", 80)
        cannot(world, None, "10.0.0.10", 80)
        # Others' forwarding is still dropped: only dari's packets carry the mark.
        assert "DROP" in run("iptables", "-S", "FORWARD")
    assert "ACCEPT" not in run("iptables", "-S", "DOCKER-USER")
