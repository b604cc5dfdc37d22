"""TCP through dari beside the same links built by hand, and what publishing costs: one run, ratios.

`sudo python -m bench.traffic [--rounds N] [--seconds N] [--json FILE]`. Both worlds live in namespaces of their own;
iperf3 runs in them by turns, so that a busy machine slows both. By hand means: a bridge, veth pairs, one rule that
translates and one that masquerades, nothing else. Then, over darid's API: publishing one port and a range of ten
thousand, and how long a published port does not answer after `nft flush ruleset`. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import docker

from bench.engines import Engine, darid

PORT = 5201
OUTSIDE, HERE = "198.51.100.2", "198.51.100.1"
PATHS = ("container to container", "host to container", "outside to published port")


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def enter(pid: int, *command: str) -> list[str]:
    return ["nsenter", "-t", str(pid), "-n", *command]


class World:
    """`pids` are processes that live in the namespaces: a and b (containers), host, outside."""

    def __init__(self, name: str, pids: dict[str, int], a: str) -> None:
        self.name, self.pids = name, pids
        self.targets = {PATHS[0]: ("b", a), PATHS[1]: ("host", a), PATHS[2]: ("outside", HERE)}
        self.server = subprocess.Popen(
            enter(pids["a"], "iperf3", "-s", "-p", str(PORT)), stdout=subprocess.DEVNULL
        )

    def measure(self, path: str, seconds: int) -> float:
        """Gbit/s."""
        where, address = self.targets[path]
        said = run(
            *enter(self.pids[where], "iperf3", "-J", "-c", address, "-p", str(PORT), "-t", str(seconds))
        )
        return float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 1e9

    def close(self) -> None:
        self.server.terminate()
        self.server.wait()


def attach_outside(host: int, outside: int) -> None:
    """A link from the host's namespace to a machine outside."""
    run(
        *enter(
            host,
            *["ip", "link", "add", "world", "type", "veth", "peer", "name", "eth0", "netns"],
            str(outside),
        )
    )
    for pid, words in (
        (host, f"address add {HERE}/24 dev world"),
        (host, "link set world up"),
        (outside, f"address add {OUTSIDE}/24 dev eth0"),
        (outside, "link set eth0 up"),
        (outside, "link set lo up"),
    ):
        run(*enter(pid, "ip", *words.split()))


@contextlib.contextmanager
def namespaces(count: int) -> Iterator[list[int]]:
    """Processes in as many network namespaces of their own."""
    made = [subprocess.Popen(["unshare", "-n", "sleep", "100000"]) for _ in range(count)]
    try:
        own = Path("/proc/self/ns/net").readlink()
        for each in made:
            while Path(f"/proc/{each.pid}/ns/net").readlink() == own:
                time.sleep(0.01)
        yield [each.pid for each in made]
    finally:
        for each in made:
            each.kill()
            each.wait()


