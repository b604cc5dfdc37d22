"""verify finds what is broken, whoever broke it: a living world, one seeded fault after the other, and healed again.

The world is darid's own rooms over a real kernel, a memory store and a real responder; nobody watches, so that a
fault stays until it is mended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.engine import World, add_container
from tests.fakes.runtime import FakeRuntime
from tests.kernel.world import inside, run, run_in
from tests.patience import PATIENCE

from dari.dns import files, nudge, spawn, wire
from dari.engine import explain as operations
from dari.engine import networks, predefined
from dari.engine.base import Engine
from dari.kernel import syscalls
from dari.kernel.host import Kernel
from dari.model.config import Config
from dari.model.container import Container, PortBinding
from dari.model.explain import Question, Verification, VerifyQuestion
from dari.model.network import EndpointSpec, NetworkSpec, Subnet
from dari.reconcile import doctor, relays
from dari.reconcile.attached import of_sandbox
from dari.reconcile.context import Context
from dari.reconcile.holds import Holds
from dari.reconcile.settle import settle
from dari.runtime.images import Images
from dari.store.memory import MemoryStore
from dari.store.tables import Tables

pytestmark = pytest.mark.kernel_ns

SECONDS = 3.0


@dataclass
class Living:
    """The world and its parts by name. `bridge`, `veth` and `address` find what commands need."""

    found: World
    folder: str
    responder: int
    containers: dict[str, Container] = field(default_factory=dict)
    sockets: list[socket.socket] = field(default_factory=list)

    @property
    def ctx(self) -> Context:
        return self.found.ctx

    def path(self, name: str) -> str:
        sandbox = self.ctx.tables.sandboxes.get(self.ctx.local, self.containers[name].sandbox_id)
        assert sandbox is not None
        return sandbox.netns

    def bridge(self, network: str) -> str:
        network_id = self.ctx.tables.network_names.get(self.ctx.shared, network)
        assert network_id is not None
        return f"br-{network_id[:12]}"

    def veth(self, name: str) -> str:
        return of_sandbox(self.ctx, self.containers[name].sandbox_id)[0].host_interface

    def address(self, name: str, version: int = 4) -> str:
        endpoint = of_sandbox(self.ctx, self.containers[name].sandbox_id)[0]
        return endpoint.ipv4 if version == 4 else endpoint.ipv6

    def host(self, command: str) -> None:
        run(*command.format(w=self).split())

    def within(self, name: str, command: str) -> None:
        run_in(self.path(name), *command.format(w=self).split())

    def listen(self, name: str, kind: int, port: int) -> None:
        def made() -> socket.socket:
            sock = socket.socket(socket.AF_INET6, kind)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(("::", port))
            if kind == socket.SOCK_STREAM:
                sock.listen(4096)  # nobody accepts
            return sock

        self.sockets.append(inside(self.path(name), made))


@contextlib.asynccontextmanager
async def living(folder: Path, resolv_conf: str = "/dev/null") -> AsyncIterator[Living]:
    """db (80/tcp published at 8080, 53/udp at 5353) and web on `shop`, dual stack; vault on the internal `back`;
    both on both; solo on the default bridge."""
    exec_root = f"/tmp/dari-{secrets.token_hex(4)}"
    config = Config(data_root=str(folder), exec_root=exec_root, resolv_conf=resolv_conf)
    files.prepare(config.dns_dir)
    os.makedirs(config.netns_dir, exist_ok=True)
    responder = _responder(config.dns_dir)
    kernel, store = Kernel(config.netns_dir), MemoryStore()
    ctx = Context(
        config=config, local=store, shared=store, tables=Tables(), kernel=kernel,
        runtime=FakeRuntime(), images=Images(config), holds=Holds(),  # type: ignore[arg-type]
    )  # fmt: skip
    eng = Engine(ctx=ctx, id="5b7ed342-fe90-4628-b174-35e98f559d58", name="node", started=ctx.now())
    world = Living(World(eng, kernel, ctx.runtime, None), exec_root, responder.pid)  # type: ignore[arg-type]
    try:
        deadline = time.monotonic() + 20 * PATIENCE
        while nudge.ping(config.dns_dir) is None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        await predefined.ensure_predefined(eng)
        await _fill(world)
        yield world
    finally:
        for each in world.sockets:
            each.close()
        for task in ctx.tasks:
            task.cancel()
        await asyncio.gather(*ctx.tasks, return_exceptions=True)
        relays.stop(ctx)
        ctx.holds.close()
        await asyncio.get_running_loop().run_in_executor(ctx.settling.thread, kernel.close)
        ctx.settling.thread.shutdown()
        responder.terminate()
        responder.wait(20 * PATIENCE)
        await store.close()
        for name in os.listdir(config.netns_dir):
            syscalls.umount(f"{config.netns_dir}/{name}")
        shutil.rmtree(exec_root, ignore_errors=True)


def _responder(directory: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(spawn.command(directory))


async def _fill(world: Living) -> None:
    eng = world.found.eng
    shop = [Subnet(subnet="10.1.0.0/24"), Subnet(subnet="fd00:1::/64")]
    await networks.create(eng, NetworkSpec(name="shop", enable_ipv6=True, subnets=shop))
    await networks.create(
        eng, NetworkSpec(name="back", is_internal=True, subnets=[Subnet(subnet="10.2.0.0/24")])
    )
    bindings = {"80/tcp": [PortBinding(host_port="8080")], "53/udp": [PortBinding(host_port="5353")]}
    places: dict[str, tuple[dict[str, EndpointSpec], dict[str, Any]]] = {
        "db": ({"shop": EndpointSpec()}, {"network_mode": "shop", "port_bindings": bindings}),
        "web": ({"shop": EndpointSpec()}, {"network_mode": "shop"}),
        "vault": ({"back": EndpointSpec()}, {"network_mode": "back"}),
        "both": ({"shop": EndpointSpec(), "back": EndpointSpec()}, {"network_mode": "shop"}),
        "solo": ({"bridge": EndpointSpec()}, {}),
    }
    for name, (on, host) in places.items():
        world.containers[name] = await add_container(world.found, name, on, **host)
    await settle(world.ctx, *(each.id for each in world.containers.values()))
    for name, kind, port in (
        ("db", socket.SOCK_STREAM, 80), ("db", socket.SOCK_DGRAM, 53), ("web", socket.SOCK_STREAM, 81),
        ("vault", socket.SOCK_STREAM, 80), ("both", socket.SOCK_STREAM, 82),
    ):  # fmt: skip
        world.listen(name, kind, port)


async def verify(world: Living) -> Verification:
    return await operations.verify_project(world.found.eng, VerifyQuestion(timeout=SECONDS))


def in_kernel_tier(test: Callable[[Living], Any], folder: Path, resolv_conf: str = "/dev/null") -> None:
    async def body() -> None:
        async with living(folder, resolv_conf) as world:
            await test(world)

    asyncio.run(body())


@dataclass(frozen=True)
class Fault:
    """`do` breaks it; the doctor mends it, or `undo` does where it is not dari's. `says`: what verify must tell."""

    name: str
    do: tuple[tuple[str, str], ...]
    says: str
    undo: tuple[tuple[str, str], ...] = ()


