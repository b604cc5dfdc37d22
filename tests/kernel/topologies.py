"""Worlds drawn by chance, several topologies in each, and packets sent between all of their ends at once.

A topology is up to three networks with up to four sandboxes of its own; all topologies of a world share the host
and a machine outside. `Crossfire` sends TCP, UDP and pings from every end and listens to what comes back.
"""

from __future__ import annotations

import os
import random
import selectors
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from tests.kernel.world import inside, run, run_in

from dari.net.desired import (
    Desired,
    EndpointWant,
    Flow,
    LinkWant,
    NetworkWant,
    PolicyWant,
    PublishWant,
    RouteWant,
    SandboxWant,
    SubnetWant,
)
from dari.net.packet import OUTSIDE, Probe
from dari.net.state import HOST, Address, Prefix

PORT = 80
WAN4, FAR4 = ip_address("192.0.2.1"), ip_address("192.0.2.2")
WAN6, FAR6 = ip_address("2001:db8::1"), ip_address("2001:db8::2")
PATIENCE, SILENCE, AGAIN = 120.0, 0.35, 1.0
AT_ONCE = 40


@dataclass(frozen=True, slots=True)
class Topology:
    """`asked`: (host address, port) of its published ports and some that are not."""

    desired: Desired
    asked: tuple[tuple[Address, int], ...]

    @property
    def sandboxes(self) -> tuple[str, ...]:
        return tuple(each.netns for each in self.desired.sandboxes)

    def probes(self) -> list[Probe]:
        """Every pair of ends, by every address the one has."""
        found = []
        addresses = [(end.sandbox_id, one.ip) for end in self.desired.endpoints for one in end.addresses]
        gateways = [one.gateway.ip for net in self.desired.networks for one in net.subnets if one.gateway]
        sources = [*self.sandboxes, HOST, OUTSIDE]
        for source in sources:
            targets = [(each, PORT) for owner, each in addresses if owner != source]
            targets += [(each, PORT) for each in gateways if source != HOST]
            targets += [(each, port) for each, port in self.asked if source == HOST or not each.is_loopback]
            if source not in (HOST, OUTSIDE):
                targets += [(FAR4, PORT), (FAR6, PORT)]
            for destination, port in targets:
                for protocol in ("tcp", "udp", "icmp") if port == PORT else ("tcp", "udp"):
                    far = FAR4 if destination.version == 4 else FAR6
                    found.append(
                        Probe(
                            source,
                            destination,
                            protocol,  # type: ignore[arg-type]
                            None if protocol == "icmp" else port,
                            far if source == OUTSIDE else None,
                            "wan" if source == OUTSIDE else "",
                        )
                    )
        return found


def draw(chance: random.Random, place: int) -> Topology:
    """The `place`th of its world: its subnets, names and ports are no other's."""
    networks = [_network(chance, place, each) for each in range(chance.randint(1, 3))]
    boxes = chance.randint(2, 4)
    endpoints: list[EndpointWant] = []
    published: dict[int, list[PublishWant]] = {box: [] for box in range(boxes)}
    asked: list[tuple[Address, int]] = []
    for box in range(boxes):
        joined = sorted(chance.sample(range(len(networks)), chance.randint(1, min(2, len(networks)))))
        for order, number in enumerate(joined):
            endpoints.append(_endpoint(chance, networks[number], place, box, order))
        for order in range(chance.choice((0, 0, 1, 2))):
            publish = _publish(chance, endpoints, place, box, order)
            if publish is not None:
                published[box].append(publish)
                asked += _asked(chance, publish)
    return Topology(
        Desired(
            tuple(networks),
            tuple(endpoints),
            tuple(
                SandboxWant(
                    f"t{place}b{box}",
                    f"t{place}b{box}",
                    publishes=tuple(published[box]),
                    policy=_policy(chance, endpoints, networks, place, box)
                    if chance.random() < 0.25
                    else None,
                    links=tuple(_links(chance, endpoints, networks, place, box)),
                )
                for box in range(boxes)
            ),
        ),
        tuple(dict.fromkeys(asked)),
    )


def _links(
    chance: random.Random,
    endpoints: Sequence[EndpointWant],
    networks: Sequence[NetworkWant],
    place: int,
    box: int,
) -> Iterator[LinkWant]:
    """To some of those that are kept apart from it."""
    apart = {each.id for each in networks if not each.is_icc}
    for own in endpoints:
        for other in endpoints:
            is_between = own.network_id == other.network_id and own.sandbox_id == f"t{place}b{box}"
            if not is_between or own is other or own.network_id not in apart or chance.random() < 0.5:
                continue
            ends = (next(one.ip for one in each.addresses if one.version == 4) for each in (own, other))
            yield LinkWant(*map(IPv4Address, ends), chance.choice(("tcp", "udp")), PORT)


