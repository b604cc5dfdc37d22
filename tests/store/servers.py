"""Real etcd and ZooKeeper servers on loopback, each with a data folder of its own, stopped by pid."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.patience import PATIENCE

# Debian's package leaves out of the class path what TLS needs.
_JARS = [
    "zookeeper",
    *(f"netty-{part}" for part in ("buffer", "codec", "common", "handler", "resolver", "transport")),
]
ZOOKEEPER = "/usr/share/java/zookeeper.jar"
_START_SECONDS = 60.0 * PATIENCE
_ATTEMPTS = 3


def free_ports(count: int) -> list[int]:
    """Ports nobody has, and nobody gets by chance: a server that is away for a moment must not find its own taken by
    somebody's outgoing connection (or by its client's, which then talks to itself)."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    while len(found) < count:
        port = 10_000 + secrets.randbelow(max(lowest, 20_000) - 10_000)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


def has_etcd() -> bool:
    return shutil.which("etcd") is not None


def has_zookeeper() -> bool:
    return os.path.exists(ZOOKEEPER) and shutil.which("java") is not None


@dataclass
class Member:
    """One server process. `port` is the clients'."""

    command: list[str]
    port: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = open(self.folder / "log", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(
            self.command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        log.close()

    def signal(self, number: int) -> None:
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        if self.process is None:
            return
        self.signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)


@dataclass
class Cluster:
    kind: str
    members: list[Member]

    @property
    def url(self) -> str:
        return f"{self.kind}://" + ",".join(f"127.0.0.1:{each.port}" for each in self.members)

    def wait(self) -> None:
        """Until every member takes requests."""
        is_ready = etcd_is_ready if self.kind == "etcd" else zookeeper_is_ready
        for each in self.members:
            wait_until(lambda each=each: is_ready(each), each)  # type: ignore[misc]


def wait_until(is_done: Callable[[], bool], member: Member) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not is_done():
        if time.monotonic() > deadline or (member.process is not None and member.process.poll() is not None):
            raise AssertionError(
                f"{member.command[0]} did not start: {(member.folder / 'log').read_text()[-2000:]}"
            )
        time.sleep(0.05)


def etcd_is_ready(member: Member) -> bool:
    return _answers(
        member.port,
        b"POST /v3/kv/range HTTP/1.0\r\nContent-Length: 14\r\n\r\n" + b'{"key":"YQ=="}',
        b"header",
    )


def zookeeper_is_ready(member: Member) -> bool:
    return _answers(member.port, b"srvr", b"Mode:")


def port_is_open(member: Member) -> bool:
    """All that can be asked of a server that wants certificates."""
    try:
        socket.create_connection(("127.0.0.1", member.port), 1.0).close()
    except OSError:
        return False
    return True


def _answers(port: int, question: bytes, sign: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as link:
            link.settimeout(2.0)
            link.sendall(question)
            answer = b""
            while chunk := link.recv(4096):
                answer += chunk
            return sign in answer
    except OSError:
        return False


def etcd_members(folder: Path, count: int, *extra: str, scheme: str = "http") -> list[Member]:
    ports = free_ports(2 * count)
    names = [f"m{number}" for number in range(count)]
    peers = ",".join(f"{name}=http://127.0.0.1:{ports[2 * i + 1]}" for i, name in enumerate(names))
    made = []
    for index, name in enumerate(names):
        here = folder / name
        here.mkdir(parents=True)
        client, peer = ports[2 * index], ports[2 * index + 1]
        command = ["etcd", "--name", name, "--data-dir", str(here / "data"), "--unsafe-no-fsync"]
        command += ["--listen-client-urls", f"{scheme}://127.0.0.1:{client}"]
        command += ["--advertise-client-urls", f"{scheme}://127.0.0.1:{client}"]
        command += ["--listen-peer-urls", f"http://127.0.0.1:{peer}"]
        command += ["--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}", "--initial-cluster", peers]
        command += ["--heartbeat-interval", "100", "--election-timeout", "600", *extra]
        if command.count("--unsafe-no-fsync") and not _knows_no_fsync():
            command.remove("--unsafe-no-fsync")
        made.append(Member(command, client, here))
    return made


def _knows_no_fsync() -> bool:
    shown = subprocess.run(["etcd", "--help"], capture_output=True, text=True, check=False)
    return "unsafe-no-fsync" in shown.stdout + shown.stderr


def zookeeper_members(folder: Path, count: int) -> list[Member]:
    ports = free_ports(3 * count)
    servers = "".join(
        f"server.{i + 1}=127.0.0.1:{ports[3 * i + 1]}:{ports[3 * i + 2]}\n" for i in range(count)
    )
    made = []
    for index in range(count):
        here = folder / f"z{index}"
        (here / "data").mkdir(parents=True)
        (here / "data" / "myid").write_text(f"{index + 1}\n")
        (here / "zoo.cfg").write_text(
            f"tickTime=500\ninitLimit=20\nsyncLimit=10\ndataDir={here}/data\nclientPort={ports[3 * index]}\n"
            "clientPortAddress=127.0.0.1\nadmin.enableServer=false\n4lw.commands.whitelist=*\nmaxClientCnxns=0\n"
            "minSessionTimeout=1000\nmaxSessionTimeout=60000\nforceSync=no\n" + (servers if count > 1 else "")
        )
        command = ["java", "-Xmx192m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        command += [
            "-Dzookeeper.root.logger=WARN,CONSOLE",
            f"-Dzookeeper.log.dir={here}",
            "-Dzookeeper.jmx.log4j.disable=true",
        ]
        command += [
            "-cp",
            ":".join(["/etc/zookeeper/conf", *(f"/usr/share/java/{jar}.jar" for jar in _JARS)]),
        ]
        command += ["org.apache.zookeeper.server.quorum.QuorumPeerMain", str(here / "zoo.cfg")]
        made.append(Member(command, ports[3 * index], here))
    return made


@contextmanager
def running(kind: str, folder: Path, count: int = 1, *extra: str) -> Iterator[Cluster]:
    """A cluster of `count` servers that takes requests. A port that was free may be taken when its server comes to
    it: then everything is begun anew."""
    for attempt in range(_ATTEMPTS):
        here = folder / f"try{attempt}"
        members = etcd_members(here, count, *extra) if kind == "etcd" else zookeeper_members(here, count)
        cluster = Cluster(kind, members)
        try:
            for each in members:
                each.start()
            cluster.wait()
        except AssertionError:
            for each in members:
                each.kill()
            if attempt + 1 == _ATTEMPTS:
                raise
            continue
        try:
            yield cluster
        finally:
            for each in members:
                each.kill()
        return
