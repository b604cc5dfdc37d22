"""Encrypted overlays with real packets: what leaves a host, what is healed, and that nothing leaves in the clear."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import TypeVar

import pytest
from tests.kernel.world import inside, link_names, run, settle_all
from tests.patience import PATIENCE

from dari.kernel import syscalls
from dari.kernel.errors import KernelError
from dari.kernel.host import Kernel
from dari.net import tunnel, x25519
from dari.net.desired import (
    Desired,
    EndpointWant,
    NetworkWant,
    OverlayWant,
    PeerWant,
    SandboxWant,
    SubnetWant,
    TunnelPeerWant,
    TunnelWant,
)
from dari.net.plan import plan
from dari.net.render import render
from dari.net.scope import Scope
from dari.net.state import KernelState, WireGuardPeer

pytestmark = pytest.mark.kernel_ns

T = TypeVar("T")
MARKER = b"the plain text nobody on the wire may see"
PORT, DATA_PORT, CLEAR_VNI, SECRET_VNI = 51829, 4789, 5000, 5001


def key(number: int, salt: int = 0) -> tuple[str, bytes]:
    private = bytes([number + 1, salt + 1] * 16)
    return b64encode(x25519.public_key(private)).decode(), private


def mac(net: int, host: int) -> str:
    return f"02:42:0a:{net:02x}:00:{host + 10:02x}"


class Host:
    """A host in a network namespace of its own with an interface on the test's bridge: its kernel room, one sandbox."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.address = ip_address(f"192.0.2.{number + 1}")
        self.salt = 0
        self._worker = ThreadPoolExecutor(1)
        own = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        self._test = os.open(own, os.O_RDONLY)
        self.netns_dir = folder / f"netns{number}"
        self.do(self._begin)

    def do(self, work: Callable[[], T]) -> T:
        """In the host's namespace."""
        return self._worker.submit(work).result()

    def _begin(self) -> None:
        syscalls.setns(self._test)
        syscalls.unshare(syscalls.CLONE_NEWNET)
        name = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        here = os.open(name, os.O_RDONLY)
        try:
            syscalls.setns(self._test)
            pid = f"/proc/{os.getpid()}/fd/{here}"
            port = f"p{self.number}"
            run("ip", "link", "add", port, "master", "wire", "type", "veth", "peer", "up0")
            run("ip", "link", "set", port, "addrgenmode", "none")
            run("ip", "link", "set", port, "up")
            run("ip", "link", "set", "up0", "netns", pid)
            syscalls.setns(here)
        finally:
            os.close(here)
        run("ip", "link", "set", "lo", "up")
        run("sysctl", "-qw", "net.ipv6.conf.up0.disable_ipv6=1")
        run("ip", "addr", "add", f"{self.address}/24", "dev", "up0")
        run("ip", "link", "set", "up0", "up")
        # The trap: whatever has no way of its own goes out here.
        run("ip", "route", "add", "default", "via", "192.0.2.254", "dev", "up0", "onlink")
        self.kernel = Kernel(str(self.netns_dir))
        self.hold()

    def hold(self) -> None:
        self.kernel.hold_key(*key(self.number, self.salt))

    def close(self) -> None:
        self.do(lambda: (settle_all(self.kernel, KernelState()), self.kernel.close()))
        self._worker.shutdown()
        os.close(self._test)

    def run(self, *command: str) -> str:
        return self.do(lambda: run(*command))

    def in_tunnel(self, *command: str) -> str:
        """A command in the namespace of the encrypted tunnel."""
        return inside(str(self.netns_dir / tunnel.NETNS), lambda: run(*command))

    def box(self, work: Callable[[], T]) -> T:
        """In the sandbox."""
        return inside(str(self.netns_dir / f"box{self.number}"), work)

    def tunnel_address(self) -> IPv4Address:
        return IPv4Address(f"100.64.0.{self.number + 1}")

    def wanted(self, hosts: list[Host], *nets: int, strangers: frozenset[int] = frozenset()) -> KernelState:
        """Network 1 is in the clear, network 2 is encrypted. Of `strangers` no key is known."""
        others = [each for each in hosts if each is not self]
        desired = Desired(
            tuple(self._network(net, others, strangers) for net in nets),
            tuple(self._endpoint(net, order) for order, net in enumerate(nets)),
            (SandboxWant(f"box{self.number}", f"box{self.number}"),),
        )
        return render(desired, self.do(self.kernel.facts))

    def _network(self, net: int, others: list[Host], strangers: frozenset[int]) -> NetworkWant:
        is_encrypted = net == 2
        known = [each for each in others if not is_encrypted or each.number not in strangers]
        peers = tuple(
            PeerWant(
                mac(net, each.number),
                (ip_address(f"10.{net}.0.{each.number + 10}"),),
                each.tunnel_address() if is_encrypted else each.address,
            )
            for each in others
        )
        way = TunnelWant(
            key(self.number, self.salt)[0],
            self.tunnel_address(),
            PORT,
            1440,
            tuple(
                TunnelPeerWant(key(each.number, each.salt)[0], each.address, PORT, each.tunnel_address())
                for each in known
            ),
        )
        local = self.tunnel_address() if is_encrypted else self.address
        return NetworkWant(
            id=f"net{net}",
            name=f"wide{net}",
            driver="overlay",
            bridge_name=f"br{net}",
            altname=f"dari-net-{net}",
            subnets=(SubnetWant(ip_network(f"10.{net}.0.0/24"), ip_interface(f"10.{net}.0.1/24")),),
            mtu=1390 if is_encrypted else 1450,
            overlay=OverlayWant(
                SECRET_VNI if is_encrypted else CLEAR_VNI,
                local,
                DATA_PORT,
                peers,
                is_encrypted=is_encrypted,
                tunnel=way if is_encrypted else None,
            ),
        )

    def _endpoint(self, net: int, order: int) -> EndpointWant:
        return EndpointWant(
            id=f"end{net}-{self.number}",
            network_id=f"net{net}",
            sandbox_id=f"box{self.number}",
            host_interface=f"veth{net}",
            interface=f"eth{order}",
            mac=mac(net, self.number),
            addresses=(ip_interface(f"10.{net}.0.{self.number + 10}/24"),),
            altname=f"dari-ep-{net}",
        )

    def links(self) -> set[str]:
        return self.do(link_names)

    def settle(self, wanted: KernelState) -> int:
        return self.do(lambda: settle_all(self.kernel, wanted))

    def found(self) -> KernelState:
        return self.do(lambda: self.kernel.read(Scope.everything()))