HOST = ""


def ours(name: str, says: str, *do: tuple[str, str]) -> Fault:
    return Fault(name, do, says)


def theirs(name: str, says: str, do: tuple[str, str], undo: tuple[str, str]) -> Fault:
    return Fault(name, (do,), says, (undo,))


def table(name: str, where: str, says: str, chain: str, family: str = "inet") -> Fault:
    text = f"nft table {family} theirs {{ chain x {{ {chain} }} ; }}".replace("{", "{{").replace("}", "}}")
    return theirs(name, says, (where, text), (where, f"nft delete table {family} theirs"))


FORWARD = "type filter hook forward priority 5 ;"
RULES = (
    ours("table deleted", "inet dari", (HOST, "nft delete table inet dari")),
    ours("table flushed", "inet dari", (HOST, "nft flush table inet dari")),
    ours("everything flushed", "inet dari", (HOST, "nft flush ruleset")),
    *(
        ours(f"chain {chain} flushed", "inet dari", (HOST, f"nft flush chain inet dari {chain}"))
        for chain in (
            "raw",
            "publish",
            "prerouting",
            "output",
            "forward",
            "to_bridge",
            "postrouting",
            "enter",
        )
    ),
    ours("rule added to ours", "inet dari", (HOST, "nft insert rule inet dari forward drop")),
    ours("port taken out", "8080", (HOST, "nft delete element inet dari publish_any4 {{ tcp . 8080 }}")),
    ours("udp port taken out", "5353", (HOST, "nft delete element inet dari publish_any4 {{ udp . 5353 }}")),
    ours(
        "port leads elsewhere",
        "8080",
        (HOST, "nft delete element inet dari publish_any4 {{ tcp . 8080 }}"),
        (
            HOST,
            "nft add element inet dari publish_any4 {{ tcp . 8080 : {w.containers[web].name} . 81 }}".replace(
                "{w.containers[web].name}", "10.1.0.99"
            ),
        ),
    ),
    ours(
        "port nobody published",
        "9999",
        (HOST, "nft add element inet dari publish_any4 {{ tcp . 9999 : 10.1.0.2 . 80 }}"),
    ),
    ours("pair taken out", "pairs", (HOST, "nft delete element inet dari pairs {{ {w.shop} . {w.shop} }}")),
    ours(
        "bridge unknown to the rules",
        "bridges",
        (HOST, "nft delete element inet dari bridges {{ {w.shop} }}"),
    ),
    ours(
        "masquerading off",
        "masquerade4",
        (HOST, "nft delete element inet dari masquerade4 {{ 10.1.0.0/24 }}"),
    ),
    ours("subnet forgotten", "subnets4", (HOST, "nft delete element inet dari subnets4 {{ 10.1.0.0/24 }}")),
    ours("internal no more", "internal", (HOST, "nft delete element inet dari internal {{ {w.back} }}")),
    ours("internal by mistake", "internal", (HOST, "nft add element inet dari internal {{ {w.shop} }}")),
    ours("sandbox's rules gone", "table ip dari", ("web", "nft delete table ip dari")),
)
LINKS = (
    ours("bridge down", "{w.shop}", (HOST, "ip link set {w.shop} down")),
    ours("bridge deleted", "{w.shop}", (HOST, "ip link del {w.shop}")),
    ours("veth down on the host", "db", (HOST, "ip link set {w.db} down")),
    ours("veth down inside", "db", ("db", "ip link set eth0 down")),
    ours("veth deleted", "db", (HOST, "ip link del {w.db}")),
    ours("veth off its bridge", "db", (HOST, "ip link set {w.db} nomaster")),
    ours("veth on another bridge", "db", (HOST, "ip link set {w.db} master {w.back}")),
    ours(
        "interface renamed",
        "eth0",
        ("db", "ip link set eth0 down"),
        ("db", "ip link set eth0 name lan0"),
        ("db", "ip link set lan0 up"),
    ),
    ours("another mtu", "mtu", (HOST, "ip link set {w.db} mtu 1300")),
    ours("another mac", "db", ("db", "ip link set eth0 address 02:00:00:00:00:77")),
    ours("isolated port", "db", (HOST, "bridge link set dev {w.db} isolated on")),
    ours("no hairpin", "db", (HOST, "bridge link set dev {w.db} hairpin off")),
    ours("loopback down", "lo", ("db", "ip link set lo down")),
)
ADDRESSES_AND_SETTINGS = (
    ours("address gone", "10.1.0.", ("db", "ip -4 addr flush dev eth0")),
    ours("ipv6 address gone", "fd00:1", ("db", "ip -6 addr flush dev eth0 scope global")),
    ours("gateway's address gone", "10.1.0.1", (HOST, "ip addr del 10.1.0.1/24 dev {w.shop}")),
    ours("default route gone", "default", ("web", "ip route del default")),
    ours("ipv6 default route gone", "::/0", ("web", "ip -6 route del default")),
    ours("default route wrong", "default", ("web", "ip route replace default via 10.1.0.77")),
    ours("forwarding off", "ip_forward", (HOST, "sysctl -q -w net.ipv4.ip_forward=0")),
    ours("ipv6 forwarding off", "forwarding", (HOST, "sysctl -q -w net.ipv6.conf.all.forwarding=0")),
    ours(
        "route_localnet off", "route_localnet", (HOST, "sysctl -q -w net.ipv4.conf.{w.shop}.route_localnet=0")
    ),
    ours("ipv6 off inside", "disable_ipv6", ("db", "sysctl -q -w net.ipv6.conf.eth0.disable_ipv6=1")),
)
OTHERS = (
    table("foreign drop", HOST, "nobody passes", f'{FORWARD} tcp dport 80 drop comment "nobody passes" ;'),
    table("foreign policy", HOST, "policy (drop)", f"{FORWARD} policy drop ;"),
    table("foreign reject", HOST, "table inet theirs", f"{FORWARD} tcp dport 80 reject ;"),
    table("foreign raw drop", HOST, "table inet theirs",
          "type filter hook prerouting priority -400 ; tcp dport 8080 drop ;"),
    table("answers dropped", HOST, "its answer", f"{FORWARD} tcp sport 80 drop ;"),
    table("bridge drop", HOST, "table bridge theirs", f"{FORWARD} udp dport 53 drop ;", "bridge"),
    table("somebody else's redirect", HOST, "outside should reach db",
          "type nat hook prerouting priority -150 ; tcp dport 8080 redirect to :9 ;"),
    table("drop on the way in", "db", "table inet theirs", "type filter hook input priority 0 ; tcp dport 80 drop ;"),
    table("drop on the way out", "web", "table inet theirs",
          "type filter hook output priority 0 ; meta l4proto tcp drop ;"),
    table("names dropped", "web", "web should know db", "type filter hook output priority -300 ; udp dport 53 drop ;"),
    theirs("iptables drop", "keep-out",
           (HOST, "iptables -I FORWARD -p tcp --dport 80 -m comment --comment keep-out -j DROP"),
           (HOST, "iptables -D FORWARD -p tcp --dport 80 -m comment --comment keep-out -j DROP")),
    theirs("address clash inside", "instead of db",
           ("web", "ip addr add 10.1.0.2/32 dev lo"), ("web", "ip addr del 10.1.0.2/32 dev lo")),
    theirs("blackhole inside", "web should reach db",
           ("web", "ip route add blackhole 10.1.0.2/32"), ("web", "ip route del blackhole 10.1.0.2/32")),
    theirs("blackhole on the host", "outside should reach db",
           (HOST, "ip route add blackhole 10.1.0.2/32"), (HOST, "ip route del blackhole 10.1.0.2/32")),
    theirs("policy routing inside", "web should reach",
           ("web", "ip rule add prohibit pref 10"), ("web", "ip rule del prohibit pref 10")),
    theirs("false neighbour", "web should reach db",
           ("web", "ip neigh replace 10.1.0.2 lladdr 02:00:00:00:00:99 dev eth0 nud permanent"),
           ("web", "ip neigh del 10.1.0.2 dev eth0")),
)  # fmt: skip


