"""dari beside Debian's docker.io, in one run, in ratios.

The machine's speed drifts by the hour, so only figures of one run compare. Each work is done by both engines in
turn, and the median of the rounds is taken. CPU is what the whole machine spent (/proc/stat) during the work, so
it counts monitors, runtimes and clients alike.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import docker

from bench.engines import ROOT, Engine, darid, dockerd

PATIENCE = 240
"""Seconds after which a command counts as hung: docker.io 20.10 can live-lock on its iptables lock."""


def machine_cpu() -> float:
    """Milliseconds of processor the machine has spent, idle and waiting left out."""
    fields = [int(each) for each in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return 10.0 * (sum(fields[:8]) - fields[3] - fields[4])


def measure(work: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = machine_cpu(), time.perf_counter()
    work()
    return (time.perf_counter() - wall) * 1000, machine_cpu() - cpu


def works(engine: Engine, services: int, folder: Path) -> dict[str, list[Callable[[], object]]]:
    """Name → steps; each step is measured under `name[/step]`."""
    client = docker.APIClient(base_url=engine.host, version="1.41", timeout=120)
    file = folder / "docker-compose.yml"
    if not file.exists():
        rows = "\n".join(
            f"  s{n}:\n    image: busybox\n    command: sleep 1000\n    stop_grace_period: 0s"
            for n in range(services)
        )
        file.write_text(f"version: '3'\nservices:\n{rows}\n")
    compose = (
        [str(ROOT / ".venv/bin/dari"), "compose"] if engine.name == "dari" else ["/usr/bin/docker-compose"]
    ) + ["-f", str(file)]

    def call(*argv: str) -> None:
        done = subprocess.run(argv, env=engine.environment, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode:
            raise RuntimeError(f"{engine.name}: {' '.join(argv)}: {done.stderr[-2000:]}")

    def run(*flags: str) -> Callable[[], object]:
        return lambda: call("docker", "run", "--rm", *flags, "busybox", "true")

    kept = client.create_container("busybox", ["sleep", "1000"], name="kept")
    client.start(kept)
    client.create_network("side", driver="bridge")
    client.create_network("user", driver="bridge")
    return {
        "run --rm, user network": [run("--network", "user")],
        "run --rm, bridge": [run()],
        "run --rm, none": [run("--network", "none")],
        "run --rm, host": [run("--network", "host")],
        "API network create / rm": [
            lambda: client.create_network("made"),
            lambda: client.remove_network("made"),
        ],
        "API connect / disconnect": [
            lambda: client.connect_container_to_network("kept", "side"),
            lambda: client.disconnect_container_from_network("kept", "side"),
        ],
        f"compose up {services} / again / down": [
            lambda: call(*compose, "up", "-d"),
            lambda: call(*compose, "up", "-d"),
            lambda: call(*compose, "down", "-t", "0"),
        ],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--services", type=int, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help="only the works whose name starts so")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="dari-bench-") as temporary:
        engines: list[Engine] = []
        try:
            for start in (darid, dockerd):
                engines.append(start(Path(temporary) / start.__name__))
                engines[-1].load_busybox()
            stacks = Path(temporary) / "bench"
            stacks.mkdir()
            tables = {each.name: works(each, options.services, stacks) for each in engines}
            for name in tables["dari"]:
                if options.only and not name.startswith(options.only):
                    continue
                rounds = 2 if name.startswith("compose") else options.rounds
                steps = len(tables["dari"][name])
                seen: dict[str, list[list[tuple[float, float]]]] = {
                    e: [[] for _ in range(steps)] for e in tables
                }
                for _ in range(rounds):
                    for engine, table in tables.items():
                        for step, work in enumerate(table[name]):
                            seen[engine][step].append(measure(work))
                labels = name.split(" / ")
                for step in range(steps):
                    label = labels[0] if step == 0 else f"{labels[0].rsplit(' ', 1)[0]} {labels[step]}"
                    results[label] = {
                        engine: {
                            "wall_ms": statistics.median(w for w, _ in figures[step]),
                            "cpu_ms": statistics.fmean(c for _, c in figures[step]),
                        }
                        for engine, figures in seen.items()
                    }
                    row = results[label]
                    wall = [row[e]["wall_ms"] for e in ("dari", "docker.io")]
                    cpu = [row[e]["cpu_ms"] for e in ("dari", "docker.io")]
                    print(
                        f"{label:34} wall {wall[0]:9.1f} {wall[1]:9.1f} ms  x{wall[1] / wall[0]:5.1f}   "
                        f"cpu {cpu[0]:8.0f} {cpu[1]:8.0f} ms  x{cpu[1] / max(cpu[0], 1):5.1f}",
                        flush=True,
                    )
        finally:
            for engine in engines:
                engine.stop()
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