@dataclass
class Wire:
    """Every frame that passes between the hosts, heard in order by a thread of its own. `mouth` sends others there."""

    mouth: socket.socket
    heard: list[bytes] = field(default_factory=list)

    @property
    def frames(self) -> list[bytes]:
        """All that passed up to now."""
        mark = b"\xff" * 6 + bytes(6) + _OWN + os.urandom(50)
        self.mouth.send(mark)
        deadline = time.monotonic() + 10 * PATIENCE
        while mark not in self.heard:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return [each for each in self.heard if each[12:14] != _OWN]

    def clear(self) -> None:
        assert self.frames is not None
        self.heard.clear()

    def leaks(self) -> list[bytes]:
        """What is neither ARP nor WireGuard's."""
        return [each for each in self.frames if not _is_arp(each) and _ports(each) != (PORT, PORT)]


# An Ethernet type for local experiments (IEEE 802).
_OWN = b"\x88\xb5"


def _is_arp(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\x06"


def _ports(frame: bytes) -> tuple[int, int]:
    if frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_UDP:
        return (0, 0)
    start = 14 + (frame[14] & 0x0F) * 4
    source, destination = struct.unpack_from("!HH", frame, start)
    return (source, destination)


@contextmanager
def wire(folder: Path, count: int = 2) -> Iterator[tuple[list[Host], Wire]]:
    run("ip", "link", "add", "wire", "type", "bridge")
    run("ip", "link", "set", "wire", "addrgenmode", "none")
    run("ip", "link", "set", "wire", "up")
    with ExitStack() as stack:
        sniffer = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
        sniffer.bind(("wire", 3))
        sniffer.settimeout(0.1)
        # A bridge sees what passes through it while it listens to everything.
        run("ip", "link", "set", "wire", "promisc", "on")
        mouth = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
        mouth.bind(("wire", 0))
        seen = Wire(mouth)
        ended = threading.Event()

        def listen() -> None:
            while not ended.is_set():
                try:
                    seen.heard.append(sniffer.recv(65535))
                except TimeoutError:
                    continue

        thread = threading.Thread(target=listen)
        thread.start()
        stack.callback(thread.join)
        stack.callback(ended.set)
        hosts = []
        for number in range(count):
            made = Host(folder, number)
            stack.callback(made.close)
            hosts.append(made)
        seen.clear()
        yield hosts, seen


def connect(hosts: list[Host], *nets: int) -> None:
    for each in hosts:
        each.settle(each.wanted(hosts, *nets))


def say(sender: Host, receiver: Host, net: int, seconds: float = 5.0) -> bool:
    """Whether the receiver's sandbox hears the marker, said again and again for so long."""
    address = (f"10.{net}.0.{receiver.number + 10}", 5000)
    ears = receiver.box(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    mouth = sender.box(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with ears, mouth:
        ears.bind(("", 5000))
        ears.settimeout(0.2)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                mouth.sendto(MARKER, address)
                if ears.recv(2000) == MARKER:
                    return True
            except OSError:
                time.sleep(0.05)
    return False


def heard(sender: Host, receiver: Host, net: int = 2) -> bool:
    return say(sender, receiver, net, 5.0 * PATIENCE)


def test_the_wire_sees_nothing_but_wireguard(tmp_path: Path) -> None:
    with wire(tmp_path) as (hosts, seen):
        connect(hosts, 1, 2)
        for each in hosts:
            wanted = each.wanted(hosts, 1, 2)
            left = plan(
                wanted, each.do(lambda each=each, wanted=wanted: each.kernel.read(Scope.everything(wanted)))
            )  # type: ignore[misc]
            assert left.is_empty, str(left)
        # That the wire would see it: the network in the clear.
        assert heard(hosts[0], hosts[1], 1)
        assert any(MARKER in each for each in seen.frames)
        assert any(_ports(each)[1] == DATA_PORT for each in seen.frames)
        for each in hosts:
            each.settle(each.wanted(hosts, 2))
        seen.clear()
        assert heard(hosts[0], hosts[1]) and heard(hosts[1], hosts[0])
        assert seen.frames and not seen.leaks()
        assert not any(MARKER in each for each in seen.frames)
        # The largest packet of the network goes through whole: the MTUs leave room for both tunnels.
        told = hosts[0].box(lambda: run("ping", "-c1", "-W20", "-Mdo", "-s1362", "10.2.0.11"))
        assert "1 received" in told
        sizes = [len(each) for each in seen.frames if not _is_arp(each)]
        assert max(sizes) <= 1514 and not seen.leaks()
        # Another reader sees the same.
        shown = hosts[0].in_tunnel("wg", "show", "wg0", "dump").splitlines()
        assert shown[0].split("\t")[1:3] == [key(0)[0], str(PORT)]
        peer, secret, endpoint, allowed, *_ = shown[1].split("\t")
        assert (peer, secret, endpoint, allowed) == (
            key(1)[0], "(none)", f"192.0.2.2:{PORT}", "100.64.0.2/32",
        )  # fmt: skip


def test_a_key_not_known_is_no_reason_to_speak_in_the_clear(tmp_path: Path) -> None:
    with wire(tmp_path) as (hosts, seen):
        for each in hosts:
            each.settle(each.wanted(hosts, 2, strangers=frozenset((0, 1))))
        seen.clear()
        assert not say(hosts[0], hosts[1], 2, 1.0)
        assert not seen.leaks()
        connect(hosts, 2)
        assert heard(hosts[0], hosts[1])


def test_who_answers_is_surveyed(tmp_path: Path) -> None:
    with wire(tmp_path) as (hosts, _):
        wanted = hosts[0].wanted(hosts, 2)
        hosts[0].settle(wanted)
        told = hosts[0].do(lambda: hosts[0].kernel.survey(wanted, (), {}, ()).handshakes)
        assert [(each.public_key, each.has_answered) for each in told] == [(key(1)[0], False)]
        connect(hosts, 2)
        assert heard(hosts[0], hosts[1])
        told = hosts[0].do(lambda: hosts[0].kernel.survey(wanted, (), {}, ()).handshakes)
        assert [each.has_answered for each in told] == [True] and told[0].sent > 148


BREAKAGES = {
    "peer removed": ("wg", "set", "wg0", "peer", key(1)[0], "remove"),
    "peer may send as nobody": ("wg", "set", "wg0", "peer", key(1)[0], "allowed-ips", ""),
    "peer elsewhere": ("wg", "set", "wg0", "peer", key(1)[0], "endpoint", "192.0.2.77:9"),
    "link down": ("ip", "link", "set", "wg0", "down"),
    "link deleted": ("ip", "link", "del", "wg0"),
    "address gone": ("ip", "addr", "flush", "dev", "wg0"),
    "another port": ("wg", "set", "wg0", "listen-port", "9"),
    "marked": ("wg", "set", "wg0", "fwmark", "7"),
}


def test_whatever_breaks_nothing_leaks_and_everything_heals(tmp_path: Path) -> None:
    with wire(tmp_path) as (hosts, seen):
        connect(hosts, 2)
        assert heard(hosts[0], hosts[1])
        wanted = hosts[0].wanted(hosts, 2)
        for what, command in BREAKAGES.items():
            hosts[0].in_tunnel(*command)
            seen.clear()
            say(hosts[0], hosts[1], 2, 0.6)
            assert not [each for each in seen.leaks() if PORT not in _ports(each)], what
            assert not any(MARKER in each for each in seen.frames), what
            assert hosts[0].settle(wanted) == 2, what
            assert heard(hosts[0], hosts[1]), what
        # The namespace as a whole: what sends from it is gone with it.
        os.system(f"umount {hosts[0].netns_dir / tunnel.NETNS}")
        seen.clear()
        say(hosts[0], hosts[1], 2, 0.6)
        assert not seen.leaks()
        deadline = time.monotonic() + 20 * PATIENCE
        while True:
            try:
                hosts[0].settle(wanted)
                break
            except (KernelError, AssertionError):
                # The kernel clears a namespace behind our back.
                assert time.monotonic() < deadline
                time.sleep(0.2)
        assert heard(hosts[0], hosts[1])


def test_who_has_no_key_is_not_heard(tmp_path: Path) -> None:
    """A frame of the encrypted network that comes in the clear, from anybody on the wire, goes nowhere."""
    with wire(tmp_path) as (hosts, _):
        # Port 4789 of the host is open for the network in the clear.
        connect(hosts, 1, 2)
        assert heard(hosts[0], hosts[1], 2)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
            run("ip", "addr", "add", "192.0.2.250/24", "dev", "wire")
            for net, vni, is_heard in ((1, CLEAR_VNI, True), (2, SECRET_VNI, False)):
                ears = hosts[1].box(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                with ears:
                    ears.bind(("", 5000))
                    ears.settimeout(2)
                    for _ in range(3):
                        forger.sendto(_forged(net, vni), ("192.0.2.2", DATA_PORT))
                    try:
                        assert (ears.recv(2000) == MARKER) is is_heard
                    except TimeoutError:
                        assert not is_heard


def _forged(net: int, vni: int) -> bytes:
    """A VXLAN packet with the marker for host 1's sandbox, as from host 0's."""
    udp = struct.pack("!HHHH", 5000, 5000, 8 + len(MARKER), 0) + MARKER
    addresses = socket.inet_aton(f"10.{net}.0.10") + socket.inet_aton(f"10.{net}.0.11")
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:]
    frame = bytes.fromhex((mac(net, 1) + mac(net, 0)).replace(":", "")) + b"\x08\x00" + head + udp
    return struct.pack("!BBHI", 8, 0, 0, vni << 8) + frame


def test_a_new_key_is_followed(tmp_path: Path) -> None:
    with wire(tmp_path) as (hosts, seen):
        connect(hosts, 2)
        assert heard(hosts[0], hosts[1])
        hosts[1].salt = 1
        hosts[1].hold()
        connect(hosts, 2)
        peers = [each for each in hosts[0].found() if isinstance(each, WireGuardPeer)]
        assert [each.public_key for each in peers] == [key(1, 1)[0]]
        assert heard(hosts[0], hosts[1]) and heard(hosts[1], hosts[0])
        assert not seen.leaks()


def test_a_key_that_is_not_held_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with wire(tmp_path, 1) as (hosts, _):
        hosts[0].salt = 5
        with pytest.raises(KernelError, match="does not hold the private key"):
            hosts[0].settle(hosts[0].wanted(hosts, 2))
        assert not any(each.key[:3] == ("link", tunnel.NETNS, "wg0") for each in hosts[0].found())


def test_the_port_is_somebody_elses(tmp_path: Path) -> None:
    with wire(tmp_path, 1) as (hosts, _):
        taken = hosts[0].do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with taken:
            taken.bind(("", PORT))
            with pytest.raises(KernelError, match="UDP port 51829 of this host is somebody else's"):
                hosts[0].settle(hosts[0].wanted(hosts, 2))
        hosts[0].settle(hosts[0].wanted(hosts, 2))


def test_it_goes_with_the_last_encrypted_network(tmp_path: Path) -> None:
    with wire(tmp_path, 1) as (hosts, _):
        for _ in range(3):
            hosts[0].settle(hosts[0].wanted(hosts, 1, 2))
            assert {"br1", "br2", "vx-net1", "vx-net2"} <= hosts[0].links()
            # Its port is free at once.
            hosts[0].settle(hosts[0].wanted(hosts, 1))
            assert not (hosts[0].netns_dir / tunnel.NETNS).exists()
            assert "vx-net2" not in hosts[0].links()


def test_it_is_read_by_single_keys(tmp_path: Path) -> None:
    with wire(tmp_path) as (hosts, _):
        wanted = hosts[0].wanted(hosts, 2)
        hosts[0].settle(wanted)
        for each in wanted:
            scope = Scope(frozenset((each.key,)))
            assert hosts[0].do(lambda scope=scope: hosts[0].kernel.read(scope)).objects == {each.key: each}  # type: ignore[misc]


def test_over_ipv6(tmp_path: Path) -> None:
    """The underlay has IPv6 alone; a packet of the network may be 20 bytes shorter."""
    with wire(tmp_path) as (hosts, seen):
        for each in hosts:
            each.run("sysctl", "-qw", "net.ipv6.conf.up0.disable_ipv6=0")
            each.run("ip", "addr", "add", f"2001:db8::{each.number + 1}/64", "dev", "up0", "nodad")
        for each in hosts:
            state = each.wanted(hosts, 2)
            other = hosts[1 - each.number]
            there = ip_address(f"2001:db8::{other.number + 1}")
            each.settle(
                KernelState.of(
                    replace(one, endpoint=there) if isinstance(one, WireGuardPeer) else one for one in state
                )
            )
        seen.clear()
        assert heard(hosts[0], hosts[1])
        assert not any(MARKER in each for each in seen.frames)
        assert any(each[12:14] == b"\x86\xdd" and each[20] == socket.IPPROTO_UDP for each in seen.frames)