GROUPS = {"rules": RULES, "links": LINKS, "addresses": ADDRESSES_AND_SETTINGS, "others": OTHERS}


def test_there_are_enough_of_them() -> None:
    faults = [each for group in GROUPS.values() for each in group]
    assert len(faults) >= 50 and len({each.name for each in faults}) == len(faults)


def carry_out(world: Living, steps: tuple[tuple[str, str], ...]) -> None:
    for where, command in steps:
        text = command.replace("{w.shop}", world.bridge("shop")).replace("{w.back}", world.bridge("back"))
        text = text.replace("{w.db}", world.veth("db")).replace("{{", "{").replace("}}", "}")
        words = ["nft", text.removeprefix("nft ")] if text.startswith("nft ") else text.split()
        if where == HOST:
            run(*words)
        else:
            run_in(world.path(where), *words)


async def _each_fault(world: Living, faults: tuple[Fault, ...], wrong: list[str]) -> None:
    before = await verify(world)
    assert before.is_as_asked, (before.findings, before.differences)
    assert world.address("db") == "10.1.0.2"
    for fault in faults:
        carry_out(world, fault.do)
        found = await verify(world)
        said = " ".join([*found.findings, *found.differences])
        says = fault.says.replace("{w.shop}", world.bridge("shop"))
        if found.is_as_asked or says not in said:
            wrong.append(f"{fault.name}: as asked {found.is_as_asked}, expected {says!r} in: {said}")
        carry_out(world, fault.undo)
        await doctor.mend(world.ctx)
        for name in world.containers:
            run_in(world.path(name), "ip", "neigh", "flush", "all")
        run("ip", "neigh", "flush", "all")
        healed = await verify(world)
        if not healed.is_as_asked:
            wrong.append(f"{fault.name} is not healed: {healed.findings} {healed.differences}")
            break


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_every_fault_is_found(tmp_path: Path, group: str) -> None:
    wrong: list[str] = []
    in_kernel_tier(lambda world: _each_fault(world, GROUPS[group], wrong), tmp_path)
    assert not wrong, "\n".join(wrong)


