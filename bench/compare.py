"""dari beside Debian's docker.io (and, with --podman, Debian's podman), in one run, in ratios.

The machine's speed drifts by the hour, so only figures of one run compare. Each work is done by one engine and then
the other, and the median of the rounds is taken. CPU is what the whole machine spent (/proc/stat) during the work,
so it counts monitors, runtimes and clients alike. A work an engine does not finish is tried once more and then told
as n/a.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import docker

from bench import dns
from bench.engines import ROOT, Engine, darid, dockerd, podman

PATIENCE = 60
"""Seconds after which a command counts as hung: docker.io 20.10 can live-lock on its iptables lock."""


@dataclass(slots=True)
class Work:
    """`labels` and `steps` go together. `tidy` makes room after a step that failed."""

    labels: Sequence[str]
    steps: Sequence[Callable[[], object]]
    rounds: int | None = None
    tidy: Callable[[], object] | None = None


@dataclass(slots=True)
class Seen:
    """One engine's figures of one work: for each step, wall and CPU milliseconds of each round."""

    figures: list[list[tuple[float, float]]] = field(default_factory=list)
    failure: str = ""


def machine_cpu() -> float:
    """Milliseconds of processor the machine has spent, idle and waiting left out."""
    fields = [int(each) for each in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return 10.0 * (sum(fields[:8]) - fields[3] - fields[4])


def measure(work: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = machine_cpu(), time.perf_counter()
    work()
    return (time.perf_counter() - wall) * 1000, machine_cpu() - cpu


def compose_work(engine: Engine, services: int, folder: Path) -> Work:
    """`up -d`, `up -d` again and `down` of that many services, by the engine's own Compose."""
    file = folder / f"stack{services}" / "docker-compose.yml"
    file.parent.mkdir(exist_ok=True)
    rows = "\n".join(
        f"  s{n}:\n    image: busybox\n    command: sleep 1000\n    stop_grace_period: 0s"
        for n in range(services)
    )
    file.write_text(f"version: '3'\nservices:\n{rows}\n")
    compose = (
        [str(ROOT / ".venv/bin/dari"), "compose"] if engine.name == "dari" else ["/usr/bin/docker-compose"]
    ) + ["-f", str(file)]

    def up() -> None:
        call(engine, *compose, "up", "-d")

    def down() -> None:
        call(engine, *compose, "down", "-t", "0")

    labels = [f"compose {verb}, {services} services" for verb in ("up", "up again", "down")]
    return Work(labels, [up, up, down], rounds=2, tidy=down)


def call(engine: Engine, *argv: str) -> None:
    """Raises RuntimeError with what the command said."""
    try:
        done = subprocess.run(argv, env=engine.environment, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{' '.join(argv)}: no end within {PATIENCE} s") from None
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr[-2000:]}")


def works(engine: Engine, services: Sequence[int], folder: Path) -> list[Work]:
    """In the same order for each engine."""
    client = docker.APIClient(base_url=engine.host, version="1.41", timeout=PATIENCE)

    def run(*flags: str) -> Callable[[], object]:
        return lambda: call(engine, *engine.run_command, "run", "--rm", *flags, "busybox", "true")

    call(engine, *engine.run_command, "run", "-d", "--name", "kept", "busybox", "sleep", "1000")
    client.create_network("side", driver="bridge")
    client.create_network("user", driver="bridge")
    return [
        Work(["run --rm, user network"], [run("--network", "user")]),
        Work(["run --rm, bridge"], [run(*(() if engine.name != "podman" else ("--network", "podman")))]),
        Work(["run --rm, none"], [run("--network", "none")]),
        Work(["run --rm, host"], [run("--network", "host")]),
        Work(
            ["API network create", "API network rm"],
            [lambda: client.create_network("made"), lambda: client.remove_network("made")],
        ),
        Work(
            ["API connect", "API disconnect"],
            [
                lambda: client.connect_container_to_network("kept", "side"),
                lambda: client.disconnect_container_from_network("kept", "side"),
            ],
        ),
        # podman's own compose is a program of others.
        *(compose_work(engine, count, folder) for count in services if engine.name != "podman"),
    ]


def rounds(work: Work, count: int) -> Seen:
    """All rounds of one work by one engine; where one fails, all of them once more."""
    for attempt in (1, 2):
        seen = Seen([[] for _ in work.steps])
        try:
            for _ in range(work.rounds or count):
                for step, each in enumerate(work.steps):
                    seen.figures[step].append(measure(each))
            return seen
        except (RuntimeError, OSError, docker.errors.APIError) as error:
            print(f"attempt {attempt}: {error}", file=sys.stderr, flush=True)
            seen.failure = str(error)
        if work.tidy is not None:
            try:
                work.tidy()
            except RuntimeError as error:
                print(f"tidying up: {error}", file=sys.stderr, flush=True)
                return seen
    return seen


def names_and_memory(engine: Engine, folder: Path, seconds: int) -> dict[str, float]:
    """Ten containers on one network: what the engine takes, and how its names answer inside one of them."""
    client = docker.APIClient(base_url=engine.host, version="1.41", timeout=PATIENCE)
    client.create_network("names", driver="bridge")
    ids = []
    for number in range(10):
        aliases = ["db"] if number == 0 else []
        endpoint = client.create_endpoint_config(aliases=aliases)
        made = client.create_container(
            "busybox",
            ["sleep", "1000"],
            name=f"n{number}",
            networking_config=client.create_networking_config({"names": endpoint}),
            host_config=client.create_host_config(network_mode="names"),
        )
        client.start(made)
        ids.append(made["Id"])
    time.sleep(2)
    result = {"memory": engine.memory()}
    queries = folder / "queries"
    queries.write_text("db A\n")
    namespace = os.open(f"/proc/{client.inspect_container(ids[-1])['State']['Pid']}/ns/net", os.O_RDONLY)
    try:
        result.update(dns.latency(namespace, 10_000, 53))
        result.update(dns.load(namespace, str(queries), seconds, 53))
    finally:
        os.close(namespace)
    for each in ids:
        client.remove_container(each, force=True)
    client.remove_network("names")
    return result


def row(label: str, unit: str, figures: Sequence[tuple[float, float] | None], is_rate: bool = False) -> str:
    """One line: wall (or the value) of each engine and the others' ratios to dari, the same for CPU where there is
    one."""
    told = " ".join(f"{'n/a':>9}" if each is None else f"{each[0]:9.1f}" for each in figures)
    text = f"{label:30} {told} {unit:3}"
    mine = figures[0]
    if mine is None:
        return text
    others = figures[1:]
    ratios = ["-" if each is None else _ratio(mine[0], each[0], is_rate) for each in others]
    text += "  " + " ".join(f"{each:>6}" for each in ratios)
    if any(each is not None and each[1] for each in figures):
        spent = " ".join(f"{'n/a':>7}" if each is None else f"{each[1]:7.0f}" for each in figures)
        ratios = ["-" if each is None else _ratio(max(mine[1], 1), each[1]) for each in others]
        text += f"   cpu {spent} ms  " + " ".join(f"{each:>6}" for each in ratios)
    return text


def _ratio(mine: float, theirs: float, is_rate: bool = False) -> str:
    return f"x{mine / theirs if is_rate else theirs / mine:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--services", type=int, nargs="*", default=[10, 30])
    parser.add_argument("--seconds", type=int, default=3, help="of load on the names")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--podman", action="store_true", help="beside podman too")
    parser.add_argument("--only", help="only the works whose name starts so")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results: dict[str, dict[str, dict[str, float] | None]] = {}
    with tempfile.TemporaryDirectory(prefix="dari-bench-") as temporary:
        engines: list[Engine] = []
        try:
            others = [dockerd, *([podman] if options.podman else [])]
            for start in (darid, *others):
                engines.append(start(Path(temporary) / start.__name__))
                engines[-1].load_busybox()
            measure_all(engines, options, Path(temporary), results)
        finally:
            for engine in engines:
                engine.stop()
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 0


def measure_all(
    engines: Sequence[Engine],
    options: argparse.Namespace,
    folder: Path,
    results: dict[str, dict[str, dict[str, float] | None]],
) -> None:
    stacks = folder / "stacks"
    stacks.mkdir()
    tables = [works(each, options.services, stacks) for each in engines]
    if not options.only or "names".startswith(options.only):
        # podman's names are aardvark's: see bench/names.py.
        told = [names_and_memory(each, folder, options.seconds) for each in engines if each.name != "podman"]
        for label, key, unit, is_rate in (
            ("memory, 10 containers", "memory", "MiB", False),
            ("names, p50", "p50_us", "us", False),
            ("names, p99", "p99_us", "us", False),
            ("names, answers a second", "queries_per_second", "", True),
        ):
            results[label] = {e.name: {key: t[key]} for e, t in zip(engines, told, strict=False)}
            print(row(label, unit, [(each[key], 0.0) for each in told], is_rate), flush=True)
    print(f"{'':30} {' '.join(f'{each.name:>9}' for each in engines)}", flush=True)
    for pair in itertools.zip_longest(*tables):
        if options.only and not pair[0].labels[0].startswith(options.only):
            continue
        seen = [rounds(work, options.rounds) if work is not None else Seen(failure="none") for work in pair]
        for step, label in enumerate(pair[0].labels):
            figures = [
                None
                if each.failure
                else (
                    statistics.median(w for w, _ in each.figures[step]),
                    statistics.fmean(c for _, c in each.figures[step]),
                )
                for each in seen
            ]
            results[label] = {
                engine.name: None if each is None else {"wall_ms": each[0], "cpu_ms": each[1]}
                for engine, each in zip(engines, figures, strict=True)
            }
            print(row(label, "ms", figures), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
