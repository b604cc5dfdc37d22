"""Names inside a container on a network of ten: dari, docker.io and aardvark-dns side by side, over the floor in C.

`sudo python -m bench.names [--rounds N] [--seconds N] [--aardvark PROGRAM]` prints medians, and dari's ratios
to each. The engines are whole and private (bench/engines.py); aardvark answers at a gateway over a veth pair, as podman
has it; the floor is a program of a few lines in C (answerer.c), asked directly where it listens. All are asked by the
same askers: one that waits for each answer, and dnsperf with 100 outstanding over one socket and over ten. `cpu_us` is
what the answerers' processes spent for an answer, `busy` how much of a core they had and `dnsperf` how much of one
dnsperf had meanwhile: who has one whole is what limits the rate. `above_floor_us` is the p50's distance to the floor's.
Rounds go round: each asks all of them once, so that what else the machine does meets all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import docker

from bench import dns
from bench.engines import Engine, darid, dockerd

AARDVARK = "/usr/lib/podman/aardvark-dns"
RATIOS = ("qps_1", "qps_10", "p50_us", "cpu_us_1", "cpu_us_10")
_QUESTIONS = 5000


class Asked(NamedTuple):
    """Where to ask, and whom."""

    name: str
    namespace: int
    server: str
    processes: Callable[[], Iterable[int]]

    def seconds(self) -> float:
        """Of processor its processes had so far."""
        total = 0
        for pid in self.processes():
            with suppress(FileNotFoundError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")


@contextmanager
def engine(start: object, folder: Path) -> Iterator[Asked]:
    """An engine with ten containers on one network; the last one asks."""
    made: Engine = start(folder)  # type: ignore[operator]
    try:
        made.load_busybox()
        client = docker.APIClient(base_url=made.host, version="1.41", timeout=120)
        client.create_network("names", driver="bridge")
        for number in range(10):
            endpoint = client.create_endpoint_config(aliases=["db"] if number == 0 else [])
            one = client.create_container(
                "busybox",
                ["sleep", "1000"],
                name=f"n{number}",
                networking_config=client.create_networking_config({"names": endpoint}),
                host_config=client.create_host_config(network_mode="names"),
            )
            client.start(one)
        pid = client.inspect_container("n9")["State"]["Pid"]
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            yield Asked(made.name, namespace, "127.0.0.11", made.processes)
        finally:
            os.close(namespace)
    finally:
        made.stop()


@contextmanager
def aardvark(program: str, folder: Path) -> Iterator[Asked]:
    """aardvark-dns at 10.89.0.1 in a namespace of its own, asked from another one."""
    folder.mkdir()
    lines = [
        "10.89.0.1",
        *(f"{secrets.token_hex(32)} 10.89.0.{n + 2}  n{n}{',db' if n == 0 else ''}" for n in range(10)),
    ]
    (folder / "names").write_text("\n".join(lines) + "\n")
    gateway, container = dns.new_netns(), dns.new_netns()

    def run(namespace: int, *command: str) -> None:
        path = f"/proc/{os.getpid()}/fd/{namespace}"
        subprocess.run(["nsenter", f"--net={path}", *command], check=True, pass_fds=(gateway, container))

    run(
        gateway,
        "ip",
        "link",
        "add",
        "v0",
        "type",
        "veth",
        "peer",
        "name",
        "v1",
        "netns",
        f"/proc/{os.getpid()}/fd/{container}",
    )
    for namespace, link, address in ((gateway, "v0", "10.89.0.1/24"), (container, "v1", "10.89.0.2/24")):
        run(namespace, "ip", "address", "add", address, "dev", link)
        run(namespace, "ip", "link", "set", link, "up")
    path = f"/proc/{os.getpid()}/fd/{gateway}"
    command = ["nsenter", f"--net={path}", program, "--config", str(folder), "--port", "53", "run"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pidfile = folder / "aardvark.pid"
    try:
        time.sleep(1)
        found = subprocess.run(["pgrep", "-f", f"config {folder}"], capture_output=True, text=True).stdout
        yield Asked("aardvark", container, "10.89.0.1", lambda: map(int, found.split()))
    finally:
        process.kill()
        process.wait()
        if pidfile.exists():  # later versions go into the background
            os.kill(int(pidfile.read_text()), signal.SIGTERM)
        os.close(gateway)
        os.close(container)


@contextmanager
def floor(folder: Path) -> Iterator[Asked]:
    """The answerer in C, in a namespace of its own."""
    folder.mkdir()
    program = str(folder / "answerer")
    subprocess.run(["cc", "-O2", "-o", program, str(Path(__file__).with_name("answerer.c"))], check=True)
    namespace = dns.new_netns()
    path = f"/proc/{os.getpid()}/fd/{namespace}"
    process = subprocess.Popen(["nsenter", f"--net={path}", program, "127.0.0.11", "53"])
    try:
        yield Asked("C", namespace, "127.0.0.11", lambda: [process.pid])
    finally:
        process.kill()
        process.wait()
        os.close(namespace)


def measure(asked: Asked, queries: str, seconds: int) -> dict[str, float]:
    found = dict(dns.latency(asked.namespace, _QUESTIONS, 53, asked.server))
    for sockets in (1, 10):
        before, asking = asked.seconds(), children()
        told = dns.load(asked.namespace, queries, seconds, 53, asked.server, sockets)
        spent = asked.seconds() - before
        found[f"busy_{sockets}"] = round(spent / seconds, 2)
        found[f"dnsperf_{sockets}"] = round((children() - asking) / seconds, 2)
        found[f"cpu_us_{sockets}"] = round(spent * 1e6 / max(1.0, told["queries_per_second"] * seconds), 2)
        found[f"qps_{sockets}"], found[f"lost_{sockets}"] = told["queries_per_second"], told["lost"]
    return found


def children() -> float:
    """Seconds of processor that ended children had."""
    had = os.times()
    return had.children_user + had.children_system


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument(
        "--aardvark", default=AARDVARK, help="aardvark-dns's program; left out where there is none"
    )
    options = parser.parse_args()
    figures: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="dari-bench-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        asked = [stack.enter_context(engine(start, folder / start.__name__)) for start in (darid, dockerd)]
        if shutil.which(options.aardvark):
            asked.append(stack.enter_context(aardvark(options.aardvark, folder / "aardvark")))
        if shutil.which("cc"):
            asked.append(stack.enter_context(floor(folder / "floor")))
        queries = folder / "queries"
        queries.write_text("db A\n")
        time.sleep(2)
        for _ in range(options.rounds):
            for each in asked:
                figures.setdefault(each.name, []).append(measure(each, str(queries), options.seconds))
    medians = {
        name: {key: statistics.median(one[key] for one in seen) for key in seen[0]}
        for name, seen in figures.items()
    }
    load = [round(each, 1) for each in os.getloadavg()]
    for name, found in medians.items():
        if "C" in medians:
            found["above_floor_us"] = round(found["p50_us"] - medians["C"]["p50_us"], 1)
        ratios = {key: round(medians["dari"][key] / found[key], 2) for key in RATIOS}
        print(json.dumps({"engine": name, **found, "dari's ratio": ratios, "load": load}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