async def _dead_names(world: Living) -> None:
    os.kill(world.responder, signal.SIGSTOP)
    try:
        found = await verify(world)
        assert not found.is_as_asked
        assert any(each.startswith("web should know db as ") for each in found.findings)
        # Only names are at fault.
        assert all(each.is_as_asked for each in found.cells)
    finally:
        os.kill(world.responder, signal.SIGCONT)
    assert (await verify(world)).is_as_asked


def test_a_mute_responder_is_found(tmp_path: Path) -> None:
    in_kernel_tier(_dead_names, tmp_path)


async def _both_families(world: Living) -> None:
    eng = world.found.eng
    address = world.address("db", 6)
    assert address
    found = await operations.explain(eng, Question(source="web", target=address, port=80, timeout=SECONDS))
    assert (found.is_reachable, found.conclusion, found.source.address) == (
        True, "reachable", world.address("web", 6),
    )  # fmt: skip
    found = await operations.explain(eng, Question(source="vault", target=address, port=80, timeout=SECONDS))
    assert (found.is_reachable, found.conclusion) == (False, "meant")


def test_ipv6_is_explained_too(tmp_path: Path) -> None:
    in_kernel_tier(_both_families, tmp_path)


def _answer_one_name(server: socket.socket, stop: threading.Event) -> None:
    """A resolver of the host's that knows example.test (198.51.100.7) and nobody else."""
    while not stop.is_set():
        try:
            query, asker = server.recvfrom(512)
        except TimeoutError:
            continue
        question = wire.read_question(query)
        assert question is not None
        is_known = question.name == wire.wire_name("example.test") and question.qtype == wire.TYPE_A
        records = [wire.record(wire.TYPE_A, 60, bytes((198, 51, 100, 7)))] if is_known else []
        rcode = wire.NOERROR if question.name == wire.wire_name("example.test") else wire.NXDOMAIN
        server.sendto(wire.reply(query, question.end, rcode, None, records, 512), asker)