def by_hand(host: int, a: int, b: int, outside: int) -> World:
    run(*enter(host, "ip", "link", "set", "lo", "up"))
    run(*enter(host, "ip", "link", "add", "br0", "type", "bridge"))
    run(*enter(host, "ip", "address", "add", "10.9.0.1/24", "dev", "br0"))
    run(*enter(host, "ip", "link", "set", "br0", "up"))
    for name, pid, address in (("va", a, "10.9.0.2"), ("vb", b, "10.9.0.3")):
        run(
            *enter(host, "ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        )
        run(*enter(host, "ip", "link", "set", name, "master", "br0", "up"))
        run(*enter(pid, "ip", "address", "add", f"{address}/24", "dev", "eth0"))
        run(*enter(pid, "ip", "link", "set", "eth0", "up"))
        run(*enter(pid, "ip", "route", "add", "default", "via", "10.9.0.1"))
    attach_outside(host, outside)
    run(*enter(host, "sysctl", "-qw", "net.ipv4.ip_forward=1"))
    rules = f"""table ip hand {{
        chain pre {{ type nat hook prerouting priority dstnat; tcp dport {PORT} dnat to 10.9.0.2; }}
        chain post {{ type nat hook postrouting priority srcnat; oifname "world" masquerade; }}
    }}"""
    run(*enter(host, "nft", rules))
    return World("by hand", {"a": a, "b": b, "host": host, "outside": outside}, "10.9.0.2")


def by_dari(engine: Engine, client: docker.APIClient, outside: int) -> World:
    client.create_network("web", driver="bridge")
    pids = {"host": engine.process.pid, "outside": outside}
    address = ""
    for name in ("b", "a"):
        ports: dict[str, Any] = {"port_bindings": {PORT: PORT}} if name == "a" else {}
        made = client.create_container(
            "busybox",
            ["sleep", "100000"],
            name=f"box-{name}",
            ports=[PORT] if ports else None,
            host_config=client.create_host_config(network_mode="web", **ports),
        )
        client.start(made)
        shape = client.inspect_container(made)
        pids[name] = shape["State"]["Pid"]
        address = shape["NetworkSettings"]["Networks"]["web"]["IPAddress"]
    attach_outside(pids["host"], outside)
    return World("dari", pids, address)


def publishing(client: docker.APIClient, rounds: int) -> dict[str, float]:
    """Milliseconds to publish and take back, over the API; by turns."""
    url = f"{client.base_url}/dari/v1/containers/box-b/ports"
    kinds = (
        ("one port", "80/tcp", "8080"),
        ("10,000 ports", "20000-29999/tcp", "20000-29999"),
        ("10,000 ports, moved", "30000-39999/tcp", "20000-29999"),
    )
    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, private, public in kinds:
            body = {"PortBindings": {private: [{"HostPort": public}]}}
            start = time.perf_counter()
            client.post(url, json=body).raise_for_status()
            middle = time.perf_counter()
            client.delete(url, params={"port": private}).raise_for_status()
            taken.setdefault(f"publish {name}, ms", []).append((middle - start) * 1000)
            taken.setdefault(f"unpublish {name}, ms", []).append((time.perf_counter() - middle) * 1000)
    return {what: statistics.median(each) for what, each in taken.items()}


def recovery(world: World, rounds: int) -> float:
    """Milliseconds from the end of `nft flush ruleset` until the published port answers from outside."""
    taken = []
    for _ in range(rounds):
        subprocess.run(enter(world.pids["host"], "nft", "flush", "ruleset"), check=True)
        start = time.perf_counter()
        probe = subprocess.run(
            enter(world.pids["outside"], "python3", "-c", _PROBE, HERE, str(PORT)),
            check=True,
            capture_output=True,
        )
        began = float(probe.stdout)
        taken.append((time.perf_counter() - start) * 1000 - began)
        time.sleep(0.3)
    return statistics.median(taken)


# Prints how long its own start took, so that it can be left out.
_PROBE = """
import socket, sys, time
start = time.perf_counter()
began = time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID) * 1000
while True:
    s = socket.socket(); s.settimeout(0.05)
    try:
        s.connect((sys.argv[1], int(sys.argv[2]))); break
    except OSError:
        s.close()
print(began)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="dari-bench-") as temporary, namespaces(5) as pids:
        engine = darid(Path(temporary) / "darid")
        worlds: list[World] = []
        try:
            engine.load_busybox()
            client = docker.APIClient(base_url=engine.host, version="1.41", timeout=120)
            worlds = [by_dari(engine, client, pids[4]), by_hand(*pids[:4])]
            time.sleep(0.5)
            results |= traffic(worlds, options.rounds, options.seconds)
            results |= publishing(client, 3 * options.rounds)
            results["recovery after a flush, ms"] = recovery(worlds[0], options.rounds)
        finally:
            for each in worlds:
                each.close()
            engine.stop()
    for name, value in results.items():
        print(f"{name:42} {value:10.2f}" if isinstance(value, float) else f"{name:42} {value}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 0


def traffic(worlds: Sequence[World], rounds: int, seconds: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in PATHS:
        rates: dict[str, list[float]] = {each.name: [] for each in worlds}
        for number in range(rounds):
            # Who goes first takes turns.
            for each in worlds if number % 2 else reversed(worlds):
                rates[each.name].append(each.measure(path, seconds))
        medians = {name: round(statistics.median(each), 2) for name, each in rates.items()}
        pairs = zip(rates["dari"], rates["by hand"], strict=True)
        ratio = statistics.median(mine / hand for mine, hand in pairs)
        found[path] = {**medians, "dari / by hand": round(ratio, 3)}
        print(path, found[path], flush=True)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