def _network(chance: random.Random, place: int, number: int) -> NetworkWant:
    second = 10 * place + number
    four = SubnetWant(ip_network(f"10.{second}.0.0/24"), ip_interface(f"10.{second}.0.1/24"))
    six = SubnetWant(ip_network(f"fd00:{second}::/64"), ip_interface(f"fd00:{second}::1/64"))
    modes: dict[int, Any] = {}
    for version in (4, 6):
        if chance.random() < 0.25:
            modes[version] = chance.choice(("routed", "nat-unprotected"))
    return NetworkWant(
        id=f"t{place}n{number}",
        name=f"net{number}",
        bridge_name=f"br{second}",
        altname=f"dari-net-{second}",
        subnets=(four, six) if chance.random() < 0.4 else (four,),
        is_internal=chance.random() < 0.25,
        is_icc=(is_icc := chance.random() < 0.6),
        is_default=not is_icc,
        is_masquerading=chance.random() < 0.85,
        mtu=chance.choice((1500, 1500, 1400)),
        gateway_modes=modes,
        is_direct_routing=chance.random() < 0.15,
        snat={4: WAN4, 6: WAN6} if chance.random() < 0.15 else {},
        trusted_interfaces=("wan",) if chance.random() < 0.1 else (),
    )


def _endpoint(chance: random.Random, network: NetworkWant, place: int, box: int, order: int) -> EndpointWant:
    last = box + 10
    second = network.bridge_name.removeprefix("br")
    addresses = tuple(
        ip_interface((one.prefix.network_address + last, one.prefix.prefixlen)) for one in network.subnets
    )
    routes = ()
    if order and chance.random() < 0.3:
        routes = (RouteWant(ip_network("192.0.2.0/24"), network.subnets[0].gateway.ip),)  # type: ignore[union-attr]
    return EndpointWant(
        id=f"{network.id}b{box}",
        network_id=network.id,
        sandbox_id=f"t{place}b{box}",
        host_interface=f"v{second}-{box}",
        interface=f"eth{order}",
        mac=f"02:42:0a:{int(second):02x}:00:{last:02x}",
        addresses=addresses,
        gateways=tuple(one.gateway.ip for one in network.subnets if one.gateway is not None),
        is_default_gateway=order == 0,
        routes=routes,
        altname=f"dari-ep-{second}-{box}",
    )


def _policy(
    chance: random.Random,
    endpoints: Sequence[EndpointWant],
    networks: Sequence[NetworkWant],
    place: int,
    box: int,
) -> PolicyWant:
    """Some may call it, some may not, by some interfaces nobody who is not allowed to."""
    own = [each for each in endpoints if each.sandbox_id == f"t{place}b{box}"]
    others = [one.ip for each in endpoints if each not in own for one in each.addresses]
    gateways = [one.gateway.ip for each in networks for one in each.subnets if one.gateway is not None]
    drawn: dict[Prefix, str] = {}
    for address in chance.sample([*others, *gateways], chance.randint(0, min(4, len(others)))):
        drawn[ip_network(str(address))] = chance.choice(("allow", "deny"))
    said: dict[str, list[Flow]] = {"allow": [], "deny": []}
    for prefix, word in drawn.items():
        said[word].append(Flow(prefix, "tcp", 70, 90))
        if chance.random() < 0.5:
            said[word].append(Flow(prefix, "icmp" if prefix.version == 4 else "58", 0, 65535))
    joined = {each.network_id for each in own}
    return PolicyWant(
        allow=tuple(said["allow"]),
        deny=tuple(said["deny"]),
        outside_allow=(("tcp", 80, 80),) if chance.random() < 0.5 else (),
        outside_deny=(("udp", 0, 65535),) if chance.random() < 0.3 else (),
        inner=tuple(one.prefix for each in networks if each.id in joined for one in each.subnets),
        closed=tuple(each.interface for each in own if chance.random() < 0.6),
    )