async def _names_outside(world: Living) -> None:
    eng = world.found.eng
    run("ip", "route", "add", "unreachable", "198.51.100.0/24")
    try:
        # Nobody forwards there, but the name is as the container would find it.
        question = Question(source="web", target="example.test", port=443, timeout=SECONDS)
        found = await operations.explain(eng, question)
        assert found.target.address == "198.51.100.7" and not found.is_reachable
        assert found.names[0].is_ok and "127.0.0.11 answers 198.51.100.7" in found.names[0].text
        assert found.probe is not None and found.probe.outcome == "unreachable"
    finally:
        run("ip", "route", "del", "unreachable", "198.51.100.0/24")
    found = await operations.explain(eng, Question(source="web", target="nobody.test", port=443))
    assert (found.conclusion, found.probe) == ("meant", None) and "NXDOMAIN" in found.text
    # From an internal network nobody is asked.
    found = await operations.explain(eng, Question(source="vault", target="example.test", port=443))
    assert found.conclusion == "meant" and "nobody vault could ask" in found.text


def test_a_name_outside_is_resolved_as_the_container_would(tmp_path: Path) -> None:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.1\n")
    stop = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))
        server.settimeout(0.1)
        thread = threading.Thread(target=_answer_one_name, args=(server, stop))
        thread.start()
        try:
            in_kernel_tier(_names_outside, tmp_path, str(resolv))
        finally:
            stop.set()
            thread.join()
