"""Questions a second and latency of dari-dns, in namespaces of its own making.

`sudo python bench/dns.py [--seconds N] [--sandboxes N] [--names N]` prints one JSON object. dnsperf (Debian's) makes
the load; latency is that of one asker who waits for each answer. With `--names`, one name of so many on a network
changes again and again: `gap_ms` is the longest that an asker waited while a change was put in force, the median and
the worst of all changes; in `still` of as many equal spaces of time without one (what the machine does to anybody), in
`line` of changes added to the file, in `whole` of files put in place anew. On a busy machine those are mostly waits for
a processor; `slice_ms` is the processor time the responder has between two looks at questions while it reads such a
file, the median and the longest. Nothing is asserted: compare runs of one hour.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import itertools
import json
import os
import re
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from dari.dns import book, files, nudge, spawn, zone

PORT = 5311
_libc = ctypes.CDLL(None, use_errno=True)


def new_netns() -> int:
    """A descriptor of a fresh network namespace with its loopback up."""
    found: list[int] = []

    def make() -> None:
        if _libc.unshare(0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock, 0x8914, struct.pack("16sh22x", b"lo", 1))
        found.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return found[0]


def latency(namespace: int, count: int, port: int = PORT, server: str = "127.0.0.11") -> dict[str, float]:
    """Microseconds of one asker's questions, one after the other."""
    found: list[float] = []

    def ask() -> None:
        if _libc.setns(namespace, 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.connect((server, port))
            question = b"\0\0\1\0\0\1\0\0\0\0\0\0\2db\0\0\1\0\1"
            for number in range(count):
                started = time.perf_counter()
                sock.send(number.to_bytes(2, "big") + question[2:])
                sock.recv(512)
                found.append((time.perf_counter() - started) * 1e6)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    found.sort()
    return {"p50_us": round(found[len(found) // 2], 1), "p99_us": round(found[len(found) * 99 // 100], 1)}


def load(
    namespace: int, queries: str, seconds: int, port: int = PORT, server: str = "127.0.0.11", sockets: int = 4
) -> dict[str, float]:
    """dnsperf's figures inside a namespace."""
    path = f"/proc/{os.getpid()}/fd/{namespace}"
    command = ["nsenter", f"--net={path}", "dnsperf", "-s", server, "-p", str(port)]
    command += ["-d", queries, "-l", str(seconds), "-q", "100", "-c", str(sockets), "-T", "1"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Queries per second:\s+([\d.]+)", text)
    lost = re.search(r"Queries lost:\s+(\d+)", text)
    assert rate is not None and lost is not None, text
    return {"queries_per_second": round(float(rate[1])), "lost": int(lost[1])}


def gaps(directory: str, space: int, count: int, rounds: int = 40) -> dict[str, dict[str, float]]:
    """What an asker in `space` waits while one of `count` names of zone `n` changes."""
    names = large(count)
    names.put("db", book.piece(["db"], zone.Addresses(("172.18.0.2",)), "db"))
    path = f"{directory}/{zone.zone_path('n')}"

    def whole() -> None:
        with open(f"{path}.new", "w", encoding="ascii") as file:
            file.write(names.take_text())
        os.rename(f"{path}.new", path)

    def line() -> None:
        assert files.append(path, names.take_change(), os.stat(path).st_size)

    whole()
    nudge.nudge(directory, [zone.zone_path("n")], 30)
    # A process of its own, so that what is written here does not hold it up.
    with tempfile.TemporaryFile("w+") as told:
        code = _ASKER.format(port=PORT)
        asker = subprocess.Popen(
            ["nsenter", f"--net=/proc/{os.getpid()}/fd/{space}", sys.executable, "-c", code], stdout=told
        )
        spans: dict[str, list[tuple[float, float]]] = {"still": [], "line": [], "whole": []}
        try:
            time.sleep(1)
            for number in range(rounds):
                for kind, write in (("line", line), ("whole", whole)):
                    names.put("x", book.piece(["x"], zone.Addresses((f"10.9.0.{number}",)), "x"))
                    started = time.monotonic()
                    write()
                    nudge.nudge(directory, [zone.zone_path("n")], 30)
                    spans[kind].append((started, time.monotonic()))
                    time.sleep(0.05)
                started = time.monotonic()
                time.sleep(0.02)
                spans["still"].append((started, time.monotonic()))
        finally:
            asker.terminate()
            asker.wait()
        told.seek(0)
        asked = [tuple(map(float, each.split())) for each in told.read().splitlines()[:-1]]
    found = {}
    for kind, seen in spans.items():
        waits = sorted(
            max((end - began for began, end in asked if began < last and end > first), default=0.0) * 1e3
            for first, last in seen
        )
        took = statistics.median(last - first for first, last in seen) * 1e3
        found[kind] = {
            "gap_ms": round(statistics.median(waits), 2),
            "worst_ms": round(waits[-1], 2),
            "in_force_ms": round(took, 2),
        }
    return found


_ASKER = """
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(10)
sock.connect(("127.0.0.11", {port}))
now, write = time.monotonic, sys.stdout.write
while True:
    began = now()
    sock.send(b"\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\2db\\0\\0\\1\\0\\1")
    sock.recv(512)
    write(f"{{began}} {{now()}}\\n")
"""


def slices(count: int) -> dict[str, float]:
    """Milliseconds of processor between two looks at questions while a zone of `count` names is read whole."""
    from dari.dns.loop import Loop
    from dari.dns.server import Server

    class Clock(Loop):
        def __init__(self) -> None:
            super().__init__()
            self.looks: list[float] = []

        def glance(self) -> None:
            self.looks.append(time.thread_time())

    with tempfile.TemporaryDirectory() as folder:
        files.prepare(folder)
        with open(f"{folder}/{zone.zone_path('n')}", "w", encoding="ascii") as file:
            file.write(large(count).text())
        loop = Clock()
        server = Server(folder, loop, lambda *_: None)
        began = time.thread_time()
        server.apply([zone.zone_path("n")])
        marks = [began, *loop.looks, time.thread_time()]
        server.close()
    found = sorted((end - start) * 1e3 for start, end in itertools.pairwise(marks))
    return {"median": round(found[len(found) // 2], 2), "longest": round(found[-1], 2)}


def large(count: int) -> book.Book:
    """A zone of so many names."""
    names = book.Book(zone.Zone("n", "web"))
    for number in range(count):
        address = f"10.{number // 65536}.{number // 256 % 256}.{number % 256}"
        names.put(str(number), book.piece([f"c{number}"], zone.Addresses((address,)), f"c{number}"))
    return names


def memory(pid: int) -> float:
    """PSS in MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)
    assert found is not None
    return round(int(found[1]) / 1024, 1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--sandboxes", type=int, default=200)
    parser.add_argument("--names", type=int, default=0)
    options = parser.parse_args()
    spaces = [new_netns() for _ in range(options.sandboxes)]
    with tempfile.TemporaryDirectory() as folder:
        directory = f"{folder}/dns"
        files.prepare(directory)
        names = {
            f"app-{n}": zone.Addresses((f"172.18.{n // 250}.{n % 250 + 2}",))
            for n in range(options.sandboxes)
        }
        files.write_zone(
            directory, zone.Zone("n", "web", names={"db": zone.Addresses(("172.18.0.2",)), **names})
        )
        for number, space in enumerate(spaces):
            path = f"/proc/{os.getpid()}/fd/{space}"
            files.write_view(directory, zone.View(f"s{number}", path, PORT, ("n",)))
        queries = Path(folder, "queries")
        queries.write_text("".join(f"{name} A\n" for name in ("db", *names)))
        started = time.perf_counter()
        process = subprocess.Popen(spawn.command(directory, log_level="error"))
        try:
            while nudge.ping(directory) is None:
                time.sleep(0.001)
            result: dict[str, Any] = {
                "sandboxes": options.sandboxes,
                "start_ms": round((time.perf_counter() - started) * 1e3, 1),
                "pss_mib": memory(process.pid),
            }
            result.update(latency(spaces[0], 20_000))
            result.update(load(spaces[-1], str(queries), options.seconds))
            started = time.perf_counter()
            files.write_zone(
                directory, zone.Zone("n", "web", names={"db": zone.Addresses(("172.18.0.3",)), **names})
            )
            nudge.nudge(directory, [zone.zone_path("n")])
            result["zone_nudge_ms"] = round((time.perf_counter() - started) * 1e3, 2)
            result["pss_mib_after"] = memory(process.pid)
            if options.names:
                result["gaps"] = gaps(directory, spaces[0], options.names)
                result["pss_mib_names"] = memory(process.pid)
                result["slice_ms"] = slices(options.names)
            result["load"] = os.getloadavg()[0]
        finally:
            process.terminate()
            process.wait()
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