def _publish(
    chance: random.Random, endpoints: Sequence[EndpointWant], place: int, box: int, order: int
) -> PublishWant | None:
    own = [each for each in endpoints if each.sandbox_id == f"t{place}b{box}"]
    target = chance.choice([one.ip for each in own for one in each.addresses])
    hosts = ("0.0.0.0", "0.0.0.0", "127.0.0.1", str(WAN4)) if target.version == 4 else ("::", "::", str(WAN6))
    port = 8000 + 100 * place + 20 * box + 10 * order
    # A range of ports, the first of which the sandbox listens on.
    count = 5 if chance.random() < 0.3 else 1
    protocol = chance.choice(("tcp", "tcp", "udp"))
    return PublishWant(protocol, ip_address(chance.choice(hosts)), port, target, PORT, count)  # type: ignore[arg-type]


def _asked(chance: random.Random, publish: PublishWant) -> list[tuple[Address, int]]:
    version = publish.host_ip.version
    own: list[Address] = [WAN4, ip_address("127.0.0.1")] if version == 4 else [WAN6]
    if not publish.host_ip.is_unspecified and publish.host_ip not in own:
        own.append(publish.host_ip)
    gateway = ip_interface((publish.target, 24 if version == 4 else 64)).network.network_address + 1
    own.append(gateway)
    ports = [publish.host_port]
    if publish.count > 1:
        ports.append(publish.host_port + 1)
    return [(address, port) for address in own for port in ports]


def merged(topologies: Iterable[Topology]) -> Desired:
    """All of them in one."""
    parts = [each.desired for each in topologies]
    return Desired(
        tuple(one for part in parts for one in part.networks),
        tuple(one for part in parts for one in part.endpoints),
        tuple(one for part in parts for one in part.sandboxes),
    )


def attach_outside(folder: Path) -> Path:
    """A machine behind `wan` that knows the way to all sandboxes, so that only rules keep it out."""
    path = folder / "outside"
    path.touch()
    run("unshare", f"--net={path}", "true")
    run("ip", "link", "add", "wan", "type", "veth", "peer", "name", "lan", "netns", str(path))
    run("ip", "addr", "add", f"{WAN4}/24", "dev", "wan")
    run("ip", "addr", "add", f"{WAN6}/64", "dev", "wan", "nodad")
    run("ip", "link", "set", "wan", "up")
    for command in (
        f"addr add {FAR4}/24 dev lan",
        f"addr add {FAR6}/64 dev lan nodad",
        "link set lan up",
        "link set lo up",
        f"route add 10.0.0.0/8 via {WAN4}",
        f"-6 route add fd00::/16 via {WAN6}",
    ):
        run_in(path, "ip", *command.split())
    return path


@dataclass(slots=True)
class _Question:
    probe: Probe
    socket: socket.socket
    number: int
    echo: int


@dataclass(slots=True)
class Crossfire:
    """`paths`: where each namespace is bound; HOST is the calling thread's own."""

    paths: dict[str, Path | None]
    _stack: ExitStack = field(default_factory=ExitStack)
    _servers: list[socket.socket] = field(default_factory=list)
    # Pings of another round must be no part of this one's conversations.
    _rounds: int = 0

    def listen(self, names: Iterable[str]) -> None:
        """Everybody listens on PORT, TCP and UDP, both families."""
        for name in names:
            for each in self.within(name, _listening):
                self._servers.append(each)
                self._stack.callback(each.close)

    def fire(self, probes: Sequence[Probe], expected: Sequence[bool]) -> list[bool]:
        """Whether each probe was answered. Those that are expected are asked again and waited for (a machine under
        load loses packets), the others get a little time after that."""
        self._rounds += 7919
        with selectors.DefaultSelector() as selector, ExitStack() as stack:
            volley = _Volley(self, probes, self._rounds, selector, stack)
            for each in self._servers:
                if each.type != socket.SOCK_STREAM:
                    selector.register(each, selectors.EVENT_READ, None)
            volley.ask(range(len(probes)))
            deadline = time.monotonic() + PATIENCE
            again = time.monotonic() + AGAIN
            while time.monotonic() < deadline and (missing := volley.missing(expected)):
                volley.hear(0.1)
                if time.monotonic() > again:
                    volley.ask(missing)
                    again = time.monotonic() + AGAIN
            silence = time.monotonic() + SILENCE
            while time.monotonic() < silence:
                volley.hear(0.05)
            return [number in volley.answered for number in range(len(probes))]

    def within(self, name: str, work: Any) -> Any:
        path = self.paths[name]
        return work() if path is None else inside(str(path), work)

    def close(self) -> None:
        self._stack.close()


def _listening() -> list[socket.socket]:
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            made = socket.socket(family, kind | socket.SOCK_NONBLOCK)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if kind == socket.SOCK_DGRAM:
                # Answers leave from the address that was asked, as a socket of a connected client's would.
                if family == socket.AF_INET:
                    made.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
                else:
                    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            made.bind(("0.0.0.0" if family == socket.AF_INET else "::", PORT))
            if kind == socket.SOCK_STREAM:
                made.listen(4096)
            found.append(made)
    return found


def _ask(probe: Probe, number: int, mark: int) -> _Question | None:
    """None: the kernel refuses to send at all."""
    family = (
        socket.AF_INET if probe.destination is None or probe.destination.version == 4 else socket.AF_INET6
    )
    if probe.protocol == "icmp":
        protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
        made = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    else:
        kind = socket.SOCK_STREAM if probe.protocol == "tcp" else socket.SOCK_DGRAM
        made = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        if made.connect_ex((str(probe.destination), probe.port or 0)) not in (0, 115):
            made.close()
            return None
        if probe.protocol == "udp":
            made.send(b"question")
        elif probe.protocol == "icmp":
            made.send(_echo(family, number + mark))
    except OSError:
        made.close()
        return None
    return _Question(probe, made, number, (number + mark) & 0xFFFF)


def _echo(family: int, number: int) -> bytes:
    kind = 8 if family == socket.AF_INET else 128
    body = struct.pack("!BBHHH", kind, 0, 0, number & 0xFFFF, 1) + b"question"
    total = sum(struct.unpack(f"!{len(body) // 2}H", body))
    total = (total & 0xFFFF) + (total >> 16)
    check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return body[:2] + struct.pack("!H", check) + body[4:]


class _Volley:
    """Questions under way at one time."""

    def __init__(
        self,
        fire: Crossfire,
        probes: Sequence[Probe],
        mark: int,
        selector: selectors.BaseSelector,
        stack: ExitStack,
    ) -> None:
        self._fire = fire
        self._probes = probes
        self._mark = mark
        self._selector = selector
        self._stack = stack
        self._gone: set[int] = set()
        self.answered: set[int] = set()

    def missing(self, expected: Sequence[bool]) -> list[int]:
        """Expected, not answered, and somebody is there to ask."""
        return [
            number
            for number, is_expected in enumerate(expected)
            if is_expected and number not in self.answered and number not in self._gone
        ]

    def ask(self, numbers: Iterable[int]) -> None:
        """A few at a time: what the kernel cannot queue it drops."""
        by_source: dict[str, list[int]] = {}
        for number in numbers:
            by_source.setdefault(self._probes[number].source_netns, []).append(number)
        for source, own in by_source.items():
            for at in range(0, len(own), AT_ONCE):
                part = own[at : at + AT_ONCE]
                try:
                    made = self._fire.within(
                        source, lambda part=part: [_ask(self._probes[n], n, self._mark) for n in part]
                    )
                except OSError:
                    # The namespace is gone: nobody asks from there.
                    self._gone.update(own)
                    break
                for question in made:
                    if question is not None:
                        self._stack.callback(question.socket.close)
                        is_tcp = question.probe.protocol == "tcp"
                        event = selectors.EVENT_WRITE if is_tcp else selectors.EVENT_READ
                        self._selector.register(question.socket, event, question)
                self.hear(0)

    def hear(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            made = key.fileobj
            assert isinstance(made, socket.socket)
            question = key.data
            if question is None:
                _echo_back(made)
                continue
            try:
                if not _is_answer(made, question):
                    continue
                self.answered.add(question.number)
            except OSError:
                # Refused, or told that there is no way: this one is done.
                pass
            self._selector.unregister(made)


def _is_answer(made: socket.socket, question: _Question) -> bool:
    if question.probe.protocol == "tcp":
        error = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        return True
    data = made.recv(2000)
    if question.probe.protocol == "udp":
        return data == b"question"
    # A raw IPv4 socket gets the IP header too, and every reply the address sends.
    at = 4 * (data[0] & 15) if made.family == socket.AF_INET else 0
    kind, _, _, number, _ = struct.unpack_from("!BBHHH", data, at)
    return kind in (0, 129) and number == question.echo


def _echo_back(server: socket.socket) -> None:
    try:
        data, extra, _, sender = server.recvmsg(2000, 256)
    except OSError:
        return
    kept = []
    for level, kind, value in extra:
        if level == socket.IPPROTO_IP and kind == 8:
            _, _, to = struct.unpack("=I4s4s", value[:12])
            kept.append((level, kind, struct.pack("=I4s4s", 0, to, to)))
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            kept.append((level, kind, value[:16] + struct.pack("=I", 0)))
    try:
        server.sendmsg([data], kept, 0, sender)
    except OSError:
        # No way back to who asked: he hears nothing.
        return
